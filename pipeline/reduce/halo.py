"""The wide halo of inelastic scattering around every spot: far from the spot, faint, and not smooth background."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import nnls

from nanoed.pipeline.reduce.background import radial_profile

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
MARGIN_PX = 64  # the frame is continued by as much, so that halos do not come in again at the other side


def halo_images(
    shape: tuple[int, int], x: Array, y: Array, intensity: Array, radii: tuple[float, ...]
) -> Array:
    """(k, ny, nx) Σ I (1 + (r/a)²)^-3/2 / (2π a²) over the spots for every radius a of `radii`, pixels.

    Each is one electron of every spot's, spread as a two-dimensional Cauchy distribution, whose transform is
    exp(-2π a q); sums of several follow the 1/(θ² + θ_E²) of inelastic scattering (H5).
    """
    spectrum, size = _spectrum(shape, x, y, intensity)
    q = _frequencies(size)
    every = [fft.irfft2(spectrum * np.exp(-2 * np.pi * a * q), s=size)[: shape[0], : shape[1]] for a in radii]
    return np.array(every).reshape(-1, *shape)


def halo_image(
    shape: tuple[int, int],
    x: Array,
    y: Array,
    intensity: Array,
    radii: tuple[float, ...],
    shares: tuple[float, ...],
) -> Array:
    """(ny, nx) sum of halo_images with the `shares` (k,) of a spot's electrons."""
    spectrum, size = _spectrum(shape, x, y, intensity)
    spectrum *= _transfer(size, radii, shares)
    return np.asarray(fft.irfft2(spectrum, s=size, overwrite_x=True)[: shape[0], : shape[1]], np.float64)


def halo_equations(
    rest: Array, usable: Mask, centre: Array, halos: Array, gain: float
) -> tuple[Array, Array]:
    """Normal matrix (k, k) and right side (k,) of the shares of `halos` (k, ny, nx) in a frame.

    rest : (ny, nx) frame minus the cores of all spots.  usable : pixels between the spots.  From both the azimuthal
    mean about the centre is taken, which the background has of its own.
    """
    level = radial_profile(rest, usable, centre)
    weight = 1.0 / (gain * np.maximum(level[usable], 0.05))
    columns = np.array([(h - radial_profile(h, usable, centre))[usable] for h in halos])
    return (columns * weight) @ columns.T, (columns * weight) @ (rest - level)[usable]


def halo_shares(normal: Array, right: Array) -> tuple[float, ...]:
    """k shares, none negative, that solve the sum of `halo_equations`; zeros where there is nothing to see."""
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    if not np.isfinite(normal).all() or scale.max() < 1e-100:
        return (0.0,) * len(right)
    values, vectors = np.linalg.eigh(normal / np.outer(scale, scale))
    root = vectors * np.sqrt(np.maximum(values, 1e-9))
    target = (vectors / np.sqrt(np.maximum(values, 1e-9))).T @ (right / scale)
    return tuple(float(share) for share in nnls(root.T, target)[0] / scale)


def _spectrum(
    shape: tuple[int, int], x: Array, y: Array, intensity: Array
) -> tuple[NDArray[np.complex128], tuple[int, int]]:
    """Transform of the spots as points, each shared out to four pixels, on a frame with a margin; and its size."""
    size = tuple(fft.next_fast_len(n + MARGIN_PX, real=True) for n in shape)
    points = np.zeros(size)
    column, row = np.floor(x - 0.5).astype(int), np.floor(y - 0.5).astype(int)
    inside = (column >= 0) & (column < shape[1] - 1) & (row >= 0) & (row < shape[0] - 1)
    column, row, i = column[inside], row[inside], intensity[inside]
    u, v = x[inside] - 0.5 - column, y[inside] - 0.5 - row
    for down, right, share in (
        (0, 0, (1 - u) * (1 - v)),
        (0, 1, u * (1 - v)),
        (1, 0, (1 - u) * v),
        (1, 1, u * v),
    ):
        np.add.at(points, (row + down, column + right), share * i)
    return np.asarray(fft.rfft2(points)), (size[0], size[1])


@lru_cache(maxsize=4)
def _frequencies(size: tuple[int, int]) -> Array:
    """|q| in 1/pixel of a real transform; not to be written to."""
    q = np.hypot(fft.fftfreq(size[0])[:, None], fft.rfftfreq(size[1])[None])
    q.setflags(write=False)
    return q


@lru_cache(maxsize=4)
def _transfer(size: tuple[int, int], radii: tuple[float, ...], shares: tuple[float, ...]) -> Array:
    """Transform of a spot's halo; not to be written to."""
    q = _frequencies(size)
    total = np.zeros(q.shape)
    for a, share in zip(radii, shares, strict=True):
        total += share * np.exp(-2 * np.pi * a * q)
    total.setflags(write=False)
    return total
