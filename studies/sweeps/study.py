"""`nanoed study`: the runs of a grid, their table, and what the analysis makes of it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import nanoed
from nanoed.pipeline.page.html import Table
from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole
from nanoed.studies.folder import alone
from nanoed.studies.settings import nearest
from nanoed.studies.statistics import AS_PUBLISHED
from nanoed.studies.sweeps.analyses import ANALYSES, CHECKS, OF_CASES, OF_MODELS, sites
from nanoed.studies.sweeps.analyses.common import ARITHMETIC, GEOMETRIC, MEAN_IS, MEASURES, derived, means
from nanoed.studies.sweeps.analyses.sites import Models
from nanoed.studies.sweeps.cluster import reach
from nanoed.studies.sweeps.cost import SECONDS, Cost, estimate, machine_speed
from nanoed.studies.sweeps.grid import Extent, Point, Study, load_study, places_of, points_of, study_digest
from nanoed.studies.sweeps.outcome import Outcome, write_outcome
from nanoed.studies.sweeps.shown import page_table
from nanoed.studies.sweeps.store import MARK, Store, check_folder, held
from nanoed.studies.sweeps.sweep import Sweep, results_table, run_points
from nanoed.studies.sweeps.task import run_point
from nanoed.studies.tables import read_many

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Finished:
    """A study that has been run: its page, its table, also as text, what the sweep did and was expected to take."""

    page: Path
    text: str
    results: pd.DataFrame
    sweep: Sweep
    estimate: Mapping[str, float]

    @property
    def failed(self) -> int:
        return int((self.results["status"] != "ok").sum())


@dataclass(frozen=True, slots=True)
class Estimate:
    """A block of a study: runs, those that are there already, and what the others will cost."""

    block: str
    runs: int
    reused: int
    core_hours: float
    kept_MB: float
    scratch_MB: float

    def cells(self) -> tuple[str, ...]:
        """The estimate as cells of a table."""
        numbers = (f"{self.core_hours:.2f}", f"{self.kept_MB:.0f}", f"{self.scratch_MB:.0f}")
        return (self.block, str(self.runs), str(self.reused), *numbers)


def run_study(
    study: Study,
    extent: Extent,
    out: Path,
    workers: int,
    scheduler: str | None,
    tell: Tell,
    runs: Path | None = None,
    task: Callable[..., Any] = run_point,
) -> Finished:
    """Run what is missing of a study into `out`, and write its results, tables, figures and page anew.

    runs : folder of the runs, which studies may share; None: `out`/runs.
    Raises InputError for a case that cannot be, a folder that cannot be used, and a grid that its analysis cannot read;
    all but the last before anything runs.
    """
    points = _points(study, extent)
    analysis = ANALYSES.get(study.analysis)
    if scheduler is not None:
        reach(scheduler, tell)
    each = costs(points)
    _room((runs or out / "runs").absolute(), each, 0 if scheduler else workers)
    with held(out, runs) as store:
        write_whole(out / MARK, study.toml())
        expected = {key: cost.core_seconds for key, cost in each.items()}
        sweep = run_points(points, store, expected, workers, scheduler, tell, task)
        shutil.rmtree(store.scratch, ignore_errors=True)
        header = header_of(study, extent, points)
        text = results_table(points, study.axes, store, sweep.lost)
        write_whole(out / "results.csv", f"# {header}\n{text}")
        results = read_many(out / "results.csv")
        outcome = analysis(results, study.settings) if analysis else Outcome()
        if study.analysis in OF_MODELS:
            outcome = outcome.beside(OF_MODELS[study.analysis](results, _models(points, store)))
        page = _write(outcome, results, study, out, header)
        _write_sweep(out / "sweep.json", points, each, sweep)
    return Finished(page, text, results, sweep, sweep_estimate(each, sweep))


def _room(runs: Path, each: Mapping[str, Cost], cores: int) -> None:
    """Raise InputError where the disk has no room for what new runs leave and for their frames while they last."""
    new = [cost for key, cost in each.items() if not Store(runs).holds(key)]
    scratch = max((cost.scratch_MB for cost in new), default=0.0)
    need = sum(cost.kept_MB for cost in new) + min(cores, len(new)) * scratch
    there = next(folder for folder in (runs, *runs.parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e6
    if need > free:
        raise InputError(
            f"{free:.0f} MB are free", file=there, field="--runs" if there == runs else "--out",
            allowed=f"a disk with {need:.0f} MB for these runs",
        )  # fmt: skip


def page_anew(folder: Path) -> Path:
    """Tables, figures and page of a study once more, from its study.toml and results.csv, by today's analysis.

    A table of refined models, which only the runs have, is taken as it stands. Raises InputError for wrong files.
    """
    study = load_study(str(folder / MARK))
    with _of_file(study):
        _known(study)
    results = read_many(folder / "results.csv")
    with (folder / "results.csv").open(encoding="utf-8") as file:
        header = file.readline().rstrip("\n")
    missing = [axis for axis in ("block", *study.axes) if axis not in results]
    if not header.startswith("# ") or missing:
        raise InputError("not the results of its study.toml", file=folder / "results.csv", field=", ".join(missing))
    ran = set(results[["block", *study.axes]].itertuples(index=False, name=None))
    places = [p for p in places_of(study) if (p.block, *(p.labels.get(axis, "") for axis in study.axes)) in ran]
    if not places:
        raise InputError("not the results of its study.toml", file=folder / "results.csv", field="block")
    with _of_file(study):
        CHECKS[study.analysis](study.settings, study.levels, places)
    with alone(folder.absolute()):
        outcome = ANALYSES[study.analysis](results, study.settings) if study.analysis in ANALYSES else Outcome()
        if study.analysis in OF_MODELS:
            outcome = outcome.beside(sites.again(folder / f"{sites.TABLE}.csv"))
        return _write(outcome, results, study, folder, header.removeprefix("# "))


def estimates(study: Study, extent: Extent, runs: Path) -> list[Estimate]:
    """What each block will cost, without what the folder of runs holds already. Raises InputError."""
    points = _points(study, extent)
    check_folder(runs)
    store, each = Store(runs), costs(points)
    rows, seen = [], set()
    for block in dict.fromkeys(p.block for p in points):
        keys = [p.case.run_key for p in points if p.block == block]
        new = [key for key in dict.fromkeys(keys) if key not in seen and not store.holds(key)]
        seen.update(new)
        hours = sum(each[key].core_seconds for key in new) / 3600
        scratch = max((each[key].scratch_MB for key in new), default=0.0)
        rows.append(
            Estimate(
                block, len(keys), len(keys) - len(new), hours, sum(each[k].kept_MB for k in new), scratch
            )
        )
    return rows


def costs(points: Sequence[Point]) -> dict[str, Cost]:
    """The cost of every run by its key, by the model of `cost` scaled to this machine."""
    speed = machine_speed()
    return {point.case.run_key: estimate(point.case, SECONDS, speed) for point in points}


def header_of(study: Study, extent: Extent, points: Sequence[Point]) -> str:
    """The line above every table: command, version, digest of the grid, key of the sources."""
    how = "" if extent == "default" else f" --{extent}"
    digest = study_digest(study, list(points))
    return f"nanoed study {study.name}{how}; nanoed {nanoed.__version__}; digest {digest[:16]}"


def summary(results: pd.DataFrame, axes: Sequence[str], analysis: str = "summary") -> pd.DataFrame:
    """Means over the seeds of every point and method, as `means` has them; of distances as the analysis has them."""
    geometric = frozenset[str]() if analysis in AS_PUBLISHED else GEOMETRIC
    return means(derived(results), ["block", "case", *axes, "method"], MEASURES, geometric)


def _models(points: Sequence[Point], store: Store) -> Models:
    keys = {point.case.digest: point.case.run_key for point in points}

    def model(digest: str, method: str) -> Crystal | None:
        path = store.place(keys[digest]) / "refined" / method / "refined.cif"
        return read_cif(path) if path.is_file() else None

    return model


def _points(study: Study, extent: Extent) -> list[Point]:
    """The points of a study whose analysis, settings and cases hold; InputError with the file that it comes from."""
    with _of_file(study):
        _known(study)
        points = points_of(study, extent)
        if not points:
            raise InputError("no point of the grid is left", field="block", allowed="a block that is not skipped")
        CHECKS[study.analysis](study.settings, study.levels, points)
        if study.analysis in OF_CASES:
            OF_CASES[study.analysis](study.settings, points)
    return points


def _known(study: Study) -> None:
    if study.analysis not in CHECKS:
        allowed = nearest(study.analysis, CHECKS)
        raise InputError("unknown analysis", field="analysis", value=study.analysis, allowed=allowed)


@contextmanager
def _of_file(study: Study) -> Iterator[None]:
    """Name the user's file in what is wrong with a study."""
    try:
        yield
    except InputError as error:
        if study.file is None:
            raise
        raise InputError(f"{study.file}, {error}") from error


def _write(outcome: Outcome, results: pd.DataFrame, study: Study, out: Path, header: str) -> Path:
    """Tables, figures and page: what the analysis says, what has failed and why, and means of everything."""
    bad = results[results["status"] != "ok"]
    alarms = (f"{len(bad)} of {len(results)} refinements have no result; the table of failures says why.",)
    failures = bad[["block", *study.axes, "case", "seed", "method", "status", "message"]]
    means = summary(results, study.axes, study.analysis)
    mean_is = ARITHMETIC if study.analysis in AS_PUBLISHED else MEAN_IS
    shown = dict(outcome.shown) | {"summary": () if outcome.tables else (page_table(means, _SUMMARY, mean_is),)}
    shown["failures"] = (_shown_failures(failures, study.axes),)
    tables = dict(outcome.tables) | ({"failures": failures} if len(bad) else {}) | {"summary": means}
    titles = dict(outcome.titles) | {"failures": "What failed, and why"}
    titles["summary"] = f"Means of every quantity: {mean_is}"
    whole = Outcome((*_replicates(results), *outcome.remarks), tables, outcome.drawings, shown, titles)
    (out / "failures.csv").unlink(missing_ok=True)
    return write_outcome(whole, out, study.title or study.name, header, alarms if len(bad) else ())


def _shown_failures(failures: pd.DataFrame, axes: Sequence[str]) -> Table:
    """Failed refinements, the levels of their point in one column."""
    point = [
        " ".join([str(row["block"]), *(f"{axis}={row[axis]}" for axis in axes if row[axis] != "")])
        for _, row in failures.iterrows()
    ]
    return page_table(
        failures.assign(point=point), ("point", "case", "seed", "method", "status", "message")
    )


_SUMMARY = ("block", "case", *("runs", "failed", "r_int_pct", "r_obs_pct", "av_dist_A", "max_dist_A", "pull_rms"))


def _replicates(results: pd.DataFrame) -> list[str]:
    """What the intervals rest on."""
    seeds = results.groupby("block", sort=False)["seed"].nunique()
    alone = [str(name) for name in seeds.index[seeds == 1]]
    if len(alone) == len(seeds):
        return ["One seed: every number is of a single simulated experiment, and there is no interval."]
    if alone:
        return [f"One seed in {', '.join(alone)}: there a number is of a single experiment, without an interval."]
    return []


def _write_sweep(path: Path, points: Sequence[Point], costs_: Mapping[str, Cost], sweep: Sweep) -> None:
    """How the runs of this call were made: what was expected and used, and how busy the cores were.

    A call that finds every run there leaves the record of the one that made them.
    """
    if not sweep.made and path.exists():
        return
    share = sweep.busy_share
    record = {
        "runs": len({point.case.run_key for point in points}),
        "reused": sweep.reused,
        "made": len(sweep.made),
        "lost": sweep.lost,
        "cores": sweep.cores,
        "busy_share": None if math.isnan(share) else round(share, 3),
        "estimate": sweep_estimate(costs_, sweep),
        "used": {
            "core_seconds": round(sweep.core_seconds, 1),
            "wall_seconds": round(sweep.wall_seconds, 1),
            "kept_MB": round(sweep.kept_MB, 3),
        },
    }
    write_whole(path, json.dumps(record, indent=1) + "\n")


def sweep_estimate(costs_: Mapping[str, Cost], sweep: Sweep) -> dict[str, float]:
    """What --estimate says of the runs that a sweep has made, on the cores that it had."""
    core_seconds = sum(costs_[key].core_seconds for key in sweep.made)
    return {
        "core_seconds": round(core_seconds, 1),
        "wall_seconds": round(core_seconds / max(sweep.cores, 1), 1),
        "kept_MB": round(sum(costs_[key].kept_MB for key in sweep.made), 3),
    }
