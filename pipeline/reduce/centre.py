"""Pattern centre of a frame: the direct beam, or where it is stated to be if that is hidden, then Friedel pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from nanoed.pipeline.reduce.neighbours import nearest

Array = NDArray[np.float64]


def direct_beam(frame: Array, sigma_px: float, radius_px: float) -> Array:
    """(2,) x, y centroid of the brightest spot of the frame, counts within `radius_px` of its maximum.

    Counts are clipped at a twentieth of the maximum, so that a counter losing electrons in the middle of the
    beam does not matter.
    """
    reach = int(np.ceil(radius_px + 4 * sigma_px)) + 1
    coarse = uniform_filter(frame[::2, ::2], 3)
    top_row, top_column = (2 * int(k) for k in np.unravel_index(int(np.argmax(coarse)), coarse.shape))
    y0, x0 = max(0, top_row - 2 * reach), max(0, top_column - 2 * reach)
    smooth = gaussian_filter(frame[y0 : top_row + 2 * reach, x0 : top_column + 2 * reach], sigma_px)
    row, column = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    y, x = np.arange(smooth.shape[0]) + 0.5, np.arange(smooth.shape[1]) + 0.5
    centre = np.array([column + 0.5, row + 0.5])
    for _ in range(3):
        near = (x[None, :] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 <= radius_px**2
        weight = np.where(near, smooth, 0.0)
        top = weight.max()
        weight = np.clip(weight - 0.01 * top, 0.0, 0.04 * top)
        total = weight.sum()
        if total <= 0:
            break
        centre = np.array([weight.sum(axis=0) @ x, weight.sum(axis=1) @ y]) / total
    return centre + np.array([x0, y0])


def mostly_bad(bad: NDArray[np.bool_], place: Array, radius_px: float) -> bool:
    """Whether most pixels (ny, nx) within `radius_px` of a place (x, y) are bad: a beam stop, a chip border."""
    y, x = np.mgrid[: bad.shape[0], : bad.shape[1]] + 0.5
    around = np.hypot(x - place[0], y - place[1]) <= radius_px
    return bool(around.any() and bad[around].mean() > 0.5)


def friedel_centre(pixels: Array, start: Array, reach_px: float, min_pairs: int = 4) -> Array:
    """(2,) centre from pairs of peaks g, -g: the median of their mid-points within `reach_px` of `start`.

    pixels : (n, 2).  Keeps `start` where fewer than `min_pairs` pairs are found.
    """
    if len(pixels) < 2:
        return start
    distance, partner = (column[:, 0] for column in nearest(pixels, 2 * start - pixels, 1, 2 * reach_px))
    found = np.isfinite(distance) & (partner > np.arange(len(pixels)))
    if found.sum() < min_pairs:
        return start
    return np.median(0.5 * (pixels[found] + pixels[partner[found]]), axis=0)
