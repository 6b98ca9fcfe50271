"""Structure factors and potential coefficients of a crystal, with derivatives, and its lists of reflections.

Sign: F_g = Σ occ f T exp(-2πi g·r), the conjugate of what crystallographic software prints.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.crystal import Crystal, u_matrix
from nanoed.sim.physics.electron import relativistic_gamma
from nanoed.sim.physics.factors import electron_factor

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Complex = NDArray[np.complex128]
SITE_QUANTITIES = ("x", "y", "z", "occupancy", "u_iso", "u11", "u22", "u33", "u12", "u13", "u23")
"""What F can be differentiated by, per site."""


def structure_factors(crystal: Crystal, hkl: IntArray, table: str = "peng") -> Complex:
    """F of reflections (n, 3), Å: (n,). Law: F(-h) = conj F(h)."""
    out = np.zeros(len(hkl), np.complex128)
    for site in range(len(crystal.labels)):
        out += _site_sums(crystal, site, hkl, table, 1)[:, 0]
    return out


def structure_factor_derivatives(
    crystal: Crystal, hkl: IntArray, table: str, jacobian: Array
) -> tuple[Complex, Complex]:
    """F (n,) and its derivatives by p parameters (n, p), Å.

    jacobian : (sites, 11, p) derivative of every site's SITE_QUANTITIES by the parameters; fractional, Å².
    """
    value = np.zeros(len(hkl), np.complex128)
    slope = np.zeros((len(hkl), jacobian.shape[2]), np.complex128)
    for site in range(len(crystal.labels)):
        sums = _site_sums(crystal, site, hkl, table, 1 + len(SITE_QUANTITIES))
        value += sums[:, 0]
        slope += sums[:, 1:] @ jacobian[site]
    return value, slope


def u_g(crystal: Crystal, hkl: IntArray, voltage_kv: float, table: str = "peng") -> Complex:
    """Potential coefficients U_g = γ F_g / (π V), 1/Å²; hkl (n, 3), returns (n,)."""
    return potential_per_factor(crystal, voltage_kv) * structure_factors(crystal, hkl, table)


def potential_per_factor(crystal: Crystal, voltage_kv: float) -> float:
    """γ / (π V), which turns F (Å) into U (1/Å²)."""
    return relativistic_gamma(voltage_kv) / (np.pi * crystal.volume)


def _site_sums(crystal: Crystal, site: int, hkl: IntArray, table: str, columns: int) -> Complex:
    """Contribution of one site to F, and with 12 columns its derivatives by SITE_QUANTITIES; (n, columns)."""
    hkl = np.ascontiguousarray(hkl, dtype=np.int64)
    reciprocal = crystal.reciprocal_basis
    g2 = np.square(hkl @ reciprocal.T).sum(1)
    f = electron_factor(crystal.elements[site], 0.5 * np.sqrt(g2), table)
    share = crystal.multiplicity(site) / len(crystal.rotations)
    aniso = not np.isnan(crystal.u_ij[site]).any()
    lengths = np.linalg.norm(reciprocal, axis=0)
    u_star = u_matrix(crystal.u_ij[site]) * np.outer(lengths, lengths) if aniso else np.zeros((3, 3))
    if not aniso:
        f = f * np.exp(-2 * np.pi**2 * crystal.u_iso[site] * g2)
    out = np.zeros((len(hkl), columns), np.complex128)
    _sum_site(
        hkl,
        g2,
        f * share,
        crystal.occupancy[site],
        crystal.xyz[site],
        u_star,
        lengths,
        crystal.rotations,
        crystal.translations,
        out,
    )
    return out


@nb.njit(cache=True, nogil=True)
def _sum_site(
    hkl: IntArray,
    g2: Array,
    f: Array,
    occupancy: float,
    xyz: Array,
    u_star: Array,
    lengths: Array,
    rotations: IntArray,
    translations: Array,
    out: Complex,
) -> None:
    """f holds the isotropic damping; h' = h R, phase -2π h·(R x + t)."""
    first = np.array([0, 1, 2, 0, 0, 1])
    second = np.array([0, 1, 2, 1, 2, 2])
    h = np.empty(3)
    for i in range(hkl.shape[0]):
        for m in range(rotations.shape[0]):
            phase, damping = 0.0, 0.0
            for b in range(3):
                h[b] = 0.0
                for a in range(3):
                    h[b] += hkl[i, a] * rotations[m, a, b]
                phase += h[b] * xyz[b] + hkl[i, b] * translations[m, b]
            for a in range(3):
                for b in range(3):
                    damping += h[a] * u_star[a, b] * h[b]
            wave = f[i] * np.exp(-2 * np.pi**2 * damping - 2j * np.pi * phase)
            out[i, 0] += occupancy * wave
            if out.shape[1] > 1:
                for a in range(3):
                    out[i, 1 + a] += -2j * np.pi * h[a] * occupancy * wave
                out[i, 4] += wave
                out[i, 5] += -2 * np.pi**2 * g2[i] * occupancy * wave
                for k in range(6):
                    twice = 2.0 if k > 2 else 1.0
                    product = h[first[k]] * h[second[k]] * lengths[first[k]] * lengths[second[k]]
                    out[i, 6 + k] += -2 * np.pi**2 * twice * product * occupancy * wave


def of_the_lattice(crystal: Crystal, hkl: IntArray) -> NDArray[np.bool_]:
    """Which indices are points of the reciprocal lattice of the centred cell; others have no U_g, nor differences.

    hkl : (n, 3).  Returns (n,).
    """
    pure = (crystal.rotations == np.eye(3, dtype=int)).all(axis=(1, 2))
    phase = hkl @ crystal.translations[pure].T
    kept: NDArray[np.bool_] = (np.abs(phase - np.rint(phase)) < 1e-6).all(axis=1)
    return kept


def reflections_within(crystal: Crystal, g_max: float) -> IntArray:
    """All hkl with 0 < |g| <= g_max (1/Å), Friedel mates and absences included, in a fixed order; (n, 3)."""
    limits = np.floor(g_max * np.linalg.norm(crystal.frac_to_cart, axis=0)).astype(int)
    axes = [np.arange(-m, m + 1) for m in limits]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ crystal.reciprocal_basis.T, axis=1)
    return hkl[(length > 0) & (length <= g_max)]


def allowed(crystal: Crystal, hkl: IntArray) -> NDArray[np.bool_]:
    """Reflections (n, 3) that the space group does not extinguish; (n,)."""
    out = np.ones(len(hkl), dtype=bool)
    for rotation, translation in zip(crystal.rotations, crystal.translations, strict=True):
        fixed = (hkl @ rotation == hkl).all(1)
        phase = hkl @ translation
        out &= ~(fixed & (np.abs(phase - np.rint(phase)) > 1e-6))
    return out


def to_unique(crystal: Crystal, hkl: IntArray) -> IntArray:
    """The representative of each reflection's Laue equivalents: the largest (h, k, l); (n, 3)."""
    hkl = np.asarray(hkl, dtype=np.int64)
    images = np.einsum("ni,kij->nkj", hkl, crystal.laue_rotations)
    span = 2 * int(np.abs(images).max(initial=0)) + 1
    code = (images[..., 0] * span + images[..., 1]) * span + images[..., 2]
    return images[np.arange(len(hkl)), code.argmax(1)]


def unique_reflections(crystal: Crystal, g_max: float) -> IntArray:
    """Allowed reflections with |g| <= g_max (1/Å), one of every Laue class of equivalents; (n, 3)."""
    hkl = reflections_within(crystal, g_max)
    return np.unique(to_unique(crystal, hkl[allowed(crystal, hkl)]), axis=0)
