"""Commands of files: other programs' frames and structures, and the page of a run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nanoed.studies.commands.options import (
    Config,
    Force,
    Json,
    Out,
    Overrides,
    spec_of,
)


class FormatName(StrEnum):
    """Formats of other programs."""

    smv = "smv"
    tiff_pets = "tiff-pets"
    xds = "xds"


def compare(
    refined: Annotated[
        str, typer.Argument(metavar="REFINED", help="CIF of any program, or shipped name (see `nanoed list`).")
    ],
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="CIF, or shipped name (see `nanoed list`).")
    ],
    as_json: Json = False,
) -> None:
    """Compare two structures by the measures of COMPSTRU, after matching origin and setting.

    Example: nanoed compare refined.cif brookite
    """
    from nanoed.sim.physics.crystal import read_cif
    from nanoed.studies.case import structure_file
    from nanoed.studies.compare import compare as make
    from nanoed.studies.compare import format_comparison
    from nanoed.studies.console import print_json

    named = ((refined, "REFINED"), (reference, "REFERENCE"))
    one, other = (read_cif(structure_file(name, argument)) for name, argument in named)
    comparison = make(one, other)
    if as_json:
        print_json(comparison.to_dict())
    else:
        print(format_comparison(comparison))


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
    from nanoed.pipeline.io.foreign import find_frames, frames_bytes
    from nanoed.sim.dataset import FILE_NAME
    from nanoed.studies.console import shown_progress
    from nanoed.studies.folder import placed

    room = frames_bytes(find_frames(data / FILE_NAME if data.is_dir() else data))
    with shown_progress() as progress, placed(out, force, room=room) as work:
        make(data, form.value, work, progress)


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
    from nanoed.pipeline.io.foreign import ImportSpec, find_frames, frames_bytes, import_found
    from nanoed.studies.console import shown_progress
    from nanoed.studies.folder import placed

    spec, found = spec_of(ImportSpec, config, overrides), find_frames(frames)
    with shown_progress() as progress, placed(out, force, room=frames_bytes(found)) as work:
        import_found(found, frames, work, spec, progress)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run or of a study.")],
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Write every figure as PDF too.")] = True,
) -> None:
    """Write report.html of a run or study, from the files in its folder alone -> report.html, figures/*.svg, *.pdf.

    Of a study also its own page and tables anew -> index.html.

    Example: nanoed report brookite
    """
    from nanoed.studies.folder import refusals
    from nanoed.studies.report import report as make

    with refusals(folder):
        if (folder / "study.toml").is_file():
            from nanoed.studies.sweeps.study import page_anew

            print(page_anew(folder))
        print(make(folder, pdf))
