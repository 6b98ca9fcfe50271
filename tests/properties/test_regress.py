"""The regression verdicts: within tolerance, better, slipped, gone."""

import pytest

from nanoed.sim.physics.errors import InputError
from nanoed.studies import check_regress, cli
from nanoed.studies import regress as module
from nanoed.studies.regress import Found, judge, judge_speed, read_spread, regress, rows_of
from nanoed.studies.tables import RESULT_COLUMNS

OLD = {"method": "dynamical", "status": "ok", "r_obs_pct": "4.00", "av_dist_A": "0.0030", "n_all": "3000"}
SPREAD = {("dynamical", "r_obs_pct"): 0.8, ("dynamical", "av_dist_A"): 0.0012, ("kinematical", "n_all"): 1e9}


def verdict_of(column, **now):
    verdicts = judge("case", {"dynamical": OLD}, {"dynamical": OLD | now}, SPREAD)
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
    assert all(v.slipped for v in judge("case", {"dynamical": OLD}, {}, SPREAD))


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


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("brookite-small.csv", "method,status\ndynamical,ok\n", "field 'n_frames': .*missing"),
        ("brookite-small.csv", "no status", "field 'status': .*missing"),
        ("brookite-small.csv", "no r_obs_pct", "field 'r_obs_pct': .*missing"),
        ("brookite-small.csv", "empty r_obs_pct", "field 'r_obs_pct': .*allowed: a number"),
        ("spread.csv", "case,r_obs_pct_sd\na,0.1\n", "field 'method'"),
        ("spread.csv", "method,r_obs_pct_sd\ndynamical,small\n", "field 'r_obs_pct_sd': .*allowed: numbers"),
        ("spread.csv", "method,r_obs_pct_sd\ndynamical,inf\n", "field 'r_obs_pct_sd': .*allowed: finite"),
        ("brookite-small-speed.csv", "stage,seconds\nreduce,1\n", "field 'matrix_products'"),
        ("brookite-small-speed.csv", "stage,matrix_products\nreduce,fast\n", "allowed: numbers"),
    ],
)
@pytest.mark.parametrize("reason", [None, "a new detector"])
def test_what_is_no_reference_is_one_line_before_anything_runs(tmp_path, monkeypatch, name, text, said, reason):
    monkeypatch.setattr(module, "_found", lambda *_: pytest.fail("it ran"))
    (tmp_path / "brookite-small.csv").write_text(table("4.00"))
    how, _, column = text.partition(" ")
    if how in ("no", "empty"):
        head, row = (line.split(",") for line in table("4.00").splitlines())
        at = head.index(column)
        head, row = (head[:at] + head[at + 1 :], row[:at] + row[at + 1 :]) if how == "no" else (head, row)
        text = f"{','.join(head)}\n{','.join('' if i == at and how == 'empty' else x for i, x in enumerate(row))}\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        regress(tmp_path, True, reason)
    assert name in str(caught.value)


def table(r_obs_pct):
    row = OLD | {"r_obs_pct": r_obs_pct}
    return ",".join(RESULT_COLUMNS) + "\n" + ",".join(row.get(name, "") for name in RESULT_COLUMNS) + "\n"


def test_reference_is_made_for_a_reason_and_a_slip_is_status_1(tmp_path, monkeypatch, capsys):
    command = ["regress", "--quick", "--baseline", str(tmp_path / "baseline")]
    monkeypatch.setattr(module, "_found", lambda *_: Found(table("4.00"), {"simulate": 400.0}))
    assert cli.status(command) == 2
    assert cli.status([*command, "--update"]) == 2
    assert cli.status([*command, "--update", "--reason", "first"]) == 0
    assert cli.status(command) == 0
    monkeypatch.setattr(module, "_found", lambda *_: Found(table("4.50"), {"simulate": 400.0}))
    assert cli.status(command) == 1
    assert "slipped" in capsys.readouterr().out
    assert cli.status([*command, "--update", "--reason", "the detector became worse"]) == 0
    assert cli.status(command) == 0
    monkeypatch.setattr(module, "_found", lambda *_: Found(table("4.50"), {"simulate": 700.0}))
    assert cli.status(command) == 1
    assert "speed: simulate" in capsys.readouterr().out
    moves = (tmp_path / "baseline" / "MOVES.md").read_text()
    assert "the detector became worse (dynamical r_obs_pct 4.00 -> 4.50)" in moves


def test_an_unknown_part_of_the_check_is_told_before_a_missing_reference(tmp_path):
    with pytest.raises(InputError, match="field '--part': no such part"):
        check_regress.findings(tmp_path, tmp_path / "out", ["nosuch"], 1, None)


def test_a_stage_that_was_slow_once_is_timed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_found", lambda *_: Found(table("4.00"), {"simulate": 400.0}))
    regress(tmp_path, True, "the first one")
    for times, verdict in (([900.0, 410.0], "ok"), ([900.0, 880.0], "slipped")):
        left = iter(times)
        monkeypatch.setattr(module, "_found", lambda *_, left=left: Found(table("4.00"), {"simulate": next(left)}))
        found = {v.column: v.verdict for v in regress(tmp_path, True)}
        assert found["speed: simulate"] == verdict
        assert next(left, None) is None


def test_a_quarter_of_the_spread_is_allowed_and_a_share_may_be_asked_for():
    now = {"dynamical": OLD | {"r_obs_pct": "4.60"}}
    for share, verdict in ((0.25, "slipped"), (1.0, "ok")):
        found = judge("case", {"dynamical": OLD}, now, SPREAD, share)
        assert next(v.verdict for v in found if v.column == "r_obs_pct") == verdict


def test_speed_slips_beyond_a_half_and_short_stages_are_left_alone():
    reference = {"simulate": 400.0, "reduce": 100.0, "refine kinematical": 2.0}
    now = {"simulate": 590.0, "reduce": 40.0, "refine kinematical": 9.0}
    assert [v.verdict for v in judge_speed("case", reference, now)] == ["ok", "better"]
    assert judge_speed("case", reference, now | {"simulate": 610.0})[0].slipped
    assert judge_speed("case", reference, {"reduce": 100.0})[0].slipped


def test_spread_is_read_from_the_summary_of_its_study(tmp_path):
    path = tmp_path / "spread.csv"
    path.write_text("# made by x\nmethod,r_obs_pct,r_obs_pct_sd\ndynamical,2.2,0.12\n", encoding="utf-8")
    assert read_spread(path) == {("dynamical", "r_obs_pct"): 0.12}
    assert read_spread(tmp_path / "none.csv") == {}
