"""From still frames of many particles to intensities: the order of the steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.merge import Merged
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.profile import Profile
from nanoed.pipeline.reduce.search import detector_of, search
from nanoed.pipeline.reduce.series import Progress, keep_memory, spread_out
from nanoed.pipeline.reduce.spots import integrate, spot_profile
from nanoed.pipeline.reduce.symmetry import laue_rotations
from nanoed.pipeline.reduce.virtual import VirtualFrames
from nanoed.pipeline.serial.ambiguity import Assigned, resolve
from nanoed.pipeline.serial.intensities import (
    Full,
    Oriented,
    Spots,
    fit_diameters,
    full_intensities,
    levelled,
    recorded,
    refine_tilts,
)
from nanoed.pipeline.serial.lattice import KnownLattice, angles_of, known_lattice, within
from nanoed.pipeline.serial.merging import by_number_of_frames, figures, measurements, merged
from nanoed.pipeline.serial.nodes import Nodes, keys_of_classes, lattice_nodes, setting_of, with_keys
from nanoed.pipeline.serial.orient import (
    Frames,
    Null,
    accepted_chain,
    boxes,
    by_intensity,
    null_distribution,
    observe,
    turned_to,
    verdict,
)
from nanoed.pipeline.serial.output import frame_list, frame_table, statistics_of, write_index
from nanoed.pipeline.serial.patterns import (
    Beam,
    Candidate,
    all_candidates,
    find_scale,
    patterns_of,
    refined_geometry,
    scaled,
)
from nanoed.pipeline.serial.runs import continued
from nanoed.pipeline.serial.spec import IndexSpec
from nanoed.sim.dataset import DataSet, Nominal, open_dataset
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Indexed:
    """Result of `index`.

    geometry : of all frames; angles of those without an orientation are 0.  spots : per oriented frame and
    reflection, columns of spots.integrate.  merged : the unique list.  frames : columns of output.frame_table.
    virtual : the oriented ones in the form of a reduction.  statistics : what reduction.json holds.
    """

    geometry: Geometry
    oriented: Oriented
    profile: Profile
    spots: pd.DataFrame
    measured: pd.DataFrame
    merged: Merged
    frames: pd.DataFrame
    virtual: VirtualFrames
    statistics: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Frames oriented from their peaks.

    candidates, verdict ("" or why not), confidence : of all frames.  oriented, run : of the accepted.
    scatter : of peak positions, pixels.
    """

    geometry: Geometry
    lattice: KnownLattice
    candidates: Sequence[list[Candidate]]
    verdict: list[str]
    confidence: Array
    oriented: Oriented
    run: Index
    frames: Frames
    null: Null
    scatter: float


def index(
    data_dir: str | os.PathLike[str],
    spec: IndexSpec,
    out_dir: str | os.PathLike[str] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    model: Crystal | None = None,
) -> Indexed:
    """Orient every frame on its own, link runs, resolve the ambiguity, integrate and merge; with out_dir write
    the files of a reduction and frames.csv.

    model : a structure whose setting the indices take where the lattice leaves several; nothing else is taken from
    it.  The result does not depend on `workers`. Raises InputError for a data set that cannot be read, frames without
    peaks, and a cell that fits none of them.
    """
    spec.require_cell()
    keep_memory()
    with open_dataset(data_dir) as dataset, threadpool_limits(1):
        if dataset.nominal.protocol != "serial":
            raise InputError(
                "not serial data",
                file=dataset.path,
                field="protocol",
                value=dataset.nominal.protocol,
                allowed="serial; tilt series are reduced",
            )
        result = _indexed(dataset, spec, workers, progress, model)
        if out_dir is not None:
            write_index(out_dir, result, spec, dataset.nominal)
    return result


def _indexed(
    dataset: DataSet, spec: IndexSpec, workers: int, progress: Progress | None, model: Crystal | None
) -> Indexed:
    tell = progress or (lambda stage, done, total: None)
    tell("noise", 0, 1)
    detector = detector_of(dataset, spec.reduction, workers, progress)
    peaks, centres = search(dataset, detector, spec.reduction, workers, progress)
    found = find_orientations(dataset.nominal, peaks, centres, spec, workers, progress)
    tell("ambiguity", 0, 1)
    nodes = with_keys(found.frames.nodes, laue_rotations(spec.reduction.laue_class, spec.spacegroup))
    oriented, assigned = unambiguous(found, nodes, spec, model)
    geometry = placed(found.geometry, oriented)
    tell("profile", 0, 1)
    accepted = oriented.frame.tolist()
    profile = spot_profile(dataset, geometry, detector, spec.reduction, peaks, accepted)
    table = integrate(
        dataset, geometry, profile, detector, spec.reduction, 0.0, peaks, workers, progress, accepted
    )
    tell("merging", 0, 1)
    table, spots = spots_of(table, oriented, nodes)
    oriented, spots, full = refine_all(spots, oriented, nodes, found.run, geometry.wavelength, spec, workers)
    geometry = placed(found.geometry, oriented)
    measured = measurements(spots, oriented, full, nodes, found.run, spec)
    if measured.empty:
        raise InputError("no reflection was recorded", file=dataset.path, field="partiality.min_partiality",
                         value=spec.partiality.min_partiality, allowed="a smaller value")  # fmt: skip
    unique = merged(measured, spec)
    table = table.assign(s=spots.s, partiality=recorded(spots, oriented, spec.partiality))
    frames = frame_table(peaks, geometry, found, oriented, assigned)
    statistics = statistics_of(detector, peaks, geometry, found, oriented, assigned, profile, table, spec)
    statistics |= figures(measured, unique, geometry.ub, spec)
    statistics["by_frames"] = by_number_of_frames(spots, oriented, full, nodes, found.run, geometry.ub, spec)
    return Indexed(geometry, oriented, profile, table, measured, unique, frames, frame_list(frames, table),
                   statistics)  # fmt: skip


def find_orientations(
    nominal: Nominal,
    peaks: Peaks,
    centres: Array,
    spec: IndexSpec,
    workers: int = 1,
    progress: Progress | None = None,
) -> Found:
    """Orientations from peaks alone, still ambiguous; raises InputError where not one frame is accepted."""
    cell = spec.require_cell()
    laue = spec.reduction.laue_class
    reach = spec.d_star_max * (1 + 0.02 * spec.templates.scale_pct)  # until the scale is known
    lattice = known_lattice(cell, laue, spec.spacegroup, reach, spec.metric_tolerance)
    zero, beam = np.zeros(nominal.n_frames), Beam(wavelength_A(nominal.voltage_kv), nominal.a_per_px)
    geometry = Geometry(lattice.basis, zero, zero, zero, centres, beam.a_per_px, beam.wavelength)
    patterns = patterns_of(geometry, peaks)
    lattice = scaled(lattice, lattice.basis * find_scale(patterns, lattice, beam, spec, workers))
    some = spread_out(nominal.n_frames, spec.local.geometry_frames)
    first = all_candidates([patterns[i] for i in some], lattice, beam, spec, workers, progress, "geometry")
    geometry, lattice, scatter = refined_geometry(geometry, peaks, some, patterns, first, lattice, spec)
    lattice, patterns = within(lattice, spec.d_star_max), patterns_of(geometry, peaks)
    candidates = all_candidates(patterns, lattice, beam, spec, workers, progress)
    null = null_distribution(patterns, lattice, beam, spec, workers)
    nodes = lattice_nodes(lattice, spec.spacegroup)
    frames = Frames(patterns, nodes, boxes(geometry, nominal.shape), beam)
    verdicts = [verdict(c, null, spec) for c in candidates]
    usable = np.array([i for i, why in enumerate(verdicts) if not why], np.int64)
    if len(usable) == 0:
        raise InputError("no frame could be oriented", field="cell", value=cell, allowed="right to about 1 %")
    many, owner = by_intensity(frames, usable, candidates, lattice, spec, workers)
    chain, oriented, reasons = accepted_chain(frames, many, owner, usable, candidates, lattice, spec)
    confidence = np.zeros(nominal.n_frames)
    confidence[usable] = chain.confidence
    for i, why in zip(usable, reasons, strict=True):
        verdicts[i] = why
    keep = np.array([not why for why in reasons])
    if not keep.any():
        raise InputError("no frame could be oriented with confidence", field="accept.min_confidence",
                         value=spec.accept.min_confidence, allowed="a smaller value")  # fmt: skip
    _, run = np.unique(chain.run[keep], return_inverse=True)
    oriented = oriented.select(keep)
    oriented = replace(oriented, orientation=continued(oriented.orientation, run, lattice.turns))
    return Found(geometry, lattice, candidates, verdicts, confidence, oriented, run, frames, null, scatter)


def unambiguous(
    found: Found, nodes: Nodes, spec: IndexSpec, model: Crystal | None
) -> tuple[Oriented, Assigned]:
    """The orientations in one indexing for all runs: that in which they agree and, with a model, as in the model."""
    lattice, settings = found.lattice, spec.partiality
    keys = keys_of_classes(lattice, nodes)
    spots = observe(found.frames, found.oriented, spec)
    p = recorded(spots, found.oriented, settings)
    q = p * np.exp(found.oriented.log_scale)[spots.owner]
    run, n_runs = found.run[spots.owner], int(found.run.max()) + 1
    size = n_runs * nodes.n_keys
    top, bottom = np.empty((2, n_runs, lattice.n_classes, nodes.n_keys))
    for c, key in enumerate(keys):
        place = run * nodes.n_keys + key[spots.node]
        top[:, c] = np.bincount(place, q * spots.intensity, size).reshape(n_runs, -1)
        bottom[:, c] = np.bincount(place, q * q, size).reshape(n_runs, -1)
    mate = np.zeros(nodes.n_keys, np.int64)
    mate[nodes.key] = found.frames.nodes.key
    assigned = resolve(top, bottom, mate, spec.ambiguity)
    turns = np.array(
        [lattice.turns[int(np.flatnonzero(lattice.classes == c)[0])] for c in range(lattice.n_classes)]
    )
    oriented = turned_to(found.oriented, turns[assigned.choice][found.run])
    if model is not None and lattice.n_classes > 1:
        spots = observe(replace(found.frames, nodes=nodes), oriented, spec)
        full = full_intensities(spots, oriented, nodes.key, nodes.n_keys, settings)
        c = setting_of(full, keys, nodes, model)
        oriented = turned_to(oriented, np.repeat(turns[c][None], len(oriented), axis=0))
    return oriented, assigned


def refine_all(
    spots: Spots,
    oriented: Oriented,
    nodes: Nodes,
    run: Index,
    wavelength: float,
    spec: IndexSpec,
    workers: int = 1,
) -> tuple[Oriented, Spots, Full]:
    """Tilts, scales, diameters and intensities of integrated spots, each from the others, `rounds` times."""
    settings = spec.partiality
    width = float(np.radians(settings.search_deg))
    for k in range(settings.rounds):
        full = full_intensities(spots, oriented, nodes.key, nodes.n_keys, settings)
        oriented = levelled(refine_tilts(spots, oriented, full, nodes.key, width, settings, workers))
        spots = spots.at(oriented, nodes.g, wavelength)
        if settings.refine_diameter and k < settings.rounds - 1:
            oriented = fit_diameters(spots, oriented, nodes.key, nodes.n_keys, run, settings)
    return oriented, spots, full_intensities(spots, oriented, nodes.key, nodes.n_keys, settings)


def placed(geometry: Geometry, oriented: Oriented) -> Geometry:
    """The geometry with the angles and centres of the oriented frames; UB is the lattice's basis."""
    angles = np.zeros((len(geometry), 3))
    angles[oriented.frame] = [angles_of(o) for o in oriented.orientation]
    centres = geometry.centres.copy()
    centres[oriented.frame] += oriented.shift / geometry.a_per_px * np.array([1.0, -1.0])
    alpha, beta, omega = angles.T
    return replace(geometry, alpha=alpha, beta=beta, omega=omega, centres=centres)


def spots_of(table: pd.DataFrame, oriented: Oriented, nodes: Nodes) -> tuple[pd.DataFrame, Spots]:
    """The rows of reflections that are nodes, frame after frame, and the same as arrays."""
    span = 2 * int(np.abs(nodes.hkl).max()) + 3
    weights = np.array([span * span, span, 1])
    numbers = nodes.hkl @ weights
    order = np.argsort(numbers)
    wanted = table[["h", "k", "l"]].to_numpy(np.int64) @ weights
    place = np.minimum(np.searchsorted(numbers[order], wanted), len(order) - 1)
    hit = numbers[order][place] == wanted
    table, node = table[hit].reset_index(drop=True), order[place][hit]
    frame = table["frame"].to_numpy(np.int64)
    first = np.append(np.searchsorted(frame, oriented.frame), len(frame))
    s, g, intensity, sigma = (table[name].to_numpy(float) for name in ("s", "g", "I", "sigma"))
    spots = Spots(first, node, s, g, np.zeros((len(s), 2)), intensity, sigma)
    row = spots.owner
    g_lab = np.einsum("nij,nj->ni", oriented.orientation[row], nodes.g[node])
    return table, replace(spots, xy=np.ascontiguousarray(g_lab[:, :2]))
