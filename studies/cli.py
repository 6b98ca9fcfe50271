"""The command line. Heavy imports happen inside the commands, so that help is instant.

Exit status: 0; 1 = it ran, and a method or a regression failed; 2 = bad input, one line saying what and
where; 3 = internal error, one line and the path of the saved traceback; 130 = interrupted; 141 = who
read the output has left.
"""

import os
import sys
import tempfile
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nanoed.studies.case import Case
    from nanoed.studies.run import Run

app = typer.Typer(
    name="nanoed",
    help="Open 3D electron diffraction: simulate, reduce, refine, compare with the truth.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Keep(StrEnum):
    """How much of a run stays on disk."""

    results = "results"
    reduced = "reduced"
    frames = "frames"


class MethodName(StrEnum):
    """Ways of refining."""

    kinematical = "kinematical"
    kinematical_nonaveraged = "kinematical-nonaveraged"
    kinematical_frames = "kinematical-frames"
    dynamical = "dynamical"


class StudyName(StrEnum):
    """Shipped studies."""

    check_reduction = "check-reduction"
    check_refinement = "check-refinement"
    check_serial = "check-serial"
    check_simulation = "check-simulation"
    check_solution = "check-solution"


CaseName = Annotated[
    str, typer.Argument(metavar="CASE", help="Shipped name (see `nanoed list`) or path of a .toml file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=VALUE", help="Override a field; repeatable, the last one wins."),
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings as in a case, TOML.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")]
OptionalOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder to write [default: ./NAME-digest8].")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processor cores to use [default: all].")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier command left in the folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the program and exit with its status."""
    sys.exit(status())


def status(args: list[str] | None = None) -> int:
    """Run the program and return its exit status."""
    try:
        code = int(app(args, standalone_mode=False) or 0)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except (BrokenPipeError, SystemExit):  # typer makes SystemExit of the former
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _failed(error)
    if code == 130:
        print("nanoed: interrupted", file=sys.stderr)
    return code


def _failed(error: Exception) -> int:
    """Say in one line what went wrong; returns the exit status."""
    from nanoed.sim.physics.errors import InputError

    usage = getattr(error, "format_message", None)
    if usage is not None:
        text = str(usage()).strip()
        print(text if "\n" in text else f"nanoed: {text} (see --help)", file=sys.stderr)
        return 2
    if isinstance(error, InputError):
        print(f"nanoed: {error}", file=sys.stderr)
        return 2
    handle, path = tempfile.mkstemp(prefix="nanoed-traceback-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"nanoed: internal error: {what[:200]} (traceback saved in {path})", file=sys.stderr)
    return 3


@app.callback(invoke_without_command=True)
def _program(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        import nanoed

        print(nanoed.__version__)
        raise typer.Exit


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the shipped cases and structures.

    Example: nanoed list
    """
    from nanoed.studies.case import load_case, shipped_cases, shipped_structures
    from nanoed.studies.console import print_json, print_table

    cases = {name: load_case(name).title for name in shipped_cases()}
    if as_json:
        print_json({"cases": cases, "structures": shipped_structures()})
        return
    print_table(("case", ""), list(cases.items()))
    print()
    print_table(("structure",), [(name,) for name in shipped_structures()])


@app.command()
def show(case: CaseName, overrides: Overrides = None) -> None:
    """Print the resolved TOML of a case.

    Example: nanoed show brookite-cnrs-01 --set seed=7
    """
    print(_case(case, overrides).toml(), end="")


@app.command()
def run(
    case: CaseName,
    out: OptionalOut = None,
    overrides: Overrides = None,
    workers: Workers = None,
    keep: Annotated[Keep, typer.Option(help="What stays on disk.")] = Keep.frames,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Simulate, reduce, refine and compare with the truth -> results.csv, report.html.

    Example: nanoed run brookite-cnrs-01 --out brookite --set seed=7
    """
    from nanoed.studies.console import say, shown_progress
    from nanoed.studies.run import run_case

    chosen = _case(case, overrides)
    with shown_progress() as progress:
        done = run_case(chosen, out, _workers(workers), keep.value, force, progress)
    if done.reused:
        say("nothing to do: the folder holds this very run")
    _print_run(done, chosen, as_json)
    say(f"{done.folder / 'results.csv'}\n{done.folder / 'report.html'}")
    if not done.ok:
        raise typer.Exit(1)


@app.command()
def simulate(
    case: CaseName,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder for the frames.")],
    truth: Annotated[Path, typer.Option("--truth", metavar="DIR", help="Another folder, for the truth.")],
    overrides: Overrides = None,
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Simulate the frames of a case and seal the truth in a folder of its own.

    Example: nanoed simulate brookite-cnrs-01 --data frames --truth envelope
    """
    from nanoed.sim.simulate import simulate as make
    from nanoed.sim.simulate import unrelated
    from nanoed.studies.console import shown_progress
    from nanoed.studies.folder import placed
    from nanoed.studies.run import room_bytes

    chosen = _case(case, overrides)
    crystal = chosen.crystal
    experiment = chosen.experiment.model_copy(update={"structure": crystal.name})
    unrelated(data, truth)
    room = room_bytes(experiment)
    with (
        shown_progress() as progress,
        placed(data, force, room=room) as frames,
        placed(truth, force) as envelope,
    ):
        make(experiment, crystal, frames, envelope, _workers(workers), progress)


@app.command()
def reduce(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with frames.h5.")],
    out: Out,
    cell: Annotated[
        str | None, typer.Option(metavar="a,b,c,al,be,ga", help="Approximate cell, Å and degrees.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    workers: Workers = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Reduce frames to intensities: merged.hkl, unmerged.hkl, frames.cif_pets, reduction.json.

    Example: nanoed reduce frames --cell 9.2,5.4,5.1,90,90,90 --set spacegroup="P b c a" --out reduced
    """
    from nanoed.pipeline.reduce.output import plain
    from nanoed.pipeline.reduce.reduce import reduce as make
    from nanoed.pipeline.spec import ReduceSpec
    from nanoed.studies.console import print_json, print_pairs, shown_progress
    from nanoed.studies.folder import placed
    from nanoed.studies.settings import settings

    spec = settings(ReduceSpec, config, [*([f"cell={_cell(cell)}"] if cell else []), *(overrides or [])])
    with shown_progress() as progress, placed(out, force) as work:
        reduction = make(data, spec, work, _workers(workers), progress)
    (print_json if as_json else print_pairs)(plain(reduction.statistics))


@app.command("index")
def index_(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with frames.h5 of serial data.")],
    out: Out,
    cell: Annotated[
        str | None, typer.Option(metavar="a,b,c,al,be,ga", help="Cell, Å and degrees, right to about 1 %.")
    ] = None,
    laue: Annotated[str | None, typer.Option(metavar="CLASS", help="Laue class, for instance m-3.")] = None,
    spacegroup: Annotated[
        str | None, typer.Option(metavar="SYMBOL", help="Space group, for instance 'I a -3'.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="CIF", help="Structure whose setting the indices take.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    workers: Workers = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Orient still frames of many particles and merge them: the files of `reduce`, and frames.csv.

    Example: nanoed index frames --cell 10.2,10.2,10.2,90,90,90 --laue m-3 --out indexed
    """
    from nanoed.pipeline.reduce.output import plain
    from nanoed.pipeline.serial.index import index as make
    from nanoed.pipeline.serial.spec import IndexSpec
    from nanoed.sim.physics.crystal import read_cif
    from nanoed.studies.console import print_json, print_pairs, print_table, shown_progress
    from nanoed.studies.folder import placed
    from nanoed.studies.settings import settings

    given = [f"cell={_cell(cell)}"] if cell else []
    given += [f'laue="{laue}"'] if laue else []
    given += [f'spacegroup="{spacegroup}"'] if spacegroup else []
    spec = settings(IndexSpec, config, [*given, *(overrides or [])])
    like = read_cif(model) if model else None
    with shown_progress() as progress, placed(out, force) as work:
        indexed = make(data, spec, work, _workers(workers), progress, like)
    found = plain(indexed.statistics)
    if as_json:
        print_json(found)
        return
    rows = found.pop("by_frames")
    print_pairs(found)
    print()
    print_table(tuple(rows[0]), [tuple(f"{x:.4g}" for x in row.values()) for row in rows])


@app.command("solve")
def solve_(
    reduced: Annotated[
        Path,
        typer.Argument(metavar="REDUCED", help="Folder of reduced data, or a .hkl file beside its .ins."),
    ],
    out: Out,
    composition: Annotated[
        str | None, typer.Option(metavar="FORMULA", help="Formula unit, for instance TiO2.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    workers: Workers = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Solve the structure by charge flipping -> solution.cif, solution.inflip, solution.png, solve.json.

    Example: nanoed solve reduced --composition TiO2 --out solved
    """
    from nanoed.pipeline.solve.output import summary
    from nanoed.pipeline.spec import SolveSpec
    from nanoed.sim.physics.errors import ConvergenceError
    from nanoed.studies.analysis import solve as make
    from nanoed.studies.console import print_json, print_pairs, say, shown_progress
    from nanoed.studies.folder import placed
    from nanoed.studies.settings import settings

    given = [f'composition="{composition}"'] if composition else []
    spec = settings(SolveSpec, config, [*given, *(overrides or [])])
    try:
        with shown_progress() as progress, placed(out, force) as work:
            solution = make(reduced, spec, work, _workers(workers), progress)
    except ConvergenceError as error:
        say(f"nanoed: {error}")
        raise typer.Exit(1) from None
    (print_json if as_json else print_pairs)(summary(solution))


@app.command()
def refine(
    reduced: Annotated[
        Path, typer.Argument(metavar="REDUCED", help="Folder of reduced data, a .cif_pets or a .hkl file.")
    ],
    model: Annotated[Path, typer.Option("--model", metavar="CIF", help="Start model.")],
    out: Out,
    method: Annotated[MethodName, typer.Option(help="How to refine.")] = MethodName.dynamical,
    config: Config = None,
    overrides: Overrides = None,
    workers: Workers = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Refine a model against reduced data -> refined.cif, refinement.json.

    Example: nanoed refine reduced --model start.cif --method dynamical --out refined
    """
    from nanoed.pipeline.refine.output import write_refinement
    from nanoed.pipeline.spec import RefineSpec
    from nanoed.sim.physics.crystal import read_cif
    from nanoed.sim.physics.errors import ConvergenceError
    from nanoed.studies.analysis import refine as make
    from nanoed.studies.console import print_json, print_pairs, say, shown_progress
    from nanoed.studies.folder import placed
    from nanoed.studies.settings import settings

    spec, start = settings(RefineSpec, config, overrides or []), read_cif(model)
    try:
        with shown_progress() as progress, placed(out, force) as work:
            refinement = make(method.value, reduced, start, spec, _workers(workers), progress)
            write_refinement(refinement, work)
    except ConvergenceError as error:
        say(f"nanoed: not converged: {error}")
        raise typer.Exit(1) from None
    (print_json if as_json else print_pairs)(dict(refinement.statistics))


@app.command()
def compare(
    refined: Annotated[Path, typer.Argument(metavar="REFINED.cif")],
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE.cif")],
    as_json: Json = False,
) -> None:
    """Compare two structures by the measures of COMPSTRU, after matching origin and setting.

    Example: nanoed compare refined.cif reference.cif
    """
    from nanoed.sim.physics.crystal import read_cif
    from nanoed.studies.compare import compare as make
    from nanoed.studies.compare import format_comparison
    from nanoed.studies.console import print_json

    comparison = make(read_cif(refined), read_cif(reference))
    if as_json:
        print_json(comparison.to_dict())
    else:
        print(format_comparison(comparison))


class FormatName(StrEnum):
    """Formats of other programs."""

    smv = "smv"
    tiff_pets = "tiff-pets"
    xds = "xds"


@app.command()
def export(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with frames.h5.")],
    out: Out,
    form: Annotated[FormatName, typer.Option("--format", help="What to write.")] = FormatName.smv,
    force: Force = False,
) -> None:
    """Write frames for other programs: SMV, SMV with XDS.INP, or TIFF with a .pts file.

    Example: nanoed export frames --format xds --out smv
    """
    from nanoed.pipeline.io.export import export as make
    from nanoed.studies.console import shown_progress
    from nanoed.studies.folder import placed

    with shown_progress() as progress, placed(out, force) as work:
        make(data, form.value, work, progress)


@app.command("import")
def import_(
    frames: Annotated[
        Path,
        typer.Argument(metavar="FRAMES", help="A .pts, .h5, .nxs, .mrc or .img file, or a folder of them."),
    ],
    out: Out,
    config: Config = None,
    overrides: Overrides = None,
    force: Force = False,
) -> None:
    """Make a data set of your own frames; what their format lacks is asked for.

    Example: nanoed import series.mrc --set voltage_kv=200 --set a_per_px=0.006 --out frames
    """
    from nanoed.pipeline.io.foreign import ImportSpec, import_frames
    from nanoed.studies.console import shown_progress
    from nanoed.studies.folder import placed
    from nanoed.studies.settings import settings

    spec = settings(ImportSpec, config, overrides or [])
    with shown_progress() as progress, placed(out, force) as work:
        import_frames(frames, work, spec, progress)


@app.command()
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
        verdicts = make(baseline, quick, reason if update else None, _workers(workers), progress)
    if as_json:
        print_json([verdict.to_dict() for verdict in verdicts])
    else:
        head = ("case", "method", "column", "reference", "now", "tolerance", "verdict")
        print_table(head, [verdict.cells() for verdict in verdicts])
    if update:
        say(f"the reference is now what was found: {baseline}")
    elif any(verdict.slipped for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
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
        findings = module.findings(reference, out, part, _workers(workers), progress)
    write_findings(name.value, findings, out / f"{name.value}.csv")
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        head = ("data", "quantity", "value", "relation", "limit", "source", "met")
        print_table(head, [finding.cells() for finding in findings])
    if any(finding.met is False for finding in findings):
        raise typer.Exit(1)


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]) -> None:
    """Write report.html of a run again, from the files in its folder alone.

    Example: nanoed report brookite
    """
    from nanoed.studies.folder import refusals
    from nanoed.studies.report import report as make

    with refusals(folder):
        print(make(folder))


@app.command()
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
        timings = make(_case(case, None), stages, progress)
    if as_json:
        print_json([timing.to_dict() for timing in timings])
    else:
        head = ("kernel", "size", "seconds", "floor", "times the floor", "floor is")
        print_table(head, [timing.cells() for timing in timings])


def _case(name: str, overrides: list[str] | None) -> "Case":
    from nanoed.studies.case import load_case

    return load_case(name, overrides or ())


def _cell(text: str) -> list[float]:
    from nanoed.sim.physics.errors import InputError

    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 6 or not 0 < min(numbers) <= max(numbers) < float("inf"):
        allowed = "six numbers: a,b,c in Å and alpha,beta,gamma in degrees"
        raise InputError("not a cell", field="--cell", value=text, allowed=allowed)
    return numbers


def _workers(asked: int | None) -> int:
    return (
        asked or len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else asked or os.cpu_count() or 1
    )


def _print_run(done: "Run", case: "Case", as_json: bool) -> None:
    from nanoed.studies.console import print_json, print_table, records
    from nanoed.studies.tables import format_quantity, published_beside

    if as_json:
        print_json(records((done.folder / "results.csv").read_text(encoding="utf-8")))
        return
    beside: Any = published_beside(done.results, case.published_values())
    columns = [name for name in beside.columns[2:] if beside[name].notna().any()]
    rows = [
        (row["quantity"], *(format_quantity(row["column"], float(row[name])) for name in columns))
        for _, row in beside.iterrows()
    ]
    print_table(("quantity", *columns), rows)
    for _, row in done.results[done.results["status"] != "ok"].iterrows():
        print(f"{row['method']}: {row['status']}: {row['message']}")


if __name__ == "__main__":
    main()
