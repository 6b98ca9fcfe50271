"""From a data set to intensities: the order of the steps."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nanoed.pipeline.reduce.calibration import calibrated
from nanoed.pipeline.reduce.curvefit import intensities
from nanoed.pipeline.reduce.deadtime import dead_time, likely
from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.lattice import Lattice, find_lattice
from nanoed.pipeline.reduce.merge import Merged, merge
from nanoed.pipeline.reduce.orientation import (
    Measurements,
    Oriented,
    at_stated_angles,
    evaluate,
    refine_orientations,
)
from nanoed.pipeline.reduce.output import frame_table, rocking_record, statistics_of, write_reduction
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.profile import Profile
from nanoed.pipeline.reduce.rocking import RockingShape
from nanoed.pipeline.reduce.scales import shrunk_scales
from nanoed.pipeline.reduce.search import Detector, detector_of, search
from nanoed.pipeline.reduce.second import SecondLattice, find_second
from nanoed.pipeline.reduce.series import Progress, check_order
from nanoed.pipeline.reduce.spacegroup import SymmetryFound, find_symmetry, lattice_of_metric
from nanoed.pipeline.reduce.spots import integrate, spot_profile
from nanoed.pipeline.reduce.symmetry import (
    absent,
    centring_absent,
    laue_rotations,
    metric_class,
    representative,
)
from nanoed.pipeline.reduce.virtual import VirtualFrames, virtual_frames
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import DataSet, open_dataset
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """Result of `reduce`.

    geometry : refined, orientations included.  spots : per frame and reflection, columns of spots.integrate.
    oriented : orientations, scales and rocking curve of the frames.  merged_as : those that `fitted` has, the same
        but for spec.merge_as_stated.
    fitted : one row per measured hkl, columns of curvefit.  merged : the unique list.
    virtual : frames of dynamical refinement.  frames : columns of output.frame_table.
    statistics : what reduction.json holds.  spec : the settings with the symmetry that was found.
    detector, peaks, lattice, second : what the first pass over the frames found; second: of another particle, or None.
    """

    geometry: Geometry
    oriented: Oriented
    merged_as: Oriented
    profile: Profile
    spots: pd.DataFrame
    fitted: pd.DataFrame
    merged: Merged
    virtual: VirtualFrames
    frames: pd.DataFrame
    statistics: dict[str, Any]
    spec: ReduceSpec
    detector: Detector
    peaks: Peaks
    lattice: Lattice
    second: SecondLattice | None


def reduce(
    data_dir: str | os.PathLike[str],
    spec: ReduceSpec,
    out_dir: str | os.PathLike[str] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    page: bool = False,
) -> Reduction:
    """Reduce a data set; with out_dir write merged.hkl, merged.ins, unmerged.hkl, frames.cif_pets,
    reduction.json, and with `page` reduction.html too.

    Without `cell` in the spec the lattice is found and the crystal taken to have the least symmetry of its system.
    The result does not depend on `workers`. Raises InputError for a data set that cannot be read, frames that
    are not in the order of the stage angle or without peaks, and peaks that the given cell, or none, indexes.
    """
    with open_dataset(data_dir) as dataset, threadpool_limits(1):
        result = _reduced(dataset, spec, workers, progress)
        if out_dir is not None:
            write_reduction(out_dir, result, spec, dataset.nominal)
            if page:
                from nanoed.pipeline.reduce.page.page import write_page

                write_page(out_dir, result, dataset, workers, progress)
    return result


def _reduced(dataset: DataSet, spec: ReduceSpec, workers: int, progress: Progress | None) -> Reduction:
    tell = progress or (lambda stage, done, total: None)
    check_order(dataset)
    tell("noise", 0, 1)
    detector = detector_of(dataset, spec, workers, progress)
    peaks, centres = search(dataset, detector, spec, workers, progress)
    tell("lattice", 0, 1)
    lattice, camera_ratio = calibrated(find_lattice(dataset.nominal, peaks, centres, spec), peaks, spec)
    asked, spec = spec, spec.model_copy(update={"laue": lattice.laue, "spacegroup": lattice.spacegroup})
    blank = lattice.matched < spec.positions.min_peaks
    second = find_second(lattice.geometry, peaks, spec.laue_class, spec)
    tell("profile", 0, 1)
    beside = second.geometry(lattice.geometry) if second else None
    profile = spot_profile(dataset, lattice.geometry, detector, spec, peaks, None, beside)
    margin = np.radians(spec.orientation.margin_deg)
    spots = integrate(
        dataset, lattice.geometry, profile, detector, spec, margin, peaks, workers, progress, None, beside
    )
    detector = with_dead_time(dataset, detector, profile, spots, spec)
    tell("orientations", 0, 1)
    data = measurements(spots[~blank[spots["frame"]]], spec)
    if len(data.frame) == 0:
        raise InputError("no spot on a frame with as many peaks of the lattice", file=dataset.path,
                         field="positions.min_peaks", value=spec.positions.min_peaks,
                         allowed="a smaller value")  # fmt: skip
    oriented = refine_orientations(
        lattice.geometry, data, first_shape(lattice.geometry, spec), spec.orientation
    )
    beside = second.geometry(oriented.geometry) if second else None
    profile = spot_profile(dataset, oriented.geometry, detector, spec, peaks, None, beside, profile)
    spots = integrate(
        dataset, oriented.geometry, profile, detector, spec, 0.0, peaks, workers, progress, None, beside
    )
    spots = spots[~blank[spots["frame"]]].reset_index(drop=True)
    tell("merging", 0, 1)
    data = measurements(spots, spec)
    oriented, scale_part = shrunk_scales(oriented, data, spec.orientation, spec.merging.min_recorded)
    to_merge = oriented
    if spec.merge_as_stated:
        to_merge = at_stated_angles(oriented, lattice.geometry, data, spec.orientation)
    fitted = _fitted(to_merge, spots, spec)
    if fitted.empty:
        raise InputError("no reflection was recorded in full", file=dataset.path,
        field="merging.min_recorded",
                         value=spec.merging.min_recorded, allowed="a smaller value")  # fmt: skip
    symmetry = tested_symmetry(fitted, lattice, spec)
    if asked.laue is None and asked.spacegroup is None and asked.cell is None:
        spec = spec.model_copy(update={"laue": symmetry.laue, "spacegroup": symmetry.spacegroup})
    extinct = absent(fitted[["h", "k", "l"]].to_numpy(np.int64), spec.spacegroup)
    fitted = fitted[~extinct].reset_index(drop=True)
    merged = merge(fitted, laue_rotations(spec.laue_class, spec.spacegroup), spec.merging)
    frames = frame_table(dataset.nominal, peaks, lattice, oriented, blank)
    numbers = statistics_of(dataset.nominal, detector, peaks, lattice, oriented, profile, spots, merged, spec)
    numbers |= symmetry.record() | {
        "camera_length_ratio": camera_ratio,
        "a_per_px": lattice.geometry.a_per_px,
    }
    numbers["scale_part"] = scale_part
    numbers["merged_as_stated"] = rocking_record(to_merge) if spec.merge_as_stated else None
    numbers["second_lattice"] = second.record(oriented.geometry, profile, spec) if second else None
    virtual = virtual_frames(oriented, spots, blank, dataset.nominal, spec.virtual)
    return Reduction(
        oriented.geometry, oriented, to_merge, profile, spots, fitted, merged, virtual, frames, numbers, spec, detector,
        peaks, lattice, second,
    )  # fmt: skip


def _fitted(oriented: Oriented, spots: pd.DataFrame, spec: ReduceSpec) -> pd.DataFrame:
    """Columns of curvefit: one row per hkl that was recorded, those that glides and screws extinguish among them."""
    data = measurements(spots, spec, extinct=True)
    calculated = evaluate(oriented.geometry, data, oriented.model, spec.orientation)
    fitted = intensities(oriented.geometry, data, oriented.model, calculated)
    return fitted[fitted["recorded"] >= spec.merging.min_recorded].reset_index(drop=True)


def tested_symmetry(fitted: pd.DataFrame, lattice: Lattice, spec: ReduceSpec) -> SymmetryFound:
    """Laue class and space groups by the intensities; the lattice is that of the cell's metric where it has no name.

    Of a cell with a unique axis other than b, or rhombohedral axes, only the triclinic class is tested.
    """
    centring = spec.spacegroup[0] if spec.spacegroup else "P"
    bravais = lattice.bravais or lattice_of_metric(lattice.geometry.cell)
    metric = metric_class(spec.laue_class, spec.spacegroup)
    if metric in ("2/m a", "2/m c", "r"):
        bravais, centring = "aP", "P" if metric == "r" else centring
    return find_symmetry(fitted, lattice.geometry.ub, bravais, centring, spec.symmetry)


def with_dead_time(
    dataset: DataSet, detector: Detector, profile: Profile, spots: pd.DataFrame, spec: ReduceSpec
) -> Detector:
    """The detector with the dead time of the settings, else with the likely one by what the spots tell: measured where
    they tell it better than the prior does."""
    if spec.noise.dead_time_us is not None:
        return detector
    nominal = dataset.nominal
    told = dead_time(spots, profile.zone(spots["g"].to_numpy(float)), spec.noise.dead_time_sigma)
    prior = spec.noise.dead_time_prior_us * 1e-6 / nominal.exposure_s
    found, error = (value / nominal.gain for value in likely(*told, prior))
    how = "measured" if told[1] < prior else "assumed"
    return replace(detector, dead_time=found, dead_time_error=error, dead_time_is=how)


def first_shape(geometry: Geometry, spec: ReduceSpec) -> RockingShape:
    """Rocking curve before it is fitted: widths of the spec, nominal precession or rotation."""
    settings = spec.orientation
    width, mosaicity = settings.width, np.radians(settings.mosaicity_deg)
    return RockingShape(width, float(mosaicity), geometry.semi_angle, geometry.half_sweep)


def measurements(spots: pd.DataFrame, spec: ReduceSpec, extinct: bool = False) -> Measurements:
    """Spots of reflections that the space group allows, or, `extinct`, that the centring allows, sorted by reflection,
    families by Laue class."""
    hkl = spots[["h", "k", "l"]].to_numpy(np.int64)
    keep = ~(centring_absent if extinct else absent)(hkl, spec.spacegroup)
    unique, reflection = np.unique(hkl[keep], axis=0, return_inverse=True)
    rotations = laue_rotations(spec.laue_class, spec.spacegroup)
    _, family = np.unique(representative(unique, rotations), axis=0, return_inverse=True)
    order = np.argsort(reflection, kind="stable")
    table = spots[keep].iloc[order]
    return Measurements(
        table["frame"].to_numpy(np.int64),
        reflection[order].astype(np.int64),
        family.astype(np.int64),
        table["I"].to_numpy(float),
        table["sigma"].to_numpy(float),
        hkl[keep][order],
    )


__all__ = ["Detector", "Lattice", "Reduction", "reduce"]
