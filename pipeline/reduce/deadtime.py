"""Counts that a pixel loses while it is busy, from the flattened tops of strong spots, and their return."""

from __future__ import annotations

import numba as nb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.profile import share_at

Array = NDArray[np.float64]


def restored(frame: Array, dead_time: float) -> Array:
    """Counts (ny, nx) without the losses of a paralysable counter, n = m exp(dead_time n) (H4).

    dead_time : 1 / counts of one exposure.  Beyond 1 / (2 dead_time) counts, near where such a counter turns back, the
    correction stays that of this value.
    """
    if dead_time == 0.0:
        return frame
    measured = np.minimum(frame, 0.5 / dead_time * np.exp(-0.5))
    n = measured.copy()
    for _ in range(6):
        n = measured * np.exp(dead_time * np.minimum(n, 0.5 / dead_time))
    return np.asarray(frame + (n - measured), np.float64)


@nb.njit(cache=True, nogil=True)
def flattening(
    net: Array,
    background: Array,
    valid: NDArray[np.bool_],
    x: Array,
    y: Array,
    zone: NDArray[np.int64],
    intensity: Array,
    shares: Array,
    step: float,
    radius: float,
    gain: float,
    found: Array,
) -> None:
    """How flat the tops of spots are against the profile: found (n, 2), `a` of net = -a P² + b P + c and its variance.

    net : (ny, nx) frame minus background minus all spots.  background (n,) counts per pixel.  intensity (n,) counts.
    Least squares with equal weights within `radius`, the same functional for every intensity: what is wrong with the
    profile itself gives a in proportion to I, lost counts t (I P)² give t I².
    """
    ny, nx = net.shape
    for s in range(x.shape[0]):
        n, m1, m2, m3 = 0.0, 0.0, 0.0, 0.0
        alpha, beta, top, bottom, variance = 0.0, 0.0, 0.0, 0.0, 0.0
        for turn in range(2):
            for row in range(max(0, int(y[s] - radius)), min(ny, int(y[s] + radius) + 2)):
                for column in range(max(0, int(x[s] - radius)), min(nx, int(x[s] + radius) + 2)):
                    r = np.sqrt((column + 0.5 - x[s]) ** 2 + (row + 0.5 - y[s]) ** 2)
                    if r > radius or not valid[row, column]:
                        continue
                    p = share_at(shares, zone[s], r, step)
                    if turn == 0:
                        n, m1, m2, m3 = n + 1.0, m1 + p, m2 + p * p, m3 + p * p * p
                    else:
                        q = p * p - alpha * p - beta
                        top -= q * net[row, column]
                        bottom += q * q
                        variance += q * q * gain * max(background[s] + intensity[s] * p, 0.0)
            spread = n * m2 - m1 * m1
            if spread <= 0.0:
                break
            alpha = (n * m3 - m1 * m2) / spread
            beta = (m2 - alpha * m1) / n
        found[s, 0] = top / bottom if bottom > 0.0 else 0.0
        found[s, 1] = variance / bottom**2 if bottom > 0.0 else np.inf


def dead_time(spots: pd.DataFrame, zone: NDArray[np.int64], least: float) -> tuple[float, float]:
    """Dead time t, 1 / electrons of a pixel in one exposure, and its standard error, from the flatness of spots.

    spots : columns frame, I, sigma, flat, sigma_flat of spots.integrate.  zone : (n,) of the profile.  least :
        I / sigma of the spots that have a say.
    Weighted least squares of a / I = t I + c_frame + c_zone, c what the shape of the spots of a frame and the mean
    losses in the profile of a zone do; the weights hold the scatter left from spot to spot.
    Zeros where there are fewer than ten spots more than these unknowns.
    """
    use = ((spots["I"] > least * spots["sigma"]) & np.isfinite(spots["sigma_flat"])).to_numpy(bool)
    frame, intensity = spots["frame"].to_numpy(np.int64)[use], spots["I"].to_numpy(float)[use]
    groups = np.column_stack([frame[:, None] == np.unique(frame), zone[use, None] == np.unique(zone[use])])
    if len(frame) < 10 + groups.shape[1]:
        return 0.0, 0.0
    columns = np.column_stack([intensity, spots["flat"].to_numpy(float)[use] / intensity])
    counting, scatter2 = (spots["sigma_flat"].to_numpy(float)[use] / intensity) ** 2, 0.0
    found, error = 0.0, 0.0
    for _ in range(4):
        root = 1.0 / np.sqrt(counting + scatter2)[:, None]
        x, z = (
            root * columns - root * groups @ np.linalg.lstsq(root * groups, root * columns, rcond=1e-9)[0]
        ).T
        if x @ x < 1e-12 * float((root[:, 0] * intensity) @ (root[:, 0] * intensity)):
            return 0.0, 0.0
        found, left = float(x @ z / (x @ x)), z - x * float(x @ z / (x @ x))
        error = float(np.sqrt((x * left) @ (x * left)) / (x @ x))
        spread = (1.4826 * np.median(np.abs(left)) / root[:, 0]) ** 2
        scatter2 = max(0.0, float(np.median(spread - counting)))
    return found, error
