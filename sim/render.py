"""Reflections to pixels: spot profiles with exact pixel integrals, and what is spread around every beam."""

from __future__ import annotations

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
    r = fft.fftfreq(m) * period
    x, y = np.meshgrid(r, r)
    product = np.exp(-2 * (np.pi * psf_px * a_per_px) ** 2 * (x * x + y * y))
    product *= np.sinc(a_per_px * x) * np.sinc(a_per_px * y)
    if disc > 0:
        u = 2 * np.pi * disc * np.hypot(x, y)
        product *= np.where(u > 1e-9, 2 * j1(u) / np.where(u > 1e-9, u, 1), 1)
    if ring_px > 0:
        product *= j0(2 * np.pi * ring_px * a_per_px * np.hypot(x, y))
    if body is not None and body.extent < period:
        power = np.abs(fft.rfft2(chord_map(body, to_lab, x, -y))) ** 2
        product *= fft.irfft2(power, s=(m, m)) / (
            power[:, 0].sum() + 2 * power[:, 1:-1].sum() + power[:, -1].sum()
        )
        product *= 1 / product[0, 0]
    profile = fft.fftshift(fft.fft2(product).real) * (OVERSAMPLING / m) ** 2
    profile = np.maximum(profile, 0)
    return profile * (OVERSAMPLING**2 / profile.sum())


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
    lost = 0.0
    for s in range(x.shape[0]):
        left, top = int(np.floor(x[s])) - half, int(np.floor(y[s])) - half
        u0, v0 = (left + 0.5 - x[s]) * oversampling + m // 2, (top + 0.5 - y[s]) * oversampling + m // 2
        for j in range(2 * half + 1):
            v = v0 + j * oversampling
            jv = int(np.floor(v))
            fv = v - jv
            row = top + j
            for i in range(2 * half + 1):
                u = u0 + i * oversampling
                iu = int(np.floor(u))
                fu = u - iu
                share = 0.0
                if 0 <= jv < m:
                    if 0 <= iu < m:
                        share += (1 - fv) * (1 - fu) * profile[jv, iu]
                    if 0 <= iu + 1 < m:
                        share += (1 - fv) * fu * profile[jv, iu + 1]
                if 0 <= jv + 1 < m:
                    if 0 <= iu < m:
                        share += fv * (1 - fu) * profile[jv + 1, iu]
                    if 0 <= iu + 1 < m:
                        share += fv * fu * profile[jv + 1, iu + 1]
                column = left + i
                if 0 <= row < rows and 0 <= column < columns:
                    canvas[row, column] += electrons[s] * share
                else:
                    lost += electrons[s] * share
    return lost


def spread(images: list[Array], attenuations: list[Array]) -> Array:
    """Sum of images, each convolved with its own diffuse kernel; same shape as the images.

    images : (ny, nx) electrons.  attenuations : transforms of the kernels, (ny, nx // 2 + 1), real.
    """
    total = np.zeros(attenuations[0].shape, np.complex128)
    for image, kernel in zip(images, attenuations, strict=True):
        total += fft.rfft2(image) * kernel
    return np.maximum(fft.irfft2(total, s=images[0].shape, overwrite_x=True), 0)
