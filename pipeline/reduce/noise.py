"""Noise model of the detector from the frames themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.peaks import Cleaned

Array = NDArray[np.float64]


def block_moments(cleaned: Cleaned, block: int) -> tuple[Array, Array]:
    """Expected counts B and squared residuals of block x block sums that hold no spot; each (m,).

    Returns (sum of B, (sum of D - B)² corrected for the noise of B itself). Blocks rather than pixels, since
    the point spread correlates neighbours and pixel by pixel var/mean comes out too small.
    """
    ny, nx = (n // block * block for n in cleaned.frame.shape)

    def blocks(image: Array) -> Array:
        return image[:ny, :nx].reshape(ny // block, block, nx // block, block).swapaxes(1, 2)

    whole = blocks(cleaned.usable.astype(float)).min(axis=(2, 3)) > 0
    expected = blocks(cleaned.background).sum(axis=(2, 3))[whole]
    found = blocks(cleaned.frame).sum(axis=(2, 3))[whole]
    support = blocks(cleaned.n_background).mean(axis=(2, 3))[whole]
    return expected, (found - expected) ** 2 / (1.0 - np.minimum(block**2 / support, 0.5))


def noise_table(expected: Array, squares: Array, bins: int = 10) -> Array:
    """(bins, 2) mean counts and variance of blocks, in bins of as many blocks of about the same counts.

    expected, squares : (m,) from block_moments, of all frames.  No rows where there are too few blocks.
    """
    keep = expected > 0
    if keep.sum() < 10 * bins:
        return np.zeros((0, 2))
    order = np.argsort(expected[keep], kind="stable")
    parts = zip(
        np.array_split(expected[keep][order], bins), np.array_split(squares[keep][order], bins), strict=True
    )
    return np.array([(e.mean(), q.mean()) for e, q in parts])


def estimate_gain(expected: Array, squares: Array, bins: int = 10) -> float:
    """gain = var/mean of the counts: the median over bins of expected counts of sum(squares)/sum(expected).

    expected, squares : (m,) from block_moments, of all frames.  The median over bins keeps halos of strong
    spots, where the background is not smooth, from counting as noise. 1.0 where nothing can be measured.
    """
    table = noise_table(expected, squares, bins)
    return float(np.median(table[:, 1] / table[:, 0])) if len(table) else 1.0


def estimate_offset(table: Array, block: int) -> float:
    """Variance of a pixel that the counts do not explain, counts²: ψ of variance = gain counts + ψ (C3.1).

    table : (bins, 2) of noise_table.  block : side of the blocks.  The line through the bins is that of least relative
    deviations (Theil-Sen), so that halos of strong spots in the last bins do not tilt it; 0 without three bins.
    """
    if len(table) < 3:
        return 0.0
    mean, variance = table.T
    i, j = np.triu_indices(len(table), 1)
    slope = np.median((variance[j] - variance[i]) / np.maximum(mean[j] - mean[i], 1e-9))
    return float(np.median(variance - slope * mean)) / block**2
