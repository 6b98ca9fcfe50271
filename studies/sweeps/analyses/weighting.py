"""What the weights of merged intensities do to the kinematical refinement, beside the published figures.

The tables of the study say nothing of the weights. Three sets of them for the same frames: with the s.u. of an error
model (nanoed's), with the larger of the internal and the external s.u. of each mean (axis `reduced`, level "spread"),
which also changes the means and what is observed, and unit weights (method "kinematical-unit").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from nanoed.pipeline.page.html import Cell, Table
from nanoed.studies.statistics import summarise
from nanoed.studies.sweeps.analyses.gaps import published_figure, with_share
from nanoed.studies.sweeps.analyses.treatments import LEAST_SEEDS, Published
from nanoed.studies.sweeps.shown import label, number

WEIGHTS: Mapping[str, str] = {
    "model": "s.u. of the error model",
    "spread": "larger of internal and external s.u.",
    "unit": "unit weights",
}
WEIGHED = ("r_obs_pct", "observed_pct", "av_dist_A", "max_dist_A")
CAPTION = (
    "Kinematical refinement of averaged data by the weights of its intensities, arithmetic means over the seeds that"
    " all three have: 1 / (σ² + (0.02 I)²) with two kinds of σ, of which the second also changes the means of"
    " equivalents and what counts as observed, and the same weight for all. Below a mean 5 to 95 % of all seeds, where"
    f" these are {LEAST_SEEDS} and more; last, where the published figure lies by these ranges"
)


def weights_table(main: pd.DataFrame, spread: pd.DataFrame, published: Published) -> pd.DataFrame:
    """R_obs (%), share of observed reflections (%) and distances (Å) by data set and weights.

    main : rows of the tables; spread : of the same frames, merged with errors "spread". Of data sets that have unit
    weights.  model, spread, unit : means over the `seeds` that all three have, or two where one has no runs.
    *_p5, *_p95 : of all seeds.  lies : of the published figure by the ranges of model and unit, see `_lies`.
    """
    sources = {
        "model": main[main["method"] == "kinematical"],
        "spread": spread[spread["method"] == "kinematical"],
        "unit": main[main["method"] == "kinematical-unit"],
    }
    sources = {name: with_share(rows) for name, rows in sources.items()}
    rows = []
    for dataset in dict.fromkeys(sources["unit"]["case"]):
        mine = {name: found[found["case"] == dataset].set_index("seed") for name, found in sources.items()}
        for column in WEIGHED:
            rows.append({"dataset": dataset, "quantity": column} | _row(mine, column, published.get(str(dataset), {})))
    return pd.DataFrame(rows)


def _row(mine: Mapping[str, pd.DataFrame], column: str, published: Mapping[str, str]) -> dict[str, Any]:
    values = {name: found[column].dropna() for name, found in mine.items()}
    there = [set(found.index) for found in values.values() if len(found)]
    common = sorted(set.intersection(*there)) if there else []
    row: dict[str, Any] = {"published": published_figure(published, "kinematical", column), "seeds": len(common)}
    row |= {name: values[name].reindex(common).mean() for name in WEIGHTS}
    for name in ("model", "unit"):
        numbers = summarise(values[name])
        enough = numbers["n"] >= LEAST_SEEDS
        row |= {f"{name}_{end}": numbers[end] if enough else math.nan for end in ("p5", "p95")}
    return row | {"lies": _lies(row)}


def _lies(row: Mapping[str, Any]) -> str:
    """Inside the 5-95 % range of "model", of "unit", of "both", "between" the two, or "outside"; "" without ranges."""
    known = row["published"]
    ends = {name: (row[f"{name}_p5"], row[f"{name}_p95"]) for name in ("model", "unit")}
    if any(math.isnan(x) for x in (known, *ends["model"], *ends["unit"])):
        return ""
    inside = [name for name, (low, high) in ends.items() if low <= known <= high]
    if inside:
        return "both" if len(inside) == 2 else inside[0]
    (_, model_high), (unit_low, _) = sorted(ends.values())
    return "between" if model_high < known < unit_low else "outside"


def shown_weights(table: pd.DataFrame) -> Table:
    """The published figure beside the three simulated ones."""
    rows = []
    for row in table.to_dict("records"):
        name, known = str(row["quantity"]), float(row["published"])
        cells = [Cell(label(str(row["dataset"]))), Cell(label(name))]
        cells.append(Cell("–") if math.isnan(known) else Cell(number(name, known), known))
        for which in WEIGHTS:
            value, low = float(row[which]), float(row.get(f"{which}_p5", math.nan))
            ends = "" if math.isnan(low) else f"{number(name, low)} to {number(name, row[f'{which}_p95'])}"
            cells.append(Cell("–") if math.isnan(value) else Cell(number(name, value), value, ends))
        rows.append((*cells, Cell(str(row["seeds"]), float(row["seeds"])), Cell(_WHERE[str(row["lies"])])))
    return Table(("data set", "quantity", "published", *WEIGHTS.values(), "seeds", "lies"), tuple(rows), CAPTION + ".")


_WHERE = {
    "": "–",
    "model": "inside, error model",
    "unit": "inside, unit weights",
    "both": "inside both",
    "between": "between the two",
    "outside": "outside",
}


def weights_sentences(table: pd.DataFrame) -> list[str]:
    """How far the weights alone move each figure on average, and where the published ones lie."""
    said = []
    for column in WEIGHED if len(table) else ():
        part = table[(table["quantity"] == column) & table["published"].notna()]
        part = part[part[list(WEIGHTS)].notna().all(axis=1)]
        if part.empty:
            continue
        means = ", ".join(f"{number(column, part[name].mean())} ({words})" for name, words in WEIGHTS.items())
        many = f"mean of {len(part)} data sets" if len(part) > 1 else str(part["dataset"].iloc[0])
        text = (
            f"By the weights of averaged data, {label(column)} ({many}) is {means}; published:"
            f" {number(column, part['published'].mean())}."
        )
        judged = part[part["lies"] != ""]
        counts = [f"{int((judged['lies'] == where).sum())} {words}" for where, words in _WHERE.items()
                  if where and (judged["lies"] == where).any()]  # fmt: skip
        said.append(text + (f" Published values against the 5-95 % ranges: {', '.join(counts)}." if counts else ""))
    return said
