"""What each flaw costs: paired differences, by seed, from the runs of the level named `reference`.

Settings: `axis` (default "flaw"), `reference` (default "none"), `columns`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nanoed.pipeline.page.drawing import MUTED, styled
from nanoed.sim.physics.errors import InputError
from nanoed.studies.settings import nearest
from nanoed.studies.statistics import paired_change
from nanoed.studies.sweeps.analyses.common import derived, look_of
from nanoed.studies.sweeps.analyses.settings import LevelNames, Quantities, Settings, settings_of
from nanoed.studies.sweeps.grid import Point
from nanoed.studies.sweeps.outcome import Drawing, Outcome
from nanoed.studies.sweeps.shown import axis_label, label, number, page_table

COLUMNS = ("r_obs_pct", "r_int_pct", "av_dist_A", "max_dist_A", "orientation_err_deg", "cell_err_pct")


class Compared(Settings):
    """The axis whose levels are compared, the level that the others are compared with, and what of them."""

    axis: str = "flaw"
    reference: str = "none"
    columns: Quantities = COLUMNS


def check(settings: Mapping[str, Any], axes: LevelNames, points: Sequence[Point]) -> None:
    """Raise InputError for settings that are none, an axis and a reference level that the grid does not have."""
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
        {"changes": (page_table(table, caption=_CAPTION),)},
    )


def changes(rows: pd.DataFrame, axis: str, reference: str, columns: list[str]) -> pd.DataFrame:
    """Per case, method and level: pairs, and the mean change of each column with its 95 % interval."""
    found = []
    for (case, method), group in rows.groupby(["case", "method"], sort=False):
        base = group[group[axis] == reference]
        for level, other in group.groupby(axis, sort=False):
            if level == reference:
                continue
            row: dict[str, Any] = {"case": case, "method": method, axis: level}
            for column in columns:
                change = paired_change(base[["seed", column]], other[["seed", column]], ["seed"], column)
                row |= {"pairs": change["n"], column: change["mean"]}
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


_CAPTION = "change against the reference level, paired by seed, with the 95 % interval of its mean"


def draw_changes(table: pd.DataFrame, axis: str, columns: list[str], name: str) -> Drawing:
    """The changes of some columns, a panel each and a row per level; name : of the table."""
    levels = list(dict.fromkeys(table[axis]))
    groups = list(table.groupby(["case", "method"], sort=False))
    with styled():
        figure = Figure(figsize=(1.6 + 2.1 * len(columns), 0.9 + 0.24 * len(levels)), layout="constrained")
        panels = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
        for axes, column in zip(panels, columns, strict=True):
            for k, ((case, method), part) in enumerate(groups):
                y = part[axis].map(levels.index) + np.linspace(-0.25, 0.25, max(len(groups), 2))[k]
                low, high = (part[f"{column}_{end}"].fillna(part[column]) for end in ("low", "high"))
                bars = np.vstack([part[column] - low, high - part[column]])
                look = look_of("", k)
                axes.errorbar(
                    part[column],
                    y,
                    xerr=bars,
                    fmt=look[1],
                    color=look[0],
                    elinewidth=0.7,
                    label=f"{case}, {method}",
                )
            axes.locator_params(axis="x", nbins=4)
            axes.axvline(0, color=MUTED, linewidth=0.6)
            axes.set_xlabel("change of " + axis_label(column))
        panels[0].set_yticks(range(len(levels)), levels)
        panels[0].set_ylim(len(levels) - 0.5, -0.5)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    caption = "Change against the reference level, paired by seed; bars are 95 % intervals of the mean."
    return Drawing(figure, name, caption)
