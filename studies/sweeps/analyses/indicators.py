"""Is any reliability indicator informative? Rank correlation of the true error with what an experimenter can see.

Settings: `error` (default av_dist_A), `indicators`, `methods` (default all).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field, model_validator

from nanoed.pipeline.page.drawing import literal, styled
from nanoed.pipeline.page.html import Cell, Table
from nanoed.sim.physics.errors import InputError
from nanoed.studies.case import Method
from nanoed.studies.settings import nearest
from nanoed.studies.statistics import spearman
from nanoed.studies.sweeps.analyses.common import derived, look_of, spans
from nanoed.studies.sweeps.analyses.settings import (
    DERIVED,
    LevelNames,
    Quantities,
    Quantity,
    Settings,
    settings_of,
)
from nanoed.studies.sweeps.grid import Labelled, Point
from nanoed.studies.sweeps.outcome import Drawing, Outcome
from nanoed.studies.sweeps.shown import axis_label, head, label, number
from nanoed.studies.tables import RESULT_COLUMNS

INDICATORS = (
    "r_obs_pct",
    "r_all_pct",
    "wr_all_pct",
    "gof",
    "r_int_pct",
    "redundancy",
    "coverage_pct",
    "obs_per_par",
)


class Correlations(Settings):
    """The error, what it is correlated with, and of which refinements (None: of all)."""

    error: Quantity = "av_dist_A"
    indicators: Quantities = INDICATORS
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _of_another(self) -> Correlations:
        if self.error in self.indicators:
            raise ValueError(f"{self.error} cannot indicate itself")
        return self


def check(settings: Mapping[str, Any], axes: LevelNames, points: Sequence[Labelled]) -> None:
    """Raise InputError for settings that are none."""
    settings_of(Correlations, settings)


def check_methods(settings: Mapping[str, Any], points: Sequence[Point]) -> None:
    """Raise InputError for methods that no case is refined by."""
    run = list(dict.fromkeys(method for point in points for method in point.case.methods))
    for method in settings_of(Correlations, settings).methods or ():
        if method not in run:
            allowed = nearest(method, run)
            raise InputError("no case is refined by it", field="settings.methods", value=method, allowed=allowed)


def analyse(results: pd.DataFrame, settings: Mapping[str, Any]) -> Outcome:
    """The table of correlations, per structure and method and over all structures, and the scatter behind it."""
    wanted = settings_of(Correlations, settings)
    results, error, indicators = derived(results), wanted.error, list(wanted.indicators)
    results = results[results["method"].isin(wanted.methods or results["method"].unique())]
    table = correlations(results, error, indicators)
    columns = ["structure", "method", "case", "seed", error, *indicators]
    points = results.loc[results[error].notna(), columns]
    drawing = Drawing(
        _figure(points, error, indicators),
        "correlations",
        f"The {label(error)} against the indicators; a point is one refinement.",
    )
    return Outcome(
        tuple(_remarks(table, error)),
        {"correlations": table, "scatter": points},
        {"scatter": drawing},
        {"correlations": (_shown(table),), "scatter": ()},
        {"correlations": f"Correlation with the {label(error)}", "scatter": "The refinements behind it"},
    )


def correlations(results: pd.DataFrame, error: str, indicators: list[str]) -> pd.DataFrame:
    """Spearman's rho of each indicator with the error, its 95 % interval and the number of refinements.

    among : "refinements", whose intervals take all of them for independent, or "replicates", which differ by the seed
    alone (same block, axes and case), by ranks among these, where a structure has several sets of them.
    informative : the interval leaves out zero.  Over all structures ranks are of the values as they are.
    """
    rows = []
    for method, of_method in results.groupby("method", sort=False):
        parts = [(str(name), "refinements", part) for name, part in of_method.groupby("structure", sort=False)]
        parts += [(name, "replicates", part) for name, _, part in parts if len(set(_points(part))) > 1]
        if of_method["structure"].nunique() > 1:
            parts.append(("all", "refinements", of_method))
        for structure, among, part in parts:
            groups = _points(part) if among == "replicates" else None
            for name in indicators:
                rho, low, high, n = spearman(part[name], part[error], groups)
                row = {"structure": structure, "method": method, "among": among, "indicator": name}
                row |= {"rho": rho, "rho_low": low, "rho_high": high, "n": n}
                rows.append(row | {"informative": "yes" if low > 0 or high < 0 else "no" if low <= 0 else ""})
    return pd.DataFrame(rows)


def _points(rows: pd.DataFrame) -> list[str]:
    """What every row has in common with those that differ from it by the seed alone."""
    columns = ["case", *(name for name in rows if name not in (*RESULT_COLUMNS, *DERIVED))]
    return [str(values) for values in rows[columns].itertuples(index=False)]


def _shown(table: pd.DataFrame) -> Table:
    """A row per structure, method and what is compared, a column per indicator: rho over its interval."""
    indicators = list(dict.fromkeys(table["indicator"]))
    rows = []
    for key, part in table.groupby(["structure", "method", "among"], sort=False):
        cells = [*(Cell(str(word)) for word in key), Cell(f"{part['n'].max()}", float(part["n"].max()))]
        for row in part.to_dict("records"):
            rho, ends = float(row["rho"]), [number("rho", row[f"rho_{end}"]) for end in ("low", "high")]
            mark = " *" if row["informative"] == "yes" else ""
            known = math.isfinite(rho)
            cells.append(Cell(number("rho", rho) + mark, rho, " to ".join(ends)) if known else Cell("–"))
        rows.append(tuple(cells))
    caption = (
        "Spearman's rank correlation, below it its 95 % interval; *: the interval leaves out zero."
        " Replicates: by ranks among those that differ by the seed alone"
    )
    return Table(("structure", "method", "among", "n", *map(head, indicators)), tuple(rows), caption)


def _remarks(table: pd.DataFrame, error: str) -> list[str]:
    said = []
    for (structure, method, among), part in table.groupby(["structure", "method", "among"], sort=False):
        known = part[part["rho"].notna()]
        if known.empty:
            continue
        good = known[known["informative"] == "yes"]
        what = ", ".join(
            f"{label(r['indicator'])} ({number('rho', r['rho'])},"
            f" {number('rho', r['rho_low'])} to {number('rho', r['rho_high'])})"
            for r in good.to_dict("records")
        )
        n = int(known["n"].max())
        said.append(
            f"{structure}, {method}, {n} {among}: {what or 'no indicator'} is correlated with the {label(error)}."
        )
    looked = int(table["rho"].notna().sum())
    if looked:
        said.append(
            f"{looked} intervals were looked at: of as many indicators that tell nothing, about {0.05 * looked:.0f}"
            " would be called informative by chance."
        )
    else:
        said.append("A rank correlation needs four refinements and more; there are fewer.")
    return said


def _figure(points: pd.DataFrame, error: str, indicators: list[str]) -> Figure:
    rows = -(-len(indicators) // 4)
    with styled():
        figure = Figure(figsize=(7.4, 0.5 + 1.9 * rows), layout="constrained")
        panels = figure.subplots(rows, 4, squeeze=False, sharey=True).ravel()
        for axes, name in zip(panels, indicators, strict=False):
            for k, (method, part) in enumerate(points.groupby("method", sort=False)):
                colour, marker = look_of(str(method), k)
                axes.scatter(
                    part[name],
                    part[error],
                    s=7,
                    marker=marker,
                    color=colour,
                    linewidths=0,
                    alpha=0.7,
                    label=literal(method),
                )
            if spans(points[error].to_numpy(float)):
                axes.set_yscale("log")
            axes.set_xlabel(axis_label(name))
        for axes in panels[len(indicators) :]:
            axes.set_visible(False)
        for axes in panels[::4]:
            axes.set_ylabel(axis_label(error))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
