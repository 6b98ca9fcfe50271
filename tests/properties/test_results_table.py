"""results.csv: the columns of the design in their order, and what is written is read back."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoed.sim.physics.errors import InputError
from nanoed.studies.rows import finite
from nanoed.studies.tables import (
    INTEGER_COLUMNS,
    RESULT_COLUMNS,
    TEXT_COLUMNS,
    format_quantity,
    published_beside,
    read_many,
    read_results,
    write_results,
)

DESIGN = """
case, digest, structure, engine, factors_sim, factors_refine, flaws, protocol, shape,
equiv_diameter_nm, beam_diameter_nm, flux_e_A2_s, fluence_e_A2, seed, method, status, message,
n_frames, coverage_pct, coverage_s_max, redundancy, r_int_pct, cc_half, n_all, n_obs, n_par,
r_obs_pct, r_all_pct, wr_all_pct, wr_f_pct, gof, gof_obs, mr_obs_pct, r_heldout_pct, max_shift_su,
g_max, s_g_max, rs_g_max, n_azimuth, adp_model, adp_npd, av_dist_A, max_dist_A, u_rmsd_A2,
occ_max_err, hand_z, pull_rms, cell_err_pct, orientation_err_deg, thickness_A, thickness_true_A
"""

ROW = {"method": "dynamical", "status": "ok"}
text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")))
values = {
    column: text
    if column in TEXT_COLUMNS
    else st.integers(-(2**50), 2**50)
    if column in INTEGER_COLUMNS
    else st.none() | st.floats(allow_infinity=False)
    for column in RESULT_COLUMNS
} | {"method": st.sampled_from(["kinematical", "dynamical"]), "status": st.sampled_from(["ok", "failed"])}


def test_columns_are_those_of_the_design() -> None:
    assert tuple(DESIGN.replace("\n", " ").replace(",", " ").split()) == RESULT_COLUMNS


@given(st.lists(st.fixed_dictionaries(values), max_size=3))
def test_what_is_written_is_read_back(rows: list[dict[str, object]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "results.csv"
        write_results(path, rows)
        again = read_results(path)
        assert tuple(again.columns) == RESULT_COLUMNS
        assert len(again) == len(rows)
        for (_, found), row in zip(again.iterrows(), rows, strict=True):
            for column, value in row.items():
                if isinstance(value, str):
                    assert found[column] == value
                elif value is None or math.isnan(value):
                    assert math.isnan(found[column])
                else:
                    assert found[column] == pytest.approx(value, rel=1e-5, abs=0)
        first = path.read_bytes()
        write_results(path, again.to_dict("records"))
        assert path.read_bytes() == first


@pytest.mark.parametrize(
    "wrong", [{"methode": "x"}, {"method": "guess"}, {"status": "fine"}, {"r_obs_pct": math.inf}]
)
def test_what_does_not_belong_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"results\.csv"):
        write_results(tmp_path / "results.csv", [ROW | wrong])
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("status", "fine", "field 'status': .*'fine'.*allowed: one of ok, not_converged, failed"),
        ("method", "magic", "field 'method': .*'magic'.*allowed: one of kinematical"),
        ("r_obs_pct", "-inf", "field 'r_obs_pct': .*inf.*allowed: finite numbers"),
        ("r_obs_pct", "many", "field 'r_obs_pct'"),
        ("", "cut", r"row 1.*10 fields.*allowed: the \d+ fields of the head"),
        ("", "long", r"row 1.*fields of the head"),
    ],
)
@pytest.mark.parametrize("read", [read_results, read_many])
def test_a_row_that_no_run_wrote_is_one_line(tmp_path: Path, column: str, value: str, said: str, read) -> None:
    row = dict.fromkeys(RESULT_COLUMNS, "") | {"method": "dynamical", "status": "ok"}
    cells = list((row | {column: value} if column else row).values())
    cells = {"cut": cells[:10], "long": [*cells, "more"]}.get(value, cells)
    path = tmp_path / "results.csv"
    path.write_text(f"{','.join(RESULT_COLUMNS)}\n{','.join(cells)}\n")
    with pytest.raises(InputError, match=said) as caught:
        read(path)
    assert "results.csv" in str(caught.value)


def test_a_line_break_in_a_message_does_not_break_the_table(tmp_path: Path) -> None:
    write_results(tmp_path / "results.csv", [ROW | {"message": 'two\nlines, "quoted"'}])
    assert read_results(tmp_path / "results.csv").at[0, "message"] == 'two lines, "quoted"'


def test_published_numbers_stand_beside_their_own_method(tmp_path: Path) -> None:
    rows = [
        ROW | {"method": method, "r_obs_pct": r} for method, r in (("kinematical", 15.0), ("dynamical", 4.0))
    ]
    write_results(tmp_path / "results.csv", rows)
    published = {
        "dataset": "x",
        "kin_r_obs_pct": "17.03",
        "dyn_r_obs_pct": "6.63",
        "r_int_pct": "16.2",
        "gof": "",
    }
    beside = published_beside(read_results(tmp_path / "results.csv"), published).set_index("column")
    assert list(beside.loc["r_obs_pct"].iloc[1:]) == [15.0, 17.03, 4.0, 6.63]
    assert beside.at["r_int_pct", "kinematical published"] == 16.2
    assert math.isnan(beside.at["r_int_pct", "dynamical published"])
    assert "gof" not in beside.index


def test_numbers_are_printed_as_the_study_prints_them() -> None:
    assert format_quantity("av_dist_A", 0.00791) == "0.0079"
    assert format_quantity("n_obs", 312.0) == "312"
    assert format_quantity("r_obs_pct", 6.634) == "6.63"
    assert format_quantity("gof", math.nan) == "–"


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({}, "ok", ""),
        ({"pull_rms": math.nan}, "ok", ""),  # nothing was free to move
        ({"gof": math.inf}, "failed", "not finite: gof"),
        ({"av_dist_A": math.nan}, "failed", "not finite: av_dist_A"),
        ({"r_obs_pct": -math.inf, "message": "odd"}, "failed", "odd; not finite: r_obs_pct"),
        (
            {"status": "not_converged", "message": "steps ran out", "gof": math.inf},
            "not_converged",
            "steps ran out",
        ),
    ],
)
def test_numbers_are_finite_or_the_row_says_why_not(changed, status, said):
    numbers = {"r_obs_pct": 4.0, "r_all_pct": 5.0, "av_dist_A": 0.01, "max_dist_A": 0.02, "gof": 1.1}
    row = finite({"method": "dynamical", "status": "ok", "message": ""} | numbers | changed)
    assert (row["status"], row["message"]) == (status, said)
    assert all(
        value is None or not isinstance(value, float) or math.isfinite(value) for value in row.values()
    )
