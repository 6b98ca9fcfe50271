"""R of frames that have no say in the structure, without refining anew for each of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.refine.normal import blocks_of, scale_of, solve
from nanoed.pipeline.refine.orientations import limited
from nanoed.pipeline.refine.problem import Problem, State
from nanoed.pipeline.refine.statistics import r_obs_pct

Array = NDArray[np.float64]


def heldout_r_obs_pct(
    problem: Problem, state: State, calculated: list[Array], slopes: list[Array], folds: int
) -> float:
    """R of observed reflections over all frames, each predicted by the structure that the other folds give; percent.

    Frame i belongs to fold i modulo `folds`. The structure without a fold is one Gauss-Newton step away from the one
    of all frames, by the Jacobians (`slopes`) at hand; a frame keeps a scale, tilts and, where it has one, a size of
    its own. NaN where there are too few frames.
    """
    blocks = blocks_of(problem.frames, calculated, slopes, state.tilts, problem.priors)
    restrained = problem.outside(state)
    fold = np.array([f.number for f in problem.frames]) % folds
    if len(np.unique(fold)) < 2:
        return float("nan")
    p, parts = len(state.values), []
    for k in np.unique(fold):
        right = restrained.right.copy()
        held = [f for f, n in zip(problem.frames, fold, strict=True) if f.own_from and n == k]
        right[[p + f.own_from + f.number for f in held]] = 0.0
        step, local, _ = solve(
            blocks, fold != k, problem.spec.optimise_orientations, 0.0, (restrained.normal, right)
        )
        values = state.values + problem.parameters.limited(step[:p])
        without = State(values, state.sizes + step[p:], state.tilts + limited(local))
        parts += _predicted(problem, without, np.flatnonzero(fold == k))
    return r_obs_pct(pd.concat(parts, ignore_index=True))


def _predicted(problem: Problem, state: State, which: NDArray[np.int64]) -> list[pd.DataFrame]:
    """I_obs, sigma, I_calc of the frames `which` on the scale of I_calc."""
    potential = problem.potential(state.values, derivatives=False)
    found = problem.each(lambda i: problem.frame(i, state, state.tilts[i], potential, False)[0], which)
    tables = []
    for i, i_c in zip(which, found, strict=True):
        frame = problem.frames[i]
        scale = scale_of(frame, i_c)
        tables.append(
            pd.DataFrame({"I_obs": frame.observed / scale, "sigma": frame.sigma / scale, "I_calc": i_c})
        )
    return tables
