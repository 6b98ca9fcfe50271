"""Means over seeds against one axis of the grid, for studies that ask how one number depends on another.

Settings: `curves`, a list of { name, title, x, y, by, where }, see Curve; y is one column or several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from nanoed.pipeline.page.drawing import INK, MUTED, literal, styled
from nanoed.sim.physics.errors import InputError
from nanoed.studies.settings import nearest
from nanoed.studies.sweeps.analyses.common import (
    LONGEST_BAR,
    MEAN_IS,
    SIGNED,
    derived,
    draw_series,
    log_x,
    look_of,
    means,
    positions,
    spans,
    told_apart,
)
from nanoed.studies.sweeps.analyses.settings import (
    LevelNames,
    Quantities,
    Settings,
    known_column,
    settings_of,
)
from nanoed.studies.sweeps.grid import Labelled
from nanoed.studies.sweeps.outcome import TAKEN, Drawing, Outcome
from nanoed.studies.sweeps.shown import axis_label, label, number, page_table, power, sentence

OF_THE_DATA = frozenset(("r_int_pct", "redundancy", "coverage_pct", "cell_err_pct"))
"""The same for every method: drawn once."""


def _several(given: Any) -> Any:
    """One value as a list of one."""
    return given if isinstance(given, list | tuple) else (given,)


def _free(name: str) -> str:
    if name in TAKEN:
        raise ValueError("the name of another file of the study")
    return name


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"), AfterValidator(_free)]


def _text(value: object) -> str:
    """A label or a number as `where` writes it."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


Label = Annotated[str, BeforeValidator(_text)]


class Curve(Settings):
    """y against x, a series per value of `by`, of the rows with the values of `where`; title : heading on the page."""

    name: FileName
    title: str = ""
    x: str
    y: Annotated[Quantities, BeforeValidator(_several)]
    by: str = "method"
    where: dict[str, Annotated[tuple[Label, ...], BeforeValidator(_several)]] = Field(default_factory=dict)

    @property
    def heading(self) -> str:
        return self.title or self.name.replace("-", " ").capitalize()


class Curves(Settings):
    """The curves, each of another name."""

    curves: tuple[Curve, ...] = ()

    @field_validator("curves")
    @classmethod
    def _named_once(cls, value: tuple[Curve, ...]) -> tuple[Curve, ...]:
        if len({curve.name for curve in value}) < len(value):
            raise ValueError("two curves have the same name")
        return value


def check(settings: Mapping[str, Any], axes: LevelNames, points: Sequence[Labelled]) -> None:
    """Raise InputError for settings that are none, and for a curve whose columns will not be there."""
    for i, curve in enumerate(settings_of(Curves, settings).curves):
        for column in (curve.x, curve.by, *curve.where):
            known_column(column, axes, f"settings.curves.{i}")
        for axis, labels in curve.where.items():
            for level in labels if axis in axes else ():
                if level not in axes[axis]:
                    field = f"settings.curves.{i}.where.{axis}"
                    raise InputError("no such level", field=field, value=level, allowed=nearest(level, axes[axis]))


def analyse(results: pd.DataFrame, settings: Mapping[str, Any]) -> Outcome:
    """A table and a drawing per curve; one without any number is left out."""
    results = told_apart(derived(results))
    tables, drawings, shown, titles, remarks = {}, {}, {}, {}, []
    for curve in settings_of(Curves, settings).curves:
        rows = results
        for column, wanted in curve.where.items():
            rows = rows[rows[column].map(_text).isin(wanted)]
        rows = rows[rows[curve.x].astype(str) != ""]
        if rows.empty:
            continue
        table = means(rows, list(dict.fromkeys(("structure", curve.by, curve.x))), curve.y)
        if not any(y in table for y in curve.y):
            continue
        tables[curve.name] = table
        shown[curve.name] = (page_table(table, caption=MEAN_IS),)
        titles[curve.name] = curve.heading
        drawings[curve.name] = Drawing(_figure(table, curve), curve.name, _caption(curve))
        remarks += _remarks(table, curve)
    return Outcome(tuple(remarks), tables, drawings, shown, titles)


def _figure(table: pd.DataFrame, curve: Curve) -> Figure:
    """A panel per structure and quantity: structures side by side, quantities below each other, or along one row."""
    ys = [y for y in curve.y if y in table]
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
                _panel(axes, part, y, curve, handles)
                axes.set_ylabel(axis_label(y) if c == 0 else "")
                if r == 0:
                    axes.set_title(literal(structure))
                if in_a_row or r == len(ys) - 1:
                    axes.set_xlabel(axis_label(curve.x))
        if len(handles) > 1:
            figure.legend(list(handles.values()), list(map(literal, handles)), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, part: pd.DataFrame, y: str, curve: Curve, handles: dict[str, Any]) -> None:
    """All series of one structure and quantity; what is drawn is noted in `handles` by its name."""
    of_data = curve.by == "method" and y in OF_THE_DATA
    for k, (value, series) in enumerate(part.groupby(curve.by, sort=False)):
        known = series[series[y].notna()]
        if len(known) and of_data:
            draw_series(axes, known, curve.x, y, "", (INK, "o"))
            break
        if len(known):
            name = _series(curve.by, value)
            draw_series(axes, known, curve.x, y, name, look_of(str(value), k))
            handles.setdefault(name, axes.containers[-1])
    _scales(axes, part, curve.x, y)
    if not axes.containers:
        axes.text(0.5, 0.5, "no result", ha="center", va="center", transform=axes.transAxes, color=MUTED)


def _scales(axes: Axes, part: pd.DataFrame, x: str, y: str) -> None:
    place, numeric = positions(list(part[x]))
    if numeric and spans(place):
        log_x(axes, list(part[x]))
    values = part[y].dropna().to_numpy(float)
    if y in SIGNED:
        most = LONGEST_BAR * max(map(abs, values.tolist()), default=0.0) or 1.0
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -most), min(high, most))
    elif spans(values):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, values.min() / LONGEST_BAR), min(high, values.max() * LONGEST_BAR))
    elif len(values) and not (values < 0).any():
        axes.set_ylim(0, min(axes.get_ylim()[1], LONGEST_BAR * values.max() or 1.0))


def _caption(curve: Curve) -> str:
    which = f"{sentence(MEAN_IS)}, against the {label(curve.x)}; a panel per structure."
    return f"{which} Bars end with the panels, {LONGEST_BAR:g} times beyond the means."


def _remarks(table: pd.DataFrame, curve: Curve) -> list[str]:
    """The first and the last level of every series in words."""
    said = []
    keys = list(dict.fromkeys(["structure", curve.by]))
    y = next(y for y in curve.y if y in table)
    for key, part in table.groupby(keys, sort=False):
        known = part[part[y].notna()]
        if len(known) < 2:
            continue
        ends = [
            f"{number(y, row[y])}{_interval(row, y)} at {row[curve.x]}" for _, row in known.iloc[[0, -1]].iterrows()
        ]
        chosen = [value for wanted in curve.where.values() for value in wanted]
        series = ", ".join([*(_series(by, k) for by, k in zip(keys, key, strict=True)), *chosen])
        said.append(f"{series}, by {label(curve.x)}: {label(y)} is {' and '.join(ends)}.")
    return said


def _series(by: str, value: object) -> str:
    return f"{power(value)} e/Å²" if by == "fluence" else str(value)


def _interval(row: pd.Series, y: str) -> str:
    """The interval of a mean in brackets; nothing where one seed gives none."""
    low, high = (float(row[f"{y}_mean_{end}"]) for end in ("low", "high"))
    return f" ({number(y, low)} to {number(y, high)})" if math.isfinite(low) and math.isfinite(high) else ""
