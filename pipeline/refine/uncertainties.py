"""Standard uncertainties of what each frame has for itself: scale, tilts and thickness, correlations included."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.frames import Frame
from nanoed.pipeline.refine.normal import N_TILTS, Block, blocks_of, scale_of
from nanoed.pipeline.refine.problem import Problem, State, basis

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]


def frame_uncertainties(
    problem: Problem, state: State, calculated: list[Array], slopes: list[Array], covariance: Floats
) -> Array:
    """s.u. of the scale, the two tilts (rad) and the log of the size of every frame, (frames, 4).

    slopes : Jacobians (n, p + k + 2).  covariance : (p + k, p + k) of structure and sizes at unit weight; the result
    scales with the goodness of fit. What elimination removed comes back by its Schur complement, so that these are
    the s.u. of the full matrix's inverse.
    """
    blocks = blocks_of(problem.frames, calculated, slopes, state.tilts, problem.priors)
    rows = zip(problem.frames, calculated, slopes, blocks, strict=True)
    return np.array([_of_frame(problem, state, covariance, *row) for row in rows])


def _of_frame(
    problem: Problem, state: State, covariance: Floats, frame: Frame, i_c: Array, slope: Array, block: Block
) -> Array:
    joint = joint_covariance(covariance, block, problem.spec.optimise_orientations)
    wc = frame.weight * i_c
    curvature = max(float(wc @ i_c), 1e-300)
    pull = scale_of(frame, i_c) * (wc @ slope) / curvature
    scale = 1 / curvature + pull @ joint @ pull
    sizes = np.zeros(len(joint))
    sizes[len(state.values) : -N_TILTS] = basis(frame, len(state.sizes))
    tilts = np.diag(joint)[-N_TILTS:]
    return np.sqrt(np.maximum([scale, *tilts, sizes @ joint @ sizes], 0.0))


def joint_covariance(covariance: Floats, block: Block, tilts: bool) -> Array:
    """Covariance (p + k + 2) of the global parameters and one frame's tilts; these are exact without `tilts`."""
    p = len(covariance)
    out = np.zeros((p + N_TILTS, p + N_TILTS))
    out[:p, :p] = covariance
    if tilts:
        inverse = np.linalg.inv(block.ll)
        follow = -inverse @ block.gl.T
        out[p:, p:] = inverse + follow @ covariance @ follow.T
        out[p:, :p] = follow @ covariance
        out[:p, p:] = out[p:, :p].T
    return out
