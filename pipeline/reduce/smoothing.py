"""How much of a tilt's spread is drift, jitter or error: the prior of the last cycles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

DRIFT_DEG = (0.02, 0.05, 0.1, 0.2, 0.4)
LENGTH_DEG = (10.0, 20.0, 40.0, 80.0)
JITTER_DEG = (0.0, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.12, 0.2)
COMMON_DEG = 1.0
STRAY = 6.0
"""Standard deviations, by the median over the frames, from what the others predict: none is that far by chance."""
LOST_DEG = 10.0
"""Error given to the tilt of a stray: it then says nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Smoothing:
    """Chosen model: covariance (n, n) rad²; drift, jitter in degrees rms; length of the drift in degrees."""

    covariance: Array
    drift_deg: float
    length_deg: float
    jitter_deg: float


def choose_smoothing(alpha: Array, tilts: Array, covariance: Array) -> Smoothing:
    """The drift and jitter that make the estimated tilts most likely.

    alpha : (n,) rad stage angles.  tilts : (n,) rad estimates with error `covariance` (n, n).
    Model: tilt = common rotation of the crystal (1, cos alpha, sin alpha, each COMMON_DEG) + Gaussian process
    of rms `drift` and correlation length `length` in alpha + independent jitter; the marginal likelihood
    N(tilts; 0, model + covariance) decides, on the grids of this module (they span PHYSICS H7).
    """
    degrees = np.degrees(alpha)
    distance2 = (degrees[:, None] - degrees[None, :]) ** 2
    basis = np.column_stack([np.ones_like(alpha), np.cos(alpha), np.sin(alpha)])
    common = np.radians(COMMON_DEG) ** 2 * basis @ basis.T
    identity = np.eye(len(alpha))
    best: tuple[float, Smoothing] | None = None
    for drift, length, jitter in product(DRIFT_DEG, LENGTH_DEG, JITTER_DEG):
        smooth = np.radians(drift) ** 2 * np.exp(-0.5 * distance2 / length**2)
        model = common + smooth + np.radians(max(jitter, 0.002)) ** 2 * identity
        total = np.linalg.cholesky(model + covariance)
        white = np.linalg.solve(total, tilts)
        score = -0.5 * float(white @ white) - float(np.log(np.diag(total)).sum())
        if best is None or score > best[0] + 1e-9:
            best = score, Smoothing(model, drift, length, jitter)
    assert best is not None
    return best[1]


def without_strays(alpha: Array, tilts: Array, covariance: Array) -> tuple[Smoothing, Array]:
    """`choose_smoothing` of the frames that agree, and the tilts (n,) with strays put where the others predict them.

    A stray is a false minimum of the intensities of one frame, mostly near a zone axis. It is told by its residual when
    left out (Rasmussen & Williams 2006, eq. 5.12) and taken for unknown, the worst one at a time.
    """
    tilts, error = np.array(tilts), np.array(covariance)
    found = choose_smoothing(alpha, tilts, error)
    for _ in range(len(tilts) // 4):
        precision = np.linalg.inv(found.covariance + error)
        own = np.diag(precision)
        away = precision @ tilts / own
        distance = np.abs(away) * np.sqrt(own)
        worst = int(np.argmax(distance))
        if distance[worst] < STRAY * 1.4826 * np.median(distance):
            break
        tilts[worst] -= away[worst]
        error[worst, worst] += np.radians(LOST_DEG) ** 2
        found = choose_smoothing(alpha, tilts, error)
    return found, tilts
