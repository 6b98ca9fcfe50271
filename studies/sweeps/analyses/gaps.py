"""What would close the gaps between published and simulated figures: runs with more flaws, or stronger ones.

The axis `added` names what was added as WHAT=STRENGTH, in the unit of the field; "none" is the set of the study.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from nanoed.pipeline.page.html import Cell, Table
from nanoed.sim.flaws import FLAWS, STANDARD
from nanoed.sim.physics.errors import InputError
from nanoed.studies.case import load_case, shipped_cases
from nanoed.studies.settings import nearest
from nanoed.studies.sweeps.analyses.common import as_number
from nanoed.studies.sweeps.analyses.flaws import changes
from nanoed.studies.sweeps.shown import label, number
from nanoed.studies.tables import published_value

Published = Mapping[str, Mapping[str, str]]
GAP_COLUMNS: Mapping[str, str] = {
    "r_int_pct": "R_int",
    "r_obs_pct": "R_obs",
    "observed_pct": "share of observed reflections",
    "max_dist_A": "maximal distance",
}
SHOWN = (
    *("case", "method", "added", "strength", "r_int_pct", "closes_r_int_pct", "r_obs_pct", "closes_r_obs_pct"),
    *("observed_pct", "closes_observed_pct", "max_dist_A", "closes_max_dist_A_pct"),
)
LEAST_GAP: Mapping[str, Mapping[str, float]] = {
    "kinematical": {"r_int_pct": 6.0, "r_obs_pct": 5.0, "observed_pct": 10.0, "max_dist_A": 0.01},
    "dynamical": {"r_obs_pct": 1.0, "max_dist_A": 0.005},
}
"""Differences below these are no gaps, nor are those of what is not named."""
UNITS = {"_deg": "°", "_pct": " %", "_nm": " nm", "_px": " px", "_mm": " mm", "_e_A2_s": " e/Å²/s"}
LEAST_PCT = 1
"""Of a gap, that something must close to be named."""
CLOSING_CAPTION = (
    "Published figures outside the criterion in the runs that something was added to; the additions, each alone, that"
    " close most of the gap, with their share of it; the last column by linear interpolation between strengths tried"
)
CAPTION = (
    "arithmetic mean of the change against the flaws of the study, paired by seed, with its 95 % interval; strength in"
    " the field's unit"
)


def gap_table(rows: pd.DataFrame, published: Published) -> pd.DataFrame:
    """What was added (WHAT=STRENGTH), by how much it moves each figure, and which share of the gap that closes.

    strength_without : in the runs without it.
    closes_*_pct : change over (published - mean without it), percent; NaN where nothing is published or no gap is.
    strength_for_*: where the figure, linear between the strengths tried, meets the published one; NaN: not within them.
    Of what several blocks tried, the first counts. Raises InputError for a level of another form.
    """
    each = [_of_block(block, published) for _, block in rows.groupby("block", sort=False)]
    return pd.concat(each, ignore_index=True).drop_duplicates(["case", "method", "added", "strength"])


def _of_block(rows: pd.DataFrame, published: Published) -> pd.DataFrame:
    rows = rows.assign(observed_pct=100 * rows["n_obs"] / rows["n_all"])
    table = changes(rows, "added", "none", list(GAP_COLUMNS))
    words = table["added"].str.partition("=")
    strength = words[2].map(as_number)
    if strength.isna().any():
        raise InputError(
            "not WHAT=STRENGTH", field="block.axes.added", value=table.loc[strength.isna(), "added"].iloc[0],
            allowed="none, or a flaw, a length of the particle or the flux and a number, as mosaicity_deg=0.3",
        )  # fmt: skip
    table = table.assign(added=words[0], strength=strength)
    plain = rows[rows["added"] == "none"]
    table["strength_without"] = [
        strength_without(str(case), _flaws_of(plain[plain["case"] == case]), str(what))
        for case, what in zip(table["case"], table["added"], strict=True)
    ]
    for column in GAP_COLUMNS:
        base, goal, least = [], [], []
        for case, method in zip(table["case"], table["method"], strict=True):
            own = plain[(plain["case"] == case) & (plain["method"] == method)]
            base.append(float(own[column].mean()))
            goal.append(_published(published.get(case, {}), method, column))
            least.append(LEAST_GAP.get(method, {}).get(column, math.inf))
        short = column.removesuffix("_pct")
        gap = np.subtract(goal, base)
        gap[np.abs(gap) < least] = math.nan
        table = table.assign(**{f"{short}_without": base, f"{short}_published": goal,
                                f"closes_{short}_pct": 100 * table[column] / gap})  # fmt: skip
        table[f"strength_for_{short}"] = _strengths(table, column, gap)
    return table


def _published(case: Mapping[str, str], method: str, column: str) -> float:
    if column != "observed_pct":
        return published_value(case, method, column)
    return 100 * published_value(case, method, "n_obs") / published_value(case, method, "n_all")


def _strengths(table: pd.DataFrame, column: str, gap: np.ndarray) -> np.ndarray:
    """Where the gap is closed, by the first strength that does it above or below the one without; NaN: none."""
    found = np.full(len(table), math.nan)
    for _, part in table.assign(gap=gap).groupby(["case", "method", "added"], sort=False):
        if not np.isfinite(part["gap"]).all():
            continue
        part = part[part[column].notna()].sort_values("strength")
        if part.empty:
            continue
        base, strengths = float(part["strength_without"].iloc[0]), part["strength"].to_numpy()
        for side in (np.flatnonzero(strengths > base), np.flatnonzero(strengths < base)[::-1]):
            x = [base, *strengths[side]]
            closed = [0.0, *(part[column] / part["gap"]).to_numpy()[side]]
            i = next((i for i in range(1, len(x)) if closed[i] >= 1), None)
            if i is not None:
                where = x[i - 1] + (x[i] - x[i - 1]) * (1 - closed[i - 1]) / (closed[i] - closed[i - 1])
                found[table.index.get_loc(part.index[side[i - 1]])] = where
    return found


def _flaws_of(plain: pd.DataFrame) -> str:
    return str(plain["flaws"].iloc[0]) if "flaws" in plain and len(plain) else "default"


def strength_without(case: str, flaws: str, what: str) -> float:
    """The strength of a flaw in a run, or a length of the particle or the flux in its case, before anything is added.

    flaws : column `flaws` of the run (rows.active_flaws).  NaN for what else a case that is not shipped has.
    Raises InputError for what is none of these.
    """
    if what in FLAWS:
        each = STANDARD if flaws == "default" else re.split(r"\+(?=[a-z])", flaws)
        named = {name: magnitude for name, _, magnitude in (flaw.partition("=") for flaw in each)}
        return float(named[what] or FLAWS[what].value) if what in named else 0.0
    if case not in shipped_cases():
        return math.nan
    experiment = load_case(case).experiment
    given = getattr(experiment.instrument if what == "flux_e_A2_s" else experiment.particle, what, None)
    if not isinstance(given, float):
        raise InputError(
            "neither a flaw nor a length of the particle nor the flux", field="block.axes.added", value=what,
            allowed=f"diameter_nm, flux_e_A2_s, or {nearest(what, FLAWS)}",
        )  # fmt: skip
    return given


def closing_table(gaps: pd.DataFrame) -> pd.DataFrame:
    """A row for every published figure with a gap: what moves it most towards that figure, and what would close it.

    simulated : without anything added.  closed_most_by, would_close : in words; empty where nothing tried does.
    """
    rows = []
    for (case, method), part in gaps.groupby(["case", "method"], sort=False) if len(gaps) else []:
        for column in LEAST_GAP.get(str(method), {}):
            short = column.removesuffix("_pct")
            known = part[part[f"closes_{short}_pct"].notna()]
            if known.empty:
                continue
            mine, theirs = (float(known.iloc[0][f"{short}_{which}"]) for which in ("without", "published"))
            towards = known[known[f"closes_{short}_pct"] >= LEAST_PCT]
            best = towards.sort_values(f"closes_{short}_pct", ascending=False).head(3)
            met = known[known[f"strength_for_{short}"].notna()]
            rows.append({
                "case": case, "method": method, "figure": column, "simulated": mine, "published": theirs,
                "closed_most_by": "; ".join(
                    f"{_told(r['added'], r['strength'])}: {r[f'closes_{short}_pct']:.0f} %{_doubt(r, column)}"
                    for _, r in best.iterrows()
                ),
                "would_close": " or ".join(_told(r["added"], r[f"strength_for_{short}"]) for _, r in met.iterrows()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def closing_page_table(closing: pd.DataFrame) -> Table:
    """`closing_table` for the page, each number with the digits of its figure."""
    head = ("data set", "method", "figure", "simulated", "published", "share of the gap that is closed by", "closed at")
    rows = tuple(
        (
            Cell(str(row["case"])), Cell(str(row["method"])), Cell(label(row["figure"])),
            *(Cell(number(row["figure"], row[which]), row[which]) for which in ("simulated", "published")),
            *(Cell(row[which] or "nothing tried") for which in ("closed_most_by", "would_close")),
        )
        for row in closing.to_dict("records")
    )  # fmt: skip
    return Table(head, rows, CLOSING_CAPTION)


def gap_sentences(closing: pd.DataFrame) -> list[str]:
    """How many gaps there are, which of them something would close, and which nothing that was tried."""
    if closing.empty:
        return []
    each = [
        f"{row['case']}, {GAP_COLUMNS[row['figure']]}" + (f" by {row['would_close']}" if row["would_close"] else "")
        + (f" ({row['method']})" if row["method"] != "kinematical" else "")
        for row in closing.to_dict("records")
    ]  # fmt: skip
    closed = [told for told, row in zip(each, closing["would_close"], strict=True) if row]
    left = [told for told, row in zip(each, closing["would_close"], strict=True) if not row]
    said = [
        f"Of {len(each)} deviations looked into, {len(closed)} would be closed by one thing alone, by interpolation"
        + (f": {'; '.join(closed)}." if closed else ".")
        + (f" By nothing that was tried: {'; '.join(left)}." if left else ""),
        "None of this is part of the shared set: the tables are made without it.",
    ]
    return said


def _doubt(row: pd.Series, column: str) -> str:
    """Words for a change that the seeds do not tell from none."""
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return " (its interval holds zero)" if low <= 0 <= high else ""


def _told(what: str, strength: float) -> str:
    """The strength of something in words, with its unit."""
    for ending, unit in UNITS.items():
        if what.endswith(ending):
            return f"{what.removesuffix(ending).replace('_', ' ')} {strength:.3g}{unit}"
    return f"{what.replace('_', ' ')} {strength:.3g}"
