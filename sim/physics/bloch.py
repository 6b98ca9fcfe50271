"""Many-beam intensities of a crystal over orientations and thicknesses, with derivatives.

The incident wave is propagated through exp(iπ t A / K) by a Chebyshev expansion: one matrix-vector product per
term, N² work and real arithmetic where an inversion centre makes A real, all thicknesses from one recursion, and
derivatives by differentiating the recursion. Its matrix is the one of DESIGN section 2 with the surface normal
along the beam (column approximation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.absorption import Absorption, absorptive_potential
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.geometry import excitation_errors
from nanoed.sim.physics.scattering import (
    of_the_lattice,
    potential_per_factor,
    reflections_within,
    structure_factor_derivatives,
    structure_factors,
)

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
TILTS_AND_THICKNESS = 3
"""Columns of a frame's Jacobian behind those of the structure: tilt about x and y (rad), log thickness."""


@dataclass(frozen=True, slots=True, eq=False)
class PotentialTable:
    """U_q (1/Å²) of all differences of beams on a dense box of indices, with derivatives.

    hkl : (n, 3) beams with |g| <= g_max, 000 first.  flat : (n,) their places in the box; the U of g - h stands at
    flat[g] - flat[h] + centre.  box : (m, 1 + p), U (or U + iU') and its derivatives by p parameters; real if the
    crystal has an inversion centre at the origin and does not absorb.
    """

    hkl: IntArray
    flat: IntArray
    centre: int
    box: NDArray[Any]
    voltage_kv: float
    g_max: float


def potential_table(
    crystal: Crystal,
    voltage_kv: float,
    g_max: float,
    factors: str = "peng",
    jacobian: Array | None = None,
    absorption: Absorption = 0.0,
    strength: float = 1.0,
) -> PotentialTable:
    """Tabulate U_q for all beams with |g| <= g_max (1/Å) that the lattice's centring lets couple to 000.

    jacobian : (sites, 11, p) of `structure_factor_derivatives`, for derivatives by p parameters.
    absorption : makes it U + iU', see `absorptive_potential`; with derivatives a fraction only (else ValueError).
    strength : factor of every U; well below 1 the intensities become kinematical, in proportion to its square.
    """
    if isinstance(absorption, str) and jacobian is not None:
        raise ValueError("a thermal diffuse absorptive potential has no derivatives; a fraction has")
    beams = np.vstack([np.zeros((1, 3), np.int64), reflections_within(crystal, g_max)])
    beams = beams[of_the_lattice(crystal, beams)]
    reach = 2 * np.abs(beams).max(0)
    stride = np.array([(2 * reach[1] + 1) * (2 * reach[2] + 1), 2 * reach[2] + 1, 1])
    centre = int(reach @ stride)
    q = np.vstack([np.zeros((1, 3), np.int64), reflections_within(crystal, 2 * g_max)])
    flat_q = q @ stride
    half = q[flat_q >= 0]
    scale = strength * potential_per_factor(crystal, voltage_kv)
    if jacobian is None:
        values = scale * structure_factors(crystal, half, factors)[:, None]
    else:
        value, slope = structure_factor_derivatives(crystal, half, factors, jacobian)
        values = scale * np.column_stack([value, slope])
    size = int(np.prod(2 * reach + 1))
    box = np.zeros((size, values.shape[1]), values.dtype)
    place = half @ stride
    inside = (np.abs(half) <= reach).all(1)
    box[centre + place[inside]] = values[inside]
    box[centre - place[inside]] = values[inside].conj()
    if isinstance(absorption, str):
        lost = absorptive_potential(crystal, half, values[:, 0], voltage_kv, factors, absorption)
        box[centre + place[inside], 0] += 1j * lost[inside]
        box[centre - place[inside][1:], 0] += 1j * lost[inside].conj()[1:]
    elif absorption:
        box = box * (1 + 1j * absorption)
    elif crystal.centric:
        box = np.ascontiguousarray(box.real)
    return PotentialTable(beams, beams @ stride, centre, box, voltage_kv, g_max)


def frame_intensities(
    potential: PotentialTable,
    ub_lab: Array,
    rotations: Array,
    rotation_weights: Array,
    thickness: Array,
    thickness_weights: Array,
    hkl: IntArray,
    voltage_kv: float,
    g_max: float,
    s_max: float,
) -> Array:
    """Intensities of one frame, as fractions of the incident flux through the crystal's area; (n,).

    I = Σ_k w_k Σ_t w_t |ψ_g(R_k, t)|², ψ of PHYSICS A2.  ub_lab : (3, 3) 1/Å, frame orientation times UB.
    rotations : (m, 3, 3) that left-multiply it, rotation_weights (m,).  thickness : (k,) Å, thickness_weights (k,).
    hkl : (n, 3), may contain 000.  Beams: |g| <= g_max and |S| <= s_max (1/Å) in each rotation.
    """
    cast = _cast(potential, ub_lab, ub_lab, rotations, g_max, s_max, hkl[:0])
    out = np.zeros(len(cast.hkl))
    _frame_forward(
        cast.g,
        cast.g_select,
        cast.flat,
        potential.centre,
        potential.box,
        rotations[:, 2].copy(),
        rotation_weights,
        thickness,
        thickness_weights,
        wavelength_A(voltage_kv),
        s_max,
        out,
    )
    return _picked(cast, hkl, out)


def frame_jacobian(
    potential: PotentialTable,
    ub_lab: Array,
    ub_select: Array,
    rotations: Array,
    rotation_weights: Array,
    thickness: Array,
    thickness_weights: Array,
    hkl: IntArray,
    s_max: float,
    derivatives: bool = True,
) -> tuple[Array, Array]:
    """Intensities of one frame (n,) and, if asked for, their derivatives (n, p + 3).

    As `frame_intensities`, with the beams selected at the orientation `ub_select`, so that a search over
    orientations keeps them. Columns: the potential's p
    parameters; tilts of the frame about the lab's x and y, rad; log thickness (all nodes scale together).
    """
    cast = _cast(potential, ub_lab, ub_select, rotations, potential.g_max, s_max, hkl)
    wavelength = wavelength_A(potential.voltage_kv)
    out = np.zeros(len(cast.hkl))
    third = np.ascontiguousarray(rotations[:, 2])
    if not derivatives:
        _frame_forward(
            cast.g,
            cast.g_select,
            cast.flat,
            potential.centre,
            potential.box,
            third,
            rotation_weights,
            thickness,
            thickness_weights,
            wavelength,
            s_max,
            out,
        )
        return _picked(cast, hkl, out), np.empty((len(hkl), 0))
    slope = np.zeros((len(cast.hkl), potential.box.shape[1] - 1 + TILTS_AND_THICKNESS))
    _frame_jacobian(
        cast.g,
        cast.g_select,
        cast.scored,
        cast.flat,
        potential.centre,
        potential.box,
        third,
        rotation_weights,
        thickness,
        thickness_weights,
        wavelength,
        s_max,
        out,
        slope,
    )
    return _picked(cast, hkl, out), _picked(cast, hkl, slope)


@dataclass(frozen=True, slots=True, eq=False)
class _Cast:
    """Beams that may take part in a frame. g, g_select : (n, 3) 1/Å; scored : (n,) asked for."""

    hkl: IntArray
    flat: IntArray
    g: Array
    g_select: Array
    scored: NDArray[np.bool_]


def _cast(
    potential: PotentialTable,
    ub: Array,
    ub_select: Array,
    rotations: Array,
    g_max: float,
    s_max: float,
    hkl: IntArray,
) -> _Cast:
    """Beams that come within s_max in at least one rotation, 000 first."""
    wavelength = wavelength_A(potential.voltage_kv)
    g = potential.hkl @ ub_select.T
    length = np.linalg.norm(g, axis=1)
    widest = np.linalg.norm(rotations[:, 2] - np.array([0.0, 0.0, 1.0]), axis=1).max()
    near = (np.abs(excitation_errors(g, wavelength)) <= s_max + widest * length) & (length <= g_max)
    near[0] = True
    kept = potential.hkl[near]
    scored = np.isin(potential.flat[near], hkl @ _stride(potential))
    return _Cast(kept, potential.flat[near], kept @ ub.T, kept @ ub_select.T, scored)


def _stride(potential: PotentialTable) -> IntArray:
    reach = 2 * np.abs(potential.hkl).max(0)
    return np.array([(2 * reach[1] + 1) * (2 * reach[2] + 1), 2 * reach[2] + 1, 1])


def _picked(cast: _Cast, hkl: IntArray, values: Array) -> Array:
    """Rows of `values` for the requested reflections; zero for those that take no part."""
    index = {tuple(h): i for i, h in enumerate(cast.hkl.tolist())}
    out = np.zeros((len(hkl), *values.shape[1:]))
    for row, h in enumerate(hkl.tolist()):
        i = index.get(tuple(h))
        if i is not None:
            out[row] = values[i]
    return out


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
    """Off-diagonal part M_g U_{g-h} M_h, or a derivative of it; (n, n)."""
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
def _frame_forward(
    g: Array,
    g_select: Array,
    flat: IntArray,
    centre: int,
    box: NDArray[Any],
    rows: Array,
    weights: Array,
    thickness: Array,
    t_weights: Array,
    wavelength: float,
    s_max: float,
    out: Array,
) -> None:
    """Add the intensities of all rotations to out (n,)."""
    for r in range(rows.shape[0]):
        beams = _selected(g_select, rows[r], wavelength, s_max)
        two_ks, m = _diagonal(g, beams, rows[r], wavelength)
        a = _matrix(flat, beams, centre, box, 0, m)
        lost = box[centre, 0] - box[centre, 0].real
        for i in range(beams.size):
            a[i, i] = (two_ks[i] + lost) * m[i] ** 2
        middle, half = _bounds(a)
        scale = np.pi * wavelength * half
        n = _terms(scale * thickness.max(), 9.0)
        even, odd, _, _ = _coefficients(scale, thickness, n)
        _, t = _chebyshev(a, middle, half, n)
        psi = np.dot(even.astype(box.dtype), t) + 1j * np.dot(odd.astype(box.dtype), t)
        for k in range(thickness.size):
            for i in range(beams.size):
                wave = psi[k, i]
                out[beams[i]] += weights[r] * t_weights[k] * m[i] ** 2 * (wave.real**2 + wave.imag**2)


@nb.njit(cache=True, nogil=True)
def _sources(
    g: Array,
    flat: IntArray,
    beams: IntArray,
    centre: int,
    box: NDArray[Any],
    row: Array,
    m: Array,
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
                place, mm = base - flat[beams[j]], m[i] * m[j]
                for q in range(p - 2):
                    stack[j, i * p + q] = box[place, 1 + q] * mm
            else:
                for q in range(p - 2):
                    lost = box[centre, 1 + q] - box[centre, 1 + q].real
                    stack[j, i * p + q] = lost * m[i] ** 2
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
def _frame_jacobian(
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
    out: Array,
    slope: Array,
) -> None:
    """Add intensities (n,) and derivatives (n, p + 3) of all rotations; derivatives of the scored beams only."""
    p = box.shape[1] + 1
    for r in range(rows.shape[0]):
        beams = _selected(g_select, rows[r], wavelength, s_max)
        two_ks, m = _diagonal(g, beams, rows[r], wavelength)
        a = _matrix(flat, beams, centre, box, 0, m)
        lost = box[centre, 0] - box[centre, 0].real
        for i in range(beams.size):
            a[i, i] = (two_ks[i] + lost) * m[i] ** 2
        middle, half = _bounds(a)
        scale = np.pi * wavelength * half
        n = _terms(scale * thickness.max(), 6.0)
        even, odd, d_even, d_odd = _coefficients(scale, thickness, n)
        even, odd = even.astype(box.dtype), odd.astype(box.dtype)
        x2, t = _chebyshev(a, middle, half, n)
        psi = np.dot(even, t) + 1j * np.dot(odd, t)
        by_t = np.dot(d_even.astype(box.dtype), t) + 1j * np.dot(d_odd.astype(box.dtype), t)
        sources, d_ln_m = _sources(g, flat, beams, centre, box, rows[r], m, a, t, wavelength)
        d = _slopes(x2, half, sources)
        d_even_psi, d_odd_psi = np.dot(even, d), np.dot(odd, d)
        for k in range(thickness.size):
            for i in range(beams.size):
                share = weights[r] * t_weights[k] * m[i] ** 2
                wave = psi[k, i]
                intensity = share * (wave.real**2 + wave.imag**2)
                out[beams[i]] += intensity
                if scored[beams[i]]:
                    for q in range(p):
                        change = d_even_psi[k, i * p + q] + 1j * d_odd_psi[k, i * p + q]
                        value = 2 * share * (wave.real * change.real + wave.imag * change.imag)
                        slope[beams[i], q] += value
                    for q in range(2):
                        slope[beams[i], p - 2 + q] += 2 * d_ln_m[q, i] * intensity
                    change = by_t[k, i]
                    slope[beams[i], p] += 2 * share * (wave.real * change.real + wave.imag * change.imag)
