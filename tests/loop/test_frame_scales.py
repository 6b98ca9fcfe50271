"""Frame scales: real ones are found and applied, those that the fit makes of noise are not."""

from pathlib import Path

import numpy as np
import pytest
from spot_frames import CELL, expected_frame, nominal, true_geometry, true_intensities

from nanoed.pipeline.reduce.reduce import reduce
from nanoed.pipeline.reduce.scales import PARTS, _least
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import write_dataset

N = 31
SPEC = ReduceSpec.model_validate({"cell": CELL, "laue": "mmm", "d_star_max": 1.0, "coverage_s_max": 0.5})


def write_scaled(folder: Path, scale: np.ndarray) -> None:
    """The synthetic series with the crystal's electrons of every frame times a factor."""
    geometry = true_geometry(N)
    hkl, full = true_intensities(geometry, 120.0)
    rng = np.random.default_rng(14)
    frames = (
        rng.poisson(expected_frame(geometry, i, hkl, scale[i] * full)).astype(np.uint32) for i in range(N)
    )
    write_dataset(folder, nominal(geometry), frames)


def test_scales_that_are_there_are_applied(tmp_path: Path) -> None:
    true = np.exp(0.2 * np.random.default_rng(5).standard_normal(N))
    write_scaled(tmp_path, true)
    found = reduce(tmp_path, SPEC)
    assert found.statistics["scale_part"] > 0.8
    error = np.log(found.frames["scale"]) - np.log(true)
    assert float((error - error.mean()).std()) < 0.05
    assert found.statistics["r_int"] < 0.05


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_merging_as_stated_leaves_tilts_and_scales_in_what_is_merged_alone(tmp_path: Path, spread: float) -> None:
    """The tilts of the synthetic series err by 0.1° and more, so R_int rises without wrong scales too."""
    write_scaled(tmp_path / "data", np.exp(spread * np.random.default_rng(5).standard_normal(N)))
    as_stated = SPEC.model_copy(update={"merge_as_stated": True})
    refined, stated = (reduce(tmp_path / "data", spec, tmp_path / str(i)) for i, spec in enumerate((SPEC, as_stated)))
    assert stated.statistics["r_int"] > 2 * refined.statistics["r_int"]
    frames = [(tmp_path / str(i) / "frames.cif_pets").read_bytes() for i in range(2)]
    assert frames[0] == frames[1]
    assert np.allclose(stated.merged_as.model.log_scale, 0)
    assert np.ptp(stated.merged_as.geometry.beta) == 0 < np.ptp(stated.geometry.beta)
    assert refined.statistics["merged_as_stated"] is None
    assert stated.statistics["merged_as_stated"]["model_error"] > refined.statistics["rocking_curve"]["model_error"]


def test_scales_that_are_not_there_are_left_alone(tmp_path: Path) -> None:
    write_scaled(tmp_path, np.ones(N))
    found = reduce(tmp_path, SPEC)
    assert float(np.log(found.frames["scale"]).std()) < 0.03


@pytest.mark.parametrize("place", [0.1, 0.4, 0.62, 0.9])
def test_minimum_of_five_values(place: float) -> None:
    assert _least((np.array(PARTS) - place) ** 2) == pytest.approx(place)
    assert _least(-np.array(PARTS)) == 1.0
    assert _least(np.array(PARTS)) == 0.0
