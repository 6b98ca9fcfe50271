"""Grids of studies: what a TOML file means, what is refused, and that the shipped ones hold."""

import json

import pytest

from nanoed.sim.physics.errors import InputError
from nanoed.studies import cli
from nanoed.studies.case import sources_hash
from nanoed.studies.commands.studies import CheckName
from nanoed.studies.rows import active_flaws
from nanoed.studies.sweeps.analyses import ANALYSES
from nanoed.studies.sweeps.grid import load_study, points_of, shipped_studies, study_digest

GRID = """
name = "mine"
[[block]]
name = "b"
cases = ["brookite-small"]
seeds = [1, 2]
default = { seeds = [1] }
quick = { seeds = [2], axes = { size = ["large"] } }
[block.set]
methods = ["kinematical"]
[block.axes]
"experiment.instrument.flux_e_A2_s" = [1.0, 10.0]
[block.axes.size]
"small" = { experiment.particle = { diameter_nm = 5.0, length_nm = 12.0 } }
"large" = { experiment.particle.diameter_nm = 20.0 }
"""


def written(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_points_are_the_product_and_levels_change_their_fields(tmp_path):
    study = load_study(written(tmp_path, GRID))
    counts = {extent: len(points_of(study, extent)) for extent in ("default", "quick", "full")}
    assert counts == {"default": 4, "quick": 2, "full": 8}
    first = points_of(study, "default")[0]
    assert dict(first.labels) == {"experiment.instrument.flux_e_A2_s": "1.0", "size": "small"}
    experiment = first.case.experiment
    assert (experiment.instrument.flux_e_A2_s, experiment.particle.length_nm) == (1.0, 12.0)
    assert first.case.methods == ("kinematical",)
    assert {p.case.seed for p in points_of(study, "quick")} == {2}


def test_a_choice_of_several_products_has_every_point_once(tmp_path):
    several = 'default = [{ seeds = [1] }, { axes = { size = ["large"] } }, { skip = true }]'
    study = load_study(written(tmp_path, GRID.replace("default = { seeds = [1] }", several)))
    found = [(p.labels["size"], p.case.seed) for p in points_of(study, "default")]
    assert sorted(found) == sorted([("small", 1), ("large", 1), ("large", 2)] * 2)  # two fluxes
    assert load_study(written(tmp_path, study.toml())) == study
    with pytest.raises(InputError, match=r"no level 'huge'"):
        load_study(written(tmp_path, GRID.replace("default = { seeds = [1] }", several.replace("large", "huge"))))


def test_what_the_study_sets_holds_for_every_block_that_does_not_set_it_otherwise(tmp_path):
    common = "[set]\nmethods = ['dynamical']\nexperiment.flaws.ice_nm = 7.0\n[[block]]"
    other = "\n[[block]]\nname = 'c'\ncases = ['brookite-small']\nseeds = [1]\n"
    study = load_study(written(tmp_path, GRID.replace("[[block]]", common) + other))
    points = points_of(study, "default")
    assert {p.case.experiment.flaws.ice_nm for p in points} == {7.0}
    assert {(p.block, p.case.methods) for p in points} == {("b", ("kinematical",)), ("c", ("dynamical",))}
    assert load_study(written(tmp_path, study.toml())) == study


@pytest.mark.parametrize("extent", ["default", "full"])
def test_indicators_has_no_run_of_its_own(extent):
    paper, own = ({p.case.digest for p in points_of(load_study(name), extent)} for name in ("paper", "indicators"))
    assert own < paper


def test_all_flaws_off_are_all():
    points = points_of(load_study("paper"), "default")
    off = [p for p in points if p.labels.get("flaw_off") == "all"]
    assert off
    assert {active_flaws(p.case.experiment.flaws) for p in off} == {"none"}


def test_digest_tells_grids_apart(tmp_path):
    study = load_study(written(tmp_path, GRID))
    other = load_study(written(tmp_path, GRID.replace("10.0", "11.0")))
    digests = [study_digest(s, points_of(s, "full")) for s in (study, other, study)]
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('cases = ["brookite-small"]', 'cases = ["brookit-small"]', "did you mean brookite-small"),
        ("diameter_nm = 5.0", "diameter_nm = -5.0", "diameter_nm"),
        ("diameter_nm = 5.0", "diametre_nm = 5.0", "did you mean diameter_nm"),
        ('size = ["large"]', 'size = ["huge"]', "no level 'huge'"),
        ('size = ["large"]', 'sizes = ["large"]', "no axis 'sizes'"),
        ("seeds = [1, 2]", "seeds = []", "seeds"),
        ("[block.axes.size]", "[block.axes.seed]", "column of the results"),
        ('name = "mine"', 'name = "mine"\nanalysis = "sise-limit"', "did you mean size-limit"),
        ("quick = {", "quik = {", "quik"),
        ('methods = ["kinematical"]', 'methods = ["kinematical"]\nseed = 3', "seeds are given by"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch, old, new, said):
    assert old in GRID
    path = written(tmp_path, GRID.replace(old, new))
    monkeypatch.chdir(tmp_path)
    assert cli.status(["study", path, "--out", "out", "--estimate" if "quick" not in new else "--quick"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


FLUX = "experiment.instrument.flux_e_A2_s"
C = """[settings]
curves = [{ name = "c", x = "size", y = "r_obs_pct" }]
"""


@pytest.mark.parametrize(
    ("analysis", "settings", "said"),
    [
        ("curves", C.replace('"c"', '"../evil"'), "settings.curves.0.name"),
        ("curves", C.replace('"c"', '"results"'), "the name of another file"),
        ("curves", C.replace('x = "size"', 'x = "sise"'), "did you mean size"),
        ("curves", C.replace("r_obs_pct", "r_ob_pct"), "did you mean r_obs_pct"),
        ("curves", C.replace("r_obs_pct", "message"), "not a column of numbers"),
        ("curves", C.replace(" }", ", where = 3 }"), "settings.curves.0.where"),
        ("curves", C.replace("curves", "curvs"), "did you mean curves"),
        ("curves", C.replace(" }]", " }, { name = \"c\", x = \"seed\", y = \"gof\" }]"), "the same name"),
        ("curves", C.replace(" }", ", where = { size = 3 } }"), "settings.curves.0.where.size"),
        ("curves", C.replace("r_obs_pct", "seed"), "not a column of numbers"),
        ("flaws", '[settings]\naxis = "flow"\n', "no such axis"),
        ("flaws", '[settings]\naxis = "size"\nreference = "large"\n', "nothing to compare it with"),
        ("flaws", f'[settings]\naxis = "{FLUX}"\nreference = "1.0"\n', "another axis beside it"),
        ("indicators", '[settings]\nmethods = ["dynamical"]\n', "no case is refined by it"),
        ("indicators", '[settings]\nindicators = ["av_dist_A"]\n', "cannot indicate itself"),
        ("indicators", '[settings]\nindicators = ["gof", "gof"]\n', "each once"),
        ("flaws", '[settings]\naxis = "size"\nreference = "tiny"\n', "no such level"),
        ("indicators", '[settings]\nerror = "av_dist"\n', "did you mean av_dist_A"),
        ("indicators", '[settings]\nmethods = ["kinematic"]\n', "settings.methods.0"),
        ("size-limit", "[settings]\nlimits_A = [-1]\n", "greater than 0"),
        ("size-limit", "[settings]\nlimits_A = []\n", "settings.limits_A"),
        ("size-limit", "", "size_nm, fluence, scan"),
        ("summary", "[settings]\nremark = 1\n", "unknown field"),
    ],
)
def test_settings_that_the_analysis_cannot_read_are_told_before_anything_runs(
    tmp_path, capsys, monkeypatch, analysis, settings, said
):
    head, block = GRID.split("[[block]]", 1)
    text = f'{head.rstrip()}\nanalysis = "{analysis}"\n{settings}[[block]]{block}'
    path = written(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    assert cli.status(["study", path, "--out", "out", "--quick"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"nanoed: {path}, ")
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_hold(name):
    study = load_study(name)
    assert study.name == name
    assert study.title
    assert study.analysis in ANALYSES
    few, some, all_ = (len(points_of(study, extent)) for extent in ("quick", "default", "full"))
    assert 0 < few < some < all_


def test_size_limit_is_as_large_as_promised():
    study = load_study("size-limit")
    some = points_of(study, "default")
    assert len(some) >= 50
    assert sum(len(p.case.methods) for p in some) >= 100
    size = next(block for block in study.block if block.name == "size")
    assert len(size.seeds) >= 5
    assert [len(size.axes[axis]) for axis in ("fluence", "scan")] == [3, 3]
    assert len(size.axes["size_nm"]) >= 6
    assert len(size.cases) == 2
    assert {p.case.seed for p in some if p.block == "size"} == {1, 2, 3}


def test_show_and_list_know_studies(capsys):
    assert cli.status(["show", "size-limit"]) == 0
    assert 'name = "size-limit"' in capsys.readouterr().out
    assert cli.status(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("size-limit", *CheckName):
        assert sum(line.split()[:1] == [name] and len(line.split()) > 1 for line in lines) == 1
    assert cli.status(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checks"] == {c.value: c.purpose for c in CheckName}


def test_both_extents_at_once_are_refused(capsys):
    assert cli.status(["study", "size-limit", "--quick", "--full"]) == 2
    assert "--quick or --full" in capsys.readouterr().err


def test_keys_of_runs_do_not_depend_on_grids(monkeypatch, tmp_path):
    before = sources_hash()
    sources_hash.cache_clear()
    monkeypatch.setattr("nanoed.studies.case.OF_NO_RUN", {"__pycache__"})
    assert sources_hash() != before
    sources_hash.cache_clear()


def test_unknown_study_names_the_nearest(capsys):
    assert cli.status(["study", "size-limits"]) == 2
    assert "did you mean size-limit" in capsys.readouterr().err
    with pytest.raises(InputError, match="no such file"):
        load_study("nowhere.toml")
