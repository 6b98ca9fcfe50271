"""Azimuth of the tilt axis: the right one makes directions between peaks in 3D pile up."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from nanoed.sim.physics.geometry import frame_matrix

Array = NDArray[np.float64]


@nb.njit(cache=True, nogil=True)
def direction_variance(q: Array, alpha: Array, omega: float, longest: float, histogram: Array) -> float:
    """Mean square of the histogram of directions of all difference vectors, over its squared mean.

    q : (n, 3) 1/Å, lab frame, curvature of the Ewald sphere included.  alpha : (n,) rad, stage angle of each.
    omega : rad.  longest : difference vectors beyond it are left out, 1/Å.
    histogram : scratch, (azimuth, z) bins of equal solid angle over the upper half-sphere.
    """
    n = q.shape[0]
    x = np.empty((n, 3))
    co, so = np.cos(omega), np.sin(omega)
    for i in range(n):
        u = co * q[i, 0] + so * q[i, 1]
        v = -so * q[i, 0] + co * q[i, 1]
        ca, sa = np.cos(alpha[i]), np.sin(alpha[i])
        x[i, 0], x[i, 1], x[i, 2] = u, ca * v + sa * q[i, 2], -sa * v + ca * q[i, 2]
    n_azimuth, n_z = histogram.shape
    histogram[:, :] = 0.0
    pairs = 0
    for i in range(n):
        for j in range(i):
            d0, d1, d2 = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
            r2 = d0 * d0 + d1 * d1 + d2 * d2
            if r2 > longest * longest or r2 < 1e-6:
                continue
            if d2 < 0:
                d0, d1, d2 = -d0, -d1, -d2
            a = int((np.arctan2(d1, d0) / (2 * np.pi) + 0.5) * n_azimuth)
            b = int(d2 / np.sqrt(r2) * n_z)
            histogram[min(a, n_azimuth - 1), min(b, n_z - 1)] += 1.0
            pairs += 1
    if pairs == 0:
        return 0.0
    square = 0.0
    for a in range(n_azimuth):
        for b in range(n_z):
            square += histogram[a, b] ** 2
    return square * n_azimuth * n_z / (pairs * float(pairs))


def find_axis(
    q: Array, alpha: Array, nominal: float, half_width: float, longest: float
) -> tuple[float, Array]:
    """Azimuth (rad) that maximises the direction variance, and the search's table (m, 2) azimuth, score.

    Searches nominal ± half_width (rad) in steps of 5°, 1° and 0.1° (C3.4; coarser steps only where the width
    needs them). The Ewald sphere is nearly flat, so the azimuth + 180° (the inverted rotation sense) scores
    almost the same: `indexing` decides between the two.
    """
    histogram = np.zeros((720, 180))
    table: list[tuple[float, float]] = []

    def best(centre: float, width: float, step: float) -> float:
        angles = centre + np.arange(-round(width / step), round(width / step) + 1) * step
        scores = [direction_variance(q, alpha, float(a), longest, histogram) for a in angles]
        table.extend(zip(angles.tolist(), scores, strict=True))
        return float(angles[int(np.argmax(scores))])

    degree = np.pi / 180
    centre = nominal
    if half_width > 10 * degree:
        centre = best(centre, half_width, 5 * degree)
        half_width = 6 * degree
    if half_width > degree:
        centre = best(centre, half_width, degree)
    return best(centre, 1.2 * degree, 0.1 * degree), np.array(sorted(table))


def mean_axis(rotations: Array, alpha: Array, start: float) -> float:
    """Azimuth (rad) of the axis about which the crystal turned on the whole.

    rotations : (n, 3, 3) orientations of the frames.  alpha : (n,) rad, stage angles.  start : rad.
    The azimuth and the common rotation C for which R_z(azimuth) R_x(alpha_i) C is nearest to the rotations. A slow
    second tilt that grows with sin(alpha) is an error of the azimuth and cannot be told from one, so true and found
    orientations are compared by this rule and not by the angle at which the holder was drawn.
    """

    def left(p: Array) -> Array:
        ideal = np.array([frame_matrix(a, 0.0, start + p[0]) for a in alpha])
        between = np.swapaxes(ideal, 1, 2) @ rotations
        common = Rotation.from_matrix(between).mean()
        return (common.inv() * Rotation.from_matrix(between)).as_rotvec().ravel()

    if len(rotations) < 3:
        return start
    return start + float(least_squares(left, np.zeros(1)).x[0])
