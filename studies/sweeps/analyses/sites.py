"""Refined coordinates, occupancies and displacements beside the published ones (cases/published-sites.csv)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from nanoed.pipeline.page.html import Cell, Table
from nanoed.sim.physics.crystal import Crystal
from nanoed.studies.case import HERE
from nanoed.studies.statistics import summarise
from nanoed.studies.sweeps.outcome import Outcome

Models = Callable[[str, str], Crystal | None]
"""The refined structure of a run, by the digest of its case, and of a method; None where there is none."""
METHODS = ("kinematical", "dynamical")
TABLE = "table-4-sites"


def analyse(results: pd.DataFrame, models: Models) -> Outcome:
    """The table of sites of the data sets that have published ones; an empty outcome where no run is of these.

    Runs with an axis `cations` count where its level is "refined".
    """
    rows = results[results["status"] == "ok"]
    if "cations" in rows:
        rows = rows[rows["cations"].isin(("", "refined"))]
    return _outcome(site_table(rows, models))


def again(path: Path) -> Outcome:
    """The table of sites of a file that `analyse` made; empty without one."""
    return _outcome(pd.read_csv(path, comment="#") if path.is_file() else pd.DataFrame())


def _outcome(table: pd.DataFrame) -> Outcome:
    if table.empty:
        return Outcome()
    return Outcome((), {TABLE: table}, {}, {TABLE: (_shown(table),)}, {TABLE: "Table 4: sites"})


def site_table(results: pd.DataFrame, models: Models) -> pd.DataFrame:
    """A row per data set, site, quantity and method: published value and s.u., simulated mean and sd over the seeds."""
    found = []
    for row in published_sites(HERE / "cases" / "published-sites.csv").to_dict("records"):
        for method in METHODS:
            runs = results[(results["case"] == row["dataset"]) & (results["method"] == method)]
            known = [models(digest, method) for digest in dict.fromkeys(runs["digest"])]
            values = [_value(model, row["site"], row["quantity"]) for model in known if model is not None]
            if not values:
                continue
            numbers = summarise(values)
            part = {name: row[name] for name in ("dataset", "site", "quantity")} | {"method": method}
            part |= {"published": row[method], "published_su": row[f"{method}_su"]}
            found.append(part | {"simulated": numbers["mean"], "sd": numbers["sd"], "seeds": int(numbers["n"])})
    return pd.DataFrame(found)


def published_sites(path: Path) -> pd.DataFrame:
    """The published sites; columns as in the file, numbers as float."""
    return pd.read_csv(path, comment="#")


def _value(model: Crystal, site: str, quantity: str) -> float:
    i = model.labels.index(site)
    if quantity in "xyz":
        return float(model.xyz[i, "xyz".index(quantity)])
    return float(model.occupancy[i] if quantity == "occ" else model.u_iso[i])


def _shown(table: pd.DataFrame) -> Table:
    """A row per site and quantity; per method published over its s.u., simulated over its standard deviation."""
    by = {(row["site"], row["quantity"], row["method"]): row for row in table.to_dict("records")}
    rows = []
    for site, quantity in table[["site", "quantity"]].drop_duplicates().itertuples(index=False, name=None):
        cells = [Cell(str(site)), Cell({"occ": "occupancy", "U": "U (Å²)"}.get(quantity, quantity))]
        for method in METHODS:
            row = by.get((site, quantity, method))
            if row is None:
                cells += [Cell("–"), Cell("–")]
                continue
            pairs = (("published", "published_su"), ("simulated", "sd"))
            cells += [_digits(quantity, float(row[value]), float(row[spread])) for value, spread in pairs]
        rows.append(tuple(cells))
    head = [f"{method}, {which}" for method in METHODS for which in ("publ.", "sim.")]
    caption = (
        "publ.: published, below it the printed s.u.; sim.: simulated, arithmetic mean and below it standard deviation"
        f" over {table['seeds'].max()} seeds. The dynamical values published are the truth of the simulation."
    )
    return Table(("site", "", *head), tuple(rows), caption)


def _digits(quantity: str, value: float, spread: float) -> Cell:
    decimals = 3 if quantity == "occ" else 5
    return Cell(f"{value:.{decimals}f}", value, f"± {spread:.{decimals}f}" if np.isfinite(spread) else "")
