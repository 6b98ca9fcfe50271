"""`nanoed regress`: fixed cases against reference tables, within physical tolerances."""

import csv
import io
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import nanoed
from nanoed.sim.physics.errors import InputError
from nanoed.studies.analysis import Progress
from nanoed.studies.case import Case, load_case
from nanoed.studies.folder import refusals
from nanoed.studies.run import run_case

QUICK_CASES = ("brookite-small",)
CASES = (*QUICK_CASES, "brookite-cnrs-01")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may move: `absolute` in its own unit or `relative`, whichever is larger.

    worse : "higher" or "lower" is worse and the other way is welcome; "either": there is no good side.
    """

    absolute: float
    relative: float
    worse: Literal["higher", "lower", "either"]


# Absolute ones: room for the rounding of other compilers and libraries, below what a user would notice.
TOLERANCES: Mapping[str, Tolerance] = {
    "n_frames": Tolerance(0, 0, "either"),
    "thickness_true_A": Tolerance(0, 1e-6, "either"),  # geometry of the simulated particle
    "coverage_pct": Tolerance(0.5, 0, "lower"),
    "redundancy": Tolerance(0, 0.02, "lower"),
    "r_int_pct": Tolerance(0.5, 0, "higher"),
    "cell_err_pct": Tolerance(0.05, 0, "higher"),
    "orientation_err_deg": Tolerance(0.01, 0.1, "higher"),
    "n_all": Tolerance(0, 0.02, "either"),
    "n_obs": Tolerance(0, 0.02, "either"),
    "n_par": Tolerance(0, 0, "either"),
    "r_obs_pct": Tolerance(0.2, 0, "higher"),
    "r_all_pct": Tolerance(0.2, 0, "higher"),
    "wr_all_pct": Tolerance(0.5, 0, "higher"),
    "av_dist_A": Tolerance(0.0003, 0.05, "higher"),
    "max_dist_A": Tolerance(0.0006, 0.05, "higher"),
    "u_rmsd_A2": Tolerance(0.0002, 0.05, "higher"),
    "pull_rms": Tolerance(0, 0.2, "either"),
    "thickness_A": Tolerance(0, 0.02, "either"),
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


def regress(
    baseline: Path, quick: bool, reason: str | None = None, workers: int = 1, progress: Progress | None = None
) -> list[Verdict]:
    """Run the fixed cases and judge them against `baseline`/NAME.csv.

    With a `reason` today's numbers become the reference, and the reason is noted in `baseline`/MOVES.md.
    Raises InputError for a missing reference and for an empty reason.
    """
    if reason is not None and not reason.strip():
        raise InputError("a reference moves for a stated reason only", field="--reason", allowed="a sentence")
    names = QUICK_CASES if quick else CASES
    if reason is None:
        for name in names:
            _read(baseline / f"{name}.csv")
    verdicts = []
    for name in names:
        case = load_case(name)
        text = _results(case, workers, progress)
        now, file = rows_of(text), baseline / f"{name}.csv"
        verdicts += judge(name, _read(file), now) if reason is None or file.exists() else []
        if reason is not None:
            _update(baseline, case, text, reason.strip(), [v for v in verdicts if v.case == name])
    return verdicts


def judge(
    case: str, reference: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> list[Verdict]:
    """A verdict for every status and every number that has a tolerance, method by method.

    reference, now : method -> column -> text as in results.csv. A method or number that is gone has slipped.
    """
    verdicts = []
    for method, old in reference.items():
        new = now.get(method, {})
        same = "ok" if new.get("status") == old.get("status") else "slipped"
        same = "better" if same == "slipped" and new.get("status") == "ok" else same
        verdicts.append(Verdict(case, method, "status", old["status"], new.get("status", ""), 0.0, same))  # type: ignore[arg-type]
        for column, tolerance in TOLERANCES.items():
            if old.get(column):
                verdicts.append(_number(case, method, column, old[column], new.get(column, ""), tolerance))
    return verdicts


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """A results table (comment lines first) as method -> column -> text."""
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    return {row["method"]: row for row in csv.DictReader(io.StringIO("".join(lines)))}


def _number(case: str, method: str, column: str, reference: str, now: str, tolerance: Tolerance) -> Verdict:
    old, new = float(reference), float(now) if now else math.nan
    allowed = max(tolerance.absolute, tolerance.relative * abs(old))
    change = new - old
    verdict: Literal["ok", "better", "slipped"] = "slipped"
    if abs(change) <= allowed:
        verdict = "ok"
    elif (
        tolerance.worse != "either" and (change < 0) == (tolerance.worse == "higher") and not math.isnan(new)
    ):
        verdict = "better"
    return Verdict(case, method, column, reference, now, allowed, verdict)


def _results(case: Case, workers: int, progress: Progress | None) -> str:
    """results.csv of a case, from a run of its own."""
    with tempfile.TemporaryDirectory(prefix="nanoed-regress-") as folder:
        done = run_case(case, Path(folder) / case.name, workers, "results", progress=progress)
        return (done.folder / "results.csv").read_text(encoding="utf-8")


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        rows = rows_of(path.read_text(encoding="utf-8"))
    except (OSError, KeyError, UnicodeDecodeError) as error:
        allowed = "a folder of reference tables; nanoed regress --update makes them"
        raise InputError("no reference table", file=path, field="--baseline", allowed=allowed) from error
    if not rows:
        raise InputError(
            "an empty reference table", file=path, field="--baseline", allowed="a row per method"
        )
    return rows


def _update(baseline: Path, case: Case, text: str, reason: str, verdicts: list[Verdict]) -> None:
    head = f"# nanoed regress --update; nanoed {nanoed.__version__}; digest {case.digest}\n"
    moved = [f"{v.method} {v.column} {v.reference} -> {v.now}" for v in verdicts if v.verdict != "ok"]
    what = "; ".join(moved) or "nothing beyond the tolerances"
    with refusals(baseline):
        baseline.mkdir(parents=True, exist_ok=True)
        file = baseline / f"{case.name}.csv"
        file.with_suffix(".part").write_text(head + text, encoding="utf-8")
        os.replace(file.with_suffix(".part"), file)
        with (baseline / "MOVES.md").open("a", encoding="utf-8") as log:
            log.write(
                f"- {case.name}, nanoed {nanoed.__version__}, digest {case.digest[:8]}: {reason} ({what})\n"
            )
