"""How a frame samples orientations: azimuths of a precession, steps of a rotation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.geometry import rot_x, rot_z

Array = NDArray[np.float64]
STEPS_OF_A_POINT = 20
"""Steps that even a vanishing crystal gets, fitted with the 2π to convergence tests of anatase and ITO."""


def precession_steps(g_max: float, semi_angle: float, t_max: float) -> int:
    """Azimuths that a precession of a crystal needs for an error below 0.2 % in R.

    2π g_max φ t + 20: the rocking curve's fringes are 1/t apart and S sweeps g φ (g_max 1/Å, semi_angle rad,
    t_max : longest chord, Å). Fewer fail abruptly.
    """
    return int(np.ceil(2 * np.pi * g_max * semi_angle * t_max)) + STEPS_OF_A_POINT


def precession_rotations(semi_angle: float, n: int) -> Array:
    """Rotations that left-multiply a frame's orientation, (n, 3, 3): R_z(ψ) R_x(φ) R_z(-ψ), ψ = 2πk/n."""
    azimuth = 2 * np.pi * np.arange(n) / n
    return np.array([rot_z(a) @ rot_x(semi_angle) @ rot_z(-a) for a in azimuth])


def rotation_sweep(axis_azimuth: float, half_width: float, n: int) -> Array:
    """Rotations about the tilt axis at midpoints of n equal parts of ±half_width (rad); (n, 3, 3)."""
    turn = rot_z(axis_azimuth)
    angles = ((np.arange(n) + 0.5) / n * 2 - 1) * half_width
    return np.array([turn @ rot_x(a) @ turn.T for a in angles])
