"""What each flaw costs: paired differences, by seed, from the runs of the level named `reference`.

Settings: `axis` (default "flaw"), `reference` (default "none"), `columns`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nanoed.pipeline.page.drawing import INK, MUTED, literal, styled
from nanoed.pipeline.page.html import Table
from nanoed.sim.physics.errors import InputError
from nanoed.studies.settings import nearest
from nanoed.studies.statistics import paired_change
from nanoed.studies.sweeps.analyses.common import MARKERS, derived, look_of
from nanoed.studies.sweeps.analyses.curves import OF_THE_DATA
from nanoed.studies.sweeps.analyses.settings import LevelNames, Quantities, Settings, settings_of
from nanoed.studies.sweeps.grid import Labelled
from nanoed.studies.sweeps.outcome import Drawing, Outcome
from nanoed.studies.sweeps.shown import axis_label, head, label, number, page_table, sentence

COLUMNS = ("r_obs_pct", "r_int_pct", "av_dist_A", "max_dist_A", "orientation_err_deg", "cell_err_pct")


class Compared(Settings):
    """The axis whose levels are compared, the level that the others are compared with, and what of them."""

    axis: str = "flaw"
    reference: str = "none"
    columns: Quantities = COLUMNS


def check(settings: Mapping[str, Any], axes: LevelNames, points: Sequence[Labelled]) -> None:
    """Raise InputError for settings that are none, an axis and a reference level that the grid does not have, and for
    a further axis beside it, whose levels would be paired crosswise."""
    wanted = settings_of(Compared, settings)
    if wanted.axis not in axes:
        raise InputError(
            "no such axis", field="settings.axis", value=wanted.axis, allowed=nearest(wanted.axis, axes)
        )
    levels = list(dict.fromkeys(point.labels[wanted.axis] for point in points if wanted.axis in point.labels))
    if wanted.reference not in levels:
        allowed = nearest(wanted.reference, levels)
        raise InputError("no such level", field="settings.reference", value=wanted.reference, allowed=allowed)
    if len(levels) < 2:
        raise InputError("nothing to compare it with", field="settings.reference", value=wanted.reference,
                         allowed=f"a level beside others of {wanted.axis}")  # fmt: skip
    beside = {other for p in points if wanted.axis in p.labels for other in p.labels if other != wanted.axis}
    if beside:
        raise InputError("another axis beside it; changes are paired by seed alone", field="block.axes",
                         value=min(beside), allowed=wanted.axis)  # fmt: skip


def analyse(results: pd.DataFrame, settings: Mapping[str, Any]) -> Outcome:
    """The table of changes and a drawing of the first three columns."""
    wanted = settings_of(Compared, settings)
    axis, reference = wanted.axis, wanted.reference
    results = derived(results)
    rows = results[results[axis] != ""]
    columns = [c for c in wanted.columns if rows[c].notna().any()]
    if not columns:
        return Outcome(("No refinement has a number that could be compared.",))
    table = changes(rows, axis, reference, columns)
    return Outcome(
        tuple(worst(table, axis, columns[0])),
        {"changes": table},
        {"changes": draw_changes(table, axis, columns[:3], "changes")},
        {"changes": (changes_table(table, columns),)},
    )


def changes(rows: pd.DataFrame, axis: str, reference: str, columns: list[str]) -> pd.DataFrame:
    """Per case, method and level: pairs (of the column with most), and the mean change of each column with its 95 %
    interval."""
    found = []
    for (case, method), group in rows.groupby(["case", "method"], sort=False):
        base = group[group[axis] == reference]
        for level, other in group.groupby(axis, sort=False):
            if level == reference:
                continue
            row: dict[str, Any] = {"case": case, "method": method, axis: level}
            for column in columns:
                change = paired_change(base[["seed", column]], other[["seed", column]], ["seed"], column)
                row["pairs"] = max(row.get("pairs", 0), change["n"])
                row[column] = change["mean"]
                row |= {f"{column}_{end}": change[f"mean_{end}"] for end in ("low", "high")}
            found.append(row)
    return pd.DataFrame(found)


def worst(table: pd.DataFrame, axis: str, column: str) -> list[str]:
    """For each case and method the level that moves a column most, in words."""
    said = []
    for (case, method), part in table.groupby(["case", "method"], sort=False):
        known = part[part[column].notna()]
        if known.empty:
            continue
        row = known.iloc[int(known[column].abs().to_numpy().argmax())]
        moved = f"{case}, {method}: {axis} {row[axis]} moves the {label(column)} most, by {number(column, row[column])}"
        beside = column != "av_dist_A" and "av_dist_A" in part and math.isfinite(row["av_dist_A"])
        distance = f" (the {label('av_dist_A')} by {number('av_dist_A', row['av_dist_A'])})" if beside else ""
        said.append(f"{moved}{distance}.")
    return said


def changes_table(table: pd.DataFrame, columns: Sequence[str]) -> Table:
    """The changes as the page shows them: named as changes, percentages as points."""
    shown = page_table(table, caption=caption(table))
    named = {head(column): change_label(head(column)) for column in columns}
    return replace(shown, head=tuple(named.get(name, name) for name in shown.head))


def caption(table: pd.DataFrame) -> str:
    """What a table or drawing of changes shows."""
    what = "change against the reference level, paired by seed"
    if table["pairs"].max() < 2:
        return f"{what}; one seed, so that there is no interval"
    return f"{what}, with the 95 % interval of its mean"


def change_label(quantity: str) -> str:
    """The change of a quantity in words: that of a percentage is in points."""
    return f"change of {quantity}".replace("(%)", "(points)")


def draw_changes(table: pd.DataFrame, axis: str, columns: list[str], name: str) -> Drawing:
    """The changes of some columns, a panel each and a row per level; name : of the table."""
    levels = list(dict.fromkeys(table[axis]))
    labels: dict[str, Any] = {}
    with styled():
        figure = Figure(figsize=(1.6 + 2.1 * len(columns), 0.9 + 0.24 * len(levels)), layout="constrained")
        panels = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
        for axes, column in zip(panels, columns, strict=True):
            series = _series(table, axis, column)
            places = np.linspace(-0.25, 0.25, len(series)) if len(series) > 1 else [0.0]
            for (label, part, (colour, marker)), beside in zip(series, places, strict=True):
                y = part[axis].map(levels.index) + beside
                low, high = (part[f"{column}_{end}"].fillna(part[column]) for end in ("low", "high"))
                bars = np.vstack([part[column] - low, high - part[column]])
                axes.errorbar(part[column], y, xerr=bars, fmt=marker, color=colour, elinewidth=0.7)
                labels.setdefault(label, axes.containers[-1])
            axes.locator_params(axis="x", nbins=4)
            axes.axvline(0, color=MUTED, linewidth=0.6)
            axes.set_xlabel(change_label(axis_label(column)))
        panels[0].set_yticks(range(len(levels)), list(map(literal, levels)))
        panels[0].set_ylim(len(levels) - 0.5, -0.5)
        figure.legend(list(labels.values()), list(map(literal, labels)), loc="outside lower center", ncols=2)
    said = f"{caption(table)}."
    return Drawing(figure, name, sentence(said))


def _series(table: pd.DataFrame, axis: str, column: str) -> list[tuple[str, pd.DataFrame, tuple[str, str]]]:
    """Label, rows, colour and marker of every case and method; what every method has alike once per case.

    The colour is the method's; the marker too, or that of the case where there are several.
    """
    cases = list(dict.fromkeys(table["case"]))
    markers = {case: MARKERS[k % len(MARKERS)] for k, case in enumerate(cases)}
    if column in OF_THE_DATA:
        most = table.groupby(["case", axis], sort=False)["pairs"].idxmax()
        once = table.loc[most].groupby("case", sort=False)
        return [(f"{case}, data", part, (INK, markers[case])) for case, part in once]
    found = []
    for k, ((case, method), part) in enumerate(table.groupby(["case", "method"], sort=False)):
        colour, marker = look_of(str(method), k)
        found.append((f"{case}, {method}", part, (colour, markers[case] if len(cases) > 1 else marker)))
    return found
