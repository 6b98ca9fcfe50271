"""One intensity per measured hkl: rocking curves fitted to, or summed over, the frames that saw it (C6)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.orientation import Calculated, Measurements, Model
from nanoed.pipeline.reduce.rocking import RockingShape, rocking_profile

Array = NDArray[np.float64]


LEAST = 0.05  # of the top of its curve: a frame with less of a reflection is not summed


def intensities(
    geometry: Geometry, data: Measurements, model: Model, calculated: Calculated
) -> pd.DataFrame:
    """`summed_intensities` of continuous rotation, whose frames leave no gaps, else `fit_intensities`: a
    precessed curve is sampled too coarsely for sums."""
    make = summed_intensities if geometry.half_sweep > 0 else fit_intensities
    return make(geometry, data, model, calculated)


def summed_intensities(
    geometry: Geometry, data: Measurements, model: Model, calculated: Calculated
) -> pd.DataFrame:
    """Columns of fit_intensities; I = Σ (I_f / k) ΔS / Σ P ΔS over the frames with at least `LEAST` of the top of
    P.

    ΔS is what a frame sweeps, so that the sum over a whole curve is ∫I dS whatever its shape: dynamical curves
    are not those of the model, and only what is missing of a curve is taken from it.
    """
    table = fit_intensities(geometry, data, model, calculated)
    across = np.abs(calculated.by_tilt[:, 0])
    swept = across * np.abs(np.gradient(geometry.alpha) if len(geometry) > 1 else np.ones(1))[data.frame]
    top = np.zeros(data.n_reflections)
    np.maximum.at(top, data.reflection, calculated.p)
    part = np.where(calculated.p >= LEAST * top[data.reflection], swept, 0.0)
    whole = np.maximum(_sums(data, part * calculated.p), 1e-300)
    weight = part / np.exp(model.log_scale)[data.frame]
    return table.assign(
        I=_sums(data, weight * data.intensity) / whole,
        sigma=np.sqrt(_sums(data, (weight * data.sigma) ** 2)) / whole,
    )


def fit_intensities(
    geometry: Geometry, data: Measurements, model: Model, calculated: Calculated
) -> pd.DataFrame:
    """Columns h, k, l, I, sigma, n_frames, recorded; one row per reflection of `data`, in its order.

    I = Σ w k P I_f / Σ w k² P², sigma² = Σ (w k P)² sigma_f² / (Σ w k² P²)². P is normalised in S, so no
    Lorentz
    factor is needed. `recorded`: information on the curve, Σ P² ΔS / ∫P² dS with ΔS the distance between
    neighbouring frames: about 1 for a curve crossed in full, 0 for one just touched.
    """
    hkl = np.zeros((data.n_reflections, 3), np.int64)
    hkl[data.reflection] = data.hkl
    q = np.exp(model.log_scale)[data.frame] * calculated.p
    weight = calculated.weight
    bottom = _sums(data, weight * q * q)
    g_lab = np.einsum("mij,mj->mi", geometry.rotations()[data.frame], data.hkl @ geometry.ub.T)
    g, distance = np.linalg.norm(g_lab, axis=1), np.hypot(*calculated.by_tilt.T)
    spacing = distance * np.abs(np.gradient(geometry.alpha) if len(geometry) > 1 else np.ones(1))[data.frame]
    information = calculated.p**2 * spacing / squared_integral(g, distance, model.shape)
    safe = np.maximum(bottom, 1e-300)
    return pd.DataFrame(
        {
            "h": hkl[:, 0],
            "k": hkl[:, 1],
            "l": hkl[:, 2],
            "I": _sums(data, weight * q * data.intensity) / safe,
            "sigma": np.sqrt(_sums(data, (weight * q * data.sigma) ** 2)) / safe,
            "n_frames": np.bincount(data.reflection, minlength=data.n_reflections),
            "recorded": _sums(data, information),
        }
    )


def squared_integral(g: Array, axis_distance: Array, shape: RockingShape, n: int = 81) -> Array:
    """∫P² dS (1/Å of P in Å: Å) of every reflection, by the trapezoid rule over the curve and six widths."""
    reach = g * shape.semi_angle + axis_distance * shape.half_sweep + 6 * (shape.width + g * shape.mosaicity)
    t = np.linspace(-1, 1, n)
    s = np.outer(reach, t).ravel()
    p, _ = rocking_profile(s, np.repeat(g, n), np.repeat(axis_distance, n), shape)
    return np.trapezoid(p.reshape(-1, n) ** 2, t, axis=1) * reach


def _sums(data: Measurements, values: Array) -> Array:
    return np.bincount(data.reflection, values, minlength=data.n_reflections).astype(np.float64)
