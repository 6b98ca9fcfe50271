"""A second particle of the same crystal in the beam: found, its share and orientation told, its spots kept apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from spot_frames import CELL, expected_frame, nominal, true_geometry, true_intensities

from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.reduce import Reduction, reduce
from nanoed.pipeline.reduce.second import misorientation
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import write_dataset

SHARE = 0.3
TURN = Rotation.from_rotvec(np.radians([25.0, -40.0, 15.0])).as_matrix()
N = 31


def spec(**changes: object) -> ReduceSpec:
    fields = {"cell": CELL, "laue": "mmm", "d_star_max": 1.0, "coverage_s_max": 0.5} | changes
    return ReduceSpec.model_validate(fields)


def write_two(folder: Path, share: float = SHARE) -> tuple[Geometry, Geometry]:
    """The series with a second particle, turned, that gives `share` times the first one's electrons."""
    first = true_geometry(N)
    second = replace(first, ub=TURN @ first.ub)
    rng = np.random.default_rng(8)
    sets = [(g, *true_intensities(g, 150.0 * f)) for g, f in ((first, 1.0), (second, share))]

    def frames():
        for i in range(N):
            electrons = sum(expected_frame(g, i, hkl, full) for g, hkl, full in sets) / 2
            yield rng.poisson(electrons).astype(np.uint32)

    write_dataset(folder, nominal(first), frames())
    return first, second


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Geometry, Geometry]:
    folder = tmp_path_factory.mktemp("two")
    return (folder, *write_two(folder))


@pytest.fixture(scope="module")
def result(two: tuple[Path, Geometry, Geometry]) -> Reduction:
    return reduce(two[0], spec())


def test_it_is_found_with_its_orientation_and_share(result: Reduction, two) -> None:
    record = result.statistics["second_lattice"]
    assert record is not None
    angle, axis = misorientation(two[1].ub, two[2].ub, "mmm")
    assert record["angle_deg"] == pytest.approx(angle, abs=0.3)
    same = np.abs(record["axis"]) @ np.abs(axis)  # which of the equivalents of mmm is a matter of taste
    assert same > 0.995
    assert record["same_cell"]
    assert record["cell"][:3] == pytest.approx(CELL[:3], rel=3e-3)
    assert 0.1 < record["fraction"] < 0.5
    assert 0.4 * SHARE < record["intensity_share"] / (1 - record["intensity_share"]) < 1.3 * SHARE
    assert record["indexed_of_the_rest"] > 0.5
    assert 10 < record["n_excluded"] < 40


def test_its_spots_do_not_enter_the_intensities(result: Reduction, two) -> None:
    """Spots that the second lattice covers are missing, and R_int is smaller than without the second lattice."""
    alone = reduce(two[0], spec(second={"find": False}))
    assert alone.statistics["second_lattice"] is None
    assert len(alone.spots) >= len(result.spots) + 10
    assert result.statistics["r_int"] < 0.95 * alone.statistics["r_int"]


def test_one_particle_is_not_taken_for_two(tmp_path: Path) -> None:
    write_two(tmp_path, share=0.0)
    assert reduce(tmp_path, spec(orientation={"refine": False})).statistics["second_lattice"] is None


def test_misorientation_takes_equivalents_as_one() -> None:
    ub = true_geometry().ub
    angle, axis = misorientation(ub, TURN @ ub, "-1")
    assert angle == pytest.approx(np.degrees(np.linalg.norm(np.radians([25.0, -40.0, 15.0]))), abs=1e-9)
    assert np.linalg.norm(axis) == pytest.approx(1)
    turned = TURN @ ub @ np.diag([1.0, -1.0, -1.0])
    assert misorientation(ub, turned, "mmm")[0] == pytest.approx(misorientation(ub, TURN @ ub, "mmm")[0])
    assert misorientation(ub, ub @ np.diag([-1.0, -1.0, 1.0]), "mmm")[0] == pytest.approx(0, abs=1e-6)
