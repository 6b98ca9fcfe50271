"""Peaks that a lattice does not explain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.geometry import Geometry, candidates, predict
from nanoed.pipeline.reduce.neighbours import nearest
from nanoed.pipeline.reduce.peaks import Peaks

Array = NDArray[np.float64]


def explained(
    geometry: Geometry, peaks: Peaks, d_star_max: float, reach_px: float, tail: float
) -> NDArray[np.bool_]:
    """(n,) True for peaks within `reach_px` of a reflection that the lattice predicts on their frame.

    tail : 1/Å, width of the rocking curve.
    """
    hkl = candidates(geometry.ub, d_star_max)
    found = np.zeros(len(peaks), bool)
    for i in range(len(geometry)):
        own = np.nonzero(peaks.frame == i)[0]
        expected = predict(geometry, i, hkl, tail)
        if len(own) and len(expected.hkl):
            distance, _ = nearest(expected.pixels, peaks.pixels[own], 1, reach_px)
            found[own] = np.isfinite(distance[:, 0])
    return found
