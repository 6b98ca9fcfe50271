"""The table of results: its columns, its file, and the published column beside it."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import pandas as pd

from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole

RESULT_COLUMNS: tuple[str, ...] = (
    *("case", "digest", "structure", "engine", "factors_sim", "factors_refine", "flaws", "protocol", "shape"),
    *("equiv_diameter_nm", "beam_diameter_nm", "flux_e_A2_s", "fluence_e_A2", "seed"),
    *("method", "status", "message"),
    *("n_frames", "coverage_pct", "coverage_s_max", "redundancy", "r_int_pct", "cc_half"),
    *("n_all", "n_obs", "n_par", "r_obs_pct", "r_all_pct", "wr_all_pct", "wr_f_pct", "gof", "gof_obs"),
    *("mr_obs_pct", "r_heldout_pct", "max_shift_su", "g_max", "s_g_max", "rs_g_max", "n_azimuth"),
    *("adp_model", "adp_npd", "av_dist_A", "max_dist_A", "u_rmsd_A2", "occ_max_err", "hand_z", "pull_rms"),
    *("cell_err_pct", "orientation_err_deg", "thickness_A", "thickness_true_A"),
)
TEXT_COLUMNS = frozenset((*RESULT_COLUMNS[:9], "method", "status", "message", "adp_model"))
INTEGER_COLUMNS = frozenset(("seed", "n_frames", "n_all", "n_obs", "n_par", "n_azimuth", "adp_npd"))
METHODS = ("kinematical", "kinematical-unit", "kinematical-nonaveraged", "kinematical-frames", "dynamical", "powder")
_WRONG = "not a table of results"
STATUSES = ("ok", "not_converged", "failed")
OF_A_REFINEMENT = tuple(
    name
    for name in (*RESULT_COLUMNS[RESULT_COLUMNS.index("n_all") : RESULT_COLUMNS.index("cell_err_pct")], "thickness_A")
    if name not in TEXT_COLUMNS
)
"""Numbers that a refinement gives; the others are of the data and their reduction."""

# named alike in results.csv and, after the method's prefix, in the published tables
_PUBLISHED_PER_METHOD = frozenset(
    ("n_all", "n_obs", "n_par", "r_obs_pct", "r_all_pct", "wr_all_pct", "gof", "av_dist_A", "max_dist_A")
)
_PUBLISHED_PREFIX = {
    "kinematical": "kin_",
    "kinematical-nonaveraged": "nonaveraged_",
    "kinematical-frames": "frames_",
    "dynamical": "dyn_",
}
_PUBLISHED_OF_DATA = ("n_frames", "redundancy", "r_int_pct")
_QUANTITIES = {
    "n_frames": "frames",
    "coverage_pct": "coverage (%)",
    "redundancy": "redundancy",
    "r_int_pct": "R_int (%)",
    "n_all": "reflections, all",
    "n_obs": "reflections, observed",
    "n_par": "parameters",
    "r_obs_pct": "R_obs (%)",
    "r_all_pct": "R_all (%)",
    "wr_all_pct": "wR_all (%)",
    "gof": "GoF",
    "mr_obs_pct": "MR_obs (%)",
    "r_heldout_pct": "R_obs, held-out frames (%)",
    "av_dist_A": "average distance (Å)",
    "max_dist_A": "maximal distance (Å)",
    "thickness_A": "mean thickness (Å)",
    "thickness_true_A": "mean thickness, true (Å)",
}
_DECIMALS = {"redundancy": 2, "gof": 2, "av_dist_A": 4, "max_dist_A": 4, "coverage_pct": 1, "r_int_pct": 1}


def _cell(column: str, value: Any) -> str:
    """The text of one value in `results.csv`: six significant digits, empty for not applicable."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if column in TEXT_COLUMNS:
        return " ".join(str(value).split())
    if not math.isfinite(float(value)):
        raise ValueError(f"results.csv: {column} is {value}, which is not a finite number")
    return str(int(value)) if column in INTEGER_COLUMNS else format(float(value), ".6g")


def without_failed(results: pd.DataFrame) -> pd.DataFrame:
    """The results without the numbers (NaN) of refinements that have not ended well, of whatever they may have left."""
    kept = results["status"] == "ok"
    return results.assign(**{name: results[name].where(kept) for name in OF_A_REFINEMENT if name in results})


def write_results(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `results.csv`, see `results_text`."""
    write_whole(path, results_text(rows))


def results_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The text of `results.csv`: the columns of RESULT_COLUMNS in that order, rows in the order given.

    A row maps column names to values; a missing name, None and NaN are written empty. Raises ValueError
    for an unknown column, an unknown method or status, or an infinite number.
    """
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(RESULT_COLUMNS)
    for row in rows:
        unknown = sorted(set(row) - set(RESULT_COLUMNS))
        if unknown or row.get("method") not in METHODS or row.get("status") not in STATUSES:
            kind = f"method {row.get('method')!r} or status {row.get('status')!r}"
            raise ValueError(f"results.csv: unknown column {unknown}, {kind}")
        table.writerow([_cell(column, row.get(column)) for column in RESULT_COLUMNS])
    return buffer.getvalue()


def read_results(path: Path) -> pd.DataFrame:
    """Read `results.csv`: text columns as str (empty if not applicable), the others as float with NaN.

    Columns that a newer version has appended are kept as text. Raises InputError for a file that is not
    a table of results, and for an unknown method or status and an infinite number in it.
    """
    return _read_rows(path, remarks=False)


def read_many(path: Path) -> pd.DataFrame:
    """Read the results of many runs, `without_failed`: as `read_results`, below lines of remarks that begin with #.

    Raises InputError for a file that is not a table of results, and for one without rows.
    """
    table = _read_rows(path, remarks=True)
    if table.empty:
        raise InputError("not a table of results", file=path, value="no row", allowed="a row per refinement")
    return without_failed(table)


def _read_rows(path: Path, remarks: bool) -> pd.DataFrame:
    table = read_columns(path, RESULT_COLUMNS, TEXT_COLUMNS, _WRONG, remarks)
    check_words(path, table, _WRONG)
    for column in (name for name in RESULT_COLUMNS if name not in TEXT_COLUMNS):
        infinite = table.loc[table[column].abs() == math.inf, column]
        if len(infinite):
            raise InputError(_WRONG, file=path, field=column, value=infinite.iloc[0], allowed="finite numbers")
    return table


def check_words(path: Path, table: pd.DataFrame, wrong: str) -> None:
    """Raise InputError, beginning with `wrong`, for a method or a status that there is not."""
    for column, known in (("method", METHODS), ("status", STATUSES)):
        for value in table[column]:
            if value not in known:
                raise InputError(wrong, file=path, field=column, value=value, allowed=f"one of {', '.join(known)}")


def read_columns(
    path: Path, columns: Iterable[str], text: Set[str], wrong: str, remarks: bool = False
) -> pd.DataFrame:
    """Read a CSV file that must have `columns`: those of `text` as str, the others as float, empty = NaN.

    Other columns are kept as text.  remarks : lines that begin with # are none of the table. Raises InputError,
    beginning with `wrong`, naming file and column, for rows that are not as long as the head too.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
        kept = "".join(line for line in lines if not (remarks and line.startswith("#")))
        head, *rows = [row for row in csv.reader(io.StringIO(kept, newline="")) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{wrong} ({error})", file=path) from error
    for number, row in enumerate(rows, 1):
        if len(row) != len(head):
            allowed = f"the {len(head)} fields of the head"
            raise InputError(f"{wrong} (row {number})", file=path, value=f"{len(row)} fields", allowed=allowed)
    if len(set(head)) < len(head):
        raise InputError(f"{wrong} (a column twice)", file=path, field=max(head, key=head.count))
    table = pd.DataFrame(rows, columns=head, dtype=str)
    for column in columns:
        if column not in table.columns:
            raise InputError(wrong, file=path, field=column, value="missing")
        if column not in text:
            try:
                table[column] = [float(value) if value else math.nan for value in table[column]]
            except ValueError as error:
                raise InputError(f"{wrong} ({error})", file=path, field=column, allowed="numbers") from error
    return table


def published_value(published: Mapping[str, Any], method: str, column: str) -> float:
    """The published number for one column of one method, NaN where the study gives none."""
    prefix = _PUBLISHED_PREFIX.get(method)
    if prefix is None:
        return math.nan
    name = ""
    if column in _PUBLISHED_PER_METHOD:
        name = prefix + column
    elif method == "kinematical" and column in _PUBLISHED_OF_DATA:
        name = column
    elif method == "kinematical" and column == "coverage_pct":
        name = next((key for key in published if key.startswith("coverage_pct")), "")
    value = published.get(name)
    return math.nan if value in (None, "") else float(value)  # type: ignore[arg-type]


def published_beside(results: pd.DataFrame, published: Mapping[str, Any]) -> pd.DataFrame:
    """One row per quantity, and per method a column of ours and the published one beside it.

    results : rows of `read_results`, one per method.  published : one row of the published tables
    (names as in those tables: kin_r_obs_pct, dyn_r_obs_pct, r_int_pct, ...), empty if there is none.
    Returns columns column, quantity, then for each method M in order M and `M published`; NaN where
    not applicable. Statistics of the data (R_int, redundancy, coverage) stand with the method whose row
    has them.
    """
    table: dict[str, list[Any]] = {"column": list(_QUANTITIES), "quantity": list(_QUANTITIES.values())}
    for _, row in results.iterrows():
        method = str(row["method"])
        table[method] = [float(row[column]) for column in _QUANTITIES]
        table[f"{method} published"] = [published_value(published, method, column) for column in _QUANTITIES]
    beside = pd.DataFrame(table)
    return beside[beside.iloc[:, 2:].notna().any(axis=1)].reset_index(drop=True)


def format_quantity(column: str, value: float) -> str:
    """A number as the side-by-side table prints it; an en dash where there is none."""
    if math.isnan(value):
        return "–"
    if column in INTEGER_COLUMNS:
        return f"{value:.0f}"
    return f"{value:.{_DECIMALS.get(column, 1 if column.endswith('_A') else 2)}f}"
