"""Serial data: many particles, runs of frames, unknown orientations; and the sweeps of a rotation with gaps."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation
from simulations import crystal, experiment

from nanoed.sim.diffraction import diffraction, grains, rotation_of
from nanoed.sim.exposure import simulated_frame
from nanoed.sim.physics.geometry import frame_matrix
from nanoed.sim.population import angles_of, runs
from nanoed.sim.setup import prepare
from nanoed.sim.simulate import simulate
from nanoed.sim.truth import read_truth
from nanoed.studies.analysis import Outcome
from nanoed.studies.rows import outcome_columns

PROTOCOL = {"kind": "serial", "n_frames": 60, "n_particles": 7, "exposure_s": 0.5}


def serial(**changes):
    return experiment(engine="kinematical", protocol=PROTOCOL | changes)


@pytest.fixture(scope="module")
def setup():
    return prepare(serial(blank_pct=15.0, double_pct=20.0, turn_deg=0.5), crystal())


def test_every_particle_has_one_run_of_frames():
    owner, position = runs(812, 48, 3)
    assert set(owner) == set(range(48))
    assert (np.diff(owner) >= 0).all()
    assert (position[np.flatnonzero(np.diff(owner)) + 1] == 0).all()
    assert not np.array_equal(runs(812, 48, 4)[0], owner)


def test_a_particle_turns_about_one_axis_by_the_same_step(setup):
    seen = setup.population
    owner = runs(60, 7, setup.experiment.seed)[0]
    for p in range(7):
        turn = seen.turn[owner == p]
        steps = Rotation.from_matrix(turn[1:] @ turn[:-1].transpose(0, 2, 1)).as_rotvec()
        assert np.allclose(np.linalg.norm(steps, axis=1), np.radians(0.5))
        assert np.allclose(steps, steps[:1])
    jumps = Rotation.from_matrix(seen.turn[1:] @ seen.turn[:-1].transpose(0, 2, 1)).magnitude()
    assert (np.degrees(jumps[np.diff(owner) > 0]) > 1).mean() > 0.8


def test_blank_and_double_frames(setup):
    count = np.array([len(grains(setup, i)) for i in range(60)])
    assert set(count) == {0, 1, 2}
    blank, double = int(np.flatnonzero(count == 0)[0]), int(np.flatnonzero(count == 2)[0])
    frame = simulated_frame(setup, blank)
    assert frame.summary["particle"] == -1
    assert len(frame.reflections["h"]) == 0
    assert frame.image.sum() > 0
    assert set(simulated_frame(setup, double).reflections["crystal"]) == {0, 1}
    assert not np.allclose(*(grain.to_lab for grain in grains(setup, double)))


def test_sizes_spread_as_asked():
    scales = np.unique(prepare(serial(n_frames=400, n_particles=400), crystal()).population.scale)
    assert np.std(np.log(scales)) == pytest.approx(0.1, rel=0.15)
    assert np.ptp(prepare(serial(size_spread_pct=0.0), crystal()).population.scale) == 0


def test_the_truth_has_the_orientation_in_the_goniometers_angles(setup):
    angles = angles_of(np.array([rotation_of(setup, i) for i in range(60)]))
    for i in (0, 31, 59):
        assert np.allclose(frame_matrix(*angles[i]) @ setup.mount, setup.population.turn[i])
        assert not np.allclose(
            frame_matrix(-angles[i, 0], *angles[i, 1:]) @ setup.mount, setup.population.turn[i]
        )
    assert np.array_equal(setup.nominal.alpha_deg, np.zeros(60))


@pytest.mark.parametrize(
    "changes", [{"n_particles": 61}, {"blank_pct": 60.0, "double_pct": 50.0}, {"tilt_min_deg": 1}]
)
def test_serial_fields_are_checked(changes):
    with pytest.raises(ValidationError):
        serial(**changes)


def rotation(gap):
    protocol = {"kind": "continuous_rotation", "tilt_min_deg": -2, "tilt_max_deg": 2, "tilt_step_deg": 1}
    return experiment(engine="kinematical", protocol=protocol | {"exposure_s": 0.5, "readout_gap_s": gap})


def test_a_readout_gap_shortens_the_sweep_and_not_the_step():
    whole, gappy = (prepare(rotation(gap), crystal()) for gap in (0.0, 0.5))
    assert whole.nominal.rotation_deg == 1
    assert gappy.nominal.rotation_deg == 0.5
    assert np.allclose(np.diff(gappy.nominal.alpha_deg), 1)
    assert np.allclose(
        gappy.nominal.alpha_deg - 0.25, whole.nominal.alpha_deg - 0.5
    )  # both start with the step
    assert len(diffraction(whole, 1).hkl) > len(diffraction(gappy, 1).hkl)


def test_a_series_of_blank_frames_has_a_truth(tmp_path):
    """Its mean thickness is not a number, which JSON does not know."""
    blank = serial(n_frames=2, n_particles=1, blank_pct=100.0, double_pct=0.0)
    simulate(blank, crystal(), tmp_path / "data", tmp_path / "truth")
    truth = read_truth(tmp_path / "truth")
    assert truth.summary["thickness_mean_A"] is None
    assert (truth.frames["particle"] == -1).all()
    outcome = Outcome("kinematical", "failed", "no spots")
    assert np.isnan(outcome_columns(outcome, None, crystal(), truth, None)["thickness_true_A"])
