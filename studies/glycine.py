"""Measured peaks of PETS2's glycine project: lattice, orientation and indices against those that PETS2 found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.cif_pets import read_cif_pets, zone_axes
from nanoed.pipeline.io.tiff_pets import ORIGIN_PX, read_pts
from nanoed.pipeline.reduce.geometry import cell_of, to_reciprocal, to_sample
from nanoed.pipeline.reduce.index import refined
from nanoed.pipeline.reduce.lattice import Lattice, find_lattice
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import Nominal
from nanoed.sim.physics.errors import InputError
from nanoed.studies.findings import Finding

Array = NDArray[np.float64]
FOLDER = "glycine_pets"
DETECTOR_PX = (516, 516)  # of 00001.tiff
CENTROID_PX = 0.1  # uncertainty of a coordinate that the list gives to 0.001
SPEC = ReduceSpec.model_validate({"distortion": "none", "d_star_max": 1.8, "axis": {"search_deg": 180.0}})
"""No cell, no symmetry, no axis; PETS2 corrected no distortion there either. d_star_max: dstarmax of the .pts file."""


@dataclass(frozen=True, slots=True, eq=False)
class Glycine:
    """lattice : as found blind from the peaks.  ub : (3, 3) 1/Å, least squares on the peaks' places in three dimensions
    with one centre and one azimuth for all frames, the way PETS2 makes its cell.  fraction : of the peaks indexed."""

    lattice: Lattice
    ub: Array
    fraction: float


def read_peaks(folder: Path) -> tuple[Nominal, Peaks]:
    """Nominal values of glycine.pts, and pixel peaks, intensities and frames of glycine.rpl. Raises InputError."""
    said, _ = read_pts(folder / "glycine.pts")
    rows = _table(folder / "glycine.rpl", 12)
    names = ("voltage_kv", "a_per_px", "centre_px", "axis_azimuth_deg", "protocol", "semi_angle_deg",
             "rotation_deg", "saturation", "gain")  # fmt: skip
    values = {name: said[name] for name in names}
    nominal = Nominal(shape=DETECTOR_PX, pixel_size_um=55.0, exposure_s=1.0,
                      alpha_deg=np.array(said["alpha_deg"]), **values)  # fmt: skip
    frame = rows[:, 11].astype(np.int64) - 1
    sigma = np.full(len(rows), CENTROID_PX)
    return nominal, Peaks(frame, rows[:, 7:9] - ORIGIN_PX, rows[:, 3], rows[:, 3], sigma)


def _table(path: Path, columns: int) -> Array:
    try:
        return np.loadtxt(path, usecols=range(columns), ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError("not a list of peaks", file=path, value=str(error)[:60]) from error


def reduce_peaks(nominal: Nominal, peaks: Peaks) -> Glycine:
    """Lattice, sense and axis from pixel peaks and stage angles alone."""
    centres = np.tile(nominal.centre_px, (nominal.n_frames, 1))
    lattice = find_lattice(nominal, peaks, centres, SPEC)
    n = nominal.n_frames
    one = replace(lattice.geometry, centres=np.tile(np.median(lattice.geometry.centres, axis=0), (n, 1)),
                  omega=np.full(n, np.median(lattice.geometry.omega)))  # fmt: skip
    x = to_sample(one, peaks.frame, to_reciprocal(one, peaks.frame, peaks.pixels))
    longest = float(np.linalg.norm(np.linalg.inv(one.ub), axis=1).max())
    found = None
    for _ in range(3):
        found = refined(x, one.ub if found is None else found.ub, SPEC.indexing.tolerance / longest)
        if found is None:
            raise InputError("the peaks lie in a plane", field="glycine.rpl", value=len(x))
    assert found is not None
    return Glycine(lattice, found.ub, found.fraction)


def same_basis(ub: Array, reference: Array) -> Array:
    """ub (3, 3) with the reference's choice of axes: the whole-number change of basis that brings it nearest."""
    change = np.round(np.linalg.inv(reference) @ ub)
    return np.asarray(ub @ np.linalg.inv(change), np.float64)


def figures(folder: Path) -> Iterator[Finding]:
    """What the issue asks of this data set. Raises InputError where its files are missing."""
    found = reduce_peaks(*read_peaks(folder))
    theirs = read_cif_pets(folder / "glycine.cif_pets")
    ub = same_basis(found.ub, theirs.ub)
    cell, other = np.array(cell_of(ub)), np.array(theirs.cell)
    source = "PETS2's glycine.cif_pets"

    def figure(
        quantity: str, value: float, relation: str = "", limit: float | None = None, by: str = source
    ) -> Finding:
        return Finding("glycine", quantity, value, relation, limit, by)

    yield figure(
        "largest difference of a length / %", float(100 * np.abs(cell / other - 1)[:3].max()), "<=", 0.5
    )
    yield figure("largest difference of an angle / deg", float(np.abs(cell - other)[3:].max()), "<=", 0.5)
    xyz = _table(folder / "glycine.xyz", 3)
    share = indexed(xyz, ub, 0.2)
    yield figure("peaks of glycine.xyz indexed within 0.2 / %", 100 * share, ">=", 95.0, "glycine.xyz")
    theirs_share = indexed(xyz, theirs.ub, 0.2)
    yield figure("the same by PETS2's UB / %", 100 * theirs_share, by="glycine.xyz")
    yield figure("pixel peaks indexed blind / %", 100 * found.fraction, by="glycine.rpl")
    yield figure("monoclinic primitive", float(found.lattice.bravais == "mP"), "==", 1.0, "alpha-glycine")
    yield figure("stage turns as said", float(not found.lattice.reversed), "==", 1.0)
    omega = np.degrees(np.median(found.lattice.geometry.omega)) - theirs.zones["omega"].median()
    yield figure("azimuth of the axis less PETS2's / deg", float((omega + 180) % 360 - 180))
    angle = np.degrees(np.arccos(np.clip(np.sum(_unit(ub) * _unit(theirs.ub), axis=0), -1, 1)))
    yield figure("largest angle between an axis of UB and PETS2's / deg", float(angle.max()), "<=", 0.5)
    off = zone_angles_deg(ub, theirs.ub, theirs.zones)
    yield figure("largest angle between a zone axis and PETS2's / deg", float(off.max()), "<=", 0.5)


def indexed(x: Array, ub: Array, within: float) -> float:
    """Share of the vectors x (n, 3) 1/Å whose three indices are all within this of whole numbers."""
    h = x @ np.linalg.inv(ub).T
    return float((np.abs(h - np.round(h)).max(axis=1) < within).mean())


def zone_angles_deg(ub: Array, reference: Array, zones: pd.DataFrame) -> Array:
    """Angles (n,) in the crystal between the zone axes by `ub` at the zones' angles and those listed in the zones."""
    ours = zone_axes(ub, zones) @ np.linalg.inv(reference)
    listed = zones[["u", "v", "w"]].to_numpy(float) @ np.linalg.inv(reference)
    cosine = (ours * listed).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(listed, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _unit(ub: Array) -> Array:
    return ub / np.linalg.norm(ub, axis=0)
