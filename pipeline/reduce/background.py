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


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _radial(frame: Array, usable: Mask, cx: float, cy: float, radial: Array) -> None:
    ny, nx = frame.shape
    far_x, far_y = max(abs(cx), abs(nx - cx)), max(abs(cy), abs(ny - cy))
    n = int(np.hypot(far_x, far_y) / RING_PX) + 2
    count, total, where = np.zeros(n), np.zeros(n), np.zeros(n)
    x2, r = (np.arange(nx) + 0.5 - cx) ** 2, np.empty(nx)
    for row in range(ny):
        y2, seen, use = (row + 0.5 - cy) ** 2, frame[row], usable[row]
        for column in range(nx):
            r[column] = np.sqrt(x2[column] + y2) / RING_PX
        for column in range(nx):
            if use[column]:
                ring = np.uint32(r[column])
                count[ring] += 1.0
                total[ring] += seen[column]
                where[ring] += r[column]
    m = 0
    for k in range(n):  # drop empty rings
        if count[k] > 0:
            total[m], where[m] = total[k] / count[k], where[k] / count[k]
            m += 1
    if m == 0:
        radial[:, :] = 0.0
        return
    value = total[:m].copy()
    for k in range(1, m - 1):  # the lines through the values, not these, have the means of the rings
        left = (total[k] - total[k - 1]) / (where[k] - where[k - 1])
        right = (total[k + 1] - total[k]) / (where[k + 1] - where[k])
        value[k] -= (right - left) / 8
        if k == 1:
            value[0] -= (right - left) / 8
    fine = 8  # table of the profile at an eighth of a ring
    places = np.arange(n * fine + fine) / fine
    table = np.interp(places, where[:m], value)
    if m > 1:
        slope = (value[1] - value[0]) / (where[1] - where[0])
        for k in range(int(where[0] * fine) + 1):
            table[k] = max(value[0] + slope * (places[k] - where[0]), 0.0)
    for row in range(ny):
        y2, out = (row + 0.5 - cy) ** 2, radial[row]
        for column in range(nx):
            r[column] = np.sqrt(x2[column] + y2) / RING_PX * fine
        for column in range(nx):
            place = np.uint32(r[column])
            out[column] = table[place] + (r[column] - place) * (table[place + 1] - table[place])


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _scale_locally(frame: Array, usable: Mask, half: int, background: Array, support: Array) -> None:
    """background holds R on entry and B on return; sums over columns slide down, prefix sums run across."""
    ny, nx = frame.shape
    radial = background.copy()
    counts, rings, number = np.zeros(nx), np.zeros(nx), np.zeros(nx)  # per column, over the window's rows
    wide = 2 * half + 1
    d, m, n = np.zeros((3, nx + wide))  # their sums from the left, padded
    whole = float(wide**2)
    for row in range(-half, ny):
        for new, sign in ((row + half, 1.0), (row - half - 1, -1.0)):
            if 0 <= new < ny:
                seen, profile, use = frame[new], radial[new], usable[new]
                for column in range(nx):
                    weight = sign if use[column] else 0.0
                    counts[column] += weight * seen[column]
                    rings[column] += weight * profile[column]
                    number[column] += weight
        if row < 0:
            continue
        a, b, c = 0.0, 0.0, 0.0
        for column in range(nx):
            a += counts[column]
            b += rings[column]
            c += number[column]
            d[half + 1 + column], m[half + 1 + column], n[half + 1 + column] = a, b, c
        d[half + 1 + nx :], m[half + 1 + nx :], n[half + 1 + nx :] = a, b, c
        d_right, m_right, n_right = d[wide:], m[wide:], n[wide:]
        profile, out, behind = radial[row], background[row], support[row]
        for column in range(nx):
            pixels, ring = n_right[column] - n[column], m_right[column] - m[column]
            total = d_right[column] - d[column]
            enough = pixels > 0.1 * whole
            behind[column] = pixels if enough else whole
            factor = total / ring if enough and ring > 1e-9 else 1.0
            scaled = profile[column] * factor
            out[column] = scaled if scaled > 0.0 else 0.0
