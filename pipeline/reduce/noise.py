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


def estimate_gain(expected: Array, squares: Array, bins: int = 10) -> float:
    """gain = var/mean of the counts: the median over bins of expected counts of sum(squares)/sum(expected).

    expected, squares : (m,) from block_moments, of all frames.  The median over bins keeps halos of strong
    spots, where the background is not smooth, from counting as noise. 1.0 where nothing can be measured.
    """
    keep = expected > 0
    if keep.sum() < 10 * bins:
        return 1.0
    order = np.argsort(expected[keep], kind="stable")
    parts = zip(
        np.array_split(expected[keep][order], bins), np.array_split(squares[keep][order], bins), strict=True
    )
    return float(np.median([q.sum() / e.sum() for e, q in parts]))
