"""The blind half of a run: what is handed to the pipeline, and what comes back.

Nothing here knows a Case, a seed or the truth: a data folder, the pipeline's own specs, an approximate cell
and a start model go in.
"""

import json
import math
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from nanoed.pipeline.io.cif_pets import PetsData, read_cif_pets
from nanoed.pipeline.io.hkl import read_hkl
from nanoed.pipeline.io.ins import Cell, read_ins
from nanoed.pipeline.reduce.reduce import Reduction, reduce
from nanoed.pipeline.refine.cells import check_cells, warning
from nanoed.pipeline.refine.dynamical import dynamical_thickness, refine_dynamical, with_thickness_held
from nanoed.pipeline.refine.hand import refine_both_hands
from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.refine.output import write_refinement
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.setting import in_setting_of
from nanoed.pipeline.serial.index import Indexed, index
from nanoed.pipeline.serial.spec import IndexSpec
from nanoed.pipeline.solve.data import read_intensities
from nanoed.pipeline.solve.output import write_solution
from nanoed.pipeline.solve.solve import Solution
from nanoed.pipeline.solve.solve import solve as solve_intensities
from nanoed.pipeline.spec import ReduceSpec, RefineSpec, SolveSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError, InputError, RunawayThicknessError
from nanoed.studies.clock import Laps

AVERAGED = {"kinematical": "merged.hkl", "kinematical-unit": "merged.hkl", "kinematical-nonaveraged": "unmerged.hkl"}
KINEMATICAL_SCALE = 0.01
"""Factor of the potential at which the published frame-based kinematical refinement was done (PHYSICS B)."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one method: a refinement, or why there is none."""

    method: str
    status: str
    message: str = ""
    refinement: Refinement | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Analysis:
    """The reduction (None if it failed), one outcome per method, and how long each stage took."""

    reduction: Reduction | Indexed | None
    outcomes: tuple[Outcome, ...]
    laps: Laps = field(default_factory=Laps)


def analyse(
    data_dir: Path,
    reduce_spec: ReduceSpec | IndexSpec,
    start: Crystal | SolveSpec,
    refine_spec: RefineSpec,
    methods: Iterable[str],
    out_dir: Path,
    workers: int = 1,
    progress: Progress | None = None,
) -> Analysis:
    """Reduce or, with an IndexSpec, index `data_dir` into `out_dir/reduced`; refine `start` by every method into
    `out_dir/refined`.

    The start model takes the reduced cell; a SolveSpec in its place has the structure solved from the reduced
    data, into `out_dir/solved`. A stage that fails becomes the outcome of the methods that needed
    it; only a full or forbidden disk ends the run.
    """
    laps = Laps()
    try:
        with laps.stage("reduce"):
            reduction = _reduced(data_dir, reduce_spec, start, out_dir / "reduced", workers, progress)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        return Analysis(None, tuple(_failure(method, error, "reduction") for method in methods), laps)
    if isinstance(start, SolveSpec):
        try:
            with laps.stage("solve"):
                start = solve(out_dir / "reduced", start, out_dir / "solved", workers, progress).crystal
        except (OSError, MemoryError):
            raise
        except Exception as error:
            return Analysis(reduction, tuple(_failure(method, error, "solution") for method in methods), laps)
    model = replace(start, cell=reduction.geometry.cell)
    outcomes = []
    for method in methods:
        with laps.stage(f"refine {method}"):
            place = out_dir / "refined" / method
            found = outcome(method, out_dir / "reduced", model, refine_spec, place, workers, progress)
        outcomes.append(found)
    return Analysis(reduction, tuple(outcomes), laps)


def _reduced(
    data_dir: Path,
    spec: ReduceSpec | IndexSpec,
    start: Crystal | SolveSpec,
    out_dir: Path,
    workers: int,
    progress: Progress | None,
) -> Reduction | Indexed:
    """The reduction of a tilt series, or the indexing of serial frames in the setting of the start model, if any."""
    if isinstance(spec, IndexSpec):
        model = start if isinstance(start, Crystal) else None
        return index(data_dir, spec, out_dir, workers, progress, model)
    return reduce(data_dir, spec, out_dir, workers, progress)


def outcome(
    method: str,
    reduced: Path,
    model: Crystal,
    spec: RefineSpec,
    out_dir: Path,
    workers: int = 1,
    progress: Progress | None = None,
) -> Outcome:
    """Refine by one method and write the result; an error becomes the outcome's status and message."""
    try:
        refinement = refine(method, reduced, model, spec, workers, progress)
        out_dir.mkdir(parents=True, exist_ok=True)
        write_refinement(refinement, out_dir)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        return _failure(method, error)
    return Outcome(method, "ok", refinement.message, refinement)


def refine(
    method: str,
    reduced: Path,
    model: Crystal,
    spec: RefineSpec,
    workers: int = 1,
    progress: Progress | None = None,
) -> Refinement:
    """Refine `model` against a folder of reduced data, or against one .cif_pets or .hkl file.

    The model takes the cell of the data; a bare .hkl, without reduction.json or .ins beside it, leaves it its own. In
    a folder of reduced data it also takes their indices, where the lattice allows others.
    Raises InputError for a file of the other method and for a model whose cell is not that of the data.
    """
    if (reduced / "merged.hkl").is_file():
        model = in_setting_of(model, read_hkl(reduced / "merged.hkl"))
    if method in AVERAGED:
        path = _file(reduced, method, AVERAGED[method])
        cell = _cell_beside(path)
        if method == "kinematical-unit":
            spec = spec.model_copy(update={"weights": "unit"})
        averaged = refine_kinematical(read_hkl(path), _with_cell(model, cell, path), spec)
        return replace(_noted(averaged, model, cell), method=method)
    path = _file(reduced, method, "frames.cif_pets")
    data = read_cif_pets(path)
    of_either = refine_both_hands if spec.both_hands else refine_dynamical
    make = _kinematical_frames if method == "kinematical-frames" else of_either
    refined = make(data, _with_cell(model, data.cell, path), spec, workers, progress)
    return replace(_noted(refined, model, data.cell), method=method)


def _kinematical_frames(
    data: PetsData, model: Crystal, spec: RefineSpec, workers: int, progress: Progress | None
) -> Refinement:
    """The dynamical refinement with a potential so weak that it is kinematical.

    Dynamical data may fit the better the thicker a kinematical crystal is, whose thickness then runs away; it is held
    where dynamical intensities have it, and the message says so. Other errors are raised as they are.
    """
    weak = {"potential_scale": KINEMATICAL_SCALE, "absorption": 0.0, "refine_absorption": False}
    kinematical = spec.model_copy(update=weak)
    try:
        return refine_dynamical(data, model, kinematical, workers, progress)
    except RunawayThicknessError:
        mean = dynamical_thickness(data, model, spec, workers, progress)
    found = refine_dynamical(data, model, with_thickness_held(kinematical, mean), workers, progress)
    note = f"; kinematical intensities settle on no thickness: held at {mean:.0f} Å, which dynamical ones have"
    return replace(found, message=found.message + note)


def solve(
    reduced: Path, spec: SolveSpec, out_dir: Path, workers: int = 1, progress: Progress | None = None
) -> Solution:
    """Solve the structure of a folder of reduced data, or of a .hkl beside its .ins, and write it."""
    data = read_intensities(reduced, spec)
    solution = solve_intensities(data, spec, workers, progress)
    write_solution(solution, data, spec, out_dir)
    return solution


def _file(reduced: Path, method: str, name: str) -> Path:
    """The file that the method reads; raises InputError where the other method's was given."""
    if reduced.is_dir():
        return reduced / name
    needed = Path(name).suffix
    if reduced.suffix in {".hkl", ".cif_pets"} - {needed}:
        allowed = f"a {needed} file, or the folder of reduced data"
        raise InputError(f"not the file that the {method} method reads", file=reduced, allowed=allowed)
    return reduced


def _with_cell(model: Crystal, cell: Cell | None, data: Path) -> Crystal:
    """The model in the cell of the data, a file; itself without one. Raises InputError for cells that are not one."""
    if cell is None:
        return model
    check_cells(cell, model, data)
    return replace(model, cell=cell)


def _noted(refined: Refinement, model: Crystal, cell: Cell | None) -> Refinement:
    """The refinement with a word on a model whose cell was not quite that of the data."""
    note = "" if cell is None else warning("the model's cell", model.cell, cell)
    return replace(refined, message=refined.message + note) if note else refined


def _cell_beside(hkl: Path) -> Cell | None:
    """Cell of the reduction that merged.hkl is part of, or of the .ins beside a .hkl; None without either."""
    record, instructions = hkl.with_name("reduction.json"), hkl.with_suffix(".ins")
    if hkl.name == "merged.hkl" and record.is_file():
        try:
            found = [float(x) for x in json.loads(record.read_text("utf-8"))["statistics"]["cell"]]
            if not all(map(math.isfinite, found)):
                raise ValueError("not finite")
            a, b, c, alpha, beta, gamma = found
            return a, b, c, alpha, beta, gamma
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError("not the record of a reduction", file=record, field="cell") from error
    return read_ins(instructions).cell if instructions.is_file() else None


def _failure(method: str, error: Exception, stage: str = "") -> Outcome:
    status = "not_converged" if isinstance(error, ConvergenceError) else "failed"
    text = f"{type(error).__name__}: {error}" if not str(error) or status == "failed" else str(error)
    message = f"{stage}: {text}" if stage else text
    return Outcome(method, status, message, traceback="".join(traceback.format_exception(error)))
