"""How small may a crystal be: the sizes between which av_dist keeps below each limit, and what sets them.

Settings: `limits_A`, `n_obs_per_par`. Axes of the grid: size_nm, fluence, scan; beam_ratio in a block of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pydantic import Field, PositiveFloat

from nanoed.pipeline.page.drawing import INK, MUTED, literal, styled
from nanoed.pipeline.page.html import Cell, Table
from nanoed.sim.physics.errors import InputError
from nanoed.sim.streams import stream
from nanoed.studies.statistics import Reach, reach_below
from nanoed.studies.sweeps.analyses.common import (
    LONGEST_BAR,
    MARKERS,
    MEAN_IS,
    derived,
    draw_series,
    limit_line,
    log_x,
    log_y,
    look_of,
    means,
    told_apart,
)
from nanoed.studies.sweeps.analyses.settings import LevelNames, Settings, settings_of
from nanoed.studies.sweeps.grid import Labelled
from nanoed.studies.sweeps.outcome import Drawing, Outcome
from nanoed.studies.sweeps.shown import as_number, axis_label, level_cell, page_table, power, sentence

COLUMNS = (
    *(
        "av_dist_A",
        "max_dist_A",
        "r_obs_pct",
        "r_int_pct",
        "u_rmsd_A2",
        "pull_rms",
        "n_obs",
        "n_par",
        "obs_per_par",
    ),
    *("orientation_err_deg", "thickness_true_A"),
)
SHOWN_A = (1e-4, 1.0)
"""Most that is drawn of distances; an interval of few seeds may reach anywhere."""
MAPPED = (-3.5, -1.0)
"""Logarithms of the distances (Å) between which the map has colours."""
SHADES = colormaps["cividis"].resampled(48)  # of 50 and more the bar would be a bitmap, which a dark page inverts
STAGGER = 1.025
"""Factor on the size by which one series stands beside the next."""
PAIR = ("kinematical-frames", "dynamical")
AXES = ("size_nm", "fluence", "scan")
GROUP = ["structure", "scan", "fluence", "method"]


class Limits(Settings):
    """Distances to keep below, Å, and how few observed reflections per parameter are marked."""

    limits_A: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.02, 0.01)
    n_obs_per_par: PositiveFloat = 10.0


def check(settings: Mapping[str, Any], axes: LevelNames, points: Sequence[Labelled]) -> None:
    """Raise InputError for settings that are none, and for a grid without the axes of the analysis."""
    settings_of(Limits, settings)
    for axis in AXES:
        if axis not in axes:
            raise InputError("no such axis", field="block.axes", value=axis, allowed=f"axes {', '.join(AXES)}")


def analyse(results: pd.DataFrame, settings: Mapping[str, Any]) -> Outcome:
    """Tables limits, accuracy, pair and film, and their drawings; a block that was not run leaves its table out."""
    wanted = settings_of(Limits, settings)
    limits, least = wanted.limits_A, wanted.n_obs_per_par
    results = told_apart(derived(results))
    sized = results[results["size_nm"] != ""]
    accuracy = means(sized, [*GROUP, "size_nm"], COLUMNS)
    if "obs_per_par" in accuracy:
        accuracy["few_reflections"] = np.where(accuracy["obs_per_par"] < least, "yes", "")
    reached = limits_table(sized, limits)
    tables, drawings = {"limits": reached, "accuracy": accuracy}, {}
    shown = {"limits": (_shown_limits(reached),), "accuracy": (page_table(accuracy, _ACCURACY, MEAN_IS),)}
    if "av_dist_A" in accuracy:
        drawings = {"map": draw_map(accuracy, reached, least), "accuracy": draw_accuracy(accuracy, limits)}
    pair = pair_table(results)
    if len(pair):
        tables["pair"], drawings["pair"] = pair, draw_pair(pair)
        shown["pair"] = (page_table(pair, _PAIR, "one row per simulated experiment"),)
    film = results[results["beam_ratio"] != ""] if "beam_ratio" in results else results.iloc[:0]
    if len(film):
        tables["film"] = means(film, ["structure", "method", "beam_ratio"], COLUMNS)
        shown["film"] = (page_table(tables["film"], _FILM, MEAN_IS),)
        if "av_dist_A" in tables["film"]:
            drawings["film"] = draw_film(tables["film"])
    return Outcome(tuple(_remarks(reached)), tables, drawings, shown, _TITLES)


_TITLES = {
    "limits": "Smallest size",
    "accuracy": "Accuracy against size",
    "pair": "The dynamical effect",
    "film": "The support film",
}
_NUMBERS = ("runs", "failed", "av_dist_A", "max_dist_A", "r_obs_pct", "r_int_pct", "u_rmsd_A2", "pull_rms")
_ACCURACY = (
    *(*GROUP, "size_nm", "failed", "av_dist_A", "max_dist_A", "r_obs_pct", "u_rmsd_A2", "pull_rms"),
    "obs_per_par",
)
_FILM = ("structure", "method", "beam_ratio", *_NUMBERS)
_PAIR = (
    *("structure", "equiv_diameter_nm", "thickness_true_A", "seed"),
    *("r_obs_pct_kinematical", "r_obs_pct_dynamical", "r_obs_gain"),
    *("av_dist_A_kinematical", "av_dist_A_dynamical", "av_dist_gain"),
)


def limits_table(sized: pd.DataFrame, limits: Sequence[float]) -> pd.DataFrame:
    """Per structure, scan, fluence, method and limit: the sizes between which av_dist is below it, as `Reach` has them.

    smallest_is, largest_is : "at most" / "at least" where the grid ends before the limit is met, "none" where no size
    is below it. An end of an interval is NaN where it lies beyond all sizes, and of a single replicate.
    """
    rows = []
    for key, group in sized.groupby(GROUP, sort=False):
        named: dict[str, Any] = dict(zip(GROUP, key, strict=True))
        values: dict[float, Sequence[float]] = {
            as_number(size): part["av_dist_A"].tolist() for size, part in group.groupby("size_nm")
        }
        for limit in limits:
            found = reach_below(values, limit, stream(1, "size limit", *map(str, key), f"{limit:g}"))
            rows.append(named | {"limit_A": limit, "runs": len(group)} | _reach(found))
    return pd.DataFrame(rows)


def _reach(found: Reach) -> dict[str, Any]:
    ends = (*found.lowest_interval, *found.highest_interval)
    low, high, largest_low, largest_high = (end if math.isfinite(end) else math.nan for end in ends)
    none = "none" if np.isnan(found.lowest) else ""
    return {
        "smallest_nm": found.lowest,
        "smallest_low": low,
        "smallest_high": high,
        "smallest_is": none or ("at most" if found.open_low else ""),
        "largest_nm": found.highest,
        "largest_low": largest_low,
        "largest_high": largest_high,
        "largest_is": none or ("at least" if found.open_high else ""),
    }


def pair_table(results: pd.DataFrame) -> pd.DataFrame:
    """The dynamical effect itself: frame-based kinematical beside dynamical refinement of the same frames, by run."""
    on = ["digest", "structure", "protocol", "fluence_e_A2", "equiv_diameter_nm", "seed", "thickness_true_A"]
    kept = [*on, "r_obs_pct", "av_dist_A", "max_dist_A"]
    once = results.drop_duplicates(["digest", "method"])
    found = once[once["digest"].isin(results.loc[results["method"] == PAIR[0], "digest"])]
    sides = [found.loc[(found["method"] == m) & (found["status"] == "ok"), kept] for m in PAIR]
    both = sides[0].merge(sides[1], on=on, suffixes=("_kinematical", "_dynamical"))
    both["r_obs_gain"] = both["r_obs_pct_kinematical"] / both["r_obs_pct_dynamical"]
    both["av_dist_gain"] = both["av_dist_A_kinematical"] / both["av_dist_A_dynamical"]
    return both


def _shown_limits(limits: pd.DataFrame) -> Table:
    """Smallest and largest size as a reader wants them: a value over its interval, or a word."""
    rows = tuple(
        (
            *(level_cell(row[name]) for name in GROUP),
            Cell(f"{row['limit_A']:g}", row["limit_A"]),
            Cell(f"{row['runs']}", row["runs"]),
            *(Cell(said, row[f"{end}_nm"] if said != "none" else None, note)
              for end in ("smallest", "largest") for said, note in [_size(row, end)]),
        )
        for row in limits.to_dict("records")
    )  # fmt: skip
    head = ("structure", "protocol", "fluence (e/Å²)", "method", "limit (Å)", "runs")
    caption = (
        "Sizes between which the geometric mean of av_dist over the seeds is below the limit, a failed run counting as"
        " infinite; below: 95 % interval, the scatter over the seeds pooled over the sizes ('or more': no size of the"
        " grid is sure to be enough)"
    )
    return Table((*head, "smallest (nm)", "largest (nm)"), rows, caption)


def _size(row: Mapping[Any, Any], end: str) -> tuple[str, str]:
    """The size in words, and its interval."""
    word, value, low, high = (row[f"{end}_{part}"] for part in ("is", "nm", "low", "high"))
    said = "none" if word == "none" else f"{word} {value:.3g}".strip()
    if word in ("at most", "at least"):
        return said, ""
    if math.isfinite(low) and math.isfinite(high):
        return said, f"{low:.3g} to {high:.3g}" if low < high and not word else ""
    if end == "smallest" and math.isfinite(low):
        return said, f"{low:.3g} or more"
    return said, f"{high:.3g} or less" if end == "largest" and math.isfinite(high) and not word else ""


def _remarks(limits: pd.DataFrame) -> list[str]:
    """A sentence per structure, protocol, method and limit: the smallest size at every fluence."""
    said = []
    for key, part in limits.groupby(["structure", "scan", "method", "limit_A"], sort=False):
        structure, scan, method, limit = key
        each = []
        for row in part.to_dict("records"):
            size, interval = _size(row, "smallest")
            most, _ = _size(row, "largest")
            words = "at no size of the grid" if size == "none" else f"from {size} nm"
            words += f" ({interval})" if interval else ""
            words += "" if row["largest_is"] else f" up to {most} nm"
            each.append(f"{words} at {power(row['fluence'])} e/Å²")
        said.append(f"{structure}, {scan}, {method}: av_dist is below {limit:g} Å {'; '.join(each)}.")
    return said


def _panels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(name), part) for name, part in table.groupby("structure", sort=False)]


def draw_accuracy(accuracy: pd.DataFrame, limits: Sequence[float]) -> Drawing:
    """A row of panels per method, a column per structure, a series per scan (marker) and fluence."""
    methods, panels = list(dict.fromkeys(accuracy["method"])), _panels(accuracy)
    scans = list(dict.fromkeys(accuracy["scan"]))
    series = [key for key, _ in accuracy.groupby(["scan", "fluence"], sort=False)]
    labels: dict[str, Any] = {}
    with styled():
        figure = Figure(figsize=(0.8 + 3.3 * len(panels), 0.7 + 2.5 * len(methods)), layout="constrained")
        grid = figure.subplots(len(methods), len(panels), squeeze=False, sharex="col", sharey=True)
        for row, method in zip(grid, methods, strict=True):
            for axes, (name, part) in zip(row, panels, strict=True):
                for k, (scan, fluence) in enumerate(series):
                    mine = (part["method"] == method) & (part["scan"] == scan) & (part["fluence"] == fluence)
                    known = part[mine & part["av_dist_A"].notna()]
                    if len(known):
                        beside = STAGGER ** (k - 0.5 * (len(series) - 1))
                        label, look = f"{scan}, {power(fluence)} e/Å²", look_of("", k)
                        marker = MARKERS[scans.index(scan) % len(MARKERS)]
                        placed = known.assign(size_nm=known["size_nm"].map(as_number) * beside)
                        draw_series(axes, placed, "size_nm", "av_dist_A", label, (look[0], marker))
                        labels.setdefault(label, axes.containers[-1])
                for limit in limits:
                    limit_line(axes, limit)
                axes.set(yscale="log", title=literal(f"{name}, {method}"))
                log_x(axes, list(part["size_nm"]))
            row[0].set_ylabel(axis_label("av_dist_A"))
        for axes in grid[-1]:
            axes.set_xlabel(axis_label("size_nm"))
        drawn = accuracy["av_dist_A"].dropna()
        low, high = max(SHOWN_A[0], drawn.min() / LONGEST_BAR), min(SHOWN_A[1], drawn.max() * LONGEST_BAR)
        grid[0, 0].set_ylim(low, max(high, 2 * low))
        figure.legend(list(labels.values()), list(map(literal, labels)), loc="outside lower center", ncols=3)
    caption = (
        f"Average distance from the truth against size: {MEAN_IS}, over the runs that did not fail; dashed: the limits."
        " Series stand a little beside each other; bars end with the panels."
    )
    return Drawing(figure, "accuracy", caption)


def draw_map(accuracy: pd.DataFrame, reached: pd.DataFrame, least: float) -> Drawing:
    """Size against fluence, dynamical refinement (kinematical where there is no other), with the smallest sizes."""
    method = "dynamical" if (accuracy["method"] == "dynamical").any() else str(accuracy["method"].iloc[0])
    mine = accuracy[accuracy["method"] == method]
    panels = list(mine.groupby(["structure", "scan"], sort=False))
    sizes, fluences = (np.unique(mine[axis].map(as_number)) for axis in ("size_nm", "fluence"))
    rows = len(fluences)
    with styled():
        figure = Figure(figsize=(1.2 + 3.2 * min(len(panels), 2), 0.6 + (0.7 + 0.55 * rows) * -(-len(panels) // 2)),
                        layout="constrained")  # fmt: skip
        shown = figure.subplots(-(-len(panels) // 2), min(len(panels), 2), squeeze=False, sharey=True).ravel()
        for axes, ((structure, scan), part) in zip(shown, panels, strict=False):
            image = _cells(axes, part, fluences, sizes)
            own = reached[(reached["structure"] == structure) & (reached["scan"] == scan)]
            _mark_smallest(axes, own[own["method"] == method], sizes, fluences)
            axes.set(title=literal(f"{structure}, {scan}, {method}"), xlabel=axis_label("size_nm"))
        for axes in shown[len(panels) :]:
            axes.set_axis_off()
        for axes in shown[::2]:
            axes.set_ylabel(axis_label("fluence"))
        beyond = _beyond(np.log10(mine["av_dist_A"].dropna()))
        bar = figure.colorbar(image, ax=list(shown), label=axis_label("av_dist_A"), ticks=[-3, -2, -1], extend=beyond)
        assert bar.solids is not None
        bar.solids.set_edgecolor("face")  # without gaps between the shades
        bar.ax.set_yticklabels(["0.001", "0.01", "0.1"])
        handles, labels = shown[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    caption = (
        "Average distance (Å) by size and fluence, geometric mean over the runs that did not fail; empty: not run;"
        f" –: all failed; hatched: that, or fewer than {least:g} observed reflections per parameter. Symbols and bars:"
        " the smallest size below each limit and its 95 % interval, an arrow where the grid ends before it is met."
    )
    return Drawing(figure, "limits", caption)


def _beyond(values: pd.Series) -> Literal["neither", "min", "max", "both"]:
    """At which ends of the map's colours there are values that they do not reach."""
    low, high = bool((values < MAPPED[0]).any()), bool((values > MAPPED[1]).any())
    return ("both" if high else "min") if low else ("max" if high else "neither")


def _cells(axes: Any, part: pd.DataFrame, fluences: np.ndarray, sizes: np.ndarray) -> Any:
    """The image of one panel, a row per fluence and a column per size; empty where nothing ran."""
    cells = part.assign(
        size=part["size_nm"].map(as_number),
        dose=part["fluence"].map(as_number),
        few=part.get("few_reflections", ""),
    )
    values, few, ran = (
        cells.pivot(index="dose", columns="size", values=column).reindex(index=fluences, columns=sizes).to_numpy()
        for column in ("av_dist_A", "few", "runs")
    )
    values = values.astype(float)
    edges = [np.arange(n + 1) - 0.5 for n in values.shape]
    image = axes.pcolormesh(
        edges[1], edges[0], np.log10(values), cmap=SHADES, vmin=MAPPED[0], vmax=MAPPED[1], edgecolor="face"
    )
    for i, j in zip(*np.nonzero(pd.notna(ran)), strict=True):
        known = np.isfinite(values[i, j])
        colour = ("white" if values[i, j] < 0.02 else "black") if known else INK  # only INK follows a page
        axes.text(
            j, i - 0.22, f"{values[i, j]:.4f}" if known else "–", ha="center", va="center", fontsize=6, color=colour
        )
        if few[i, j] == "yes" or not known:
            axes.add_patch(
                Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="////", edgecolor=MUTED, linewidth=0)
            )
    axes.set_xticks(range(len(sizes)), [f"{x:g}" for x in sizes])
    axes.set_yticks(range(len(fluences)), [power(f"{x:.0e}") for x in fluences])
    return image


def _mark_smallest(axes: Any, reached: pd.DataFrame, sizes: np.ndarray, fluences: np.ndarray) -> None:
    """The smallest size below each limit, with its interval, in the row of its fluence."""

    def place(size: Any) -> np.ndarray:
        return np.interp(np.log(np.asarray(size, float)), np.log(sizes), np.arange(len(sizes)))

    for k, (limit, part) in enumerate(reached.groupby("limit_A", sort=False)):
        known = part[part["smallest_is"] != "none"]
        if known.empty:
            continue
        y = [int(np.argmin(abs(fluences - as_number(f)))) + 0.12 + 0.2 * k for f in known["fluence"]]
        x = place(known["smallest_nm"])
        low, high = known["smallest_low"], known["smallest_high"]
        ends = low.fillna(known["smallest_nm"]), high.fillna(known["smallest_nm"].where(low.isna(), sizes[-1]))
        bars = np.vstack([x - place(ends[0]), place(ends[1]) - x])
        colour, marker = ("#d55e00", "#56b4e9")[k % 2], MARKERS[k % len(MARKERS)]
        label = f"smallest size below {limit:g} Å"
        axes.errorbar(
            x, y, xerr=np.maximum(bars, 0), fmt=marker, color=colour, markeredgecolor="white", markeredgewidth=0.4,
            elinewidth=1.0, capsize=2, label=label, xuplims=(known["smallest_is"] == "at most").to_numpy(),
        )  # fmt: skip


def draw_pair(pair: pd.DataFrame) -> Drawing:
    columns = {
        "r_obs_gain": r"$R_\mathrm{obs}$ kinematical / dynamical",
        "av_dist_gain": "average distance, kinematical / dynamical",
    }
    with styled():
        figure = Figure(figsize=(6.8, 2.9), layout="constrained")
        for axes, (column, label) in zip(figure.subplots(1, 2), columns.items(), strict=True):
            for k, (name, part) in enumerate(_panels(pair)):
                colour, marker = look_of("", k)
                axes.scatter(
                    part["thickness_true_A"] / 10,
                    part[column],
                    s=12,
                    color=colour,
                    marker=marker,
                    label=literal(name),
                    linewidths=0,
                )
            axes.axhline(1, color=MUTED, linewidth=0.6)
            axes.set(xlabel="mean thickness (nm)", ylabel=label)
            most = 1.3 * pair[column].max()
            log_y(axes, [y for y in (0.5, 1, 2, 5, 10, 20, 50, 100) if y < most])
            log_x(axes, [x for x in (1, 2, 5, 10, 20, 50) if x < 0.15 * pair["thickness_true_A"].max()])
        figure.axes[0].legend()
    caption = "The dynamical effect: the same frames refined by frames with either theory, against thickness."
    return Drawing(figure, "pair", caption)


def draw_film(film: pd.DataFrame) -> Drawing:
    """A row of panels per structure: distance and R_obs against the width of the beam, a series per method."""
    labels: dict[str, Any] = {}
    structures = _panels(film)
    with styled():
        figure = Figure(figsize=(6.8, 0.6 + 2.4 * len(structures)), layout="constrained")
        grid = figure.subplots(len(structures), 2, squeeze=False)
        for row, (structure, own) in zip(grid, structures, strict=True):
            for axes, column in zip(row, ("av_dist_A", "r_obs_pct"), strict=True):
                for method, part in own.groupby("method", sort=False):
                    known = part[part[column].notna()] if column in part else part[:0]
                    if len(known):
                        draw_series(axes, known, "beam_ratio", column, str(method), look_of(str(method), 0))
                        labels.setdefault(str(method), axes.containers[-1])
                axes.set(xlabel=axis_label("beam_ratio"), ylabel=axis_label(column), title=literal(structure))
                log_x(axes, list(own["beam_ratio"]))
                axes.set_ylim(bottom=0)
        figure.legend(list(labels.values()), list(labels), loc="outside lower center", ncols=len(labels) or 1)
    caption = (
        "Equal particles in beams of growing width: the support film's share of the frames grows with its square."
        f" {sentence(MEAN_IS)}. No point: every run failed."
    )
    return Drawing(figure, "film", caption)
