"""Nearest points in a plane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]


def nearest(points: Array, queries: Array, k: int, reach: float = np.inf) -> tuple[Array, NDArray[np.int64]]:
    """Distances, indices (n, k) of the k points nearest to each query (n, 2); inf, len(points) for none."""
    distance, index = cKDTree(points).query(queries, k=k, distance_upper_bound=reach)
    shape = (len(queries), k)
    return np.asarray(distance, np.float64).reshape(shape), np.asarray(index, np.int64).reshape(shape)
