"""`nanoed report DIR`: one self-contained HTML page of a run, from the files in its folder alone.

Files read, all in the run's folder:

- `results.csv`: one row per method (tables.RESULT_COLUMNS).
- `run.json`: keys used are `case` (the resolved case: `name`, `title`), `published` (one row of the
  published tables, empty if there is none) and `run_key`. Times, hosts and versions in it are not shown, so
  the page is a pure function of the run key.
- `figures/*.csv` and `figures/frame_*.png` (figure_tables.TABLES), written during the run by
  `artefacts.collect_artefacts`. A section whose table is missing is left out.

Written: `report.html`, and each figure as `figures/NAME.svg` (and, where asked for, `.pdf`) beside its table.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imread

from nanoed.pipeline.page.html import Cell, Download, Page, Section, Table, render
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole
from nanoed.studies import figures, tables
from nanoed.studies.figure_tables import FOLDER, TABLES
from nanoed.studies.page_parts import Source, cell, plain
from nanoed.studies.sections import sections_section
from nanoed.studies.size_report import size_report
from nanoed.studies.structure_view import structure_section

CONDITION_GROUPS: Mapping[str, str] = {  # a field belongs to the first prefix that fits
    "experiment.flaws.": "Flaws",
    "experiment.": "Experiment",
    "start.": "Start",
    "reduce.": "Reduction",
    "solve.": "Solution",
    "refine.": "Refinement",
    "": "Case",
}


def report(run_dir: Path, pdf: bool = False) -> Path:
    """Write `report.html` from the files in `run_dir` and return its path; of many runs see `size_report`.

    pdf : write every figure as PDF as well, which takes some seconds.
    Raises InputError if the folder holds no run, or a file that is not what its name says.
    """
    if not (run_dir / "results.csv").is_file():
        raise InputError("no results here", file=run_dir, allowed="a folder of a run or of a study, with results.csv")
    if not (run_dir / "run.json").exists():
        return size_report(run_dir, pdf)
    results = tables.read_results(run_dir / "results.csv")
    run = _read_run(run_dir / "run.json")
    case = _mapping(run, "case")
    published = _mapping(run, "published")
    sections = [_results_section(results, published)]
    source = Source(run_dir, results, published, pdf)
    for name in TABLES:  # what cannot be read is found before anything is drawn
        source.table(name)
    for build in BUILDERS:
        section = build(source)
        if section is not None:
            sections.append(section)
    sections.append(_all_columns(results, run_dir))
    page = Page(
        title=str(case.get("title") or case.get("name") or run_dir.name),
        subtitle=_subtitle(results, case, run),
        alarms=tuple(_alarms(results)),
        sections=tuple(sections),
    )
    return write_whole(run_dir / "report.html", render(page))


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"not the record of a run ({error})", file=path) from error
    if not isinstance(run, dict):
        raise InputError("not the record of a run", file=path, allowed="a JSON object")
    return run


def _mapping(run: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = run.get(key)
    return value if isinstance(value, dict) else {}


def _subtitle(results: pd.DataFrame, case: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Case, seed and run key in one line."""
    parts = [f"case {case.get('name', '?')}"]
    if len(results):
        first = results.iloc[0]
        parts += [f"{first['engine']} engine, {first['factors_sim']} factors"] if first["engine"] else []
        parts += [f"seed {first['seed']:.0f}"] if math.isfinite(first["seed"]) else []
        parts += [f"digest {str(first['digest'])[:12]}"]
    if run.get("run_key"):
        parts.append(f"run key {str(run['run_key'])[:12]}")
    return " · ".join(parts)


def _alarms(results: pd.DataFrame) -> list[str]:
    """A sentence per method that did not end well."""
    bad = results[results["status"] != "ok"]
    return [
        f"{row['method']}: {row['status'].replace('_', ' ')}. {row['message']}" for _, row in bad.iterrows()
    ]


def _results_section(results: pd.DataFrame, published: Mapping[str, Any]) -> Section:
    beside = tables.published_beside(results, published)
    columns = [column for column in beside.columns[2:] if beside[column].notna().any()]
    rows = []
    for _, row in beside.iterrows():
        cells = [Cell(str(row["quantity"]))]
        for column in columns:
            value = float(row[column])
            text = tables.format_quantity(str(row["column"]), value)
            cells.append(Cell(text, value if math.isfinite(value) else None))
        rows.append(tuple(cells))
    notes = (
        "Distances are from the true sites after origin and setting have been matched (average weighted by "
        "site multiplicity). Published distances are from the bulk reference structure, and so hold a real "
        "sample's differences as well. Observed means I > 3σ(I).",
    )
    head = ("quantity", *columns)
    return Section("results", "Results", notes, (Table(head, tuple(rows)),))


def _frames(source: Source) -> Section | None:
    frames, spots = source.table("frames"), source.table("frame_spots")
    if frames is None or spots is None or frames.empty:
        return None
    pictures = []
    for _, frame in frames.iterrows():
        name = f"frame_{int(frame['frame']):04d}"
        path = source.folder / FOLDER / f"{name}.png"
        try:
            image = np.rint(255 * imread(path)).astype(np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"not a picture ({error})", file=path) from error
        image = image if image.ndim == 2 else image[..., 0]
        mine = spots[spots["frame"] == frame["frame"]]
        strong = int((mine["I"] > 3 * mine["sigma_I"]).sum())
        drawing = figures.frame_figure(image, frame.to_dict(), mine, float(frame["ring"]))
        caption = f"{len(mine)} integrated reflections circled, {strong} of them above 3σ."
        pictures.append(source.drawn(name, drawing, caption))
    note = (
        "Counts on a logarithmic scale, dark where many electrons arrived. Circles: reflections as indexed "
        f"and integrated. Dashed: resolution limit, {frames['ring'].iloc[0]:.2f} Å⁻¹."
    )
    downloads = (source.download("frames"), source.download("frame_spots"))
    return Section("frames", "Frames", (note,), (), tuple(pictures), downloads, viewer=True)


def _rocking(source: Source) -> Section | None:
    points, fit = source.table("rocking_curve"), source.table("rocking_fit")
    if points is None or fit is None or points.empty:
        return None
    caption = (
        "Intensity in successive frames against the excitation error at the frame's mean orientation, with "
        "the fitted profile. Bars: one standard uncertainty. The profile is that of single scattering, from "
        "which multiple scattering makes the observed curves deviate."
    )
    picture = source.drawn("rocking_curve", figures.rocking_figure(points, fit), caption)
    downloads = (source.download("rocking_curve"), source.download("rocking_fit"))
    return Section("rocking", "Rocking curves", (), (), (picture,), downloads)


def _amplitudes(source: Source) -> Section | None:
    reflections = source.table("fobs_fcalc")
    if reflections is None or reflections.empty:
        return None
    quoted = [
        f"{row['method']} R_obs {row['r_obs_pct']:.2f} %, R_all {row['r_all_pct']:.2f} %"
        for _, row in source.results.iterrows()
        if math.isfinite(row["r_obs_pct"])
    ]
    caption = (
        f"Observed against calculated amplitudes: {'; '.join(quoted)}. Line: equality. Filled: I > 3σ(I). "
        "Reflections with a negative observed intensity are in the table and below the axis."
    )
    picture = source.drawn("fobs_fcalc", figures.fobs_fcalc_figure(reflections), caption)
    return Section("amplitudes", "F_obs and F_calc", (), (), (picture,), (source.download("fobs_fcalc"),))


def _distances(source: Source) -> Section | None:
    distances = source.table("distances")
    if distances is None or distances.empty:
        return None
    beside = tables.published_beside(source.results, source.published).set_index("column")
    average = {
        method: float(beside[f"{method} published"]["av_dist_A"])
        for method in source.results["method"]
        if "av_dist_A" in beside.index and f"{method} published" in beside.columns
    }
    caption = (
        "Distance of each refined atom from its true site. Bars: standard uncertainty along the "
        "displacement. Dashed: average distance of the published refinement."
    )
    picture = source.drawn("distances", figures.distance_figure(distances, average), caption)
    columns = ("method", "label", "element", "multiplicity", "distance_A", "su_A")
    names = ("method", "site", "element", "multiplicity", "distance (Å)", "s.u. (Å)")
    table = plain(distances, columns, names, {"distance_A": "{:.4f}", "su_A": "{:.4f}"})
    return Section(
        "distances", "Distances from the truth", (), (table,), (picture,), (source.download("distances"),)
    )


def _orientations(source: Source) -> Section | None:
    frames = source.table("frame_parameters")
    if frames is None or frames.empty:
        return None
    rms = {
        text: float(np.sqrt(np.nanmean(frames[column] ** 2)))
        for text, column in (
            ("after reduction", "error_reduced_deg"),
            ("after refinement", "error_refined_deg"),
        )
        if frames[column].notna().any()
    }
    quoted = ", ".join(f"{value:.3f}° {text}" for text, value in rms.items())
    caption = (
        "Above: out-of-plane error of each frame's orientation, one rotation common to all frames removed "
        f"(rms {quoted}). Below: tilts refined per frame, relative to the orientations of the reduction."
    )
    picture = source.drawn("orientations", figures.orientation_figure(frames), caption)
    downloads = (source.download("frame_parameters"),)
    return Section("orientations", "Orientations", (), (), (picture,), downloads)


def _scales(source: Source) -> Section | None:
    frames = source.table("frame_parameters")
    if frames is None or frames.empty:
        return None
    caption = "Above: refined scale of each frame. Below: mean thickness of the crystal along the beam."
    picture = source.drawn("scales", figures.scale_figure(frames), caption)
    return Section("scales", "Frame scales and thickness", (), (), (picture,))


def _conditions(source: Source) -> Section | None:
    """How the data were made: every flaw, then every other value of the experiment."""
    groups = _condition_tables(source)
    shown = tuple(groups[name] for name in ("Flaws", "Experiment", "Case") if name in groups)
    note = "Every value that the data were made with, and where it comes from."
    if not shown:
        return None
    return Section("conditions", "Conditions and flaws", (note,), shown, (), (source.download("conditions"),))


def _settings(source: Source) -> Section | None:
    """How the data were treated."""
    groups = _condition_tables(source)
    shown = tuple(groups[name] for name in ("Start", "Reduction", "Solution", "Refinement") if name in groups)
    return Section("settings", "Settings of the analysis", (), shown, folded=True) if shown else None


def _condition_tables(source: Source) -> dict[str, Table]:
    """The table of conditions by part of the case, fields without the name of their part."""
    conditions = source.table("conditions")
    if conditions is None:
        return {}
    owner = [
        next(prefix for prefix in CONDITION_GROUPS if field.startswith(prefix))
        for field in conditions["field"]
    ]
    columns, tables_of = ("field", "value", "meaning", "source"), {}
    for prefix, name in CONDITION_GROUPS.items():
        mine = conditions[[each == prefix for each in owner]]
        if len(mine):
            mine = mine.assign(field=mine["field"].str.removeprefix(prefix))
            tables_of[name] = plain(mine, columns, columns, {}, name)
    return tables_of


BUILDERS: tuple[Callable[[Source], Section | None], ...] = (
    _frames,
    sections_section,
    _rocking,
    _amplitudes,
    _distances,
    structure_section,
    _orientations,
    _scales,
    _conditions,
    _settings,
)
"""The parts of the page of a run in their order; each is left out where its table is missing."""


def _all_columns(results: pd.DataFrame, run_dir: Path) -> Section:
    """results.csv turned on its side: a row per column, a column per method."""
    head = ("column", *map(str, results["method"]))
    rows = []
    for column in results.columns:
        values = [cell(results.iloc[i][column], "{:.6g}") for i in range(len(results))]
        rows.append((Cell(str(column)), *values))
    whole = Download("results.csv", (run_dir / "results.csv").read_bytes())
    return Section(
        "columns", "All columns of results.csv", (), (Table(head, tuple(rows)),), (), (whole,), True
    )
