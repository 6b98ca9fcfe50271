"""Waves in a thick crystal and their derivatives from the eigenvectors of the Hermitian matrix A = V diag(w) V†.

ψ(t) = V exp(iπλt w) V† e_0. With X = V† ∂A V its derivative is V (G∘X) V† e_0, G_jl the divided difference of
exp(iπλt w) (PHYSICS A10): one diagonalisation serves all thicknesses and all parameters. Kernels hold no objects.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
NEAR = 1e-5
"""Phases that differ by less than this are treated as one in the divided difference: its error is NEAR² / 24."""


@nb.njit(cache=True, nogil=True)
def eigen_waves(a: NDArray[Any], thickness: Array, wavelength: float) -> Any:
    """Eigenvalues w (N,), vectors v (N, N), amplitudes c (k, N) of the eigenvectors, ψ and ∂ψ/∂ln t (k, N) each."""
    w, v = np.linalg.eigh(a)
    v = np.ascontiguousarray(v)
    k, n = thickness.size, w.size
    c, by_t = np.empty((k, n), np.complex128), np.empty((k, n), np.complex128)
    for m in range(k):
        for j in range(n):
            phase = np.pi * wavelength * thickness[m] * w[j]
            c[m, j] = np.exp(1j * phase) * np.conj(v[0, j])
            by_t[m, j] = 1j * phase * c[m, j]
    turned = np.ascontiguousarray(v.T).astype(np.complex128)
    return w, v, c, np.dot(c, turned), np.dot(by_t, turned)


@nb.njit(cache=True, nogil=True)
def tilt_slopes(g: Array, beams: IntArray, row: Array, m: Array, wavelength: float, axes: Array) -> Array:
    """M² ∂(2KS) by turns about two axes (2, 3) of the lab, (2, N); ∂ln M is λ²/4 of it (PHYSICS A2)."""
    out = np.empty((2, beams.size))
    for i in range(beams.size):
        x, y, z = g[beams[i], 0], g[beams[i], 1], g[beams[i], 2]
        about_x, about_y = row[2] * y - row[1] * z, row[0] * z - row[2] * x
        about_z = row[1] * x - row[0] * y
        for q in range(2):
            turned = axes[q, 0] * about_x + axes[q, 1] * about_y + axes[q, 2] * about_z
            out[q, i] = 2 / wavelength * turned * m[i] ** 2
    return out


@nb.njit(cache=True, nogil=True)
def stacked(flat: IntArray, beams: IntArray, centre: int, box: NDArray[Any], coupling: Array) -> NDArray[Any]:
    """Off-diagonal ∂A by the p parameters of the structure, transposed and side by side; (N, N p)."""
    size, p = beams.size, box.shape[1] - 1
    out = np.empty((size, size * p), box.dtype)
    for i in range(size):
        base = flat[beams[i]] + centre
        for j in range(size):
            place, mm = base - flat[beams[j]], coupling[i] * coupling[j]
            for q in range(p):
                out[j, i * p + q] = box[place, 1 + q] * mm
    for i in range(size):
        out[i, i * p : (i + 1) * p] = 0
    return out


@nb.njit(cache=True, nogil=True)
def eigen_slopes(
    w: Array,
    v: NDArray[Any],
    c: NDArray[Any],
    stack: NDArray[Any],
    d_two_ks: Array,
    thickness: Array,
    wavelength: float,
) -> NDArray[Any]:
    """∂ψ/∂p (k, N, p + 2) from the eigenvectors, their amplitudes c (k, N), `stacked` and `tilt_slopes`.

    A tilt changes A by D + (λ²/4)(D A + A D), D = M² ∂(2KS), which in the eigenbasis is V† D V times a factor.
    """
    n, k = w.size, thickness.size
    p, tau = stack.shape[1] // n, np.pi * wavelength * thickness
    across = np.ascontiguousarray(v.T)
    dagger = across.conj()
    turned = np.empty((2, n, n), v.dtype)
    for q in range(2):
        turned[q] = np.dot(across * d_two_ks[q].astype(v.dtype), v.conj())
    half = np.empty((n, n, p), v.dtype)
    if p > 0:
        half = np.dot(across, stack).reshape(n, n, p)
    start = np.empty((k + 1, n), np.complex128)
    start[0] = v[0]
    start[1:] = c.conj()
    x, y = np.empty((n, p + 2), np.complex128), np.empty((n, p + 2), np.complex128)
    changed = np.empty((n, k, p + 2), np.complex128)
    reach = NEAR / tau.max()
    for j in range(n):
        if p > 0:
            x[:, :p] = np.dot(dagger, half[j])
        for i in range(n):
            apart = w[j] - w[i]
            inverse = 1 / apart if abs(apart) > reach else 0.0
            for q in range(2):
                x[i, p + q] = turned[q, j, i] * (1 + 0.25 * wavelength**2 * (w[i] + w[j]))
            for q in range(p + 2):
                y[i, q] = x[i, q] * inverse
        sums = np.dot(start, y)
        for m in range(k):
            turn = np.exp(-1j * tau[m] * w[j])
            for q in range(p + 2):
                changed[j, m, q] = turn * sums[0, q] - sums[1 + m, q]
        for i in range(n):
            if abs(w[j] - w[i]) <= reach:
                for m in range(k):
                    factor = -1j * tau[m] * np.exp(-0.5j * tau[m] * (w[j] - w[i])) * start[1 + m, i]
                    for q in range(p + 2):
                        changed[j, m, q] += factor * x[i, q]
    moved = np.dot(v.astype(np.complex128), changed.conj().reshape(n, k * (p + 2))).reshape(n, k, p + 2)
    out = np.empty((k, n, p + 2), np.complex128)
    for m in range(k):
        for i in range(n):
            out[m, i] = moved[i, m]
    return out
