"""How a frame samples orientations: azimuths of a precession, steps of a rotation, a mosaic's spread about either."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive, ndtr

from nanoed.sim.physics.geometry import rot_in_plane
from nanoed.sim.physics.thickness import gauss_nodes

Array = NDArray[np.float64]
Sampling = tuple[Array, Array, Array]
"""Rotations (m, 3, 3), their shares (m,) of sum 1, and the derivatives of these by the spread (m,), 1/rad."""
RINGS = 3
"""Radii over which the spread of a precession is sampled: exact for intensities of fifth degree in the radius."""
TAILS = 4.0
"""Standard deviations to which a spread is followed."""
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
    return rot_in_plane(2 * np.pi * np.arange(n) / n, semi_angle)


def rotation_sweep(axis_azimuth: float, half_width: float, n: int) -> Array:
    """Rotations about the tilt axis at midpoints of n equal parts of ±half_width (rad); (n, 3, 3)."""
    return rot_in_plane(axis_azimuth, ((np.arange(n) + 0.5) / n * 2 - 1) * half_width)


def spread_sweep(
    axis_azimuth: float, half_width: float, n: int, spread: float, at: float, across: int = 1
) -> Sampling:
    """A rotation by a crystal whose orientations scatter about the tilt axis with standard deviation `spread`, rad.

    The window of the rotation convolved with the Gaussian; `at` : spread that fixes the angles, n in ±half_width.
    across : orientations (of Gauss and Hermite, for a spread of `at`) that scatter as much about the axis in the plane
    of the detector that is perpendicular to the tilt axis; 1: none.
    """
    step = 2 * half_width / n
    extra = int(np.ceil(TAILS * at / step))
    rotations = rotation_sweep(axis_azimuth, half_width + extra * step, n + 2 * extra)
    angles = step * (np.arange(n + 2 * extra) - (n - 1) / 2 - extra)
    low, high = (angles - half_width) / spread, (angles + half_width) / spread
    density = np.exp(-0.5 * np.square([low, high])) / np.sqrt(2 * np.pi)
    shares, slope = ndtr(high) - ndtr(low), (low * density[0] - high * density[1]) / spread
    if across == 1:
        return rotations, *_normalised(shares, slope)
    x, weight = np.polynomial.hermite_e.hermegauss(across)
    weight = weight * np.exp(0.5 * x**2 * (1 - (at / spread) ** 2))
    tilts = rot_in_plane(axis_azimuth + np.pi / 2, at * x)
    every = np.einsum("nij,kjl->nkil", rotations, tilts).reshape(-1, 3, 3)
    by_spread = np.outer(slope, weight) + np.outer(shares, weight * x**2 * at**2 / spread**3)
    return every, *_normalised(np.outer(shares, weight).ravel(), by_spread.ravel())


def spread_rings(semi_angle: float, n: int, spread: float, at: float) -> Sampling:
    """A precession (or, with semi_angle 0, a still) of a crystal whose two tilts scatter with `spread`, rad, each.

    The radius then has Rice's distribution (Rice 1945, Bell Syst. Tech. J. 24, 46); `at` : spread that fixes the
    RINGS radii, of n azimuths each.
    """
    fine = np.linspace(max(0.0, semi_angle - TAILS * at), semi_angle + TAILS * at, 401)
    density = np.exp(_log_rice(fine, semi_angle, at)[0])
    radii, quadrature = gauss_nodes(fine, density, RINGS)
    (log, slope), (log_at, _) = (_log_rice(radii, semi_angle, s) for s in (spread, at))
    weight = quadrature * np.exp(log - log_at)
    rotations = np.concatenate([precession_rotations(r, n) for r in radii])
    return rotations, *_normalised(np.repeat(weight, n), np.repeat(weight * slope, n))


def _log_rice(radius: Array, centre: float, spread: float) -> tuple[Array, Array]:
    """Log of Rice's density and its derivative by the spread; r = 0 counts as very small."""
    x = radius * centre / spread**2
    log = -2 * np.log(spread) - 0.5 * np.square((radius - centre) / spread) + np.log(ive(0, x))
    log += np.log(np.maximum(radius, 1e-12))
    slope = -2 / spread + (radius**2 + centre**2) / spread**3 - 2 * x / spread * ive(1, x) / ive(0, x)
    return log, slope


def _normalised(weight: Array, slope: Array) -> tuple[Array, Array]:
    """Shares of sum 1, and their derivatives."""
    shares = weight / weight.sum()
    return shares, (slope - shares * slope.sum()) / weight.sum()
