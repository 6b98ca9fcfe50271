"""Normal equations of frame-based least squares: scales and tilts of each frame are eliminated.

A frame's scale is linear (variable projection, Golub & Pereyra 1973, in Kaufman's form); its two tilts enter no other
frame, so that their block is eliminated by a Schur complement. What is left has the size of the structure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.frames import Frame

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
N_TILTS = 2


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
    frames: list[Frame], calculated: list[Array], slopes: list[Array], tilts: Floats, prior: float
) -> list[Block]:
    """The blocks of all frames at their tilts (frames, 2), without damping."""
    rows = zip(frames, calculated, slopes, tilts, strict=True)
    return [block_of(f, i, s, t, prior, 0.0) for f, i, s, t in rows]


def solve(
    blocks: list[Block], working: NDArray[np.bool_], tilts: bool, damping: float
) -> tuple[Array, Array, Array]:
    """Steps of the global parameters (p,) and of the tilts (frames, 2), and the reduced normal matrix (p, p).

    working : (frames,) frames that have a say in the global parameters.  damping : Levenberg-Marquardt, relative
    to the diagonal.  Without `tilts` these stay.
    """
    used = [b for b, w in zip(blocks, working, strict=True) if w]
    normal, right = np.sum([b.gg for b in used], axis=0), np.sum([b.g for b in used], axis=0)
    if tilts:
        normal = normal - np.sum([b.gl @ np.linalg.solve(b.ll, b.gl.T) for b in used], axis=0)
        right = right - np.sum([b.gl @ np.linalg.solve(b.ll, b.loc) for b in used], axis=0)
    step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), right)
    local = np.zeros((len(blocks), N_TILTS))
    if tilts:
        local = np.array([np.linalg.solve(b.ll, b.loc - b.gl.T @ step) for b in blocks])
    return step, local, normal
