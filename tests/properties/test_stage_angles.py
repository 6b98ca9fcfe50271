"""Stage angles as they come: falling, noisy, out of order, beyond 90°."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spot_frames import nominal, true_geometry

from nanoed.pipeline.reduce.reduce import reduce
from nanoed.pipeline.reduce.series import check_order
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import open_dataset, write_dataset
from nanoed.sim.physics.errors import InputError


def blank_series(folder: Path, alpha_deg: np.ndarray) -> Path:
    log = replace(nominal(true_geometry(2)), shape=(32, 32), centre_px=(16.0, 16.0), alpha_deg=alpha_deg)
    write_dataset(folder, log, [np.zeros((32, 32), np.uint16)] * len(alpha_deg))
    return folder


@pytest.mark.parametrize(
    ("alpha", "frame"),
    [
        ([0.0, 1.0, 2.0, 4.0, 3.0, 5.0], 4),
        ([0.0, -1.0, -2.0, -1.4, -3.0], 3),
        ([*range(31), *range(-1, -31, -1)], 31),
        ([0.0, 1.0, 0.9, 0.2, 2.0], 3),
    ],
)
def test_frames_out_of_order_are_refused(tmp_path: Path, alpha: list[float], frame: int) -> None:
    folder = blank_series(tmp_path, np.array(alpha, float))
    with pytest.raises(InputError, match=rf"alpha_deg.*frame {frame} is out of order.*order of the stage angle"):
        reduce(folder, ReduceSpec())


@pytest.mark.parametrize("alpha", [[0.0, 1.0, 0.6, 2.0, 3.0], [3.0, 2.0, 2.4, 1.0], [0.0, 0.0, 0.0], [5.0]])
def test_readings_may_fall_back_by_half_a_step(tmp_path: Path, alpha: list[float]) -> None:
    with open_dataset(blank_series(tmp_path, np.array(alpha))) as data:
        check_order(data)
