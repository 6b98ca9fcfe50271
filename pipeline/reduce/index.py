"""Indexing: the orientation of a lattice of roughly known cell from peaks in three dimensions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.geometry import cell_of
from nanoed.pipeline.reduce.symmetry import centring_absent
from nanoed.pipeline.spec import IndexingSpec
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Indexed:
    """ub (3, 3) 1/Å; hkl (n, 3) nearest node of each peak; indexed (n,): within tolerance; residual: rms."""

    ub: Array
    hkl: NDArray[np.int64]
    indexed: NDArray[np.bool_]
    residual: float

    @property
    def fraction(self) -> float:
        return float(self.indexed.mean())


def index_peaks(
    x: Array, cell: tuple[float, ...], spec: IndexingSpec, spacegroup: str | None = None
) -> Indexed:
    """The lattice of the given cell that indexes most peaks.

    x : (n, 3) 1/Å, peaks in the crystal's frame at zero stage angles.  cell : Å and degrees, right to ~1 %.
    Direct-lattice vectors t of the three known lengths are searched over directions by sum cos(2π t·x)
    (the known-cell form of the DPS/Fourier method), combined into right-handed cells whose angles agree,
    refined, and ranked by the number of peaks within `tolerance` / longest axis of a node that the centring of
    `spacegroup` allows, then by their residual.
    Raises InputError without peaks and where fewer than `min_fraction` of them fit.
    """
    if len(x) < 10:
        raise InputError("too few peaks to index", field="peaks", value=len(x), allowed="at least 10")
    lengths, found = np.array(cell[:3]), {}
    for length in lengths:
        if float(length) not in found:
            found[float(length)] = direct_vectors(x, float(length), spec)
    best: Indexed | None = None
    for basis in _bases([found[float(length)] for length in lengths], cell, spec):
        trial = refined(x, np.asarray(np.linalg.inv(basis), np.float64), spec.tolerance / lengths.max())
        if trial is not None:
            trial = replace(trial, indexed=trial.indexed & ~centring_absent(trial.hkl, spacegroup))
        if trial is not None and _agrees(trial.ub, cell, spec) and _better(trial, best):
            best = trial
    if best is None or best.fraction < spec.min_fraction:
        share = 0.0 if best is None else 100 * best.fraction
        raise InputError(f"the given cell indexes {share:.0f} % of {len(x)} peaks", field="cell",
                         value=tuple(round(c, 4) for c in cell),
                         allowed=f"a cell that indexes at least {100 * spec.min_fraction:.0f} %")  # fmt: skip
    return best


def direct_vectors(x: Array, length: float, spec: IndexingSpec, keep: int = 24) -> Array:
    """(m, 3) Å, at most `keep` direct-lattice vectors of about `length`, best first, one of each ± pair."""
    reach = float(np.linalg.norm(x, axis=1).max())
    step = min(np.radians(spec.grid_deg), spec.phase_step / (length * reach))
    directions = _half_sphere(step)
    pieces = np.array_split(directions, max(1, len(directions) * len(x) // 2_000_000))
    score = np.concatenate([np.cos(2 * np.pi * length * (part @ x.T)).mean(axis=1) for part in pieces])
    vectors: list[Array] = []
    for i in np.argsort(-score, kind="stable")[: 20 * keep]:
        t = directions[i] * length
        if any(abs(t @ v) > np.cos(3 * step) * length * np.linalg.norm(v) for v in vectors):
            continue
        t = fitted_period(x, t)
        size = float(np.linalg.norm(t))
        repeated = any(min(np.linalg.norm(t - v), np.linalg.norm(t + v)) < 0.05 * length for v in vectors)
        if abs(size / length - 1) < spec.length_tol and not repeated:
            vectors.append(t)
        if len(vectors) == keep:
            break
    return np.array(vectors).reshape(-1, 3)


def _half_sphere(step: float) -> Array:
    """(n, 3) unit vectors about `step` rad apart over z >= 0 (Fibonacci spiral)."""
    n = int(np.ceil(2 * np.pi / step**2))
    z = (np.arange(n) + 0.5) / n
    angle = np.arange(n) * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - z * z)
    return np.column_stack([r * np.cos(angle), r * np.sin(angle), z])


def fitted_period(x: Array, t: Array) -> Array:
    """(3,) Å, least-squares t from t·x = integer over the peaks that are near one."""
    for _ in range(4):
        phase = x @ t
        nearest = np.round(phase)
        good = np.abs(phase - nearest) < 0.2
        if good.sum() < 6:
            break
        solution, _, rank, _ = np.linalg.lstsq(x[good], nearest[good], rcond=None)
        if rank < 3 or np.linalg.norm(solution - t) > 0.2 * np.linalg.norm(t):
            break
        t = np.asarray(solution, np.float64)
    return t


def _bases(vectors: list[Array], cell: tuple[float, ...], spec: IndexingSpec) -> list[Array]:
    """Right-handed (3, 3) bases, rows a, b, c, whose angles agree with the cell; a fixes the overall sign."""
    alpha, beta, gamma = (np.cos(np.radians(x)) for x in cell[3:])
    slack = np.radians(spec.angle_tol_deg)

    def agrees(u: Array, v: Array, cosine: float) -> bool:
        return abs(np.arccos(np.clip(u @ v / np.sqrt((u @ u) * (v @ v)), -1, 1)) - np.arccos(cosine)) < slack

    bases = []
    for a, b in product(vectors[0], vectors[1]):
        for sb in (1, -1):
            if not agrees(a, sb * b, gamma):
                continue
            for c, sc in product(vectors[2], (1, -1)):
                basis = np.array([a, sb * b, sc * c])
                if agrees(a, sc * c, beta) and agrees(sb * b, sc * c, alpha) and np.linalg.det(basis) > 0:
                    bases.append(basis)
    return bases


def refined(x: Array, ub: Array, tolerance: float) -> Indexed | None:
    """UB by least squares on the indexed peaks, three rounds."""
    for _ in range(3):
        hkl = np.round(x @ np.linalg.inv(ub).T)
        miss = np.linalg.norm(x - hkl @ ub.T, axis=1)
        good = miss < tolerance
        solution, _, rank, _ = np.linalg.lstsq(hkl[good], x[good], rcond=None)
        if rank < 3:
            return None
        ub = np.array(solution, np.float64).T
    hkl = np.round(x @ np.linalg.inv(ub).T)
    miss = np.linalg.norm(x - hkl @ ub.T, axis=1)
    good = miss < tolerance
    residual = float(np.sqrt(np.mean(miss[good] ** 2))) if good.any() else np.inf
    return Indexed(ub, hkl.astype(np.int64), good, residual)


def _agrees(ub: Array, cell: tuple[float, ...], spec: IndexingSpec) -> bool:
    found = np.array(cell_of(ub))
    ratio = np.abs(found[:3] / np.array(cell[:3]) - 1).max()
    return bool(ratio < spec.length_tol and np.abs(found[3:] - np.array(cell[3:])).max() < spec.angle_tol_deg)


def _better(trial: Indexed, best: Indexed | None) -> bool:
    """More peaks indexed, or as many (within 1 %) and nearer to their nodes."""
    if best is None:
        return True
    n, m = int(trial.indexed.sum()), int(best.indexed.sum())
    if abs(n - m) > 0.01 * max(n, m):
        return n > m
    return trial.residual < best.residual - 1e-9
