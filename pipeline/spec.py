"""The pipeline's choices: every threshold of the data reduction is a documented field with its source.

Tags of the sources: C1-C7 are the sections of the physics notes, "data" means estimated from the frames
themselves when the field is None.
"""

from __future__ import annotations

from typing import Annotated, Literal

import gemmi
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from nanoed.pipeline.io.formula import parse_formula
from nanoed.pipeline.part import Laue as Laue
from nanoed.pipeline.part import Part
from nanoed.pipeline.refine.spec import Protocol as Protocol
from nanoed.pipeline.refine.spec import RefineSpec as RefineSpec
from nanoed.pipeline.refine.spec import ThicknessSpec as ThicknessSpec
from nanoed.pipeline.solve.spec import SolveSpec as SolveSpec
from nanoed.sim.physics.crystal import SOUND_CELL, sound_cell
from nanoed.sim.physics.errors import InputError

Cell = tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat]


def _formula(text: str) -> str:
    try:
        parse_formula(text)
    except InputError:
        raise ValueError("not a formula of known elements, such as TiO2") from None
    return text


Formula = Annotated[str, AfterValidator(_formula)]


class NoiseSpec(Part):
    """Noise model sigma²(counts) = gain * counts + offset per pixel (C3.1)."""

    gain: PositiveFloat | None = None
    """Variance over mean of the counts, whose noise is then taken for uncorrelated; None: both from the frames."""
    sample_frames: PositiveInt = 8
    """Frames from which gain and spot width are estimated."""
    dead_time_us: NonNegativeFloat | None = None
    """Dead time of a pixel, whose losses are given back (H4: 1.9); 0: none, as of a camera that integrates charge and
    does not count; None: from the tops of strong spots."""
    dead_time_prior_us: PositiveFloat = 2.0
    """Its scale, which is assumed where these say little: that of counting detectors (H4: 1.9)."""
    dead_time_sigma: PositiveFloat = 20.0
    """I / sigma of the spots that tell it."""


class MaskSpec(Part):
    """Pixels that do not count, beside those of the data set's own mask."""

    find: bool = True
    """False: the data set's own mask alone."""
    frames: PositiveInt = 60
    """Frames of the series whose sum is looked at."""
    significance: PositiveFloat = 6.0
    """Standard deviations by which a pixel is dead or hot: by chance one pixel in 10⁹."""
    dead_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """A dead pixel counts less than this part of what six of its eight neighbours count."""
    sharpness: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The neighbours of a hot pixel have on average less than this part of its excess (those of a Gaussian spot of
    0.7 pixels: 0.25; charge shared 1.8-fold: 0.1)."""
    alike: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Rows that repeat their neighbour have less than this times the usual variance of the difference."""
    least_counts: PositiveFloat = 200.0
    """Counts in two rows that say something of it."""
    odd_ratio: Annotated[float, Field(gt=1)] = 1.4
    """A row or column that counts this many times more or less than those around it is a border of chips."""


class PeakSpec(Part):
    """Peak search (C3.2)."""

    i_over_sigma: PositiveFloat = 6.0
    """Smallest matched-filter significance of a peak (C3.2: 5-20; C2 has 10 for plain I/sigma). Its scale is that of
    the Poisson deviance, on which chance alone makes less than one peak of 6 in 100 million pixels."""
    spot_sigma_px: PositiveFloat | None = None
    """Gaussian width of the matched filter; None: from the frames."""
    background_window_px: PositiveInt = 31
    """Side of the box of the local background, 3-5 reflection sizes (C3.2)."""
    mask_sigma: PositiveFloat = 4.0
    """Pixels this far above the background are kept out of it."""
    friedel_reach_px: PositiveFloat = 3.0
    """Largest correction of the direct-beam centre by Friedel pairs."""
    d_star_min: PositiveFloat = 0.05
    """Peaks closer to the direct beam are ignored, 1/Å (C2)."""


class AxisSpec(Part):
    """Search for the azimuth of the tilt axis (C3.4)."""

    search_deg: Annotated[float, Field(gt=0, le=180)] = 5.0
    """Half-width of the search about the nominal azimuth; 180 = everywhere, which is also tried where no lattice found
    within it indexes `indexing.sure_fraction` of the peaks. Both senses of rotation are always tried."""
    n_peaks: PositiveInt = 1000
    """Lowest-angle peaks used (C3.4: at most 2000)."""
    d_star_max: PositiveFloat = 0.7
    """Longest difference vector used, 1/Å."""


class IndexingSpec(Part):
    """Lattice from the approximate cell and the stage angles."""

    grid_deg: PositiveFloat = 1.2
    """Largest step of the search over directions of each direct-lattice vector."""
    phase_step: Annotated[float, Field(gt=0, lt=0.5)] = 0.12
    """Largest change of t·x between neighbouring directions, which makes the step finer for long axes."""
    n_peaks: PositiveInt = 1200
    """Lowest-angle peaks used to find the lattice."""
    d_star_max: PositiveFloat = 0.8
    """Peaks beyond it wait for the refinement, 1/Å."""
    tolerance: Annotated[float, Field(gt=0, lt=0.5)] = 0.3
    """A peak is indexed when it lies this near a node, in units of 1/longest axis (C2: 0.3)."""
    length_tol: PositiveFloat = 0.03
    """Relative deviation of a found axis from the given one (C2: 3 %)."""
    angle_tol_deg: PositiveFloat = 3.0
    """Deviation of a found angle from the given one before refinement."""
    min_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Smallest fraction of indexed peaks that counts as an indexed data set."""
    sure_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Where fewer peaks are indexed, the strongest are tried alone: the others may be another crystal's."""
    strongest: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (1.0, 0.5, 0.25)
    """Shares of the peaks tried in turn."""
    shortest_A: PositiveFloat = 2.4
    """Without a cell: periods of the peaks are at least this long."""
    longest_A: PositiveFloat = 30.0
    """Without a cell: longest period (C2: 30 Å)."""
    largest_volume_A3: PositiveFloat = 10000.0
    """Without a cell: largest primitive cell (C2: 10000 Å³)."""
    fourier_grid: Annotated[int, Field(ge=32, le=512)] = 192
    """Without a cell: nodes of the Fourier transform along an axis; reaches grid / (8 d_star_max) Å."""
    period_score: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Without a cell: mean cos(2π t·x) of a period t, 1 for exact peaks."""
    period_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Without a cell: and at least this times the best period's; periods of a subcell score less."""
    n_periods: PositiveInt = 24
    """Without a cell: the shortest periods, of which cells are made."""
    lattice: (
        Literal["cF", "cI", "cP", "hR", "hP", "tI", "tP", "oF", "oI", "oC", "oP", "mC", "mP", "aP"] | None
    ) = None
    """Without a cell: the Bravais lattice; None: that of the space group, else the highest that fits."""
    most_strain_pct: PositiveFloat = 3.0
    """Deviation of a metric from that of a Bravais lattice up to which it is tried (C2: lengths 3 %)."""
    scatter_ratio: Annotated[float, Field(ge=1)] = 1.15
    """A Bravais lattice fits where its metric and an ellipse leave at most this times the triclinic scatter."""


class PositionSpec(Part):
    """Refinement of lattice, centres, axis and distortion on peak positions (C3.6, C4)."""

    cycles: PositiveInt = 12
    """Most Gauss-Newton cycles for one set of matched peaks."""
    reach_px: tuple[PositiveFloat, ...] = (5.0, 3.0, 3.0, 3.0)
    """Largest distance of a peak from its prediction in successive rounds of matching."""
    d_star_max: tuple[PositiveFloat, ...] = (0.8, 1.2, 1.4, 1.4)
    """Resolution of these rounds, 1/Å."""
    first_scatter_px: PositiveFloat = 1.0
    """Scatter assumed before it is known from the residuals."""
    omega_scatter_deg: PositiveFloat = 0.3
    """Prior spread of the azimuth from frame to frame (H7: 0.2)."""
    min_peaks: PositiveInt = 4
    """Frames with fewer matched peaks are reported as blank."""

    @model_validator(mode="after")
    def _one_reach_per_resolution(self) -> PositionSpec:
        if not len(self.reach_px) == len(self.d_star_max) > 0:
            raise ValueError("reach_px and d_star_max must be equally long: one of each per round")
        return self


class SecondSpec(Part):
    """A second lattice among the peaks that the first one leaves."""

    find: bool = True
    """False: there is but one."""
    min_peaks: PositiveInt = 60
    """Unexplained low-angle peaks that are worth a search."""
    min_indexed: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Part of them that it explains; chance explains a few per cent."""
    least_deg: PositiveFloat = 2.0
    """A lattice turned by less is the first one's own mosaic (C2: direction tolerance 2°)."""
    min_indexed_other: Annotated[float, Field(gt=0, le=1)] = 0.6
    """The same for a lattice of another cell, which has more freedom to fit what chance has left."""
    tails: Annotated[float, Field(ge=1)] = 6.0
    """The first lattice explains peaks to this times the width of its rocking curve, for strong ones are seen far
    out, but not beyond `indexing.tolerance` of the distance of its closest planes."""


class OrientationSpec(Part):
    """Per-frame orientation from simulated against observed intensities (C5, C6)."""

    refine: bool = True
    """False: keep the stage angles; scales and the rocking curve are still fitted."""
    power: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Intensities are compared after this power (C2, frame geometry)."""
    search_deg: PositiveFloat = 0.6
    """Half-width of the grid search that starts the refinement (C5: bounded by 1°)."""
    search_step_deg: PositiveFloat = 0.15
    """Step of the grid search."""
    rounds: PositiveInt = 2
    """Rounds of orientations and shape of the rocking curve."""
    cycles: PositiveInt = 12
    """Most Gauss-Newton cycles of all frames in one round."""
    settled_deg: PositiveFloat = 0.005
    """The cycles end when the rms tilt step falls below this."""
    largest_step_deg: PositiveFloat = 0.1
    """Limit of a tilt step in one cycle."""
    margin_deg: NonNegativeFloat = 0.3
    """Misorientation allowed for when spots are integrated before orientations are known (H7: 0.1-0.4)."""
    prior_deg: PositiveFloat = 1.0
    """Spread of the tilts about the stage angles before it is estimated (C5: 1°)."""
    equivalent_spread: PositiveFloat = 0.4
    """Relative spread of equivalent intensities, dynamical scattering included; ties them softly (A11, B)."""
    model_error: PositiveFloat = 0.3
    """Relative error of a kinematical intensity at the start; then from the residuals (B)."""
    largest_model_error: PositiveFloat = 0.5
    """Limit of that estimate: an error of this size takes the weight off the data (B: R of 10-30 %)."""
    disagreement: PositiveFloat = 2.0
    """More than this many times the expected spread of scales or equivalents is no result (2 s.d.)."""
    scale_spread: PositiveFloat = 0.2
    """Prior spread of ln(frame scale) (H7: 0.7-1.2)."""
    min_spots: PositiveInt = 6
    """Frames with fewer spots keep the stage angles at the start."""
    width: PositiveFloat = 0.003
    """Lorentzian half width of the rocking curve at the start, 1/Å (1/D of a particle of 30 nm)."""
    mosaicity_deg: PositiveFloat = 0.1
    """Mosaicity at the start (C2)."""
    semi_angle_error: PositiveFloat = 0.03
    """Prior relative error of the precession angle (H7: 2-5 %)."""


class IntegrationSpec(Part):
    """Per-frame spot intensities (C6)."""

    aperture_px: PositiveFloat | None = None
    """Radius of the integration aperture; None: `aperture_cores` times the profile's core."""
    aperture_cores: PositiveFloat = 1.6
    """Aperture in units of the radius that holds 90 % of the average profile."""
    mask_cores: PositiveFloat = 2.5
    """Pixels this near to a predicted spot, in the same unit, are kept out of the background."""
    profile_reach_px: PositiveFloat = 12.0
    """Radius to which the average profile is measured."""
    profile_zones: PositiveInt = 3
    """Zones of equal width in |g| with a profile of their own."""
    profile_frames: PositiveInt = 25
    """Frames from which the average profile is taken."""
    profile_spots: PositiveInt = 30
    """Fewest spots for a profile, and for one of a zone's own."""
    profile_tail_sigma: PositiveFloat = 2.0
    """The average profile ends where a ring of one pixel's width is below this many standard errors."""
    profile_i_over_sigma: tuple[PositiveFloat, ...] = (50.0, 20.0, 8.0)
    """Spots above this make the average profile; the next one where too few are."""
    halo_px: tuple[PositiveFloat, ...] = (8.0, 30.0)
    """Radii of the parts of the halo that inelastic scattering draws around every spot (H5); none: no halo."""
    background_window_px: PositiveInt = 31
    """Side of the box in which the radial background is scaled to its surroundings."""
    sweeps: PositiveInt = 3
    """Rounds of background and intensities per frame."""
    relative_error: NonNegativeFloat | None = None
    """Part of I added to sigma for electrons outside the aperture; None: from the shapes of strong spots."""
    shape_sigma: PositiveFloat = 20.0
    """I / sigma of the spots whose shapes tell it."""
    min_separation: PositiveFloat = 1.5
    """Reflections nearer to a neighbour than this many cores are flagged as overlapped."""
    min_covered: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Smallest part of the profile on valid pixels."""
    tail: PositiveFloat = 0.008
    """Reflections are predicted within |S| < g * semi-angle + tail, 1/Å (C6: 85 % of 12 nm's profile)."""


class MergeSpec(Part):
    """Scaling and merging (C7)."""

    outlier_mad: PositiveFloat = 4.0
    """Rejection: |I - median| above this many 1.48 MAD and sigmas, in groups of four and more (C7)."""
    errors: Literal["model", "spread"] = "model"
    """s.u. of a mean: of an error model fitted to all groups of equivalents (C2), or the larger of its internal s.u.
    (of the single measurements) and its external one (of the group's own spread), much as SHELXL and Jana merge; single
    measurements then keep their own."""
    min_recorded: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A measurement needs this part of the information of a rocking curve crossed in full: half of it."""


class SymmetryTestSpec(Part):
    """Laue class and space group from the intensities (C7)."""

    halfway: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """A Laue class holds where what it makes equivalent disagrees less than this far from the equivalents of the
    lowest class to unrelated reflections."""
    min_pairs: PositiveInt = 6
    """Groups of equivalents that tell something of a Laue class."""
    no_symmetry: PositiveFloat = 0.75
    """Equivalents that disagree more than this times what unrelated reflections do are none."""
    dynamical_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Largest mean of extinguished reflections, excited dynamically, over that of others (C7: 10-20 %)."""
    relative_error: NonNegativeFloat = 0.1
    """Part of I added to its error: scatter of equivalents by dynamical scattering (B: R of 10-30 %)."""
    shell: PositiveInt = 60
    """Reflections in the running mean over |g|."""


class VirtualSpec(Part):
    """Virtual frames of continuous rotation (A6)."""

    frames: PositiveInt | None = None
    """Frames in a virtual frame; None: chosen from the widths below."""
    step: PositiveInt | None = None
    """Frames from the start of one to the start of the next; None: from `overlap`."""
    width_deg: PositiveFloat = 2.4
    """Smallest rotation in a virtual frame (A6: 2.5° in PETS2's glycine; as a precession of 1.2° sweeps)."""
    curves: PositiveFloat = 2.0
    """Rocking curves (full widths at half maximum at `d_star`) that a virtual frame spans at least."""
    d_star: PositiveFloat = 0.7
    """|g| at which the rocking curve is taken, 1/Å: half the usual limit."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of a virtual frame that the next one covers again, rounded up to whole frames (A6: 2 frames of 7)."""
    min_recorded: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Part of the rocking curve inside a virtual frame that must lie on frames where the spot was measured."""


class ReduceSpec(Part):
    """From frames to intensities.

    cell : approximate a, b, c (Å), alpha, beta, gamma (degrees), right to about 1 %; a case leaves it to the run.
        None: the lattice is found from the peaks.
    reference_cell : exact cell, of another experiment, that gives the camera length; None: the nominal one holds.
    laue : Laue class in which equivalents merge and whose metric is imposed; None: from `spacegroup`, without a
        cell else the least symmetric class of the crystal system found.
    spacegroup : H-M symbol; used for systematic absences in the merged list and for the .ins file.
    composition : formula such as "TiO2"; used for the scattering factors of the .ins file alone.
    d_star_max : resolution limit, 1/Å (C2: 1.4).
    coverage_s_max : sin(theta)/lambda of the quoted coverage, 1/Å.
    distortion : full: the parabolic, barrel and spiral terms beside the elliptic one, which only a metric constrained
        by symmetry shows (C4).
    merge_as_stated : what is merged is fitted with the tilts of the stage (alpha, beta) and one scale for all frames,
        after orientations and scales were refined all the same: they say which spots there are, and frames of dynamical
        refinement keep them.
    """

    cell: Cell | None = None
    reference_cell: Cell | None = None
    laue: Laue | None = None
    spacegroup: str | None = None
    composition: Formula = ""
    d_star_max: PositiveFloat = 1.4
    coverage_s_max: PositiveFloat = 0.7
    distortion: Literal["none", "elliptic", "full"] = "full"
    mask: MaskSpec = MaskSpec()
    noise: NoiseSpec = NoiseSpec()
    peaks: PeakSpec = PeakSpec()
    axis: AxisSpec = AxisSpec()
    indexing: IndexingSpec = IndexingSpec()
    positions: PositionSpec = PositionSpec()
    second: SecondSpec = SecondSpec()
    orientation: OrientationSpec = OrientationSpec()
    integration: IntegrationSpec = IntegrationSpec()
    virtual: VirtualSpec = VirtualSpec()
    merging: MergeSpec = MergeSpec()
    merge_as_stated: bool = False
    symmetry: SymmetryTestSpec = SymmetryTestSpec()

    @field_validator("spacegroup")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and gemmi.find_spacegroup_by_name(value) is None:
            raise ValueError("not a space group that gemmi knows")
        return value

    @field_validator("cell", "reference_cell")
    @classmethod
    def _closing(cls, value: Cell | None) -> Cell | None:
        if value is not None and not sound_cell(value):
            raise ValueError(f"not a cell: {SOUND_CELL}")
        return value

    @property
    def laue_class(self) -> str:
        """The Laue class given, or that of the space group; "-1" without either."""
        if self.laue is not None:
            return self.laue
        if self.spacegroup is None:
            return "-1"
        return str(gemmi.find_spacegroup_by_name(self.spacegroup).laue_str())
