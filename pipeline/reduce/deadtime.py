"""Counts that a pixel loses while it is busy, from the flattened tops of strong spots, and their return."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

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


def dead_time(spots: pd.DataFrame, zone: NDArray[np.int64], least: float) -> tuple[float, float]:
    """Dead time t, 1 / electrons of a pixel in one exposure, and its standard error, from the flatness of spots.

    spots : columns frame, I, sigma, flat, sigma_flat of spots.integrate.  zone : (n,) of the profile.  least :
        I / sigma of the spots that have a say.
    Weighted least squares of a / I = t I + c_frame + c_zone, c what the shape of the spots of a frame and the mean
    losses in the profile of a zone do; the weights hold the scatter left from spot to spot.
    0 ± infinity where there are fewer than ten spots more than these unknowns.
    """
    use = ((spots["I"] > least * spots["sigma"]) & np.isfinite(spots["sigma_flat"])).to_numpy(bool)
    frame, intensity = spots["frame"].to_numpy(np.int64)[use], spots["I"].to_numpy(float)[use]
    groups = np.column_stack([frame[:, None] == np.unique(frame), zone[use, None] == np.unique(zone[use])])
    if len(frame) < 10 + groups.shape[1]:
        return 0.0, np.inf
    columns = np.column_stack([intensity, spots["flat"].to_numpy(float)[use] / intensity])
    counting, scatter2 = (spots["sigma_flat"].to_numpy(float)[use] / intensity) ** 2, 0.0
    found, error = 0.0, 0.0
    for _ in range(4):
        root = 1.0 / np.sqrt(counting + scatter2)[:, None]
        x, z = (
            root * columns - root * groups @ np.linalg.lstsq(root * groups, root * columns, rcond=1e-9)[0]
        ).T
        if x @ x < 1e-12 * float((root[:, 0] * intensity) @ (root[:, 0] * intensity)):
            return 0.0, np.inf
        found, left = float(x @ z / (x @ x)), z - x * float(x @ z / (x @ x))
        error = float(np.sqrt((x * left) @ (x * left)) / (x @ x))
        spread = (1.4826 * np.median(np.abs(left)) / root[:, 0]) ** 2
        scatter2 = max(0.0, float(np.median(spread - counting)))
    return found, error


def likely(found: float, error: float, prior: float) -> tuple[float, float]:
    """Mean and standard deviation of a dead time that is not negative, of scale `prior` beforehand and measured as
    found ± error (infinite: not measured): those of a truncated normal distribution.
    """
    precision = prior**-2 + error**-2
    centre, width = found * error**-2 / precision, precision**-0.5
    at = centre / width
    hazard = float(np.exp(norm.logpdf(at) - norm.logcdf(at)))
    variance = max(1 - at * hazard - hazard**2, 0.0)
    return width * (at + hazard), width * variance**0.5
