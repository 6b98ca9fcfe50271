"""Least squares of a frame-based problem: structure, sizes and the tilts of all frames together.

Where a step makes a frame's fit worse, its tilts are looked for anew while the structure moves on, so that one frame
between two fringes does not hold up the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.refine.normal import Block, blocks_of, cost_of, determined, predicted_gain, solve
from nanoed.pipeline.refine.orientations import descended, limited
from nanoed.pipeline.refine.problem import Problem, State
from nanoed.sim.physics.errors import ConvergenceError, RunawayThicknessError

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
LARGEST_LOG_STEP = 0.2
LARGEST_DAMPING = 1e6
THICKNESS_MARGIN = 2.0
"""The mean thickness may leave the range of the scan by this factor before the refinement is given up."""
NO_WORSE, MUCH_WORSE = 1 + 1e-9, 1.03
"""A step may not raise the sum of squares; a frame whose own rises by more than this has lost its tilts."""
STALE, OWN, WHOLE = 0, 1, 2
POOR = 0.25
"""A step that gains less than this share of what the linear model promises was too long."""


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """A state, its intensities, Jacobians (n, p + k + 2) and costs per frame.

    fresh : what of the Jacobians is of this state and not of an earlier one: STALE nothing, OWN the columns of sizes
    and tilts, which take a third of the time, WHOLE all.
    """

    state: State
    calculated: list[Array]
    slopes: list[Array]
    costs: Array
    fresh: int


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A settled least squares: state, kept Jacobians of the frames, covariance (p + k) at unit weight, history.

    su : (p + k,) of structure and sizes with the misfit that there is.
    """

    state: State
    slopes: list[Array]
    covariance: Floats
    su: Floats
    history: pd.DataFrame


def gauss_newton(
    problem: Problem,
    state: State,
    settled: float,
    tilts: bool,
    slopes: list[Array] | None = None,
    enough: int | None = None,
) -> Fit:
    """Damped Gauss-Newton on structure, sizes and, with `tilts`, orientations together.

    Jacobians (`slopes` at the start) are kept while steps shrink to a third or better, else computed anew: of tilts
    that stated errors hold, which makes them stiff, first the columns of sizes and tilts. It settles when the largest
    shift without damping is below `settled` s.u., or after `enough` cycles.  Raises ConvergenceError where it does not,
    RunawayThicknessError where the thickness leaves the range of the scan.
    """
    point = _linearised(problem, state, None) if slopes is None else _at(problem, state, slopes)
    damping, last, shift = 0.0, np.inf, np.inf
    history: list[dict[str, float]] = []
    for cycle in range(problem.spec.max_cycles if enough is None else enough):
        blocks = blocks_of(problem.frames, point.calculated, point.slopes, point.state.tilts, problem.priors)
        restrained = problem.outside(point.state)
        outside = (restrained.normal, restrained.right)
        try:
            full, _, normal = solve(blocks, problem.working, tilts, 0.0, outside)
        except np.linalg.LinAlgError:
            raise ConvergenceError(_undetermined(problem, blocks, restrained.normal)) from None
        covariance = np.linalg.pinv(normal, hermitian=True)
        su = _uncertainties(problem, point, covariance)
        shift = float(np.max(np.abs(full) / su))
        step, local, _ = solve(blocks, problem.working, tilts, damping, outside)
        trial = _step(problem, point, step, local)
        better = _total(problem, trial) <= _total(problem, point) * NO_WORSE
        expected = predicted_gain(blocks, problem.working, *_moved(point.state, trial.state), outside)
        poor = point.fresh == WHOLE and _total(problem, point) - _total(problem, trial) < POOR * expected
        before, point = point, trial if better else point
        history.append({"cycle": cycle, "wr_all_pct": _wr(problem, point), "max_shift_su": shift})
        if shift < settled and not determined(normal):
            raise ConvergenceError(_undetermined(problem, blocks, restrained.normal))
        if shift < settled or cycle + 1 == enough:
            return Fit(point.state, point.slopes, covariance, su, pd.DataFrame(history))
        if better and shift <= last / 3:
            damping = damping / 10 if damping > 1e-4 else 0.0
        elif tilts and problem.stated and before.fresh == STALE:
            point = _linearised(problem, point.state, point.slopes)
        elif better or before.fresh != WHOLE:
            point = _linearised(problem, point.state, None)
            damping = _damped_anew(damping, better, poor)
        else:
            damping = max(10 * damping, 1e-2)
        last = shift
        if damping > LARGEST_DAMPING:
            break
    raise ConvergenceError(_unsettled(problem, point, len(history), shift, damping))


def _unsettled(problem: Problem, point: _Point, cycles: int, shift: float, damping: float) -> str:
    """What to say where damping or the number of cycles ended the least squares before it settled."""
    where = f"(largest shift/su {shift:.2g}, wR {_wr(problem, point):.1f} %)"
    if damping > LARGEST_DAMPING:
        return (
            f"dynamical refinement was damped to a halt after {cycles} cycles {where}: no step gains what the "
            "derivatives promise; try a better start model, another thickness model or start_A, or more n_azimuth"
        )
    return (
        f"dynamical refinement did not settle in {cycles} cycles {where}; try more (max_cycles), a better start model, "
        "or fewer parameters"
    )


def _undetermined(problem: Problem, blocks: list[Block], outside: Array) -> str:
    """What to say where the normal matrix is singular: the parameters that nothing depends on, if there are such."""
    own = np.diag(np.sum([b.gg for b in blocks], axis=0) + outside)[: len(problem.parameters.names)]
    lost = [n for n, d in zip(problem.parameters.names, own, strict=True) if d <= 1e-14 * own.max()]
    what = f"{', '.join(lost)} as it stands" if lost else "all parameters"
    return f"the frames do not determine {what}; try fewer parameters, or more frames"


def _damped_anew(damping: float, better: bool, poor: bool) -> float:
    """More damping after a step that was too long, less after a good one."""
    if poor:
        return max(3 * damping, 1e-2)
    return damping / 10 if better and damping > 1e-4 else damping


def _moved(before: State, after: State) -> tuple[Floats, Floats]:
    """Steps of the global parameters (p + k,) and of the tilts (frames, 2)."""
    step = np.concatenate([after.values - before.values, after.sizes - before.sizes])
    return step, after.tilts - before.tilts


def _at(problem: Problem, state: State, slopes: list[Array]) -> _Point:
    """The point of a state, with Jacobians of an earlier one."""
    calculated = [i for i, _ in problem.evaluate(state, derivatives=False)]
    return _Point(state, calculated, slopes, _costs(problem, state.tilts, calculated), STALE)


def _linearised(problem: Problem, state: State, slopes: list[Array] | None) -> _Point:
    """The point with Jacobians of its own, but for the structure's part of `slopes`, if there are such."""
    found = problem.evaluate(state, derivatives=True, structure=slopes is None)
    calculated, own = [i for i, _ in found], [s for _, s in found]
    joined = own if slopes is None else [_with_own(s, o) for s, o in zip(slopes, own, strict=True)]
    costs = _costs(problem, state.tilts, calculated)
    return _Point(state, calculated, joined, costs, WHOLE if slopes is None else OWN)


def _with_own(slope: Array, own: Array) -> Array:
    """The Jacobian (n, p + k + 2) with the columns (n, k + 2) of sizes and tilts replaced."""
    return np.hstack([slope[:, : slope.shape[1] - own.shape[1]], own])


def _resized(problem: Problem, sizes: Floats) -> Floats:
    """The sizes (k,), if the mean thickness is still near the range of the scan. Raises RunawayThicknessError."""
    relative = np.mean([problem.engine.mean_chord(f.orientation) for f in problem.frames])
    thickness = float(np.exp(sizes[0]) * relative)
    low, high = problem.spec.thickness.scan_A
    if not low / THICKNESS_MARGIN < thickness < high * THICKNESS_MARGIN:
        raise RunawayThicknessError(
            f"the thickness ran away to {thickness:.0f} Å; try another start_A, thickness model or start model, "
            "or hold it (thickness.refine)"
        )
    return sizes


def _costs(problem: Problem, tilts: Floats, calculated: list[Array]) -> Array:
    """Sum of squares of each frame, its tilts' prior included."""
    fit = [cost_of(f, i) for f, i in zip(problem.frames, calculated, strict=True)]
    return np.array(fit) + np.sum(tilts**2, axis=1) / problem.priors**2


def _step(problem: Problem, point: _Point, step: Array, local: Array) -> _Point:
    """The stepped point; frames whose fit became worse look for their tilts anew, from those they had."""
    state, p = point.state, len(point.state.values)
    sizes = _resized(problem, state.sizes + np.clip(step[p:], -LARGEST_LOG_STEP, LARGEST_LOG_STEP))
    values = state.values + problem.parameters.limited(step[:p])
    moved = State(values, sizes, state.tilts + limited(local))
    there = _at(problem, moved, list(point.slopes))
    calculated, slopes, costs, tilts = there.calculated, there.slopes, there.costs, moved.tilts.copy()
    worse = np.flatnonzero((costs > point.costs * MUCH_WORSE) & np.any(local != 0, axis=1))
    if len(worse) == 0:
        return there
    potential = problem.potential(moved.values, derivatives=False)
    anew = problem.each(lambda i: descended(problem, i, moved, state.tilts[i], potential), worse)
    for i, found in zip(worse, anew, strict=True):
        if found.cost < costs[i]:
            tilts[i], costs[i], calculated[i] = found.tilt, found.cost, found.calculated
            slopes[i] = _with_own(slopes[i], found.slope)
    return _Point(replace(moved, tilts=tilts), calculated, slopes, costs, STALE)


def _total(problem: Problem, point: _Point) -> float:
    """Sum of squares of the working frames and of the restraints."""
    return float(point.costs[problem.working].sum()) + problem.outside(point.state).cost


def _uncertainties(problem: Problem, point: _Point, covariance: Floats) -> Floats:
    """s.u. of structure and sizes, no smaller than the errors of the data give."""
    n_data = sum(len(f.observed) for f, w in zip(problem.frames, problem.working, strict=True) if w)
    return np.sqrt(np.diag(covariance) * max(_total(problem, point) / n_data, 1.0))


def _wr(problem: Problem, point: _Point) -> float:
    frames = [f for f, w in zip(problem.frames, problem.working, strict=True) if w]
    cost = float(point.costs[problem.working].sum())
    return 100 * float(np.sqrt(cost / sum(float(f.weight @ f.observed**2) for f in frames)))
