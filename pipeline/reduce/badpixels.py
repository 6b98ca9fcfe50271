"""Pixels that do not count: dead and hot ones, shadows and the wide pixels of chip borders, found from the frames.

Diffraction comes and goes and is as wide as the detector's point spread; a bad pixel stays where it is and is as
sharp as a pixel. All tests are made on sums of a sample of frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, median_filter, uniform_filter

from nanoed.pipeline.reduce.series import Progress, over_frames, read_frame, spread_out
from nanoed.pipeline.spec import MaskSpec
from nanoed.sim.dataset import DataSet

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
QUARTERS = 4  # of the series; a hot pixel is one in three of them
ODD_ERRORS = 4.0  # standard errors, of its pieces, by which a row is odd
RING = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1], [2, 2]]) - 1


@dataclass(frozen=True, slots=True, eq=False)
class BadPixels:
    """bad (ny, nx): not to be used, for any reason.  beside (ny, nx): on or next to such a pixel, where the middle of a
    spot cannot be told.  reasons: number of pixels for each, those of the data set's own mask first, and of all."""

    bad: Mask
    beside: Mask
    reasons: dict[str, int]


def bad_pixels(**reasons: Mask) -> BadPixels:
    """The pixels that any of the masks (ny, nx) marks; the masks' names become the reasons."""
    bad = np.logical_or.reduce(list(reasons.values()))
    count = {name: int(mask.sum()) for name, mask in reasons.items()}
    return BadPixels(bad, binary_dilation(bad, np.ones((3, 3), bool)), count | {"all": int(bad.sum())})


def find_bad_pixels(
    dataset: DataSet, spec: MaskSpec, workers: int = 1, progress: Progress | None = None
) -> BadPixels:
    """Bad pixels of a data set: those of its own mask and, unless `spec.find` is off, those that its frames show."""
    listed = dataset.pixel_mask()
    if not spec.find:
        return bad_pixels(listed=listed)
    gain = dataset.nominal.gain
    frames = spread_out(len(dataset), spec.frames)
    sums = np.zeros((QUARTERS, *dataset.nominal.shape))
    unlike = [np.zeros((3, n)) for n in dataset.nominal.shape]
    most = 20.0 * gain

    def read(i: int) -> Array:
        return np.maximum(read_frame(dataset, i), 0.0)

    for place, frame in enumerate(over_frames(read, frames, workers, "mask", progress)):
        sums[place * QUARTERS // len(frames)] += frame
        if place == 0:
            most = max(most, 6.0 * float(np.median(frame)))
        for axis in (0, 1):
            differences(frame if axis == 0 else np.ascontiguousarray(frame.T), most, unlike[axis])
    total = sums.sum(axis=0)
    dead = dead_pixels(total, gain, spec)
    dead |= shadow(total, np.array(dataset.nominal.centre_px), gain, spec)
    hot = hot_pixels(sums, gain, spec)
    gap = np.zeros(total.shape, bool)
    for axis in (0, 1):
        lines = wide_lines(unlike[axis], spec) | odd_lines(np.moveaxis(total, axis, 0), gain, spec)
        np.moveaxis(gap, axis, 0)[lines] = True
    return bad_pixels(listed=listed, dead=dead & ~gap, hot=hot & ~gap, gap=gap)


def dead_pixels(total: Array, gain: float, spec: MaskSpec) -> Mask:
    """(ny, nx) True where a pixel counts less than half of what nearly all its neighbours count, and surely so.

    total : (ny, nx) counts, summed over frames. Two neighbours may be dead as well.
    """
    around = _neighbours(total)
    low = np.partition(around, 2, axis=0)[2]
    expected = np.median(around, axis=0)
    return np.asarray(
        (total < spec.dead_share * low) & _surely_less(total, expected, gain, spec.significance)
    )


def shadow(total: Array, centre: Array, gain: float, spec: MaskSpec) -> Mask:
    """(ny, nx) True where a pixel counts nothing and others as far from the centre (x, y) surely do: gaps without
    pixels, a beam stop, the rim of a round screen."""
    y, x = np.mgrid[: total.shape[0], : total.shape[1]] + 0.5
    ring = (np.hypot(x - centre[0], y - centre[1]) / 4).astype(np.int64)
    order = np.lexsort((total.ravel(), ring.ravel()))
    count = np.bincount(ring.ravel())
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    median = total.ravel()[order][first + count // 2]
    return np.asarray((total <= 0) & _surely_less(total, median[ring], gain, spec.significance))


def hot_pixels(sums: Array, gain: float, spec: MaskSpec) -> Mask:
    """(ny, nx) True where, in three quarters of the series of four, a pixel surely counts more than the ring around it
    and its neighbours share hardly any of the excess, as those of a spot do.

    sums : (4, ny, nx) counts of the quarters.
    """
    votes = np.zeros(sums.shape[1:], np.int64)
    for quarter in sums:
        around = _neighbours(quarter)
        level = (25 * uniform_filter(quarter, 5) - 9 * uniform_filter(quarter, 3)) / 16
        excess = quarter - level
        shared = around.mean(axis=0) - level
        noise = np.sqrt(gain * np.maximum(level, gain))
        votes += (excess > spec.significance * noise) & (shared < spec.sharpness * excess)
    return votes >= QUARTERS - 1


@nb.njit(cache=True, nogil=True)
def differences(frame: Array, most: float, sums: Array) -> None:
    """Add a frame (ny, nx) to sums (3, ny): Σ (D - D')², Σ (D + D') and Σ (D + D')² of the pixels of every row and the
    next one, pairs above `most` counts left out."""
    ny, nx = frame.shape
    for row in range(ny - 1):
        square, total, weight = 0.0, 0.0, 0.0
        for column in range(nx):
            a, b = frame[row, column], frame[row + 1, column]
            if a + b <= most:
                square += (a - b) ** 2
                total += a + b
                weight += (a + b) ** 2
        sums[0, row] += square
        sums[1, row] += total
        sums[2, row] += weight


def wide_lines(sums: Array, spec: MaskSpec) -> Mask:
    """(ny,) True for rows that repeat their neighbour: pixels that are read out as several.

    sums : (3, ny) of `differences`. Independent counts have Σ (D - D')² / Σ (D + D') = gain whatever their level, with
    the variance 2 gain² Σ (D + D')² of Σ (D - D')²: a row of few counts is alike by chance.
    """
    ratio = np.divide(sums[0], sums[1], out=np.full(sums.shape[1], np.nan), where=sums[1] > spec.least_counts)
    found = np.zeros(len(ratio), bool)
    if np.isfinite(ratio).sum() < 16:
        return found
    usual = float(np.nanmedian(ratio))
    surely = usual * sums[1] - sums[0] > spec.significance * usual * np.sqrt(2 * sums[2])
    alike = surely & (np.nan_to_num(ratio, nan=np.inf) < spec.alike * usual)
    found[:-1] |= alike[:-1]
    found[1:] |= alike[:-1]
    return found


def odd_lines(total: Array, gain: float, spec: MaskSpec) -> Mask:
    """(ny,) True for rows that count much more or less than the rows around them, along most of their length.

    total : (ny, nx) counts. A row stands out by the median over its pieces of their counts over those of rows near by,
    by more than `significance` times the spread of that over all rows and ODD_ERRORS of its own pieces:
    without a background rows differ by their spots, here more and there less.
    """
    pieces = np.array_split(np.arange(total.shape[1]), max(8, total.shape[1] // 32))
    sums = np.array([np.minimum(total[:, p], 4 * np.median(total[:, p], axis=1, keepdims=True)).sum(axis=1)
                     for p in pieces]).T  # fmt: skip
    near = median_filter(sums, (13, 1), mode="nearest")
    enough = near > spec.significance**2 * gain
    ratio = np.where(enough, sums / np.maximum(near, 1e-9), np.nan)
    used = enough.sum(axis=1) >= 0.5 * len(pieces)
    middle, sure = np.ones(len(total)), np.zeros(len(total), bool)
    middle[used] = np.nanmedian(ratio[used], axis=1)
    logs = np.log(np.clip(ratio[used], 0.1, 10))
    error = np.nanstd(logs, axis=1, ddof=1) / np.sqrt(enough[used].sum(axis=1))
    sure[used] = np.abs(np.nanmean(logs, axis=1)) > ODD_ERRORS * error
    off = np.abs(np.log(np.maximum(middle, 1e-9)))
    spread = 1.4826 * float(np.median(off[used])) if used.any() else 0.0
    return sure & (off > max(float(np.log(spec.odd_ratio)), spec.significance * spread))


def filled(frame: Array, bad: Mask) -> Array:
    """The frame (ny, nx) with the mean of the good pixels within two pixels in place of the bad ones, 0 without any."""
    if not bad.any():
        return frame
    out = frame.copy()
    _fill(frame, bad, out)
    return out


@nb.njit(cache=True, nogil=True)
def _fill(frame: Array, bad: Mask, out: Array) -> None:
    ny, nx = frame.shape
    for row in range(ny):
        for column in range(nx):
            if bad[row, column]:
                total, n = 0.0, 0
                for i in range(max(0, row - 2), min(ny, row + 3)):
                    for j in range(max(0, column - 2), min(nx, column + 3)):
                        if not bad[i, j]:
                            total += frame[i, j]
                            n += 1
                out[row, column] = total / n if n > 0 else 0.0


def _neighbours(image: Array) -> Array:
    """(8, ny, nx) the pixels around each pixel, edges repeated."""
    padded = np.pad(image, 1, mode="edge")
    ny, nx = image.shape
    return np.array([padded[1 + dy : 1 + dy + ny, 1 + dx : 1 + dx + nx] for dy, dx in RING])


def _surely_less(found: Array, expected: Array, gain: float, significance: float) -> Mask:
    """Where the signed root of the Poisson deviance of counts below the expected ones exceeds `significance`."""
    n, m = found / gain, np.maximum(expected, 1e-9) / gain
    deviance = 2 * (n * np.log(np.maximum(n, 1e-300) / m) - n + m)
    return np.asarray((n < m) & (deviance > significance**2))
