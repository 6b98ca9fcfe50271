"""Pages and files of studies: what is written, how numbers are told, and what is made anew or removed."""

import math

import pandas as pd
import pytest
from study_results import AXES, published_rows, results, sized

from nanoed.sim.physics.errors import InputError
from nanoed.studies.report import report
from nanoed.studies.size_report import accuracy_figure, accuracy_table
from nanoed.studies.sweeps import study
from nanoed.studies.sweeps.analyses import (
    ANALYSES,
    size_limit,
)
from nanoed.studies.sweeps.grid import Study
from nanoed.studies.sweeps.outcome import Outcome, write_outcome
from nanoed.studies.sweeps.shown import level_cell, number, power
from nanoed.studies.sweeps.study import summary
from nanoed.studies.tables import read_many


@pytest.mark.parametrize(("level", "told"), [("1e4", "10⁴"), ("2e+01", "2·10¹"), ("12", "12"), ("none", "none")])
def test_powers_of_ten_stand_above_the_line(level, told):
    assert power(level) == told


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
    lit = by_engine.assign(fluence_e_A2=1e3)
    panels = accuracy_figure(accuracy_table(lit), lit).axes
    titles = [axes.get_title(loc="left") for axes in panels]
    assert [title.rpartition(", ")[2] for title in titles] == ["bloch", "multislice"]
    assert {len(axes.containers[0].lines[0].get_xdata()) for axes in panels} == {2}  # two sizes, each once
    (tmp_path / "study.toml").write_text("")
    assert "mean over the replicates" not in report(tmp_path).read_text("utf-8")


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
