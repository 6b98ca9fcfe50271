"""What an Experiment accepts and refuses."""

import pytest
from pydantic import ValidationError
from simulations import experiment

from nanoed.sim.microscope import PRESETS
from nanoed.sim.spec import Experiment


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"particle__diameter_nm": -30.0}, "diameter_nm"),
        ({"particle__diameter_nm": float("nan")}, "diameter_nm"),
        ({"particle__length_nm": None}, "length_nm"),
        ({"particle__shape": "sphere"}, "length_nm"),
        ({"particle__shape": "cube"}, "shape"),
        ({"particle__axis_uvw": [0, 0, 0]}, "axis_uvw"),
        ({"particle__diametre_nm": 3.0}, "diametre_nm"),
        ({"instrument__flux_e_A2_s": 0.0}, "flux_e_A2_s"),
        ({"instrument": {"preset": "jeol-f300"}}, "jeol-f200"),
        ({"protocol__tilt_max_deg": -20.0}, "tilt_max_deg"),
        ({"protocol__tilt_step_deg": 0.0}, "tilt_step_deg"),
        ({"protocol__semi_angle_deg": 0.0}, "semi_angle_deg"),
        ({"flaws": {"mosaicity_deg": -0.1}}, "mosaicity_deg"),
        ({"flaws": {"mosaicity_deg": "on"}}, "mosaicity_deg"),
        ({"engine": "blochwave"}, "engine"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_values_are_named(changes, named):
    with pytest.raises(ValidationError, match=named):
        experiment(**changes)


def test_presets_are_complete_and_overridable():
    given = experiment(
        instrument={"preset": "jeol-f200", "flux_e_A2_s": 380.0, "beam_diameter_nm": 25.0}
    ).instrument
    assert given.flux_e_A2_s == 380.0
    assert given.voltage_kv == PRESETS["jeol-f200"]["voltage_kv"]


def test_a_resolved_experiment_resolves_to_itself():
    once = experiment()
    assert Experiment.model_validate(once.model_dump(mode="json")) == once
