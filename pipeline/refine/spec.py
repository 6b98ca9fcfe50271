"""Choices of the refinement. Tags of the sources: A1-A9 and B are sections of the physics notes."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from nanoed.pipeline.part import Part

Protocol = Literal["precession", "rotation", "still"]
"""How a frame moves the crystal."""


class ThicknessSpec(Part):
    """Thickness along the beam: a shape of one free size, turned with the crystal (A7)."""

    model: Literal["plate", "lamella", "wedge", "rod", "sphere", "cylinder", "ellipsoid"] = "plate"
    """plate: one thickness along any beam; lamella: a slab seen obliquely, thicker by one over the cosine; wedge: 0 to
    T; rod: a long cylinder; the others as named, `aspect` long."""
    axis_uvw: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Long axis of rod, cylinder and ellipsoid, normal of a lamella: a direct-lattice direction."""
    aspect: PositiveFloat = 1.0
    """Length over diameter of cylinder and ellipsoid, as images show it."""
    start_A: PositiveFloat | None = None
    """Mean thickness at the start; None: from a scan."""
    refine: bool = True
    """False: the thickness stays at start_A."""
    scan_A: tuple[PositiveFloat, PositiveFloat] = (50.0, 800.0)
    """Range of the scan over the mean thickness, in steps of `scan_ratio`."""
    scan_ratio: Annotated[float, Field(gt=1)] = 1.25
    """Ratio of successive thicknesses of the scan."""
    nodes: PositiveInt = 12
    """Gauss nodes of the thickness distribution (A7: 8-12)."""
    angle_terms: Annotated[int, Field(ge=0, le=6)] = 0
    """Legendre polynomials of the stage angle in the log of the size, beyond a constant; 0: a rigid body."""
    frame_spread: PositiveFloat | None = None
    """Every frame has a size of its own, whose log is this (prior spread) about the common one; None: it has not."""

    @model_validator(mode="after")
    def _possible(self) -> ThicknessSpec:
        if not any(self.axis_uvw):
            raise ValueError("axis_uvw must not be 0 0 0")
        if self.scan_A[0] >= self.scan_A[1]:
            raise ValueError("scan_A must rise")
        if not self.refine and (self.start_A is None or self.angle_terms or self.frame_spread is not None):
            raise ValueError("a thickness that is not refined needs start_A, and neither frame_spread nor angle_terms")
        return self


class LinearConstraint(Part):
    """sum of coefficient times parameter = value."""

    terms: Annotated[dict[str, float], Field(min_length=1)]
    """Coefficients by name of the parameter, such as "Ti1.occupancy"."""
    value: float | None = None
    """None: what the start model has."""


class ConstraintSpec(Part):
    """What is held, beyond symmetry. Parameters are named LABEL.x, .y, .z, .occupancy, .U_iso, .U11 ... .U23.

    fixed : patterns such as "O*.U*" of parameters that stay as the start model has them.
    shared : groups of patterns whose parameters have one value, the mean of the start model's.
    linear : further linear equations.
    free_occupancies : patterns of labels whose occupancy is refined by itself.
    hydrogens : riding: each moves with the atom it is bound to and has riding_u times its U_eq, riding_u_rotor times
        where it swings about a bond (hydroxyl, water, methyl and NH3); fixed; or free.
    """

    fixed: tuple[str, ...] = ()
    shared: tuple[tuple[str, ...], ...] = ()
    linear: tuple[LinearConstraint, ...] = ()
    free_occupancies: tuple[str, ...] = ()
    hydrogens: Literal["riding", "fixed", "free"] = "riding"
    riding_u: PositiveFloat = 1.2
    riding_u_rotor: PositiveFloat = 1.5


class BondRestraint(Part):
    """The distances between two labels' atoms are this long, for those within a quarter of it in the start model."""

    atoms: tuple[str, str]
    length_A: PositiveFloat
    su_A: PositiveFloat = 0.01


class AdpRestraint(Part):
    """Displacements of atoms whose labels match, for those with anisotropic ones.

    kind : rigid_bond: bound atoms move alike along their bond (Hirshfeld 1976); similar: bound atoms have the same
    Cartesian tensor; isotropic: a tensor is the sphere of its U_eq.
    """

    kind: Literal["rigid_bond", "similar", "isotropic"]
    su_A2: PositiveFloat
    atoms: tuple[str, ...] = ("*",)


class RestraintSpec(Part):
    """Observations beside the data, each (value - target) / su squared in the sum."""

    bonds: tuple[BondRestraint, ...] = ()
    adps: tuple[AdpRestraint, ...] = ()


class TwinSpec(Part):
    """A second domain whose lattice coincides with the first's.

    law : h of a spot in the second domain = law times h in the first, row by row; determinant 1 or -1.
    """

    law: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
    fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Volume of the second domain at the start."""
    refine: bool = True

    @field_validator("law")
    @classmethod
    def _keeps_volume(
        cls, value: tuple[tuple[float, float, float], ...]
    ) -> tuple[tuple[float, float, float], ...]:
        if abs(abs(np.linalg.det(np.array(value))) - 1) > 1e-6:
            raise ValueError("a twin law has determinant 1 or -1")
        return value


class RefineSpec(Part):
    """Least squares against merged or per-frame intensities.

    factors : table of scattering factors.
    adp_model : displacement parameters of all sites, or as_model: as the start model has them, site by site.
    occupancies : fixed; sites: elements exchange on mixed sites; composition: so that the cell's composition stays.
    d_star_max : resolution limit of the reflections, 1/Å.
    instability : u of w = 1 / (sigma² + (2 u I)²) (A8).
    weights : of merged intensities; errors: that w; unit: 1 / <sigma²> for all, so that the strongest decide (s.u. are
        then no longer those of the errors).
    emphasis : e of w = max(I, sigma / 100)^e / (sigma² + (2 u I)²), frame-based; 0: weights of the errors (A8); 1:
        weights of F on intensities, exactly as the program diffBloch has them (s.u. are then no longer those of the
        errors).
    frame_weights : errors: frames weigh by their errors; equal: each has the same sum of w I², so that the sum of the
        frames' wR² is minimised; mean_wr: their weights are found so that the mean of the frames' wR is (by
        iteration; a frame that the model describes badly counts less).
    max_cycles : of Gauss-Newton; more is an error.  settled : largest shift / s.u. of a converged model.
    Frame-based only:
    protocol : how a frame moves the crystal; None: as the data state it, precession where they do not.
    rs_g_max : limit of |S| / (|g| semi-angle) at the centre of the frame (A4).
    ds_g_min : how far, 1/Å, the frame must carry a reflection beyond the Ewald sphere (A4: 0.0015 for thick crystals;
        None for particles, whose own width is larger).
    still_s_max : with protocol still, reflections lie within this of the Ewald sphere, 1/Å, instead (C6: 1/D of 10 nm
        holds 85 % of the intensity).
    g_margin : beams reach this far beyond d_star_max, 1/Å (A4).
    s_g_max : beams within this of the Ewald sphere, 1/Å (A4: 0.02 for particles above 10 nm).
    s_g_taper : part of s_g_max over which beams fade out, so that intensities do not jump with the tilts; 0: not.
    n_azimuth : samples of a frame; None: the rule of A5.
    min_reflections : frames with fewer are left out.
    optimise_orientations : two tilts per frame are refined.  tilt_prior_deg : their prior spread. None: the error that
        the data state for each orientation, over the misfit of the intensities; 0.3 where they state none.
    tilt_search_deg, tilt_search_step_deg : frames of a rotation are searched on a grid this far from the reduction's
        orientation first (0: not), since the fringes of a thick crystal, 1/(g t) apart, make many minima.
    tilt_searches : how often; from the second time on the frames that fit worse than half of them.
    tilt_settled_deg : a search over tilts ends below this step.  reselections : most times that the beams are
        chosen anew at the orientations found.
    start_frames, start_cycles : frames, evenly spread, and number of the first cycles, which bring the model near.
    start_s_ratio : these use s_g_max times this, and beams up to d_star_max alone.
    constraints, restraints : see there.
    absorption : imaginary over real part of every potential coefficient; 0: none (A1: 0.1 is usual).
        refine_absorption : it is a parameter, from there on.
    mosaicity_deg : standard deviation of the Gaussian spread of orientations about both tilts (A6); 0: none.
        refine_mosaicity : it is a parameter.
    mosaic_tilts : orientations that sample it across the axis of a rotation, in the last stage; the time grows as
        they do. 1: about the axis alone, which changes little where frames are wide.
    twin : a second domain.
    potential_scale : factor of the potential; 0.01 makes the frame-based refinement kinematical (B).
    heldout_folds : the frames are left out in so many turns, and each is predicted by a structure without it, found
        by one step from that of all frames; None: not.
    heldout_every : every so many frames one has no say in the structure; None: all have.
    both_hands : a chiral structure is refined in both hands by the dynamical method, which alone tells them apart; the
        better one is the result.
    """

    factors: Literal["peng", "lobato", "kirkland"] = "peng"
    adp_model: Literal["isotropic", "anisotropic", "as_model"] = "isotropic"
    occupancies: Literal["fixed", "sites", "composition"] = "fixed"
    d_star_max: PositiveFloat = 1.4
    instability: NonNegativeFloat = 0.01
    weights: Literal["errors", "unit"] = "errors"
    emphasis: Annotated[float, Field(ge=0, le=1)] = 0.0
    frame_weights: Literal["errors", "equal", "mean_wr"] = "errors"
    max_cycles: PositiveInt = 40
    settled: PositiveFloat = 0.05
    protocol: Protocol | None = None
    rs_g_max: PositiveFloat = 0.75
    still_s_max: PositiveFloat = 0.01
    ds_g_min: NonNegativeFloat | None = None
    g_margin: NonNegativeFloat = 0.2
    s_g_max: PositiveFloat = 0.02
    s_g_taper: Annotated[float, Field(ge=0, lt=1)] = 0.1
    n_azimuth: PositiveInt | None = None
    thickness: ThicknessSpec = ThicknessSpec()
    min_reflections: PositiveInt = 4
    optimise_orientations: bool = True
    tilt_prior_deg: PositiveFloat | None = None
    tilt_settled_deg: PositiveFloat = 0.003
    tilt_search_deg: NonNegativeFloat = 0.25
    tilt_search_step_deg: PositiveFloat = 0.05
    tilt_searches: PositiveInt = 2
    reselections: PositiveInt = 4
    start_frames: PositiveInt = 24
    start_cycles: PositiveInt = 8
    start_s_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    constraints: ConstraintSpec = ConstraintSpec()
    restraints: RestraintSpec = RestraintSpec()
    absorption: NonNegativeFloat = 0.0
    refine_absorption: bool = False
    mosaicity_deg: NonNegativeFloat = 0.0
    refine_mosaicity: bool = False
    mosaic_tilts: PositiveInt = 5
    twin: TwinSpec | None = None
    potential_scale: PositiveFloat = 1.0
    heldout_folds: Annotated[int, Field(ge=2)] | None = 10
    heldout_every: Annotated[int, Field(ge=2)] | None = None
    both_hands: bool = False

    @model_validator(mode="after")
    def _starts(self) -> RefineSpec:
        if self.refine_absorption and self.absorption == 0:
            raise ValueError("refine_absorption needs a start value above 0 in absorption")
        if self.refine_mosaicity and self.mosaicity_deg == 0:
            raise ValueError("refine_mosaicity needs a start value above 0 in mosaicity_deg")
        return self
