"""What would close the gaps between published and simulated figures: runs with more flaws, or stronger ones.

The axis `added` names what was added as WHAT=STRENGTH, in the unit of the field; "none" is the set of the study.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from nanoed.sim.flaws import FLAWS, STANDARD
from nanoed.sim.physics.errors import InputError
from nanoed.studies.case import load_case, shipped_cases
from nanoed.studies.settings import nearest
from nanoed.studies.sweeps.analyses.common import as_number
from nanoed.studies.sweeps.analyses.flaws import changes
from nanoed.studies.sweeps.shown import number
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
"""Gaps below these are told in the table alone, as are those of what is not named."""
UNITS = {"_deg": "°", "_pct": " %", "_nm": " nm", "_px": " px", "_mm": " mm", "_e_A2_s": " e/Å²/s"}
LEAST_PCT = 1
"""Of a gap, that something must close to be named."""
CAPTION = (
    "arithmetic mean of the change against the flaws of the study, paired by seed, with its 95 % interval; strength in"
    " the field's unit"
)


def gap_table(rows: pd.DataFrame, published: Published) -> pd.DataFrame:
    """What was added (WHAT=STRENGTH), by how much it moves each figure, and which share of the gap that closes.

    strength_without : in the runs without it.
    closes_*_pct : change over (published - mean without it), percent; empty where nothing is published.
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
        base, goal = [], []
        for case, method in zip(table["case"], table["method"], strict=True):
            own = plain[(plain["case"] == case) & (plain["method"] == method)]
            base.append(float(own[column].mean()))
            goal.append(_published(published.get(case, {}), method, column))
        short = column.removesuffix("_pct")
        gap = np.subtract(goal, base)
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


def gap_sentences(gaps: pd.DataFrame) -> list[str]:
    """For every published figure with a gap: what moves it most towards it, and whether anything closes it."""
    said = []
    for (case, method), part in gaps.groupby(["case", "method"], sort=False) if len(gaps) else []:
        for column, name in GAP_COLUMNS.items():
            short = column.removesuffix("_pct")
            known = part[part[f"closes_{short}_pct"].notna()]
            least = LEAST_GAP.get(str(method), {}).get(column, math.inf)
            if known.empty:
                continue
            first, unit = known.iloc[0], "points" if column.endswith("_pct") else "Å"
            if abs(first[f"{short}_published"] - first[f"{short}_without"]) < least:
                continue
            towards = known[known[f"closes_{short}_pct"] >= LEAST_PCT]
            best = towards.sort_values(f"closes_{short}_pct", ascending=False).head(3)
            each = ", ".join(
                f"{_told(r['added'], r['strength'])} ({number(column, r[column])} {unit},"
                f" {r[f'closes_{short}_pct']:.0f} % of the gap{_doubt(r, column)})"
                for _, r in best.iterrows()
            )
            met = known[known[f"strength_for_{short}"].notna()]
            ends = " or ".join(f"{_told(r['added'], r[f'strength_for_{short}'])}" for _, r in met.iterrows())
            said.append(
                f"{case}, {method} {name}: {number(column, first[f'{short}_without'])} simulated against"
                f" {number(column, first[f'{short}_published'])} published."
                f" Of what was changed or added alone, the gap is closed most by {each or 'nothing that was tried'}."
                + (f" By interpolation, {ends} would close it." if ends else " Nothing that was tried closes it alone.")
            )
    if said:
        said.append("None of this is part of the shared set: the tables above are made without it.")
    return said


def _doubt(row: pd.Series, column: str) -> str:
    """Words for a change that the seeds do not tell from none."""
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    if not (math.isfinite(low) and math.isfinite(high)):
        return "; one seed"
    return "; its interval holds zero" if low <= 0 <= high else ""


def _told(what: str, strength: float) -> str:
    """The strength of something in words, with its unit."""
    for ending, unit in UNITS.items():
        if what.endswith(ending):
            return f"{what.removesuffix(ending).replace('_', ' ')} {strength:.3g}{unit}"
    return f"{what.replace('_', ' ')} {strength:.3g}"
