"""Stage angles as they come: falling, noisy, out of order, beyond 90°."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from spot_frames import nominal, true_geometry

from nanoed.pipeline.io.export import export
from nanoed.pipeline.io.smv import read_smv, smv_metadata
from nanoed.pipeline.reduce.orientation import without_common_rotation
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


@pytest.mark.parametrize(("first", "last"), [(-60.0, 60.0), (-140.0, 140.0), (160.0, 200.0)])
def test_angles_follow_the_stage_beyond_a_right_angle(first: float, last: float) -> None:
    """sin alpha alone cannot tell 100° from 80°: the orientations stay, and so do small beta and even omega."""
    stage = np.radians(np.arange(first, last, 7.0))
    wave = np.sin(np.linspace(0, 3, len(stage)))
    geometry = replace(
        true_geometry(2),
        alpha=stage + np.radians(0.1 * wave),
        beta=np.radians(0.3 + 0.1 * wave[::-1]),
        omega=np.radians(131.6 - 0.1 * wave),
        centres=np.zeros((len(stage), 2)),
    )
    found = without_common_rotation(geometry, stage)
    np.testing.assert_allclose(found.rotations() @ found.ub, geometry.rotations() @ geometry.ub, atol=1e-9)
    assert np.degrees(np.abs(found.alpha - stage)).max() < 0.5
    assert np.degrees(np.abs(found.beta)).max() < 0.5
    assert np.degrees(np.ptp(found.omega)) < 0.5


@pytest.mark.parametrize(("alpha", "start", "sweep"), [([30.0, 29.0, 28.0], 30.5, -1.0), ([-1.0, 0.0, 1.0], -1.5, 1.0)])
def test_sweeps_are_written_in_the_sense_of_the_series(
    tmp_path: Path, alpha: list[float], start: float, sweep: float
) -> None:
    """XDS, SMV and NXmx; and what is read back has the angles of the frames and the rotation without its sense."""
    log = replace(nominal(true_geometry(2)), shape=(32, 32), centre_px=(16.0, 16.0), alpha_deg=np.array(alpha),
                  protocol="continuous_rotation", semi_angle_deg=0.0, rotation_deg=1.0)  # fmt: skip
    path = write_dataset(tmp_path / "data", log, [np.full((32, 32), 5, np.uint16)] * 3)
    with h5py.File(path) as file:
        moves = file["entry/sample/transformations"]
        assert list(moves["alpha"]) == [start + i * sweep for i in range(3)]
        assert list(moves["alpha_end"]) == [start + (i + 1) * sweep for i in range(3)]
    export(path, "xds", tmp_path / "out")
    words = dict(line.split("= ") for line in (tmp_path / "out" / "XDS.INP").read_text().splitlines())
    assert float(words["STARTING_ANGLE"]) == start
    assert float(words["OSCILLATION_RANGE"]) == sweep
    for i, angle in enumerate(alpha):
        _, header = read_smv(tmp_path / "out" / f"frame_{i + 1:05d}.img")
        assert (float(header["OSC_START"]), float(header["OSC_RANGE"])) == (start + i * sweep, sweep)
        said = smv_metadata(header)
        assert (said["alpha_deg"], said["rotation_deg"]) == (angle, 1.0)
    with open_dataset(path) as data:
        assert list(data.nominal.alpha_deg) == alpha
        assert data.nominal.rotation_deg == 1.0
