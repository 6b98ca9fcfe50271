"""Spot profiles and single frames in limits where the answer is known."""

import numpy as np
import pytest
from simulations import ALL_FLAWS, crystal, experiment

from nanoed.sim import render
from nanoed.sim.detector import read_out, recorded_electrons
from nanoed.sim.diffraction import diffraction
from nanoed.sim.exposure import expected_image, simulated_frame
from nanoed.sim.particle import Body, chord_map
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.scattering import u_g
from nanoed.sim.physics.thickness import chord_distribution
from nanoed.sim.setup import prepare
from nanoed.sim.streams import stream

A = 0.01
ROD = Body("cylinder", 120.0, 300.0, np.array([0.6, 0.0, 0.8]))


@pytest.mark.parametrize("body", [None, ROD])
@pytest.mark.parametrize(("x", "y"), [(40.5, 40.5), (40.0, 41.0), (40.137, 40.861)])
def test_a_spot_keeps_its_electrons_and_its_place(body, x, y):
    profile = render.spot_profile(A, 0.01, 1.0, body, np.eye(3))
    canvas = np.zeros((81, 81))
    lost = render.add_spots(
        canvas, np.array([x]), np.array([y]), np.array([1e6]), profile, render.OVERSAMPLING
    )
    assert canvas.sum() + lost == pytest.approx(1e6, rel=1e-10)
    assert lost < 1e-3 * 1e6
    centres = np.arange(81) + 0.5
    assert canvas.sum(0) @ centres / canvas.sum() == pytest.approx(x, abs=2e-3)
    assert canvas.sum(1) @ centres / canvas.sum() == pytest.approx(y, abs=2e-3)


def test_a_wide_beams_spot_is_disc_point_spread_and_pixel():
    radius, sigma = 0.02, 0.8
    profile = render.spot_profile(A, radius, sigma, None, np.eye(3))
    canvas = np.zeros((81, 81))
    at = np.array([40.3])
    render.add_spots(canvas, at, at, np.array([1.0]), profile, render.OVERSAMPLING)
    centres = np.arange(81) + 0.5 - 40.3
    variance = canvas.sum(0) @ centres**2
    assert variance == pytest.approx(sigma**2 + (radius / A) ** 2 / 4 + 1 / 12, rel=0.01)


def test_a_rods_spot_is_wide_across_the_rod():
    """A rod along x is long in x, so its spot is narrow in x; the swapped axes must not pass."""
    rod = Body("cylinder", 40.0, 300.0, np.array([1.0, 0.0, 0.0]))
    profile = render.spot_profile(A, 0.0, 0.3, rod, np.eye(3))
    half = profile.max() / 2
    width_x, width_y = (profile > half).any(0).sum(), (profile > half).any(1).sum()
    assert width_y > 1.8 * width_x


def test_spots_off_the_canvas_are_counted_as_lost():
    profile = render.spot_profile(A, 0.01, 1.0, None, np.eye(3))
    canvas = np.zeros((30, 30))
    x = np.array([0.0, 200.0])
    lost = render.add_spots(canvas, x, np.full(2, 15.0), np.full(2, 10.0), profile, render.OVERSAMPLING)
    assert canvas.sum() == pytest.approx(5, rel=0.01)
    assert canvas.sum() + lost == pytest.approx(20, rel=1e-10)


@pytest.mark.parametrize("shape", ["sphere", "ellipsoid", "cylinder", "plate"])
def test_the_chord_map_holds_the_particles_volume(shape):
    body = Body(shape, 100.0, 100.0 if shape == "sphere" else 240.0, np.array([0.48, 0.6, 0.64]))
    grid = np.linspace(-150, 150, 601)
    x, y = np.meshgrid(grid, grid)
    volume = chord_map(body, np.eye(3), x, y).sum() * (grid[1] - grid[0]) ** 2
    across = np.pi * 50**2 * body.length
    assert volume == pytest.approx(across * (2 / 3 if shape in ("sphere", "ellipsoid") else 1), rel=2e-3)


@pytest.mark.parametrize("shape", ["sphere", "ellipsoid", "cylinder", "plate"])
@pytest.mark.parametrize("axis", [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.48, 0.6, 0.64)])
def test_the_chord_map_agrees_with_the_chord_distribution(shape, axis):
    body = Body(shape, 100.0, 100.0 if shape == "sphere" else 160.0, np.array(axis))
    grid = np.linspace(-110, 110, 1001)
    chords = chord_map(body, np.eye(3), *np.meshgrid(grid, grid))
    thickness, weights, area = chord_distribution(body, np.array([0.0, 0.0, 1.0]))
    assert np.count_nonzero(chords) * (grid[1] - grid[0]) ** 2 == pytest.approx(area, rel=5e-3)
    for power in (1, 2, 4):
        assert np.mean(chords[chords > 0] ** power) == pytest.approx(weights @ thickness**power, rel=5e-3)


def test_an_isolated_spot_holds_the_counts_of_the_truth_table():
    """All noise off: counts around a spot are its expected electrons to 0.1 %, and not those of another."""
    instrument = {"preset": "jeol-f200", "dead_time_us": 0.0, "a_per_px": 0.004}
    particle = {"shape": "ellipsoid", "diameter_nm": 24.0, "length_nm": 30.0, "axis_uvw": [1, 1, 3]}
    only_101 = experiment(
        structure="anatase",
        noise=False,
        g_max=0.3,
        instrument=instrument,
        particle=particle,
        protocol__tilt_min_deg=-60.0,
        protocol__tilt_max_deg=60.0,
    )
    setup = prepare(only_101, crystal("anatase"))
    checked = 0
    for i in range(setup.nominal.n_frames):
        frame = simulated_frame(setup, i)
        x, y, i_true = (frame.reflections[name] for name in ("x_px", "y_px", "i_true"))
        for s in np.flatnonzero(i_true > 1e3):
            away = np.hypot(x - x[s], y - y[s])
            if np.any((away > 0) & (away < 46) & (i_true > 1e-4 * i_true[s])):
                continue
            rows, columns = (slice(int(c) - 22, int(c) + 23) for c in (y[s], x[s]))
            counts = float(frame.image[rows, columns].sum())
            assert counts == pytest.approx(i_true[s], rel=1e-3)
            assert np.count_nonzero(np.abs(i_true / counts - 1) < 1e-3) == 1
            checked += 1
    assert checked > 0


@pytest.mark.parametrize("engine", ["bloch", "kinematical"])
@pytest.mark.parametrize("film", ["off", 20.0])
def test_electrons_are_conserved(engine, film):
    flaws = {"support_film_nm": film, "inelastic": "off" if film == "off" else "default"}
    setup = prepare(experiment(engine=engine, flaws=flaws), crystal())
    frame = simulated_frame(setup, 2)
    total = frame.summary["on_detector_e"] + frame.summary["missed_e"]
    assert total == pytest.approx(frame.summary["incident_e"], rel=2e-3)
    assert frame.summary["missed_e"] < 0.05 * frame.summary["incident_e"]
    assert frame.summary["incident_e"] == pytest.approx(24 * np.pi * 500**2 * 1.0, rel=1e-12)


def test_a_film_moves_electrons_out_of_the_beam_and_keeps_them():
    clean, coated = (prepare(experiment(flaws={"support_film_nm": t}), crystal()) for t in ("off", 30.0))
    images = [expected_image(setup, 0, [diffraction(setup, 0)])[0] for setup in (clean, coated)]
    centre = (slice(70, 90), slice(70, 90))
    assert images[1][centre].sum() < 0.95 * images[0][centre].sum()
    assert images[1].sum() == pytest.approx(images[0].sum(), rel=0.02)


def test_kinematical_counts_follow_from_the_partiality():
    """I = dose area (π U/K)² <t²> partiality, from structure factors and truth-table columns alone."""
    setup = prepare(experiment(engine="kinematical"), crystal())
    spots = diffraction(setup, 0)
    hkl = spots.hkl[1:]
    potential = np.abs(u_g(crystal(), hkl, 200.0, "lobato"))
    mean_square = (np.pi * potential * wavelength_A(200.0)) ** 2 * spots.partiality[1:]
    ratio = spots.electrons[1:].sum() / (24 * spots.area * mean_square.sum())
    assert spots.thickness_mean**2 < ratio < spots.thickness_max**2
    assert np.allclose(spots.electrons[1:], 24 * spots.area * mean_square * ratio, rtol=1e-6)


def test_counting_noise_is_that_of_poisson():
    """Over 200 noise seeds, z = (counts - expected) / sqrt(expected) is as wide as it should be."""
    setup = prepare(
        experiment(engine="kinematical", flaws=ALL_FLAWS, instrument__dead_time_us=1.9), crystal()
    )
    instrument, exposure = setup.experiment.instrument, setup.experiment.protocol.exposure_s
    expected = recorded_electrons(expected_image(setup, 1, [diffraction(setup, 1)])[0], instrument, exposure)
    some = expected >= 0.2
    z = np.array(
        [(read_out(expected, instrument, stream(seed, "counts", 1)) - expected)[some] for seed in range(200)]
    )
    z /= np.sqrt(expected[some])
    assert 0.97 < np.sqrt(np.mean(z**2)) < 1.03
    assert np.mean(np.abs(z) > 3) < 0.005


def test_the_counter_clips_and_loses_pulses():
    instrument = experiment(instrument__counter_max=4095, instrument__dead_time_us=2.0).instrument
    electrons = np.array([[10.0, 5e4, 1e6]])
    recorded = recorded_electrons(electrons, instrument, 1.0)
    assert recorded[0] == pytest.approx(electrons[0] * np.exp(-2e-6 * electrons[0]))
    assert read_out(recorded, instrument, np.random.default_rng(1)).max() == 4095
    doubled = instrument.model_copy(update={"gain": 2.0})
    assert (read_out(recorded, doubled, np.random.default_rng(1))[0, 0] % 2) == 0
