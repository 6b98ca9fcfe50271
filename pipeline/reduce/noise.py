"""Noise model of the detector from the frames themselves: variance and correlation of the counts over their mean."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LAG = 2  # an electron that is counted by neighbours correlates pixels up to two apart
BINS_PER_DECADE, DECADES = 6, (-4, 5)


def noise_sums() -> Array:
    """Zeros for the sums of `add_noise`: (bins of expected counts, 2 + (LAG + 1)²)."""
    return np.zeros((BINS_PER_DECADE * (DECADES[1] - DECADES[0]), 2 + (LAG + 1) ** 2))


@nb.njit(cache=True, nogil=True)
def add_noise(net: Array, background: Array, support: Array, usable: NDArray[np.bool_], sums: Array) -> None:
    """Add a frame to sums: number, Σ B and Σ net net' of usable pixels (dy, dx) apart, both signs, in bins of their B.

    net : (ny, nx) frame minus background B.  support : (ny, nx) pixels behind each value of B, whose noise net has too.
    """
    ny, nx = net.shape
    bins, lags = sums.shape[0], LAG + 1
    for row in range(LAG, ny - LAG):
        for column in range(LAG, nx - LAG):
            b = background[row, column]
            if not usable[row, column] or b <= 0.0:
                continue
            k = int((np.log10(b) - DECADES[0]) * BINS_PER_DECADE)
            if k < 0 or k >= bins:
                continue
            own = net[row, column] / (1.0 - 1.0 / max(support[row, column], 2.0))
            sums[k, 0] += 1.0
            sums[k, 1] += b
            for dy in range(lags):
                for dx in range(lags):
                    total, n = 0.0, 0
                    for sy in range(2 if dy > 0 else 1):
                        for sx in range(2 if dx > 0 else 1):
                            i = row + (dy if sy == 0 else -dy)
                            j = column + (dx if sx == 0 else -dx)
                            if usable[i, j]:
                                total += net[i, j]
                                n += 1
                    if n > 0:
                        sums[k, 2 + dy * lags + dx] += own * total / n


def noise_covariance(sums: Array, least_counts: float = 1e3) -> Array:
    """(LAG + 1, LAG + 1) covariance over mean of the counts of pixels (dy, dx) apart; [0, 0] is the variance over mean.

    The lower quartile over the bins of expected counts that hold enough: what is not smooth background (halos of strong
    spots, faint spots) adds to some bins and takes from none. Correlations below 0.02 are none. Poisson's below
    three bins of `least_counts` (3 % in a variance), or one of twenty times as much.
    """
    poisson = uncorrelated(1.0)
    full = sums[:, 1] > least_counts
    if full.sum() < 3:
        full = sums[:, 1] > 20 * least_counts
    if not full.any():
        return poisson
    ratios = sums[full, 2:] / sums[full, 1:2]
    found = np.quantile(ratios, 0.25, axis=0).reshape(LAG + 1, LAG + 1)
    if found[0, 0] <= 0:
        return poisson
    found[np.abs(found) < 0.02 * found[0, 0]] = 0.0
    return found


def noise_table(sums: Array, least_counts: float = 1e3) -> Array:
    """(m, 2) mean counts of a pixel and its variance, what neighbours share added, of the bins that hold enough."""
    full = sums[:, 1] > least_counts
    gains = [gain_of(row.reshape(LAG + 1, LAG + 1)) for row in sums[full, 2:] / sums[full, 1:2]]
    mean = sums[full, 1] / sums[full, 0]
    return np.column_stack([mean, mean * np.array(gains)]).reshape(-1, 2)


def gain_and_offset(table: Array, gain: float) -> tuple[float, float]:
    """Variance of a pixel = gain (mean + offset) (C3.1): the line with a quarter of the bins below it, by ratios, since
    halos of strong spots lie above and one bin beside the direct beam may lie far below; `gain` and 0 where it tells of
    no offset.

    table : (m, 2) of noise_table.  gain : of noise_covariance.  An offset of less than a tenth of the variance in the
    faintest quarter of the bins, whose variances are known to 3 %, is none; nor is any seen with fewer than eight bins.
    Bins whose neighbours take away more than the variance of a pixel itself tell nothing.
    """
    table = table[table[:, 1] > 0]
    if len(table) < 8:
        return gain, 0.0
    mean, variance = table.T
    i, j = np.triu_indices(len(table), 1)
    slope = (variance[j] - variance[i]) / (mean[j] - mean[i])
    level = variance[i] - slope * mean[i]
    rising = slope > 0
    slope, level = slope[rising], level[rising]
    line = slope[:, None] * mean + level[:, None]
    above = np.log(variance / np.maximum(line, 1e-9 * variance))
    loss = np.where(above > 0, 0.25 * above, -0.75 * above).sum(axis=1)
    best = int(np.argmin(loss)) if len(loss) else 0
    faint = np.argsort(mean, kind="stable")[: len(table) // 4]
    if len(loss) == 0 or level[best] < 0.1 * np.median(variance[faint]):
        return gain, 0.0
    return float(slope[best]), float(level[best] / slope[best])


def gain_of(covariance: Array) -> float:
    """Variance over mean of the counts of an area: the sum of the covariance over all (dy, dx) of both signs."""
    both = np.array([1.0] + [2.0] * LAG)
    return float(both @ covariance @ both)


def uncorrelated(gain: float) -> Array:
    """The covariance of pixels that are independent."""
    covariance = np.zeros((LAG + 1, LAG + 1))
    covariance[0, 0] = gain
    return covariance
