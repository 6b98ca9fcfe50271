"""The Bloch-wave sum of PHYSICS A2 written out in dense NumPy, for any surface normal: the twin of the kernels."""

import numpy as np
from scipy.special import jv

from nanoed.sim.physics.bloch import PotentialTable
from nanoed.sim.physics.electron import wavenumber


def slab_amplitudes(
    potential: PotentialTable,
    ub: np.ndarray,
    rotation: np.ndarray,
    normal: np.ndarray,
    thickness: float,
    s_max: float | np.ndarray,
    exact: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Beams hkl (n, 3), 000 first, and amplitudes (n,) behind a slab whose surface normal turns with the crystal.

    ub : (3, 3) 1/Å, orientation of the crystal.  rotation : (3, 3) that left-multiplies it.  normal : (3,) along the
    beam, before that rotation.  thickness : Å, along the normal.  s_max : 1/Å, for all beams or for each (n,).
    exact : every beam by itself propagates with k_n = sqrt(K² - |k_t|²), as in multislice; A2 drops γ², a phase of
    π t S² / K, which shows where tails of beams at large S interfere.
    """
    k = wavenumber(potential.voltage_kv)
    beam = np.array([0.0, 0.0, -k])
    g = potential.hkl @ ub.T @ rotation.T
    n = rotation @ normal
    two_ks = k**2 - np.square(beam + g).sum(1)
    near = np.abs(two_ks) <= 2 * k * s_max
    near[0] = True
    g, two_ks, flat = g[near], two_ks[near], potential.flat[near]
    k_n = beam @ n
    m = (1 + g @ n / k_n) ** -0.5
    a = potential.box[flat[:, None] - flat[None, :] + potential.centre, 0] * np.outer(m, m)
    diagonal = two_ks * m**2
    if exact:
        waves = beam + g
        lateral2 = np.square(waves).sum(1) - (waves @ n) ** 2
        diagonal = 2 * k_n * (np.sqrt(k**2 - lateral2) - waves @ n)
    np.fill_diagonal(a, diagonal)
    return potential.hkl[near], m * propagated(a, np.pi * thickness / k_n)


def propagated(a: np.ndarray, length: float) -> np.ndarray:
    """exp(i length A) e_0 of a Hermitian matrix by its Chebyshev series; (n,) complex."""
    diagonal = a.diagonal().real
    radius = np.abs(a).sum(1) - np.abs(diagonal)
    low, high = (diagonal - radius).min(), (diagonal + radius).max()
    middle, half = (low + high) / 2, (high - low) / 2
    x = (a - middle * np.eye(len(a))) / half
    terms = int(half * length + 10 * (half * length) ** (1 / 3)) + 20
    weight = 2 * 1j ** np.arange(terms) * jv(np.arange(terms), half * length)
    before, now = np.eye(len(a), 1)[:, 0].astype(a.dtype), x[:, 0]
    total = 0.5 * weight[0] * before + weight[1] * now
    for w in weight[2:]:
        before, now = now, 2 * (x @ now) - before
        total += w * now
    return np.exp(1j * length * middle) * total
