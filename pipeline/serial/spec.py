"""Choices of serial indexing: every threshold with its source. D, C1-C7, H: sections of the physics notes."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from nanoed.pipeline.part import Part
from nanoed.pipeline.spec import (
    Cell,
    Formula,
    IntegrationSpec,
    Laue,
    MergeSpec,
    NoiseSpec,
    PeakSpec,
    PositionSpec,
    ReduceSpec,
)
from nanoed.sim.physics.errors import InputError

Share = Annotated[float, Field(gt=0, lt=1)]


class TemplateSpec(Part):
    """Search over all orientations (D1)."""

    step_deg: PositiveFloat = 2.0
    """Distance of neighbouring zone axes (D1: 2)."""
    in_plane_step_deg: PositiveFloat = 1.0
    """Step of the in-plane correlation."""
    d_star_max: PositiveFloat = 1.0
    """Resolution of templates, 1/Å (D1: 1.0)."""
    s_max: PositiveFloat = 0.025
    """Nodes of a template are within this of the Ewald sphere, 1/Å (D1: 0.02-0.03)."""
    s_sigma: PositiveFloat = 0.012
    """Their weight is exp(-S² / 2 s_sigma²), 1/Å (1/D of a particle of 10 nm and half a step at 1 1/Å)."""
    reach: PositiveFloat = 0.03
    """Positions may differ by this, 1/Å: half a step and an error of the scale of 1 %, at 1 1/Å."""
    power: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Peaks weigh as this power of their intensity (D1: 0.25)."""
    candidates: PositiveInt = 8
    """Orientations of a frame that go on to the local refinement."""
    distinct_deg: PositiveFloat = 4.0
    """Candidates nearer to a better one are the same."""
    scale_pct: PositiveFloat = 3.0
    """Cell over camera length is searched within this (H7: 1 %; cells are known to 1 %)."""
    scale_step_pct: PositiveFloat = 1.0
    """Step of that search."""
    scale_frames: PositiveInt = 12
    """Frames from which the scale is found."""


class LocalSpec(Part):
    """Refinement of one orientation on the positions and excitation errors of its peaks (D1)."""

    d_star_max: PositiveFloat = 1.2
    """Peaks used, 1/Å."""
    max_peaks: PositiveInt = 120
    """The strongest are used: without a support film even the tails of rocking curves are peaks."""
    reach: tuple[PositiveFloat, ...] = (0.03, 0.02, 0.012, 0.012, 0.012)
    """Largest distance of a peak from its node in successive rounds, 1/Å."""
    s_max: tuple[PositiveFloat, ...] = (0.03, 0.025, 0.02, 0.02, 0.02)
    """Largest excitation error of a node in these rounds, 1/Å."""
    position_sigma_px: PositiveFloat = 0.6
    """Scatter of positions in the likelihood."""
    s_sigma: PositiveFloat = 0.008
    """Scatter of the excitation errors of peaks, 1/Å (sphere of 10 nm: 85 % within 0.01, C6)."""
    stray: Share = 0.1
    """Part of the peaks that belongs to nothing."""
    geometry_frames: PositiveInt = 120
    """Frames from which cell and elliptic distortion are refined, those with the better half of the scores."""

    @model_validator(mode="after")
    def _one_reach_per_round(self) -> LocalSpec:
        if not len(self.reach) == len(self.s_max) > 0:
            raise ValueError("reach and s_max must be equally long: one of each per round")
        return self


class AcceptSpec(Part):
    """Which frames count as oriented."""

    min_peaks: PositiveInt = 10
    """Fewest matched peaks (D1: 10-15)."""
    min_explained: Share = 0.85
    """Smallest part of the peaks' amplitude that one orientation explains after its refinement; two particles of
    like size leave half (D1 asks for 60 % of the peaks of an orientation that is not refined yet)."""
    position_reach_px: PositiveFloat = 1.5
    """A peak this near to a node is explained."""
    s_max: PositiveFloat = 0.03
    """Largest excitation error of that node, 1/Å (3/D of 10 nm)."""
    null_sigma: PositiveFloat = 6.0
    """The score lies this many standard deviations above that of frames whose peaks were turned about the beam
    at random, each by an angle of its own: orientations of no lattice."""
    null_frames: PositiveInt = 40
    """Frames from which that distribution is taken."""
    min_confidence: Share = 0.95
    """Smallest probability of the orientation given its rivals and the frames before and after."""


class RunSpec(Part):
    """Linking of successive frames of one particle (H7: particles turn by 0.1-0.5° between frames)."""

    link_deg: PositiveFloat = 1.5
    """Largest turn between neighbours of a run."""
    stay: Share = 0.9
    """Chance that the next frame shows the same particle."""
    rival_drop: PositiveFloat = 0.5
    """Candidates whose mean log likelihood per peak is this much below the best are no rivals."""
    gap: PositiveInt = 3
    """A run goes on over this many frames less one that could not be oriented."""


class PartialitySpec(Part):
    """Intensities, tilts and scales together (D3, D4, C5)."""

    diameter_A: PositiveFloat = 100.0
    """Diameter of the particles, Å, at the start."""
    refine_diameter: bool = True
    """Fit the diameter of all, then of every run."""
    diameter_spread: PositiveFloat = 0.15
    """Prior standard deviation of ln(diameter) of a run about that of all."""
    mosaicity_deg: Annotated[float, Field(ge=0)] = 0.1
    """rms spread of orientations (C2)."""
    s_max: PositiveFloat = 0.02
    """Excitation errors up to which reflections are compared, 1/Å (2/D holds 93 %, C6)."""
    position_reach_px: PositiveFloat = 2.0
    """A peak this near to a node is that reflection."""
    first_search_deg: PositiveFloat = 1.5
    """Half-width of the search over tilts the first time."""
    search_deg: PositiveFloat = 0.4
    """And later."""
    steps: PositiveInt = 5
    """Steps to either side of that search."""
    rounds: PositiveInt = 3
    """Rounds of intensities, tilts and scales, on peaks and again on integrated spots."""
    min_seen: PositiveFloat = 0.5
    """Sum of squared partialities from which on a reflection's intensity counts as known."""
    min_partiality: Share = 0.3
    """Smallest partiality that enters the merged intensities (D3: 0.3)."""
    model_error: PositiveFloat = 0.15
    """Relative error of a kinematical intensity on a still frame, in the weights (B: R of 6 % on F for 10 nm)."""


class AmbiguitySpec(Part):
    """Indexing that the lattice allows and the Laue class does not (D2)."""

    starts: PositiveInt = 8
    """Random starts."""
    passes: PositiveInt = 20
    """Most passes of one start."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Of the starts."""


class IndexSpec(Part):
    """From still frames of many particles to intensities.

    cell, laue, spacegroup, composition, d_star_max, coverage_s_max and the sub-tables that both have: as for `reduce`.
    metric_tolerance : relative misfit up to which a rotation is one of the lattice.
    """

    cell: Cell | None = None
    laue: Laue | None = None
    spacegroup: str | None = None
    composition: Formula = ""
    d_star_max: PositiveFloat = 1.6
    coverage_s_max: PositiveFloat = 0.8
    metric_tolerance: Annotated[float, Field(gt=0, lt=0.1)] = 0.01
    noise: NoiseSpec = NoiseSpec()
    peaks: PeakSpec = PeakSpec(i_over_sigma=10.0)
    positions: PositionSpec = PositionSpec()
    templates: TemplateSpec = TemplateSpec()
    local: LocalSpec = LocalSpec()
    accept: AcceptSpec = AcceptSpec()
    runs: RunSpec = RunSpec()
    partiality: PartialitySpec = PartialitySpec()
    ambiguity: AmbiguitySpec = AmbiguitySpec()
    integration: IntegrationSpec = IntegrationSpec(tail=0.02, sweeps=2)
    merging: MergeSpec = MergeSpec()

    @field_validator("spacegroup")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        ReduceSpec(spacegroup=value)
        return value

    @field_validator("cell")
    @classmethod
    def _closing(cls, value: Cell | None) -> Cell | None:
        ReduceSpec(cell=value)
        return value

    def require_cell(self) -> Cell:
        """The cell; raises InputError where none was given."""
        if self.cell is None:
            allowed = "a,b,c in Å and alpha,beta,gamma in degrees, right to about 1 %"
            raise InputError("indexing needs an approximate cell", field="cell", allowed=allowed)
        return self.cell

    @property
    def reduction(self) -> ReduceSpec:
        """The same choices for the steps that serial data share with tilt series."""
        return ReduceSpec(
            cell=self.cell, laue=self.laue, spacegroup=self.spacegroup, composition=self.composition,
            d_star_max=self.d_star_max, coverage_s_max=self.coverage_s_max, noise=self.noise, peaks=self.peaks,
            positions=self.positions, integration=self.integration, merging=self.merging,
        )  # fmt: skip
