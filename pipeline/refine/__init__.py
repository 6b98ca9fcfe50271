"""Kinematical and dynamical refinement of a structure against reduced data."""
