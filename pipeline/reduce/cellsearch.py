"""A lattice from nothing: short periods of the peaks in three dimensions, by their Fourier transform (C3.5)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfftn
from scipy.ndimage import maximum_filter

from nanoed.pipeline.reduce.geometry import cell_of
from nanoed.pipeline.reduce.index import Indexed, fitted_period, refined
from nanoed.pipeline.spec import IndexingSpec
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]


def find_cell(x: Array, spec: IndexingSpec) -> Indexed:
    """The reduced primitive lattice that indexes most peaks.

    x : (n, 3) 1/Å, peaks in the crystal's frame at zero stage angles. Periods t with t·x near whole numbers are the
    maxima of Σ cos(2π t·x), the Fourier transform of the peaks; three of them that are not coplanar make a cell.
    Of the cells that index `min_fraction` the likeliest is taken, and reduced. Raises InputError where there is none.
    """
    if len(x) < 10:
        raise InputError("too few peaks to index", field="peaks", value=len(x), allowed="at least 10")
    periods = find_periods(x, spec)
    trials = [t for t in _cells(x, periods, spec) if t.fraction >= spec.min_fraction]
    if not trials:
        allowed = (
            f"a lattice that indexes at least {100 * spec.min_fraction:.0f} %, or the cell of the crystal"
        )
        raise InputError(f"no lattice found that indexes {len(x)} peaks", field="indexing", allowed=allowed)
    best = max(trials, key=lambda t: likelihood(x, t))
    again = refined(x, reduced(best.ub), _tolerance(best.ub, spec))
    return best if again is None else again


def likelihood(x: Array, trial: Indexed) -> float:
    """Log of the likelihood of the peaks x (n, 3) on a lattice over that of peaks anywhere.

    A share w of them, the indexed ones, lies about the nodes with the scatter s of these per axis, the others anywhere:
    Σ ln(1 - w + w exp(-d²/2s²) / ((2π)^(3/2) s³ V)), V the cell's volume: a cell larger than it need be loses ln 2 a
    peak with every doubling, one that leaves peaks far from its nodes or unexplained loses more.
    """
    hkl = np.round(x @ np.linalg.inv(trial.ub).T)
    distance2 = ((x - hkl @ trial.ub.T) ** 2).sum(axis=1)
    w, s2 = min(trial.fraction, 0.99), max(trial.residual**2 / 3, 1e-8)
    volume = 1.0 / abs(float(np.linalg.det(trial.ub)))
    about = np.exp(-0.5 * distance2 / s2) / ((2 * np.pi * s2) ** 1.5 * volume)
    return float(np.log(1 - w + w * about).sum())


def find_periods(x: Array, spec: IndexingSpec) -> Array:
    """(m, 3) Å, direct-lattice vectors of the peaks, short ones first, one of each ± pair."""
    n, reach = (
        spec.fourier_grid,
        2.0 * float(np.abs(x).max()),
    )  # twice: the transform is sampled finely enough
    node = np.rint(x * (n / (2 * reach))).astype(np.int64)
    grid = np.zeros((n, n, n), np.float32)
    np.add.at(grid, tuple(node.T % n), 1.0)
    score = rfftn(grid).real / len(x)
    index = np.fft.fftfreq(n, 1 / n) / (2 * reach)
    half = index[: n // 2 + 1] * np.r_[np.ones(n // 2), -1]
    length = np.sqrt(sum(np.meshgrid(index**2, index**2, half**2, indexing="ij", sparse=True), start=0.0))
    usable = (length >= spec.shortest_A) & (length <= spec.longest_A)
    least = max(spec.period_score, spec.period_ratio * float(score[usable].max(initial=0.0)))
    top = usable & (score >= least) & (score == maximum_filter(score, 3, mode="nearest"))
    places = np.argwhere(top)
    order = np.argsort(length[top], kind="stable")[: 3 * spec.n_periods]
    t = np.column_stack([index[places[order, 0]], index[places[order, 1]], half[places[order, 2]]])
    return _distinct(x, t, spec)


def _distinct(x: Array, starts: Array, spec: IndexingSpec) -> Array:
    """The starts refined (t·x nearest whole numbers), those that are not another one or its negative."""
    found: list[Array] = []
    for t in starts:
        t = fitted_period(x, t)
        twice = any(min(np.linalg.norm(t - v), np.linalg.norm(t + v)) < 0.5 for v in found)
        if not twice and spec.shortest_A <= np.linalg.norm(t) <= spec.longest_A:
            found.append(t)
        if len(found) == spec.n_periods:
            break
    return np.array(found).reshape(-1, 3)


def _cells(x: Array, periods: Array, spec: IndexingSpec) -> list[Indexed]:
    """Refined lattices of triples of periods, every volume once."""
    trials: list[Indexed] = []
    seen: set[int] = set()
    for three in combinations(range(len(periods)), 3):
        basis = periods[list(three)]
        volume = abs(float(np.linalg.det(basis)))
        lengths = np.linalg.norm(basis, axis=1)
        if volume < 0.2 * lengths.prod() or volume > spec.largest_volume_A3:
            continue
        basis = basis * np.sign(np.linalg.det(basis))
        ub = reduced(np.asarray(np.linalg.inv(basis), np.float64))
        key = hash(tuple(np.round(cell_of(ub), 1)))
        if key in seen:
            continue
        seen.add(key)
        trial = refined(x, ub, _tolerance(ub, spec))
        if trial is not None:
            trials.append(trial)
    return trials


def _tolerance(ub: Array, spec: IndexingSpec) -> float:
    """Largest distance of a peak from its node, 1/Å."""
    return spec.tolerance / float(np.linalg.norm(np.linalg.inv(ub), axis=1).max())


def reduced(ub: Array) -> Array:
    """The same lattice with its shortest vectors as basis, right-handed (Minkowski reduction; its cell is Niggli's
    but for the choice among equal lengths).

    ub : (3, 3) 1/Å, columns a*, b*, c*.
    """
    basis = np.linalg.inv(ub)
    steps = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    for _ in range(100):
        basis = basis[np.argsort(np.linalg.norm(basis, axis=1), kind="stable")]
        options = basis[2] + steps @ basis[:2]
        shortest = options[np.argmin(np.linalg.norm(options, axis=1).round(9))]
        second = basis[1] - np.round(basis[1] @ basis[0] / (basis[0] @ basis[0])) * basis[0]
        changed = np.array([basis[0], second, shortest])
        if np.allclose(changed, basis):
            break
        basis = np.array([basis[0], second, basis[2]]) if not np.allclose(second, basis[1]) else changed
    if np.linalg.det(basis) < 0:
        basis = -basis
    return np.asarray(np.linalg.inv(basis), np.float64)
