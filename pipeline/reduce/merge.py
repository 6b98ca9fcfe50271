"""Merging in the Laue class: error model, outliers, R_int, redundancy, coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from nanoed.pipeline.reduce.symmetry import Index, representative
from nanoed.pipeline.spec import MergeSpec

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ErrorModel:
    """sigma² -> s_fac² sigma² + s_add² <I>², <I> the mean of the equivalents (C2)."""

    s_fac: float
    s_add: float


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """reflections : h, k, l, I, sigma, n of the unique ones; unmerged: h, k, l, I, sigma (error model applied,
    unless the s.u. are those of the measurements and groups), group, used; errors: the fitted model, which outliers
    are judged by in any case; r_int, cc_half over groups of two and more; redundancy = measurements / unique."""

    reflections: pd.DataFrame
    unmerged: pd.DataFrame
    errors: ErrorModel
    r_int: float
    cc_half: float
    redundancy: float
    n_outliers: int


def merge(measured: pd.DataFrame, rotations: Index, spec: MergeSpec) -> Merged:
    """Merge h, k, l, I, sigma (one row per measured hkl) over the equivalents under `rotations`.

    Outliers: |I - median| above outlier_mad × 1.48 MAD and as many sigmas of the error model, in groups of
    four and more (C7). Weighted means with the sigmas of the error model, or, where spec.errors is "spread", with
    those given, a mean then having the larger of its internal and external s.u.; groups in order of h, k, l.
    """
    table = measured[["h", "k", "l", "I", "sigma"]].reset_index(drop=True)
    unique = representative(table[["h", "k", "l"]].to_numpy(np.int64), rotations)
    keys, group = np.unique(unique, axis=0, return_inverse=True)
    intensity, sigma = table["I"].to_numpy(float), table["sigma"].to_numpy(float)
    used = np.ones(len(table), bool)
    for _ in range(2):
        errors = fit_errors(intensity[used], sigma[used], group[used])
        mean = group_means(intensity, np.ones_like(sigma), group, used)
        scaled = np.sqrt((errors.s_fac * sigma) ** 2 + (errors.s_add * np.maximum(mean, 0)[group]) ** 2)
        used = ~outliers(intensity, scaled, group, spec.outlier_mad)
    by_group = spec.errors == "spread"
    scaled = sigma if by_group else scaled
    weight = np.where(used, scaled**-2, 0.0)
    total = np.bincount(group, weight)
    average = np.bincount(group, weight * intensity) / total
    of_mean = total**-0.5
    if by_group:
        of_mean = np.maximum(of_mean, external_su(intensity - average[group], weight, group, used))
    count = np.bincount(group, used)
    reflections = pd.DataFrame(keys, columns=["h", "k", "l"])
    reflections["I"], reflections["sigma"], reflections["n"] = average, of_mean, count.astype(np.int64)
    table["sigma"], table["group"], table["used"] = scaled, group, used
    return Merged(
        reflections,
        table,
        errors,
        r_int(intensity[used], group[used]),
        cc_half(intensity[used], group[used]),
        float(used.sum() / len(keys)),
        int((~used).sum()),
    )


def group_means(intensity: Array, weight: Array, group: Index, used: NDArray[np.bool_]) -> Array:
    """(groups,) weighted mean intensity of the used members."""
    weight = np.where(used, weight, 0.0)
    return np.bincount(group, weight * intensity) / np.maximum(np.bincount(group, weight), 1e-300)


def external_su(deviation: Array, weight: Array, group: Index, used: NDArray[np.bool_]) -> Array:
    """(groups,) s.u. of a weighted mean by the spread about it, sqrt(Σ w d² / (Σ w (n - 1))); 0 of one alone.

    The external error of a weighted mean (Birge 1932, Phys. Rev. 40, 207).
    """
    n = np.bincount(group, used)
    return np.sqrt(group_means(deviation**2, weight, group, used) / np.maximum(n - 1, 1)) * (n > 1)


def outliers(intensity: Array, sigma: Array, group: Index, threshold: float) -> NDArray[np.bool_]:
    """(n,) True for rejected measurements; never more than a quarter of a group."""
    reject = np.zeros(len(intensity), bool)
    for members in _members(group):
        if len(members) < 4:
            continue
        deviation = np.abs(intensity[members] - np.median(intensity[members]))
        limit = np.maximum(threshold * 1.4826 * np.median(deviation), threshold * sigma[members])
        worst = np.argsort(-deviation, kind="stable")[: len(members) // 4]
        reject[members[worst]] = (deviation > limit)[worst]
    return reject


def fit_errors(intensity: Array, sigma: Array, group: Index) -> ErrorModel:
    """Error model of greatest likelihood for the deviations from the group means (groups of two and more).

    deviation of a member from its group's plain mean has variance (n-1)/n times the member's on average.
    """
    n = np.bincount(group)
    mean = np.bincount(group, intensity) / n
    keep = n[group] > 1
    if keep.sum() < 20:
        return ErrorModel(1.0, 0.0)
    share = 1 - 1 / n[group][keep]
    deviation2 = (intensity - mean[group])[keep] ** 2 / share
    level2, count2 = np.maximum(mean[group][keep], 0) ** 2, sigma[keep] ** 2

    def minus_likelihood(p: Array) -> float:
        variance = np.exp(2 * p[0]) * count2 + np.exp(2 * p[1]) * level2
        penalty = 1e-3 * float((p**2).sum())
        return float((share * (np.log(variance) + deviation2 / variance)).sum()) + penalty

    fit = minimize(minus_likelihood, np.array([0.0, np.log(0.1)]), method="Nelder-Mead",
                   options={"xatol": 1e-4, "fatol": 1e-4, "maxiter": 400})  # fmt: skip
    return ErrorModel(max(1.0, float(np.exp(fit.x[0]))), float(np.exp(fit.x[1])))


def r_int(intensity: Array, group: Index) -> float:
    """Σ_h Σ_i |I_hi - <I_h>| / Σ I_hi over groups of two and more; nan without any."""
    n = np.bincount(group)
    mean = np.bincount(group, intensity) / np.maximum(n, 1)
    keep = n[group] > 1
    total = intensity[keep].sum()
    return float(np.abs(intensity - mean[group])[keep].sum() / total) if total > 0 else float("nan")


def cc_half(intensity: Array, group: Index) -> float:
    """Correlation of the means of the odd and the even members, in list order; nan below three groups."""
    halves = [(intensity[m[0::2]].mean(), intensity[m[1::2]].mean()) for m in _members(group) if len(m) > 1]
    if len(halves) < 3:
        return float("nan")
    return float(np.corrcoef(np.array(halves).T)[0, 1])


def _members(group: Index) -> list[Index]:
    order = np.argsort(group, kind="stable")
    return np.split(order, np.nonzero(np.diff(group[order]))[0] + 1) if len(group) else []
