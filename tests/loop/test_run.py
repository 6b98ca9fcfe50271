"""A run from beginning to end: what lies in its folder, when it is reused, what a failed method becomes."""

import csv
import json
import os

import pytest

from nanoed.sim.physics.errors import InputError
from nanoed.studies import analysis, run
from nanoed.studies.case import load_case
from nanoed.studies.report import report
from nanoed.studies.tables import RESULT_COLUMNS


def rows_of(folder):
    with (folder / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_results_have_the_columns_in_order_and_a_row_per_method(small_case, small_run):
    rows = rows_of(small_run.folder)
    assert tuple(rows[0]) == RESULT_COLUMNS
    assert [row["method"] for row in rows] == list(small_case.methods)
    assert [row["status"] for row in rows] == ["ok"] * len(rows)
    assert {row["digest"] for row in rows} == {small_case.digest}


def test_dynamical_refinement_is_nearer_to_the_truth_than_the_kinematical(small_run):
    kinematical, dynamical = rows_of(small_run.folder)
    assert float(dynamical["av_dist_A"]) < float(kinematical["av_dist_A"])
    assert float(dynamical["r_obs_pct"]) <= 6
    assert float(dynamical["r_obs_pct"]) < 0.5 * float(kinematical["r_obs_pct"])
    assert float(dynamical["av_dist_A"]) <= 0.005
    assert float(dynamical["max_dist_A"]) <= 0.008
    assert float(dynamical["thickness_A"]) == pytest.approx(float(dynamical["thickness_true_A"]), rel=0.15)


def test_what_was_told_of_the_truth_is_recorded(small_case, small_run):
    record = json.loads((small_run.folder / "run.json").read_text(encoding="utf-8"))
    assert record["run_key"] == small_case.run_key
    told = run.given(small_case.crystal, small_case.start, small_case.seed)
    assert record["told_of_the_truth"]["cell"] == list(told.cell)
    assert record["told_of_the_truth"]["start_model"]["xyz"] == told.model.xyz.tolist()


def test_data_folder_holds_nothing_of_the_truth(small_run):
    assert os.listdir(small_run.folder / "data") == ["frames.h5"]


def test_equal_run_is_reused_and_any_other_is_refused(small_case, small_run):
    before = (small_run.folder / "run.json").stat().st_mtime_ns
    assert run.run_case(small_case, small_run.folder).reused
    with pytest.raises(InputError, match="something else"):
        run.run_case(load_case("brookite-small", ["seed=2"]), small_run.folder)
    assert (small_run.folder / "run.json").stat().st_mtime_ns == before


def test_report_is_made_again_from_the_folder_alone(small_run):
    page = small_run.folder / "report.html"
    before = page.read_bytes()
    assert report(small_run.folder).read_bytes() == before


TINY = [
    "experiment.protocol.tilt_min_deg=-2",
    "experiment.protocol.tilt_max_deg=2",
    "experiment.instrument.detector_px=[64, 64]",
    "experiment.instrument.a_per_px=0.04",
]


def test_failed_reduction_is_a_row_per_method_and_nothing_is_half_written(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("no peaks\nat all")

    monkeypatch.setattr(analysis, "reduce", broken)
    done = run.run_case(load_case("brookite-small", TINY), tmp_path / "out", keep="results")
    assert not done.ok
    rows = rows_of(done.folder)
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert "no peaks at all" in rows[0]["message"]
    assert rows[0]["thickness_true_A"] != ""
    assert os.listdir(tmp_path) == ["out"]
    assert not (done.folder / "data").exists()
    assert "no peaks" in json.loads((done.folder / "run.json").read_text())["failures"]["dynamical"]


def test_forced_run_replaces_its_own_files_and_leaves_others(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("no peaks")

    monkeypatch.setattr(analysis, "reduce", broken)
    out = tmp_path / "out"
    (out / "data").mkdir(parents=True)
    (out / "data" / "stale").write_text("")
    (out / "notes.txt").write_text("mine")
    done = run.run_case(load_case("brookite-small", TINY), out, force=True)
    assert (done.folder / "notes.txt").read_text() == "mine"
    assert os.listdir(out / "data") == ["frames.h5"]
    assert (out / "run.json").exists()


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "simulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run_case(load_case("brookite-small", TINY), tmp_path / "out")
    assert os.listdir(tmp_path) == []
