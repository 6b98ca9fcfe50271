"""Average spot profile: electrons per pixel against the distance from the predicted position."""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Share of a spot's electrons in a pixel whose centre lies r pixels from the spot.

    shares : (zones, m) at r = 0, step, 2 step, ...; zero from `reach` on.  edges : (zones - 1,) |g| in 1/Å
    that separate the zones.  core : radius in pixels that holds `core_share` of the electrons.
    halo_radii, halo : (k,) radii in pixels and shares, beside the electrons of the profile, of halo.halo_images.
    """

    shares: Array
    step: float
    edges: Array
    core: float
    halo_radii: tuple[float, ...] = ()
    halo: tuple[float, ...] = ()

    @property
    def reach(self) -> float:
        return (self.shares.shape[1] - 1) * self.step

    def zone(self, g: Array) -> NDArray[np.int64]:
        """(n,) zone of reflections with |g| (n,) 1/Å."""
        return np.searchsorted(self.edges, g).astype(np.int64)


def gaussian_profile(sigma_px: float, reach: float, edges: Array, step: float = 0.25) -> Profile:
    """The profile before any is measured: a Gaussian of the peaks' width in every zone."""
    r = np.arange(0, reach + step / 2, step)
    share = np.exp(-0.5 * (r / sigma_px) ** 2)
    return normalised(np.tile(share, (len(edges) + 1, 1)), step, edges)


def normalised(shares: Array, step: float, edges: Array, core_share: float = 0.9) -> Profile:
    """Profile whose sum over the pixels of a frame is 1 (the mean over positions within a pixel)."""
    r, ring = np.arange(shares.shape[1]) * step, _ring(shares.shape[1], step)
    shares = shares / (shares @ ring)[:, None]
    grown = np.cumsum(shares.mean(axis=0) * ring)
    core = float(np.interp(core_share, grown, r + step / 2))
    return Profile(shares, step, edges, core)


def measured(
    sums: Array,
    step: float,
    edges: Array,
    enough: NDArray[np.bool_],
    significance: float,
    core_share: float = 0.9,
) -> Profile:
    """Profile from the sums of `stack`; the core of every zone that has `enough` spots is its own, the tail common.

    Within the radius that holds `core_share` of all, zones have the same electrons: their intensities stay on one scale
    though the faint tail of one is measured farther than that of the other. The tail ends where a ring of one pixel's
    width is below `significance` standard errors: noise must not enter the normalisation.
    """
    common = _curve(sums.sum(axis=1), step, significance)
    inside = int(normalised(common[None], step, edges[:0], core_share).core / step)
    ring = _ring(inside, step)
    shares = np.tile(common, (sums.shape[1], 1))
    for z in np.nonzero(enough)[0]:
        own = _curve(sums[:, z], step, significance)[:inside]
        shares[z, :inside] = own * (common[:inside] @ ring) / (own @ ring)
    return normalised(shares, step, edges)


def _curve(sums: Array, step: float, significance: float) -> Array:
    """(m,) mean share of a pixel at every radius, falling beyond one pixel: a rise is a neighbour's. 0 from where it is
    lost in noise; empty bins are interpolated."""
    weight, first, second, square = sums
    filled = weight > 0
    r = np.arange(len(weight))
    mean = first[filled] / weight[filled]
    error2 = np.maximum(second[filled] - mean**2 * square[filled], 0) / weight[filled] ** 2
    window = np.ones(max(1, round(1.0 / step)))
    ring = np.convolve(mean * r[filled], window, "same")
    noise = np.sqrt(np.convolve(error2 * r[filled] ** 2, window, "same"))
    faint = np.nonzero((ring < significance * noise) & (r[filled] * step > 1.0))[0]
    mean[faint.min(initial=len(mean)) :] = 0.0
    falling: Array = np.minimum.accumulate(np.maximum(np.interp(r, r[filled], mean), 0.0))
    return np.where(r * step > 1.0, falling, np.interp(r, r[filled], mean))


def _ring(m: int, step: float) -> Array:
    """(m,) area that each sample of a profile stands for, pixels: exact for the linear interpolation between samples,
    ∫ hat_k 2π r dr = 2π r_k step, and π step²/3 at r = 0."""
    ring = np.arange(m, dtype=np.float64) * (2 * np.pi * step**2)
    ring[0] = np.pi * step**2 / 3
    return np.asarray(ring, np.float64)


@nb.njit(cache=True, nogil=True)
def stack(
    net: Array,
    valid: NDArray[np.bool_],
    x: Array,
    y: Array,
    zone: NDArray[np.int64],
    intensity: Array,
    step: float,
    sums: Array,
) -> None:
    """Add spots to sums (4, zones, m): Σ w, Σ w p, Σ (w p)² and Σ w² in bins about r = 0, step, ..., p = net / I the
    share of a pixel and w = I its weight, so that what is left of a strong neighbour weighs little.

    net : (ny, nx) frame minus background and all other spots' models.  x, y, zone, intensity : (n,) the spots.
    """
    ny, nx = net.shape
    m = sums.shape[2]
    reach = (m - 0.5) * step
    for s in range(x.shape[0]):
        z, amplitude = zone[s], intensity[s]
        for row in range(max(0, int(y[s] - reach)), min(ny, int(y[s] + reach) + 2)):
            for column in range(max(0, int(x[s] - reach)), min(nx, int(x[s] + reach) + 2)):
                r = np.sqrt((column + 0.5 - x[s]) ** 2 + (row + 0.5 - y[s]) ** 2) / step
                k = int(r + 0.5)
                if k < m and valid[row, column]:
                    sums[0, z, k] += amplitude
                    sums[1, z, k] += net[row, column]
                    sums[2, z, k] += net[row, column] ** 2
                    sums[3, z, k] += amplitude**2


@nb.njit(cache=True, nogil=True)
def add_models(
    image: Array,
    x: Array,
    y: Array,
    zone: NDArray[np.int64],
    intensity: Array,
    shares: Array,
    step: float,
) -> None:
    """Add the model spots to image (ny, nx)."""
    ny, nx = image.shape
    reach = (shares.shape[1] - 1) * step
    for s in range(x.shape[0]):
        for row in range(max(0, int(y[s] - reach)), min(ny, int(y[s] + reach) + 2)):
            for column in range(max(0, int(x[s] - reach)), min(nx, int(x[s] + reach) + 2)):
                r = np.sqrt((column + 0.5 - x[s]) ** 2 + (row + 0.5 - y[s]) ** 2)
                image[row, column] += intensity[s] * share_at(shares, zone[s], r, step)


@nb.njit(cache=True, nogil=True)
def share_at(shares: Array, zone: int, r: float, step: float) -> float:
    """Profile of a zone at r pixels from the spot, linear between its samples, 0 beyond the last."""
    k = int(r / step)
    if k + 1 >= shares.shape[1]:
        return 0.0
    f = r / step - k
    return (1 - f) * shares[zone, k] + f * shares[zone, k + 1]
