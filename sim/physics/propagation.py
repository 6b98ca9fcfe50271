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

from nanoed.sim.physics.eigen import eigen_slopes, eigen_waves, stacked, tilt_slopes

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
SPARE = 0.94
"""Coefficients of one rotation serve others whose interval of eigenvalues is no wider, and at least this wide."""
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
    return 2 * (int(phase + reach * phase ** (1 / 3)) // 2) + 12


@nb.njit(cache=True, nogil=True)
def _coefficients(scale: float, thickness: Array, n: int) -> Any:
    """Coefficients of T_0, T_2 ... (real) and of T_1, T_3 ... (imaginary), n terms in all, and their derivatives by
    log thickness; (k, n / 2) each."""
    k, half = thickness.size, n // 2
    even, odd = np.empty((k, half)), np.empty((k, half))
    d_even, d_odd = np.empty((k, half)), np.empty((k, half))
    for i in range(k):
        phase = scale * thickness[i]
        j = _bessel(phase, n + 1)
        for m in range(half):
            sign = -2.0 if m % 2 else 2.0
            even[i, m], d_even[i, m] = sign * j[2 * m], sign * phase * 0.5 * (j[2 * m - 1] - j[2 * m + 1])
            odd[i, m] = sign * j[2 * m + 1]
            d_odd[i, m] = sign * phase * 0.5 * (j[2 * m] - j[2 * m + 2])
        even[i, 0], d_even[i, 0] = j[0], -phase * j[1]
    return even, odd, d_even, d_odd


@nb.njit(cache=True, nogil=True)
def _summed(even: Array, odd: Array, terms: NDArray[Any]) -> NDArray[Any]:
    """Σ_m even_m T_2m + i Σ_m odd_m T_2m+1 of terms (n / 2, 2, size); (k, size) complex."""
    size = terms.shape[2]
    real = np.ascontiguousarray(terms[:, 0]).view(np.float64)
    turned = np.ascontiguousarray(terms[:, 1]).view(np.float64)
    a, b = np.dot(even, real), np.dot(odd, turned)
    out = np.empty((even.shape[0], size), np.complex128)
    wide = real.shape[1] // size
    for k in range(out.shape[0]):
        for i in range(size):
            if wide == 1:
                out[k, i] = complex(a[k, i], b[k, i])
            else:
                out[k, i] = complex(a[k, 2 * i] - b[k, 2 * i + 1], a[k, 2 * i + 1] + b[k, 2 * i])
    return out


@nb.njit(cache=True, nogil=True)
def near_sphere(
    hkl: IntArray, ub: Array, wavelength: float, s_max: float, widest: float, g_max: float
) -> IntArray:
    """Indices of the beams with |S| <= s_max + widest |g| and |g| <= g_max, 000 first; `widest` : turn, rad."""
    out = np.zeros(hkl.shape[0], np.int64)
    n = 1
    for i in range(1, hkl.shape[0]):
        h, k, l = hkl[i, 0], hkl[i, 1], hkl[i, 2]  # noqa: E741
        z = ub[2, 0] * h + ub[2, 1] * k + ub[2, 2] * l
        g2 = z * z
        for row in range(2):
            g2 += (ub[row, 0] * h + ub[row, 1] * k + ub[row, 2] * l) ** 2
        if g2 <= g_max * g_max and abs(z - 0.5 * wavelength * g2) <= s_max + widest * np.sqrt(g2):
            out[n] = i
            n += 1
    return out[:n]


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
    """M of the beams (n,), times `faded` of their |S|."""
    out = m.copy()
    for a in range(1, beams.size):
        x, y, z = g_select[beams[a], 0], g_select[beams[a], 1], g_select[beams[a], 2]
        s = abs(row[0] * x + row[1] * y + row[2] * z - 0.5 * wavelength * (x * x + y * y + z * z))
        out[a] *= faded(s, s_max, taper)
    return out


@nb.njit(cache=True, nogil=True)
def faded(s: float, s_max: float, taper: float) -> float:
    """What falls smoothly from 1 to 0 over the last part `taper` of s_max, at |S| = s <= s_max."""
    if s <= (1 - taper) * s_max:
        return 1.0
    u = (s_max - s) / (taper * s_max)
    return u * u * (3 - 2 * u)


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
def _assembled(
    g: Array,
    g_select: Array,
    flat: IntArray,
    centre: int,
    box: NDArray[Any],
    row: Array,
    wavelength: float,
    s_max: float,
    taper: float,
) -> Any:
    """Beams (N,) of one rotation, M (N,), M tapered (N,), A (N, N) and the absorption i U'_0."""
    beams = _selected(g_select, row, wavelength, s_max)
    two_ks, m = _diagonal(g, beams, row, wavelength)
    coupling = _couplings(g_select, beams, row, wavelength, s_max, taper, m)
    a = _matrix(flat, beams, centre, box, 0, coupling)
    lost = box[centre, 0] - box[centre, 0].real
    for i in range(beams.size):
        a[i, i] = (two_ks[i] + lost) * m[i] ** 2
    return beams, m, coupling, a, lost


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
    held = 0.0
    even, odd, _, _ = _coefficients(held, thickness, 2)
    for r in range(rows.shape[0]):
        beams, m, _, a, lost = _assembled(g, g_select, flat, centre, box, rows[r], wavelength, s_max, taper)
        middle, half = _bounds(a)
        if not SPARE * held < half <= held:
            held = half / SPARE**0.5
            scale = np.pi * wavelength * held
            even, odd, _, _ = _coefficients(scale, thickness, _terms(scale * thickness.max(), 9.0))
        n = 2 * even.shape[1]
        if lost == 0 and n > THICK_WAVES * beams.size:
            psi = eigen_waves(a, thickness, wavelength)[3]
        else:
            psi = _summed(even, odd, _chebyshev(a, middle, held, n)[1].reshape(n // 2, 2, beams.size))
        for k in range(thickness.size):
            for i in range(beams.size):
                wave = psi[k, i]
                out[r, beams[i]] += t_weights[k] * m[i] ** 2 * (wave.real**2 + wave.imag**2)


@nb.njit(cache=True, nogil=True)
def _sources(
    flat: IntArray,
    beams: IntArray,
    centre: int,
    box: NDArray[Any],
    m: Array,
    coupling: Array,
    a: NDArray[Any],
    t: NDArray[Any],
    d_two_ks: Array,
    wavelength: float,
) -> Any:
    """(∂A/∂p) T_n for every parameter and both tilts, (terms, N, p + 2).

    With A = M Ã M: ∂A = m A + A m + M ∂(2KS) M, m = ∂ln M.
    """
    size, p = beams.size, box.shape[1] + 1
    stack = stacked(flat, beams, centre, box, coupling)
    for i in range(size):
        for q in range(p - 2):
            stack[i, i * (p - 2) + q] = (box[centre, 1 + q] - box[centre, 1 + q].real) * m[i] ** 2
    of_structure = np.dot(t, stack).reshape(t.shape[0], size, p - 2)
    out = np.empty((t.shape[0], size, p), box.dtype)
    turned = np.ascontiguousarray(a.T)
    at = np.dot(t, turned)
    d_ln_m = 0.25 * wavelength**2 * d_two_ks
    for q in range(2):
        atm = np.dot(t * d_ln_m[q].astype(box.dtype), turned)
        for n in range(t.shape[0]):
            for i in range(size):
                out[n, i, p - 2 + q] = d_ln_m[q, i] * at[n, i] + d_two_ks[q, i] * t[n, i] + atm[n, i]
    out[:, :, : p - 2] = of_structure
    return out


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
    axes: Array,
    out: Array,
    slope: Array,
) -> None:
    """Add intensities (n,) and derivatives (n, p + 3) of all rotations; derivatives of the scored beams only.

    axes : (2, 3) about which the frame is tilted.
    """
    p = box.shape[1] + 1
    for r in range(rows.shape[0]):
        beams, m, coupling, a, lost = _assembled(
            g, g_select, flat, centre, box, rows[r], wavelength, s_max, taper
        )
        middle, half = _bounds(a)
        scale = np.pi * wavelength * half
        n = _terms(scale * thickness.max(), 6.0)
        d_two_ks = tilt_slopes(g, beams, rows[r], m, wavelength, axes)
        if lost == 0 and n > THICK_SLOPES * beams.size:
            w, v, c, psi, by_t = eigen_waves(a, thickness, wavelength)
            stack = stacked(flat, beams, centre, box, coupling)
            d_psi = eigen_slopes(w, v, c, stack, d_two_ks, thickness, wavelength)
        else:
            even, odd, d_even, d_odd = _coefficients(scale, thickness, n)
            x2, t = _chebyshev(a, middle, half, n)
            psi = _summed(even, odd, t.reshape(n // 2, 2, beams.size))
            by_t = _summed(d_even, d_odd, t.reshape(n // 2, 2, beams.size))
            sources = _sources(flat, beams, centre, box, m, coupling, a, t, d_two_ks, wavelength)
            d = _slopes(x2, half, sources)
            d_psi = _summed(even, odd, d.reshape(n // 2, 2, beams.size * p)).reshape(
                thickness.size, beams.size, p
            )
        d_ln_m = 0.25 * wavelength**2 * d_two_ks
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
