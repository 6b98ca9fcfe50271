"""Analyses of studies on small made-up tables whose answers are known."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from study_results import results

from nanoed.sim.physics.crystal import read_cif
from nanoed.sim.physics.errors import InputError
from nanoed.studies.case import structure_file
from nanoed.studies.report import report
from nanoed.studies.sweeps import study
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
from nanoed.studies.sweeps.outcome import Outcome, write_outcome
from nanoed.studies.sweeps.shown import level_cell, number, power
from nanoed.studies.sweeps.study import summary
from nanoed.studies.tables import read_many

RNG = np.random.default_rng(4)


def sized(av_dist, methods=("kinematical", "dynamical"), **more):
    return [
        {
            "block": "size", "size_nm": size, "fluence": "1e3", "scan": "precession", "method": method, "seed": seed,
            "av_dist_A": av_dist(float(size), method, seed), "r_obs_pct": 10.0, "n_obs": 20 * float(size), "n_par": 10,
            "digest": f"{size}-{seed}", "thickness_true_A": 6.7 * float(size), "equiv_diameter_nm": float(size),
            "fluence_e_A2": 1e3,
        } | more
        for size in ("2", "5", "10", "20") for seed in (1, 2, 3) for method in methods
    ]  # fmt: skip


AXES = ("size_nm", "fluence", "scan", "beam_ratio")


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


@pytest.mark.parametrize(("level", "told"), [("1e4", "10⁴"), ("2e+01", "2·10¹"), ("12", "12"), ("none", "none")])
def test_powers_of_ten_stand_above_the_line(level, told):
    assert power(level) == told


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


def published_rows():
    rows = []
    r_obs = {"kinematical": 8.2, "kinematical-nonaveraged": 10.4, "kinematical-frames": 9.0, "dynamical": 3.0}
    for seed in range(-3, 10):
        for method, r in r_obs.items():
            row = {
                "case": "ito-01",
                "structure": "ito",
                "method": method,
                "seed": seed,
                "r_obs_pct": r + 0.1 * seed,
            }
            rows.append(row | {"max_dist_A": 0.03 + 0.0005 * (seed - 3), "r_int_pct": 30.0})
    for off, shift in (("none", 0.0), ("mosaicity", -2.0), ("elliptic", 0.3)):
        for seed in (1, 2):
            row = {
                "case": "ito-01",
                "structure": "ito",
                "method": "kinematical",
                "flaw_off": off,
                "seed": seed,
            }
            rows.append(
                row | {"r_obs_pct": 8 + seed + shift, "r_int_pct": 9.0, "av_dist_A": 0.02, "max_dist_A": 0.03}
            )
    return rows


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


def test_page_tells_one_seed_from_several_and_sets_intervals_under_values(tmp_path):
    rows = [{"block": "a", "method": "dynamical", "seed": k, "r_obs_pct": 3.0 + k} for k in (1, 2, 3)]
    spec = Study.model_validate({"name": "x", "block": [{"name": "a", "cases": ["brookite-small"], "seeds": [1]}]})
    several = study._write(Outcome(), results(rows), spec, tmp_path / "a", "h").read_text()
    assert "5.00<br><small>2.52 to 7.48</small>" in several
    assert "One seed" not in several
    alone = study._write(Outcome(), results(rows[:1]), spec, tmp_path / "b", "h").read_text()
    assert "there is no interval" in alone
    assert "<small>" not in alone


def test_levels_that_are_numbers_are_sorted_as_numbers():
    cells = [level_cell(level) for level in ("0.5", "0.25", "1e4", "none", "nan")]
    assert [cell.value for cell in cells] == [0.5, 0.25, 1e4, None, None]
    assert cells[2].text == "10⁴"


def test_numbers_have_the_digits_of_their_quantity():
    assert [number("av_dist_A", 0.01234), number("r_obs_pct", -1.5), number("cell_err_pct", -0.0001)] == [
        "0.0123", "\N{MINUS SIGN}1.50", "0.000"
    ]  # fmt: skip
    assert number("n_obs", 235.0) == "235"
    assert number("r_obs_pct", math.nan) == "–"


def test_summary_counts_failures_and_leaves_them_out_of_means():
    rows = [{"method": "dynamical", "seed": k, "r_obs_pct": float(k)} for k in (1, 2, 3)]
    rows.append({"method": "dynamical", "seed": 4, "status": "failed"})
    row = summary(results(rows), []).iloc[0]
    assert (row["runs"], row["failed"], row["r_obs_pct"]) == (4, 1, 2.0)


SKEWED, ARITHMETIC, GEOMETRIC = (0.001, 0.004, 0.025), 0.01, 1e-7 ** (1 / 3)


def skewed():
    """Distances whose two means differ, at two sizes."""
    return results([
        {"case": "anatase", "method": "dynamical", "seed": k, "av_dist_A": d, "equiv_diameter_nm": size}
        for size in (10.0, 20.0) for k, d in enumerate(SKEWED)
    ])  # fmt: skip


def test_means_beside_the_published_tables_are_arithmetic_like_these(tmp_path):
    compared = ANALYSES["paper"](skewed(), {})
    by = compared.tables["table-2"].set_index("quantity")
    assert by.loc["av_dist_A", "simulated"] == pytest.approx(ARITHMETIC)
    assert summary(skewed(), [], "paper")["av_dist_A"].tolist() == pytest.approx([ARITHMETIC])
    assert summary(skewed(), [], "curves")["av_dist_A"].tolist() == pytest.approx([GEOMETRIC])
    block = {"name": "a", "cases": ["anatase"], "seeds": [1]}
    spec = Study.model_validate({"name": "x", "analysis": "paper", "block": [block]})
    text = study._write(compared, skewed(), spec, tmp_path, "h").read_text("utf-8")
    assert "Means of every quantity: arithmetic means" in text
    assert "arithmetic mean and standard deviation over" in text
    assert "geometric" not in text


def test_the_report_of_many_runs_averages_replicates_alone(tmp_path):
    """Cases are no replicates, a run that stands in two blocks is one, and a study's page has the means by its axes."""
    rows = skewed().assign(digest=[f"a{i}" for i in range(6)])
    other = rows.assign(case="other", digest=[f"b{i}" for i in range(6)], av_dist_A=0.5)
    (tmp_path / "results.csv").write_text(pd.concat([rows, rows, other]).to_csv(index=False))
    assert "Geometric mean over the replicates" in report(tmp_path).read_text("utf-8")
    accuracy = pd.read_csv(tmp_path / "figures" / "accuracy.csv").set_index("case")
    assert accuracy.loc["anatase", "av_dist_A"].tolist() == pytest.approx([GEOMETRIC, GEOMETRIC], rel=1e-5)
    assert accuracy["n"].tolist() == [3, 3, 3, 3]
    by_engine = pd.concat([rows.assign(engine="bloch"), rows.assign(engine="multislice", digest="")])
    (tmp_path / "results.csv").write_text(by_engine.to_csv(index=False), encoding="utf-8-sig")
    report(tmp_path)
    assert pd.read_csv(tmp_path / "figures" / "accuracy.csv")["n"].tolist() == [3, 3, 3, 3]
    (tmp_path / "study.toml").write_text("")
    assert "mean over the replicates" not in report(tmp_path).read_text("utf-8")


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


def test_the_page_of_a_study_is_made_anew_from_its_table(tmp_path):
    axes = "{ flaw = { none = {}, mosaicity = {} } }"
    block = f'[[block]]\nname = "a"\ncases = ["moved-away.toml"]\nseeds = [1]\naxes = {axes}\n'
    (tmp_path / "study.toml").write_text(f'name = "x"\nanalysis = "flaws"\n{block}')
    table = results(published_rows(), ("flaw_off",)).rename(columns={"flaw_off": "flaw"}).assign(block="a")
    (tmp_path / "results.csv").write_text("# nanoed study x\n" + table.to_csv(index=False))
    page = study.page_anew(tmp_path).read_text("utf-8")
    assert "flaw mosaicity moves" in page
    changes = (tmp_path / "changes.csv").read_bytes()
    assert changes.startswith(b"# nanoed study x\n")
    assert study.page_anew(tmp_path).read_text("utf-8") == page
    (tmp_path / "study.toml").write_text(f'name = "x"\nanalysis = "flaws"\nsettings.axis = "flow"\n{block}')
    with pytest.raises(InputError, match=r"study\.toml, field 'settings\.axis': no such axis"):
        study.page_anew(tmp_path)
    (tmp_path / "study.toml").write_text(f'name = "x"\nanalysis = "flaws"\n{block}')
    (tmp_path / "results.csv").write_text("# nanoed study x\n" + table.drop(columns="flaw").to_csv(index=False))
    with pytest.raises(InputError, match="field 'flaw': not the results"):
        study.page_anew(tmp_path)
    assert (tmp_path / "changes.csv").read_bytes() == changes


def test_results_survive_being_written_and_read(tmp_path):
    table = results(published_rows(), ("flaw_off",)).assign(message="a # in a message")
    (tmp_path / "results.csv").write_text("# header\n" + table.to_csv(index=False))
    pd.testing.assert_frame_equal(read_many(tmp_path / "results.csv"), table.astype({"seed": float}))


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


@pytest.mark.parametrize("name", sorted(ANALYSES))
def test_page_tables_and_figures_are_complete_and_the_same_bytes_twice(name, tmp_path):
    tables = {
        "curves": (results(published_rows()), {"curves": [{"name": "c", "x": "seed", "y": "r_obs_pct"}]}),
        "flaws": (results(published_rows(), ("flaw_off",)), {"axis": "flaw_off"}),
        "indicators": (results(published_rows()), {}),
        "paper": (results(published_rows(), ("flaw_off", "cations")), {}),
        "size-limit": (results(sized(lambda d, method, seed: 0.1 / d), AXES), {}),
    }
    contents = []
    for out in (tmp_path / "a", tmp_path / "b")[: 2 if name == "curves" else 1]:
        outcome = ANALYSES[name](*tables[name])
        write_outcome(outcome, out, "A title <b>", "nanoed study x; nanoed 0; digest 0", ("2 < 3",))
        contents.append({p.name: p.read_bytes() for p in sorted(out.iterdir())})
    assert all(content == contents[0] for content in contents)
    names = set(contents[0])
    assert {f"{t}.csv" for t in outcome.tables} | {
        f"{d}.{e}" for d in outcome.drawings for e in ("svg", "pdf")
    } < names
    assert outcome.drawings
    assert all(drawing.table in outcome.tables for drawing in outcome.drawings.values())
    assert b"A title &lt;b&gt;" in contents[0]["index.html"]
    assert b"2 &lt; 3" in contents[0]["index.html"]


def test_what_an_earlier_study_wrote_and_this_one_does_not_is_gone_and_nothing_else(tmp_path):
    rows = [row | {"beam_ratio": "1", "size_nm": ""} for row in sized(lambda *_: 0.01)]
    with_film = size_limit.analyse(results([*sized(lambda *_: 0.01), *rows], AXES), {})
    write_outcome(with_film, tmp_path, "t", "nanoed study x; 1", ())
    film = {f"film.{ending}" for ending in ("csv", "svg", "pdf")}
    for name in ("notes.csv", "pair.svg", "results.csv"):
        (tmp_path / name).write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    assert film < before
    write_outcome(size_limit.analyse(results(sized(lambda *_: 0.01), AXES), {}), tmp_path, "t", "nanoed study x; 2", ())
    assert {path.name for path in tmp_path.iterdir()} == before - film
    write_outcome(with_film, tmp_path, "t", "nanoed study x; 3", ())
    for name in ("film.csv", "map.svg"):
        (tmp_path / name).write_text("mine")
    write_outcome(Outcome(("nothing",)), tmp_path, "t", "nanoed study x; 4", ())
    kept = {"index.html", "notes.csv", "pair.svg", "results.csv", "film.csv", "map.svg", "map.pdf"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_analysis_of_nothing_but_failures_still_writes_its_page(tmp_path):
    rows = [
        row | {"status": "failed", "av_dist_A": math.nan, "r_obs_pct": math.nan, "n_obs": math.nan}
        for row in sized(lambda *_: 1)
    ]
    outcome = size_limit.analyse(results(rows, AXES), {})
    assert set(outcome.tables["limits"]["smallest_is"]) == {"none"}
    write_outcome(outcome, tmp_path, "t", "h", ())
    assert isinstance(outcome, Outcome)
