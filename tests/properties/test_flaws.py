"""Every flaw does what its name says, by the amount asked for, and nothing when it is off."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation
from simulations import crystal, experiment

from nanoed.sim import detector
from nanoed.sim.background import ICE, diffuse_scattering, layer_elastic
from nanoed.sim.diffraction import damaged, diffraction, grains, layer_A, smeared_precession, unevenly_lit
from nanoed.sim.exposure import expected_image, incident_electrons, simulated_frame
from nanoed.sim.imperfections import Distortion, turns
from nanoed.sim.microscope import PRESETS, beam_electrons, flux_share
from nanoed.sim.particle import Body
from nanoed.sim.physics.geometry import frame_matrix
from nanoed.sim.setup import prepare

SPHERE = Body("sphere", 100.0, 100.0, np.array([0.0, 0.0, 1.0]))


def made(flaws=None, **changes):
    return prepare(experiment(engine="kinematical", flaws=flaws or {}, **changes), crystal())


def instrument(**changes):
    return experiment(instrument={"preset": "jeol-f200"} | changes).instrument


def test_distortions_have_their_symmetry():
    g = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    barrel = Distortion(0, 0, -0.01, 1.0)(g) - g
    spiral = Distortion(0, 0, 0.01j, 1.0)(g) - g
    parabolic = Distortion(0, 0.01, 0, 1.0)(g) - g
    assert np.allclose(barrel, -0.01 * g)
    assert np.allclose(spiral, 0.01 * np.column_stack([-g[:, 1], g[:, 0]]))
    assert np.allclose(parabolic[0], parabolic[2])  # even in g, unlike the others
    assert np.allclose(Distortion(0, 0, -0.01, 2.0)(2 * g), 2 * (g + barrel))


def test_the_largest_shift_of_a_cubic_distortion_is_at_the_edge_as_asked():
    for name in ("barrel_pct", "spiral_pct"):
        true = made({name: 0.5}).true
        edge = np.array([[true.distortion.edge, 0.0]])
        shift = np.linalg.norm(true.distortion(edge) - edge) / true.distortion.edge
        assert shift == pytest.approx(0.005)


def test_the_beam_turns_the_particle_by_steps_about_its_own_axes():
    """Between the angles as they are and as they would be lies the rotation of the particle, whatever the tilt."""
    protocol = {"kind": "precession", "tilt_min_deg": -60, "tilt_max_deg": 60, "tilt_step_deg": 2, "exposure_s": 0.5,
                "semi_angle_deg": 1.0}  # fmt: skip
    plain, moved = (made({"rotation_step_deg": size}, protocol=protocol).true for size in (0.0, 0.3))
    frames = [
        np.array([frame_matrix(*angles) for angles in zip(true.alpha, true.beta, true.omega, strict=True)])
        for true in (plain, moved)
    ]
    found = Rotation.from_matrix(np.einsum("nji,njk->nik", *frames)).as_rotvec(degrees=True)
    vectors = np.degrees(turns(experiment().seed, np.radians(0.3), len(found)))
    assert np.abs(found - vectors).max() < 0.02
    steps = np.linalg.norm(np.diff(vectors, axis=0, prepend=0.0), axis=1)
    assert steps[steps > 0] == pytest.approx(0.3)
    assert len(steps[steps > 0]) == 5
    assert np.linalg.norm(vectors, axis=1).max() > 0.25
    assert np.abs(vectors).min(axis=0).max() == 0  # not turned before the first of them
    assert not turns(1, 0.0, 9).any()


def test_descanning_widens_spots_by_its_ring_and_only_in_precession():
    widths = []
    for flaws in ({}, {"descan_px": 2.0}):
        profile = made(flaws).beam_profile
        offset = (np.arange(len(profile)) - len(profile) // 2) / 8
        widths.append(profile.sum(0) @ offset**2 / profile.sum())
    assert widths[1] - widths[0] == pytest.approx(2.0**2 / 2, rel=0.02)
    still = {
        "kind": "continuous_rotation",
        "tilt_min_deg": 0,
        "tilt_max_deg": 2,
        "tilt_step_deg": 1,
        "exposure_s": 1,
    }
    assert np.array_equal(
        made({"descan_px": 2.0}, protocol=still).beam_profile, made(protocol=still).beam_profile
    )


def test_ice_has_its_halo_and_keeps_the_electrons():
    g = np.linspace(0.15, 0.6, 451)
    halo = layer_elastic(ICE, g, 200.0)
    peak = g[np.argmax(halo)]
    assert peak == pytest.approx(1 / 3.7, abs=0.02)
    diffuse = diffuse_scattering((128, 128), 0.05, 200.0, 0.0, crystal())
    assert diffuse.in_support(0, 100.0)[0, 0] == pytest.approx(1, abs=0.01)
    assert diffuse.in_support(100.0)[0, 0] == pytest.approx(1, abs=0.01)
    assert diffuse.in_crystal(100.0)[0, 0] == pytest.approx(1, abs=0.01)
    frames = [expected_image(s, 0, [diffraction(s, 0)])[0] for s in (made(), made({"ice_nm": 50.0}))]
    assert frames[1][80, 80 + 17] > frames[0][80, 80 + 17] + 1  # 0.27 1/Å is 17 pixels of 0.016


def test_frame_scales_change_the_beam_and_what_it_scatters():
    plain, scaled = made(), made({"frame_scale_pct": 30.0})
    factors = np.array([incident_electrons(scaled, i) / incident_electrons(plain, i) for i in range(4)])
    assert np.ptp(factors) > 0.1
    ratio = diffraction(scaled, 2).electrons.sum() / diffraction(plain, 2).electrons.sum()
    assert ratio == pytest.approx(factors[2])


def test_flux_is_the_mean_over_the_stated_diameter():
    """A disc of the beam's own diameter gets the stated flux from either profile; beside it, less or nothing."""
    wide = Body("plate", 1000.0, 50.0, np.array([0.0, 0.0, 1.0]))
    for profile in ("top-hat", "gaussian"):
        beam = instrument(beam_profile=profile)
        assert flux_share(wide, np.eye(3), beam, np.zeros((1, 2))) == pytest.approx(1, abs=0.01)
        inside, outside = flux_share(SPHERE, np.eye(3), beam, np.array([[0.0, 0.0], [1500.0, 0.0]]))
        assert outside < 0.01
        assert inside == pytest.approx(1.38 if profile == "gaussian" else 1, abs=0.01)
    assert flux_share(SPHERE, np.eye(3), instrument(), np.array([[500.0, 0.0]])) == pytest.approx(
        0.49, abs=0.02
    )
    assert beam_electrons(instrument(beam_profile="gaussian"), 1.0) == 2 * beam_electrons(instrument(), 1.0)


def test_without_tracking_the_particle_leaves_the_beam():
    gaussian = {
        "preset": "jeol-f200",
        "beam_profile": "gaussian",
        "detector_px": (160, 160),
        "a_per_px": 0.016,
    }
    shares = {
        name: [grains(made(flaws, instrument=gaussian), i)[0].share for i in range(4)]
        for name, flaws in {
            "fixed": {},
            "tracked": {"tracking_error_nm": "default"},
            "adrift": {"particle_drift_nm": 80.0},
        }.items()
    }
    assert np.ptp(shares["fixed"]) < 0.02
    assert np.std(shares["tracked"]) < np.std(shares["adrift"])
    assert min(shares["adrift"]) < 0.8 * min(shares["tracked"])


NARROW = {"preset": "jeol-f200", "beam_diameter_nm": 16.0, "detector_px": (160, 160), "a_per_px": 0.016}


def test_the_circle_of_a_precessing_beam_lights_a_particle_beside_its_middle_unevenly():
    """Alone in the middle of the circle, as without it; beside it brighter on one side, and so are Friedel mates."""
    given = {"instrument": NARROW, "particle": {"shape": "sphere", "diameter_nm": 10.0}}
    plain, uneven = made(**given), made({"pivot_cs_mm": 1.0, "tracking_error_nm": 4.0}, **given)
    assert np.abs(uneven.true.pivot) == pytest.approx(1e7 * uneven.true.semi_angle**3)
    middle = grains(made({"pivot_cs_mm": 1.0}, **given), 0)[0]
    assert middle.share < 1
    assert middle.lit == pytest.approx(1, abs=0.01)
    assert grains(plain, 0)[0].lit == [1.0]
    (grain,) = grains(uneven, 0)
    assert grain.lit.mean() == pytest.approx(1)
    assert np.ptp(grain.lit) > 0.5

    def asymmetry(setup):
        found = diffraction(setup, 0)
        at = {tuple(h): n for h, n in zip(found.hkl.tolist(), found.electrons, strict=True) if any(h)}
        a, b = np.array([(at[h], at[mate]) for h in at if (mate := tuple(-i for i in h)) in at]).T
        return np.abs(a - b).sum() / (a + b).sum()

    assert asymmetry(uneven) > asymmetry(plain) + 0.05
    frame = simulated_frame(uneven, 0)
    total = frame.summary["on_detector_e"] + frame.summary["missed_e"]
    assert total == pytest.approx(frame.summary["incident_e"], rel=2e-3)
    assert frame.summary["flux_share"] == grain.share < 1


def test_the_beam_comes_from_the_azimuth_where_it_is_brightest():
    """Weights of the cone's rotations follow the flux at their azimuth and sum to 1, whatever the mosaic spread."""
    azimuth = 2 * np.pi * np.arange(36) / 36
    for spread in (0.0, 2e-3):
        rotations, shares = smeared_precession(0.02, spread, 360)
        weighted = unevenly_lit(1 + 0.5 * np.cos(azimuth - 1.0), rotations, shares)
        assert weighted.sum() == pytest.approx(1)
        mean = weighted @ rotations[:, 2, :2]
        assert np.arctan2(mean[1], mean[0]) == pytest.approx(1.0, abs=0.01)
        assert np.hypot(*mean) == pytest.approx(0.25 * 0.02, rel=0.02)


def test_a_particle_is_lit_most_where_the_circle_brings_the_beam_to_it():
    """At 6 nm from the middle of the circle towards azimuth φ in a narrow beam; far outside it gets nothing."""
    particle = {"shape": "sphere", "diameter_nm": 10.0}
    setup = made({"pivot_cs_mm": 1.0}, instrument=NARROW, particle=particle)
    for azimuth in (0.3, 2.0, 4.5):
        towards = setup.true.pivot / abs(setup.true.pivot) * np.exp(1j * azimuth)
        place = np.tile([towards.real, towards.imag], (4, 1))
        lit = grains(replace(setup, true=replace(setup.true, place=60 * place)), 0)[0].lit
        mean = (lit * np.exp(2j * np.pi * np.arange(len(lit)) / len(lit))).sum()
        assert np.exp(1j * (np.angle(mean) - azimuth)).real > 0.999
    dark = replace(setup, true=replace(setup.true, place=900 * place))
    assert np.all(diffraction(dark, 0).electrons == 0)


def test_twin_and_second_particle_add_intensities():
    particle = experiment().particle.model_dump() | {"twin_plane_hkl": (1, 2, 0)}
    whole, twinned = made(particle=particle), made({"twin_pct": 30.0}, particle=particle)
    first, second = (diffraction(twinned, 1, grain) for grain in grains(twinned, 1))
    alone = diffraction(whole, 1)
    assert np.allclose(first.electrons, 0.7 * alone.electrons)
    assert second.electrons.sum() == pytest.approx(0.3 * alone.electrons.sum(), rel=0.05)
    assert len(second.hkl) != len(first.hkl) or not np.allclose(second.x, first.x)
    both = made({"second_particle_pct": 20.0})
    assert [g.share for g in grains(both, 1)] == pytest.approx([1, 0.2])
    frame = simulated_frame(both, 1)
    total = frame.summary["on_detector_e"] + frame.summary["missed_e"]
    assert total == pytest.approx(frame.summary["incident_e"], rel=2e-3)
    with pytest.raises(ValidationError, match="twin_plane_hkl"):
        made({"twin_pct": 30.0})


def test_damage_fades_spots_with_the_fluence_and_keeps_the_electrons():
    setup = made({"fading_per_Me": 1e4, "damage_b_A2_per_Me": 2e4})
    share, g = np.array([0.9, 0.06, 0.04]), np.array([0.0, 0.5, 1.0])
    early, late = damaged(setup, 0, share, g), damaged(setup, 3, share, g)
    assert early.sum() == pytest.approx(1)
    assert late.sum() == pytest.approx(1)
    fluence = 24 * 3.5e-6
    assert late[1:] == pytest.approx(share[1:] * np.exp(-fluence * (1e4 + 1e4 * g[1:] ** 2)))
    assert late[2] / share[2] < late[1] / share[1] < early[1] / share[1]


def test_charge_sharing_has_its_mean_and_noise():
    """Mean counts per electron n, variance over mean <n²>/<n> in sums over blocks; not those of plain counting."""
    rng, beam = np.random.default_rng(2), instrument(cluster_px=2.0)
    flat = np.full((320, 320), 20.0)
    counts = detector.read_out(flat, beam, rng).astype(float)[8:-8, 8:-8]
    assert counts.mean() / 20 == pytest.approx(2, rel=5e-3)
    blocks = counts[:304, :304].reshape(38, 8, 38, 8).sum(axis=(1, 3))
    per_electron = np.random.default_rng(3).binomial(4, 0.25, 200_000) + 1.0
    expected = np.mean(per_electron**2) / np.mean(per_electron)
    assert blocks.var() / blocks.mean() == pytest.approx(expected, rel=0.12)
    assert blocks.var() / blocks.mean() > 1.5
    quiet = detector.read_out(flat, beam, None)
    assert quiet[100, 100] == pytest.approx(40)


def test_the_gap_cross_shows_wide_pixels_as_equal_ones():
    counts = np.random.default_rng(1).poisson(100.0, (64, 64)).astype(float)
    crossed = detector.chip_borders(counts, 3)
    assert np.allclose(crossed[29:32], crossed[29:30])
    assert np.allclose(crossed[:, 32:35], crossed[:, 32:33])
    assert crossed.sum() == pytest.approx(counts.sum())
    assert np.array_equal(crossed[:29, :29], counts[:29, :29])
    assert np.array_equal(detector.chip_borders(counts, 0), counts)


def test_dead_and_hot_pixels_stay_where_they_are():
    size = {"dead_pixel_ppm": 5000.0, "hot_pixel_ppm": 5000.0}
    image = np.full((100, 100), 50.0)
    once, again = detector.with_faults(image, size, 7, 1.0), detector.with_faults(image, size, 7, 1.0)
    assert np.array_equal(once, again)
    assert 20 < (once == 0).sum() < 90
    assert 20 < (once > 50).sum() < 90
    assert not np.array_equal(once, detector.with_faults(image, size, 8, 1.0))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_instruments(name):
    beam = instrument(preset=name)
    assert beam.voltage_kv in (120, 200)
    edge = 0.5 * beam.detector_px[0] * beam.a_per_px
    assert 1.4 < edge < 1.8


def test_layers_seen_from_beyond_a_right_angle_take_electrons_away():
    """Tilts of the stage end at 90°, jitter does not; edge-on the path along the beam ends with the film."""
    setup = made({"support_film_nm": 3.0, "ice_nm": 20.0})
    for tilt, film in ((60.0, 60.0), (120.0, 60.0), (-100.0, 172.763), (90.0, 3000.0), (90.1, 3000.0)):
        alpha = np.full_like(setup.true.alpha, np.radians(tilt))
        turned = replace(setup, true=replace(setup.true, alpha=alpha))
        assert layer_A(turned, 0, "support_film_nm") == pytest.approx(film)
        assert layer_A(turned, 0, "ice_nm") == pytest.approx(film * 20 / 3)
