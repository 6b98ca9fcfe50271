"""Cases: what is merged, what is refused and how clearly, and what the digest depends on."""

import json
import shutil

import pytest

from nanoed.sim.physics.errors import InputError
from nanoed.sim.protocol import fluence_before
from nanoed.studies.case import HERE, Case, load_case, shipped_cases, shipped_structures, structure_file

MAIN = "brookite-cnrs-01"


@pytest.mark.parametrize("name", shipped_cases())
def test_shipped_case_is_named_after_its_file_and_survives_its_own_toml(name, tmp_path):
    case = load_case(name)
    assert case.name == name
    path = tmp_path / "again.toml"
    path.write_text(case.toml(), encoding="utf-8")
    assert load_case(str(path)) == case
    assert load_case(str(path)).digest == case.digest


def test_main_case_has_the_published_conditions():
    case = load_case(MAIN)
    experiment = case.experiment
    protocol, particle, instrument = experiment.protocol, experiment.particle, experiment.instrument
    assert (protocol.tilt_min_deg, protocol.tilt_max_deg, protocol.tilt_step_deg) == (-48, 50, 1)
    assert (protocol.exposure_s, protocol.semi_angle_deg) == (0.5, 1.2)
    assert (instrument.voltage_kv, instrument.beam_diameter_nm, instrument.flux_e_A2_s) == (200, 100, 24)
    assert tuple(instrument.detector_px) == (512, 512)
    assert (particle.shape, particle.diameter_nm, particle.length_nm) == ("cylinder", 30, 70)
    assert case.published_values()["dyn_r_obs_pct"] == "6.63"


PAPER = [name for name in shipped_cases() if name != "brookite-small"]


def _paper_rows(shared) -> dict[str, dict[str, str]]:
    import csv

    rows = {}
    for table in ("table1_brookite.csv", "table2_ito_anatase.csv"):
        with (shared / "paper" / table).open() as file:
            rows |= {row["dataset"]: row for row in csv.DictReader(file)}
    with (shared / "paper" / "table3_data_treatment.csv").open() as file:
        for row in csv.DictReader(file):
            other = {k.removeprefix("kin_").replace("frame_based", "frames"): v for k, v in row.items()}
            rows[row["dataset"]] |= {
                k: v for k, v in other.items() if k.startswith(("nonaveraged", "frames"))
            }
    return rows


@pytest.mark.parametrize("name", PAPER)
def test_published_row_is_that_of_the_publication(shared, name):
    ours = load_case(name).published_values()
    if name == "mgti2o5":
        assert (ours["kin_r_obs_pct"], ours["dyn_r_obs_pct"], ours["dyn_n_all"]) == ("10.74", "6.86", "1393")
        return
    published = _paper_rows(shared)[name]
    assert ours == {key: published[key] for key in ours}
    assert {"kin_r_obs_pct", "r_int_pct", "kin_max_dist_A"} <= set(ours)


@pytest.mark.parametrize("name", PAPER)
def test_conditions_are_those_of_the_publication(shared, name):
    if name == "mgti2o5":
        return
    row, protocol = _paper_rows(shared)[name], load_case(name).experiment.protocol
    assert row["protocol"] == protocol.kind
    assert float(row["exposure_s"]) == protocol.exposure_s
    for column in ("tilt_min_deg", "tilt_max_deg", "tilt_step_deg"):
        assert row[column] == "" or float(row[column]) == getattr(protocol, column)
    assert float(row["precession_semi_angle_deg"] or 0) == protocol.semi_angle_deg
    if name == "ito-03":
        assert protocol.n_frames == int(row["n_frames"])


def test_all_published_data_sets_are_shipped_with_one_set_of_flaws():
    assert len(PAPER) == 11
    assert len({load_case(name).experiment.flaws for name in PAPER}) == 1


@pytest.mark.parametrize(
    ("name", "fluence"), [("brookite-ua", 130), ("brookite-iit", 6), ("ito-01", 5.5e4), ("ito-02", 5.5e4)]
)
def test_fluences_are_those_of_the_publication(name, fluence):
    experiment = load_case(name).experiment
    total = fluence_before(experiment.protocol, experiment.instrument.flux_e_A2_s)[-1]
    assert total == pytest.approx(fluence, rel=0.1)


def test_extending_with_another_kind_of_protocol_starts_it_anew(tmp_path):
    path = tmp_path / "mine.toml"
    text = f'extends = "{MAIN}"\nname = "mine"\n[experiment.protocol]\nkind = "continuous_rotation"\n'
    path.write_text(text)
    with pytest.raises(InputError, match="tilt_min_deg"):
        load_case(str(path))
    path.write_text(text + "tilt_min_deg = -1\ntilt_max_deg = 1\ntilt_step_deg = 0.5\nexposure_s = 1\n")
    assert load_case(str(path)).experiment.protocol.semi_angle_deg == 0


def test_overrides_are_toml_values_and_the_last_one_wins():
    case = load_case(MAIN, ["seed=3", "seed=7", "title=two words", "experiment.particle.axis_uvw=[1, 0, 0]"])
    assert case.seed == case.experiment.seed == 7
    assert case.title == "two words"
    assert tuple(case.experiment.particle.axis_uvw) == (1, 0, 0)


def test_extending_a_shipped_case_merges_field_by_field(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "{MAIN}"\nname = "mine"\n[experiment.protocol]\ntilt_step_deg = 2.0\n')
    case, base = load_case(str(path)), load_case(MAIN)
    assert case.experiment.protocol.tilt_step_deg == 2
    assert case.experiment.protocol.tilt_max_deg == base.experiment.protocol.tilt_max_deg
    assert case.experiment.particle == base.experiment.particle


def test_digest_takes_the_structure_by_content(tmp_path):
    text = structure_file("brookite").read_text(encoding="utf-8")
    same, other = tmp_path / "same.cif", tmp_path / "other.cif"
    same.write_text("# another comment\n" + text)
    other.write_text(text.replace("0.1289", "0.1290"))
    digest = load_case(MAIN).digest
    assert load_case(MAIN, [f"structure={same}"]).digest == digest
    assert load_case(MAIN, [f"structure={other}"]).digest != digest
    assert load_case(MAIN, ["seed=2"]).digest != digest


def test_cif_path_in_a_case_is_relative_to_the_case(tmp_path):
    shutil.copy(structure_file("anatase"), tmp_path / "mine.cif")
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "{MAIN}"\nname = "mine"\nstructure = "mine.cif"\n')
    assert load_case(str(path)).crystal.name == "anatase"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("experiment.particle.diametre_nm=30", ["particle.diametre_nm", "did you mean diameter_nm"]),
        ("experiment.protocl.kind=x", ["experiment.protocl", "did you mean protocol"]),
        ("reduce.peaks.i_over_sigm=3", ["reduce.peaks.i_over_sigm", "did you mean i_over_sigma"]),
        ("experiment.particle.diameter_nm=-3", ["experiment.particle.diameter_nm", "-3", "greater than 0"]),
        ("experiment.flaws.mosaicity_deg=much", ["experiment.flaws.mosaicity_deg", "much", "'default'"]),
        (
            "experiment.protocol.tilt_stepdeg=1",
            ["experiment.protocol.tilt_stepdeg", "did you mean tilt_step_deg"],
        ),
        ("experiment.protocol.kind=still", ["experiment.protocol", "still", "serial"]),
        ("experiment.protocol.tilt_step_deg=nan", ["experiment.protocol.tilt_step_deg", "finite"]),
        ("experiment.particle.shape=sphere", ["experiment.particle", "length_nm"]),
        ("experiment.seed=4", ["experiment.seed"]),
        ("structure=brookit", ["structure", "brookit", "did you mean brookite"]),
        ("name=Upper Case", ["name", "Upper Case"]),
        ("published=brookite-cnrs-1", ["published", "did you mean brookite-cnrs-01"]),
        ("methods=[]", ["--set", "methods", "allowed: at least 1 item"]),
        ("reduce.cell=[9.0, 5.0, 5.0]", ["--set", "reduce.cell", "too few values"]),
        ('methods=["dynamical", "dynamical"]', ["methods", "twice"]),
        ("reduce.positions.reach_px=[5.0]", ["reduce.positions", "equally long"]),
        ("reduce.cell=[9.0, 5.0, 5.0, 90, 90, 180]", ["reduce.cell", "below 180"]),
        ("reduce.cell=[9.0, 5.0, 5.0, 60, 60, 150]", ["reduce.cell", "close a cell"]),
        ("reduce.composition=Tj2O", ["reduce.composition", "known elements", "Tj2O"]),
        ("experiment.protocol.tilt_step_deg=1e-9", ["tilt_step_deg", "more than 100000"]),
        ("seed", ["--set", "field.name=VALUE"]),
    ],
)
def test_wrong_field_or_value_is_named_in_one_line(override, said):
    with pytest.raises(InputError) as caught:
        load_case(MAIN, [override])
    message = str(caught.value)
    assert "\n" not in message
    assert ".toml" not in message
    assert "Input should" not in message
    for part in said:
        assert part in message


def test_both_hands_need_a_method_that_tells_them_apart():
    asked = ["refine.both_hands=true"]
    assert load_case(MAIN, asked).refine.both_hands
    with pytest.raises(InputError, match=r"both_hands.*dynamical"):
        load_case(MAIN, [*asked, 'methods=["kinematical", "kinematical-frames"]'])


def test_mistake_of_the_file_is_not_blamed_on_an_override(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "{MAIN}"\nname = "mine"\n[refine]\nsettled = -1\n')
    with pytest.raises(InputError, match=r"mine\.toml, field 'refine\.settled'"):
        load_case(str(path), ["seed=3"])


@pytest.mark.parametrize("name", ["brookite-cnrs-1", "Brookite", "", "../cases/brookite-cnrs-01"])
def test_unknown_shipped_case_is_refused_with_the_names(name):
    with pytest.raises(InputError, match="brookite-cnrs-01"):
        load_case(name)


@pytest.mark.parametrize("text", ["[experiment", 'extends = "nothing"\n', "extends = 3\n", "\xff", ""])
def test_case_file_that_is_no_case_is_refused(tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"bad\.toml"):
        load_case(str(path))


@pytest.mark.parametrize("name", shipped_structures())
def test_shipped_structures_can_be_read(name):
    crystal = load_case(MAIN, [f"structure={name}"]).crystal
    assert crystal.name == name
    assert len(crystal.labels) > 0


def test_every_shipped_file_names_its_source():
    for path in [*(HERE / "structures").glob("*.cif"), *(HERE / "cases").iterdir()]:
        assert path.read_text(encoding="utf-8").startswith("#"), path


def test_case_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_case(MAIN).seed = 3
    assert isinstance(load_case(MAIN), Case)


@pytest.mark.parametrize("name", shipped_cases())
def test_a_resolved_case_loads_to_the_same_case_and_indexes_as_it_reduces(name):
    case = load_case(name)
    again = Case.model_validate(json.loads(json.dumps(case.document)))
    assert again == case
    assert (again.index.spacegroup, again.index.d_star_max) == (case.reduce.spacegroup, case.reduce.d_star_max)
    own = load_case(name, ["index.d_star_max=0.9"])
    assert Case.model_validate(own.document).index.d_star_max == 0.9
    assert load_case(name, ["reduce.d_star_max=1.1"]).index.d_star_max == 1.1
