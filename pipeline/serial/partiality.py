"""How much of a reflection a still frame records: the profile of a sphere, blurred by mosaicity."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BLUR_STEP, BLURS = 0.05, 41  # of the table: mosaicity g D from 0 to 2
PLACE_STEP, PLACES = 0.01, 601  # |S| D from 0 to 6


def sphere_profile(x: Array) -> Array:
    """Profile of a sphere across the Ewald sphere over its top; x = S D, any shape.

    p = 8 [1/2 - sin a/a - (cos a - 1)/a²] / a², a = 2π S D: the shape transform |FT|² integrated over the plane of
    the detector (C6).
    """
    a = 2 * np.pi * np.asarray(x, float)
    safe = np.where(np.abs(a) < 0.05, 1.0, a)
    f = 0.5 - np.sin(safe) / safe - (np.cos(safe) - 1) / safe**2
    return np.where(np.abs(a) < 0.05, 1 - a * a / 18, 8 * f / safe**2)


def _table() -> Array:
    """(BLURS, PLACES) the profile over S D, blurred by a Gaussian of each standard deviation of S D."""
    node, weight = np.polynomial.hermite_e.hermegauss(31)
    blur = BLUR_STEP * np.arange(BLURS)[:, None, None]
    place = PLACE_STEP * np.arange(PLACES)[None, :, None]
    return sphere_profile(place + blur * node) @ (weight / weight.sum())


TABLE = _table()


@nb.njit(cache=True, nogil=True)
def partiality(s: float, g: float, diameter: float, mosaicity: float) -> float:
    """Recorded part p of a reflection, 1 at S = 0 for a perfect crystal; linear in a table.

    s, g : excitation error and |g|, 1/Å.  diameter : Å.  mosaicity : rad, rms; it spreads S by mosaicity g.
    Beyond the table the profile falls as 1/S².
    """
    u = min(mosaicity * g * diameter / BLUR_STEP, BLURS - 1.001)
    x = abs(s) * diameter / PLACE_STEP
    tail = 1.0
    if x > PLACES - 1.001:
        tail = ((PLACES - 1.001) / x) ** 2
        x = PLACES - 1.001
    i, j = int(u), int(x)
    u, x = u - i, x - j
    low = (1 - x) * TABLE[i, j] + x * TABLE[i, j + 1]
    high = (1 - x) * TABLE[i + 1, j] + x * TABLE[i + 1, j + 1]
    return tail * ((1 - u) * low + u * high)


@nb.njit(cache=True, nogil=True)
def partialities(s: Array, g: Array, diameter: Array, mosaicity: float, p: Array) -> None:
    """`partiality` of n reflections, each with the diameter (n,) of its particle."""
    for i in range(s.shape[0]):
        p[i] = partiality(s[i], g[i], diameter[i], mosaicity)


@nb.njit(cache=True, nogil=True)
def frame_cost(
    tilt_x: float,
    tilt_y: float,
    s: Array,
    xy: Array,
    g: Array,
    root: Array,
    root_full: Array,
    known: NDArray[np.bool_],
    diameter: float,
    mosaicity: float,
) -> tuple[float, float]:
    """1 - cos² of the angle between observed and calculated amplitudes of a tilted frame, and their ratio.

    s, g (n,), xy (n, 2): excitation error, |g|, g_x and g_y before the tilt, 1/Å; S + g_y θ_x - g_x θ_y after.
    root : (n,) sqrt(I) observed.  root_full : (n,) sqrt of the full intensity; only where `known`.
    The square root is the power of C5.
    """
    oo, oc, cc = 0.0, 0.0, 0.0
    for i in range(s.shape[0]):
        if known[i]:
            at = s[i] + xy[i, 1] * tilt_x - xy[i, 0] * tilt_y
            c = root_full[i] * np.sqrt(partiality(at, g[i], diameter, mosaicity))
            oo += root[i] * root[i]
            oc += root[i] * c
            cc += c * c
    if oo <= 0.0 or cc <= 0.0:
        return 1.0, 0.0
    return 1.0 - oc * oc / (oo * cc), oc / cc


@nb.njit(cache=True, nogil=True)
def search_tilt(
    s: Array,
    xy: Array,
    g: Array,
    root: Array,
    root_full: Array,
    known: NDArray[np.bool_],
    diameter: float,
    mosaicity: float,
    width: float,
    steps: int,
    rounds: int,
) -> tuple[float, float, float, float]:
    """Tilts (rad) of least `frame_cost` on a grid of ±width, made finer by `steps` in every round.

    Without width the frame stays as it is. Returns tilt_x, tilt_y, cost, ratio of amplitudes.
    """
    best_x, best_y = 0.0, 0.0
    cost, ratio = frame_cost(0.0, 0.0, s, xy, g, root, root_full, known, diameter, mosaicity)
    if width == 0.0:
        return best_x, best_y, cost, ratio
    for _ in range(rounds):
        middle_x, middle_y = best_x, best_y
        for i in range(-steps, steps + 1):
            for j in range(-steps, steps + 1):
                x, y = middle_x + i * width / steps, middle_y + j * width / steps
                c, k = frame_cost(x, y, s, xy, g, root, root_full, known, diameter, mosaicity)
                if c < cost:
                    best_x, best_y, cost, ratio = x, y, c, k
        width /= steps
    return best_x, best_y, cost, ratio
