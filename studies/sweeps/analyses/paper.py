"""The published tables beside their simulation: where they agree, where not, and which flaw is responsible.

Blocks of the grid: those with axis `flaw_off` hold the runs with one flaw off, those with axis `added` runs with
something more, those with axis `cations` the two distributions of cations, those with axis `reduced` another reduction
of the same frames ("refined": orientations and scales refined before merging; "spread": other s.u.); all others are
data sets of the tables. Method "kinematical-unit" stands beside in the table of weights alone.
Published: cases/published.csv.  Means over the seeds are arithmetic, of distances too, as in the published tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nanoed.pipeline.page.drawing import literal, styled
from nanoed.pipeline.page.html import Cell, Table
from nanoed.sim.physics.errors import InputError
from nanoed.studies.case import load_case, shipped_cases
from nanoed.studies.statistics import summarise
from nanoed.studies.sweeps.analyses import gaps
from nanoed.studies.sweeps.analyses.flaws import changes, changes_table, draw_changes
from nanoed.studies.sweeps.analyses.settings import LevelNames, Settings, settings_of
from nanoed.studies.sweeps.analyses.treatments import (
    LEAST_SEEDS,
    NAMES,
    OF_THE_DATA,
    REFINED_CAPTION,
    WITHIN,
    Published,
    as_refined,
    ordering,
    refined_table,
    treatment_table,
)
from nanoed.studies.sweeps.analyses.weighting import shown_weights, weights_sentences, weights_table
from nanoed.studies.sweeps.grid import Labelled
from nanoed.studies.sweeps.outcome import Drawing, Outcome
from nanoed.studies.sweeps.shown import label, number, page_table, sentence
from nanoed.studies.tables import published_value

QUANTITIES = (
    *(
        "coverage_pct",
        "redundancy",
        "r_int_pct",
        "n_all",
        "n_obs",
        "n_par",
        "r_obs_pct",
        "r_all_pct",
        "wr_all_pct",
    ),
    *("gof", "av_dist_A", "max_dist_A"),
)
_COMPARED = (
    *("dataset", "method", "quantity", "published", "simulated", "sd", "p5", "p95", "seeds", "failed"),
    *("difference", "agrees"),
)
TABLES: Mapping[str, tuple[str, ...]] = {
    "table-1": tuple(
        f"brookite-{name}" for name in ("ua", "iit", "cnrs-01", "cnrs-02", "cnrs-03", "cnrs-04")
    ),
    "table-2": ("ito-01", "ito-02", "ito-03", "anatase"),
    "table-4": ("mgti2o5",),
}
DISTANCES = ("av_dist_A", "max_dist_A")
REDUCED = ("", "refined", "spread")
"""Levels of the axis `reduced`, and none."""
FLAW_COLUMNS = ["r_obs_pct", "r_int_pct", "av_dist_A", "max_dist_A"]


class Remarked(Settings):
    """A sentence for the top of the page."""

    remark: str = ""


def analyse(results: pd.DataFrame, settings: Mapping[str, Any]) -> Outcome:
    """Tables 1 to 4, all comparisons, the changes by flaw, what would close the gaps, the radar plots."""
    published = {
        name: load_case(name).published_values() for name in shipped_cases() if name in set(results["case"])
    }
    off, added, reduced = (_axis(results, name) for name in ("flaw_off", "added", "reduced"))
    plain = (off == "") & (added == "") & (reduced == "")
    main = results[plain & (_axis(results, "cations") != "random")]
    unit = main["method"] == "kinematical-unit"
    everything = comparison(main[~unit], published)
    tables: dict[str, pd.DataFrame] = {}
    shown: dict[str, tuple[Table, ...]] = {}
    for name, cases in TABLES.items():
        part = everything[everything["dataset"].isin(cases)]
        if len(part):
            tables[name] = part
            both = [["kinematical"], ["dynamical"]] if len(cases) > 1 else [["kinematical", "dynamical"]]
            shown[name] = tuple(side_by_side(part, methods) for methods in both)
    treatments = treatment_table(main, published)
    if len(treatments):
        tables["table-3"], shown["table-3"] = treatments, (listed(treatments, "its standard deviation"),)
    random = results[_axis(results, "cations") == "random"]
    if len(random):
        tables["random-cations"] = random_table(random, published)
        shown["random-cations"] = (listed(tables["random-cations"], "its standard deviation"),)
    responsible = closing = refined = weighed = pd.DataFrame()
    drawings = {}
    if unit.any():
        weighed = weights_table(main, results[reduced == "spread"], published)
        tables["weights"], shown["weights"] = weighed, (shown_weights(weighed),)
    if (reduced == "refined").any():
        refined = refined_table(main, results[reduced == "refined"], published)
        tables["refined"], shown["refined"] = refined, (page_table(refined, caption=REFINED_CAPTION),)
    if (off != "").any():
        responsible = changes(results[off != ""], "flaw_off", "none", FLAW_COLUMNS)
        tables["flaws-off"], shown["flaws-off"] = responsible, (changes_table(responsible, FLAW_COLUMNS),)
        drawings["flaws-off"] = draw_changes(responsible, "flaw_off", FLAW_COLUMNS[:3], "flaws-off")
    if (added != "").any():
        found = gaps.gap_table(results[added != ""], published, main)
        closing = gaps.closing_table(found)
        if len(found):
            tables["gap"], shown["gap"] = found, (gaps.shown_gaps(found),)
        if len(closing):
            tables["gap-closing"], shown["gap-closing"] = closing, (gaps.shown_closing(closing, found),)
    radar = radar_table(everything)
    if len(radar):
        tables["radar"], shown["radar"] = radar, (listed(radar, "5 to 95 % of the seeds"),)
        drawings["radar"] = Drawing(draw_radar(radar), "radar", _RADAR_CAPTION)
    remarks = [
        *filter(None, [settings_of(Remarked, settings).remark]),
        *agreement(everything),
        *ordering(treatments, main),
        *weights_sentences(weighed),
        *as_refined(refined, main, results[reduced == "refined"], published),
        *responsibility(responsible),
        *gaps.gap_sentences(closing),
    ]
    inorder = dict(sorted(tables.items(), key=lambda item: list(_TITLES).index(item[0])))
    return Outcome(tuple(remarks), inorder, drawings, shown, _TITLES)


def check(settings: Mapping[str, Any], axes: LevelNames, points: Sequence[Labelled]) -> None:
    """Raise InputError for settings that are none, and for levels of `reduced` that no table would have."""
    settings_of(Remarked, settings)
    for point in points:
        level = point.labels.get("reduced", "")
        if level not in REDUCED:
            field = f"block.{point.block}.axes.reduced"
            raise InputError("no such reduction", field=field, value=level, allowed=" or ".join(REDUCED[1:]))


_TITLES = {
    "table-1": "Table 1: brookite",
    "table-2": "Table 2: indium tin oxide and anatase",
    "table-3": "Table 3: four treatments of the same frames",
    "table-4": "Table 4: MgTi2O5",
    "random-cations": "Table 4: cations at random",
    "radar": "Distances from the reference structure",
    "weights": "Weights of the kinematical refinement",
    "refined": "The same frames with their orientations and scales refined before merging",
    "flaws-off": "Each flaw switched off in turn",
    "gap-closing": "What would close the gaps",
    "gap": "What was changed or added, each alone",
}
_RADAR_CAPTION = (
    "Average and maximal distances from the reference structure (Å) by data set, kinematical and dynamical: published"
    " and simulated (arithmetic mean; band: 5 to 95 % of the seeds). Radius logarithmic."
)


def comparison(results: pd.DataFrame, published: Published) -> pd.DataFrame:
    """Every quantity of every data set and method, published beside simulated.

    difference : simulated mean - published.  agrees : "yes" or "no" where a criterion holds: kinematical R_obs and
    R_int within WITHIN, kinematical distances inside the 5-95 % range of LEAST_SEEDS and more; else empty.
    """
    rows = []
    for (dataset, method), group in results.groupby(["case", "method"], sort=False):
        for column in QUANTITIES:
            if column in OF_THE_DATA and method != "kinematical":
                continue
            known = published_value(published.get(str(dataset), {}), str(method), column)
            numbers = summarise(group[column])
            if numbers["n"] == 0 and math.isnan(known):
                continue
            row = {"dataset": dataset, "method": method, "quantity": column, "published": known}
            row |= {
                "simulated": numbers["mean"],
                "sd": numbers["sd"],
                "p5": numbers["p5"],
                "p95": numbers["p95"],
            }
            row |= {"seeds": int(numbers["n"]), "failed": int((group["status"] != "ok").sum())}
            row |= {
                "difference": numbers["mean"] - known,
                "agrees": _agrees(str(method), column, known, numbers),
            }
            rows.append(row)
    return pd.DataFrame(rows, columns=list(_COMPARED))


def _agrees(method: str, column: str, published: float, numbers: Mapping[str, float]) -> str:
    if method != "kinematical" or math.isnan(published) or numbers["n"] == 0:
        return ""
    if column in WITHIN:
        return "yes" if abs(numbers["mean"] - published) <= WITHIN[column] else "no"
    if column in DISTANCES and numbers["n"] >= LEAST_SEEDS:
        return "yes" if numbers["p5"] <= published <= numbers["p95"] else "no"
    return ""


def side_by_side(part: pd.DataFrame, methods: Sequence[str]) -> Table:
    """A published table: a row per quantity; per data set and method the published and the simulated number."""
    mine = part[part["method"].isin(methods)]
    columns = list(mine[["dataset", "method"]].drop_duplicates().itertuples(index=False, name=None))
    by = mine.set_index(["quantity", "dataset", "method"])
    rows = []
    for quantity in (q for q in QUANTITIES if (mine["quantity"] == q).any()):
        cells = [Cell(label(quantity))]
        for column in columns:
            known = (quantity, *column) in by.index
            cells += pair_of_cells(quantity, by.loc[(quantity, *column)]) if known else [Cell("–"), Cell("–")]
        rows.append(tuple(cells))
    alone = mine["dataset"].nunique() == 1
    names = [method if alone else dataset.removeprefix("brookite-") for dataset, method in columns]
    head = [f"{name}, {which}" for name in names for which in ("publ.", "sim.")]
    data = {"kinematical": "of averaged data", "dynamical": "by frames"}
    what = " and ".join(f"{method} refinement {data[method]}" for method in methods)
    n = f"{mine['seeds'].min()} to {mine['seeds'].max()}" if mine["seeds"].nunique() > 1 else f"{mine['seeds'].max()}"
    of = "one seed" if mine["seeds"].max() < 2 else f"arithmetic mean and standard deviation over {n} seeds"
    caption = f"{what}. publ.: published; sim.: simulated, {of}"
    if (mine["agrees"] == "no").any():
        caption += "; †: outside the criterion, see the findings"
    return Table(("quantity", *head), tuple(rows), sentence(caption) + ".")


def pair_of_cells(name: str, row: Mapping[Any, Any]) -> list[Cell]:
    """The published number, and the simulated one over its standard deviation (or 5 to 95 % of the seeds)."""
    values = [float(row[which]) for which in ("published", "simulated")]
    note = ""
    if "sd" in row and math.isfinite(row["sd"]):
        note = f"± {number(name, row['sd'])}"
    elif "sd" not in row and row["p5"] < row["p95"]:
        note = f"{number(name, row['p5'])} to {number(name, row['p95'])}"
    mark = " †" if row.get("agrees", "") == "no" else ""
    published = Cell(number(name, values[0]), values[0]) if math.isfinite(values[0]) else Cell("–")
    simulated = Cell(number(name, values[1]) + mark, values[1], note) if math.isfinite(values[1]) else Cell("–")
    return [published, simulated]


def listed(table: pd.DataFrame, spread: str) -> Table:
    """Published beside simulated, a row per data set, method and quantity.

    spread : what stands under a simulated number, in words.
    """
    keys = [name for name in ("dataset", "method", "quantity") if name in table and table[name].nunique() > 1]
    rows = tuple(
        (
            *(Cell(label(str(row[key]))) for key in keys),
            *pair_of_cells(str(row.get("quantity", "r_obs_pct")), row),
            Cell(str(row["seeds"]), float(row["seeds"])),
        )
        for row in table.to_dict("records")
    )
    what = "" if "quantity" in keys else "R_obs (%). "
    mean = f"arithmetic mean, below it {spread}" if table["seeds"].max() > 1 else "one seed"
    caption = f"{what}Simulated: {mean}."
    return Table((*keys, "published", "simulated", "seeds"), rows, caption)


def random_table(results: pd.DataFrame, published: Published) -> pd.DataFrame:
    """R_obs with the cations at random, by method."""
    rows = []
    for (dataset, method), group in results.groupby(["case", "method"], sort=False):
        prefix = {"kinematical": "kin", "dynamical": "dyn"}.get(str(method), "")
        known = published.get(str(dataset), {}).get(f"random_{prefix}_r_obs_pct", "")
        numbers = summarise(group["r_obs_pct"])
        row = {
            "dataset": dataset,
            "method": method,
            "quantity": "r_obs_pct",
            "published": float(known or "nan"),
        }
        rows.append(row | {"simulated": numbers["mean"], "sd": numbers["sd"], "seeds": int(numbers["n"])})
    return pd.DataFrame(rows)


def radar_table(everything: pd.DataFrame) -> pd.DataFrame:
    """The distances of the two methods that the study published, one row per data set, method and measure."""
    kept = everything["quantity"].isin(DISTANCES) & everything["method"].isin(("kinematical", "dynamical"))
    return everything.loc[
        kept, ["dataset", "method", "quantity", "published", "simulated", "p5", "p95", "seeds"]
    ]


def _axis(results: pd.DataFrame, name: str) -> pd.Series:
    return results[name] if name in results else pd.Series("", index=results.index)


def agreement(everything: pd.DataFrame) -> list[str]:
    judged = everything[everything["agrees"] != ""]
    said = []
    for column, name in {
        **NAMES,
        **{column: label(column) for column in DISTANCES},
    }.items():
        part = judged[judged["quantity"] == column]
        if part.empty:
            continue
        good, off = part[part["agrees"] == "yes"], part[part["agrees"] == "no"]
        how = (
            f"within {WITHIN[column]:g} points"
            if column in WITHIN
            else "inside the 5-95 % range of the seeds"
        )
        text = f"Kinematical {name}: {len(good)} of {len(part)} published values {how}."
        if len(off):
            each = (f"{r['dataset']} {number(column, r['simulated'])} against {number(column, r['published'])}"
                for r in off.to_dict("records"))  # fmt: skip
            text += f" Not: {', '.join(each)}."
        said.append(text)
    distances = everything[everything["quantity"].isin(DISTANCES) & (everything["method"] == "kinematical")]
    if len(distances) and distances["seeds"].max() < LEAST_SEEDS:
        said.append(f"Distances are not judged: a 5-95 % range needs {LEAST_SEEDS} seeds and more.")
    by_frames = everything[everything["quantity"].isin(DISTANCES) & (everything["method"] == "dynamical")]
    floor = by_frames.loc[by_frames["quantity"] == "max_dist_A", ["published", "simulated"]].dropna()
    if len(floor):
        said.append(
            "Published distances are from the structure of a bulk crystal, which the published dynamical models too are"
            f" {floor['published'].min():.3f} to {floor['published'].max():.3f} Å (maximal distance) away from;"
            f" simulated ones are from the truth, and these models within {floor['simulated'].max():.4f} Å."
        )
    dynamical = everything[(everything["method"] == "dynamical") & (everything["quantity"] == "r_obs_pct")]
    both = dynamical[dynamical["published"].notna() & dynamical["simulated"].notna()]
    if len(both):
        better = int((both["simulated"] < both["published"]).sum())
        said.append(
            f"Dynamical R_obs is lower than published for {better} of {len(both)} data sets (mean"
            f" {both['simulated'].mean():.2f} against {both['published'].mean():.2f} %): here the truth is the"
            " reference and the crystal is as perfect as the one set of flaws leaves it. Strain, surface"
            " relaxation, damage, a second crystal or a twin, a particle that drifts through the beam and the circle of"
            " a precessing beam exist as flaws, off in these tables; none is switched on to close this gap."
        )
    return said


def responsibility(flaws: pd.DataFrame) -> list[str]:
    said = []
    for (case, method), part in flaws.groupby(["case", "method"], sort=False) if len(flaws) else []:
        single = part[part["flaw_off"] != "all"]
        for column, name in NAMES.items():
            known = single[single[column].notna()]
            if known.empty or (column == "r_int_pct" and method != "kinematical"):
                continue
            three = known.reindex(known[column].abs().sort_values(ascending=False).index).head(3)
            each = (f"{r['flaw_off']} {_signed(r[column])}" for _, r in three.iterrows())
            whole = part.loc[part["flaw_off"] == "all", column]
            end = f"; all off {_signed(whole.iloc[0])}" if len(whole) and math.isfinite(whole.iloc[0]) else ""
            said.append(
                f"{case}, {method}: switching one flaw off moves {name} (points) most for {', '.join(each)}{end}"
                + (" (one seed)." if part["pairs"].max() < 2 else ".")
            )
    return said


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def draw_radar(radar: pd.DataFrame) -> Figure:
    datasets = list(dict.fromkeys(radar["dataset"]))
    angle = dict(zip(datasets, np.linspace(0, 2 * np.pi, len(datasets), endpoint=False), strict=True))
    looks = {"av_dist_A": ("#0072b2", "o", "average"), "max_dist_A": ("#d55e00", "s", "maximal")}
    with styled():
        figure = Figure(figsize=(7.4, 4.0), layout="constrained")
        panels = figure.subplots(1, 2, subplot_kw={"projection": "polar"})
        for axes, method in zip(panels, ("kinematical", "dynamical"), strict=True):
            for column, (colour, marker, word) in looks.items():
                part = radar[(radar["method"] == method) & (radar["quantity"] == column)]
                theta = part["dataset"].map(angle).to_numpy(float)
                for source, line, face in (("published", "", "none"), ("simulated", "-", colour)):
                    r = np.log10(part[source].to_numpy(float))
                    closed = [*range(len(part)), *([0] if line and len(part) > 2 else [])]
                    axes.plot(
                        theta[closed],
                        r[closed],
                        marker=marker,
                        linestyle=line,
                        color=colour,
                        markerfacecolor=face,
                        label=f"{word}, {source}",
                    )
                low, high = (np.log10(part[end].to_numpy(float)) for end in ("p5", "p95"))
                known = np.isfinite(low) & np.isfinite(high)
                band = f"{word}, 5 to 95 % of the seeds"
                axes.vlines(
                    theta[known], low[known], high[known], color=colour, linewidth=2.5, alpha=0.3, label=band
                )
            axes.set_rlim(-4, -0.9)
            axes.set_rticks([-3, -2, -1], ["0.001", "0.01", "0.1 Å"])
            axes.set_xticks(list(angle.values()), [literal(name.removeprefix("brookite-")) for name in datasets])
            axes.tick_params(labelsize=6)
            axes.tick_params(axis="x", pad=3)
            axes.set_title(method)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
