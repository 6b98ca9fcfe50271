"""`nanoed run`: simulate, reduce, refine, then open the envelope with the truth and compare."""

import json
import math
import os
import platform
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

import nanoed
from nanoed.sim.physics.crystal import Crystal, write_cif
from nanoed.sim.physics.files import write_whole
from nanoed.sim.protocol import nominal_alpha_deg
from nanoed.sim.simulate import simulate
from nanoed.sim.spec import Experiment
from nanoed.sim.streams import stream
from nanoed.sim.truth import read_truth
from nanoed.studies.analysis import Analysis, Progress, analyse
from nanoed.studies.artefacts import collect_artefacts
from nanoed.studies.case import Case, Start, crystal_document
from nanoed.studies.clock import Laps
from nanoed.studies.compare import Comparison, compare
from nanoed.studies.folder import placed
from nanoed.studies.report import report
from nanoed.studies.rows import frame_orientations, rows
from nanoed.studies.tables import read_results, write_results

Cell = tuple[float, float, float, float, float, float]
Keep = Literal["results", "reduced", "frames"]
KEPT: Mapping[Keep, tuple[str, ...]] = {
    "results": (),
    "reduced": ("reduced",),
    "frames": ("reduced", "data", "truth"),
}
RESULTS = ("start.cif", "solved", "refined", "figures", "report.html", "timings.csv", "results.csv")
ENTRIES = ("data", "truth", "reduced", *RESULTS, "run.json")  # run.json last: it says that the rest is there


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its folder, the rows of its results and whether they were there already."""

    folder: Path
    results: pd.DataFrame
    reused: bool

    @property
    def ok(self) -> bool:
        return bool((self.results["status"] == "ok").all())


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What the pipeline is told of the truth, on purpose: an approximate cell and a start model."""

    cell: Cell
    model: Crystal


def run_case(
    case: Case,
    out: Path | None = None,
    workers: int = 1,
    keep: Keep = "frames",
    force: bool = False,
    progress: Progress | None = None,
    page: bool = True,
) -> Run:
    """Run a case into `out` (default ./NAME-digest8), whole or not at all; without `page`, no figures and report.

    A folder with the same run key is reused; one that holds anything else is refused without `force`, which
    replaces the files of a run and leaves others alone. What a method could not do is a row of the results.
    Raises InputError for a structure that cannot be read and for a folder that cannot be used.
    """
    out = Path(f"{case.name}-{case.digest[:8]}" if out is None else out).absolute()
    key = case.run_key
    if not force and is_done(out, key, keep):
        return Run(out, read_results(out / "results.csv"), reused=True)
    with placed(out, force, ENTRIES, room_bytes(case.experiment)) as work, threadpool_limits(1):
        _make(case, key, work, workers, keep, progress, page)
    return Run(out, read_results(out / "results.csv"), reused=False)


def room_bytes(experiment: Experiment) -> int:
    """Space that simulated data may need: frames without compression, and as much for the rest."""
    nx, ny = experiment.instrument.detector_px
    return 2 * 4 * nx * ny * len(nominal_alpha_deg(experiment.protocol))


def is_done(out: Path, key: str, keep: Keep) -> bool:
    """Whether `out` holds a complete run of this key with at least the files of `keep`."""
    try:
        record = json.loads((out / "run.json").read_text(encoding="utf-8"))
        same = record["run_key"] == key
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return same and all((out / name).exists() for name in ("results.csv", *KEPT[keep]))


def given(crystal: Crystal, start: Start, seed: int) -> Given:
    """The approximate cell and the start model that an experimenter would have; same seed, same answer."""
    cell = approximate_cell(crystal, start.cell_error_pct, stream(seed, "approximate cell"))
    model = displaced(crystal, start.displacement_A, stream(seed, "start model"))
    if start.occupancies == "random":
        model = random_occupancies(model)
    uniform = np.full(len(crystal.labels), start.u_iso_A2)
    isotropic = np.full_like(crystal.u_ij, math.nan)
    return Given(cell, replace(model, name="start", cell=cell, u_iso=uniform, u_ij=isotropic))


def approximate_cell(crystal: Crystal, error_pct: float, rng: np.random.Generator) -> Cell:
    """The cell with every independent axis `error_pct` too long or too short; angles as they are."""
    signs = rng.choice([-1.0, 1.0], 3)
    for rotation in crystal.rotations:
        for i, j in ((0, 1), (0, 2), (1, 2)):
            if np.array_equal(np.abs(rotation[:, i]), np.eye(3, dtype=int)[j]):
                signs[j] = signs[i]
    a, b, c = (np.array(crystal.cell[:3]) * (1 + 0.01 * error_pct * signs)).tolist()
    return (a, b, c, *crystal.cell[3:])


def displaced(crystal: Crystal, distance_A: float, rng: np.random.Generator) -> Crystal:
    """Every atom moved by `distance_A` in a random direction that its site allows."""
    xyz, moves = crystal.xyz.copy(), {}
    to_frac = np.linalg.inv(crystal.frac_to_cart)
    for i, position in enumerate(crystal.xyz):
        place = tuple(np.round(position % 1.0, 6))
        if place not in moves:
            direction = site_projector(crystal, position) @ rng.standard_normal(3)
            length = np.linalg.norm(direction)
            moves[place] = to_frac @ direction * (distance_A / length if length > 1e-6 else 0.0)
        xyz[i] += moves[place]
    return replace(crystal, xyz=xyz)


def random_occupancies(crystal: Crystal) -> Crystal:
    """Elements that share sites distributed at random: each with the same share of every such site."""
    places = [tuple(np.round(position % 1.0, 6)) for position in crystal.xyz]
    together = {
        place: frozenset(e for e, p in zip(crystal.elements, places, strict=True) if p == place)
        for place in places
    }
    atoms = crystal.multiplicities * crystal.occupancy
    occupancy = crystal.occupancy.copy()
    for elements in {found for found in together.values() if len(found) > 1}:
        mixed = np.array([together[place] == elements for place in places])
        for element in elements:
            own = mixed & (np.array(crystal.elements) == element)
            occupancy[own] = atoms[own].sum() / atoms[mixed].sum()
    return replace(crystal, occupancy=occupancy)


def site_projector(crystal: Crystal, position: np.ndarray) -> np.ndarray:
    """Projection (3, 3) of Cartesian vectors on the directions in which the site is free to move."""
    turned = crystal.rotations @ position + crystal.translations - position
    stays = (np.abs(turned - np.rint(turned)) < 1e-5).all(axis=1)
    mean = crystal.rotations[stays].mean(axis=0)
    return crystal.frac_to_cart @ mean @ np.linalg.inv(crystal.frac_to_cart)


def _make(
    case: Case, key: str, work: Path, workers: int, keep: Keep, progress: Progress | None, page: bool
) -> None:
    """Fill `work` with everything of a run."""
    crystal, laps = case.crystal, Laps()
    experiment = case.experiment.model_copy(update={"structure": crystal.name})
    with laps.stage("simulate"):
        simulate(experiment, crystal, work / "data", work / "truth", workers, progress)
    told = given(crystal, case.start, case.seed)
    solves = case.start.model == "solve"
    if not solves:
        write_cif(told.model, work / "start.cif")
    serial = experiment.protocol.kind == "serial"
    spec = (case.index if serial else case.reduce).model_copy(update={"cell": told.cell})
    start = case.solving if solves else told.model
    analysis = analyse(work / "data", spec, start, case.refine, case.methods, work, workers, progress)
    for ours, theirs in ((laps.wall, analysis.laps.wall), (laps.busy, analysis.laps.busy)):
        ours.update(theirs)
    if progress is not None:
        progress("comparison and report", 0, 1)
    record = _record(case, crystal, key, told, analysis, workers, keep)
    with laps.stage("compare and report"):
        _lay_down(case, crystal, work, analysis, record, page)
    record["core_seconds"] = round(sum(laps.busy.values()), 3)
    _write_json(work / "run.json", record)
    write_whole(work / "timings.csv", laps.csv())
    for name in set(KEPT["frames"]) - set(KEPT[keep]):
        shutil.rmtree(work / name, ignore_errors=True)


def _lay_down(
    case: Case, crystal: Crystal, work: Path, analysis: Analysis, record: dict[str, Any], page: bool
) -> None:
    """Open the envelope: results.csv, run.json and, with `page`, the figures and the report."""
    comparisons = _compare(analysis, crystal)
    truth = read_truth(work / "truth")
    frames = None
    if analysis.reduction is not None:
        frames = frame_orientations(analysis.reduction.virtual.zones, truth, crystal)
    write_results(work / "results.csv", rows(case, crystal, analysis, comparisons, truth, frames))
    _write_json(work / "run.json", record)
    if page:
        collect_artefacts(work, case, analysis, comparisons, truth)
        report(work)


def _compare(analysis: Analysis, crystal: Crystal) -> dict[str, Comparison]:
    return {
        outcome.method: compare(outcome.refinement.crystal, crystal)
        for outcome in analysis.outcomes
        if outcome.refinement is not None
    }


def _record(
    case: Case, crystal: Crystal, key: str, told: Given, analysis: Analysis, workers: int, keep: Keep
) -> dict[str, Any]:
    """What `run.json` holds: the resolved case, what was told of the truth, versions, host, failures."""
    model = crystal_document(told.model) if case.start.model == "displaced" else None
    packages = ("nanoed", "numpy", "scipy", "numba", "gemmi", "pandas", "h5py", "pydantic", "matplotlib")
    return {
        "schema_version": 1,
        "run_key": key,
        "digest": case.digest,
        "case": case.document,
        "structure": crystal_document(crystal),
        "published": case.published_values(),
        "told_of_the_truth": {"cell": told.cell, "start_model": model},
        "failures": {o.method: o.traceback for o in analysis.outcomes if o.traceback},
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "host": {"platform": platform.platform(), "cores": os.cpu_count(), "name": platform.node()},
        "peak_memory_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "workers": workers,
        "keep": keep,
    }


def _version(package: str) -> str:
    return nanoed.__version__ if package == "nanoed" else version(package)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
