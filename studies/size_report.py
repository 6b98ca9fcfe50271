"""`nanoed report DIR` for a folder of many runs: accuracy against size, and every row of the results, sortable.

Read: `results.csv` (columns of tables.RESULT_COLUMNS, others beside them; lines that begin with # are remarks).
Written: `report.html` and, where sizes differ, `figures/accuracy.csv` and `.svg`; not in the folder of a study, whose
own page has the means over what its axes hold apart.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from nanoed.pipeline.page.drawing import MUTED, literal, styled
from nanoed.pipeline.page.html import Download, Page, Section, render
from nanoed.sim.physics.files import write_whole
from nanoed.studies.figure_tables import FOLDER
from nanoed.studies.figures import SERIES
from nanoed.studies.page_parts import Source, plain
from nanoed.studies.statistics import summarise
from nanoed.studies.tables import read_many

GOALS_A = (0.02, 0.01)  # average distances from the truth that the size limit is asked for
OF_THE_EXPERIMENT = ["engine", "factors_sim", "factors_refine", "flaws", "shape", "beam_diameter_nm"]
GROUP = ["case", "structure", "protocol", "fluence_e_A2", "method", "equiv_diameter_nm", *OF_THE_EXPERIMENT]
PANEL = ["case", "structure", "protocol", "engine", "factors_sim", "factors_refine", "flaws", "shape"]
"""What a panel of the figure has in common."""
SHOWN = (
    *("case", "structure", "protocol", "equiv_diameter_nm", "fluence_e_A2", "seed", "method", "status"),
    *("n_obs", "n_par", "r_int_pct", "r_obs_pct", "av_dist_A", "max_dist_A", "pull_rms"),
)
MOST_ROWS, MOST_ALARMS = 2000, 8


def size_report(folder: Path, pdf: bool = False) -> Path:
    """Write `report.html` of a folder of many runs from its `results.csv`. Raises InputError for another file."""
    results = read_many(folder / "results.csv")
    of_a_study = (folder / "study.toml").is_file()
    accuracy = None if of_a_study else _accuracy(Source(folder, results, {}, pdf))
    sections = [accuracy] if accuracy is not None else []
    listed = results.head(MOST_ROWS)
    note = f"The first {MOST_ROWS} of {len(results)} rows." if len(results) > MOST_ROWS else ""
    whole = Download("results.csv", (folder / "results.csv").read_bytes())
    table = plain(
        listed, SHOWN, SHOWN, {"av_dist_A": "{:.4f}", "max_dist_A": "{:.4f}", "r_obs_pct": "{:.2f}"}
    )
    sections.append(Section("results", "Results", (note,) if note else (), (table,), (), (whole,)))
    n_cases, n_seeds = results["case"].nunique(), results["seed"].nunique()
    subtitle = f"{len(results)} refinements of {n_cases} cases, {n_seeds} seeds"
    page = Page(folder.absolute().name, subtitle, tuple(_alarms(results)), tuple(sections))
    return write_whole(folder / "report.html", render(page))


def accuracy_table(results: pd.DataFrame) -> pd.DataFrame:
    """Average distance from the truth by all columns of GROUP, over the replicates.

    n : replicates with a result, of `asked`; a run that is listed twice counts once.  av_dist_A : geometric mean, low
    and high its 95 % interval (Student's t; NaN for one replicate); max_dist_A : its mean likewise.  r_obs_pct :
    arithmetic mean.
    """
    rows = []
    again = results.duplicated(["digest", "method"]) & (results["digest"] != "")
    for key, part in results[~again].groupby(GROUP, sort=True, dropna=False):
        average, largest = (summarise(part[name], True) for name in ("av_dist_A", "max_dist_A"))
        rows.append(
            dict(zip(GROUP, key, strict=True))
            | {"asked": len(part), "n": int(average["n"]), "av_dist_A": average["mean"]}
            | {"low_A": average["mean_low"], "high_A": average["mean_high"]}
            | {"max_dist_A": largest["mean"], "r_obs_pct": part["r_obs_pct"].mean()}
        )
    return pd.DataFrame(rows)


def accuracy_figure(table: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """Average distance against size, a panel for all that PANEL names; table : accuracy_table."""
    panels = list(table.groupby(PANEL, sort=True))
    differ = [name for name in PANEL[3:] if table[name].nunique() > 1]
    fluences = sorted(table["fluence_e_A2"].unique())
    lines = dict(
        zip(fluences, ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1))) * len(fluences), strict=False)
    )
    with styled():
        columns = min(len(panels), 2)
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, (key, part) in zip(grid, panels, strict=False):
            own = dict(zip(PANEL, map(str, key), strict=True))
            mine = results[(results[PANEL] == list(key)).all(axis=1)]
            for (method, fluence), curve in part.groupby(["method", "fluence_e_A2"], sort=True):
                label, colour, marker = SERIES.get(str(method), (literal(method), MUTED, "x"))
                label += f", {float(f'{fluence:.3g}'):g} e Å$^{{-2}}$" if len(fluences) > 1 else ""
                seen = curve[curve["n"] > 0]
                bars = [seen["av_dist_A"] - seen["low_A"], seen["high_A"] - seen["av_dist_A"]]
                style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": lines[fluence]}
                axes.errorbar(seen["equiv_diameter_nm"], seen["av_dist_A"], np.nan_to_num(bars), label=label,
                              elinewidth=0.7, capsize=1.5, **style)  # fmt: skip
                each = mine[(mine["method"] == method) & (mine["fluence_e_A2"] == fluence)]
                axes.scatter(
                    each["equiv_diameter_nm"], each["av_dist_A"], s=4, color=colour, alpha=0.35, linewidths=0
                )
            for goal in GOALS_A:
                axes.axhline(goal, color=MUTED, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
            title = f"{own['case']} ({own['structure']}), {own['protocol'].replace('_', ' ')}"
            title += "".join(f", {own[name]}" for name in differ)
            axes.set(xscale="log", yscale="log", title=literal(title))
            axes.set_xlabel("diameter of the sphere of equal volume (nm)")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(
                FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "235" else "")
            )
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        grid[0].set_ylabel("average distance from the truth (Å)")
        figure.legend(*_legend(grid), loc="outside lower center", ncols=2)
    return figure


def _legend(grid: Any) -> tuple[list[Any], list[str]]:
    """Every label of all panels once."""
    found: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _accuracy(source: Source) -> Section | None:
    results, folder = source.results, source.folder
    if results["equiv_diameter_nm"].nunique() < 2 or not (results["av_dist_A"] > 0).any():
        return None
    table = accuracy_table(results)
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_whole(folder / FOLDER / "accuracy.csv", text)
    caption = (
        "Geometric mean over the replicates, bars: its 95 % interval; small dots: every replicate. "
        f"Dashed: {' and '.join(f'{goal:g}' for goal in GOALS_A)} Å."
    )
    picture = source.drawn("accuracy", accuracy_figure(table, results), caption)
    names = tuple(str(column) for column in table.columns)
    forms = dict.fromkeys(("av_dist_A", "low_A", "high_A", "max_dist_A"), "{:.4f}") | {"r_obs_pct": "{:.2f}"}
    shown = plain(table, names, names, forms)
    download = Download("accuracy.csv", text.encode())
    return Section("accuracy", "Accuracy against size", (), (shown,), (picture,), (download,))


def _alarms(results: pd.DataFrame) -> list[str]:
    """What went wrong, most frequent first."""
    bad = results[results["status"] != "ok"]
    counted = (bad["method"] + ": " + bad["status"] + ". " + bad["message"]).value_counts()
    told = [f"{n} × {text}" for text, n in counted.head(MOST_ALARMS).items()]
    rest = int(counted.iloc[MOST_ALARMS:].sum())
    return [*told, f"{rest} others, see the table of results."] if rest else told
