"""Bad pixels put into a series are found, good ones are left alone, and the reduction does without them."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from spot_frames import expected_frame, nominal, true_geometry, true_intensities

from nanoed.pipeline.io.foreign import ImportSpec, import_frames
from nanoed.pipeline.reduce.badpixels import (
    bad_pixels,
    differences,
    filled,
    find_bad_pixels,
    odd_lines,
    wide_lines,
)
from nanoed.pipeline.reduce.search import detector_of, search
from nanoed.pipeline.spec import MaskSpec, ReduceSpec
from nanoed.sim.dataset import DataSet, open_dataset, write_dataset
from nanoed.sim.detector import chip_borders
from nanoed.sim.physics.errors import InputError

N, SIZE = 31, 288
rng = np.random.default_rng(9)
DEAD, HOT = (rng.integers(4, SIZE - 4, (40, 2)) for _ in range(2))
DEAD = np.vstack([DEAD, [[60, 60], [60, 61]]])  # two side by side
MIDDLE = slice(SIZE // 2 - 3, SIZE // 2 + 3)  # of the cross of wide pixels
ROWS = slice(200, 203)  # of a gap without pixels


def faulty(folder: Path, faults: bool = True, mask: np.ndarray | None = None) -> Path:
    """The synthetic series on a detector with dead and hot pixels, a cross of wide ones and a gap."""
    geometry = true_geometry(N)
    hkl, full = true_intensities(geometry)
    draw = np.random.default_rng(12)

    def frames():
        for i in range(N):
            electrons = expected_frame(geometry, i, hkl, full)
            electrons[tuple(HOT.T)] += 6.0 * faults
            counts = draw.poisson(electrons).astype(float)
            if faults:
                counts = np.rint(chip_borders(counts, 3))
                counts[tuple(DEAD.T)] = 0
                counts[ROWS] = 0
            yield counts.astype(np.uint32)

    return write_dataset(folder, nominal(geometry), frames(), pixel_mask=mask)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory):
    with open_dataset(faulty(tmp_path_factory.mktemp("faulty"))) as dataset:
        yield dataset


def truth() -> np.ndarray:
    bad = np.zeros((SIZE, SIZE), bool)
    bad[tuple(DEAD.T)] = bad[tuple(HOT.T)] = bad[MIDDLE] = bad[:, MIDDLE] = bad[ROWS] = True
    return bad


def test_what_was_put_in_is_found_and_little_else(damaged: DataSet) -> None:
    found = find_bad_pixels(damaged, MaskSpec())
    bad = truth()
    assert (found.bad & bad).sum() >= 0.999 * bad.sum()
    assert (found.bad & ~bad).sum() <= 2
    assert found.reasons["gap"] >= 6 * SIZE
    assert found.reasons["hot"] >= 0.9 * len(HOT)
    assert found.reasons["listed"] == 0
    assert found.beside[59:62, 59:63].all()


def test_spots_are_no_bad_pixels(tmp_path: Path) -> None:
    """A detector without faults keeps every pixel, those of the strongest spots and of the direct beam too."""
    with open_dataset(faulty(tmp_path, faults=False)) as dataset:
        assert find_bad_pixels(dataset, MaskSpec()).reasons["all"] == 0
        blunt = find_bad_pixels(dataset, MaskSpec(sharpness=0.99, significance=3.0))
        assert blunt.reasons["hot"] > 5  # what a carelessly chosen threshold would throw away


def test_peaks_do_not_come_from_bad_pixels(damaged: DataSet) -> None:
    """Left alone, hot pixels and edges of gaps are peaks on every frame."""
    bad = truth()

    def on_bad(find: bool) -> int:
        spec = ReduceSpec.model_validate({"mask": {"find": find}, "peaks": {"i_over_sigma": 5.0}})
        peaks, _ = search(damaged, detector_of(damaged, spec), spec, 1, None)
        column, row = np.floor(peaks.pixels).astype(int).T
        return int(bad[row, column].sum())

    assert on_bad(True) <= 2
    assert on_bad(False) > 100


def test_gain_is_measured_beside_the_bad_pixels(damaged: DataSet) -> None:
    assert detector_of(damaged, ReduceSpec()).gain == pytest.approx(1.0, abs=0.06)


def test_the_mask_of_the_data_set_is_respected(tmp_path: Path) -> None:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[30:40, 50:70] = True
    path = faulty(tmp_path, faults=False, mask=mask)
    with open_dataset(path) as dataset:
        found = find_bad_pixels(dataset, MaskSpec(find=False))
        assert found.reasons == {"listed": 200, "all": 200}
        np.testing.assert_array_equal(find_bad_pixels(dataset, MaskSpec()).bad, mask)
    with open_dataset(import_frames(path, tmp_path / "imported", ImportSpec())) as copy:
        np.testing.assert_array_equal(copy.pixel_mask(), mask)
    with h5py.File(path, "r+") as file:
        del file["entry/instrument/detector/pixel_mask"]
        file["entry/instrument/detector/pixel_mask"] = np.zeros((3, 4), np.uint32)
    with open_dataset(path) as dataset, pytest.raises(InputError, match="pixel_mask"):
        find_bad_pixels(dataset, MaskSpec())


def test_a_direct_beam_that_is_hidden_is_not_sought_among_the_spots(tmp_path: Path) -> None:
    """Under a beam stop the brightest spot is a reflection; Friedel pairs give the centre."""
    geometry = true_geometry(N)
    hkl, full = true_intensities(geometry)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    under = np.hypot(x - SIZE / 2, y - SIZE / 2) < 5.5
    draw = np.random.default_rng(6)
    expected = (np.where(under, 0, expected_frame(geometry, i, hkl, full)) for i in range(N))
    frames = (draw.poisson(electrons).astype(np.uint32) for electrons in expected)
    with open_dataset(write_dataset(tmp_path, nominal(geometry), frames, pixel_mask=under)) as dataset:
        _, centres = search(dataset, detector_of(dataset, ReduceSpec()), ReduceSpec(), 1, None)
    assert np.median(np.hypot(*(centres - geometry.centres).T)) < 0.3
    assert np.hypot(*(centres - geometry.centres).T).max() < 3


def test_a_direct_beam_beside_the_cross_is_taken_where_it_is(tmp_path: Path) -> None:
    """The stated centre is the detector's middle, as it often is, the beam 47 pixels off it."""
    geometry = true_geometry(N)
    geometry = replace(geometry, centres=geometry.centres + np.array([40.0, 25.0]))
    hkl, full = true_intensities(geometry)
    cross = np.zeros((SIZE, SIZE), bool)
    cross[MIDDLE] = cross[:, MIDDLE] = True
    draw = np.random.default_rng(7)
    frames = (draw.poisson(expected_frame(geometry, i, hkl, full)).astype(np.uint32) for i in range(N))
    with open_dataset(write_dataset(tmp_path, nominal(geometry), frames, pixel_mask=cross)) as dataset:
        _, centres = search(dataset, detector_of(dataset, ReduceSpec()), ReduceSpec(), 1, None)
    assert np.hypot(*(centres - geometry.centres).T).max() < 1


def test_rows_of_spots_without_a_background_are_no_borders_and_rows_of_wide_pixels_are() -> None:
    draw = np.random.default_rng(2)
    spots = np.zeros((SIZE, SIZE))
    spots[tuple(draw.integers(0, SIZE, (2, 1500)))] = draw.exponential(2000, 1500)
    spots = gaussian_filter(spots, 1.2)
    assert not odd_lines(draw.poisson(spots).astype(float), 1.0, MaskSpec()).any()
    wide = 0.2 * spots + 5.0  # as many spots, and a background
    wide[100:102] *= 3
    assert np.flatnonzero(odd_lines(draw.poisson(wide).astype(float), 1.0, MaskSpec())).tolist() == [100, 101]


def test_rows_of_few_counts_are_not_taken_for_repeated_ones() -> None:
    draw, frames = np.random.default_rng(4), 8
    sums = np.zeros((3, SIZE))
    for _ in range(frames):
        frame = np.zeros((SIZE, SIZE))
        frame[:, :2] = draw.poisson(10.0, (SIZE, 2))  # two bright pixels of every row
        frame[200] = frame[201] = draw.poisson(1.0, SIZE)
        differences(frame, 60.0, sums)
    ratio = sums[0, :-1] / sums[1, :-1]
    assert (ratio[:199] < 0.5 * np.median(ratio)).sum() > 5  # what a threshold alone would take
    assert np.flatnonzero(wide_lines(sums, MaskSpec())).tolist() == [200, 201]


def test_filled_takes_the_good_neighbours() -> None:
    image = np.arange(49.0).reshape(7, 7)
    bad = np.zeros((7, 7), bool)
    bad[3, 3] = bad[3, 4] = True
    image[3, 3] = image[3, 4] = 1e6
    out = filled(image, bad)
    good = image[1:6, 1:6][~bad[1:6, 1:6]]
    assert out[3, 3] == pytest.approx(good.mean())
    assert (out[~bad] == image[~bad]).all()
    assert filled(image, ~bad)[3, 4] == pytest.approx(image[bad].mean())


def test_reasons_are_counted_once_in_all() -> None:
    one = np.eye(5, dtype=bool)
    found = bad_pixels(dead=one, hot=one | one[::-1])
    assert found.reasons == {"dead": 5, "hot": 9, "all": 9}
