"""What would close the gaps between published and simulated figures: runs with more flaws, or stronger ones.

The axis `added` names what was added as WHAT=STRENGTH, in the unit of the field; "none" is the set of the study.
Changes are paired by seed within a block; gaps are those of the tables of the study, whose runs are more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from nanoed.pipeline.page.html import Cell, Table
from nanoed.sim.flaws import FLAWS, STANDARD
from nanoed.sim.physics.errors import InputError
from nanoed.sim.spec import Experiment
from nanoed.studies.case import load_case, shipped_cases
from nanoed.studies.settings import nearest
from nanoed.studies.sweeps.analyses.flaws import changes
from nanoed.studies.sweeps.analyses.treatments import WITHIN
from nanoed.studies.sweeps.grid import Point
from nanoed.studies.sweeps.shown import as_number, label, number, page_table
from nanoed.studies.tables import published_value

Published = Mapping[str, Mapping[str, str]]
GAP_COLUMNS: Mapping[str, str] = {
    "r_int_pct": "R_int",
    "r_obs_pct": "R_obs",
    "observed_pct": "share of observed reflections",
    "max_dist_A": "maximal distance",
}
SHOWN = (
    *("case", "method", "what", "instead_of", "r_int_pct", "closes_r_int_pct", "r_obs_pct", "closes_r_obs_pct"),
    *("observed_pct", "closes_observed_pct", "max_dist_A", "closes_max_dist_A_pct"),
)
LEAST_GAP: Mapping[str, Mapping[str, float]] = {
    "kinematical": {**WITHIN, "observed_pct": 10.0, "max_dist_A": 0.01},
    "dynamical": {"r_obs_pct": 1.0, "max_dist_A": 0.005},
}
"""Below these, or not named here: no gap."""
UNITS = {"_deg": "°", "_pct": " %", "_nm": " nm", "_px": " px", "_mm": " mm", "_e_A2_s": " e/Å²/s",
         "inelastic": " times the inelastic losses"}  # fmt: skip
FLUX = "flux_e_A2_s"
LEAST_PCT = 5
"""Of a gap, that something must close to be named."""
CLOSING_CAPTION = (
    "The gaps that were looked into: differences of at least 6 points in R_int, 5 in kinematical and 1 in dynamical"
    " R_obs, 10 in the share of observed reflections, 0.01 Å in the kinematical and 0.005 Å in the dynamical maximal"
    " distance. What closes most of a gap, each thing alone, with its share; the strength that would close it,"
    " interpolated linearly between those tried; what is then outside these limits, at the next strength tried"
)
CAPTION = (
    "change against the flaws of the study, paired by seed, and the share of the gap that it closes; –: the runs"
    " failed, or there is no gap"
)


def check_levels(settings: Mapping[str, Any], points: Iterable[Point]) -> None:
    """Raise InputError for a level of `added` that is not WHAT=STRENGTH, or that sets another strength."""
    for point in points:
        level = point.labels.get("added", "none")
        if level == "none":
            continue
        what, strength = _parts(level, point.block)
        given = _given(point.case.experiment, what, point.block)
        if not math.isclose(given, strength):
            raise InputError(
                "sets another strength than its name says", field=_field(point.block), value=level,
                allowed=f"{what}={given:g}",
            )  # fmt: skip


def _field(block: str) -> str:
    return f"block.{block}.axes.added"


def _parts(level: str, block: str) -> tuple[str, float]:
    """WHAT and STRENGTH of a level; raises InputError for another form."""
    what, _, text = level.partition("=")
    strength = as_number(text)
    if not math.isfinite(strength):
        raise InputError(
            "not WHAT=STRENGTH", field=_field(block), value=level,
            allowed="none, or a flaw, a length of the particle or the flux and a number, as mosaicity_deg=0.3",
        )  # fmt: skip
    return what, strength


def _given(experiment: Experiment, what: str, block: str) -> float:
    """The strength of a flaw, a length of the particle or the flux in an experiment; InputError for what is neither."""
    if what in FLAWS:
        set_to: str | float = getattr(experiment.flaws, what)
        return float(set_to) if not isinstance(set_to, str) else FLAWS[what].value if set_to == "default" else 0.0
    given = getattr(experiment.instrument if what == FLUX else experiment.particle, what, None)
    if not isinstance(given, float):
        raise InputError(
            "neither a flaw nor a length of the particle nor the flux", field=_field(block), value=what,
            allowed=f"diameter_nm, {FLUX}, or {nearest(what, FLAWS)}",
        )  # fmt: skip
    return given


def gap_table(rows: pd.DataFrame, published: Published, tables: pd.DataFrame) -> pd.DataFrame:
    """What was added (WHAT=STRENGTH), by how much it moves each figure, and which share of the gap that closes.

    tables : the runs of the tables; a case or method that is not there has its mean from the runs with "none" added.
    strength_without : in the runs without it.  *_without, *_published : the two ends of the gap.
    closes_*_pct : change over gap, percent; NaN where the runs failed, nothing is published or no gap is.
    strength_for_*: where the figure, linear between the strengths tried, meets the published one; NaN: not within them.
    """
    means = with_share(tables).groupby(["case", "method"])[list(GAP_COLUMNS)].mean()
    each = [_of_block(str(name), block, published, means) for name, block in rows.groupby("block", sort=False)]
    return pd.concat([table for table in each if len(table)] or [pd.DataFrame()], ignore_index=True)


def with_share(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(observed_pct=100 * rows["n_obs"] / rows["n_all"])


def _of_block(name: str, rows: pd.DataFrame, published: Published, means: pd.DataFrame) -> pd.DataFrame:
    rows = with_share(rows)
    table = changes(rows, "added", "none", list(GAP_COLUMNS))
    if table.empty:
        return table
    parts = [_parts(level, name) for level in table["added"]]
    table = table.assign(block=name, added=[what for what, _ in parts], strength=[strength for _, strength in parts])
    plain = rows[rows["added"] == "none"]
    table["strength_without"] = [
        strength_without(str(case), _flaws_of(plain[plain["case"] == case]), str(what), name)
        for case, what in zip(table["case"], table["added"], strict=True)
    ]
    own = plain.groupby(["case", "method"])[list(GAP_COLUMNS)].mean()
    keys = list(zip(table["case"], table["method"], strict=True))
    for column in GAP_COLUMNS:
        base = [float((means if key in means.index else own)[column][key]) for key in keys]
        goal = [published_figure(published.get(case, {}), method, column) for case, method in keys]
        least = [LEAST_GAP.get(method, {}).get(column, math.inf) for _, method in keys]
        short = column.removesuffix("_pct")
        gap = np.subtract(goal, base)
        gap[np.abs(gap) < least] = math.nan
        table = table.assign(**{f"{short}_without": base, f"{short}_published": goal, f"{short}_gap": gap,
                                f"closes_{short}_pct": 100 * table[column] / gap})  # fmt: skip
        table[f"strength_for_{short}"] = _strengths(table, column, gap)
    return table


def published_figure(case: Mapping[str, str], method: str, column: str) -> float:
    if column != "observed_pct":
        return published_value(case, method, column)
    return 100 * published_value(case, method, "n_obs") / (published_value(case, method, "n_all") or math.nan)


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


def strength_without(case: str, flaws: str, what: str, block: str) -> float:
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
    return _given(load_case(case).experiment, what, block)


def closing_table(gaps: pd.DataFrame) -> pd.DataFrame:
    """A row for every gap that was looked into: what moves it most towards the published figure, what would close it.

    simulated : without anything added.  closed_most_by, would_close, then_outside : in words; empty where nothing is.
    """
    rows = []
    for (case, method), part in gaps.groupby(["case", "method"], sort=False) if len(gaps) else []:
        for column in LEAST_GAP.get(str(method), {}):
            short = column.removesuffix("_pct")
            known = part[part[f"{short}_gap"].notna()]
            if known.empty:
                continue
            towards = known[known[f"closes_{short}_pct"] >= LEAST_PCT]
            best = towards.sort_values(f"closes_{short}_pct", ascending=False).head(3)
            met = known[known[f"strength_for_{short}"].notna()]
            rows.append({
                "case": case, "method": method, "figure": column,
                "simulated": known[f"{short}_without"].iloc[0], "published": known[f"{short}_published"].iloc[0],
                "closed_most_by": "; ".join(
                    f"{_told(r['added'], r['strength'])}: {r[f'closes_{short}_pct']:.0f} %{_doubt(r, column)}"
                    for _, r in best.iterrows()
                ),
                "would_close": " or ".join(
                    _told(r["added"], r[f"strength_for_{short}"]) + _doubt(r, column) for _, r in met.iterrows()
                ),
                "then_outside": "; ".join(filter(None, (_outside(r, str(method), column) for _, r in met.iterrows()))),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _outside(row: pd.Series, method: str, closed: str) -> str:
    """The other figures that are outside their limits where one gap is closed, at the next strength that was tried."""
    told = []
    for column, least in LEAST_GAP[method].items():
        short = column.removesuffix("_pct")
        value = row[f"{short}_without"] + row[column]
        if column != closed and abs(value - row[f"{short}_published"]) >= least:
            told.append(f"{GAP_COLUMNS[column]} {number(column, value)}")
    return f"at {_told(row['added'], row['strength'])}: {', '.join(told)}" if told else ""


def shown_gaps(gaps: pd.DataFrame) -> Table:
    """`gap_table` for the page, with what was added in words."""
    told = gaps.assign(
        what=[_told(a, x) for a, x in zip(gaps["added"], gaps["strength"], strict=True)],
        instead_of=[_with_unit(a, x) for a, x in zip(gaps["added"], gaps["strength_without"], strict=True)],
    )
    return page_table(told, SHOWN, CAPTION + _seeds(gaps))


def shown_closing(closing: pd.DataFrame, gaps: pd.DataFrame) -> Table:
    """`closing_table` for the page, each number with the digits of its figure."""
    head = ("data set", "method", "figure", "simulated", "published", "share closed by", "closed at", "then outside")
    rows = tuple(
        (
            Cell(str(row["case"])), Cell(str(row["method"])), Cell(label(row["figure"])),
            *(Cell(number(row["figure"], row[which]), row[which]) for which in ("simulated", "published")),
            Cell(row["closed_most_by"] or "by nothing tried"), Cell(row["would_close"] or "at none tried"),
            Cell(row["then_outside"]),
        )
        for row in closing.to_dict("records")
    )  # fmt: skip
    return Table(head, rows, CLOSING_CAPTION + _seeds(gaps))


def _seeds(gaps: pd.DataFrame) -> str:
    return "; one seed" if gaps["pairs"].max() < 2 else "; below a change its 95 % interval"


def gap_sentences(closing: pd.DataFrame) -> list[str]:
    """How many gaps there are, which of them something would close, and which nothing that was tried."""
    if closing.empty:
        return []
    closed, left = [], []
    for row in closing.to_dict("records"):
        told = f"{row['case']}, {GAP_COLUMNS[row['figure']]}"
        told += "" if row["method"] == "kinematical" else f" ({row['method']})"
        if row["would_close"]:
            outside = f" (but then outside {row['then_outside']})" if row["then_outside"] else ""
            closed.append(f"{told} by {row['would_close']}{outside}")
        else:
            left.append(told)
    return [
        f"Of {len(closing)} gaps looked into, {len(closed)} would be closed by one thing alone, by interpolation"
        + (f": {'; '.join(closed)}." if closed else ".")
        + (f" By nothing that was tried: {'; '.join(left)}." if left else ""),
        "None of this is part of the shared set: the tables are made without it.",
    ]


def _doubt(row: pd.Series, column: str) -> str:
    """Words for a change that the seeds do not tell from none."""
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return " (its interval holds zero)" if low <= 0 <= high else ""


def _told(what: str, strength: float) -> str:
    """What was added in words, with its strength and unit."""
    ending = next((ending for ending in UNITS if what.endswith(ending)), "")
    return f"{what.removesuffix(ending).replace('_', ' ')} {_with_unit(what, strength)}".strip()


def _with_unit(what: str, strength: float) -> str:
    return f"{strength:.3g}" + next((unit for ending, unit in UNITS.items() if what.endswith(ending)), "")
