"""What the analyses share: groups of a results table, means over seeds, and the drawing of a curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis

from nanoed.pipeline.page.drawing import MUTED, literal
from nanoed.studies.figures import SERIES
from nanoed.studies.statistics import share, summarise
from nanoed.studies.sweeps.shown import as_number

MEASURES = (
    *("coverage_pct", "redundancy", "r_int_pct", "n_obs", "n_par", "r_obs_pct", "r_all_pct", "wr_all_pct", "gof"),
    *("av_dist_A", "max_dist_A", "u_rmsd_A2", "occ_max_err", "adp_npd", "hand_z", "hand_right", "pull_rms"),
    *("cell_err_pct", "orientation_err_deg", "thickness_A", "thickness_true_A"),
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GEOMETRIC = frozenset(("av_dist_A", "max_dist_A", "u_rmsd_A2", "orientation_err_deg"))
"""Distances from the truth that are made of several parameters scatter by factors: their means and intervals are those
of the logarithms. (Of one parameter alone, an occupancy or a cell edge, an error may be next to nothing by chance.)"""
SHARES = frozenset(("hand_right",))
SIGNED = frozenset(("hand_z",))
"""All other quantities cannot be negative: intervals end at zero."""
MEAN_IS = "means over the seeds with 95 % intervals; of distances, errors of U and of orientation the geometric mean"
LONGEST_BAR = 5.0
"""Panels reach no further than this beyond the means: the interval of two seeds may be wider by orders of magnitude."""
ARITHMETIC = "arithmetic means over the seeds, of distances too"


def derived(results: pd.DataFrame) -> pd.DataFrame:
    """The results with obs_per_par and hand_right (1 or 0); of results `without_failed`."""
    hand = results["hand_z"]
    return results.assign(
        obs_per_par=results["n_obs"] / results["n_par"],
        hand_right=(hand > 0).astype(float).where(hand.notna()),
    )


def told_apart(results: pd.DataFrame) -> pd.DataFrame:
    """The results with the case beside the structure's name where several cases share it: they are no replicates."""
    shared = results.groupby("structure")["case"].transform("nunique") > 1
    named = results["structure"] + " (" + results["case"] + ")"
    return results.assign(structure=results["structure"].where(~shared, named))


def means(
    results: pd.DataFrame, keys: Sequence[str], columns: Iterable[str], geometric: frozenset[str] = GEOMETRIC
) -> pd.DataFrame:
    """One row per group of `keys`, in order of appearance: runs, failed, and of each column mean, sd and the 95 %
    interval of the mean, over the runs that have a number there.

    Means of the columns in `geometric` are those of the logarithms, all others arithmetic. A column that no row of the
    table has a number in is left out.
    """
    known = [name for name in columns if name in results and results[name].notna().any()]
    rows = []
    for key, group in results.groupby(list(keys), sort=False, dropna=False):
        row: dict[str, Any] = dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True))
        row |= {"runs": len(group), "failed": int((group["status"] != "ok").sum())}
        for name in known:
            numbers = share(group[name]) if name in SHARES else summarise(group[name], name in geometric)
            if name in MEASURES and name not in SIGNED and numbers["mean_low"] < 0:
                numbers["mean_low"] = 0.0
            row[name] = numbers["mean"]
            row |= {f"{name}_{part}": numbers[part] for part in ("sd", "mean_low", "mean_high")}
        rows.append(row)
    return pd.DataFrame(rows)


def positions(labels: Sequence[object]) -> tuple[np.ndarray, bool]:
    """Where the levels stand on an axis, and whether they are numbers (else 0, 1, ... in order)."""
    numbers = np.array([as_number(label) for label in labels])
    if len(numbers) and np.isfinite(numbers).all():
        return numbers, True
    order = {label: float(i) for i, label in enumerate(dict.fromkeys(labels))}
    return np.array([order[label] for label in labels]), False


def draw_series(
    axes: Axes, table: pd.DataFrame, x: str, y: str, label: str, look: tuple[str, str], line: Any = "-"
) -> None:
    """The means of y over the levels of x with their 95 % intervals.

    table : rows of `means`.  look : colour, marker.
    """
    place, numeric = positions(list(table[x]))
    order = np.argsort(place, kind="stable")
    mean = table[y].to_numpy(float)[order]
    low, high = (table[f"{y}_mean_{end}"].to_numpy(float)[order] for end in ("low", "high"))
    least = -np.inf if y in SIGNED or (mean < 0).any() else 0.0
    low = np.where(np.isfinite(low), np.maximum(low, least), mean)
    bars = np.vstack([mean - low, np.where(np.isfinite(high), high, mean) - mean])
    axes.errorbar(
        place[order],
        mean,
        np.maximum(bars, 0),
        fmt=look[1],
        linestyle=line,
        color=look[0],
        elinewidth=0.7,
        capsize=1.5,
        label=literal(label),
    )
    if not numeric:
        names = [literal(table[x].iloc[i]) for i in order]
        axes.set_xticks(place[order], names, rotation=30, ha="right")


def look_of(method: str, i: int) -> tuple[str, str]:
    """Colour and marker of a method, or of the i-th series of anything else."""
    if method in SERIES:
        return SERIES[method][1], SERIES[method][2]
    return COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]


def spans(values: Sequence[float] | np.ndarray) -> bool:
    """Whether positive numbers span so much that a logarithmic axis shows them better."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    return bool(len(x) and x.min() > 0 and x.max() / x.min() >= 8)


def log_x(axes: Axes, values: Sequence[object]) -> None:
    """A logarithmic horizontal axis with a tick, written plainly, at every one of the values."""
    axes.set_xscale("log")
    _plain_ticks(axes.xaxis, values)


def log_y(axes: Axes, values: Sequence[object]) -> None:
    """The same vertically."""
    axes.set_yscale("log")
    _plain_ticks(axes.yaxis, values)


def _plain_ticks(axis: Axis, values: Sequence[object]) -> None:
    numbers = sorted({as_number(value) for value in values})
    axis.set_ticks(numbers, [f"{x:g}" for x in numbers])
    axis.set_ticks([], minor=True)


def limit_line(axes: Axes, value: float) -> None:
    axes.axhline(value, color=MUTED, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
