"""Smooth background of a frame: a radial profile, scaled locally to the pixels between the spots."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RING_PX = 2.0  # width of the rings of the radial profile; linear between their mean radii


def radial_profile(frame: Array, usable: Mask, centre: Array) -> Array:
    """(ny, nx) azimuthal mean of the usable pixels about the centre (x, y), linear between rings.

    The mean, not the median: at a few counts per pixel a median of Poisson counts is biased.
    """
    radial = np.empty(frame.shape)
    _radial(frame, usable, float(centre[0]), float(centre[1]), radial)
    return radial


def local_background(frame: Array, usable: Mask, centre: Array, window: int) -> tuple[Array, Array]:
    """Background (ny, nx) in counts and the effective number of usable pixels (ny, nx) behind each value.

    B(x) = R(x) sum_box(D) / sum_box(R) over usable pixels, R the radial profile: unbiased for any count
    level and exact where the background is R times a locally constant factor. Where a box holds fewer
    than a tenth of its pixels, R itself is returned.
    """
    background = radial_profile(frame, usable, centre)
    support = np.empty(frame.shape)
    _scale_locally(frame, usable, window // 2, background, support)
    return background, support


@nb.njit(cache=True, nogil=True)
def _radial(frame: Array, usable: Mask, cx: float, cy: float, radial: Array) -> None:
    ny, nx = frame.shape
    far_x, far_y = max(abs(cx), abs(nx - cx)), max(abs(cy), abs(ny - cy))
    n = int(np.hypot(far_x, far_y) / RING_PX) + 2
    count, total, where = np.zeros(n), np.zeros(n), np.zeros(n)
    for row in range(ny):
        for column in range(nx):
            if usable[row, column]:
                r = np.sqrt((column + 0.5 - cx) ** 2 + (row + 0.5 - cy) ** 2) / RING_PX
                k = int(r)
                count[k] += 1.0
                total[k] += frame[row, column]
                where[k] += r
    m = 0
    for k in range(n):  # drop empty rings
        if count[k] > 0:
            total[m], where[m] = total[k] / count[k], where[k] / count[k]
            m += 1
    if m == 0:
        radial[:, :] = 0.0
        return
    fine = 8  # table of the profile at an eighth of a ring
    table = np.interp(np.arange(n * fine + fine) / fine, where[:m], total[:m])
    for row in range(ny):
        for column in range(nx):
            r = np.sqrt((column + 0.5 - cx) ** 2 + (row + 0.5 - cy) ** 2) / RING_PX * fine
            k = int(r)
            radial[row, column] = table[k] + (r - k) * (table[k + 1] - table[k])


@nb.njit(cache=True, nogil=True)
def _scale_locally(frame: Array, usable: Mask, half: int, background: Array, support: Array) -> None:
    """background holds R on entry and B on return; sums over columns slide down, prefix sums run across."""
    ny, nx = frame.shape
    radial = background.copy()
    columns = np.zeros(
        (3, nx)
    )  # per column: sums of D, R and the number of usable pixels in the window's rows
    prefix = np.zeros((3, nx + 1))
    whole = (2 * half + 1) ** 2
    for row in range(-half, ny):
        for new, sign in ((row + half, 1.0), (row - half - 1, -1.0)):
            if 0 <= new < ny:
                for column in range(nx):
                    if usable[new, column]:
                        columns[0, column] += sign * frame[new, column]
                        columns[1, column] += sign * radial[new, column]
                        columns[2, column] += sign
        if row < 0:
            continue
        for column in range(nx):
            for k in range(3):
                prefix[k, column + 1] = prefix[k, column] + columns[k, column]
        for column in range(nx):
            left, right = max(0, column - half), min(nx, column + half + 1)
            n = prefix[2, right] - prefix[2, left]
            support[row, column] = whole
            if n > 0.1 * whole:
                m = prefix[1, right] - prefix[1, left]
                support[row, column] = n
                if m > 1e-9:
                    background[row, column] *= max(prefix[0, right] - prefix[0, left], 0.0) / m
            background[row, column] = max(background[row, column], 0.0)
