"""Reflections to pixels: spot profiles with exact pixel integrals, and what is spread around every beam."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import j0, j1

from nanoed.sim.particle import chord_map

if TYPE_CHECKING:
    from nanoed.sim.particle import Body

Array = NDArray[np.float64]

OVERSAMPLING = 8  # samples of a profile per pixel; the interpolation between them keeps sums exact
HALF_WIDTH_PX = 24  # profiles are periodic over twice this, so that no electrons are lost


def spot_profile(
    a_per_px: float, disc: float, psf_px: float, body: Body | None, to_lab: Array, ring_px: float = 0.0
) -> Array:
    """Share of a spot's electrons in a pixel, as a function of the pixel centre's offset from the spot.

    a_per_px : 1/Å.  disc : radius of the convergence disc, 1/Å.  psf_px : rms per axis of the point spread.
    ring_px : radius of the ring that imperfect descanning draws.
    body, to_lab : particle and its orientation; None for a beam much wider than 1 / a_per_px.
    Returns (m, m) with m = 2 HALF_WIDTH_PX OVERSAMPLING, offset zero at [m/2, m/2], rows along the detector's
    rows. Sampled at any sub-pixel offset it sums to 1 over pixels.
    Shape transform ⊗ disc ⊗ point spread ⊗ pixel (PHYSICS H3), as a product in real space: autocorrelation of
    the thickness map × 2 J1(x)/x × Gaussian × sinc.
    """
    m = 2 * HALF_WIDTH_PX * OVERSAMPLING
    period = OVERSAMPLING / a_per_px
    x, y = _positions(m, period)
    product = _optics(a_per_px, disc, psf_px, ring_px)
    if body is not None and body.extent < period:
        power = np.abs(fft.rfft2(chord_map(body, to_lab, x, -y))) ** 2
        correlation = fft.irfft2(power, s=(m, m))
        product = product * (correlation / correlation[0, 0])
    profile = fft.fftshift(fft.fft2(product).real) * (OVERSAMPLING / m) ** 2
    profile = np.maximum(profile, 0)
    return profile * (OVERSAMPLING**2 / profile.sum())


@lru_cache(maxsize=4)
def _optics(a_per_px: float, disc: float, psf_px: float, ring_px: float) -> Array:
    """Transform of disc, point spread, ring and pixel, in real space, 1 at the origin; (m, m), not to be written to."""
    x, y = _positions(2 * HALF_WIDTH_PX * OVERSAMPLING, OVERSAMPLING / a_per_px)
    product = np.exp(-2 * (np.pi * psf_px * a_per_px) ** 2 * (x * x + y * y))
    product *= np.sinc(a_per_px * x) * np.sinc(a_per_px * y)
    if disc > 0:
        u = 2 * np.pi * disc * np.hypot(x, y)
        product *= np.where(u > 1e-9, 2 * j1(u) / np.where(u > 1e-9, u, 1), 1)
    if ring_px > 0:
        product *= j0(2 * np.pi * ring_px * a_per_px * np.hypot(x, y))
    product.setflags(write=False)
    return product


def _positions(m: int, period: float) -> tuple[Array, Array]:
    """Å; x and y of a real-space grid of m by m points in the order of an FFT."""
    x, y = np.meshgrid(fft.fftfreq(m) * period, fft.fftfreq(m) * period)
    return x, y


@nb.njit(cache=True, nogil=True)
def add_spots(
    canvas: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    electrons: NDArray[np.float64],
    profile: NDArray[np.float64],
    oversampling: int,
) -> float:
    """Add spots at (x, y) (pixels of the canvas, first pixel's centre 0.5, 0.5); returns electrons off the
    canvas.

    profile : from spot_profile, interpolated bilinearly between its samples.
    """
    rows, columns = canvas.shape
    m = profile.shape[0]
    half = m // (2 * oversampling)
    padded = np.zeros((m + 2 * oversampling, m + 2 * oversampling))
    padded[oversampling : oversampling + m, oversampling : oversampling + m] = profile
    lost = 0.0
    for s in range(x.shape[0]):
        left, top = int(np.floor(x[s])) - half, int(np.floor(y[s])) - half
        u, v = (left + 0.5 - x[s]) * oversampling, (top + 0.5 - y[s]) * oversampling
        u, v = u + m // 2 + oversampling, v + m // 2 + oversampling
        iu, jv = int(np.floor(u)), int(np.floor(v))
        fu, fv = u - iu, v - jv
        for j in range(2 * half + 1):
            row, low = top + j, jv + j * oversampling
            for i in range(2 * half + 1):
                column, at = left + i, iu + i * oversampling
                share = (1 - fv) * ((1 - fu) * padded[low, at] + fu * padded[low, at + 1])
                share += fv * ((1 - fu) * padded[low + 1, at] + fu * padded[low + 1, at + 1])
                if 0 <= row < rows and 0 <= column < columns:
                    canvas[row, column] += electrons[s] * share
                else:
                    lost += electrons[s] * share
    return lost


def spread(through: Array, first: Array, beside: Array, last: Array) -> Array:
    """Middle half of the rows of (through ⊗ first + beside) ⊗ last; (ny / 2, nx) electrons.

    through, beside : (ny, nx) electrons.  first, last : transforms of the kernels, (ny, nx // 2 + 1), real.
    """
    ny, nx = through.shape
    total = _spectrum(through)
    total *= first
    total += _spectrum(beside)
    total *= last
    columns = fft.ifft(total, axis=0, overwrite_x=True)[ny // 4 : ny // 4 + ny // 2]
    return np.maximum(fft.irfft(columns, nx, axis=1), 0)


def _spectrum(image: Array) -> NDArray[np.complex128]:
    """rfft2, the faster the more rows are empty."""
    ny, nx = image.shape
    rows = np.flatnonzero(image.any(axis=1))
    out = np.zeros((ny, nx // 2 + 1), np.complex128)
    out[rows] = fft.rfft(image[rows], axis=1)
    return np.asarray(fft.fft(out, axis=0, overwrite_x=True))
