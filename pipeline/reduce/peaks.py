"""Peak search: local maxima of the matched-filtered frame above the background's noise."""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nanoed.pipeline.reduce.background import local_background
from nanoed.pipeline.spec import PeakSpec

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks: frame (n,), pixels (n, 2) x, y, intensity (n,) counts, significance (n,), sigma (n,): what counting
    alone makes uncertain of x and of y, pixels."""

    frame: NDArray[np.int64]
    pixels: Array
    intensity: Array
    significance: Array
    sigma: Array

    def __len__(self) -> int:
        return len(self.frame)

    def select(self, mask: NDArray[np.bool_] | NDArray[np.int64]) -> Peaks:
        """The peaks of a mask or index array."""
        return Peaks(
            self.frame[mask],
            self.pixels[mask],
            self.intensity[mask],
            self.significance[mask],
            self.sigma[mask],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Cleaned:
    """A frame with its background: background (ny, nx) counts, n_background (ny, nx) pixels behind it, usable
    (ny, nx) pixels between the spots, matched (ny, nx) net counts under the matched filter, significance (ny, nx)."""

    frame: Array
    background: Array
    n_background: Array
    usable: NDArray[np.bool_]
    matched: Array
    significance: Array


def clean(
    frame: Array,
    valid: NDArray[np.bool_],
    centre: Array,
    sigma_px: float,
    gain: float,
    spec: PeakSpec,
    offset: float = 0.0,
) -> Cleaned:
    """Background of a frame by masking what stands out of it, in two rounds.

    frame : (ny, nx) counts.  valid : False on the direct beam, bad and saturated pixels.
    centre : (2,) pixels.  sigma_px : width of the spots.  gain, offset : of
    noise.gain_and_offset.
    Significance: the matched filter X = D ⊗ k / (gain Σk²), k a unit-sum Gaussian, counts electrons in the spot's
    effective area, of which μ = (B + 1/n) / (gain Σk²) are background, the offset added to D and B; the signed root of
    its Poisson deviance, 2 (X ln(X/μ) - X + μ), is that of C3.2 at high counts and stays true where a pixel holds less
    than one electron.
    """
    filtered = gaussian_filter(frame, sigma_px)
    power = 1.0 / (4 * np.pi * sigma_px**2)
    usable = valid.copy()
    reach = max(1, round(2 * sigma_px))
    significance, least = np.empty(frame.shape), min(spec.mask_sigma, spec.i_over_sigma)
    for _ in range(2):
        background, n_background = local_background(frame, usable, centre, spec.background_window_px)
        _deviance_root(
            filtered + offset, background + offset, n_background, 1.0 / (gain * power), least, significance
        )
        usable = valid.copy()
        clear_around(significance, spec.mask_sigma, reach, usable)
    return Cleaned(frame, background, n_background, usable, filtered - background, significance)


def find_peaks(
    index: int, cleaned: Cleaned, valid: NDArray[np.bool_], sigma_px: float, spec: PeakSpec
) -> Peaks:
    """Local maxima of significance `i_over_sigma` or more; place of the filter's maximum, net sum within 2.5 sigma."""
    reach = max(1, round(2 * sigma_px))
    rows, columns = np.nonzero((cleaned.significance >= spec.i_over_sigma) & valid)
    top = highest_around(cleaned.significance, rows, columns, reach)
    rows, columns = rows[top], columns[top]
    r = int(np.ceil(2.5 * sigma_px))
    ny, nx = cleaned.frame.shape
    inside = (rows >= r) & (rows < ny - r) & (columns >= r) & (columns < nx - r)
    rows, columns = rows[inside], columns[inside]
    dy, dx = (a.ravel() for a in np.mgrid[-r : r + 1, -r : r + 1])
    disc = dx**2 + dy**2 <= (2.5 * sigma_px) ** 2
    dx, dy = dx[disc], dy[disc]
    net = (cleaned.frame - cleaned.background)[rows[:, None] + dy, columns[:, None] + dx]
    total = net.sum(axis=1)
    good = total > 0
    rows, columns, net, total = rows[good], columns[good], net[good], total[good]
    right, down = _summit(cleaned.matched, rows, columns)
    x, y = columns + 0.5 + right, rows + 0.5 + down
    near = np.hypot(right, down) < 1.0
    pixels = np.column_stack([x, y])[near]
    frame = np.full(len(pixels), index, dtype=np.int64)
    significance = cleaned.significance[rows, columns][near]
    return Peaks(frame, pixels, total[near], significance, sigma_px / significance)


def _summit(matched: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> tuple[Array, Array]:
    """Distance (n,) right and down, in pixels, of the maximum of a parabola through the logarithms at pixels (n,) and
    their neighbours: exact for Gaussian spots, where the matched filter's maximum is the likeliest place."""
    top = np.log(np.maximum(matched[rows, columns], 1e-12))

    def shift(row: int, column: int) -> Array:
        before, after = (
            np.log(np.maximum(matched[rows + s * row, columns + s * column], 1e-3 * np.exp(top)))
            for s in (-1, 1)
        )
        return np.asarray(0.5 * (after - before) / np.maximum(2 * top - before - after, 1e-9), np.float64)

    return shift(0, 1), shift(1, 0)


def spot_stack(frame: Array, cleaned: Cleaned, peaks: Peaks, reach: int = 6) -> Array:
    """(2 reach + 1, 2 reach + 1) sum of the strongest 40 peaks of a frame, each to the nearest pixel and of unit sum
    in electrons of its own: zero without peaks."""
    side = 2 * reach + 1
    strong = np.argsort(-peaks.significance, kind="stable")[:40]
    rows, columns = (np.floor(peaks.pixels[strong][:, i]).astype(int) for i in (1, 0))
    ny, nx = frame.shape
    ok = (rows >= reach) & (rows < ny - reach) & (columns >= reach) & (columns < nx - reach)
    if not ok.any():
        return np.zeros((side, side))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    net = (frame - cleaned.background)[rows[ok, None, None] + dy, columns[ok, None, None] + dx]
    return np.asarray((net / peaks.intensity[strong][ok][:, None, None]).sum(axis=0), np.float64)


def spot_sigma(stack: Array) -> float:
    """Gaussian sigma (pixels) of stacked peaks, from the part above a tenth of the maximum, neighbours left out.

    The stack is centred to the nearest pixel, whose 1/12 of a square pixel is taken off.
    """
    reach = stack.shape[0] // 2
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    core = np.clip(stack / stack.max() - 0.1, 0, None)
    variance = float((core * (dx**2 + dy**2)).sum() / core.sum() / 2)
    return float(np.sqrt(max(variance - 1 / 12, 0.25)))


def join(parts: list[Peaks]) -> Peaks:
    """The peaks of all frames in frame order."""
    return Peaks(
        np.concatenate([p.frame for p in parts]),
        np.concatenate([p.pixels for p in parts]),
        np.concatenate([p.intensity for p in parts]),
        np.concatenate([p.significance for p in parts]),
        np.concatenate([p.sigma for p in parts]),
    )


@nb.njit(cache=True, nogil=True)
def clear_around(significance: Array, threshold: float, reach: int, usable: NDArray[np.bool_]) -> None:
    """Set usable (ny, nx) to False in a square of 2 reach + 1 pixels around every pixel above the threshold."""
    ny, nx = significance.shape
    for row in range(ny):
        for column in range(nx):
            if significance[row, column] > threshold:
                for i in range(max(0, row - reach), min(ny, row + reach + 1)):
                    for j in range(max(0, column - reach), min(nx, column + reach + 1)):
                        usable[i, j] = False


@nb.njit(cache=True, nogil=True)
def highest_around(
    significance: Array, rows: NDArray[np.int64], columns: NDArray[np.int64], reach: int
) -> NDArray[np.bool_]:
    """(n,) True for pixels that no other pixel within `reach` rows and columns exceeds."""
    ny, nx = significance.shape
    top = np.ones(rows.shape[0], np.bool_)
    for k in range(rows.shape[0]):
        value = significance[rows[k], columns[k]]
        for i in range(max(0, rows[k] - reach), min(ny, rows[k] + reach + 1)):
            for j in range(max(0, columns[k] - reach), min(nx, columns[k] + reach + 1)):
                if significance[i, j] > value:
                    top[k] = False
    return top


@nb.njit(cache=True, nogil=True)
def _deviance_root(
    filtered: Array, background: Array, n_background: Array, area: float, least: float, significance: Array
) -> None:
    """significance (ny, nx) of filtered counts; area : effective area of the filter over the gain.

    Up to `least`, below which nothing is decided, it is (X - μ) / sqrt(μ), never less than the root of the deviance: a
    logarithm is taken only where a peak may be.
    """
    ny, nx = filtered.shape
    for row in range(ny):
        for column in range(nx):
            mu = (background[row, column] + 1.0 / n_background[row, column]) * area
            x = max(filtered[row, column], 0.0) * area
            value = (x - mu) / np.sqrt(mu)
            if value > least:
                value = np.sqrt(2.0 * max(x * np.log(x / mu) - x + mu, 0.0))
            significance[row, column] = value
