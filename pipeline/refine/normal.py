"""Normal equations of frame-based least squares: scales and tilts of each frame are eliminated.

A frame's scale is linear (variable projection, Golub & Pereyra 1973, in Kaufman's form); its two tilts enter no other
frame, so that their block is eliminated by a Schur complement. What is left has the size of the structure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.frames import Frame

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
N_TILTS = 2
SMALLEST_EIGENVALUE = 1e-12
"""Of the normal matrix scaled to a unit diagonal; below it, some parameters are not determined."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One frame's share of the normal equations. Global: structure and sizes; local: two tilts."""

    gg: Array
    gl: Array
    ll: Array
    g: Array
    loc: Array


def scale_of(frame: Frame, calculated: Array) -> float:
    """Scale of least squares between observed and calculated intensities."""
    wc = frame.weight * calculated
    return float(wc @ frame.observed) / max(float(wc @ calculated), 1e-300)


def cost_of(frame: Frame, calculated: Array) -> float:
    """Weighted sum of squares of a frame with its best scale."""
    residual = frame.observed - scale_of(frame, calculated) * calculated
    return float(frame.weight @ residual**2)


def relative_misfits(frames: list[Frame], calculated: list[Array]) -> Array:
    """wR on I of every frame, sqrt(sum w (I_o - k I_c)² / sum w I_o²); (frames,)."""
    rows = zip(frames, calculated, strict=True)
    return np.sqrt([cost_of(f, i) / float(f.weight @ f.observed**2) for f, i in rows])


def balanced(frames: list[Frame], calculated: list[Array]) -> list[Frame]:
    """The frames with the weights for which least squares minimises the mean of their wR, near these intensities.

    wR² of a frame counts by 1 / wR, since d(wR²) = 2 wR d(wR) (iteratively reweighted least squares). The sum of
    w I² over all frames stays.
    """
    norms = np.array([float(f.weight @ f.observed**2) for f in frames])
    shares = 1 / np.maximum(relative_misfits(frames, calculated), 1e-6)
    factors = shares / norms * (norms.sum() / shares.sum())
    return [replace(f, weight=f.weight * k) for f, k in zip(frames, factors, strict=True)]


def block_of(
    frame: Frame, calculated: Array, slope: Array, tilt: Array, prior: float, damping: float
) -> Block:
    """The frame's block; slope (n, p + 2) with the tilts in the last two columns.

    prior : spread of the tilts, rad.  damping : Levenberg-Marquardt, relative to the diagonal of the tilts.
    """
    root = np.sqrt(frame.weight)
    scale = scale_of(frame, calculated)
    unit = root * calculated
    unit /= max(float(np.linalg.norm(unit)), 1e-300)
    jacobian = scale * root[:, None] * slope
    jacobian -= np.outer(unit, unit @ jacobian)
    residual = root * (frame.observed - scale * calculated)
    of_rest, of_tilts = jacobian[:, :-N_TILTS], jacobian[:, -N_TILTS:]
    ll = of_tilts.T @ of_tilts
    ll += np.diag(damping * np.diag(ll) + prior**-2)
    loc = of_tilts.T @ residual - tilt / prior**2
    return Block(of_rest.T @ of_rest, of_rest.T @ of_tilts, ll, of_rest.T @ residual, loc)


def blocks_of(
    frames: list[Frame], calculated: list[Array], slopes: list[Array], tilts: Floats, priors: Array
) -> list[Block]:
    """The blocks of all frames at their tilts (frames, 2), without damping. priors : (frames,) spread of these."""
    rows = zip(frames, calculated, slopes, tilts, priors, strict=True)
    return [block_of(f, i, s, t, float(p), 0.0) for f, i, s, t, p in rows]


def solve(
    blocks: list[Block],
    working: NDArray[np.bool_],
    tilts: bool,
    damping: float,
    outside: tuple[Array, Array],
) -> tuple[Array, Array, Array]:
    """Steps of the global parameters (p,) and of the tilts (frames, 2), and the reduced normal matrix (p, p).

    working : (frames,) frames that have a say in the global parameters.  damping : Levenberg-Marquardt, relative
    to the diagonal, of tilts too.  outside : normal matrix and right side that no frame has, of restraints.
    Without `tilts` these stay.
    """
    used = [b for b, w in zip(blocks, working, strict=True) if w]
    normal = np.sum([b.gg for b in used], axis=0) + outside[0]
    right = np.sum([b.g for b in used], axis=0) + outside[1]
    damped = [b.ll + damping * np.diag(np.diag(b.ll)) for b in blocks]
    if tilts:
        own = [ll for ll, w in zip(damped, working, strict=True) if w]
        pairs = list(zip(used, own, strict=True))
        normal = normal - np.sum([b.gl @ np.linalg.solve(ll, b.gl.T) for b, ll in pairs], axis=0)
        right = right - np.sum([b.gl @ np.linalg.solve(ll, b.loc) for b, ll in pairs], axis=0)
    step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), right)
    local = np.zeros((len(blocks), N_TILTS))
    if tilts:
        rows = zip(blocks, damped, strict=True)
        local = np.array([np.linalg.solve(ll, b.loc - b.gl.T @ step) for b, ll in rows])
    return step, local, normal


def predicted_gain(
    blocks: list[Block],
    working: NDArray[np.bool_],
    step: Floats,
    local: Floats,
    outside: tuple[Array, Array],
) -> float:
    """What the linear model takes off the sum of squares for steps of the global parameters (p,) and tilts."""
    gain = 2 * float(outside[1] @ step) - float(step @ outside[0] @ step)
    for b, turn, w in zip(blocks, local, working, strict=True):
        if w:
            gain += 2 * float(b.g @ step + b.loc @ turn)
            gain -= float(step @ b.gg @ step + 2 * step @ b.gl @ turn + turn @ b.ll @ turn)
    return gain


def determined(normal: Array) -> bool:
    """Whether a normal matrix (p, p) has an inverse worth the name."""
    if not (np.diag(normal) > 0).all():
        return False
    unit = np.sqrt(np.diag(normal))
    return bool(np.linalg.eigvalsh(normal / np.outer(unit, unit)).min() > SMALLEST_EIGENVALUE)
