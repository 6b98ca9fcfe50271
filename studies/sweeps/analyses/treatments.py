"""R of the same frames by treatment: the four of the published Table 3, merged with refined orientations or without."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from nanoed.studies.statistics import summarise
from nanoed.studies.sweeps.shown import number
from nanoed.studies.tables import published_value

Published = Mapping[str, Mapping[str, str]]
OF_THE_DATA = ("coverage_pct", "redundancy", "r_int_pct")
"""Stand with the first method alone."""
TREATMENTS = ("dynamical", "kinematical", "kinematical-frames", "kinematical-nonaveraged")
"""In the published order of R_obs."""
TREATED = ("ito-01", "ito-02")
WITHIN: Mapping[str, float] = {"r_obs_pct": 5.0, "r_int_pct": 6.0}
"""Points within which a kinematical figure agrees with the published one."""
LEAST_SEEDS = 10
"""Below which a 5-95 % range is none."""
NAMES = {"r_obs_pct": "R_obs", "r_int_pct": "R_int"}
REFINED_CAPTION = (
    "Published, simulated (tilts of the stage, one scale) and refined (orientations and scales of the frames from their"
    " intensities, as nanoed reduces when it is not told otherwise); means over the seeds that both have"
)


def treatment_table(results: pd.DataFrame, published: Published) -> pd.DataFrame:
    """Table 3: R_obs (%) of the four treatments, published beside simulated; rows in the published order, lowest first.

    Means are over the seeds that all treatments have.
    """
    rows = []
    for dataset in TREATED:
        mine = results[results["case"] == dataset]
        of_each = [set(part["seed"]) for name, part in mine.groupby("method") if name in TREATMENTS]
        mine = mine[mine["seed"].isin(set.intersection(*of_each) if of_each else ())]
        for method in TREATMENTS:
            values = mine.loc[mine["method"] == method, "r_obs_pct"]
            if len(values) == 0:
                continue
            numbers = summarise(values)
            known = published_value(published.get(dataset, {}), method, "r_obs_pct")
            row = {"dataset": dataset, "method": method, "published": known, "simulated": numbers["mean"]}
            rows.append(row | {"sd": numbers["sd"], "seeds": int(numbers["n"])})
    return pd.DataFrame(rows)


def ordering(treatments: pd.DataFrame, results: pd.DataFrame) -> list[str]:
    """Whether R_obs of the treatments is ordered as published: of the means, and in how many seeds."""
    said = []
    for dataset, part in treatments.groupby("dataset", sort=False) if len(treatments) else []:
        known = part[part["simulated"].notna()]
        order = list(known.sort_values("simulated")["method"])
        same = (
            "as published" if order == list(known["method"]) else "published: " + " < ".join(known["method"])
        )
        mine = results[(results["case"] == dataset) & results["method"].isin(known["method"])]
        each = mine.pivot_table(index="seed", columns="method", values="r_obs_pct")[list(known["method"])].dropna()
        alike = int((np.diff(each.to_numpy(float), axis=1) > 0).all(axis=1).sum())
        said.append(
            f"{dataset}: R_obs of the treatments is ordered {' < '.join(order)} ({same}); in the published order in"
            f" {alike} of {len(each)} seeds."
        )
    return said


def refined_table(stated: pd.DataFrame, refined: pd.DataFrame, published: Published) -> pd.DataFrame:
    """R_int and R_obs (%) by data set and method: published, simulated, and of the refined reduction, same seeds."""
    rows = []
    for (dataset, method), group in refined.groupby(["case", "method"], sort=False):
        beside = stated[(stated["case"] == dataset) & (stated["method"] == method)]
        pairs = group.merge(beside, on="seed", suffixes=("_refined", ""))
        for column in WITHIN:
            if column in OF_THE_DATA and method != "kinematical":
                continue
            both = pairs[[column, f"{column}_refined"]].dropna()
            known = published_value(published.get(str(dataset), {}), str(method), column)
            row = {"dataset": dataset, "method": method, "quantity": column, "published": known}
            means = {"simulated": both[column].mean(), "refined": both[f"{column}_refined"].mean()}
            rows.append(row | means | {"seeds": len(both)})
    return pd.DataFrame(rows)


def as_refined(
    refined: pd.DataFrame, stated: pd.DataFrame, runs: pd.DataFrame, published: Published
) -> list[str]:
    """What the refined reduction makes of the figures that are published, and of the order of the treatments.

    refined : of refined_table.  stated, runs : rows of the results that it was made of.
    """
    said = []
    for (method, column), part in refined.groupby(["method", "quantity"], sort=False) if len(refined) else []:
        known = part[part[["published", "simulated", "refined"]].notna().all(axis=1)]
        if known.empty:
            continue
        printed, simulated, now = (float(known[name].mean()) for name in ("published", "simulated", "refined"))
        better = int((known["refined"] < known["simulated"]).sum())
        said.append(
            f"With orientations and scales of the frames refined before merging, {NAMES[str(column)]} of the {method}"
            f" data is lower in {better} of {len(known)} data sets: {number(str(column), now)} % on average,"
            f" {number(str(column), simulated)} without, {number(str(column), printed)} published"
            + (" (one seed)." if part["seeds"].max() < 2 else ".")
        )
    if len(runs) == 0:
        return said
    by_frames = stated["seed"].isin(runs["seed"]) & ~stated["method"].isin(runs["method"].unique())
    mixed = pd.concat([stated[by_frames], runs])
    return said + [f"Merged so, {line}" for line in ordering(treatment_table(mixed, published), mixed)]
