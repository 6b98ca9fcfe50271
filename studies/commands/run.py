"""Commands of a run: what there is, the whole chain of a case, and each of its stages."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanoed.studies.commands.options import (
    CaseName,
    Config,
    Force,
    Json,
    OptionalOut,
    Out,
    Overrides,
    Workers,
    cell_numbers,
    chosen_case,
    cores,
    spec_of,
)

if TYPE_CHECKING:
    from nanoed.studies.case import Case
    from nanoed.studies.run import Run


class Keep(StrEnum):
    """How much of a run stays on disk."""

    results = "results"
    reduced = "reduced"
    frames = "frames"


class MethodName(StrEnum):
    """Ways of refining."""

    kinematical = "kinematical"
    kinematical_unit = "kinematical-unit"
    kinematical_nonaveraged = "kinematical-nonaveraged"
    kinematical_frames = "kinematical-frames"
    dynamical = "dynamical"


OF_METHODS = (
    "How to refine: averaged intensities (kinematical; -unit: with unit weights; -nonaveraged: before averaging), or"
    " those of frames (kinematical-frames, dynamical)."
)


def list_(as_json: Json = False) -> None:
    """List the shipped cases, studies, checks and structures.

    Example: nanoed list
    """
    from nanoed.studies.case import load_case, shipped_cases, shipped_structures
    from nanoed.studies.commands.studies import CheckName
    from nanoed.studies.console import print_json, print_table
    from nanoed.studies.sweeps.grid import load_study, shipped_studies

    cases = {name: load_case(name).title for name in shipped_cases()}
    studies = {name: load_study(name).title for name in shipped_studies()}
    checks = {check.value: check.purpose for check in CheckName}
    if as_json:
        print_json({"cases": cases, "studies": studies, "checks": checks, "structures": shipped_structures()})
        return
    for head, titles in (("case", cases), ("study", studies), ("study, of nanoed itself", checks)):
        print_table((head, ""), list(titles.items()))
        print()
    print_table(("structure",), [(name,) for name in shipped_structures()])


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="CASE|STUDY", help="Shipped name (see `nanoed list`) or path of a .toml file."
        ),
    ],
    overrides: Overrides = None,
) -> None:
    """Print the resolved TOML of a case, or the TOML of a study to copy and edit.

    Example: nanoed show brookite-cnrs-01 --set seed=7
    """
    from nanoed.sim.physics.errors import InputError
    from nanoed.studies.case import shipped_cases
    from nanoed.studies.settings import nearest
    from nanoed.studies.sweeps.grid import is_study, shipped_studies, study_file

    known = [*shipped_cases(), *shipped_studies()]
    if not name.endswith(".toml") and name not in known:
        allowed = f"a path that ends in .toml, or {nearest(name, known)}"
        raise InputError("unknown case or study", field="CASE|STUDY", value=name, allowed=allowed)
    if not is_study(name):
        print(chosen_case(name, overrides).toml(), end="")
        return
    if overrides:
        raise InputError(
            "a study takes none", field="--set", value=overrides[0], allowed="a copy that you edit"
        )
    print(study_file(name).read_text(encoding="utf-8"), end="")


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

    chosen = chosen_case(case, overrides)
    with shown_progress() as progress:
        done = run_case(chosen, out, cores(workers), keep.value, force, progress)
    if done.reused:
        say("nothing to do: the folder holds this very run")
    _print_run(done, chosen, as_json)
    say(f"{done.folder / 'results.csv'}\n{done.folder / 'report.html'}")
    if not done.ok:
        raise typer.Exit(1)


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

    chosen = chosen_case(case, overrides)
    crystal = chosen.crystal
    experiment = chosen.experiment.model_copy(update={"structure": crystal.name})
    unrelated(data, truth)
    room = room_bytes(experiment)
    with (
        shown_progress() as progress,
        placed(data, force, room=room, option="--data") as frames,
        placed(truth, force, option="--truth") as envelope,
    ):
        make(experiment, crystal, frames, envelope, cores(workers), progress)


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
    """Reduce frames to intensities: merged.hkl, unmerged.hkl, frames.cif_pets, reduction.json, reduction.html.

    Without --cell the lattice is found. The tilt axis is sought within 5° of the azimuth that the data set states, and
    everywhere with --set axis.search_deg=180 or where that indexes too little. Either sense of rotation is tried.

    Example: nanoed reduce frames --cell 9.2,5.4,5.1,90,90,90 --set spacegroup="P b c a" --out reduced
    """
    from nanoed.pipeline.reduce.output import plain
    from nanoed.pipeline.reduce.page.summary import alarms, summary
    from nanoed.pipeline.reduce.reduce import reduce as make
    from nanoed.pipeline.spec import ReduceSpec
    from nanoed.studies.console import print_json, print_pairs, say, shown_progress
    from nanoed.studies.folder import placed

    spec = spec_of(ReduceSpec, config, overrides, cell=cell and cell_numbers(cell))
    with shown_progress() as progress, placed(out, force) as work:
        reduction = make(data, spec, work, cores(workers), progress, page=True)
    if as_json:
        print_json(plain(reduction.statistics))
        return
    print_pairs(dict(summary(reduction.statistics, reduction.frames)))
    for alarm in alarms(reduction.statistics, reduction.frames):
        say(f"nanoed: {alarm}")
    say(f"{out / 'reduction.html'}")


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

    given = {"cell": cell and cell_numbers(cell), "laue": laue, "spacegroup": spacegroup}
    spec = spec_of(IndexSpec, config, overrides, **given)
    like = read_cif(model) if model else None
    with shown_progress() as progress, placed(out, force) as work:
        indexed = make(data, spec, work, cores(workers), progress, like)
    found = plain(indexed.statistics)
    if as_json:
        print_json(found)
        return
    rows = found.pop("by_frames")
    print_pairs(found)
    print()
    print_table(tuple(rows[0]), [tuple(f"{x:.4g}" for x in row.values()) for row in rows])


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
    """Solve the structure by charge flipping and, where there are few sites, in direct space.

    Writes solution.cif, solution.inflip, solution.png, solve.json, starts.csv.

    Example: nanoed solve reduced --composition TiO2 --out solved
    """
    from nanoed.pipeline.solve.output import summary
    from nanoed.pipeline.spec import SolveSpec
    from nanoed.studies.analysis import solve as make
    from nanoed.studies.console import print_json, print_pairs, shown_progress
    from nanoed.studies.folder import placed

    spec = spec_of(SolveSpec, config, overrides, composition=composition)
    with shown_progress() as progress, placed(out, force) as work:
        solution = make(reduced, spec, work, cores(workers), progress)
    (print_json if as_json else print_pairs)(summary(solution))


def refine(
    reduced: Annotated[
        Path, typer.Argument(metavar="REDUCED", help="Folder of reduced data, a .cif_pets or a .hkl file.")
    ],
    model: Annotated[
        Path, typer.Option("--model", metavar="FILE", help="Start model: CIF, .ins, .res or a shipped name.")
    ],
    out: Out,
    method: Annotated[MethodName, typer.Option(help=OF_METHODS)] = MethodName.dynamical,
    config: Config = None,
    overrides: Overrides = None,
    workers: Workers = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Refine a model against reduced data -> refined.cif, refinement.json.

    Example: nanoed refine reduced --model start.cif --method dynamical --out refined
    """
    from nanoed.pipeline.io.shelx_model import read_shelx_model
    from nanoed.pipeline.refine.output import write_refinement
    from nanoed.pipeline.spec import RefineSpec
    from nanoed.sim.physics.crystal import read_cif
    from nanoed.sim.physics.errors import InputError
    from nanoed.studies.analysis import refine as make
    from nanoed.studies.case import structure_file
    from nanoed.studies.console import print_json, print_pairs, say, shown_progress
    from nanoed.studies.folder import placed

    spec = spec_of(RefineSpec, config, overrides)
    if spec.both_hands and method is not MethodName.dynamical:
        raise InputError(
            "kinematical intensities do not tell the hand", field="both_hands", value=True,
            allowed="true with --method dynamical",
        )  # fmt: skip
    if spec.weights != "errors" and method in (MethodName.kinematical_frames, MethodName.dynamical):
        raise InputError(
            "weights of averaged intensities, not of frames", field="weights", value=spec.weights,
            allowed="errors, or --method kinematical",
        )  # fmt: skip
    shelx = model.suffix.lower() in (".ins", ".res")
    start = read_shelx_model(model) if shelx else read_cif(structure_file(str(model), "--model"))
    with shown_progress() as progress, placed(out, force) as work:
        refinement = make(method.value, reduced, start, spec, cores(workers), progress)
        write_refinement(refinement, work)
    for note in refinement.message.split("; ")[1:]:
        say(f"nanoed: warning: {note}")
    (print_json if as_json else print_pairs)(dict(refinement.statistics))


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
