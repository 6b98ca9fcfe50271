"""Choices of the refinement. Tags of the sources: A1-A9 and B are sections of the physics notes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from nanoed.pipeline.part import Part


class ThicknessSpec(Part):
    """Thickness along the beam: a shape of one free size, turned with the crystal (A7)."""

    model: Literal["plate", "wedge", "rod", "sphere", "cylinder", "ellipsoid"] = "plate"
    """plate: one thickness; wedge: 0 to T; rod: a long cylinder; the others as named, `aspect` long."""
    axis_uvw: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Long axis of rod, cylinder and ellipsoid, a direct-lattice direction."""
    aspect: PositiveFloat = 1.0
    """Length over diameter of cylinder and ellipsoid, as images show it."""
    start_A: PositiveFloat | None = None
    """Mean thickness at the start; None: from a scan."""
    scan_A: tuple[PositiveFloat, PositiveFloat] = (50.0, 800.0)
    """Range of the scan over the mean thickness, in steps of `scan_ratio`."""
    scan_ratio: Annotated[float, Field(gt=1)] = 1.25
    """Ratio of successive thicknesses of the scan."""
    nodes: PositiveInt = 12
    """Gauss nodes of the thickness distribution (A7: 8-12)."""
    angle_terms: Annotated[int, Field(ge=0, le=6)] = 0
    """Legendre polynomials of the stage angle in the log of the size, beyond a constant; 0: a rigid body."""


class RefineSpec(Part):
    """Least squares against merged or per-frame intensities.

    factors : table of scattering factors.
    adp_model : displacement parameters of all sites, or as_model: as the start model has them, site by site.
    occupancies : fixed; sites: elements exchange on mixed sites; composition: so that the cell's composition stays.
    d_star_max : resolution limit of the reflections, 1/Å.
    instability : u of w = 1 / (sigma² + (2 u I)²) (A8).
    emphasis : e of w = max(I, sigma)^e / (sigma² + (2 u I)²), frame-based; 0: weights of the errors (A8); 1: weights
        of F on intensities, as the program diffBloch has them (s.u. are then no longer those of the errors).
    equal_frames : every frame has the same sum of w I², so that wR² of frames is what is minimised, as that program
        does; else frames weigh by their errors.
    max_cycles : of Gauss-Newton; more is an error.  settled : largest shift / s.u. of a converged model.
    Frame-based only:
    protocol : how a frame moves the crystal.
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
    optimise_orientations : two tilts per frame are refined.  tilt_prior_deg : their prior spread.
    tilt_search_deg, tilt_search_step_deg : frames of a rotation are searched on a grid this far from the reduction's
        orientation first (0: not), since the fringes of a thick crystal, 1/(g t) apart, make many minima.
    tilt_settled_deg : a search over tilts ends below this step.  reselections : most times that the beams are
        chosen anew at the orientations found.
    start_frames, start_cycles : frames, evenly spread, and number of the first cycles, which bring the model near.
    start_s_ratio : these use s_g_max times this, and beams up to d_star_max alone.
    absorption : imaginary over real part of every potential coefficient; 0: none (A1: 0.1 is usual).
    potential_scale : factor of the potential; 0.01 makes the frame-based refinement kinematical (B).
    heldout_folds : the frames are left out in so many turns, and each is predicted by a structure without it, found
        by one step from that of all frames; None: not.
    heldout_every : every so many frames one has no say in the structure; None: all have.
    """

    factors: Literal["peng", "lobato", "kirkland"] = "peng"
    adp_model: Literal["isotropic", "anisotropic", "as_model"] = "isotropic"
    occupancies: Literal["fixed", "sites", "composition"] = "fixed"
    d_star_max: PositiveFloat = 1.4
    instability: NonNegativeFloat = 0.01
    emphasis: Annotated[float, Field(ge=0, le=1)] = 0.0
    equal_frames: bool = False
    max_cycles: PositiveInt = 40
    settled: PositiveFloat = 0.05
    protocol: Literal["precession", "rotation", "still"] = "precession"
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
    tilt_prior_deg: PositiveFloat = 0.3
    tilt_settled_deg: PositiveFloat = 0.003
    tilt_search_deg: NonNegativeFloat = 0.25
    tilt_search_step_deg: PositiveFloat = 0.05
    reselections: PositiveInt = 4
    start_frames: PositiveInt = 24
    start_cycles: PositiveInt = 8
    start_s_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    absorption: NonNegativeFloat = 0.0
    potential_scale: PositiveFloat = 1.0
    heldout_folds: Annotated[int, Field(ge=2)] | None = 10
    heldout_every: Annotated[int, Field(ge=2)] | None = None
