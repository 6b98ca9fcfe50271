"""How small may a crystal be: the sizes between which av_dist keeps below each limit, and what sets them.

Settings: `limits_A`, `n_obs_per_par`. Axes of the grid: size_nm, fluence, scan; beam_ratio in a block of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nanoed.pipeline.page.drawing import INK, MUTED, styled
from nanoed.sim.physics.errors import InputError
from nanoed.sim.streams import stream
from nanoed.studies.sweeps.analyses.common import (
    LABELS,
    MARKERS,
    as_number,
    derived,
    draw_series,
    limit_line,
    log_x,
    look_of,
    means,
)
from nanoed.studies.sweeps.outcome import Drawing, Outcome
from nanoed.studies.sweeps.statistics import Reach, reach_below

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
PAIR = ("kinematical-frames", "dynamical")
GROUP = ["structure", "scan", "fluence", "method"]


def analyse(results: pd.DataFrame, settings: Mapping[str, Any]) -> Outcome:
    """Tables accuracy, limits, pair and film, and their drawings; a block that was not run leaves its table out."""
    for axis in ("size_nm", "fluence", "scan"):
        if axis not in results:
            raise InputError(
                "no such axis", field="block.axes", value=axis, allowed="axes size_nm, fluence and scan"
            )
    limits = [float(x) for x in settings.get("limits_A", (0.02, 0.01))]
    least = float(settings.get("n_obs_per_par", 10))
    results = derived(results)
    sized = results[results["size_nm"] != ""]
    tables, drawings = {}, {}
    accuracy = means(sized, [*GROUP, "size_nm"], COLUMNS)
    if "obs_per_par" in accuracy:
        accuracy["few_reflections"] = np.where(accuracy["obs_per_par"] < least, "yes", "")
    tables["accuracy"], tables["limits"] = accuracy, limits_table(sized, limits)
    if "av_dist_A" in accuracy:
        drawings["accuracy"] = _accuracy(accuracy, limits)
        drawings["map"] = _map(accuracy, limits)
    pair = pair_table(results)
    if len(pair):
        tables["pair"], drawings["pair"] = pair, _pair(pair)
    film = results[results["beam_ratio"] != ""] if "beam_ratio" in results else results.iloc[:0]
    if len(film):
        tables["film"] = means(film, ["structure", "method", "beam_ratio"], COLUMNS)
        drawings["film"] = _film(tables["film"])
    return Outcome(tuple(_remarks(tables["limits"])), tables, drawings)


def limits_table(sized: pd.DataFrame, limits: Sequence[float]) -> pd.DataFrame:
    """Per structure, scan, fluence, method and limit: the sizes between which av_dist is below it, as `Reach` has them.

    smallest_is, largest_is : "at most" / "at least" where the grid ends before the limit is met, "none" where no size
    is below it.
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
    none = "none" if np.isnan(found.lowest) else ""
    return {
        "smallest_nm": found.lowest,
        "smallest_low": found.lowest_interval[0],
        "smallest_high": found.lowest_interval[1],
        "smallest_is": none or ("at most" if found.open_low else ""),
        "largest_nm": found.highest,
        "largest_low": found.highest_interval[0],
        "largest_high": found.highest_interval[1],
        "largest_is": none or ("at least" if found.open_high else ""),
    }


def pair_table(results: pd.DataFrame) -> pd.DataFrame:
    """The dynamical effect itself: frame-based kinematical beside dynamical refinement of the same frames, by run."""
    on = ["structure", "protocol", "fluence_e_A2", "equiv_diameter_nm", "seed", "thickness_true_A"]
    kept = [*on, "r_obs_pct", "av_dist_A", "max_dist_A"]
    found = results[results["digest"].isin(results.loc[results["method"] == PAIR[0], "digest"])]
    sides = [found.loc[(found["method"] == m) & (found["status"] == "ok"), kept] for m in PAIR]
    both = sides[0].merge(sides[1], on=on, suffixes=("_kinematical", "_dynamical"))
    both["r_obs_gain"] = both["r_obs_pct_kinematical"] / both["r_obs_pct_dynamical"]
    both["av_dist_gain"] = both["av_dist_A_kinematical"] / both["av_dist_A_dynamical"]
    return both


def _remarks(limits: pd.DataFrame) -> list[str]:
    said = []
    for row in limits.to_dict("records"):
        where = f"{row['structure']}, {row['scan']}, {row['fluence']} e/Å², {row['method']}"
        if row["smallest_is"] == "none":
            said.append(f"{where}: no size of the grid has av_dist below {row['limit_A']:g} Å.")
            continue
        least = f"{row['smallest_is']} {row['smallest_nm']:.3g}".strip() + " nm"
        if math.isfinite(row["smallest_low"]) and row["smallest_is"] == "":
            least += f" ({row['smallest_low']:.3g} to {row['smallest_high']:.3g})"
        most = "" if row["largest_is"] else f", and up to {row['largest_nm']:.3g} nm"
        said.append(f"{where}: av_dist is below {row['limit_A']:g} Å from {least}{most}.")
    return said


def _panels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(name), part) for name, part in table.groupby("structure", sort=False)]


def _accuracy(accuracy: pd.DataFrame, limits: Sequence[float]) -> Drawing:
    panels, lines = _panels(accuracy), ("-", (0, (5, 2)), (0, (1, 1.5)))
    scans = list(dict.fromkeys(accuracy["scan"]))
    labels: dict[str, Any] = {}
    with styled():
        figure = Figure(figsize=(0.8 + 3.3 * len(panels), 3.6), layout="constrained")
        for axes, (name, part) in zip(
            figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True
        ):
            for (scan, fluence, method), series in part.groupby(["scan", "fluence", "method"], sort=False):
                known = series[series["av_dist_A"].notna()]
                style = lines[list(dict.fromkeys(part["fluence"])).index(fluence) % len(lines)]
                if len(known):
                    label = f"{method}, {scan}, {fluence}" + " e Å$^{-2}$"
                    colour, marker = look_of(str(method), 0)
                    marker = MARKERS[scans.index(scan) % len(MARKERS)] if len(scans) > 1 else marker
                    draw_series(axes, known, "size_nm", "av_dist_A", label, (colour, marker), style)
                    labels.setdefault(label, axes.containers[-1])
            for limit in limits:
                limit_line(axes, limit)
            axes.set(yscale="log", title=name, xlabel=LABELS["size_nm"])
            log_x(axes, list(part["size_nm"]))
        figure.axes[0].set_ylabel(LABELS["av_dist_A"])
        figure.legend(list(labels.values()), list(labels), loc="outside lower center", ncols=2, handlelength=3.5)
    caption = "Average distance from the truth against size: means over the seeds, 95 % intervals; dashed: the limits."
    return Drawing(figure, "accuracy", caption)


def _map(accuracy: pd.DataFrame, limits: Sequence[float]) -> Drawing:
    """Size against fluence, dynamical refinement (kinematical where there is no other)."""
    method = "dynamical" if (accuracy["method"] == "dynamical").any() else str(accuracy["method"].iloc[0])
    panels = _panels(accuracy[accuracy["method"] == method])
    with styled():
        figure = Figure(figsize=(1.2 + 3.2 * len(panels), 2.9), layout="constrained")
        shown = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (name, part) in zip(shown, panels, strict=True):
            cells = part.assign(size=part["size_nm"].map(as_number), dose=part["fluence"].map(as_number))
            best = cells.sort_values("av_dist_A").groupby(["dose", "size"], as_index=False).first()
            table = best.pivot(index="dose", columns="size", values="av_dist_A")
            marked = best.get("few_reflections", "")
            few = best.assign(few=marked).pivot(index="dose", columns="size", values="few")
            image = axes.imshow(
                np.log10(table.to_numpy(float)),
                origin="lower",
                aspect="auto",
                cmap="cividis",
                vmin=-3.5,
                vmax=-1,
            )
            for i, j in np.ndindex(table.shape):
                value = table.to_numpy(float)[i, j]
                text = (
                    "–"
                    if np.isnan(value)
                    else f"{value:.3f}" + ("\n<10 n" if few.to_numpy()[i, j] == "yes" else "")
                )
                below = np.isfinite(value) and value < min(limits)
                colour = "white" if np.isfinite(value) and value < 0.02 else INK
                axes.text(
                    j,
                    i,
                    text,
                    ha="center",
                    va="center",
                    fontsize=6,
                    color=colour,
                    weight="bold" if below else "normal",
                )
            axes.set_xticks(range(table.shape[1]), [f"{x:g}" for x in table.columns])
            axes.set_yticks(range(table.shape[0]), [f"{x:.0e}".replace("e+0", "e") for x in table.index])
            axes.set(title=f"{name}, {method}", xlabel=LABELS["size_nm"])
        shown[0].set_ylabel(r"fluence (e Å$^{-2}$)")
        bar = figure.colorbar(image, ax=list(shown), label="average distance (Å)", ticks=[-3, -2, -1])
        bar.ax.set_yticklabels(["0.001", "0.01", "0.1"])
    few_words = (
        "'<10 n' marks fewer than ten observed reflections per parameter"
        if "few_reflections" in accuracy
        else ""
    )
    caption = f"Average distance (Å) by size and fluence, best protocol; bold: below the smallest limit; {few_words}."
    return Drawing(figure, "accuracy", caption)


def _pair(pair: pd.DataFrame) -> Drawing:
    columns = {
        "r_obs_gain": r"$R_\mathrm{obs}$ kinematical / dynamical",
        "av_dist_gain": "av_dist kinematical / dynamical",
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
                    label=name,
                    linewidths=0,
                )
            axes.axhline(1, color=MUTED, linewidth=0.6)
            axes.set(yscale="log", xlabel="mean thickness (nm)", ylabel=label)
            log_x(axes, [x for x in (1, 2, 5, 10, 20, 50) if x < 0.15 * pair["thickness_true_A"].max()])
        figure.axes[0].legend()
    caption = "The dynamical effect: the same frames refined by frames with either theory, against thickness."
    return Drawing(figure, "pair", caption)


def _film(film: pd.DataFrame) -> Drawing:
    with styled():
        figure = Figure(figsize=(6.8, 2.8), layout="constrained")
        for axes, column in zip(figure.subplots(1, 2), ("av_dist_A", "r_obs_pct"), strict=True):
            for method, part in film.groupby("method", sort=False):
                if column in part and part[column].notna().any():
                    draw_series(
                        axes,
                        part[part[column].notna()],
                        "beam_ratio",
                        column,
                        str(method),
                        look_of(str(method), 0),
                    )
            axes.set(xlabel=LABELS["beam_ratio"], ylabel=LABELS[column])
            log_x(axes, list(film["beam_ratio"]))
            axes.set_ylim(bottom=0)
        figure.axes[0].legend()
    caption = "Equal particles in beams of growing width: the support film's share of the frames grows with its square."
    return Drawing(figure, "film", caption)
