"""Analyses of studies on small made-up tables whose answers are known."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from study_results import AXES, published_rows, results, sized

from nanoed.sim.physics.crystal import read_cif
from nanoed.sim.physics.errors import InputError
from nanoed.studies.case import structure_file
from nanoed.studies.sweeps.analyses import (
    ANALYSES,
    curves,
    flaws,
    indicators,
    paper,
    sites,
    size_limit,
    weighting,
)
from nanoed.studies.sweeps.analyses.common import look_of
from nanoed.studies.sweeps.grid import Study, places_of
from nanoed.studies.sweeps.outcome import write_outcome
from nanoed.studies.sweeps.study import summary
from nanoed.studies.tables import read_many

RNG = np.random.default_rng(4)


def test_size_limit_finds_the_crossings_of_known_curves():
    table = results(sized(lambda d, method, seed: {"kinematical": 0.1, "dynamical": 0.05}[method] / d), AXES)
    found = size_limit.analyse(table, {"limits_A": [0.02, 0.01]}).tables["limits"]
    by = found.set_index(["method", "limit_A"])
    assert by.loc[("dynamical", 0.02), "smallest_nm"] == pytest.approx(2.5, rel=1e-6)
    assert by.loc[("kinematical", 0.01), "smallest_nm"] == pytest.approx(10.0, rel=0.01)
    assert by.loc[("kinematical", 0.02), "largest_is"] == "at least"


def test_the_map_has_one_grid_for_all_protocols_and_is_empty_where_nothing_ran():
    rows = [row | {"fluence": f} for row in sized(lambda d, *_: 0.1 / d) for f in ("1e2", "1e3")]
    some = [row | {"scan": "rotation"} for row in rows if row["fluence"] == "1e3" and row["size_nm"] in ("5", "20")]
    figure = size_limit.analyse(results([*rows, *some], AXES), {}).drawings["map"].figure
    assert not any(axes.images for axes in figure.axes)  # a dark page inverts bitmaps, and not the numbers on them
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}
    numbers = {name: {text.get_text(): text.get_position() for text in axes.texts} for name, axes in panels.items()}
    assert len(numbers["brookite, precession, dynamical"]) == 4  # the same of both fluences
    upper = 1 - 0.22
    found = numbers["brookite, rotation, dynamical"]
    assert found == {"0.0200": (1, upper), "0.0050": (3, upper)}
    assert [tick.get_text() for tick in panels["brookite, precession, dynamical"].get_yticklabels()] == ["10²", "10³"]


def test_size_limit_marks_few_reflections_and_sizes_that_end_above():
    table = results(sized(lambda d, method, seed: 0.004 * d if method == "kinematical" else 0.3), AXES)
    outcome = size_limit.analyse(table, {})
    by = outcome.tables["limits"].set_index(["method", "limit_A"])
    assert by.loc[("kinematical", 0.02), "smallest_is"] == "at most"
    assert by.loc[("kinematical", 0.02), "largest_nm"] == pytest.approx(5.0, rel=1e-6)
    assert by.loc[("dynamical", 0.02), "smallest_is"] == "none"
    few = outcome.tables["accuracy"].set_index(["method", "size_nm"])["few_reflections"]
    assert (few["kinematical", "2"], few["kinematical", "10"]) == ("yes", "")
    assert any("no size of the grid" in remark for remark in outcome.remarks)


def test_size_limit_draws_every_scan_apart_and_names_what_only_one_panel_has():
    rows = sized(lambda d, *_: 0.1 / d, n_obs=math.nan)  # no reflections per parameter to be marked
    rows += sized(lambda d, *_: 0.1 / d, ("kinematical",), n_obs=math.nan, scan="serial", structure="ito")
    figure = size_limit.analyse(results(rows, AXES), {}).drawings["accuracy"].figure
    named = {text.get_text().removesuffix(" e/Å²") for text in figure.legends[0].get_texts()}
    assert named == {"precession, 10³", "serial, 10³"}
    drawn = {panel.get_title(loc="left"): [c.lines[0].get_marker() for c in panel.containers] for panel in figure.axes}
    assert set(drawn) == {f"{s}, {m}" for s in ("brookite", "ito") for m in ("kinematical", "dynamical")}
    assert len(drawn["brookite, kinematical"]) == 1
    assert drawn["ito, dynamical"] == []
    assert drawn["ito, kinematical"] != drawn["brookite, kinematical"]


def test_the_bar_of_the_map_says_that_a_distance_lies_beyond_it():
    figures = [
        size_limit.analyse(results(sized(lambda d, *_, most=most: most / d), AXES), {}).drawings["map"].figure
        for most in (0.15, 0.5)
    ]
    assert [figure.axes[-1]._colorbar.extend for figure in figures] == ["neither", "max"]


def test_the_film_is_told_with_its_material_and_its_legend_lies_beside_the_panels():
    rows = [row | {"beam_ratio": ratio, "size_nm": ""} for row in sized(lambda *_: 0.01) for ratio in ("1", "2")]
    figure = size_limit.analyse(results([*sized(lambda *_: 0.01), *rows], AXES), {}).drawings["film"].figure
    assert {axes.get_title(loc="left") for axes in figure.axes} == {"brookite"}
    assert all(axes.get_legend() is None for axes in figure.axes)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"kinematical", "dynamical"}


def test_names_of_others_are_no_mathematics_in_figures(tmp_path):
    odd = [row | {"structure": r"$\frac$", "fluence": "$x_", "beam_ratio": "1"} for row in sized(lambda *_: 0.01)]
    rows = [row | {"size": "$" * (row["seed"] % 2 + 1) + "^", "flaw": "none" if row["seed"] == 1 else "$_$"}
            for row in odd]  # fmt: skip
    table = results(rows, (*AXES, "size", "flaw"))
    wanted = {"size-limit": {}, "indicators": {}, "flaws": {}}
    wanted["curves"] = {"curves": [{"name": "c", "x": "size", "y": ["r_obs_pct"], "by": "structure"}]}
    for name, settings in wanted.items():
        assert write_outcome(ANALYSES[name](table, settings), tmp_path, "t", "h", ()).is_file()


def test_pair_is_of_the_same_frames():
    rows = sized(
        lambda d, method, seed: {"kinematical-frames": 0.02, "dynamical": 0.005}[method],
        ("kinematical-frames", "dynamical"),
    )
    pair = size_limit.pair_table(results(rows, AXES))
    assert len(pair) == 12
    assert pair["av_dist_gain"].to_numpy() == pytest.approx(4.0)
    assert len(size_limit.pair_table(results(sized(lambda *_: 0.1), AXES))) == 0


def test_flaws_are_paired_by_seed():
    def row(flaw, seed, r):
        return {"flaw": flaw, "seed": seed, "method": "kinematical", "r_obs_pct": r, "av_dist_A": 0.01}

    noise = RNG.normal(0, 3, 5)
    rows = [row("none", s, 10 + noise[s]) for s in range(5)]
    rows += [row("film", s, 12 + noise[s]) for s in range(5)] + [
        row("tilt", s, 10.5 + noise[s]) for s in range(5)
    ]
    outcome = flaws.analyse(results(rows, ("flaw",)), {})
    by = outcome.tables["changes"].set_index("flaw")
    assert by["r_obs_pct"].to_dict() == {"film": pytest.approx(2.0), "tilt": pytest.approx(0.5)}
    assert by.loc["film", "r_obs_pct_high"] == pytest.approx(2.0, abs=1e-9)
    assert "film moves the R_obs (%) most, by 2.00" in outcome.remarks[0]
    alone = flaws.analyse(results(rows, ("flaw",)), {"columns": ["av_dist_A"]})
    assert "moves the average distance (Å) most" in alone.remarks[0]
    none = flaws.analyse(results(rows, ("flaw",)), {"columns": ["hand_right"]})
    assert none.tables == {}


def test_changes_have_the_colours_of_their_methods_and_those_of_the_data_are_drawn_once():
    rows = [
        {"flaw": flaw, "seed": seed, "method": method, "r_obs_pct": 9.0 + seed, "r_int_pct": 5.0 + seed}
        for flaw in ("none", "film") for seed in (1, 2) for method in ("kinematical", "dynamical")
    ]  # fmt: skip
    outcome = flaws.analyse(results(rows, ("flaw",)), {})
    figure = outcome.drawings["changes"].figure
    panels = {axes.get_xlabel(): [bars.lines[0] for bars in axes.containers] for axes in figure.axes}
    of_r, of_data = (panels[f"change of $\\mathit{{R}}_\\mathrm{{{name}}}$ (points)"] for name in ("obs", "int"))
    looks = [(line.get_color(), line.get_marker()) for line in of_r]
    assert looks == [look_of("kinematical", 9), look_of("dynamical", 9)]
    assert len(of_data) == 1
    assert of_data[0].get_color() not in [colour for colour, _ in looks]
    assert "change of R_obs (points)" in outcome.shown["changes"][0].head
    one = flaws.analyse(results([row for row in rows if row["seed"] == 1], ("flaw",)), {})
    for told in (one.drawings["changes"].caption, one.shown["changes"][0].caption):
        assert "one seed" in told
        assert "95 %" not in told


def test_intervals_of_what_may_be_negative_are_not_cut_at_zero():
    rows = [
        {"size": size, "method": "dynamical", "seed": seed, "hand_z": z, "r_obs_pct": z}
        for size, mean in (("1", 1.0), ("2", 20.0)) for seed, z in ((1, mean - 0.9), (2, mean + 0.9))
    ]  # fmt: skip
    figure = curves.analyse(results(rows, ("size",)), {"curves": [{"name": "c", "x": "size", "y": ["hand_z"]}]})
    axes = figure.drawings["c"].figure.axes[0]
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] < 0
    assert min(segment[:, 1].min() for segment in axes.collections[0].get_segments()) < 0
    figure = curves.analyse(results(rows, ("size",)), {"curves": [{"name": "c", "x": "size", "y": ["r_obs_pct"]}]})
    bars = figure.drawings["c"].figure.axes[0].collections[0].get_segments()
    assert min(segment[:, 1].min() for segment in bars) >= 0


def test_indicator_that_tells_is_told_from_one_that_does_not():
    rows = []
    for seed in range(30):
        error = float(np.exp(RNG.normal(-4, 1)))
        rows.append({"seed": seed, "method": "kinematical", "av_dist_A": error, "r_int_pct": 5 + 300 * error})
        rows[-1] |= {"r_obs_pct": RNG.uniform(5, 15), "redundancy": 4.0}
    found = indicators.correlations(
        results(rows).assign(obs_per_par=1.0), "av_dist_A", ["r_int_pct", "r_obs_pct", "redundancy"]
    )
    by = found.set_index("indicator")
    assert by.loc["r_int_pct", "rho"] == pytest.approx(1.0)
    assert list(by["informative"]) == ["yes", "no", ""]


def test_curves_take_means_over_seeds():
    rows = [
        {"size": s, "method": "dynamical", "seed": k, "hand_z": float(k - 2)}
        | {"u_rmsd_A2": float(s) / 100 + (k - 2) * 0.01, "occ_max_err": 0.02 * (k == 1)}
        for s in ("5", "10") for k in (1, 2, 3)
    ]  # fmt: skip
    table = results(rows, ("size",))
    spec = {"curves": [{"name": "c", "x": "size", "y": ["u_rmsd_A2", "occ_max_err", "hand_z", "hand_right"]}]}
    found = curves.analyse(table, spec).tables["c"].set_index("size")
    geometric = [(0.04 * 0.05 * 0.06) ** (1 / 3), (0.09 * 0.10 * 0.11) ** (1 / 3)]
    assert found["u_rmsd_A2"].tolist() == pytest.approx(geometric)
    assert found["occ_max_err"].tolist() == pytest.approx([0.02 / 3] * 2)
    assert (found["occ_max_err_mean_low"] == 0).all()  # no error is negative
    assert (found["hand_z_mean_low"] < 0).all()
    assert found["u_rmsd_A2_sd"].tolist() == pytest.approx([0.01, 0.01])
    assert found["hand_right"].tolist() == pytest.approx([1 / 3, 1 / 3])
    spec["curves"][0] |= {"by": "seed", "where": {"method": "dynamical"}}
    assert curves.analyse(table, spec).remarks[0].startswith("brookite, 1, dynamical, by size: ")


def test_paper_sets_published_and_simulated_side_by_side():
    outcome = paper.analyse(results(published_rows(), ("flaw_off", "cations")), {})
    beside = outcome.tables["table-2"].set_index(["method", "quantity"])
    assert beside.loc[("kinematical", "r_obs_pct"), "published"] == 7.91
    assert beside.loc[("kinematical", "r_obs_pct"), "simulated"] == pytest.approx(8.5)
    assert beside.loc[("kinematical", "r_obs_pct"), "agrees"] == "yes"
    assert beside.loc[("kinematical", "r_int_pct"), "agrees"] == "no"
    assert beside.loc[("kinematical", "max_dist_A"), "agrees"] == "yes"  # published 0.0314, seeds 0.028-0.032
    assert beside.loc[("dynamical", "r_obs_pct"), "agrees"] == ""
    assert list(outcome.tables["table-3"]["published"]) == [6.43, 7.91, 8.5, 10.1]
    text = " ".join(outcome.remarks)
    assert "dynamical < kinematical < kinematical-frames < kinematical-nonaveraged (as published)" in text
    assert "most for mosaicity \N{MINUS SIGN}2.00, elliptic +0.30" in text
    assert "none is switched on to close this gap" in text


def test_another_reduction_of_the_same_frames_stands_beside_and_in_no_table():
    rows = [row for row in published_rows() if "flaw_off" not in row]
    plain = paper.analyse(results(rows, ("reduced",)), {})
    other = [row | {"reduced": "refined", "r_int_pct": 6.0, "r_obs_pct": 5.0} for row in rows if row["seed"] > 7]
    outcome = paper.analyse(results([*rows, *other], ("reduced",)), {})
    pd.testing.assert_frame_equal(outcome.tables["table-2"], plain.tables["table-2"])
    by = outcome.tables["refined"].set_index(["method", "quantity"])
    assert by.loc[("kinematical", "r_int_pct"), ["published", "simulated", "refined"]].tolist() == [13.8, 30.0, 6.0]
    assert by.loc[("kinematical", "r_obs_pct"), "simulated"] == pytest.approx(8.2 + 0.85)  # the same seeds: 8 and 9
    assert by.loc[("kinematical", "r_obs_pct"), "seeds"] == 2
    said = "R_int of the kinematical data is lower in 1 of 1 data sets: 6.00 % on average, 30.00 without, 13.80 "
    assert said in " ".join(outcome.remarks)
    assert any(line.startswith("Merged so, ito-01: R_obs of the treatments is ordered") for line in outcome.remarks)


def weighed_rows():
    """Error model 0.0280-0.0340 Å in 13 seeds, spread 0.04 in two of these, unit weights 0.05-0.056."""
    rows = [row for row in published_rows() if "flaw_off" not in row]
    unit = [row | {"method": "kinematical-unit", "max_dist_A": row["max_dist_A"] + 0.022}
            for row in rows if row["method"] == "kinematical"]  # fmt: skip
    spread = [row | {"reduced": "spread", "max_dist_A": 0.04} for row in rows if row["seed"] in (1, 2)]
    return rows, unit, spread


def test_weights_of_the_kinematical_refinement_stand_beside_the_published_figures():
    rows, unit, spread = weighed_rows()
    plain = paper.analyse(results(rows, ("reduced",)), {})
    assert "weights" not in plain.tables
    outcome = paper.analyse(results([*rows, *unit, *spread], ("reduced",)), {})
    by = outcome.tables["weights"].set_index("quantity").loc["max_dist_A"]
    assert by[["published", "model", "spread", "unit"]].tolist() == pytest.approx([0.0314, 0.02925, 0.04, 0.05125])
    assert by["seeds"] == 2  # those that all three have
    assert by[["model_p5", "unit_p5"]].tolist() == pytest.approx([0.0273, 0.0493])  # of all 13
    assert by["lies"] == "model"
    assert not {"refined"} & set(outcome.tables)
    pd.testing.assert_frame_equal(outcome.tables["table-2"], plain.tables["table-2"])
    said = next(line for line in outcome.remarks if "maximal distance (Å) (ito-01)" in line)
    assert "0.0400 (larger of internal and external s.u.)" in said
    assert said.endswith("Published values against the 5-95 % ranges: 1 inside, error model.")


@pytest.mark.parametrize(
    ("published", "lies"), [(0.05, "unit"), (0.04, "between"), (0.01, "outside"), (0.2, "outside")]
)
def test_where_a_published_value_lies_by_the_ranges_of_the_weights(published, lies):
    rows, unit, spread = weighed_rows()
    table = weighting.weights_table(
        results([*rows, *unit], ("reduced",)), results(spread, ("reduced",)), {"ito-01": {"kin_max_dist_A": published}}
    )
    assert table.set_index("quantity").loc["max_dist_A", "lies"] == lies
    few = results([row for row in (*rows, *unit) if row["seed"] < 5], ("reduced",))
    table = weighting.weights_table(few, results(spread, ("reduced",)), {"ito-01": {"kin_max_dist_A": published}})
    assert table.set_index("quantity").loc["max_dist_A", "lies"] == ""  # eight seeds are no range


def test_a_reduction_that_no_table_would_have_is_refused():
    grid = Study.model_validate(
        {"name": "a", "analysis": "paper", "block": [{
            "name": "b", "cases": ["ito-01"], "seeds": [1],
            "axes": {"reduced": {"spred": {"reduce": {"merging": {"errors": "spread"}}}}},
        }]}
    )  # fmt: skip
    with pytest.raises(InputError, match="no such reduction"):
        paper.check({}, grid.levels, places_of(grid))


def test_sites_of_the_refined_models_stand_beside_the_published_ones(tmp_path):
    truth = read_cif(structure_file("mgti2o5"))
    rows = [
        {"case": "mgti2o5", "method": method, "seed": seed, "digest": f"d{seed}", "cations": cations}
        for method in ("kinematical", "dynamical") for seed in (1, 2, 3) for cations in ("refined", "random")
    ]  # fmt: skip

    def models(digest, method):
        shift = (int(digest[1:]) - 2) * 0.001 + (0.002 if method == "kinematical" else 0)
        return replace(truth, xyz=truth.xyz + shift)

    outcome = sites.analyse(results(rows, ("cations",)), models)
    by = outcome.tables["table-4-sites"].set_index(["site", "quantity", "method"])
    ti = by.loc[("Ti1", "x", "dynamical")]
    assert (ti["published"], ti["published_su"], ti["seeds"]) == (0.8104, 0.0002, 3)
    assert (ti["simulated"], ti["sd"]) == pytest.approx((0.8104, 0.001))
    assert by.loc[("Ti1", "x", "kinematical"), "simulated"] == pytest.approx(0.8124)
    assert by.loc[("Ti2", "occ", "kinematical"), "published"] == 0.730
    assert len(by) == 30
    assert sites.analyse(results(rows, ("cations",)), lambda *_: None).tables == {}


def test_summary_counts_failures_and_leaves_them_out_of_means():
    rows = [{"method": "dynamical", "seed": k, "r_obs_pct": float(k)} for k in (1, 2, 3)]
    rows.append({"method": "dynamical", "seed": 4, "status": "failed"})
    row = summary(results(rows), []).iloc[0]
    assert (row["runs"], row["failed"], row["r_obs_pct"]) == (4, 1, 2.0)


def test_cases_of_one_structure_are_told_apart():
    """Two cases of one material in a grid are not the seeds of one."""
    rows = [
        {"case": case, "structure": "brookite", "method": "dynamical", "seed": seed, "scan": "precession",
         "fluence": "1e3", "size_nm": size, "av_dist_A": d, "beam_ratio": "", "digest": f"{case}{seed}{size}"}
        for case, d in (("small", 0.001), ("mine", 0.1)) for seed in (1, 2) for size in ("5", "10")
    ]  # fmt: skip
    found = size_limit.analyse(results(rows, ("scan", "fluence", "size_nm", "beam_ratio")), {}).tables["accuracy"]
    assert found["structure"].tolist() == ["brookite (small)"] * 2 + ["brookite (mine)"] * 2
    assert found["av_dist_A"].tolist() == pytest.approx([0.001, 0.001, 0.1, 0.1])


def test_what_a_failed_refinement_left_is_in_no_mean_and_what_its_data_say_is(tmp_path):
    rows = [{"method": "kinematical", "r_int_pct": 10.0 + s, "av_dist_A": 0.01, "seed": s} for s in (1, 2)]
    rows.append({"method": "kinematical", "r_int_pct": 13.0, "av_dist_A": 0.3, "seed": 3, "status": "failed"})
    (tmp_path / "results.csv").write_text(results(rows).to_csv(index=False))
    read = read_many(tmp_path / "results.csv")
    row = summary(read, []).iloc[0]
    assert (row["runs"], row["failed"]) == (3, 1)
    assert row["av_dist_A"] == pytest.approx(0.01)
    assert row["r_int_pct"] == pytest.approx(12)
    assert read["av_dist_A"].isna().tolist() == [False, False, True]
