"""Least squares of a frame-based problem: tilts of each frame alone, then everything together.

Every frame has a damping of its own: where a step makes its fit worse, the frame keeps its tilts while the structure
moves on, so that one frame between two fringes does not hold up the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.refine.normal import Block, block_of, cost_of, solve
from nanoed.pipeline.refine.problem import Problem, State
from nanoed.sim.physics.errors import ConvergenceError

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
LARGEST_TILT_STEP = np.radians(0.15)
LARGEST_LOG_STEP = 0.2
LARGEST_DAMPING = 1e6
THICKNESS_MARGIN = 2.0
"""The mean thickness may leave the range of the scan by this factor before the refinement is given up."""
NO_WORSE = 1 + 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """A state, its intensities and costs per frame, and the damping of each frame's tilts."""

    state: State
    calculated: list[Array]
    costs: Array
    damping: Array


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A settled least squares: state, kept Jacobians of the frames, covariance (p + k) at unit weight, history."""

    state: State
    slopes: list[Array]
    covariance: Floats
    history: pd.DataFrame


def search_tilts(problem: Problem, state: State) -> Array:
    """Two tilts per frame with structure and thickness held, by Levenberg-Marquardt in each frame; (frames, 2) rad."""
    potential = problem.potential(state.values, derivatives=False)
    prior, settled = problem.prior, np.radians(problem.spec.tilt_settled_deg)

    def search(i: int) -> Array:
        frame, tilt, damping = problem.frames[i], state.tilts[i], 1e-2
        calculated, slope = problem.frame(i, state, tilt, potential, True)
        cost = cost_of(frame, calculated) + float(tilt @ tilt) / prior**2
        for _ in range(8):
            block = block_of(frame, calculated, slope, tilt, prior, damping)
            step = _limited(np.linalg.solve(block.ll, block.loc))
            trial, trial_slope = problem.frame(i, state, tilt + step, potential, True)
            trial_cost = cost_of(frame, trial) + float((tilt + step) @ (tilt + step)) / prior**2
            if trial_cost >= cost:
                damping = max(10 * damping, 0.1)
                continue
            gain, tilt, cost = cost - trial_cost, tilt + step, trial_cost
            calculated, slope, damping = trial, trial_slope, damping / 10
            if gain < 1e-3 * cost or np.linalg.norm(step) < settled:
                break
        return tilt

    return np.array(problem.each(search))


def _limited(step: Floats) -> Floats:
    """Tilt steps (..., 2) no longer than LARGEST_TILT_STEP."""
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    return step * np.minimum(1.0, LARGEST_TILT_STEP / np.maximum(length, 1e-300))


def gauss_newton(
    problem: Problem, state: State, settled: float, tilts: bool, slopes: list[Array] | None = None
) -> Fit:
    """Damped Gauss-Newton on structure, sizes and, with `tilts`, orientations together.

    A Jacobian (`slopes` at the start) is kept while steps shrink to a third or better, else computed anew; it settles
    when the largest shift is below `settled` s.u.  Raises ConvergenceError.
    """
    point, slopes, fresh = _linearised(problem, state, np.zeros(len(problem.frames)), slopes)
    damping, last, shift = 0.0, np.inf, np.inf
    history: list[dict[str, float]] = []
    for cycle in range(problem.spec.max_cycles):
        step, local, normal = solve(_blocks(problem, point, slopes), problem.working, tilts, damping)
        trial = _step(problem, point, step, local)
        covariance = np.linalg.pinv(normal, hermitian=True)
        shift = _largest_shift(problem, point, step, covariance)
        better = _total(problem, trial) <= _total(problem, point) * NO_WORSE
        point = trial if better else point
        history.append({"cycle": cycle, "wr_all_pct": _wr(problem, point), "max_shift_su": shift})
        if shift < settled and damping < 0.1:
            free = replace(point, damping=np.zeros_like(point.damping))
            _, _, normal = solve(_blocks(problem, free, slopes), problem.working, tilts, 0.0)
            covariance = np.linalg.pinv(normal, hermitian=True)
            return Fit(point.state, slopes, covariance, pd.DataFrame(history))
        if better and shift <= last / 3:
            damping, fresh = (damping / 10 if damping > 1e-4 else 0.0), False
        elif better or not fresh:
            point, slopes, fresh = _linearised(problem, point.state, point.damping, None)
        else:
            damping = max(10 * damping, 1e-2)
        last = shift
        if damping > LARGEST_DAMPING:
            break
    raise ConvergenceError(
        f"dynamical refinement did not settle in {problem.spec.max_cycles} cycles (largest shift/su {shift:.2g}, "
        f"wR {_wr(problem, point):.1f} %); try a better start model, another thickness model or start_A"
    )


def _linearised(
    problem: Problem, state: State, damping: Array, slopes: list[Array] | None
) -> tuple[_Point, list[Array], bool]:
    """The point, Jacobians of all frames, and whether these are of this state."""
    found = problem.evaluate(state, derivatives=slopes is None)
    calculated = [i for i, _ in found]
    point = _Point(state, calculated, _costs(problem, state.tilts, calculated), damping)
    return point, slopes or [s for _, s in found], slopes is None


def _resized(problem: Problem, sizes: Floats) -> Floats:
    """The sizes (k,), if the mean thickness is still near the range of the scan. Raises ConvergenceError."""
    relative = np.mean([problem.engine.mean_chord(f.orientation) for f in problem.frames])
    thickness = float(np.exp(sizes[0]) * relative)
    low, high = problem.spec.thickness.scan_A
    if not low / THICKNESS_MARGIN < thickness < high * THICKNESS_MARGIN:
        raise ConvergenceError(
            f"the thickness ran away to {thickness:.0f} Å; try another start_A, thickness model or start model"
        )
    return sizes


def _costs(problem: Problem, tilts: Floats, calculated: list[Array]) -> Array:
    """Sum of squares of each frame, its tilts' prior included."""
    fit = [cost_of(f, i) for f, i in zip(problem.frames, calculated, strict=True)]
    return np.array(fit) + np.sum(tilts**2, axis=1) / problem.prior**2


def _blocks(problem: Problem, point: _Point, slopes: list[Array]) -> list[Block]:
    rows = zip(problem.frames, point.calculated, slopes, point.state.tilts, point.damping, strict=True)
    return [block_of(f, i, s, t, problem.prior, float(d)) for f, i, s, t, d in rows]


def _step(problem: Problem, point: _Point, step: Array, local: Array) -> _Point:
    """The stepped point, in which frames whose fit became worse keep their tilts where that is better."""
    state, p = point.state, len(point.state.values)
    sizes = _resized(problem, state.sizes + np.clip(step[p:], -LARGEST_LOG_STEP, LARGEST_LOG_STEP))
    values = state.values + problem.parameters.limited(step[:p])
    moved = State(values, sizes, state.tilts + _limited(local))
    potential = problem.potential(moved.values, derivatives=False)
    calculated = [
        i for i, _ in problem.each(lambda i: problem.frame(i, moved, moved.tilts[i], potential, False))
    ]
    costs = _costs(problem, moved.tilts, calculated)
    worse = np.flatnonzero((costs > point.costs * NO_WORSE) & np.any(local != 0, axis=1))
    stayed = problem.each(lambda i: problem.frame(i, moved, state.tilts[i], potential, False)[0], worse)
    tilts, damping = moved.tilts.copy(), np.where(point.damping > 1e-4, point.damping / 10, 0.0)
    for i, found in zip(worse, stayed, strict=True):
        tilt = state.tilts[i]
        cost = cost_of(problem.frames[i], found) + float(tilt @ tilt) / problem.prior**2
        if cost < costs[i]:
            tilts[i], costs[i], calculated[i] = tilt, cost, found
            damping[i] = min(max(10 * point.damping[i], 0.1), LARGEST_DAMPING)
    return _Point(replace(moved, tilts=tilts), calculated, costs, damping)


def _total(problem: Problem, point: _Point) -> float:
    return float(point.costs[problem.working].sum())


def _largest_shift(problem: Problem, point: _Point, step: Floats, covariance: Floats) -> float:
    """Largest shift of structure and sizes over its s.u."""
    n_data = sum(len(f.observed) for f, w in zip(problem.frames, problem.working, strict=True) if w)
    variance = np.diag(covariance) * max(_total(problem, point) / n_data, 1.0)
    return float(np.max(np.abs(step) / np.sqrt(variance)))


def _wr(problem: Problem, point: _Point) -> float:
    frames = [f for f, w in zip(problem.frames, problem.working, strict=True) if w]
    return 100 * float(np.sqrt(_total(problem, point) / sum(float(f.weight @ f.observed**2) for f in frames)))
