"""Trial orientations of every frame: template matching, local refinement, scale and distortion of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nanoed.pipeline.reduce.geometry import Geometry, cell_of, reciprocal_basis, to_reciprocal
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.positions import Matched, constrained_cell, refine_positions
from nanoed.pipeline.reduce.series import Progress, over_frames, spread_out
from nanoed.pipeline.reduce.symmetry import metric_class
from nanoed.pipeline.serial.lattice import KnownLattice, angles_of
from nanoed.pipeline.serial.local import log_likelihood, matched_nodes, refine_locally
from nanoed.pipeline.serial.spec import IndexSpec
from nanoed.pipeline.serial.templates import Templates, correlate, distinct, make_templates
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]

TRIED = 40  # trial orientations looked at per candidate wanted


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """Peaks of one frame: xy (n, 2) 1/Å in the detector plane about the centre, intensity (n,) counts."""

    xy: Array
    intensity: Array

    def within(self, limit: float, most: int) -> Pattern:
        """The `most` strongest peaks up to `limit`, 1/Å, in order of radius."""
        radius = np.hypot(*self.xy.T)
        near = np.flatnonzero(radius <= limit)
        near = near[np.argsort(-self.intensity[near], kind="stable")[:most]]
        order = near[np.argsort(radius[near], kind="stable")]
        return Pattern(np.ascontiguousarray(self.xy[order]), self.intensity[order])


@dataclass(frozen=True, slots=True)
class Beam:
    """wavelength : Å.  a_per_px : 1/Å per pixel."""

    wavelength: float
    a_per_px: float


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A trial orientation (3, 3), crystal to lab, with the shift (2,) of the centre, 1/Å; score: mean log
    likelihood ratio per peak; matched of the peaks it was judged by."""

    orientation: Array
    shift: Array
    score: float
    matched: int
    peaks: int


def patterns_of(geometry: Geometry, peaks: Peaks) -> list[Pattern]:
    """The peaks of every frame in reciprocal space, distortion taken out."""
    xy = to_reciprocal(geometry, peaks.frame, peaks.pixels)[:, :2]
    edges = np.searchsorted(peaks.frame, np.arange(len(geometry) + 1))
    return [Pattern(xy[a:b], peaks.intensity[a:b]) for a, b in pairwise(edges)]


def scrambled(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    """Every peak turned about the beam by an angle of its own: the same radii and no lattice."""
    radius, azimuth = np.hypot(*pattern.xy.T), rng.uniform(0, 2 * np.pi, len(pattern.xy))
    return replace(pattern, xy=np.column_stack([radius * np.cos(azimuth), radius * np.sin(azimuth)]))


def template_scores(pattern: Pattern, templates: Templates, spec: IndexSpec) -> tuple[Array, Array]:
    """Scores and in-plane turns (n, 2) of every template (templates.correlate)."""
    settings = spec.templates
    near = pattern.within(settings.d_star_max, spec.local.max_peaks)
    score, turn = np.zeros((len(templates), 2)), np.zeros((len(templates), 2))
    if len(near.xy) == 0:
        return score, turn
    weight = near.intensity**settings.power
    weight /= np.linalg.norm(weight)
    bins = max(8, round(360 / settings.in_plane_step_deg))
    correlate(np.hypot(*near.xy.T), np.arctan2(near.xy[:, 1], near.xy[:, 0]), weight, templates.first,
              templates.radius, templates.azimuth, templates.weight, settings.reach, bins, score, turn)  # fmt: skip
    return score, turn


def candidates_of(
    pattern: Pattern, templates: Templates, lattice: KnownLattice, beam: Beam, spec: IndexSpec
) -> list[Candidate]:
    """The best distinct orientations of a frame, refined, best first; none for fewer than 4 peaks."""
    settings = spec.templates
    if len(pattern.xy) < 4:
        return []
    score, turn = template_scores(pattern, templates, spec)
    order = np.argsort(-score, axis=None, kind="stable")[: TRIED * settings.candidates]
    zone, which = np.divmod(order, 2)
    trials = Rotation.from_euler("z", turn[zone, which][:, None]).as_matrix() @ templates.frames[zone]
    rows = distinct(trials, lattice.turns, np.radians(settings.distinct_deg), settings.candidates)
    nodes, near = nodes_within(lattice, spec), pattern.within(spec.local.d_star_max, spec.local.max_peaks)
    refined = [locally(near, trial, nodes, beam, spec) for trial in trials[rows]]
    return sorted(refined, key=lambda c: -c.score)


def locally(near: Pattern, trial: Array, nodes: Array, beam: Beam, spec: IndexSpec) -> Candidate:
    """The candidate that a trial orientation refines to; near : its peaks.  nodes : `nodes_within`."""
    settings = spec.local
    orientation, moved = trial.copy(), np.zeros(2)
    n = refine_locally(orientation, moved, nodes, near.xy, beam.wavelength, np.array(settings.reach),
                       np.array(settings.s_max), settings.s_sigma)  # fmt: skip
    area, scatter = np.pi * settings.d_star_max**2, settings.position_sigma_px * beam.a_per_px
    score = log_likelihood(orientation, moved, nodes, near.xy, beam.wavelength, area, scatter, settings.s_sigma,
                           settings.stray)  # fmt: skip
    return Candidate(orientation, moved, score, n, len(near.xy))


def nodes_within(lattice: KnownLattice, spec: IndexSpec) -> Array:
    """(m, 3) lattice nodes of the local refinement, 1/Å, crystal frame."""
    g = lattice.hkl @ lattice.basis.T
    limit = spec.local.d_star_max + max(spec.local.reach)
    return np.ascontiguousarray(g[(g * g).sum(axis=1) <= limit**2])


def scaled(lattice: KnownLattice, basis: Array) -> KnownLattice:
    """The lattice with another metric of the same symmetry."""
    return replace(lattice, basis=basis)


def find_scale(
    patterns: Sequence[Pattern], lattice: KnownLattice, beam: Beam, spec: IndexSpec, workers: int = 1
) -> float:
    """Factor on the basis at which templates match best: error of the cell over that of the camera length.

    Mean over a sample of frames of the best template score, at steps of `scale_step_pct`, parabola through the top.
    Raises InputError where no frame of the sample has peaks.
    """
    settings = spec.templates
    templates = make_templates(lattice, beam.wavelength, settings)
    rich = [p for p in patterns if len(p.xy) >= spec.accept.min_peaks]
    if not rich:
        raise InputError("no frame has enough peaks", field="accept.min_peaks", value=spec.accept.min_peaks,
                         allowed="fewer, or a lower peaks.i_over_sigma")  # fmt: skip
    sample = [rich[i] for i in spread_out(len(rich), settings.scale_frames)]
    n = max(1, round(settings.scale_pct / settings.scale_step_pct))
    factors = 1 + 0.01 * settings.scale_step_pct * np.arange(-n, n + 1)

    def mean_score(k: int) -> float:
        stretched = [replace(p, xy=p.xy / factors[k]) for p in sample]
        return float(np.mean([template_scores(p, templates, spec)[0].max() for p in stretched]))

    value = np.array(list(over_frames(mean_score, range(len(factors)), workers, "", None)))
    top = int(np.clip(np.argmax(value), 1, len(factors) - 2))
    left, middle, right = value[top - 1 : top + 2]
    bend = left - 2 * middle + right
    off = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float(factors[top] + np.clip(off, -1, 1) * (factors[1] - factors[0]))


def all_candidates(
    patterns: Sequence[Pattern],
    lattice: KnownLattice,
    beam: Beam,
    spec: IndexSpec,
    workers: int,
    progress: Progress | None,
    stage: str = "orientations",
) -> list[list[Candidate]]:
    """`candidates_of` every frame."""
    templates = make_templates(lattice, beam.wavelength, spec.templates)

    def one(i: int) -> list[Candidate]:
        return candidates_of(patterns[i], templates, lattice, beam, spec)

    return list(over_frames(one, range(len(patterns)), workers, stage, progress))


def refined_geometry(
    geometry: Geometry,
    peaks: Peaks,
    frames: Sequence[int],
    patterns: Sequence[Pattern],
    candidates: Sequence[list[Candidate]],
    lattice: KnownLattice,
    spec: IndexSpec,
) -> tuple[Geometry, KnownLattice, float]:
    """Cell and elliptic distortion from the better half of `frames` by score; scatter of positions in pixels.

    candidates : of `frames`, in their order.  The ellipse is refined where the Laue class's metric shows it; the
    camera length stays (C3.6).
    """
    fewest = spec.accept.min_peaks
    score = np.array([c[0].score if c and c[0].matched >= fewest else -np.inf for c in candidates])
    best = np.sort(np.argsort(-score, kind="stable")[: (len(score) + 1) // 2])
    best = best[np.isfinite(score[best])]
    metric = metric_class(spec.reduction.laue_class, spec.spacegroup)
    if len(best) == 0:
        raise InputError(
            "no frame fits the cell", field="cell", value=spec.cell, allowed="right to about 1 %"
        )
    use, chosen = np.asarray(frames)[best], [candidates[k][0] for k in best]
    angles = np.array([angles_of(c.orientation) for c in chosen])
    shift = np.array([c.shift for c in chosen]) / geometry.a_per_px * np.array([1.0, -1.0])
    part = replace(geometry, ub=lattice.basis, alpha=angles[:, 0], beta=angles[:, 1], omega=angles[:, 2],
                   centres=geometry.centres[use] + shift)  # fmt: skip
    beam = Beam(geometry.wavelength, geometry.a_per_px)
    matched = _matched(peaks, patterns, use, chosen, lattice, beam, spec)
    loose = spec.positions.model_copy(update={"omega_scatter_deg": 1e4})
    found, scatter = refine_positions(part, matched, metric, True, False, loose)
    basis = reciprocal_basis(constrained_cell(metric, cell_of(found.ub)))
    return replace(geometry, ub=basis, distortion=found.distortion), scaled(lattice, basis), scatter


def _matched(
    peaks: Peaks,
    patterns: Sequence[Pattern],
    use: NDArray[np.int64],
    chosen: Sequence[Candidate],
    lattice: KnownLattice,
    beam: Beam,
    spec: IndexSpec,
) -> Matched:
    """Peaks and their nodes on the frames `use`, numbered from 0."""
    settings, nodes = spec.local, lattice.hkl @ lattice.basis.T
    parts = []
    for number, (i, best) in enumerate(zip(use, chosen, strict=True)):
        own = np.flatnonzero(peaks.frame == i)
        node = matched_nodes(best.orientation, best.shift, nodes, patterns[i].xy, beam.wavelength, settings.reach[-1],
                             settings.s_max[-1])  # fmt: skip
        hit = node >= 0
        parts.append(
            (
                np.full(hit.sum(), number),
                lattice.hkl[node[hit]],
                peaks.pixels[own][hit],
                peaks.sigma[own][hit],
            )
        )
    frame, hkl, pixels, sigma = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Matched(frame, hkl, pixels, sigma)
