"""Many-beam intensities of a crystal over orientations and thicknesses, with derivatives.

The incident wave is propagated through exp(iπ t A / K) by a Chebyshev expansion: one matrix-vector product per
term, N² work and real arithmetic where an inversion centre makes A real, all thicknesses from one recursion, and
derivatives by differentiating the recursion. Its matrix is the one of DESIGN section 2 with the surface normal
along the beam (column approximation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.absorption import Absorption, absorptive_potential
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.propagation import add_derivatives, near_sphere, rocking_intensities
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
"""Columns of a frame's Jacobian behind those of the structure: two tilts (rad), log thickness."""
X_AND_Y = np.eye(3)[:2]
"""Axes of the lab about which tilts are counted, where no others are given."""

IMAGINARY = 1e-9
"""Largest imaginary over largest absolute value of coefficients that count as real."""


@dataclass(frozen=True, slots=True, eq=False)
class PotentialTable:
    """U_q (1/Å²) of all differences of beams on a dense box of indices, with derivatives.

    hkl : (n, 3) beams with |g| <= g_max, 000 first.  flat : (n,) their places in the box; the U of g - h stands at
    flat[g] - flat[h] + centre.  box : (m, 1 + p), U (or U + iU') and its derivatives by p parameters; real if the
    crystal has an inversion centre, to which the origin is shifted, and does not absorb.
    """

    hkl: IntArray
    flat: IntArray
    centre: int
    box: NDArray[Any]
    voltage_kv: float
    g_max: float

    @property
    def stride(self) -> IntArray:
        """What makes a place in the box of indices, (3,)."""
        return _stride(self.hkl)


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
    strength : factor of every U, and of a fractional absorption with it, but not of a thermal diffuse one, which is
        that of the whole potential; well below 1, without the latter, the intensities become kinematical, in proportion
        to its square.
    """
    if isinstance(absorption, str) and jacobian is not None:
        raise ValueError("a thermal diffuse absorptive potential has no derivatives; a fraction has")
    beams = np.vstack([np.zeros((1, 3), np.int64), reflections_within(crystal, g_max)])
    beams = beams[of_the_lattice(crystal, beams)]
    reach = 2 * np.abs(beams).max(0)
    stride = _stride(beams)
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
    real = not absorption and crystal.inversion_centre is not None
    if real:
        values = values * np.exp(2j * np.pi * (half @ crystal.inversion_centre))[:, None]
    size = int(np.prod(2 * reach + 1))
    box: NDArray[Any] = np.zeros((size, values.shape[1]), values.dtype)
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
    elif real:
        box = _real(box)
    return PotentialTable(beams, beams @ stride, centre, box, voltage_kv, g_max)


def _stride(beams: IntArray) -> IntArray:
    """Steps (3,) in a box that holds all differences of the beams."""
    reach = 2 * np.abs(beams).max(0)
    return np.array([(2 * reach[1] + 1) * (2 * reach[2] + 1), 2 * reach[2] + 1, 1])


def _real(box: NDArray[Any]) -> Array:
    """The real part of coefficients about an inversion centre. Raises ValueError where they are not real."""
    if np.abs(box.imag).max() > IMAGINARY * np.abs(box).max():
        raise ValueError("the potential is not real: no inversion centre at the origin")
    return np.ascontiguousarray(box.real)


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
    curves = _curves(
        potential, cast, rotations, thickness, thickness_weights, wavelength_A(voltage_kv), s_max
    )
    return _picked(cast, hkl, rotation_weights @ curves)


def rocking_curves(
    potential: PotentialTable,
    ub_lab: Array,
    rotations: Array,
    thickness: Array,
    thickness_weights: Array,
    hkl: IntArray,
    s_max: float,
    taper: float = 0.0,
) -> Array:
    """Intensities of every rotation by itself, (m, n); `frame_intensities` is their weighted sum.

    taper : as in `frame_jacobian`.
    """
    cast = _cast(potential, ub_lab, ub_lab, rotations, potential.g_max, s_max, hkl[:0])
    wavelength = wavelength_A(potential.voltage_kv)
    curves = _curves(potential, cast, rotations, thickness, thickness_weights, wavelength, s_max, taper)
    return _picked(cast, hkl, curves.T).T


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
    taper: float = 0.0,
    axes: Array = X_AND_Y,
) -> tuple[Array, Array]:
    """Intensities of one frame (n,) and, if asked for, their derivatives (n, p + 3).

    As `frame_intensities`, with the beams selected at the orientation `ub_select`, so that a search over
    orientations keeps them. Columns: the potential's p
    parameters; tilts of the frame about two `axes` of the lab (2, 3), rad; log thickness (all nodes scale together).
    taper : part of s_max over which the coupling of a beam falls smoothly to none, so that intensities stay
    continuous where a turned frame gains or loses a beam; 0: not.
    """
    cast = _cast(potential, ub_lab, ub_select, rotations, potential.g_max, s_max, hkl)
    wavelength = wavelength_A(potential.voltage_kv)
    if not derivatives:
        curves = _curves(potential, cast, rotations, thickness, thickness_weights, wavelength, s_max, taper)
        return _picked(cast, hkl, rotation_weights @ curves), np.empty((len(hkl), 0))
    out = np.zeros(len(cast.hkl))
    third = np.ascontiguousarray(rotations[:, 2])
    slope = np.zeros((len(cast.hkl), potential.box.shape[1] - 1 + TILTS_AND_THICKNESS))
    add_derivatives(
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
        taper,
        axes,
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
    widest = np.linalg.norm(rotations[:, 2] - np.array([0.0, 0.0, 1.0]), axis=1).max()
    wavelength = wavelength_A(potential.voltage_kv)
    near = near_sphere(potential.hkl, ub_select, wavelength, s_max, float(widest), g_max)
    kept, flat = potential.hkl[near], potential.flat[near]
    scored = np.isin(flat, hkl @ potential.stride)
    return _Cast(kept, flat, kept @ ub.T, kept @ ub_select.T, scored)


def _curves(
    potential: PotentialTable,
    cast: _Cast,
    rotations: Array,
    thickness: Array,
    thickness_weights: Array,
    wavelength: float,
    s_max: float,
    taper: float = 0.0,
) -> Array:
    """Intensities of the beams of the cast in every rotation, (m, n)."""
    out = np.zeros((len(rotations), len(cast.hkl)))
    rocking_intensities(
        cast.g,
        cast.g_select,
        cast.flat,
        potential.centre,
        potential.box,
        np.ascontiguousarray(rotations[:, 2]),
        thickness,
        thickness_weights,
        wavelength,
        s_max,
        taper,
        out,
    )
    return out


def _picked(cast: _Cast, hkl: IntArray, values: Array) -> Array:
    """Rows of `values` for the requested reflections; zero for those that take no part."""
    index = {tuple(h): i for i, h in enumerate(cast.hkl.tolist())}
    out = np.zeros((len(hkl), *values.shape[1:]))
    for row, h in enumerate(hkl.tolist()):
        i = index.get(tuple(h))
        if i is not None:
            out[row] = values[i]
    return out
