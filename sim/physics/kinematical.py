"""The limit of single scattering, which every engine must reach for a weak object.

Its intensities and derivatives are closed forms, so that a refinement of weak potentials needs no engine to come near.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.bloch import TILTS_AND_THICKNESS, X_AND_Y, PotentialTable
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.propagation import faded

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def kinematical_intensities(
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
    """As `bloch.frame_intensities` with I = (π t |U_g| / K)² sinc²(π t S): every beam alone; (n,).

    g_max and s_max bound the beams as they do there. 000 is given the incident intensity.
    """
    g = hkl @ ub_lab.T
    u2 = np.abs(_coefficients(potential, hkl, g)[:, 0]) ** 2
    u2[np.linalg.norm(g, axis=1) > g_max] = 0
    curve = np.zeros((len(hkl), 1))
    _shares(
        g, g, np.ascontiguousarray(rotations[:, 2]), rotation_weights, thickness, thickness_weights,
        wavelength_A(voltage_kv), s_max, 0.0, X_AND_Y, curve,
    )  # fmt: skip
    out = u2 * curve[:, 0]
    out[~np.any(hkl, axis=1)] = rotation_weights.sum() * thickness_weights.sum()
    return np.asarray(out, np.float64)


def _coefficients(potential: PotentialTable, hkl: IntArray, g: Array) -> NDArray[Any]:
    """U and its derivatives (n, 1 + p) of reflections; 0 of those that are no beams.  g : (n, 3) 1/Å."""
    flat = np.clip(np.asarray(hkl) @ potential.stride, -potential.centre, potential.centre)
    out = potential.box[flat + potential.centre]
    known = (np.abs(hkl) <= np.abs(potential.hkl).max(0)).all(1)
    known &= np.linalg.norm(g, axis=1) <= potential.g_max
    out[~known] = 0
    return np.asarray(out)


def kinematical_jacobian(
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
    """As `bloch.frame_jacobian` with every beam alone: intensities (n,) and, if asked for, derivatives (n, p + 3)."""
    g = hkl @ ub_lab.T
    u = _coefficients(potential, hkl, g)
    curve = np.zeros((len(hkl), 1 + TILTS_AND_THICKNESS if derivatives else 1))
    _shares(
        g, hkl @ ub_select.T, np.ascontiguousarray(rotations[:, 2]), rotation_weights, thickness,
        thickness_weights, wavelength_A(potential.voltage_kv), s_max, taper, axes, curve,
    )  # fmt: skip
    found = np.abs(u[:, 0]) ** 2 * curve[:, 0]
    if not derivatives:
        return found, np.empty((len(hkl), 0))
    by_structure = 2 * np.real(u[:, :1].conj() * u[:, 1:]) * curve[:, :1]
    return found, np.hstack([by_structure, np.abs(u[:, :1]) ** 2 * curve[:, 1:]])


def kinematical_curves(
    potential: PotentialTable,
    ub_lab: Array,
    rotations: Array,
    thickness: Array,
    thickness_weights: Array,
    hkl: IntArray,
    s_max: float,
    taper: float = 0.0,
) -> Array:
    """As `bloch.rocking_curves` with every beam alone: intensities of every rotation, (m, n)."""
    g = hkl @ ub_lab.T
    u2 = np.abs(_coefficients(potential, hkl, g)[:, 0]) ** 2
    out = np.zeros((len(rotations), len(hkl)))
    curve = np.zeros((len(hkl), 1))
    for row, third in zip(out, np.ascontiguousarray(rotations[:, 2]), strict=True):
        curve[:] = 0.0
        _shares(
            g, g, third[None], np.ones(1), thickness, thickness_weights,
            wavelength_A(potential.voltage_kv), s_max, taper, X_AND_Y, curve,
        )  # fmt: skip
        row[:] = u2 * curve[:, 0]
    return out


@nb.njit(cache=True, nogil=True)
def _shares(
    g: Array,
    g_select: Array,
    third: Array,
    weights: Array,
    thickness: Array,
    t_weights: Array,
    wavelength: float,
    s_max: float,
    taper: float,
    axes: Array,
    out: Array,
) -> None:
    """What |U|² is multiplied with, out (n, 1), and its derivatives by two tilts and log thickness, out (n, 4).

    t² sinc² x with x = π t S changes by π t³ 2 sinc x (cos x - sinc x) / x with S and by 2 t² sinc x cos x with log t.
    """
    sloped = out.shape[1] > 1
    for i in range(g.shape[0]):
        half = 0.5 * wavelength * (g[i, 0] ** 2 + g[i, 1] ** 2 + g[i, 2] ** 2)
        half_select = 0.5 * wavelength * (g_select[i, 0] ** 2 + g_select[i, 1] ** 2 + g_select[i, 2] ** 2)
        for r in range(third.shape[0]):
            row = third[r]
            there = abs(
                row[0] * g_select[i, 0] + row[1] * g_select[i, 1] + row[2] * g_select[i, 2] - half_select
            )
            if there > s_max:
                continue
            share = weights[r] * faded(there, s_max, taper) ** 2
            s = row[0] * g[i, 0] + row[1] * g[i, 1] + row[2] * g[i, 2] - half
            value, by_s, by_t = 0.0, 0.0, 0.0
            for k in range(thickness.size):
                t = thickness[k]
                x, scale = np.pi * t * s, t_weights[k] * (np.pi * wavelength * t) ** 2
                sinc = 1 - x * x / 6 if abs(x) < 1e-4 else np.sin(x) / x
                value += scale * sinc * sinc
                if sloped:
                    cosine = np.cos(x)
                    slope = -x / 3 if abs(x) < 1e-4 else (cosine - sinc) / x
                    by_s += scale * 2 * sinc * slope * np.pi * t
                    by_t += scale * 2 * sinc * cosine
            out[i, 0] += share * value
            if not sloped:
                continue
            for j in range(2):
                a = axes[j]
                turned = (
                    row[0] * (a[1] * g[i, 2] - a[2] * g[i, 1])
                    + row[1] * (a[2] * g[i, 0] - a[0] * g[i, 2])
                    + row[2] * (a[0] * g[i, 1] - a[1] * g[i, 0])
                )
                out[i, 1 + j] += share * by_s * turned
            out[i, 3] += share * by_t
