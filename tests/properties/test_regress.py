"""The regression verdicts: within tolerance, better, slipped, gone."""

import pytest

from nanoed.sim.physics.errors import InputError
from nanoed.studies import cli
from nanoed.studies import regress as module
from nanoed.studies.regress import judge, regress, rows_of
from nanoed.studies.tables import RESULT_COLUMNS

OLD = {"method": "dynamical", "status": "ok", "r_obs_pct": "4.00", "av_dist_A": "0.0030", "n_all": "3000"}


def verdict_of(column, **now):
    verdicts = judge("case", {"dynamical": OLD}, {"dynamical": OLD | now})
    return next(v.verdict for v in verdicts if v.column == column)


@pytest.mark.parametrize(
    ("column", "value", "verdict"),
    [
        ("r_obs_pct", "4.15", "ok"),
        ("r_obs_pct", "4.25", "slipped"),
        ("r_obs_pct", "3.50", "better"),
        ("r_obs_pct", "", "slipped"),
        ("av_dist_A", "0.0032", "ok"),
        ("av_dist_A", "0.0034", "slipped"),
        ("n_all", "2900", "slipped"),
        ("n_all", "3100", "slipped"),
        ("status", "failed", "slipped"),
    ],
)
def test_verdicts(column, value, verdict):
    assert verdict_of(column, **{column: value}) == verdict


def test_method_that_is_gone_has_slipped():
    assert all(v.slipped for v in judge("case", {"dynamical": OLD}, {}))


def test_comment_lines_are_no_rows():
    table = (
        ",".join(RESULT_COLUMNS)
        + "\n"
        + ",".join("dynamical" if c == "method" else "1" for c in RESULT_COLUMNS)
    )
    assert list(rows_of("# made by x\n" + table)) == ["dynamical"]


def test_missing_reference_and_missing_reason_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="no reference table"):
        regress(tmp_path, quick=True)
    with pytest.raises(InputError, match="reason"):
        regress(tmp_path, quick=True, reason=" ")


def table(r_obs_pct):
    row = OLD | {"r_obs_pct": r_obs_pct}
    return ",".join(RESULT_COLUMNS) + "\n" + ",".join(row.get(name, "") for name in RESULT_COLUMNS) + "\n"


def test_reference_is_made_for_a_reason_and_a_slip_is_status_1(tmp_path, monkeypatch, capsys):
    command = ["regress", "--quick", "--baseline", str(tmp_path / "baseline")]
    monkeypatch.setattr(module, "_results", lambda *_: table("4.00"))
    assert cli.status(command) == 2
    assert cli.status([*command, "--update"]) == 2
    assert cli.status([*command, "--update", "--reason", "first"]) == 0
    assert cli.status(command) == 0
    monkeypatch.setattr(module, "_results", lambda *_: table("4.50"))
    assert cli.status(command) == 1
    assert "slipped" in capsys.readouterr().out
    assert cli.status([*command, "--update", "--reason", "the detector became worse"]) == 0
    assert cli.status(command) == 0
    moves = (tmp_path / "baseline" / "MOVES.md").read_text()
    assert "the detector became worse (dynamical r_obs_pct 4.00 -> 4.50)" in moves
