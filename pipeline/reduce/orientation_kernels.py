"""Compiled sums of the orientation refinement: intensities eliminated, normal equations of all frames."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@nb.njit(cache=True, nogil=True)
def eliminate(
    reflection: Index,
    family: Index,
    intensity: Array,
    sigma: Array,
    q: Array,
    q_top: Array,
    noise: float,
    power: float,
    spread: float,
    full: Array,
    ridge: Array,
    residual: Array,
    weight: Array,
) -> None:
    """Intensities `full` (n_reflections,) that fit best, those of a family tied to a common value c.

    Minimised is Σ weight (I - full q)² + Σ ridge (full - c)², ridge = 1 / (spread c)² and 0 for a reflection
    without equivalents, over full and c: c is the mean of the family's untied intensities, each with the
    precision 1 / (1/bottom + 1/ridge).
    """
    n, m = reflection.shape[0], full.shape[0]
    n_family = 0
    for h in range(m):
        n_family = max(n_family, family[h] + 1)
    data, model = np.zeros(m), np.zeros(m)
    for i in range(n):
        data[reflection[i]] += intensity[i]
        model[reflection[i]] += q[i]
    mean, share, members = np.zeros(n_family), np.zeros(n_family), np.zeros(n_family)
    for h in range(m):
        full[h] = max(data[h], 0.0) / max(model[h], 1e-300)
        mean[family[h]] += full[h] * model[h]
        share[family[h]] += model[h]
        members[family[h]] += 1.0
    centre = mean / np.maximum(share, 1e-300)
    for _ in range(4):
        top, bottom = np.zeros(m), np.zeros(m)
        for i in range(n):
            h = reflection[i]
            variance = sigma[i] ** 2 + noise**2 * full[h] ** 2 * q[i] ** (2 - 2 * power) * q_top[i] ** (
                2 * power
            )
            distance = abs(intensity[i] - full[h] * q[i]) / np.sqrt(variance)
            weight[i] = min(1.0, 2.0 / max(distance, 1e-12)) / variance
            top[h] += weight[i] * q[i] * intensity[i]
            bottom[h] += weight[i] * q[i] ** 2
        mean[:], share[:] = 0.0, 0.0
        for h in range(m):
            f = family[h]
            tied = members[f] > 1.0 and centre[f] > 0.0
            ridge[h] = 1.0 / (spread * centre[f]) ** 2 if tied else 0.0
            precision = ridge[h] / max(bottom[h] + ridge[h], 1e-300)
            mean[f] += precision * top[h]
            share[f] += precision * bottom[h]
        for h in range(m):
            f = family[h]
            if share[f] > 0.0:
                centre[f] = max(mean[f] / share[f], 0.0)
            full[h] = max(top[h] + ridge[h] * centre[f], 0.0) / max(bottom[h] + ridge[h], 1e-300)
    for i in range(n):
        residual[i] = intensity[i] - full[reflection[i]] * q[i]


@nb.njit(cache=True, nogil=True)
def normal_equations(
    frame: Index,
    start: Index,
    q: Array,
    jacobian: Array,
    residual: Array,
    weight: Array,
    ridge: Array,
    family: Index,
    normal: Array,
    right: Array,
    shared: Array,
    left_free: Array,
) -> None:
    """Normal matrix (3F, 3F) and right side of a, b, ln k of all frames, intensities projected out.

    start : (n_reflections + 1,) first measurement of every reflection.  jacobian : (n, 3).  ridge, family :
    (n_reflections,) the ties of `eliminate`.  Only the common value of a family is still to be projected out:
    normal -= Σ_f shared_f shared_f^T / left_free_f, shared (n_families, 3F), left_free (n_families,).
    """
    for h in range(start.shape[0] - 1):
        first, last, f = start[h], start[h + 1], family[h]
        bottom = 0.0
        for i in range(first, last):
            bottom += weight[i] * q[i] * q[i]
        total = bottom + ridge[h]
        if total > 0.0:
            left_free[f] += ridge[h] * bottom / total
        for i in range(first, last):
            for c in range(3):
                row = 3 * frame[i] + c
                right[row] += weight[i] * jacobian[i, c] * residual[i]
                for d in range(3):
                    normal[row, 3 * frame[i] + d] += weight[i] * jacobian[i, c] * jacobian[i, d]
                if total > 0.0:
                    left = weight[i] * q[i] * jacobian[i, c] / total
                    shared[f, row] += ridge[h] * left
                    for j in range(first, last):
                        for d in range(3):
                            normal[row, 3 * frame[j] + d] -= left * weight[j] * q[j] * jacobian[j, d]
