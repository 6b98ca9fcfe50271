"""The limit of single scattering, which every engine must reach for a weak object."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.bloch import PotentialTable
from nanoed.sim.physics.electron import wavelength_A

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
    index = {tuple(h): i for i, h in enumerate(potential.hkl.tolist())}
    known = np.array([index.get(tuple(h), -1) for h in np.asarray(hkl).tolist()])
    place = np.where(known < 0, potential.centre, potential.flat[known] + potential.centre)
    u2 = np.where(known < 0, 0.0, np.abs(potential.box[place, 0]) ** 2)
    g = hkl @ ub_lab.T
    u2[np.linalg.norm(g, axis=1) > g_max] = 0
    out = np.zeros(len(hkl))
    rows = np.ascontiguousarray(rotations[:, 2])
    _sum(g, u2, rows, rotation_weights, thickness, thickness_weights, wavelength_A(voltage_kv), s_max, out)
    out[~np.any(hkl, axis=1)] = rotation_weights.sum() * thickness_weights.sum()
    return out


@nb.njit(cache=True, nogil=True)
def _sum(
    g: Array,
    u2: Array,
    rows: Array,
    weights: Array,
    thickness: Array,
    t_weights: Array,
    wavelength: float,
    s_max: float,
    out: Array,
) -> None:
    """rows : (m, 3) third row of every rotation, which gives g_z."""
    for i in range(g.shape[0]):
        curvature = 0.5 * wavelength * (g[i, 0] ** 2 + g[i, 1] ** 2 + g[i, 2] ** 2)
        for r in range(rows.shape[0]):
            s = rows[r, 0] * g[i, 0] + rows[r, 1] * g[i, 1] + rows[r, 2] * g[i, 2] - curvature
            if abs(s) > s_max:
                continue
            for k in range(thickness.size):
                x = np.pi * thickness[k] * s
                sinc = 1 - x * x / 6 if abs(x) < 1e-4 else np.sin(x) / x
                amplitude2 = u2[i] * (np.pi * wavelength * thickness[k] * sinc) ** 2
                out[i] += weights[r] * t_weights[k] * amplitude2
