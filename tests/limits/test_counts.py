"""Counts of a frame against the laws that made them: correlated noise, lost counts, halos, strays, common tails."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nanoed.pipeline.reduce.badpixels import bad_pixels
from nanoed.pipeline.reduce.deadtime import dead_time, likely, restored
from nanoed.pipeline.reduce.halo import halo_equations, halo_image, halo_images, halo_shares
from nanoed.pipeline.reduce.integrate import Integrated, aperture_of, integrate_frame
from nanoed.pipeline.reduce.noise import (
    add_noise,
    gain_and_offset,
    gain_of,
    noise_covariance,
    noise_sums,
    noise_table,
    uncorrelated,
)
from nanoed.pipeline.reduce.profile import Profile, gaussian_profile, measured
from nanoed.pipeline.reduce.reduce import with_dead_time
from nanoed.pipeline.reduce.search import Detector
from nanoed.pipeline.reduce.spots import strays
from nanoed.pipeline.reduce.spotshape import aperture_error, excess_scatter, spot_shapes
from nanoed.pipeline.spec import IntegrationSpec, ReduceSpec
from nanoed.sim.detector import shared_charge

SIGMA = 1.2
SIZE = 192
CENTRE = np.array([96.2, 95.1])
PROFILE = gaussian_profile(SIGMA, 8.0, np.zeros(0))
SPEC = IntegrationSpec()


def places(rng: np.random.Generator, spacing: int = 24) -> np.ndarray:
    """Places of spots on a lattice, each at random within its pixel."""
    grid = np.stack(np.meshgrid(np.arange(20, SIZE - 18, spacing), np.arange(20, SIZE - 18, spacing)), -1)
    return grid.reshape(-1, 2) + rng.uniform(0, 1, (grid.size // 2, 2))


def spots_image(pixels: np.ndarray, electrons: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    image = np.zeros((SIZE, SIZE))
    for (px, py), n in zip(pixels, electrons, strict=True):
        image += n * np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / SIGMA**2) / (2 * np.pi * SIGMA**2)
    return image


def integrated(
    frame: np.ndarray, pixels: np.ndarray, noise: np.ndarray, profile: Profile = PROFILE, offset: float = 0.0
) -> Integrated:
    zone = np.zeros(len(pixels), np.int64)
    return integrate_frame(
        frame, np.ones(frame.shape, bool), CENTRE, pixels, zone, profile, noise, SPEC, offset
    )


def test_noise_of_lumps_and_of_shared_charge() -> None:
    """Lumps of four: var/mean 4, no correlation. Neighbours that count too: c(0) 1, c(1) spill / mean, sum <n²>/<n>."""
    rng = np.random.default_rng(1)
    for spill, lump, expected in ((0.0, 4.0, [4.0, 0.0, 0.0]), (0.25, 1.0, [1.0, 0.25, 0.03125])):
        sums = noise_sums()
        for _ in range(6):
            frame = lump * shared_charge(rng.poisson(3.0, (256, 256)).astype(float), spill, rng)
            mean = np.full(frame.shape, lump * 3.0 * (1 + 4 * spill))
            add_noise(frame - mean, mean, np.full(frame.shape, 1e9), np.ones(frame.shape, bool), sums)
        found = noise_covariance(sums)
        assert found[0] == pytest.approx(expected, abs=0.03 * lump)
        assert gain_of(found) == pytest.approx(4.0 if lump > 1 else 2.375, rel=0.04)


def test_a_step_in_the_background_is_not_noise() -> None:
    """A tenth of the pixels lies on a badly modelled background; the mean over all pixels would be far off."""
    rng = np.random.default_rng(2)
    true = np.where(np.arange(256)[None] < 230, np.linspace(1, 8, 256)[None], 200.0) * np.ones((256, 1))
    frame, sums = rng.poisson(true).astype(float), noise_sums()
    model = np.where(true == 200.0, 240.0, true)
    add_noise(frame - model, model, np.full(true.shape, 1e9), np.ones(true.shape, bool), sums)
    assert gain_of(noise_covariance(sums)) == pytest.approx(1.0, abs=0.05)
    assert sums[:, 1].sum() / sums[:, 0].sum() > 3


@pytest.mark.parametrize("strength", [0.0, 60.0, 3000.0])
def test_pulls_where_neighbours_count_too(strength: float) -> None:
    """With the correlation known the pulls have unit spread; var/mean alone makes the errors of a spot too large."""
    rng = np.random.default_rng(3)
    covariance = np.array([[1.0, 0.25, 0.03125], [0.25, 0.0625, 0.0], [0.03125, 0.0, 0.0]])
    pulls, plain = [], []
    for _ in range(12):
        pixels = places(rng)
        image = 1.0 + spots_image(pixels, np.full(len(pixels), strength))
        frame = shared_charge(rng.poisson(image).astype(float), 0.25, rng)
        wide = spread_by_sharing(PROFILE)
        found = integrated(frame, pixels, covariance, wide)
        pulls.append((found.intensity - 2 * strength) / found.sigma)
        plain.append(
            (found.intensity - 2 * strength) / integrated(frame, pixels, uncorrelated(2.375), wide).sigma
        )
    rms, rms_plain = (np.sqrt(np.mean(np.concatenate(p) ** 2)) for p in (pulls, plain))
    assert abs(np.concatenate(pulls).mean()) < 0.15
    assert 0.85 < rms < 1.1
    assert rms_plain < 0.98 * rms


def spread_by_sharing(profile: Profile) -> Profile:
    """The radial profile of a spot of which every electron is counted by four neighbours with probability 1/4 each."""
    rng = np.random.default_rng(4)
    sums, pixels = np.zeros((4, 1, profile.shares.shape[1])), places(rng)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    image = shared_charge(spots_image(pixels, np.full(len(pixels), 1.0)), 0.25, None) / 2
    for px, py in pixels:
        r = np.hypot(x - px, y - py) / profile.step
        k = np.rint(r).astype(int)
        near = k < sums.shape[2]
        sums[0, 0] += np.bincount(k[near], minlength=sums.shape[2])
        sums[1, 0] += np.bincount(k[near], image[near], minlength=sums.shape[2])
    sums[3] = sums[0]
    return measured(sums, profile.step, profile.edges, np.array([False]), 1.0)


def test_lost_counts_come_back() -> None:
    """restored undoes m = n exp(-n t) to 1e-4 of n up to n t = 0.2; nothing is done without a dead time."""
    n = np.linspace(0, 2e5, 101)
    assert restored(n * np.exp(-n * 1e-6), 1e-6) == pytest.approx(n, rel=1e-4)
    assert np.array_equal(restored(n, 0.0), n)


def shapes(frame: int, image: np.ndarray, pixels: np.ndarray, profile: Profile) -> pd.DataFrame:
    """Columns of spots.integrate that tell the shapes of spots."""
    found = integrated(image, pixels, uncorrelated(1.0), profile)
    shape, zone = np.zeros((len(pixels), 5)), np.zeros(len(pixels), np.int64)
    x, y = (np.ascontiguousarray(c) for c in pixels.T)
    spot_shapes(found.net, found.background, np.ones(image.shape, bool), x, y, zone, found.intensity, profile.shares,
                profile.step, profile.core, aperture_of(profile, SPEC), 1.0, shape)  # fmt: skip
    columns = {
        "frame": frame,
        "I": found.intensity,
        "sigma": found.sigma,
        "flat": shape[:, 0],
        "ring": shape[:, 3],
    }
    more = {"sigma_flat": np.sqrt(shape[:, 1]), "peak": shape[:, 2], "sigma_ring": np.sqrt(shape[:, 4])}
    return pd.DataFrame(columns | more)


def counted(dead_time: float, profile: Profile) -> pd.DataFrame:
    """Shapes of strong spots on twelve frames of a counter of this dead time, 1 / electrons."""
    rng, tables = np.random.default_rng(5), []
    for frame in range(12):
        pixels = places(rng)
        image = 3.0 + spots_image(pixels, 10 ** rng.uniform(3.5, 5.5, len(pixels)))
        counts = rng.poisson(image * np.exp(-image * dead_time)).astype(float)
        tables.append(shapes(frame, counts, pixels, profile))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("true", [0.0, 2e-6])
def test_dead_time_from_the_tops_of_spots(true: float) -> None:
    """Within three of its standard errors, which is a tenth of the value; also where the profile is 1 % too wide."""
    table = counted(true, gaussian_profile(1.01 * SIGMA, 8.0, np.zeros(0)))
    value, error = dead_time(table, np.zeros(len(table), np.int64), 50.0)
    assert abs(value - true) < 3 * error
    assert error < 2e-7
    strongest = table.iloc[table["I"].argmax()]
    top = strongest["I"] / (2 * np.pi * SIGMA**2)
    assert strongest["peak"] * strongest["I"] == pytest.approx(
        top / 2, rel=0.1
    )  # a Gaussian's loss over its top's
    assert dead_time(table.iloc[:6], np.zeros(6, np.int64), 50.0) == (0.0, np.inf)


def test_whether_a_dead_time_is_measured_assumed_or_given_is_told() -> None:
    """Twelve frames of strong spots measure it; six spots leave the prior; a camera that integrates is given none."""
    table = counted(2e-6, PROFILE).assign(g=0.5)
    dataset: Any = SimpleNamespace(nominal=SimpleNamespace(exposure_s=1.0, gain=1.0))
    before = Detector(uncorrelated(1.0), SIGMA, bad_pixels(none=np.zeros((SIZE, SIZE), bool)), np.zeros((0, 2)))
    seen = with_dead_time(dataset, before, PROFILE, table, ReduceSpec())
    assert seen.dead_time_is == "measured"
    assert seen.dead_time == pytest.approx(2e-6, abs=5e-7)
    assumed = with_dead_time(dataset, before, PROFILE, table.iloc[:6], ReduceSpec())
    assert assumed.dead_time_is == "assumed"
    assert assumed.dead_time == pytest.approx(2e-6 * np.sqrt(2 / np.pi))
    given = ReduceSpec.model_validate({"noise": {"dead_time_us": 0.0}})
    assert with_dead_time(dataset, before, PROFILE, table, given) is before


def test_a_dead_time_is_believed_as_far_as_it_is_measured() -> None:
    assert likely(1.9, 1e-3, 2.0) == pytest.approx((1.9, 1e-3), rel=1e-3)
    mean, width = likely(0.0, np.inf, 2.0)  # half a normal distribution
    assert (mean, width) == pytest.approx((2 * np.sqrt(2 / np.pi), 2 * np.sqrt(1 - 2 / np.pi)))
    mean, width = likely(-1.0, 0.2, 2.0)
    assert 0 < mean < 0.1
    assert 0 < width < 0.1


@pytest.mark.parametrize("spread", [0.0, 0.06])
def test_error_of_the_aperture_from_the_widths_of_spots(spread: float) -> None:
    """Spots whose widths differ lose different parts outside the aperture; the ring about their core tells how much."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    tables, errors = [], []
    for frame in range(8):
        pixels, image = places(rng), np.full((SIZE, SIZE), 1.0)
        width = SIGMA * np.exp(spread * rng.standard_normal(len(pixels)))
        for (px, py), w in zip(pixels, width, strict=True):
            image += 1e5 * np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / w**2) / (2 * np.pi * w**2)
        tables.append(shapes(frame, rng.poisson(image).astype(float), pixels, PROFILE))
        errors.append(integrated(image, pixels, uncorrelated(1.0)).intensity / 1e5 - 1)
    found = aperture_error(pd.concat(tables, ignore_index=True), PROFILE, aperture_of(PROFILE, SPEC), 20.0)
    true = float(np.std(np.concatenate(errors)))
    assert found < 2e-4 if spread == 0 else found == pytest.approx(true, rel=0.4)
    assert spread == 0 or true > 1e-3


def test_excess_scatter_is_what_errors_do_not_explain() -> None:
    rng = np.random.default_rng(1)
    group, variance = np.repeat(np.arange(40), 30), rng.uniform(0.5, 2.0, 1200)
    values = 7.0 * group + np.sqrt(variance + 1.5**2) * rng.standard_normal(1200)
    assert excess_scatter(values, variance, group) == pytest.approx(1.5, rel=0.1)
    assert excess_scatter(values, 9 * variance, group) == 0.0


def test_noise_of_the_read_out_is_found_and_in_sigma() -> None:
    """Counts with a Gaussian noise of 1.5 counts besides: pulls of weak spots are 1 with the offset, wide without."""
    rng = np.random.default_rng(10)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    level = 0.5 + 20 / (1 + np.hypot(x - CENTRE[0], y - CENTRE[1]) / 10) ** 2
    sums, pulls = noise_sums(), {0.0: [], 1.0: []}
    for _ in range(6):
        pixels = places(rng)
        image = level + spots_image(pixels, np.full(len(pixels), 40.0))
        blank = rng.poisson(level) + 1.5 * rng.standard_normal(level.shape)
        add_noise(blank - level, level, np.full(level.shape, 1e9), np.ones(level.shape, bool), sums)
        frame = rng.poisson(image) + 1.5 * rng.standard_normal(level.shape)
        for part in pulls:
            found = integrated(frame, pixels, uncorrelated(1.0), offset=part * 1.5**2)
            pulls[part].append((found.intensity - 40) / found.sigma)
    gain, offset = gain_and_offset(noise_table(sums), gain_of(noise_covariance(sums)))
    assert gain == pytest.approx(1.0, abs=0.06)
    assert gain * offset == pytest.approx(1.5**2, rel=0.1)
    assert np.std(np.concatenate(pulls[1.0])) == pytest.approx(1.0, abs=0.12)
    assert np.std(np.concatenate(pulls[0.0])) > 1.3


def test_one_bin_beside_the_direct_beam_is_no_gain() -> None:
    """Where the background follows the pixels themselves the scatter is too small; halos of spots add to many bins."""
    mean = np.geomspace(0.09, 234.0, 22)
    variance = mean * np.array([1.0] * 10 + [1.4, 4.3, 5.6, 1.6, 1.2, 5.9, 10.8, 2.1, 0.92, 0.93, 1.0, 0.2])
    assert gain_and_offset(np.column_stack([mean, variance]), 0.99) == (0.99, 0.0)


def test_a_bin_without_a_variance_spoils_no_line() -> None:
    """A mean taken away too well leaves a negative variance in one bin: the line of the others is the same."""
    mean = np.geomspace(0.1, 50.0, 16)
    table = np.column_stack([mean, 1.02 * (mean + 2.0)])
    found = gain_and_offset(table, 1.0)
    assert found == pytest.approx((1.02, 2.0))
    with np.errstate(all="raise"):
        assert gain_and_offset(np.vstack([[0.07, -0.01], table]), 1.0) == pytest.approx(found)


def test_halos_are_normalised_and_found() -> None:
    """A halo holds the electrons that it is said to; its shares come back from the pixels between the spots, and weak
    spots beside strong ones are unbiased with it and biased without."""
    rng = np.random.default_rng(6)
    alone = halo_images((SIZE, SIZE), np.array([96.3]), np.array([95.8]), np.array([1.0]), (4.0,))[0]
    assert alone.sum() == pytest.approx(1 - 4.0 / np.hypot(4.0, SIZE / 2), abs=0.02)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    law = (1 + ((x - 96.3) ** 2 + (y - 95.8) ** 2) / 16) ** -1.5 / (2 * np.pi * 16)
    ring = np.abs(np.hypot(x - 96.3, y - 95.8) - 20) < 10
    assert np.abs(alone - law).max() < 0.04 * law.max()
    assert alone[ring] == pytest.approx(law[ring], rel=0.06)
    radii, shares = (8.0, 30.0), (0.10, 0.08)
    normal, right, tries = np.zeros((2, 2)), np.zeros(2), []
    for _ in range(6):
        pixels = places(rng, 20)
        electrons = np.where(np.arange(len(pixels)) % 4 == 0, 3e4, 60.0)
        expected = 2.0 + spots_image(pixels, electrons)
        expected += halo_image((SIZE, SIZE), *pixels.T, electrons, radii, shares)
        frame = rng.poisson(expected).astype(float)
        found = integrated(frame, pixels, uncorrelated(1.0))
        halos = halo_images((SIZE, SIZE), *pixels.T, found.intensity, radii)
        part = halo_equations(found.net + found.smooth, found.usable, CENTRE, halos, 1.0)
        normal, right = normal + part[0], right + part[1]
        tries.append((frame, pixels, electrons))
    found_shares = halo_shares(normal, right)
    assert found_shares == pytest.approx(shares, abs=0.02)
    profile = replace(PROFILE, halo_radii=radii, halo=found_shares)
    pulls = [weak_pulls(*t, profile) for t in tries]
    without = [weak_pulls(*t, PROFILE) for t in tries]
    assert abs(np.mean(pulls)) < 0.15
    assert abs(np.mean(without)) > 0.3 or np.std(without) > 1.2 * np.std(pulls)


def weak_pulls(frame: np.ndarray, pixels: np.ndarray, electrons: np.ndarray, profile: Profile) -> np.ndarray:
    found = integrated(frame, pixels, uncorrelated(1.0), profile)
    return ((found.intensity - electrons) / found.sigma)[electrons < 100]


def test_strays_are_what_no_spot_explains() -> None:
    peaks = np.array([[10.0, 10.0], [50.0, 50.0], [51.0, 90.0]])
    expected = np.array([[10.5, 10.2], [48.0, 50.0]])
    assert strays(peaks, expected, 3.0).tolist() == [[51.0, 90.0]]
    assert strays(peaks, expected, 1.0).tolist() == [[50.0, 50.0], [51.0, 90.0]]
    assert len(strays(peaks, np.zeros((0, 2)), 3.0)) == 3


def test_zones_have_one_scale_though_their_tails_are_known_to_different_radii() -> None:
    """The same spot seen with and without noise in its tail: equal electrons within the core."""
    r = np.arange(33) * 0.25
    share = np.exp(-0.5 * (r / SIGMA) ** 2) / (2 * np.pi * SIGMA**2) + 2e-4 * np.exp(-r / 4)
    sums = np.zeros((4, 2, 33))
    sums[0], sums[1], sums[3] = 1.0, share, 1.0
    sums[2, 1] = 4e-7  # the second zone's tail is lost in noise from 4 pixels on
    profile = measured(sums, 0.25, np.array([0.5]), np.array([True, True]), 2.0)
    inside = r < profile.core - 0.3
    assert profile.shares[0][inside] == pytest.approx(profile.shares[1][inside], rel=1e-9)
