"""Absorptive scattering factors: what thermal diffuse scattering takes from the Bragg beams."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from nanoed.sim.physics.crystal import EIGHT_PI2, Crystal
from nanoed.sim.physics.electron import relativistic_gamma, wavelength_A
from nanoed.sim.physics.factors import electron_factor

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Complex = NDArray[np.complex128]
Absorption = float | Literal["thermal"]
"""Hashimoto's fraction U'/U, or "thermal" for the computed thermal diffuse part; 0 is none."""
NODES = 64
"""Quadrature points along the radius, the azimuth, and tabulated s."""


def absorptive_potential(
    crystal: Crystal, hkl: IntArray, u: Complex, voltage_kv: float, table: str, absorption: Absorption
) -> Complex:
    """U'_g (n,) 1/Å², which the potential table takes as U + iU'.

    hkl : (n, 3).  u : (n,) U_g.  absorption : a fraction f, U' = f U of every g (Hashimoto, Howie & Whelan 1962), or
    "thermal", γ Σ_j occ_j f'_j T_j exp(-2πi g·r_j) / (π V), anisotropic sites with their U_eq.
    Law: U'_{-g} = conj U'_g.
    """
    if absorption != "thermal":
        return float(absorption) * u
    s = 0.5 * np.linalg.norm(hkl @ crystal.reciprocal_basis.T, axis=1)
    factor = {
        (element, u_iso): thermal_diffuse_factor(element, s, u_iso, voltage_kv, table)
        for element, u_iso in set(zip(crystal.elements, crystal.u_iso.tolist(), strict=True))
    }
    out = np.zeros(len(hkl), np.complex128)
    for site, xyz in zip(*crystal.unit_cell_atoms(), strict=True):
        of_site = factor[crystal.elements[site], float(crystal.u_iso[site])]
        out += crystal.occupancy[site] * of_site * np.exp(-2j * np.pi * (hkl @ xyz))
    return relativistic_gamma(voltage_kv) / (np.pi * crystal.volume) * out


def thermal_diffuse_factor(
    element: str, s: ArrayLike, u_iso: float, voltage_kv: float, table: str = "peng"
) -> Array:
    """f' T, the absorptive scattering factor times the Debye-Waller factor, Å, at s = sinθ/λ (1/Å; any shape).

    Einstein crystal, every diffusely scattered electron lost (Bird & King 1990, eq. 6, with T = exp(-B s²) multiplied
    in, B = 8π² u_iso):
        f' T = 2 γ λ ∫ f(|s/2 + s'|) f(|s/2 - s'|) [exp(-B s²) - exp(-B (s²/2 + 2 s'²))] d²s'
    It makes U' = γ Σ f' T exp(-2πi g·r) / (π V) with the intensity of the mean wave falling as exp(-2π U'_0 t / K).
    u_iso : Å². Raises InputError for an element or a table that is not tabulated.
    """
    asked = np.abs(np.asarray(s, np.float64))
    top = 0.25 * np.ceil(4 * float(asked.max(initial=0.0)) + 1)
    node, value = _tabulated(element, float(u_iso), table, top)
    return 2 * relativistic_gamma(voltage_kv) * wavelength_A(voltage_kv) * CubicSpline(node, value)(asked)


@lru_cache(maxsize=256)
def _tabulated(element: str, u_iso: float, table: str, top: float) -> tuple[Array, Array]:
    """The integral over s' at nodes of s from 0 to top, 1/Å, denser where it changes fast."""
    x, weight = np.polynomial.legendre.leggauss(NODES)
    radius = 0.5 * (x + 1)
    radius, d_radius = radius / (1 - radius), 0.5 * weight / (1 - radius) ** 2
    azimuth, d_azimuth = 0.25 * np.pi * (x + 1), 0.25 * np.pi * weight
    area = 4 * np.outer(radius * d_radius, d_azimuth)
    r2, along = np.square(radius)[:, None], np.outer(radius, np.cos(azimuth))
    b = EIGHT_PI2 * u_iso
    s = top * np.linspace(0, 1, NODES) ** 1.5
    values = np.empty(NODES)
    for i, each in enumerate(s):
        near, far = (
            electron_factor(element, np.sqrt(r2 + each**2 / 4 + sign * along * each), table)
            for sign in (-1, 1)
        )
        lost = np.exp(-b * each**2) - np.exp(-b * (each**2 / 2 + 2 * r2))
        values[i] = (area * near * far * lost).sum()
    return s, values
