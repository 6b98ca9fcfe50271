"""The camera length from a reference cell: the one scale that diffraction alone cannot tell from the cell's
(C3.6)."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np

from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.lattice import Lattice
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.positions import match, refine_positions
from nanoed.pipeline.reduce.symmetry import metric_class
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.physics.errors import InputError

LARGEST = 0.2  # relative error of a camera length beyond which it is the wrong cell


def camera_ratio(cell: tuple[float, ...], reference: tuple[float, ...]) -> float:
    """Found over reference lengths, their geometric mean, with the axes in the order that makes the three agree best.

    cell, reference : Å and degrees. Raises InputError where the ratios of the lengths differ by more than 3 % or the
    camera length would be a fifth off: then it is another lattice.
    """
    ratios = np.array([np.array(cell[:3]) / np.array(reference)[list(p)] for p in permutations(range(3))])
    best = ratios[int(np.argmin(ratios.max(axis=1) / ratios.min(axis=1)))]
    ratio = float(np.exp(np.log(best).mean()))
    if best.max() / best.min() > 1.03 or abs(ratio - 1) > LARGEST:
        raise InputError("the lattice found is not that of the reference cell", field="reference_cell",
                         value=tuple(round(c, 4) for c in reference),
                         allowed="the shape of " + ", ".join(f"{c:.3f}" for c in cell[:3]) + " Å")  # fmt: skip
    return ratio


def calibrated(lattice: Lattice, peaks: Peaks, spec: ReduceSpec) -> tuple[Lattice, float]:
    """The lattice on the scale of `spec.reference_cell`, and true over nominal 1/Å per pixel; as it is, and 1,
    without.

    1/Å per pixel and UB grow together, and the positions are refined once more, for the curvature of the Ewald
    sphere does not. Raises InputError where the cells do not agree in shape.
    """
    if spec.reference_cell is None:
        return lattice, 1.0
    metric = metric_class(lattice.laue, lattice.spacegroup)
    total, geometry, scatter = 1.0, lattice.geometry, lattice.scatter
    for _ in range(2):
        ratio = camera_ratio(geometry.cell, spec.reference_cell)
        total *= ratio
        geometry = replace(geometry, ub=geometry.ub * ratio, a_per_px=geometry.a_per_px * ratio)
        geometry, scatter = _again(geometry, peaks, metric, spec)
    return replace(lattice, geometry=geometry, scatter=scatter), total


def _again(geometry: Geometry, peaks: Peaks, laue: str, spec: ReduceSpec) -> tuple[Geometry, float]:
    limit = min(spec.positions.d_star_max[-1], spec.d_star_max)
    found = match(geometry, peaks, limit, spec.positions.reach_px[-1], spec.integration.tail)
    ellipse, higher = spec.distortion != "none", spec.distortion == "full"
    return refine_positions(geometry, found, laue, ellipse, higher, spec.positions)
