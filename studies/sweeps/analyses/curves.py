"""Means over seeds against one axis of the grid, for studies that ask how one number depends on another.

Settings: `curves`, a list of { name, title, x, y, by, where }: y (one column or several) against the axis or column x,
a series per value of `by` (default: method), of the rows with the values of `where`. title : heading on the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nanoed.pipeline.page.drawing import INK, MUTED, styled
from nanoed.sim.physics.errors import InputError
from nanoed.studies.sweeps.analyses.common import (
    MEAN_IS,
    derived,
    draw_series,
    log_x,
    look_of,
    means,
    positions,
    spans,
)
from nanoed.studies.sweeps.outcome import Drawing, Outcome
from nanoed.studies.sweeps.shown import axis_label, label, number, page_table, power

OF_THE_DATA = frozenset(("r_int_pct", "redundancy", "coverage_pct", "cell_err_pct"))
"""The same for every method: drawn once."""
LONGEST_BAR = 5.0
"""Panels reach no further than this beyond the means: the interval of two seeds may be wider by orders of magnitude."""


def analyse(results: pd.DataFrame, settings: Mapping[str, Any]) -> Outcome:
    """A table and a drawing per curve. Raises InputError for a curve whose columns are not there."""
    results = derived(results)
    tables, drawings, shown, titles, remarks = {}, {}, {}, {}, []
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
        name = spec["name"]
        tables[name] = table
        shown[name] = (page_table(table, caption=MEAN_IS),)
        titles[name] = f"{spec['title'] or name.replace('-', ' ').capitalize()}"
        drawings[name] = Drawing(_figure(table, spec), name, _caption(spec))
        remarks += _remarks(table, spec)
    return Outcome(tuple(remarks), tables, drawings, shown, titles)


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
        "title": str(curve.get("title", "")),
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
    """A panel per structure and quantity: structures side by side, quantities below each other, or along one row."""
    ys = [y for y in spec["y"] if y in table]
    structures = list(dict.fromkeys(table["structure"]))
    in_a_row = len(structures) == 1
    rows, columns = (1, len(ys)) if in_a_row else (len(ys), len(structures))
    handles: dict[str, Any] = {}
    with styled():
        figure = Figure(figsize=(0.6 + 2.7 * columns, 0.5 + 2.2 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharex="col")
        for r, y in enumerate(ys):
            for c, structure in enumerate(structures):
                axes, part = panels[(0, r) if in_a_row else (r, c)], table[table["structure"] == structure]
                _panel(axes, part, y, spec, handles)
                axes.set_ylabel(axis_label(y) if c == 0 else "")
                if r == 0:
                    axes.set_title(structure)
                if in_a_row or r == len(ys) - 1:
                    axes.set_xlabel(axis_label(spec["x"]))
        if len(handles) > 1:
            figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, part: pd.DataFrame, y: str, spec: Mapping[str, Any], handles: dict[str, Any]) -> None:
    """All series of one structure and quantity; what is drawn is noted in `handles` by its name."""
    of_data = spec["by"] == "method" and y in OF_THE_DATA
    for k, (value, series) in enumerate(part.groupby(spec["by"], sort=False)):
        known = series[series[y].notna()]
        if len(known) and of_data:
            draw_series(axes, known, spec["x"], y, "", (INK, "o"))
            break
        if len(known):
            name = _series(spec["by"], value)
            draw_series(axes, known, spec["x"], y, name, look_of(str(value), k))
            handles.setdefault(name, axes.containers[-1])
    _scales(axes, part, spec["x"], y)
    if not axes.containers:
        axes.text(0.5, 0.5, "no result", ha="center", va="center", transform=axes.transAxes, color=MUTED)


def _scales(axes: Axes, part: pd.DataFrame, x: str, y: str) -> None:
    place, numeric = positions(list(part[x]))
    if numeric and spans(place):
        log_x(axes, list(part[x]))
    values = part[y].dropna().to_numpy(float)
    if spans(values):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, values.min() / LONGEST_BAR), min(high, values.max() * LONGEST_BAR))
    elif len(values) and not (values < 0).any():
        axes.set_ylim(0, min(axes.get_ylim()[1], LONGEST_BAR * values.max() or 1.0))


def _caption(spec: Mapping[str, Any]) -> str:
    which = f"{MEAN_IS[:1].upper()}{MEAN_IS[1:]}, against the {label(spec['x'])}; a panel per structure."
    return f"{which} Bars end with the panels, {LONGEST_BAR:g} times beyond the means."


def _remarks(table: pd.DataFrame, spec: Mapping[str, Any]) -> list[str]:
    """The first and the last level of every series in words."""
    said = []
    keys = list(dict.fromkeys(["structure", spec["by"]]))
    y = next(y for y in spec["y"] if y in table)
    for key, part in table.groupby(keys, sort=False):
        known = part[part[y].notna()]
        if len(known) < 2:
            continue
        ends = [
            f"{number(y, row[y])}{_interval(row, y)} at {row[spec['x']]}" for _, row in known.iloc[[0, -1]].iterrows()
        ]
        chosen = [str(value) for wanted in spec["where"].values() for value in wanted]
        series = ", ".join([*(_series(by, k) for by, k in zip(keys, key, strict=True)), *chosen])
        said.append(f"{series}, by {label(spec['x'])}: {label(y)} is {' and '.join(ends)}.")
    return said


def _series(by: str, value: object) -> str:
    return f"{power(value)} e/Å²" if by == "fluence" else str(value)


def _interval(row: pd.Series, y: str) -> str:
    """The interval of a mean in brackets; nothing where one seed gives none."""
    low, high = (float(row[f"{y}_mean_{end}"]) for end in ("low", "high"))
    return f" ({number(y, low)} to {number(y, high)})" if math.isfinite(low) and math.isfinite(high) else ""
