"""From trial orientations to one orientation per frame: intensities, rivals, runs, confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.series import over_frames, spread_out
from nanoed.pipeline.serial.intensities import (
    Oriented,
    Spots,
    full_intensities,
    levelled,
    peaks_at_nodes,
    refine_tilts,
)
from nanoed.pipeline.serial.lattice import KnownLattice, angle_between
from nanoed.pipeline.serial.local import matched_nodes
from nanoed.pipeline.serial.nodes import Nodes
from nanoed.pipeline.serial.patterns import Beam, Candidate, Pattern, candidates_of, scrambled
from nanoed.pipeline.serial.runs import Chain, link
from nanoed.pipeline.serial.spec import IndexSpec, PartialitySpec
from nanoed.pipeline.serial.templates import make_templates

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Null:
    """Mean and standard deviation of the best scores of frames without a lattice."""

    mean: float
    sd: float

    def z(self, score: float) -> float:
        """How many standard deviations a score lies above them."""
        return (score - self.mean) / self.sd


def null_distribution(
    patterns: Sequence[Pattern], lattice: KnownLattice, beam: Beam, spec: IndexSpec, workers: int = 1
) -> Null:
    """Scores of the best orientation of scrambled frames, an even sample of those with enough peaks."""
    templates = make_templates(lattice, beam.wavelength, spec.templates)
    rich = [i for i, p in enumerate(patterns) if len(p.xy) >= spec.accept.min_peaks]

    def one(k: int) -> list[float]:
        pattern = scrambled(patterns[rich[k]], np.random.default_rng([rich[k], 0]))
        return [c.score for c in candidates_of(pattern, templates, lattice, beam, spec)[:1]]

    sample = spread_out(len(rich), spec.accept.null_frames)
    scores = np.concatenate(list(over_frames(one, sample, workers, "", None)))
    return Null(float(np.mean(scores)), max(float(np.std(scores)), 0.05))


def verdict(candidates: list[Candidate], null: Null, spec: IndexSpec) -> str:
    """Why a frame is rejected before its intensities are looked at; "" where it is not."""
    if not candidates or candidates[0].peaks < spec.accept.min_peaks:
        return "too few peaks"
    best = candidates[0]
    if null.z(best.score) < spec.accept.null_sigma or best.matched < spec.accept.min_peaks:
        return "no orientation"
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """What the intensity stage needs of the data: patterns, nodes, box of the detector (frames, 4) in 1/Å."""

    patterns: Sequence[Pattern]
    nodes: Nodes
    box: Array
    beam: Beam


def boxes(geometry: Geometry, shape: tuple[int, int], edge_px: float = 3.0) -> Array:
    """(frames, 4) x_min, x_max, y_min, y_max of the detector about the centre of every frame, 1/Å."""
    ny, nx = shape
    x, y = geometry.centres[:, 0], geometry.centres[:, 1]
    sides = [edge_px - x, nx - edge_px - x, y - ny + edge_px, y - edge_px]
    return np.column_stack(sides).astype(np.float64) * geometry.a_per_px


def observe(frames: Frames, oriented: Oriented, spec: IndexSpec, workers: int = 1) -> Spots:
    """Peaks at the nodes near the Ewald sphere of every frame; no peak is an intensity of zero."""
    settings = spec.partiality
    reach = settings.position_reach_px * frames.beam.a_per_px

    def one(row: int) -> tuple[Index, Array, Array, Array]:
        i = oriented.frame[row]
        pattern = frames.patterns[i]
        return peaks_at_nodes(oriented.orientation[row], oriented.shift[row], frames.nodes.g, pattern.xy,
                              pattern.intensity, frames.beam.wavelength, settings.s_max, reach,
                              frames.box[i])  # fmt: skip

    parts = list(over_frames(one, range(len(oriented)), workers, "", None))
    first = np.concatenate([[0], np.cumsum([len(part[0]) for part in parts])])
    node, s, xy, intensity = (np.concatenate(column) for column in zip(*parts, strict=True))
    length = np.linalg.norm(frames.nodes.g, axis=1)[node]
    return Spots(first, node, s, length, xy, intensity, np.zeros(len(node)))


def rivals(candidates: list[Candidate], turns: Array, spec: IndexSpec) -> list[Candidate]:
    """Distinct candidates that the positions alone do not rule out, best first."""
    kept: list[Candidate] = []
    for c in candidates:
        near = c.score > candidates[0].score - spec.runs.rival_drop
        others = np.array([k.orientation for k in kept]).reshape(-1, 3, 3)
        angles = angle_between(others, np.repeat(c.orientation[None], len(kept), axis=0), turns)
        if near and (angles > np.radians(spec.templates.distinct_deg)).all():
            kept.append(c)
    return kept


def start(frame: Index, chosen: Sequence[Candidate], spec: IndexSpec) -> Oriented:
    """Frames at trial orientations, all scales 1."""
    n = len(frame)
    return Oriented(frame, np.array([c.orientation for c in chosen]), np.array([c.shift for c in chosen]),
                    np.zeros(n), np.full(n, spec.partiality.diameter_A), np.ones(n))  # fmt: skip


def by_intensity(
    frames: Frames,
    usable: Index,
    candidates: Sequence[list[Candidate]],
    lattice: KnownLattice,
    spec: IndexSpec,
    workers: int = 1,
) -> tuple[Oriented, Index]:
    """Every rival of every usable frame with tilts and scale refined on the intensities of all.

    Returns the rivals, frame after frame, and the row of `usable` of each. The intensities are those of the best
    candidates; equivalents under the lattice's symmetry share one, since indices are still ambiguous.
    """
    settings, key, n_keys = spec.partiality, frames.nodes.key, frames.nodes.n_keys
    best = start(usable, [candidates[i][0] for i in usable], spec)
    for k in range(settings.rounds):
        spots = observe(frames, best, spec, workers)
        full = full_intensities(spots, best, key, n_keys, settings)
        best = levelled(refine_tilts(spots, best, full, key, _width(k, settings), settings, workers))
    spots = observe(frames, best, spec, workers)
    full = full_intensities(spots, best, key, n_keys, settings)
    every = [(row, c) for row, i in enumerate(usable) for c in rivals(candidates[i], lattice.turns, spec)]
    owner = np.array([row for row, _ in every])
    many = start(usable[owner], [c for _, c in every], spec)
    for k in range(settings.rounds):
        spots = observe(frames, many, spec, workers)
        many = refine_tilts(spots, many, full, key, _width(k, settings), settings, workers)
    return many, owner


def _width(k: int, spec: PartialitySpec) -> float:
    """Half-width of the search over tilts in round k, rad."""
    return float(np.radians(spec.search_deg if k else spec.first_search_deg))


def evidence(many: Oriented, peaks: Index) -> Array:
    """Log likelihood of each rival from its cost: -n/2 ln cost, n the number of peaks of its frame."""
    return np.asarray(-0.5 * peaks * np.log(np.maximum(many.cost, 1e-6)), np.float64)


def accepted_chain(
    frames: Frames,
    many: Oriented,
    owner: Index,
    usable: Index,
    candidates: Sequence[list[Candidate]],
    lattice: KnownLattice,
    spec: IndexSpec,
) -> tuple[Chain, Oriented, list[str]]:
    """The chain of rivals of the usable frames, its orientations, and "" or why a frame is rejected after all.

    Frames with peaks left over, and those that stand alone between two that show one particle, are rejected; the
    chain is made again without them, so that they break no run.
    """
    count = np.array([candidates[i][0].peaks for i in usable])
    weight = evidence(many, count[owner])
    first = np.searchsorted(owner, np.arange(len(usable)))
    reasons = [""] * len(usable)
    likely = first + np.array([int(np.argmax(w)) for w in np.split(weight, first[1:])])
    for row, part in enumerate(explained(frames, many.select(likely), spec)):
        if part < spec.accept.min_explained:
            reasons[row] = "peaks left over"
    while True:
        rows = np.array([row for row in range(len(usable)) if not reasons[row]], np.int64)
        if len(rows) == 0:
            return Chain(first * 0, np.zeros(len(first)), first * 0), many.select(first), reasons
        mine = np.isin(owner, rows)
        split = np.searchsorted(owner[mine], rows)[1:]
        chain = link(usable[rows], np.split(many.orientation[mine], split), np.split(weight[mine], split),
                     lattice.turns, spec.runs)  # fmt: skip
        alone = lonely(chain, usable[rows], many.orientation[first[rows] + chain.choice], lattice.turns, spec)
        for row in rows[alone]:
            reasons[row] = "breaks a run"
        if not alone.any():
            break
    n = len(usable)
    choice, confidence, run = np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int64)
    choice[rows], confidence[rows], run[rows] = chain.choice, chain.confidence, chain.run
    for row in rows[chain.confidence < spec.accept.min_confidence]:
        reasons[row] = "rivals"
    whole = Chain(choice, confidence, run)
    return whole, many.select(first + whole.choice), reasons


def explained(frames: Frames, oriented: Oriented, spec: IndexSpec) -> Array:
    """(n,) part of the peaks of each frame that its orientation explains, weighed by amplitude.

    Peaks are those of the local refinement. Amplitudes keep both a few strong peaks and the many weak ones in the
    tails of rocking curves from deciding alone.
    """
    settings, parts = spec.accept, []
    reach = settings.position_reach_px * frames.beam.a_per_px
    for i, orientation, shift in zip(oriented.frame, oriented.orientation, oriented.shift, strict=True):
        near = frames.patterns[i].within(spec.local.d_star_max, spec.local.max_peaks)
        node = matched_nodes(orientation, shift, frames.nodes.g, near.xy, frames.beam.wavelength, reach,
                             settings.s_max)  # fmt: skip
        amplitude = np.sqrt(near.intensity)
        parts.append(float(amplitude[node >= 0].sum() / amplitude.sum()))
    return np.array(parts)


def lonely(
    chain: Chain, frame: Index, orientation: Array, turns: Array, spec: IndexSpec
) -> NDArray[np.bool_]:
    """(n,) True for a run of one frame between two others that would be one run without it."""
    out = np.zeros(len(frame), bool)
    for i in range(1, len(frame) - 1):
        single = chain.run[i] != chain.run[i - 1] and chain.run[i] != chain.run[i + 1]
        if single and not out[i - 1] and frame[i + 1] - frame[i - 1] <= spec.runs.gap:
            angle = angle_between(orientation[i - 1][None], orientation[i + 1][None], turns)[0]
            out[i] = angle < np.radians(spec.runs.link_deg)
    return out


def turned_to(oriented: Oriented, turns: Array) -> Oriented:
    """The same orientations, frame i named by the equivalent O turns[i]ᵀ."""
    return replace(oriented, orientation=np.einsum("nij,nkj->nik", oriented.orientation, turns))
