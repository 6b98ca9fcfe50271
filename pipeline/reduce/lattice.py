"""From peaks to the geometry of the series: axis, lattice, centres, distortion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.axis import find_axis
from nanoed.pipeline.reduce.geometry import Geometry, to_reciprocal, to_sample
from nanoed.pipeline.reduce.index import Indexed, index_peaks
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.positions import ellipse_determined, match, refine_positions
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import Nominal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """geometry; fraction of low-angle peaks indexed; scatter: rms of peak positions per axis in pixels;
    matched: (n,) number of peaks of every frame that the lattice explains."""

    geometry: Geometry
    fraction: float
    scatter: float
    matched: NDArray[np.int64]


def find_lattice(nominal: Nominal, peaks: Peaks, centres: Array, spec: ReduceSpec) -> Lattice:
    """Tilt axis near its nominal azimuth (or anywhere), lattice of the given cell, joint refinement."""
    n = nominal.n_frames
    start = Geometry(
        ub=np.eye(3),
        alpha=np.radians(nominal.alpha_deg),
        beta=np.zeros(n),
        omega=np.full(n, np.radians(nominal.axis_azimuth_deg)),
        centres=centres,
        a_per_px=nominal.a_per_px,
        wavelength=wavelength_A(nominal.voltage_kv),
        semi_angle=np.radians(nominal.semi_angle_deg),
        half_sweep=np.radians(nominal.rotation_deg) / 2,
    )
    azimuth, indexed = _index(start, peaks, spec)
    geometry = replace(start, ub=indexed.ub, omega=np.full(n, azimuth))
    ellipse = spec.distortion == "elliptic" and ellipse_determined(spec.laue_class)
    scatter, matched = np.nan, np.zeros(n, np.int64)
    rounds = zip(spec.positions.reach_px, spec.positions.d_star_max, strict=True)
    for reach, d_star_max in rounds:
        found = match(geometry, peaks, min(d_star_max, spec.d_star_max), reach, spec.integration.tail)
        if len(found.frame) < spec.positions.min_peaks:
            raise InputError("the indexed lattice explains hardly any peak", field="cell", value=spec.cell)
        geometry, scatter = refine_positions(geometry, found, spec.laue_class, ellipse, spec.positions)
        matched = np.bincount(found.frame, minlength=n)
    return Lattice(geometry, indexed.fraction, scatter, matched)


def _index(start: Geometry, peaks: Peaks, spec: ReduceSpec) -> tuple[float, Indexed]:
    """Axis azimuth (rad) and lattice; a full search indexes both senses of rotation and keeps the better."""
    q = to_reciprocal(start, peaks.frame, peaks.pixels)
    length = np.linalg.norm(q, axis=1)
    order = np.argsort(length, kind="stable")
    near = order[: spec.axis.n_peaks]
    nominal, width = float(start.omega[0]), np.radians(spec.axis.search_deg)
    azimuth, _ = find_axis(q[near], start.alpha[peaks.frame[near]], nominal, width, spec.axis.d_star_max)
    low = order[: spec.indexing.n_peaks]
    low = low[length[low] < spec.indexing.d_star_max]
    senses = [azimuth, azimuth + np.pi] if spec.axis.search_deg >= 180 else [azimuth]
    found: list[tuple[float, Indexed]] = []
    failure: InputError | None = None
    for omega in senses:
        turned = replace(start, omega=np.full(len(start), omega))
        try:
            found.append(
                (
                    omega,
                    index_peaks(
                        to_sample(turned, peaks.frame[low], q[low]), spec.require_cell(), spec.indexing
                    ),
                )
            )
        except InputError as error:
            failure = error
    if not found:
        assert failure is not None
        raise failure
    return max(found, key=lambda f: (round(f[1].fraction, 2), -f[1].residual))
