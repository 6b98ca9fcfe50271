"""How the tables and quantities of a study are told to a reader: names with units, digits, intervals under values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nanoed.pipeline.page.html import Cell, Table

MOST_ROWS = 400
"""Of a table on the page; the CSV has all."""
LABELS: Mapping[str, str] = {
    "av_dist_A": "average distance (Å)",
    "max_dist_A": "maximal distance (Å)",
    "r_obs_pct": "R_obs (%)",
    "r_all_pct": "R_all (%)",
    "wr_all_pct": "wR_all (%)",
    "r_int_pct": "R_int (%)",
    "gof": "goodness of fit",
    "n_all": "reflections, all",
    "n_obs": "reflections, observed",
    "n_par": "parameters",
    "observed_pct": "observed reflections (%)",
    "obs_per_par": "observed reflections per parameter",
    "u_rmsd_A2": "rms error of U (Å²)",
    "occ_max_err": "largest error of an occupancy",
    "adp_npd": "sites with non-positive U",
    "hand_z": "preference for the right hand (z)",
    "hand_right": "share of right hands",
    "pull_rms": "rms (refined − true) / s.u.",
    "cell_err_pct": "largest error of a cell edge (%)",
    "orientation_err_deg": "rms error of orientations (°)",
    "coverage_pct": "coverage (%)",
    "redundancy": "redundancy",
    "size_nm": "diameter of the particle (nm)",
    "pair_size_nm": "diameter of the particle (nm)",
    "fluence": "fluence (e/Å²)",
    "fluence_e_A2": "fluence (e/Å²)",
    "equiv_diameter_nm": "diameter of the particle (nm)",
    "beam_ratio": "diameter of beam / particle",
    "thickness_A": "mean thickness, refined (Å)",
    "thickness_true_A": "mean thickness (Å)",
    "semi_angle_deg": "precession semi-angle (°)",
    "tilt_step_deg": "tilt step (°)",
    "frame_width_deg": "rotation per frame (°)",
    "serial_frames": "serial frames",
    "n_frames": "frames",
    "elliptic": "elliptic distortion (%)",
    "barrel": "barrel distortion at the edge (%)",
    "camera_length": "half-width of the camera length's error (%)",
    "made_by": "data made by",
    "scan": "protocol",
    "limit_A": "limit of the average distance (Å)",
    "flaw": "flaw",
    "flaw_off": "flaw switched off",
    "rho": "rank correlation",
    "n": "refinements",
    "few_reflections": "fewer than ten observed reflections per parameter",
}
_HEADS: Mapping[str, str] = {
    "size_nm": "diameter (nm)",
    "pair_size_nm": "diameter (nm)",
    "equiv_diameter_nm": "diameter (nm)",
    "beam_ratio": "beam / particle",
    "pull_rms": "pull, rms",
    "obs_per_par": "observed / parameters",
    "closes_r_int_pct": "of the gap of R_int (%)",
    "closes_r_obs_pct": "of the gap of R_obs (%)",
    "closes_observed_pct": "of the gap of observed (%)",
    "closes_max_dist_A_pct": "of its gap (%)",
    "r_obs_gain": "ratio of R_obs",
    "av_dist_gain": "ratio of distances",
    "r_obs_pct_kinematical": "R_obs, kinematical (%)",
    "r_obs_pct_dynamical": "R_obs, dynamical (%)",
    "av_dist_A_kinematical": "average distance, kinematical (Å)",
    "av_dist_A_dynamical": "average distance, dynamical (Å)",
}
"""Of the columns of a table, where LABELS are too long."""
_DECIMALS: Mapping[str, int] = {
    "av_dist_A": 4, "max_dist_A": 4, "gof": 2, "redundancy": 2, "obs_per_par": 1, "pull_rms": 2, "hand_z": 1,
    "hand_right": 2, "occ_max_err": 3, "cell_err_pct": 3, "orientation_err_deg": 3, "rho": 2, "adp_npd": 1,
    "thickness_A": 1, "thickness_true_A": 1, "u_rmsd_A2": 5, "r_obs_gain": 2, "av_dist_gain": 2, "coverage_pct": 1,
    "closes_r_int_pct": 0, "closes_r_obs_pct": 0, "closes_observed_pct": 0,
    "closes_max_dist_A_pct": 0, "observed_pct": 1,
}
_WHOLE = frozenset(("runs", "failed", "seeds", "pairs", "n", "seed", "n_all", "n_obs", "n_par", "n_frames"))
_INTERVALS = (("_mean_low", "_mean_high"), ("_low", "_high"), ("_p5", "_p95"))
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_QUANTITY_COLUMNS = frozenset(("quantity", "indicator"))


def label(name: str) -> str:
    """A column in words, with its unit."""
    return LABELS.get(name, name.replace("_", " "))


def head(name: str) -> str:
    """A column in words, short enough for the head of a table."""
    return _HEADS.get(name, label(name))


def axis_label(name: str) -> str:
    """A column in words for an axis of a drawing."""
    return re.sub(r"\b(w?R)_(obs|all|int)\b", r"$\\mathit{\1}_\\mathrm{\2}$", label(name))


def number(name: str, value: float) -> str:
    """A number of a column with the digits that its quantity deserves, an en dash where there is none."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if name in _WHOLE and value == round(value):
        return f"{value:.0f}"
    name = re.sub(r"_(kinematical|dynamical)$", "", name)
    decimals = _DECIMALS.get(name, 2 if name.endswith("_pct") else 1 if name in _WHOLE else None)
    text = f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def sentence(text: str) -> str:
    """The text with its first letter large."""
    return text[:1].upper() + text[1:]


def power(level: object) -> str:
    """A level as "1e4" with its power of ten above the line, anything else as it is."""
    found = re.fullmatch(r"(\d+)e\+?0*(\d+)", str(level))
    if found is None:
        return str(level)
    times = "" if found[1] == "1" else f"{found[1]}·"
    return f"{times}10{found[2].translate(_RAISED)}"


def page_table(table: pd.DataFrame, columns: Sequence[str] | None = None, caption: str = "") -> Table:
    """The table as the page shows it: columns under their labels, a 95 % interval under its value.

    columns : those shown, in order; None: all. Columns with one text throughout become part of the caption.
    """
    parts = {name for name in table for other in table if _interval_of(str(other), str(name))}
    parts |= {f"{name}_sd" for name in table}
    named = [str(name) for name in (columns or table.columns) if name in table and name not in parts]
    same = [n for n in named if len(table) > 1 and _is_text(table[n]) and table[n].nunique() == 1 and table[n].iloc[0]]
    kept = [name for name in named if name not in same]
    said = [f"{label(name)}: {table[name].iloc[0]}" for name in same]
    if len(table) > MOST_ROWS:
        said.append(f"the first {MOST_ROWS} of {len(table)} rows")
    rows = tuple(tuple(_cell(name, row) for name in kept) for row in table.head(MOST_ROWS).to_dict("records"))
    told = "; ".join(filter(None, [caption, *said]))
    return Table(tuple(head(name) for name in kept), rows, sentence(told))


def _interval_of(column: str, part: str) -> bool:
    return any(part in (column + low, column + high) for low, high in _INTERVALS)


def _is_text(column: pd.Series) -> bool:
    return bool(column.map(lambda value: isinstance(value, str)).all())


def _cell(name: str, row: Mapping[Any, Any]) -> Cell:
    value = row[name]
    if isinstance(value, str):
        return Cell(label(value)) if name in _QUANTITY_COLUMNS else level_cell(value)
    if value is None:
        return Cell("–")
    x = float(value)
    if math.isnan(x):
        return Cell("–")
    return Cell(number(name, x), x, _interval(name, row))


def as_number(label: object) -> float:
    """The number that a level's label is, NaN for a word."""
    try:
        return float(str(label))
    except ValueError:
        return math.nan


def level_cell(level: str) -> Cell:
    """A level of an axis; one that is a number is sorted by it."""
    value = as_number(level)
    return Cell(power(level), value if math.isfinite(value) else None)


def _interval(name: str, row: Mapping[Any, Any]) -> str:
    for low, high in _INTERVALS:
        if name + low in row:
            ends = [float(row[name + end]) for end in (low, high)]
            if not all(map(math.isfinite, ends)):
                return ""
            return " to ".join(number(name, end) for end in ends)
    return ""
