"""Diffuse scattering: an amorphous carbon film and inelastic losses, spread around every beam.

Both act on each beam as independent random deflections, so thick layers scatter several times and no electron
is lost: the kernel's transform is exp(-n_el (1 - C) - n_in (1 - L)), n the mean numbers of events, C and L
the transforms of the single-event distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from nanoed.sim.physics.electron import relativistic_gamma, wavelength_A
from nanoed.sim.physics.factors import electron_factor

Array = NDArray[np.float64]

CARBON_DENSITY_G_CM3 = 1.9  # PHYSICS H5
CARBON_HALOS = ((0.47, 0.07, 0.40), (0.85, 0.09, 0.30))  # centre, width (1/Å), contrast - 1 (PHYSICS H5)
INELASTIC_MFP_A_200KV = {"carbon": 1500.0, "crystal": 1100.0}  # PHYSICS H5
PLASMON_LOSS_EV = 25.0  # typical of carbon and oxides
ELASTIC_LIMIT = 6.0  # 1/Å to which the film's elastic scattering is integrated


@dataclass(frozen=True, slots=True, eq=False)
class Diffuse:
    """Single-event deflections on a canvas and the events per Å of path.

    elastic, inelastic : transforms of the distributions, (ny, nx // 2 + 1), real; below 1 at zero frequency
    where the canvas misses part of the distribution.  per_A : events per Å for "film_elastic",
    "film_inelastic", "crystal_inelastic".
    """

    elastic: Array
    inelastic: Array
    per_A: dict[str, float]

    def kernel(self, film: float, crystal: float) -> Array:
        """Transform of the deflections behind `film` Å of carbon and `crystal` Å of crystal."""
        n_el = film * self.per_A["film_elastic"]
        n_in = film * self.per_A["film_inelastic"] + crystal * self.per_A["crystal_inelastic"]
        return np.exp(n_el * (self.elastic - 1) + n_in * (self.inelastic - 1))


def diffuse_scattering(
    shape: tuple[int, int], a_per_px: float, voltage_kv: float, inelastic: float
) -> Diffuse:
    """Tabulate the deflections for a canvas of `shape` pixels of `a_per_px` 1/Å.

    inelastic : factor on the inelastic event rates.
    """
    qy, qx = (fft.fftfreq(n, 1 / n) * a_per_px for n in shape)
    q = np.hypot(*np.meshgrid(qx, qy))
    rate = carbon_elastic(q, voltage_kv)
    elastic_total = _radial_integral(lambda g: carbon_elastic(g, voltage_kv), ELASTIC_LIMIT)
    rates = {"film_elastic": elastic_total}
    scale = _beta2(voltage_kv) / _beta2(200.0)
    for layer, name in (("carbon", "film_inelastic"), ("crystal", "crystal_inelastic")):
        rates[name] = inelastic / (INELASTIC_MFP_A_200KV[layer] * scale)
    elastic = np.where(q < ELASTIC_LIMIT, rate, 0) * a_per_px**2 / elastic_total
    lorentz = _plasmon_pixels(q, qx, qy, a_per_px, voltage_kv)
    return Diffuse(fft.rfft2(elastic).real, fft.rfft2(lorentz).real, rates)


def carbon_elastic(g: Array, voltage_kv: float) -> Array:
    """Elastic scattering by g (1/Å) per Å of film and per Å^-2: N γ² f² λ² S(g) (PHYSICS H5)."""
    atoms_per_A3 = CARBON_DENSITY_G_CM3 * 0.602214076 / 12.011
    structure = 1 + sum(c * np.exp(-0.5 * ((g - centre) / width) ** 2) for centre, width, c in CARBON_HALOS)
    f = electron_factor("C", 0.5 * np.asarray(g), "lobato")
    return atoms_per_A3 * (relativistic_gamma(voltage_kv) * f * wavelength_A(voltage_kv)) ** 2 * structure


def _radial_integral(density: Callable[[Array], Array], limit: float) -> float:
    g = np.linspace(0, limit, 6001)
    return float(np.trapezoid(2 * np.pi * g * density(g), g))


def _beta2(voltage_kv: float) -> float:
    return 1 - 1 / relativistic_gamma(voltage_kv) ** 2


def _plasmon_pixels(q: Array, qx: Array, qy: Array, a_per_px: float, voltage_kv: float) -> Array:
    """Share of plasmon losses per pixel: 1/(θ² + θ_E²) - 1/(θ² + θ_c²), Bethe ridge θ_c = sqrt(2 θ_E)."""
    gamma, wavelength = relativistic_gamma(voltage_kv), wavelength_A(voltage_kv)
    theta_e = PLASMON_LOSS_EV / (voltage_kv * 1e3) * gamma / (gamma + 1)
    q_e, q_c = theta_e / wavelength, np.sqrt(2 * theta_e) / wavelength
    norm = np.pi * np.log((q_c / q_e) ** 2)

    def density(r2: Array) -> Array:
        return (1 / (r2 + q_e**2) - 1 / (r2 + q_c**2)) / norm

    share = density(q * q) * a_per_px**2
    fine = (np.arange(31) - 15) / 31 * a_per_px
    for j in range(-6, 7):
        for i in range(-6, 7):
            x, y = np.meshgrid(qx[i] + fine, qy[j] + fine)
            share[j, i] = density(x * x + y * y).mean() * a_per_px**2
    return share
