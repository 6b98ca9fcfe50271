"""What the weights of merged intensities do to the kinematical refinement, beside the published figures.

The published weights are not printed. Three sets of them from the same frames: sigmas of an error model (nanoed's),
the larger of counting and spread in every group (axis `reduced`, level "spread": as SHELXL merges), and unit weights
(method "kinematical-unit").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from nanoed.pipeline.page.html import Cell, Table
from nanoed.studies.statistics import summarise
from nanoed.studies.sweeps.shown import label, number
from nanoed.studies.tables import published_value

Published = Mapping[str, Mapping[str, str]]
WEIGHTS: Mapping[str, str] = {"model": "of the error model", "spread": "of counting or spread", "unit": "unit"}
"""From those that favour weak reflections most to those where the strong ones decide."""
WEIGHED = ("r_obs_pct", "av_dist_A", "max_dist_A")


def weights_table(main: pd.DataFrame, spread: pd.DataFrame, published: Published) -> pd.DataFrame:
    """R_obs (%) and distances (Å) of the kinematical refinement by data set and weights: mean, 5 and 95 %, seeds.

    main : rows of the tables; spread : of the same frames merged with errors "spread". Of data sets that have unit
    weights.  between : the published figure lies between the least of the 5 % and the largest of the 95 %.
    """
    sources = {
        "model": main[main["method"] == "kinematical"],
        "spread": spread[spread["method"] == "kinematical"],
        "unit": main[main["method"] == "kinematical-unit"],
    }
    rows = []
    for dataset in dict.fromkeys(sources["unit"]["case"]):
        for column in WEIGHED:
            known = published_value(published.get(str(dataset), {}), "kinematical", column)
            row: dict[str, Any] = {"dataset": dataset, "quantity": column, "published": known}
            for name, found in sources.items():
                numbers = summarise(found.loc[found["case"] == dataset, column])
                row |= {name: numbers["mean"], f"{name}_p5": numbers["p5"], f"{name}_p95": numbers["p95"]}
                row[f"{name}_seeds"] = int(numbers["n"])
            low = min((row[f"{name}_p5"] for name in sources if row[f"{name}_seeds"]), default=math.nan)
            high = max((row[f"{name}_p95"] for name in sources if row[f"{name}_seeds"]), default=math.nan)
            row["between"] = "" if math.isnan(known) else "yes" if low <= known <= high else "no"
            rows.append(row)
    return pd.DataFrame(rows)


def shown_weights(table: pd.DataFrame) -> Table:
    """The published figure beside the three simulated ones, each over its 5 to 95 % of the seeds."""
    rows = []
    for row in table.to_dict("records"):
        name = str(row["quantity"])
        known = float(row["published"])
        cells = [Cell(label(str(row["dataset"]))), Cell(label(name))]
        cells.append(Cell("–") if math.isnan(known) else Cell(number(name, known), known))
        for which in WEIGHTS:
            value = float(row[which])
            ends = f"{number(name, row[f'{which}_p5'])} to {number(name, row[f'{which}_p95'])}"
            several = row[f"{which}_seeds"] > 1
            cells.append(Cell("–") if math.isnan(value) else Cell(number(name, value), value, ends if several else ""))
        rows.append((*cells, Cell(str(row["between"]))))
    seeds = ", ".join(f"{table[f'{name}_seeds'].max()} ({words})" for name, words in WEIGHTS.items())
    caption = (
        "Kinematical refinement of averaged data by the weights of its intensities: arithmetic mean, below it 5 to 95 %"
        f" of the seeds, of which there are up to {seeds}. Between: the published figure lies within the three ranges"
        " taken together."
    )
    return Table(("data set", "quantity", "published", *WEIGHTS.values(), "between"), tuple(rows), caption)


def weights_sentences(table: pd.DataFrame) -> list[str]:
    """How far the weights alone move the distances, and where the published ones lie."""
    if table.empty:
        return []
    said = []
    for column in WEIGHED:
        part = table[(table["quantity"] == column) & table["published"].notna()]
        if part.empty:
            continue
        means = [f"{number(column, part[name].mean())} ({words})" for name, words in WEIGHTS.items()
                 if part[name].notna().all()]  # fmt: skip
        good = int((part["between"] == "yes").sum())
        text = (
            f"Weights of the kinematical refinement, which the study does not print: {label(column)} is"
            f" {', '.join(means)} on average over {len(part)} data sets, {number(column, part['published'].mean())}"
            f" published; {good} of {len(part)} published values lie within the ranges of these weights"
        )
        off = part.loc[part["between"] == "no", "dataset"]
        said.append(text + (f", not {', '.join(off)}." if len(off) else "."))
    return said
