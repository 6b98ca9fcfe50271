"""Commands over many runs: studies, the comparison with reference numbers, and speed."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanoed.studies.commands.options import (
    Json,
    Workers,
    chosen_case,
    cores,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nanoed.studies.sweeps.grid import Extent, Study
    from nanoed.studies.sweeps.study import Finished


class CheckName(StrEnum):
    """Studies that hold nanoed against data and programs of others, and against its own promises."""

    check_reduction = "check-reduction"
    check_refinement = "check-refinement"
    check_regress = "check-regress"
    check_serial = "check-serial"
    check_simulation = "check-simulation"
    check_solution = "check-solution"

    @property
    def purpose(self) -> str:
        """What is held against what, in a line."""
        return _PURPOSES[self]


_PURPOSES = {
    CheckName.check_reduction: "The data reduction against the truth of simulated frames, and against DIALS",
    CheckName.check_refinement: "The refinement against data that Jana refined, intensities of Dyngo, and the truth",
    CheckName.check_regress: "Whether nanoed regress catches errors that are put in on purpose",
    CheckName.check_serial: "Indexing of serial frames against the truth, by number of frames and dose",
    CheckName.check_simulation: "The simulation: cost, electrons, how its frames look, and DIALS on them",
    CheckName.check_solution: "Structures solved from simulated and measured data against the truth, beside cctbx",
}


def study(
    name: Annotated[
        str, typer.Argument(metavar="STUDY", help="Shipped name (see `nanoed list`) or path of a .toml file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder to write [default: ./NAME, reports for check-…]."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The small part of the grid.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The whole grid, for a cluster.")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Tell core-hours and disk, and run nothing.")
    ] = False,
    workers: Workers = None,
    runs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Finished runs, for studies to share [default: OUT/runs]."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://…|tls://…", help="Dask scheduler to use instead of this machine's cores."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="check-…: folder of the data that others measured [default: ../shared/reference]."
        ),
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="check-…: one part alone; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a grid of cases and analyse it -> results.csv, tables, figures, index.html; a killed one goes on.

    check-…: hold nanoed against others and its own promises -> NAME.csv.

    Example: nanoed study size-limit --quick --out size
    """
    of_grids = {"--quick": quick, "--full": full, "--estimate": estimate, "--runs": runs, "--scheduler": scheduler}
    if name in tuple(CheckName):
        _refuse(of_grids, "for a grid of cases alone", "--part, --reference")
        measured = reference or Path("../shared/reference")
        _check(CheckName(name), out or Path("reports"), measured, part, cores(workers), as_json)
        return
    from nanoed.sim.physics.errors import InputError
    from nanoed.studies.settings import nearest
    from nanoed.studies.sweeps.grid import load_study, shipped_studies

    if not name.endswith(".toml") and name not in shipped_studies():
        allowed = f"a path that ends in .toml, or {nearest(name, [*shipped_studies(), *CheckName])}"
        raise InputError("unknown study", field="STUDY", value=name, allowed=allowed)
    of_checks = {"--part": part, "--reference": reference}
    _refuse(of_checks, "for check-… alone", "--quick, --full, and blocks in a copy of the grid")
    if quick and full:
        raise InputError("one of them alone", field="--quick, --full", allowed="--quick or --full")
    extent: Extent = "quick" if quick else "full" if full else "default"
    chosen = load_study(name)
    if estimate:
        there = runs or (out or Path(chosen.name)) / "runs"
        _estimate(chosen, extent, there, cores(workers), as_json)
    else:
        _sweep(chosen, extent, out or Path(chosen.name), runs, cores(workers), scheduler, as_json)


def _refuse(options: "Mapping[str, object]", why: str, allowed: str) -> None:
    """Raise InputError for the first option that was given."""
    from nanoed.sim.physics.errors import InputError

    for option, value in options.items():
        if value:
            raise InputError(why, field=option, allowed=allowed)


def _estimate(study: "Study", extent: "Extent", runs: Path, workers: int, as_json: bool) -> None:
    from dataclasses import asdict

    from nanoed.studies.console import print_json, print_table, say
    from nanoed.studies.sweeps.study import estimates
    from nanoed.studies.sweeps.sweep import in_words

    rows = estimates(study, extent, runs)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    total = sum(row.core_hours for row in rows)
    head = ("block", "runs", "there", "core-hours", "MB kept", "MB scratch per core")
    print_table(head, [row.cells() for row in rows])
    say(f"{total:.2f} core-hours, about {in_words(3600 * total / workers)} on {workers} cores")


def _sweep(
    study: "Study",
    extent: "Extent",
    out: Path,
    runs: Path | None,
    workers: int,
    scheduler: str | None,
    as_json: bool,
) -> None:
    from nanoed.studies.console import print_json, records, say
    from nanoed.studies.sweeps.study import run_study

    done = run_study(study, extent, out, workers, scheduler, say, runs)
    if as_json:
        print_json(records(done.text))
    if done.sweep.made:
        for line in _used(done):
            say(line)
    say(f"{done.page.parent / 'results.csv'}\n{done.page}")
    if done.failed:
        say(
            f"{done.failed} of {len(done.results)} refinements have no result: {done.page.parent / 'failures.csv'}"
        )
        raise typer.Exit(1)


def _used(done: "Finished") -> list[str]:
    """What the runs took beside what --estimate says of them, and how busy the cores were."""
    from nanoed.studies.sweeps.sweep import in_words

    sweep, expected = done.sweep, done.estimate
    off = 100 * (expected["core_seconds"] / max(sweep.core_seconds, 1e-9) - 1)
    return [
        f"{len(sweep.made)} runs in {in_words(sweep.wall_seconds)} on {sweep.cores} cores, busy for"
        f" {100 * sweep.busy_share:.0f} % of it",
        f"processor time {sweep.core_seconds / 3600:.3f} h, estimated {expected['core_seconds'] / 3600:.3f} h"
        f" ({off:+.0f} %); kept {sweep.kept_MB:.1f} MB, estimated {expected['kept_MB']:.1f} MB",
    ]


def _check(
    name: CheckName, out: Path, reference: Path, part: list[str] | None, workers: int, as_json: bool
) -> None:
    from importlib import import_module

    from nanoed.studies.console import print_json, print_table, shown_progress
    from nanoed.studies.findings import write_findings

    module = import_module(f"nanoed.studies.{name.value.replace('-', '_')}")
    with shown_progress() as progress:
        findings = module.findings(reference, out, part, workers, progress)
    write_findings(name.value, findings, out / f"{name.value}.csv")
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        head = ("data", "quantity", "value", "relation", "limit", "source", "met")
        print_table(head, [finding.cells() for finding in findings])
    if any(finding.met is False for finding in findings):
        raise typer.Exit(1)


def regress(
    baseline: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the reference tables.")] = Path(
        "reports/baseline"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="The small case alone.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Make today's numbers the reference; needs --reason.")
    ] = False,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Physical reason why the reference moves.")
    ] = "",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Run fixed cases and compare their results with the reference, within physical tolerances.

    Example: nanoed regress --quick
    """
    from nanoed.studies.console import print_json, print_table, say, shown_progress
    from nanoed.studies.regress import regress as make

    if not update:
        _refuse({"--reason": reason}, "for --update alone", "--update --reason TEXT")
    with shown_progress() as progress:
        verdicts = make(baseline, quick, reason if update else None, cores(workers), progress)
    if as_json:
        print_json([verdict.to_dict() for verdict in verdicts])
    else:
        head = ("case", "method", "column", "reference", "now", "tolerance", "verdict")
        print_table(head, [verdict.cells() for verdict in verdicts])
    if update:
        say(f"the reference is now what was found: {baseline}")
    elif any(verdict.slipped for verdict in verdicts):
        raise typer.Exit(1)


def _fit(runs: Path) -> None:
    from nanoed.sim.physics.errors import InputError
    from nanoed.studies.console import print_json
    from nanoed.studies.sweeps.cost import fit

    folders = sorted(path.parent for path in runs.glob("**/timings.csv"))
    if not folders:
        raise InputError(
            "no finished runs", field="--fit", value=runs, allowed="a folder of runs, as studies leave"
        )
    print_json(fit(folders))


def bench(
    case: Annotated[
        str, typer.Option(metavar="CASE", help="Case whose stages are timed.")
    ] = "brookite-cnrs-01",
    stages: Annotated[
        bool, typer.Option("--stages/--kernels", help="Time the stages of a whole run as well.")
    ] = True,
    fit: Annotated[
        Path | None,
        typer.Option(metavar="RUNS", help="Fit the cost model of --estimate to these finished runs instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Time the kernels and stages against their floors.

    Example: nanoed bench --kernels
    """
    if fit is not None:
        _fit(fit)
        return
    from nanoed.studies.bench import bench as make
    from nanoed.studies.console import print_json, print_table, shown_progress

    with shown_progress() as progress:
        timings = make(chosen_case(case, None, "--case"), stages, progress)
    if as_json:
        print_json([timing.to_dict() for timing in timings])
    else:
        head = ("kernel", "size", "seconds", "floor", "times the floor", "floor is")
        print_table(head, [timing.cells() for timing in timings])
