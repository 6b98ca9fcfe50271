"""Diffuse scattering: an amorphous carbon film, vitreous ice and inelastic losses, spread around every beam.

All act on each beam as independent random deflections, so thick layers scatter several times and no electron
is lost: the kernel's transform is exp(-n_el (1 - C) - n_in (1 - L)), n the mean numbers of events, C and L
the transforms of the single-event distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from nanoed.sim.physics.electron import relativistic_gamma, wavelength_A
from nanoed.sim.physics.factors import electron_factor

if TYPE_CHECKING:
    from nanoed.sim.physics.crystal import Crystal

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
ELASTIC_LIMIT, THERMAL_LIMIT = (
    6.0,
    40.0,
)  # 1/Å to which elastic scattering by a layer and thermal scattering reach


@dataclass(frozen=True, slots=True, eq=False)
class Radial:
    """Density over the plane of frequencies, which depends on |q| alone and integrates to 1.

    q : (n,) 1/Å, from 0.  value : (n,) Å².
    """

    q: Array
    value: Array

    def pixels(self, centre: tuple[float, float], shape: tuple[int, int], a_per_px: float) -> Array:
        """Share per pixel of a canvas (ny, nx) about centre (x, y), pixels, the first one's centre at 0.5; (ny, nx)."""
        x, y = (np.arange(n) + 0.5 - c for n, c in zip(shape[::-1], centre, strict=True))
        q = a_per_px * np.sqrt(np.add.outer(y * y, x * x))
        return a_per_px**2 * np.interp(q, self.q, self.value, right=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Diffuse:
    """Single-event deflections on a canvas and the events per Å of path.

    film, thermal : radial densities of one elastic deflection, by the film and by the crystal's thermal motion.
    elastic, ice, inelastic : transforms of the distributions, (ny, nx // 2 + 1), real; below 1 at zero frequency
    where the canvas misses part of the distribution.  per_A : events per Å for "film_elastic", "ice_elastic",
    "film_inelastic", "ice_inelastic", "crystal_inelastic", "thermal".
    """

    film: Radial
    thermal: Radial
    elastic: Array
    ice: Array
    inelastic: Array
    per_A: dict[str, float]

    def in_crystal(self, path: float) -> Array:
        """Transform of the deflections in `path` Å of crystal."""
        return np.exp(path * self.per_A["crystal_inelastic"] * (self.inelastic - 1))

    def in_film_elastic(self, film: float) -> Array:
        """Transform of the film's elastic deflections alone, a factor of `in_support`."""
        return np.exp(film * self.per_A["film_elastic"] * (self.elastic - 1))

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
    shape: tuple[int, int], a_per_px: float, voltage_kv: float, inelastic: float, crystal: Crystal
) -> Diffuse:
    """Tabulate the deflections for a canvas of `shape` pixels of `a_per_px` 1/Å.

    inelastic : factor on the inelastic event rates.  crystal : whose thermal motion scatters.
    """
    qy, qx = (fft.fftfreq(n, 1 / n) * a_per_px for n in shape)
    q = np.hypot(*np.meshgrid(qx, qy))
    scale = _beta2(voltage_kv) / _beta2(200.0)
    rates = {"crystal_inelastic": inelastic / (CRYSTAL_INELASTIC_MFP_A * scale)}
    film, rates["film_elastic"] = _radial(
        partial(layer_elastic, CARBON, voltage_kv=voltage_kv), ELASTIC_LIMIT
    )
    ice, rates["ice_elastic"] = _radial(partial(layer_elastic, ICE, voltage_kv=voltage_kv), ELASTIC_LIMIT)
    thermal, rates["thermal"] = _radial(
        partial(thermal_diffuse, crystal, voltage_kv=voltage_kv), THERMAL_LIMIT
    )
    for name, layer in (("film", CARBON), ("ice", ICE)):
        rates[f"{name}_inelastic"] = inelastic / (layer.inelastic_mfp_A * scale)
    of_film, of_ice = (
        fft.rfft2(a_per_px**2 * np.interp(q, radial.q, radial.value, right=0.0)).real
        for radial in (film, ice)
    )
    lorentz = _plasmon_pixels(q, qx, qy, a_per_px, voltage_kv)
    return Diffuse(film, thermal, of_film, of_ice, fft.rfft2(lorentz).real, rates)


def thermal_diffuse(crystal: Crystal, g: Array, voltage_kv: float) -> Array:
    """Thermal diffuse scattering by g (1/Å) per Å of crystal and per Å^-2 (Einstein; PHYSICS H6), U_eq of every site.

    γ² λ² Σ_j occ_j f_j² (1 - exp(-4π² U_j g²)) / V over the atoms of the cell.
    """
    g = np.asarray(g, float)
    out = np.zeros(g.shape)
    atoms = zip(crystal.elements, crystal.u_iso, crystal.occupancy * crystal.multiplicities, strict=True)
    for element, u, number in atoms:
        f2 = electron_factor(element, 0.5 * g, "lobato") ** 2
        out += number * f2 * -np.expm1(-4 * np.pi**2 * u * g * g)
    return (relativistic_gamma(voltage_kv) * wavelength_A(voltage_kv)) ** 2 / crystal.volume * out


def layer_elastic(layer: Layer, g: Array, voltage_kv: float) -> Array:
    """Elastic scattering by g (1/Å) per Å of layer and per Å^-2: N γ² Σf² λ² S(g) (PHYSICS H5)."""
    structure = 1 + sum(c * np.exp(-0.5 * ((g - centre) / width) ** 2) for centre, width, c in layer.halos)
    f2 = sum(n * electron_factor(atom, 0.5 * np.asarray(g), "lobato") ** 2 for atom, n in layer.formula)
    strength = layer.units_per_A3 * (relativistic_gamma(voltage_kv) * wavelength_A(voltage_kv)) ** 2
    return np.asarray(strength * f2 * structure)


def _radial(density: Callable[[Array], Array], limit: float) -> tuple[Radial, float]:
    """A density over the plane up to `limit` (1/Å), Å² per Å of path, normalised, and its integral, events per Å."""
    q = np.linspace(0, limit, 6001)
    value = density(q)
    total = float(np.trapezoid(2 * np.pi * q * value, q))
    return Radial(q, value / total if total > 0 else value), total


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
