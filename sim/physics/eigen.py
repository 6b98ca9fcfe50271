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
def stacked(
    g: Array,
    flat: IntArray,
    beams: IntArray,
    centre: int,
    box: NDArray[Any],
    row: Array,
    m: Array,
    coupling: Array,
    a: NDArray[Any],
    wavelength: float,
) -> Any:
    """∂A of every parameter and both tilts, (N, (p + 2) N), and ∂ln M/∂tilt, (2, N); PHYSICS A2."""
    size, p = beams.size, box.shape[1] - 1
    out = np.empty((size, p + 2, size), box.dtype)
    d_ln_m, d_two_ks = np.empty((2, size)), np.empty((2, size))
    for i in range(size):
        x, y, z = g[beams[i], 0], g[beams[i], 1], g[beams[i], 2]
        gz = row[0] * x + row[1] * y + row[2] * z
        for q in range(2):
            d_gz = row[2] * y - row[1] * z if q == 0 else row[0] * z - row[2] * x
            d_ln_m[q, i] = 0.5 * d_gz * wavelength / (1 - gz * wavelength)
            d_two_ks[q, i] = 2 * d_gz / wavelength * m[i] ** 2
    for i in range(size):
        base = flat[beams[i]] + centre
        for j in range(size):
            place, mm = base - flat[beams[j]], coupling[i] * coupling[j]
            for q in range(p):
                out[i, q, j] = box[place, 1 + q] * mm
            for q in range(2):
                out[i, p + q, j] = (d_ln_m[q, i] + d_ln_m[q, j]) * a[i, j]
        for q in range(p):
            out[i, q, i] = 0
        for q in range(2):
            out[i, p + q, i] += d_two_ks[q, i]
    return out.reshape(size, (p + 2) * size), d_ln_m


@nb.njit(cache=True, nogil=True)
def eigen_slopes(
    w: Array, v: NDArray[Any], c: NDArray[Any], stack: NDArray[Any], thickness: Array, wavelength: float
) -> NDArray[Any]:
    """∂ψ/∂p (k, N, p) from the eigenvectors, the amplitudes c (k, N) and the stack of ∂A (N, p N)."""
    n, k = w.size, thickness.size
    p = stack.shape[1] // n
    half = np.dot(np.ascontiguousarray(v.T.conj()), stack).reshape(n * p, n)
    x = np.dot(half, v).reshape(n, p, n)
    changed = np.zeros((n, k, p), np.complex128)
    reach = NEAR / (np.pi * wavelength * thickness.max())
    inverse = np.zeros((n, n))
    for j in range(n):
        for i in range(n):
            if abs(w[j] - w[i]) > reach:
                inverse[j, i] = 1 / (w[j] - w[i])
                continue
            for m in range(k):
                tau = np.pi * wavelength * thickness[m]
                factor = 1j * tau * np.exp(1j * tau * 0.5 * (w[j] - w[i])) * c[m, i]
                for q in range(p):
                    changed[j, m, q] += factor * x[j, q, i]
    for j in range(n):
        for q in range(p):
            for i in range(n):
                x[j, q, i] *= inverse[j, i]
    start = np.empty((n, k + 1), np.complex128)
    start[:, 0] = np.conj(v[0])
    start[:, 1:] = c.T
    flat = x.reshape(n * p, n)
    summed = np.dot(flat, start.real.astype(x.dtype)) + 1j * np.dot(flat, start.imag.astype(x.dtype))
    for j in range(n):
        for m in range(k):
            turn = np.exp(1j * np.pi * wavelength * thickness[m] * w[j])
            for q in range(p):
                changed[j, m, q] += turn * summed[j * p + q, 0] - summed[j * p + q, 1 + m]
    moved = np.dot(v.astype(np.complex128), changed.reshape(n, k * p)).reshape(n, k, p)
    out = np.empty((k, n, p), np.complex128)
    for m in range(k):
        for i in range(n):
            out[m, i] = moved[i, m]
    return out
