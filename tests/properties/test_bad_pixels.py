"""Bad pixels put into a series are found, good ones are left alone, and the reduction does without them."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from spot_frames import expected_frame, nominal, true_geometry, true_intensities

from nanoed.pipeline.io.foreign import ImportSpec, import_frames
from nanoed.pipeline.reduce.badpixels import bad_pixels, filled, find_bad_pixels
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
