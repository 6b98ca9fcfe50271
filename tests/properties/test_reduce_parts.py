"""Parts of the reduction against exact answers: background, peaks, centre, profiles, rocking curve, merging."""

import json

import gemmi
import numpy as np
import pandas as pd
import pytest

from nanoed.pipeline.reduce.background import local_background
from nanoed.pipeline.reduce.centre import direct_beam, friedel_centre
from nanoed.pipeline.reduce.integrate import integrate_frame
from nanoed.pipeline.reduce.merge import cc_half, merge, outliers, r_int
from nanoed.pipeline.reduce.noise import uncorrelated
from nanoed.pipeline.reduce.output import plain
from nanoed.pipeline.reduce.peaks import clean, find_peaks
from nanoed.pipeline.reduce.profile import gaussian_profile
from nanoed.pipeline.reduce.rocking import RockingShape, rocking_profile
from nanoed.pipeline.reduce.smoothing import choose_smoothing, without_strays
from nanoed.pipeline.reduce.symmetry import (
    absent,
    centring_absent,
    laue_rotations,
    metric_class,
    representative,
)
from nanoed.pipeline.spec import IntegrationSpec, MergeSpec, PeakSpec

SIGMA = 1.2
CENTRE = np.array([131.3, 124.6])


def frame_with_spots(
    rng: np.random.Generator, electrons: np.ndarray, size: int = 256, level: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Poisson frame with a falling background and a lattice of spots at sub-pixel places; frame, pixels."""
    y, x = np.mgrid[:size, :size] + 0.5
    r = np.hypot(x - CENTRE[0], y - CENTRE[1])
    image = level + 20 / (1 + (r / 25) ** 2)
    places = np.stack(np.meshgrid(np.arange(20, size - 20, 22), np.arange(20, size - 20, 22)), -1).reshape(
        -1, 2
    )
    places = places[np.hypot(*(places - CENTRE).T) > 30][: len(electrons)] + rng.uniform(
        0, 1, (len(electrons), 2)
    )
    for (px, py), n in zip(places, electrons, strict=True):
        image += n * np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / SIGMA**2) / (2 * np.pi * SIGMA**2)
    return rng.poisson(image).astype(float), places


def test_background_is_unbiased_at_a_fraction_of_a_count() -> None:
    """A median would be 0 here; the ratio estimator gives the level."""
    rng = np.random.default_rng(0)
    frame = rng.poisson(np.full((256, 256), 0.2)).astype(float)
    background, support = local_background(frame, np.ones(frame.shape, bool), CENTRE, 31)
    assert background.mean() == pytest.approx(0.2, rel=0.02)
    assert support[128, 128] == 31**2
    assert np.median(frame) == 0


def test_background_ignores_masked_pixels_and_follows_the_radial_fall() -> None:
    y, x = np.mgrid[:200, :200] + 0.5
    smooth = 50 / (1 + np.hypot(x - 90, y - 110) / 20)
    frame, usable = smooth.copy(), np.ones(smooth.shape, bool)
    frame[40:50, 40:50] += 1000
    usable[38:52, 38:52] = False
    background, _ = local_background(frame, usable, np.array([90.0, 110.0]), 31)
    far = np.hypot(x - 90, y - 110) > 12
    assert np.abs(background / smooth - 1)[far].max() < 0.01


def test_background_beside_the_direct_beam_is_not_that_of_a_chord() -> None:
    """It bends within the rings of the radial profile: lines through their means leave 0.5 % at 14 pixels."""
    y, x = np.mgrid[:200, :200] + 0.5
    r = np.hypot(x - 100.3, y - 99.6)
    smooth = 2e5 / (100 + r**2)
    background, _ = local_background(smooth, r > 8, np.array([100.3, 99.6]), 31)
    for inner, limit in ((12, 1e-3), (16, 1e-3), (25, 2e-4), (40, 1e-4)):
        ring = (r > inner) & (r < inner + 4)
        assert background[ring].mean() == pytest.approx(smooth[ring].mean(), rel=limit)


def test_peak_search_finds_spots_and_nothing_else() -> None:
    rng = np.random.default_rng(2)
    frame, places = frame_with_spots(rng, np.full(60, 200.0))
    valid = np.ones(frame.shape, bool)
    peaks = find_peaks(0, clean(frame, valid, CENTRE, SIGMA, 1.0, PeakSpec()), valid, SIGMA, PeakSpec())
    distance = np.linalg.norm(peaks.pixels[:, None] - places[None], axis=2)
    assert len(peaks) == 60
    assert distance.min(axis=0).max() < 0.7
    assert np.sqrt((distance.min(axis=0) ** 2).mean() / 2) < 0.2
    blank = rng.poisson(np.full((256, 256), 1.0)).astype(float)
    assert (
        len(find_peaks(0, clean(blank, valid, CENTRE, SIGMA, 1.0, PeakSpec()), valid, SIGMA, PeakSpec())) == 0
    )


@pytest.mark.parametrize("level", [0.003, 0.03, 0.3, 3.0])
def test_a_few_electrons_side_by_side_are_no_peak(level: float) -> None:
    """Two electrons on a faint background are ten of its standard deviations, and come by chance all the time."""
    rng = np.random.default_rng(4)
    valid, spec = np.ones((256, 256), bool), PeakSpec()
    found = [
        len(find_peaks(0, clean(f, valid, CENTRE, SIGMA, 1.0, spec), valid, SIGMA, spec))
        for f in rng.poisson(level, (6, 256, 256)).astype(float)
    ]
    assert sum(found) <= 1
    y, x = np.mgrid[:256, :256] + 0.5
    places = np.array([(i + 0.3, j + 0.8) for i in range(20, 240, 24) for j in range(20, 240, 24)])
    away2 = (x[None] - places[:, 0, None, None]) ** 2 + (y[None] - places[:, 1, None, None]) ** 2
    expected = level + 60 * np.sqrt(1 + level) * np.exp(-0.5 * away2 / SIGMA**2).sum(axis=0) / (
        2 * np.pi * SIGMA**2
    )
    frame = rng.poisson(expected).astype(float)
    peaks = find_peaks(0, clean(frame, valid, CENTRE, SIGMA, 1.0, spec), valid, SIGMA, spec)
    distance = np.linalg.norm(peaks.pixels[:, None] - places[None], axis=2)
    assert (distance.min(axis=0) < 1.0).mean() > 0.95


def test_direct_beam_and_friedel_pairs() -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:256, :256] + 0.5
    beam = 1e5 * np.exp(-0.5 * ((x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2) / 9)
    lossy = beam * np.exp(-beam / 4e4)  # a counter that goes blind where the beam is bright
    assert np.abs(direct_beam(lossy + rng.poisson(1.0, x.shape), 2.0, 12.0) - CENTRE).max() < 0.2
    half = rng.uniform(-90, 90, (40, 2))
    pixels = np.vstack([CENTRE + half, CENTRE - half, rng.uniform(0, 256, (20, 2))])
    found = friedel_centre(pixels, CENTRE + np.array([1.0, -0.7]), 3.0)
    assert np.abs(found - CENTRE).max() < 1e-6
    assert np.array_equal(friedel_centre(pixels[:1], CENTRE, 3.0), CENTRE)


@pytest.mark.parametrize("strength", [0.0, 8.0, 40.0, 400.0, 2e4])
def test_integration_pulls_at_every_strength(strength: float) -> None:
    """(I - I_true)/sigma has mean 0 and rms 1 from nothing to strong; negative estimates are kept."""
    rng = np.random.default_rng(int(strength))
    profile = gaussian_profile(SIGMA, 8.0, np.zeros(0))
    pulls, ratio = [], []
    for _ in range(5):
        frame, places = frame_with_spots(rng, np.full(70, strength))
        zone = np.zeros(len(places), np.int64)
        spec = IntegrationSpec()
        valid = np.ones(frame.shape, bool)
        found = integrate_frame(frame, valid, CENTRE, places, zone, profile, uncorrelated(1.0), spec)
        assert found.good.all()
        pulls.append((found.intensity - strength) / found.sigma)
        ratio.append(found.intensity.sum() / max(strength * len(places), 1))
    pull = np.concatenate(pulls)
    assert abs(pull.mean()) < 0.2
    assert 0.85 < np.sqrt((pull**2).mean()) < 1.2
    if strength >= 400:
        assert np.mean(ratio) == pytest.approx(1.0, abs=0.01)
    if strength == 0:
        assert (pull < 0).any()


def test_neighbours_are_separated_and_flagged() -> None:
    """Two spots 7 px apart come out right; two spots 2 px apart are flagged."""
    rng = np.random.default_rng(9)
    y, x = np.mgrid[:128, :128] + 0.5
    places = np.array([[40.2, 40.7], [47.2, 40.7], [90.0, 90.0], [92.0, 90.0]])
    image = np.full((128, 128), 1.0)
    for (px, py), n in zip(places, (5000.0, 300.0, 1000.0, 1000.0), strict=True):
        image += n * np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / SIGMA**2) / (2 * np.pi * SIGMA**2)
    profile = gaussian_profile(SIGMA, 8.0, np.zeros(0))
    frame = rng.poisson(image).astype(float)
    centre, zone = np.array([64.0, 64.0]), np.zeros(4, np.int64)
    found = integrate_frame(
        frame, np.ones(frame.shape, bool), centre, places, zone, profile, uncorrelated(1.0), IntegrationSpec()
    )
    assert found.good.tolist() == [True, True, False, False]
    assert abs(found.intensity[0] - 5000) < 4 * found.sigma[0]
    assert abs(found.intensity[1] - 300) < 4 * found.sigma[1]


def camel_lorentzian(s: np.ndarray, reach: np.ndarray, width: float) -> np.ndarray:
    """Closed form of the precession average of a Lorentzian; reach = |g| semi_angle, all in 1/Å.

    P = (σ/π) sqrt((u + z)/2)/z, u = 1 + σ²(reach² - S²), z = sqrt(u² + 4σ²S²), σ = 1/width.
    """
    sigma = 1.0 / width
    u = 1 + sigma**2 * (reach**2 - s**2)
    z = np.sqrt(u**2 + 4 * sigma**2 * s**2)
    return sigma / np.pi * np.sqrt((u + z) / 2) / z


def test_rocking_curve_closed_form_against_average() -> None:
    """The precession average of a Lorentzian (64 points and the module's own) is the closed form."""
    s, g = np.linspace(-0.05, 0.05, 101), np.full(101, 0.9)
    shape = RockingShape(width=0.004, mosaicity=0.0, semi_angle=0.02)
    exact = camel_lorentzian(s, g * 0.02, 0.004)
    p, slope = rocking_profile(s, g, g, shape)
    psi = np.pi * (np.arange(64) + 0.5) / 64
    x = s[:, None] + 0.018 * np.cos(psi)
    average = (0.004 / np.pi / (x**2 + 0.004**2)).mean(axis=1)
    np.testing.assert_allclose(average, exact, rtol=1e-6)
    np.testing.assert_allclose(p, exact, rtol=2e-3)
    step = 1e-6
    rise = camel_lorentzian(s + step, g * 0.02, 0.004) - camel_lorentzian(s - step, g * 0.02, 0.004)
    np.testing.assert_allclose(slope, rise / (2 * step), atol=0.01 * np.abs(slope).max())
    twice = camel_lorentzian(s, g * 0.02, 0.002)
    assert np.abs(p / twice - 1).max() > 0.2


@pytest.mark.parametrize(
    "shape",
    [
        RockingShape(0.002, np.radians(0.1), np.radians(1.2)),
        RockingShape(0.001, np.radians(0.3), 0.0, np.radians(0.5)),
        RockingShape(0.003, np.radians(0.05), 0.0),
    ],
)
def test_rocking_curve_is_normalised(shape: RockingShape) -> None:
    s = np.linspace(-2, 2, 200001)
    p, _ = rocking_profile(s, np.full(len(s), 0.8), np.full(len(s), 0.7), shape)
    assert np.trapezoid(p, s) == pytest.approx(1.0, abs=3e-3)


def test_smoothing_tells_drift_from_jitter() -> None:
    rng = np.random.default_rng(4)
    alpha = np.radians(np.arange(-50.0, 51.0))
    error = np.radians(0.02)
    covariance = error**2 * np.eye(len(alpha))
    drift = np.radians(0.2) * np.sin(alpha * 3)
    measured = drift + error * rng.standard_normal(len(alpha))
    smooth = choose_smoothing(alpha, measured, covariance)
    jittery = choose_smoothing(
        alpha, measured + np.radians(0.08) * rng.standard_normal(len(alpha)), covariance
    )
    assert smooth.jitter_deg <= 0.01
    assert 0.06 <= jittery.jitter_deg <= 0.12
    kept = smooth.covariance @ np.linalg.solve(smooth.covariance + covariance, measured)
    assert np.std(kept - drift) < 0.5 * error


def test_merging_a_hand_made_list() -> None:
    """Two groups in mmm: means, R_int, redundancy by hand; a third reflection alone."""
    table = pd.DataFrame(
        [(1, 2, 3, 10.0, 1.0), (-1, 2, 3, 14.0, 1.0), (1, -2, -3, 12.0, 1.0), (2, 0, 0, 5.0, 1.0),
         (-2, 0, 0, 5.0, 1.0), (4, 1, 0, 7.0, 1.0)], columns=["h", "k", "l", "I", "sigma"])  # fmt: skip
    merged = merge(table, laue_rotations("mmm", "P b c a"), MergeSpec())
    assert merged.reflections[["h", "k", "l"]].to_numpy().tolist() == [[1, 2, 3], [2, 0, 0], [4, 1, 0]]
    np.testing.assert_allclose(merged.reflections["I"], [12.0, 5.0, 7.0])
    np.testing.assert_allclose(merged.reflections["sigma"], [3**-0.5, 2**-0.5, 1.0])
    assert merged.r_int == pytest.approx(4.0 / 46.0)
    assert merged.redundancy == 2.0
    wrong = merge(table, laue_rotations("-1", None), MergeSpec())
    assert len(wrong.reflections) == 4


def test_error_model_makes_deviations_normal() -> None:
    rng = np.random.default_rng(6)
    group = np.repeat(np.arange(400), 4)
    true = rng.exponential(1000, 400)[group]
    sigma = np.full(len(group), 5.0)
    found = true * (1 + 0.12 * rng.standard_normal(len(group))) + sigma * rng.standard_normal(len(group))
    hkl = pd.DataFrame({"h": group + 1, "k": np.tile([1, -1, 1, -1], 400), "l": np.tile([1, 1, -1, -1], 400)})
    merged = merge(hkl.assign(I=found, sigma=sigma), laue_rotations("mmm", None), MergeSpec())
    assert merged.errors.s_add == pytest.approx(0.12, abs=0.02)
    level = true[::4]
    pull = (merged.reflections["I"] - level) / merged.reflections["sigma"]
    assert 0.85 < np.sqrt((pull**2).mean()) < 1.15
    assert merged.n_outliers < 20


def test_outliers_need_a_group_of_four_and_two_reasons() -> None:
    intensity = np.array([10.0, 11.0, 9.0, 100.0, 10.0, 100.0])
    group = np.array([0, 0, 0, 0, 1, 1])
    assert outliers(intensity, np.ones(6), group, 4.0).tolist() == [False, False, False, True, False, False]
    assert not outliers(intensity, np.full(6, 50.0), group, 4.0).any()


def test_r_int_ignores_the_order_and_cc_half_the_noise_free() -> None:
    rng = np.random.default_rng(8)
    group = np.repeat(np.arange(20), 3)
    intensity = rng.exponential(10, 60)
    shuffled = rng.permutation(60)
    assert r_int(intensity, group) == pytest.approx(r_int(intensity[shuffled], group[shuffled]))
    level = rng.exponential(10, 20)[group]
    assert r_int(level, group) < 1e-15
    assert cc_half(level, group) == pytest.approx(1.0)
    assert r_int(level, rng.permutation(group)) > 0.3


def test_numbers_that_json_lacks_become_null() -> None:
    found = plain({"r_int": float("nan"), "cell": [1.0, np.float64("inf")], "frames": {"n": 3, "ok": True}})
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "r_int": None, "cell": [1.0, None], "frames": {"n": 3, "ok": True}}  # fmt: skip


def test_symmetry_of_the_lists() -> None:
    hkl = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 0], [1, 0, 0], [1, 1, 1]])
    assert absent(hkl, "P b c a").tolist() == [True, False, False, True, False]
    assert not absent(hkl, None).any()
    assert centring_absent(hkl, "I a -3").tolist() == [True, True, False, True, True]
    rotations = laue_rotations("m-3", "I a -3")
    assert len(rotations) == 24
    cyclic = representative(np.array([[1, 2, 3], [2, 3, 1], [-3, -1, 2], [2, 1, 3]]), rotations)
    assert (cyclic[0] == cyclic[1]).all()
    assert (cyclic[0] == cyclic[2]).all()
    assert not (cyclic[0] == cyclic[3]).all()


@pytest.mark.parametrize(
    ("laue", "spacegroup", "shape"),
    [
        ("-3", "R -3 c:R", "r"),
        ("-3", "R -3 c:H", "-3"),
        ("-3", "I a -3", "r"),
        ("-3m", "F d -3 m:2", "r"),
        ("-3", None, "-3"),
    ],
)
def test_a_lower_class_keeps_to_the_axes_of_the_group(laue: str, spacegroup: str | None, shape: str) -> None:
    """Its operations are among those of the group: hexagonal ones on rhombohedral axes would merge strangers."""
    assert metric_class(laue, spacegroup) == shape
    if spacegroup:
        of_group = laue_rotations(gemmi.find_spacegroup_by_name(spacegroup).laue_str(), spacegroup)
        assert {r.tobytes() for r in laue_rotations(laue, spacegroup)} < {r.tobytes() for r in of_group}


def test_a_stray_tilt_comes_back_to_the_others_and_tells_nothing_of_the_jitter():
    rng = np.random.default_rng(4)
    alpha = np.radians(np.linspace(-34, 34, 35))
    true = np.radians(0.05 * np.sin(3 * alpha) + rng.normal(0, 0.03, 35))
    error = np.radians(0.015)
    tilts, covariance = true + rng.normal(0, error, 35), np.eye(35) * error**2
    plain, kept = without_strays(alpha, tilts, covariance)
    assert (kept == tilts).all()
    astray = tilts.copy()
    astray[[24, 7]] += np.radians([0.95, -0.5])
    found, back = without_strays(alpha, astray, covariance)
    assert np.degrees(np.abs(back - true)).max() < 0.15
    others = np.setdiff1d(np.arange(35), [24, 7])
    assert (back[others] == astray[others]).all()
    assert found.jitter_deg <= plain.jitter_deg < choose_smoothing(alpha, astray, covariance).jitter_deg


def test_spread_of_a_group_or_its_counting() -> None:
    """By hand: equal sigmas, a group that scatters more than it counts, one that scatters less, and one alone."""
    table = pd.DataFrame(
        [(1, 2, 3, 10.0, 1.0), (-1, 2, 3, 16.0, 1.0), (1, -2, 3, 10.0, 1.0), (2, 0, 0, 5.0, 1.0),
         (-2, 0, 0, 5.5, 1.0), (4, 1, 0, 7.0, 1.5)], columns=["h", "k", "l", "I", "sigma"])  # fmt: skip
    merged = merge(table, laue_rotations("mmm", "P b c a"), MergeSpec(errors="spread"))
    np.testing.assert_allclose(merged.reflections["I"], [12.0, 5.25, 7.0])
    np.testing.assert_allclose(merged.reflections["sigma"], [(24 / 3 / 2) ** 0.5, 0.5**0.5, 1.5])


def test_spread_of_groups_leaves_the_measurements_their_own_sigmas() -> None:
    """20 % of spread in groups of four: the model gives all means about 10 % of I, groups some more and some less."""
    rng = np.random.default_rng(8)
    group = np.repeat(np.arange(200), 4)
    found = 100.0 * (1 + 0.2 * rng.standard_normal(len(group)))
    hkl = pd.DataFrame({"h": group + 1, "k": np.tile([1, -1, 1, -1], 200), "l": np.tile([1, 1, -1, -1], 200)})
    hkl = hkl.assign(I=found, sigma=1.0)
    by = {errors: merge(hkl, laue_rotations("mmm", None), MergeSpec(errors=errors)) for errors in ("model", "spread")}
    of_both = [(merged.errors.s_fac, merged.errors.s_add) for merged in by.values()]
    assert of_both[0] == of_both[1]  # outliers are judged by it
    assert (by["spread"].unmerged["sigma"] == 1.0).all()
    assert by["model"].unmerged["sigma"].min() > 15.0
    su = {errors: merged.reflections["sigma"] for errors, merged in by.items()}
    assert su["model"].between(8.0, 12.0).all()
    assert su["spread"].min() < 4.0
    assert su["spread"].max() > 15.0
    assert np.sqrt((su["spread"] ** 2).mean()) == pytest.approx(10.0, rel=0.1)


def test_spread_of_uneven_weights() -> None:
    """Weights 1 and 4: mean (10 + 4 * 20) / 5, variance (1 * 64 + 4 * 4) / (5 * 1)."""
    table = pd.DataFrame(
        [(1, 2, 3, 10.0, 1.0), (-1, 2, 3, 20.0, 0.5)], columns=["h", "k", "l", "I", "sigma"]
    )
    merged = merge(table, laue_rotations("mmm", "P b c a"), MergeSpec(errors="spread"))
    np.testing.assert_allclose(merged.reflections[["I", "sigma"]], [[18.0, 4.0]])
