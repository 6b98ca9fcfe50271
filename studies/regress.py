"""`nanoed regress`: fixed cases against reference tables, within physical tolerances."""

import csv
import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

import nanoed
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole
from nanoed.studies.analysis import Progress
from nanoed.studies.bench import matrix_product_seconds
from nanoed.studies.case import Case, load_case
from nanoed.studies.folder import refusals
from nanoed.studies.run import run_case
from nanoed.studies.tables import check_words, read_columns

QUICK_CASES = ("brookite-small",)
CASES = (*QUICK_CASES, "brookite-cnrs-01")
SHARE = 0.25
"""Of the standard deviation over seeds that a number may move (`baseline`/spread.csv, from `nanoed study spread`)."""
SLOWER = 0.5
"""Part by which a stage may take longer, in units of this machine's matrix products, than in the reference."""
SPEED_FLOOR = 20.0
"""Stages of less than so many matrix products of 512 x 512 are too short to judge."""
Spread = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Least room of a number: `absolute` in its own unit or `relative`, for the rounding of other machines.

    worse : "higher" or "lower" is worse and the other way is welcome; "either": there is no good side.
    """

    absolute: float
    relative: float
    worse: Literal["higher", "lower", "either"]


TOLERANCES: Mapping[str, Tolerance] = {
    "n_frames": Tolerance(0, 0, "either"),
    "thickness_true_A": Tolerance(0, 1e-6, "either"),  # geometry of the simulated particle
    "coverage_pct": Tolerance(0.1, 0, "lower"),
    "redundancy": Tolerance(0, 0.005, "lower"),
    "r_int_pct": Tolerance(0.05, 0, "higher"),
    "cell_err_pct": Tolerance(0.005, 0, "higher"),
    "orientation_err_deg": Tolerance(0.001, 0, "higher"),
    "n_all": Tolerance(0, 0.005, "either"),
    "n_obs": Tolerance(0, 0.005, "either"),
    "n_par": Tolerance(0, 0, "either"),
    "r_obs_pct": Tolerance(0.02, 0, "higher"),
    "r_all_pct": Tolerance(0.02, 0, "higher"),
    "wr_all_pct": Tolerance(0.05, 0, "higher"),
    "gof": Tolerance(0, 0.005, "either"),
    "av_dist_A": Tolerance(0.0001, 0, "higher"),
    "max_dist_A": Tolerance(0.0002, 0, "higher"),
    "u_rmsd_A2": Tolerance(0.00005, 0, "higher"),
    "pull_rms": Tolerance(0, 0.05, "either"),
    "thickness_A": Tolerance(0, 0.002, "either"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One number of one method: the reference, today's value, and what that means."""

    case: str
    method: str
    column: str
    reference: str
    now: str
    tolerance: float
    verdict: Literal["ok", "better", "slipped"]

    @property
    def slipped(self) -> bool:
        return self.verdict == "slipped"

    def cells(self) -> tuple[str, ...]:
        """The verdict as cells of a table."""
        return (
            *(self.case, self.method, self.column, self.reference, self.now),
            *(f"{self.tolerance:.3g}", self.verdict),
        )

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Found:
    """A fixed case as it is today: the text of its results, and its stages in units of matrix products."""

    text: str
    speed: Mapping[str, float]


def regress(
    baseline: Path, quick: bool, reason: str | None = None, workers: int = 1, progress: Progress | None = None
) -> list[Verdict]:
    """Run the fixed cases and judge them against `baseline`/NAME.csv and NAME-speed.csv.

    A case whose stages were slower, or that makes a reference, is timed twice and has the lesser times: compilation and
    the load of other programs pass.  With a `reason` today's numbers become the reference, and the reason is noted in
    `baseline`/MOVES.md.  Raises InputError, before anything runs, for a reference that is missing or none and for an
    empty reason.
    """
    if reason is not None and not reason.strip():
        raise InputError("a reference moves for a stated reason only", field="--reason", allowed="a sentence")
    names = QUICK_CASES if quick else CASES
    files = {name: baseline / f"{name}.csv" for name in names}
    references = {name: _read(file) for name, file in files.items() if reason is None or file.exists()}
    stages = {name: _read_speed(baseline / f"{name}-speed.csv") for name in names}
    spread = read_spread(baseline / "spread.csv")
    verdicts = []
    for name in names:
        case, speeds = load_case(name), stages[name]
        now = _found(case, workers, progress)
        if reason is not None or any(v.slipped for v in judge_speed(name, speeds, now.speed)):
            again = _found(case, workers, progress).speed
            now = replace(now, speed={stage: min(took, again.get(stage, took)) for stage, took in now.speed.items()})
        if name in references:
            verdicts += judge(name, references[name], rows_of(now.text), spread)
            verdicts += judge_speed(name, speeds, now.speed)
        if reason is not None:
            _update(baseline, case, now, reason.strip(), [v for v in verdicts if v.case == name])
    return verdicts


def judge(
    case: str,
    reference: Mapping[str, Mapping[str, str]],
    now: Mapping[str, Mapping[str, str]],
    spread: Spread,
    share: float = SHARE,
) -> list[Verdict]:
    """A verdict for every status and every number that has a tolerance, method by method.

    reference, now : method -> column -> text as in results.csv. A method or number that is gone has slipped.
    spread : (method, column) -> standard deviation over seeds, of which a number may move by `share`.
    """
    verdicts = []
    for method, old in reference.items():
        new = now.get(method, {})
        same = "ok" if new.get("status") == old.get("status") else "slipped"
        same = "better" if same == "slipped" and new.get("status") == "ok" else same
        verdicts.append(Verdict(case, method, "status", old["status"], new.get("status", ""), 0.0, same))  # type: ignore[arg-type]
        for column, tolerance in TOLERANCES.items():
            if old.get(column):
                room = share * spread.get((method, column), 0.0)
                least = max(tolerance.absolute, tolerance.relative * abs(float(old[column])))
                where = (case, method, column, old[column], new.get(column, ""))
                verdicts.append(_number(*where, max(room, least), tolerance.worse))
    return verdicts


def judge_speed(case: str, reference: Mapping[str, float], now: Mapping[str, float]) -> list[Verdict]:
    """A verdict for every stage of the reference that is long enough to judge."""
    return [
        _number(
            case,
            "",
            f"speed: {stage}",
            f"{old:.0f}",
            f"{now[stage]:.0f}" if stage in now else "",
            SLOWER * old,
            "higher",
        )
        for stage, old in reference.items()
        if old >= SPEED_FLOOR
    ]


def read_spread(path: Path) -> dict[tuple[str, str], float]:
    """Standard deviations over seeds by method and column, from the summary of the study spread; empty without it.

    Raises InputError for a file that is no such summary.
    """
    if not path.exists():
        return {}
    columns = ("method", *(f"{column}_sd" for column in TOLERANCES if f"{column}_sd" in _head(path)))
    table = _numbers(path, columns, "method", "not the summary of the study spread")
    return {
        (str(row["method"]), column.removesuffix("_sd")): float(row[column])
        for row in table.to_dict("records")
        for column in columns[1:]
        if not math.isnan(row[column])
    }


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """A results table (comment lines first) as method -> column -> text."""
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    return {row["method"]: row for row in csv.DictReader(io.StringIO("".join(lines)))}


def _number(
    case: str,
    method: str,
    column: str,
    reference: str,
    now: str,
    allowed: float,
    worse: Literal["higher", "lower", "either"],
) -> Verdict:
    change = (float(now) if now else math.nan) - float(reference)
    verdict: Literal["ok", "better", "slipped"] = "slipped"
    if abs(change) <= allowed:
        verdict = "ok"
    elif worse != "either" and (change < 0) == (worse == "higher") and not math.isnan(change):
        verdict = "better"
    return Verdict(case, method, column, reference, now, allowed, verdict)


def _found(case: Case, workers: int, progress: Progress | None) -> Found:
    """A run of its own of a case, and its stages by the speed of this machine before and after it."""
    with tempfile.TemporaryDirectory(prefix="nanoed-regress-") as folder:
        before = matrix_product_seconds()
        done = run_case(case, Path(folder) / case.name, workers, "results", progress=progress, page=False)
        unit = 0.5 * (before + matrix_product_seconds())
        text = (done.folder / "results.csv").read_text(encoding="utf-8")
        with (done.folder / "timings.csv").open(encoding="utf-8") as file:
            speed = {row["stage"]: float(row["core_seconds"]) / unit for row in csv.DictReader(file)}
    return Found(text, speed)


def _read_speed(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    table = _numbers(path, ("stage", "matrix_products"), "stage", "not the stages of a reference")
    return dict(zip(table["stage"], table["matrix_products"], strict=True))


def _head(path: Path) -> list[str]:
    return [str(column) for column in read_columns(path, (), frozenset(), "not a table", remarks=True).columns]


def _numbers(path: Path, columns: Sequence[str], text: str, wrong: str) -> pd.DataFrame:
    """A table of numbers none of which is negative or infinite, beside one column of text. Raises InputError."""
    table = read_columns(path, columns, {text}, wrong, remarks=True)
    for column in (name for name in columns if name != text):
        bad = table.loc[(table[column] < 0) | (table[column] == math.inf), column]
        if len(bad):
            allowed = "finite numbers from 0"
            raise InputError(wrong, file=path, field=column, value=bad.iloc[0], allowed=allowed)
    return table


def _read(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a reference by method. Raises InputError for a file that is none, or that guards nothing."""
    if not path.is_file():
        allowed = "a folder of reference tables; nanoed regress --update makes them"
        raise InputError("no reference table", file=path, field="--baseline", allowed=allowed)
    wrong, text = "not a reference table, or an older program's: delete it, --update", frozenset(("method", "status"))
    table = read_columns(path, (*text, *TOLERANCES), text, wrong, remarks=True)
    check_words(path, table, wrong)
    if table.empty:
        raise InputError("an empty reference table", file=path, field="--baseline", allowed="a row per method")
    silent = table.loc[(table["status"] == "ok") & ~np.isfinite(table["r_obs_pct"]), "method"]
    if len(silent):
        raise InputError(f"{wrong} ({silent.iloc[0]})", file=path, field="r_obs_pct", value="", allowed="a number")
    return rows_of(path.read_text(encoding="utf-8"))


def _update(baseline: Path, case: Case, now: Found, reason: str, verdicts: list[Verdict]) -> None:
    head = f"# nanoed regress --update; nanoed {nanoed.__version__}; digest {case.digest}\n"
    moved = [f"{v.method} {v.column} {v.reference} -> {v.now}".strip() for v in verdicts if v.verdict != "ok"]
    what = "; ".join(moved) or "nothing beyond the tolerances"
    stages = "".join(f"{stage},{ratio:.1f}\n" for stage, ratio in now.speed.items())
    with refusals(baseline, "--baseline"):
        baseline.mkdir(parents=True, exist_ok=True)
        write_whole(baseline / f"{case.name}.csv", head + now.text)
        write_whole(baseline / f"{case.name}-speed.csv", f"{head}stage,matrix_products\n{stages}")
        with (baseline / "MOVES.md").open("a", encoding="utf-8") as log:
            log.write(
                f"- {case.name}, nanoed {nanoed.__version__}, digest {case.digest[:8]}: {reason} ({what})\n"
            )
