"""Means over seeds against one axis of the grid, for studies that ask how one number depends on another.

Settings: `curves`, a list of { name, x, y, by, where }: y (one column or several) against the axis or column x, a
series per value of `by` (default: method), of the rows with the values of `where`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from nanoed.pipeline.page.drawing import styled
from nanoed.sim.physics.errors import InputError
from nanoed.studies.sweeps.analyses.common import (
    LABELS,
    derived,
    draw_series,
    log_x,
    look_of,
    means,
    positions,
    spans,
)
from nanoed.studies.sweeps.outcome import Drawing, Outcome


def analyse(results: pd.DataFrame, settings: Mapping[str, Any]) -> Outcome:
    """A table and a drawing per curve. Raises InputError for a curve whose columns are not there."""
    results = derived(results)
    tables, drawings, remarks = {}, {}, []
    for i, curve in enumerate(settings.get("curves", [])):
        spec = _checked(curve, i, results)
        rows = results
        for column, wanted in spec["where"].items():
            rows = rows[rows[column].astype(str).isin([str(w) for w in wanted])]
        rows = rows[rows[spec["x"]].astype(str) != ""]
        if rows.empty:
            continue
        table = means(
            rows,
            ["structure", spec["by"], spec["x"]] if spec["by"] != "structure" else ["structure", spec["x"]],
            spec["y"],
        )
        if not any(y in table for y in spec["y"]):
            continue
        tables[spec["name"]] = table
        drawings[spec["name"]] = Drawing(_figure(table, spec), spec["name"], _caption(spec))
        remarks += _remarks(table, spec)
    return Outcome(tuple(remarks), tables, drawings)


def _checked(curve: Any, i: int, results: pd.DataFrame) -> dict[str, Any]:
    field = f"settings.curves.{i}"
    if not isinstance(curve, Mapping) or not {"name", "x", "y"} <= set(curve):
        raise InputError(
            "not a curve", field=field, value=curve, allowed="name, x, y and, if wanted, by and where"
        )
    y = curve["y"] if isinstance(curve["y"], list) else [curve["y"]]
    where = {
        key: value if isinstance(value, list) else [value] for key, value in curve.get("where", {}).items()
    }
    spec = {
        "name": str(curve["name"]),
        "x": curve["x"],
        "y": y,
        "by": curve.get("by", "method"),
        "where": where,
    }
    for column in (spec["x"], spec["by"], *y, *where):
        if column not in results:
            raise InputError(
                "no such column of the results", field=field, value=column, allowed="an axis or a column"
            )
    return spec


def _figure(table: pd.DataFrame, spec: Mapping[str, Any]) -> Figure:
    """Columns of panels: structures; rows: quantities."""
    ys = [y for y in spec["y"] if y in table]
    structures = list(dict.fromkeys(table["structure"]))
    with styled():
        figure = Figure(figsize=(0.6 + 3.2 * len(structures), 0.4 + 2.3 * len(ys)), layout="constrained")
        panels = figure.subplots(len(ys), len(structures), squeeze=False, sharex="col")
        for r, y in enumerate(ys):
            for c, structure in enumerate(structures):
                axes, part = panels[r][c], table[table["structure"] == structure]
                for k, (value, series) in enumerate(part.groupby(spec["by"], sort=False)):
                    series = series[series[y].notna()]
                    if len(series):
                        draw_series(axes, series, spec["x"], y, str(value), look_of(str(value), k))
                _scales(axes, part, spec["x"], y)
                axes.set_ylabel(LABELS.get(y, y) if c == 0 else "")
                if r == 0:
                    axes.set_title(structure)
                if r == len(ys) - 1:
                    axes.set_xlabel(LABELS.get(spec["x"], spec["x"].replace("_", " ")))
        handles, labels = panels[0][0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3))
    return figure


def _scales(axes: Any, part: pd.DataFrame, x: str, y: str) -> None:
    place, numeric = positions(list(part[x]))
    if numeric and spans(place):
        log_x(axes, list(part[x]))
    if spans(part[y].to_numpy(float)):
        axes.set_yscale("log")


def _caption(spec: Mapping[str, Any]) -> str:
    return f"Means over the seeds with 95 % intervals, against {spec['x'].replace('_', ' ')}; a panel per structure."


def _remarks(table: pd.DataFrame, spec: Mapping[str, Any]) -> list[str]:
    """The first and the last level of every series in words."""
    said = []
    keys = list(dict.fromkeys(["structure", spec["by"]]))
    y = next(y for y in spec["y"] if y in table)
    for key, part in table.groupby(keys, sort=False):
        known = part[part[y].notna()]
        if len(known) < 2:
            continue
        ends = [f"{row[y]:.4g} at {row[spec['x']]}" for _, row in known.iloc[[0, -1]].iterrows()]
        said.append(f"{spec['name']}, {', '.join(str(k) for k in key)}: {y} is {' and '.join(ends)}.")
    return said
