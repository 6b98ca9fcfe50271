"""`nanoed study`: the runs of a grid, their table, and what the analysis makes of it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import nanoed
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole
from nanoed.studies.folder import alone
from nanoed.studies.settings import nearest
from nanoed.studies.sweeps.analyses import ANALYSES
from nanoed.studies.sweeps.analyses.common import MEASURES, derived, means
from nanoed.studies.sweeps.cost import SECONDS, Cost, estimate, machine_speed
from nanoed.studies.sweeps.grid import Extent, Point, Study, points_of, study_digest
from nanoed.studies.sweeps.outcome import Outcome, csv_text, write_outcome
from nanoed.studies.sweeps.store import MARK, Store, claimed
from nanoed.studies.sweeps.sweep import Sweep, results_table, run_points
from nanoed.studies.sweeps.task import run_point
from nanoed.studies.tables import RESULT_COLUMNS, TEXT_COLUMNS

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Finished:
    """A study that has been run: its page, its table, also as text, and what the sweep did."""

    page: Path
    text: str
    results: pd.DataFrame
    sweep: Sweep

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
    with claimed(out), alone((runs or out / "runs").absolute()):
        write_whole(out / MARK, study.toml())
        store = Store(runs or out / "runs")
        expected = {key: cost.core_seconds for key, cost in costs(points).items()}
        sweep = run_points(points, store, expected, workers, scheduler, tell, task)
        shutil.rmtree(out / ".scratch", ignore_errors=True)
        header = header_of(study, extent, points)
        text = results_table(points, study.axes, store, sweep.lost)
        write_whole(out / "results.csv", f"# {header}\n{text}")
        results = read_study_results(text, study.axes)
        outcome = analysis(results, study.settings) if analysis else Outcome()
        page = _write(outcome, results, study, out, header)
        _write_sweep(out / "sweep.json", sweep, points, expected, store, workers)
    return Finished(page, text, results, sweep)


def estimates(study: Study, extent: Extent, runs: Path) -> list[Estimate]:
    """What each block will cost, without what the folder of runs holds already."""
    points = _points(study, extent)
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


def read_study_results(text: str, axes: Sequence[str]) -> pd.DataFrame:
    """The results of a study: block, axes and text columns as str, the others as float with NaN."""
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    table = pd.read_csv(io.StringIO("".join(lines)), dtype=str, keep_default_na=False)
    for column in table.columns:
        if column not in ("block", *axes) and column in RESULT_COLUMNS and column not in TEXT_COLUMNS:
            table[column] = pd.to_numeric(table[column].where(table[column] != ""), errors="raise").astype(
                float
            )
    return table


def summary(results: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Means over the seeds of every point and method, as `means` has them."""
    return means(derived(results), ["block", "case", *axes, "method"], MEASURES)


def _points(study: Study, extent: Extent) -> list[Point]:
    if study.analysis != "summary" and study.analysis not in ANALYSES:
        allowed = nearest(study.analysis, ["summary", *ANALYSES])
        raise InputError("unknown analysis", field="analysis", value=study.analysis, allowed=allowed)
    points = points_of(study, extent)
    if not points:
        raise InputError("no point of the grid is left", field="block", allowed="a block that is not skipped")
    return points


def _write(outcome: Outcome, results: pd.DataFrame, study: Study, out: Path, header: str) -> Path:
    bad = results[results["status"] != "ok"]
    alarms = (f"{len(bad)} of {len(results)} refinements have no result; their rows of results.csv say why.",)
    table = summary(results, study.axes)
    whole = Outcome(outcome.remarks, {**outcome.tables, "summary": table}, outcome.drawings)
    write_whole(
        out / "failures.csv",
        csv_text(bad[["block", *study.axes, "case", "seed", "method", "status", "message"]], header),
    )
    return write_outcome(whole, out, study.title or study.name, header, alarms if len(bad) else ())


def _write_sweep(
    path: Path, sweep: Sweep, points: Sequence[Point], expected: dict[str, float], store: Store, workers: int
) -> None:
    """How the runs were made: what was expected and used, and how busy the workers were."""
    keys = dict.fromkeys(p.case.run_key for p in points)
    used = {key: store.core_seconds(key) for key in keys if store.holds(key)}
    record = {
        "runs": len(keys),
        "reused": sweep.reused,
        "made": sweep.made,
        "lost": sweep.lost,
        "workers": workers,
        "wall_seconds": round(sweep.wall_seconds, 1),
        "core_seconds": round(sweep.core_seconds, 1),
        "expected_core_seconds_of_all": round(sum(expected[key] for key in used), 1),
        "core_seconds_of_all": round(sum(used.values()), 1),
    }
    if sweep.wall_seconds > 0 and workers > 0:
        record["busy_share"] = round(
            sweep.core_seconds / sweep.wall_seconds / min(workers, max(sweep.made, 1)), 3
        )
    write_whole(path, json.dumps(record, indent=1) + "\n")
