"""Difference vectors between peaks in three dimensions, clustered: where many agree, the lattice has a node."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

Array = NDArray[np.float64]


def clustered(x: Array, longest: float, step: float = 0.006) -> tuple[Array, Array]:
    """Places (m, 3) 1/Å of the clusters of all differences of x (n, 3) up to `longest`, and their numbers of
    vectors (m,).

    A cluster is a local maximum of the density of differences, sampled in cubes of `step` and smoothed by as much;
    its number is that of the cubes next to it.
    """
    n = 2 * int(np.ceil(longest / step)) + 1
    density = np.zeros((n, n, n))
    add_differences(np.ascontiguousarray(x), longest, step, density)
    smooth = gaussian_filter(density, 1.0)
    level = max(4 * float(smooth.mean()), 0.5)
    top = np.argwhere((smooth == maximum_filter(smooth, 5)) & (smooth > level))
    inside = ((top > 0) & (top < n - 1)).all(axis=1)
    top = top[inside]
    places, numbers = np.empty((len(top), 3)), np.empty(len(top))
    offsets = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    for m, node in enumerate(top):
        around = node + offsets
        weight = density[tuple(around.T)]
        numbers[m] = weight.sum()
        places[m] = (weight @ around / max(weight.sum(), 1e-9) - n // 2) * step
    return places, numbers


@nb.njit(cache=True, nogil=True)
def add_differences(x: Array, longest: float, step: float, density: Array) -> None:
    """Count x_i - x_j of all ordered pairs, up to `longest`, in the cubes of density (n, n, n) about its middle."""
    middle = density.shape[0] // 2
    for i in range(x.shape[0]):
        for j in range(x.shape[0]):
            d0, d1, d2 = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
            r2 = d0 * d0 + d1 * d1 + d2 * d2
            if 0.0 < r2 <= longest * longest:
                a = int(np.rint(d0 / step)) + middle
                b = int(np.rint(d1 / step)) + middle
                c = int(np.rint(d2 / step)) + middle
                density[a, b, c] += 1.0
