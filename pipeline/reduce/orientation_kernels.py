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
    residual: Array,
    weight: Array,
) -> None:
    """Intensities `full` (n_reflections,) for which I = full q fits best, tied to their family's mean."""
    n, m = reflection.shape[0], full.shape[0]
    n_family = 0
    for h in range(m):
        n_family = max(n_family, family[h] + 1)
    data, model = np.zeros(m), np.zeros(m)
    for i in range(n):
        data[reflection[i]] += intensity[i]
        model[reflection[i]] += q[i]
    for h in range(m):
        full[h] = max(data[h], 0.0) / max(model[h], 1e-300)
    mean, members, share = np.zeros(n_family), np.zeros(n_family), np.zeros(n_family)
    for _ in range(4):
        mean[:], members[:], share[:] = 0.0, 0.0, 0.0
        for h in range(m):
            mean[family[h]] += full[h] * model[h]
            share[family[h]] += model[h]
            members[family[h]] += 1.0
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
        for h in range(m):
            f = family[h]
            if members[f] > 1.0 and mean[f] > 0.0:
                centre = mean[f] / share[f]
                ridge = 1.0 / (spread * centre) ** 2
                top[h] += ridge * centre
                bottom[h] += ridge
            full[h] = max(top[h], 0.0) / max(bottom[h], 1e-300)
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
    normal: Array,
    right: Array,
) -> None:
    """Normal matrix (3F, 3F) and right side of a, b, ln k of all frames with the intensities projected out.

    start : (n_reflections + 1,) first measurement of every reflection.  jacobian : (n, 3).  ridge :
    (n_reflections,)
    """
    for h in range(start.shape[0] - 1):
        first, last = start[h], start[h + 1]
        total = 0.0
        for i in range(first, last):
            total += weight[i] * q[i] * q[i]
        for i in range(first, last):
            for c in range(3):
                row = 3 * frame[i] + c
                right[row] += weight[i] * jacobian[i, c] * residual[i]
                for d in range(3):
                    normal[row, 3 * frame[i] + d] += weight[i] * jacobian[i, c] * jacobian[i, d]
                if total > 0.0:
                    left = weight[i] * q[i] * jacobian[i, c] / total
                    for j in range(first, last):
                        for d in range(3):
                            normal[row, 3 * frame[j] + d] -= left * weight[j] * q[j] * jacobian[j, d]
