"""The electron in the microscope: wavelength and relativistic factors."""

from __future__ import annotations

import math

HC_EV_A = 12398.4198
"""Planck's constant times the speed of light, eV Å."""
REST_ENERGY_EV = 510998.95


def wavelength_A(voltage_kv: float) -> float:
    """Relativistic de Broglie wavelength, Å: hc / sqrt(E (2 m0c² + E))  (Spence & Zuo 1992, eq. 2.5)."""
    energy = 1e3 * voltage_kv
    return HC_EV_A / math.sqrt(energy * (2 * REST_ENERGY_EV + energy))


def voltage_kv(wavelength: float) -> float:
    """Accelerating voltage of a wavelength (Å): the inverse of `wavelength_A`."""
    momentum = HC_EV_A / wavelength
    return 1e-3 * (math.hypot(momentum, REST_ENERGY_EV) - REST_ENERGY_EV)


def wavenumber(voltage_kv: float) -> float:
    """K = 1 / wavelength, 1/Å, no 2π."""
    return 1.0 / wavelength_A(voltage_kv)


def relativistic_gamma(voltage_kv: float) -> float:
    """Lorentz factor 1 + E / m0c²."""
    return 1.0 + 1e3 * voltage_kv / REST_ENERGY_EV
