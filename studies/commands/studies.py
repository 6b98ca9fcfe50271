"""Commands over many runs: studies, the comparison with reference numbers, and speed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nanoed.studies.commands.options import (
    Json,
    Out,
    Workers,
    chosen_case,
    cores,
)


class StudyName(StrEnum):
    """Shipped studies."""

    check_reduction = "check-reduction"
    check_refinement = "check-refinement"
    check_serial = "check-serial"
    check_simulation = "check-simulation"
    check_solution = "check-solution"


def study(
    name: Annotated[StudyName, typer.Argument(metavar="NAME", help=f"One of: {', '.join(StudyName)}.")],
    out: Out = Path("reports"),
    reference: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the data that others measured.")
    ] = Path("../shared/reference"),
    part: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="One part alone; repeatable.")
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Hold nanoed against data and programs of others, and against its own promises -> NAME.csv.

    Example: nanoed study check-refinement --part alanine --out reports
    """
    from importlib import import_module

    from nanoed.studies.console import print_json, print_table, shown_progress
    from nanoed.studies.findings import write_findings

    module = import_module(f"nanoed.studies.{name.value.replace('-', '_')}")
    with shown_progress() as progress:
        findings = module.findings(reference, out, part, cores(workers), progress)
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


def bench(
    case: Annotated[
        str, typer.Option(metavar="CASE", help="Case whose stages are timed.")
    ] = "brookite-cnrs-01",
    stages: Annotated[
        bool, typer.Option("--stages/--kernels", help="Time the stages of a whole run as well.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Time the kernels and stages against their floors.

    Example: nanoed bench --kernels
    """
    from nanoed.studies.bench import bench as make
    from nanoed.studies.console import print_json, print_table, shown_progress

    with shown_progress() as progress:
        timings = make(chosen_case(case, None), stages, progress)
    if as_json:
        print_json([timing.to_dict() for timing in timings])
    else:
        head = ("kernel", "size", "seconds", "floor", "times the floor", "floor is")
        print_table(head, [timing.cells() for timing in timings])
