"""Kernels of the Bloch engine: one incident wave through exp(iπ t A / K) by a Chebyshev expansion.

exp(i τ x) = J_0(τ) + 2 Σ i^n J_n(τ) T_n(x) for |x| <= 1, x = (A - c) / R with c and R from Gershgorin's circles: one
matrix-vector product per term, every thickness from one recursion. Differentiating the recursion gives derivatives by
one matrix product per term for all parameters together. Kernels hold no objects; `bloch` calls them frame by frame.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.eigen import eigen_slopes, eigen_waves, stacked

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
THICK_WAVES, THICK_SLOPES = 6.0, 1.0
"""More Chebyshev terms than this times the number of beams: eigenvectors are faster (measured for 30 to 100 beams)."""


@nb.njit(cache=True, nogil=True)
def _bessel(x: float, n: int) -> Array:
    """J_0(x) ... J_{n-1}(x) by downward recurrence (Abramowitz & Stegun 9.12)."""
    out = np.zeros(n)
    if x < 1e-12:
        out[0] = 1.0
        return out
    start = n + 20 + int(x)
    start += start % 2
    above, here, total = 0.0, 1e-300, 0.0
    for m in range(start, 0, -1):
        below = 2 * m / x * here - above
        above, here = here, below
        if m - 1 < n:
            out[m - 1] = here
        if (m - 1) % 2 == 0:
            total += 2 * here if m > 1 else here
        if abs(here) > 1e200:
            above, here, total = above * 1e-200, here * 1e-200, total * 1e-200
            out[max(m - 1, 0) :] *= 1e-200
    return out / total


@nb.njit(cache=True, nogil=True)
def _terms(phase: float, reach: float) -> int:
    """Chebyshev terms that carry exp(i x) for |x| <= phase; reach 9: to rounding, 6: to 1e-7."""
    return int(phase + reach * phase ** (1 / 3)) + 12


@nb.njit(cache=True, nogil=True)
def _coefficients(scale: float, thickness: Array, n: int) -> Any:
    """Even (real) and odd (imaginary) coefficients of T_n and their derivatives by log thickness; (k, n) each."""
    even = np.zeros((thickness.size, n))
    odd, d_even, d_odd = np.zeros_like(even), np.zeros_like(even), np.zeros_like(even)
    for k in range(thickness.size):
        phase = scale * thickness[k]
        j = _bessel(phase, n + 1)
        for m in range(n):
            twice = 1.0 if m == 0 else 2.0
            sign = -twice if (m // 2) % 2 else twice
            slope = -j[1] if m == 0 else 0.5 * (j[m - 1] - j[m + 1])
            if m % 2 == 0:
                even[k, m], d_even[k, m] = sign * j[m], sign * slope * phase
            else:
                odd[k, m], d_odd[k, m] = sign * j[m], sign * slope * phase
    return even, odd, d_even, d_odd


@nb.njit(cache=True, nogil=True)
def _selected(g_select: Array, row: Array, wavelength: float, s_max: float) -> IntArray:
    """Indices of the beams of one rotation, whose third row is `row`; 000 stays first."""
    out = np.empty(g_select.shape[0], np.int64)
    n = 0
    for i in range(g_select.shape[0]):
        x, y, z = g_select[i, 0], g_select[i, 1], g_select[i, 2]
        s = row[0] * x + row[1] * y + row[2] * z - 0.5 * wavelength * (x * x + y * y + z * z)
        if i == 0 or abs(s) <= s_max:
            out[n] = i
            n += 1
    return out[:n]


@nb.njit(cache=True, nogil=True)
def _couplings(
    g_select: Array, beams: IntArray, row: Array, wavelength: float, s_max: float, taper: float, m: Array
) -> Array:
    """M of the beams (n,), times what falls smoothly from 1 to 0 over the last part `taper` of s_max."""
    out = m.copy()
    for a in range(1, beams.size):
        x, y, z = g_select[beams[a], 0], g_select[beams[a], 1], g_select[beams[a], 2]
        s = abs(row[0] * x + row[1] * y + row[2] * z - 0.5 * wavelength * (x * x + y * y + z * z))
        if s > (1 - taper) * s_max:
            u = (s_max - s) / (taper * s_max)
            out[a] *= u * u * (3 - 2 * u)
    return out


@nb.njit(cache=True, nogil=True)
def _diagonal(g: Array, beams: IntArray, row: Array, wavelength: float) -> Any:
    """2KS and M = (1 + g_n / K)^(-1/2) of the selected beams; (n,) each."""
    n = beams.size
    two_ks, m = np.empty(n), np.empty(n)
    for a in range(n):
        x, y, z = g[beams[a], 0], g[beams[a], 1], g[beams[a], 2]
        gz = row[0] * x + row[1] * y + row[2] * z
        two_ks[a] = 2 * gz / wavelength - (x * x + y * y + z * z)
        m[a] = 1 / np.sqrt(1 - gz * wavelength)
    return two_ks, m


@nb.njit(cache=True, nogil=True)
def _matrix(
    flat: IntArray, beams: IntArray, centre: int, box: NDArray[Any], column: int, m: Array
) -> NDArray[Any]:
    """Off-diagonal part M_g U_{g-h} M_h, or a derivative of it; (n, n). m : tapered where beams fade out."""
    n = beams.size
    out = np.empty((n, n), box.dtype)
    for a in range(n):
        out[a, a] = 0
        base = flat[beams[a]] + centre
        for b in range(n):
            if a != b:
                out[a, b] = box[base - flat[beams[b]], column] * (m[a] * m[b])
    return out


@nb.njit(cache=True, nogil=True)
def _bounds(a: NDArray[Any]) -> Any:
    """Centre and half-width of an interval that holds all eigenvalues (Gershgorin)."""
    low, high = 1e300, -1e300
    for i in range(a.shape[0]):
        radius = 0.0
        for j in range(a.shape[0]):
            if i != j:
                radius += abs(a[i, j])
        d = a[i, i].real
        low, high = min(low, d - radius), max(high, d + radius)
    return 0.5 * (low + high), max(0.5 * (high - low), 1e-12)


@nb.njit(cache=True, nogil=True)
def _chebyshev(a: NDArray[Any], middle: float, half: float, n: int) -> Any:
    """2X = 2(A - c)/R, and T_m(X) e_0 for m < n; (N, N), (n, N)."""
    size = a.shape[0]
    x2 = a * (2 / half)
    for i in range(size):
        x2[i, i] -= 2 * middle / half
    t = np.zeros((n, size), a.dtype)
    t[0, 0] = 1
    t[1] = 0.5 * x2[:, 0]
    for m in range(1, n - 1):
        t[m + 1] = np.dot(x2, t[m]) - t[m - 1]
    return x2, t


@nb.njit(cache=True, nogil=True)
def rocking_intensities(
    g: Array,
    g_select: Array,
    flat: IntArray,
    centre: int,
    box: NDArray[Any],
    rows: Array,
    thickness: Array,
    t_weights: Array,
    wavelength: float,
    s_max: float,
    taper: float,
    out: Array,
) -> None:
    """Add the intensities of every rotation to its row of out (m, n)."""
    for r in range(rows.shape[0]):
        beams = _selected(g_select, rows[r], wavelength, s_max)
        two_ks, m = _diagonal(g, beams, rows[r], wavelength)
        coupling = _couplings(g_select, beams, rows[r], wavelength, s_max, taper, m)
        a = _matrix(flat, beams, centre, box, 0, coupling)
        lost = box[centre, 0] - box[centre, 0].real
        for i in range(beams.size):
            a[i, i] = (two_ks[i] + lost) * m[i] ** 2
        middle, half = _bounds(a)
        scale = np.pi * wavelength * half
        n = _terms(scale * thickness.max(), 9.0)
        if lost == 0 and n > THICK_WAVES * beams.size:
            psi = eigen_waves(a, thickness, wavelength)[3]
        else:
            even, odd, _, _ = _coefficients(scale, thickness, n)
            _, t = _chebyshev(a, middle, half, n)
            psi = np.dot(even.astype(box.dtype), t) + 1j * np.dot(odd.astype(box.dtype), t)
        for k in range(thickness.size):
            for i in range(beams.size):
                wave = psi[k, i]
                out[r, beams[i]] += t_weights[k] * m[i] ** 2 * (wave.real**2 + wave.imag**2)


@nb.njit(cache=True, nogil=True)
def _sources(
    g: Array,
    flat: IntArray,
    beams: IntArray,
    centre: int,
    box: NDArray[Any],
    row: Array,
    m: Array,
    coupling: Array,
    a: NDArray[Any],
    t: NDArray[Any],
    wavelength: float,
) -> Any:
    """(∂A/∂p) T_n for every parameter and both tilts, (terms, N, p + 2), and ∂ln M/∂tilt, (2, N).

    With A = M Ã M: ∂A = m A + A m + M ∂(2KS) M, m = ∂ln M.
    """
    size, p = beams.size, box.shape[1] + 1
    stack = np.zeros((size, size * p), box.dtype)
    for i in range(size):
        base = flat[beams[i]] + centre
        for j in range(size):
            if i != j:
                place, mm = base - flat[beams[j]], coupling[i] * coupling[j]
                for q in range(p - 2):
                    stack[j, i * p + q] = box[place, 1 + q] * mm
        for q in range(p - 2):
            stack[i, i * p + q] = (box[centre, 1 + q] - box[centre, 1 + q].real) * m[i] ** 2
    out = np.dot(t, stack).reshape(t.shape[0], size, p)
    turned = np.ascontiguousarray(a.T)
    at = np.dot(t, turned)
    d_ln_m, d_two_ks = np.empty((2, size)), np.empty((2, size))
    for q in range(2):
        for i in range(size):
            x, y, z = g[beams[i], 0], g[beams[i], 1], g[beams[i], 2]
            d_gz = row[2] * y - row[1] * z if q == 0 else row[0] * z - row[2] * x
            gz = row[0] * x + row[1] * y + row[2] * z
            d_ln_m[q, i] = 0.5 * d_gz * wavelength / (1 - gz * wavelength)
            d_two_ks[q, i] = 2 * d_gz / wavelength * m[i] ** 2
        atm = np.dot(t * d_ln_m[q].astype(box.dtype), turned)
        for n in range(t.shape[0]):
            for i in range(size):
                out[n, i, p - 2 + q] = d_ln_m[q, i] * at[n, i] + d_two_ks[q, i] * t[n, i] + atm[n, i]
    return out, d_ln_m


@nb.njit(cache=True, nogil=True)
def _slopes(x2: NDArray[Any], half: float, sources: NDArray[Any]) -> NDArray[Any]:
    """∂T_m(X) e_0 / ∂p by the differentiated recursion, (terms, N p)."""
    n, size, p = sources.shape
    d = np.zeros((n, size, p), x2.dtype)
    d[1] = sources[0] / half
    for m in range(1, n - 1):
        np.dot(x2, d[m], d[m + 1])
        d[m + 1] += (2 / half) * sources[m] - d[m - 1]
    return d.reshape(n, size * p)


@nb.njit(cache=True, nogil=True)
def add_derivatives(
    g: Array,
    g_select: Array,
    scored: NDArray[np.bool_],
    flat: IntArray,
    centre: int,
    box: NDArray[Any],
    rows: Array,
    weights: Array,
    thickness: Array,
    t_weights: Array,
    wavelength: float,
    s_max: float,
    taper: float,
    out: Array,
    slope: Array,
) -> None:
    """Add intensities (n,) and derivatives (n, p + 3) of all rotations; derivatives of the scored beams only."""
    p = box.shape[1] + 1
    for r in range(rows.shape[0]):
        beams = _selected(g_select, rows[r], wavelength, s_max)
        two_ks, m = _diagonal(g, beams, rows[r], wavelength)
        coupling = _couplings(g_select, beams, rows[r], wavelength, s_max, taper, m)
        a = _matrix(flat, beams, centre, box, 0, coupling)
        lost = box[centre, 0] - box[centre, 0].real
        for i in range(beams.size):
            a[i, i] = (two_ks[i] + lost) * m[i] ** 2
        middle, half = _bounds(a)
        scale = np.pi * wavelength * half
        n = _terms(scale * thickness.max(), 6.0)
        if lost == 0 and n > THICK_SLOPES * beams.size:
            w, v, c, psi, by_t = eigen_waves(a, thickness, wavelength)
            stack, d_ln_m = stacked(g, flat, beams, centre, box, rows[r], m, coupling, a, wavelength)
            d_psi = eigen_slopes(w, v, c, stack, thickness, wavelength)
        else:
            even, odd, d_even, d_odd = _coefficients(scale, thickness, n)
            even, odd = even.astype(box.dtype), odd.astype(box.dtype)
            x2, t = _chebyshev(a, middle, half, n)
            psi = np.dot(even, t) + 1j * np.dot(odd, t)
            by_t = np.dot(d_even.astype(box.dtype), t) + 1j * np.dot(d_odd.astype(box.dtype), t)
            sources, d_ln_m = _sources(g, flat, beams, centre, box, rows[r], m, coupling, a, t, wavelength)
            d = _slopes(x2, half, sources)
            d_psi = (np.dot(even, d) + 1j * np.dot(odd, d)).reshape(thickness.size, beams.size, p)
        for k in range(thickness.size):
            for i in range(beams.size):
                share = weights[r] * t_weights[k] * m[i] ** 2
                wave = psi[k, i]
                intensity = share * (wave.real**2 + wave.imag**2)
                out[beams[i]] += intensity
                if scored[beams[i]]:
                    for q in range(p):
                        change = d_psi[k, i, q]
                        value = 2 * share * (wave.real * change.real + wave.imag * change.imag)
                        slope[beams[i], q] += value
                    for q in range(2):
                        slope[beams[i], p - 2 + q] += 2 * d_ln_m[q, i] * intensity
                    change = by_t[k, i]
                    slope[beams[i], p] += 2 * share * (wave.real * change.real + wave.imag * change.imag)
