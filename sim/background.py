"""Diffuse scattering: an amorphous carbon film, vitreous ice and inelastic losses, spread around every beam.

All act on each beam as independent random deflections, so thick layers scatter several times and no electron
is lost: the kernel's transform is exp(-n_el (1 - C) - n_in (1 - L)), n the mean numbers of events, C and L
the transforms of the single-event distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from nanoed.sim.physics.electron import relativistic_gamma, wavelength_A
from nanoed.sim.physics.factors import electron_factor

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Layer:
    """An amorphous layer.

    formula : atoms per unit.  units_per_A3.  halos : centre, width (1/Å), contrast - 1 of the structure factor.
    inelastic_mfp_A : at 200 kV.
    """

    formula: tuple[tuple[str, int], ...]
    units_per_A3: float
    halos: tuple[tuple[float, float, float], ...]
    inelastic_mfp_A: float


# 1.9 g/cm³, halos and mean free path: PHYSICS H5
CARBON = Layer((("C", 1),), 1.9 * 0.602214076 / 12.011, ((0.47, 0.07, 0.40), (0.85, 0.09, 0.30)), 1500.0)
# 0.94 g/cm³; halos at 3.7 and 2.1 Å, contrasts and mean free path: recalled for low-density amorphous ice [G]
ICE = Layer((("O", 1), ("H", 2)), 0.94 * 0.602214076 / 18.015, ((0.27, 0.03, 1.2), (0.47, 0.06, 0.5)), 2000.0)
CRYSTAL_INELASTIC_MFP_A = 1100.0  # at 200 kV, oxides (PHYSICS H5)
PLASMON_LOSS_EV = 25.0  # typical of carbon and oxides
ELASTIC_LIMIT = 6.0  # 1/Å to which the film's elastic scattering is integrated


@dataclass(frozen=True, slots=True, eq=False)
class Diffuse:
    """Single-event deflections on a canvas and the events per Å of path.

    elastic, ice, inelastic : transforms of the distributions, (ny, nx // 2 + 1), real; below 1 at zero frequency
    where the canvas misses part of the distribution.  per_A : events per Å for "film_elastic", "ice_elastic",
    "film_inelastic", "ice_inelastic", "crystal_inelastic".
    """

    elastic: Array
    ice: Array
    inelastic: Array
    per_A: dict[str, float]

    def kernel(self, film: float, crystal: float, ice: float = 0.0) -> Array:
        """Transform of the deflections behind Å of carbon film, of crystal and of ice; the product of both parts."""
        return _support(self, film, ice) * self.in_crystal(crystal)

    def in_crystal(self, path: float) -> Array:
        """Transform of the deflections in `path` Å of crystal."""
        return np.exp(path * self.per_A["crystal_inelastic"] * (self.inelastic - 1))

    def in_support(self, film: float, ice: float = 0.0) -> Array:
        """Transform of the deflections behind Å of carbon film and of ice; not to be written to."""
        return _support(self, film, ice)


@lru_cache(maxsize=4)
def _support(diffuse: Diffuse, film: float, ice: float) -> Array:
    rate = diffuse.per_A
    n_in = film * rate["film_inelastic"] + ice * rate["ice_inelastic"]
    exponent = film * rate["film_elastic"] * (diffuse.elastic - 1) + n_in * (diffuse.inelastic - 1)
    if ice > 0:
        exponent += ice * rate["ice_elastic"] * (diffuse.ice - 1)
    kernel = np.exp(exponent)
    kernel.setflags(write=False)
    return kernel


def diffuse_scattering(
    shape: tuple[int, int], a_per_px: float, voltage_kv: float, inelastic: float
) -> Diffuse:
    """Tabulate the deflections for a canvas of `shape` pixels of `a_per_px` 1/Å.

    inelastic : factor on the inelastic event rates.
    """
    qy, qx = (fft.fftfreq(n, 1 / n) * a_per_px for n in shape)
    q = np.hypot(*np.meshgrid(qx, qy))
    scale = _beta2(voltage_kv) / _beta2(200.0)
    rates = {"crystal_inelastic": inelastic / (CRYSTAL_INELASTIC_MFP_A * scale)}
    elastic = {}
    for name, layer in (("film", CARBON), ("ice", ICE)):
        total = _radial_integral(partial(layer_elastic, layer, voltage_kv=voltage_kv), ELASTIC_LIMIT)
        density = np.where(q < ELASTIC_LIMIT, layer_elastic(layer, q, voltage_kv), 0)
        elastic[name] = fft.rfft2(density * a_per_px**2 / total).real
        rates |= {f"{name}_elastic": total, f"{name}_inelastic": inelastic / (layer.inelastic_mfp_A * scale)}
    lorentz = _plasmon_pixels(q, qx, qy, a_per_px, voltage_kv)
    return Diffuse(elastic["film"], elastic["ice"], fft.rfft2(lorentz).real, rates)


def layer_elastic(layer: Layer, g: Array, voltage_kv: float) -> Array:
    """Elastic scattering by g (1/Å) per Å of layer and per Å^-2: N γ² Σf² λ² S(g) (PHYSICS H5)."""
    structure = 1 + sum(c * np.exp(-0.5 * ((g - centre) / width) ** 2) for centre, width, c in layer.halos)
    f2 = sum(n * electron_factor(atom, 0.5 * np.asarray(g), "lobato") ** 2 for atom, n in layer.formula)
    strength = layer.units_per_A3 * (relativistic_gamma(voltage_kv) * wavelength_A(voltage_kv)) ** 2
    return np.asarray(strength * f2 * structure)


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
