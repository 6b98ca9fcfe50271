"""Two tilts per frame with structure and thickness held: a wide search over the rocking curve, then least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.normal import block_of, cost_of
from nanoed.pipeline.refine.problem import Problem, State
from nanoed.sim.physics.bloch import PotentialTable

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
LARGEST_TILT_STEP = np.radians(0.15)


def search_tilts(problem: Problem, state: State, which: NDArray[np.int64] | None = None) -> Array:
    """Two tilts per frame with structure and thickness held; (frames, 2) rad. which : frames that are searched.

    Frames of a rotation are first searched on a grid of `spec.tilt_search_deg`: the fringes of a thick crystal make
    many minima. Then Levenberg-Marquardt in each frame.
    """
    potential = problem.potential(state.values, derivatives=False)
    wide = searches_widely(problem)

    def search(i: int) -> Array:
        start = swept(problem, i, state, potential) if wide else state.tilts[i]
        return descended(problem, i, state, start, potential).tilt

    tilts = np.array(state.tilts, np.float64)
    found = problem.each(search, which)
    tilts[slice(None) if which is None else which] = found
    return tilts


def searches_widely(problem: Problem) -> bool:
    """Whether tilts are searched on a grid first."""
    return problem.engine.protocol == "rotation" and problem.spec.tilt_search_deg > 0


def swept(problem: Problem, i: int, state: State, potential: PotentialTable) -> Array:
    """The best tilts of frame i on a grid around those of the state, (2,) rad.

    A tilt about the rotation axis moves the window of the rotation along the rocking curve, so that one wider
    rotation gives all of them.
    """
    frame, spec = problem.frames[i], problem.spec
    along = np.array([np.cos(frame.azimuth), np.sin(frame.azimuth)])
    across = np.array([-along[1], along[0]])
    reach = np.radians(spec.tilt_search_deg)
    sides = np.arange(-reach, reach + 1e-12, np.radians(spec.tilt_search_step_deg))
    best, found, prior = np.inf, state.tilts[i], problem.prior(i)
    for side in sides:
        tilt = state.tilts[i] + side * across
        shifts, windows = problem.engine.windows(frame, tilt, state.size(frame), reach, potential)
        costs = [
            cost_of(frame, w) + _prior(prior, tilt + s * along)
            for s, w in zip(shifts, windows, strict=True)
        ]
        least = int(np.argmin(costs))
        if costs[least] < best:
            best, found = costs[least], tilt + shifts[least] * along
    return np.asarray(found, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """Tilts (2,) rad of a frame, its sum of squares, intensities and their derivatives by sizes and tilts there."""

    tilt: Array
    cost: float
    calculated: Array
    slope: Array


def descended(problem: Problem, i: int, state: State, tilt: Array, potential: PotentialTable) -> Descent:
    """Frame i by Levenberg-Marquardt on its tilts from a start (2,) rad."""
    prior, settled = problem.prior(i), np.radians(problem.spec.tilt_settled_deg)
    frame, damping = problem.frames[i], 1e-2
    calculated, slope = problem.frame(i, state, tilt, potential, True)
    cost = cost_of(frame, calculated) + _prior(prior, tilt)
    for _ in range(8):
        block = block_of(frame, calculated, slope, tilt, prior, damping)
        step = limited(np.linalg.solve(block.ll, block.loc))
        trial, trial_slope = problem.frame(i, state, tilt + step, potential, True)
        trial_cost = cost_of(frame, trial) + _prior(prior, tilt + step)
        if trial_cost >= cost:
            damping = max(10 * damping, 0.1)
            continue
        gain, tilt, cost = cost - trial_cost, tilt + step, trial_cost
        calculated, slope, damping = trial, trial_slope, damping / 10
        if gain < 1e-3 * cost or np.linalg.norm(step) < settled:
            break
    return Descent(tilt, cost, calculated, slope)


def _prior(spread: float, tilt: Floats) -> float:
    """What the prior spread adds to a frame's sum of squares."""
    return float(tilt @ tilt) / spread**2


def limited(step: Floats) -> Floats:
    """Tilt steps (..., 2) no longer than LARGEST_TILT_STEP."""
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    return step * np.minimum(1.0, LARGEST_TILT_STEP / np.maximum(length, 1e-300))
