"""Rocking-curve profile P(S): intrinsic width averaged over a precession circle or a rotation sweep."""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LOG4 = 2 * np.log(2.0)


@dataclass(frozen=True, slots=True)
class RockingShape:
    """Parameters of the rocking curve.

    width : Lorentzian half width at half maximum, 1/Å ("RC width": finite size).
    mosaicity : rad, Gaussian standard deviation of S is mosaicity |g|.
    semi_angle : rad, precession.  half_sweep : rad, half the rotation during a frame.
    """

    width: float
    mosaicity: float
    semi_angle: float
    half_sweep: float = 0.0


def rocking_profile(s: Array, g: Array, axis_distance: Array, shape: RockingShape) -> tuple[Array, Array]:
    """P(S) in Å and dP/dS in Å² for reflections at S, |g|, distance from the rotation axis (n,), all 1/Å.

    ∫P dS = 1. Intrinsic profile: pseudo-Voigt (Thompson, Cox & Hastings 1987) of Lorentzian HWHM `width` and
    Gaussian sigma `mosaicity` |g|. Precession averages it over S + |g| semi_angle cos ψ (the "camel"; closed
    form for a Lorentzian in Palatinus et al. 2019), rotation over S ± axis_distance half_sweep.
    """
    p, slope = np.empty(len(s)), np.empty(len(s))
    half = axis_distance * shape.half_sweep
    _profile(np.ascontiguousarray(s), g * shape.semi_angle, half, shape.width, g * shape.mosaicity, p, slope)
    return p, slope


@nb.njit(cache=True, nogil=True)
def _profile(s: Array, reach: Array, half: Array, width: float, gauss: Array, p: Array, slope: Array) -> None:
    for i in range(s.shape[0]):
        fl = 2.0 * width
        fg = 2.3548200450309493 * gauss[i]
        f = (fg**5 + 2.69269 * fg**4 * fl + 2.42843 * fg**3 * fl**2 + 4.47163 * fg**2 * fl**3
             + 0.07842 * fg * fl**4 + fl**5) ** 0.2  # fmt: skip
        q = fl / f
        eta = 1.36603 * q - 0.47719 * q * q + 0.11116 * q * q * q
        hw = 0.5 * f
        span = reach[i] if reach[i] > 0.0 else half[i]
        n = 1
        if span > 0.0:
            n = min(512, 8 + int(6.0 * span / f))
        total, change = 0.0, 0.0
        for k in range(n):
            if reach[i] > 0.0:
                x = s[i] + reach[i] * np.cos(np.pi * (k + 0.5) / n)
            else:
                x = s[i] + half[i] * (2.0 * (k + 0.5) / n - 1.0)
            u = x / hw
            lorentz = 1.0 / (np.pi * hw * (1.0 + u * u))
            gaussian = np.exp(-np.log(2.0) * u * u) * np.sqrt(np.log(2.0) / np.pi) / hw
            total += eta * lorentz + (1.0 - eta) * gaussian
            change += -eta * lorentz * 2.0 * u / (hw * (1.0 + u * u)) - (1.0 - eta) * gaussian * LOG4 * u / hw
        p[i] = total / n
        slope[i] = change / n
