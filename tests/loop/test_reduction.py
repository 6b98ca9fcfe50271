"""The whole reduction on a small synthetic series: what went in comes out, and bad input is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gemmi
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation
from spot_frames import CELL, nominal, true_geometry, true_intensities, write_series

from nanoed.pipeline.io.cif_pets import read_cif_pets
from nanoed.pipeline.io.hkl import read_hkl
from nanoed.pipeline.reduce import lattice
from nanoed.pipeline.reduce.geometry import Geometry, to_pixels
from nanoed.pipeline.reduce.lattice import Lattice
from nanoed.pipeline.reduce.page.summary import alarms
from nanoed.pipeline.reduce.reduce import Reduction, reduce
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import write_dataset
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import frame_matrix

APPROXIMATE = (7.1 * 1.008, 5.3 * 0.992, 4.6 * 1.005, 90.0, 90.0, 90.0)


def spec(**changes: object) -> ReduceSpec:
    fields = {"cell": APPROXIMATE, "laue": "mmm", "d_star_max": 1.0, "coverage_s_max": 0.5} | changes
    return ReduceSpec.model_validate(fields)


@pytest.fixture(scope="module")
def geometry() -> Geometry:
    return true_geometry()


@pytest.fixture(scope="module")
def series(geometry: Geometry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, geometry)
    return folder


@pytest.fixture(scope="module")
def result(series: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Reduction, Path]:
    out = tmp_path_factory.mktemp("reduced")
    return reduce(series, spec(), out, workers=1), out


def settings_of(found: Geometry, true: Geometry) -> np.ndarray:
    """The rotation of mmm that carries the found indexing to the true one."""
    choices = [np.diag(d) for d in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))]
    return min(choices, key=lambda m: np.abs(found.ub @ m - true.ub).sum())


def tilt_errors(found: Geometry, true: Geometry) -> np.ndarray:
    """(n, 3) degrees, rotation from true to found orientation in the lab, one common rotation removed."""
    setting = settings_of(found, true)
    a, b = found.rotations() @ _unit(found.ub @ setting), true.rotations() @ _unit(true.ub)
    common = Rotation.from_matrix(np.swapaxes(b, 1, 2) @ a).mean()
    turned = a @ common.inv().as_matrix()
    return Rotation.from_matrix(turned @ np.swapaxes(b, 1, 2)).as_rotvec(degrees=True)


def _unit(ub: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(ub @ np.diag(CELL[:3]))
    return left @ right


def test_lattice_and_distortion(result: tuple[Reduction, Path], geometry: Geometry) -> None:
    found = result[0].geometry
    np.testing.assert_allclose(found.cell, CELL, rtol=1e-3)
    ellipse = geometry.distortion.ellipse
    assert abs(found.distortion.ellipse - ellipse) < 0.05 * abs(ellipse)
    assert max(abs(found.distortion.parabolic), abs(found.distortion.cubic)) < 1e-3
    assert np.abs(found.centres - geometry.centres).max() < 0.15
    assert np.degrees(np.abs(np.median(found.omega) - np.median(geometry.omega))) < 0.4


def test_orientations_recovered(result: tuple[Reduction, Path], geometry: Geometry) -> None:
    errors = tilt_errors(result[0].geometry, geometry)
    assert np.sqrt((errors[:, :2] ** 2).sum(axis=1).mean()) < 0.04
    left_alone = tilt_errors(reduce_without(result[0], geometry), geometry)
    assert np.sqrt((left_alone[:, :2] ** 2).sum(axis=1).mean()) > 0.08


def reduce_without(found: Reduction, geometry: Geometry) -> Geometry:
    """The refined lattice with the stage angles as read out."""
    from dataclasses import replace

    stage = np.radians(nominal(geometry).alpha_deg)
    return replace(found.geometry, alpha=stage, beta=0 * stage)


def test_intensities_and_their_uncertainties(result: tuple[Reduction, Path], geometry: Geometry) -> None:
    """Per-frame intensities are those that were drawn; pulls of all strengths have unit spread."""
    spots, setting = result[0].spots, settings_of(result[0].geometry, geometry)
    hkl, full = true_intensities(geometry)
    table = pd.DataFrame((hkl @ setting).astype(int), columns=["h", "k", "l"]).assign(full=full)
    spots = spots.merge(table, on=["h", "k", "l"])
    truth = spots["full"] * truth_profile(spots, geometry, setting)
    pull = (spots["I"] - truth) / spots["sigma"]
    for part in np.array_split(np.argsort((truth / spots["sigma"]).to_numpy()), 6):
        assert 0.8 < np.sqrt((pull.iloc[part] ** 2).mean()) < 1.3
    strong = spots["I"] > 3 * spots["sigma"]
    assert np.abs(spots["I"] - truth)[strong].sum() / truth[strong].sum() < 0.05
    weight = spots["sigma"] ** -2
    slope = (weight * spots["I"] * truth).sum() / (weight * truth**2).sum()
    assert slope == pytest.approx(1.0, abs=0.01)
    assert (spots["I"] < 0).any()


def truth_profile(spots: pd.DataFrame, geometry: Geometry, setting: np.ndarray) -> np.ndarray:
    from nanoed.pipeline.reduce.rocking import RockingShape, rocking_profile
    from nanoed.sim.physics.geometry import excitation_errors

    hkl = spots[["h", "k", "l"]].to_numpy() @ setting
    g_lab = np.einsum("mij,mj->mi", geometry.rotations()[spots["frame"]], hkl @ geometry.ub.T)
    g = np.linalg.norm(g_lab, axis=1)
    shape = RockingShape(0.003, np.radians(0.1), geometry.semi_angle)
    return rocking_profile(excitation_errors(g_lab, geometry.wavelength), g, g, shape)[0]


def test_merged_list(result: tuple[Reduction, Path], geometry: Geometry) -> None:
    """Kinematical data: small R_int, intensities proportional to those put in."""
    found = result[0]
    assert found.statistics["r_int"] < 0.06
    assert 1.5 < found.statistics["redundancy"] < 8
    assert 0.4 < found.statistics["coverage"] <= 1
    hkl, full = true_intensities(geometry)
    lookup = {tuple(h): i for h, i in zip(hkl.tolist(), full, strict=True)}
    merged = found.merged.reflections
    truth = np.array([lookup[tuple(h)] for h in merged[["h", "k", "l"]].to_numpy().tolist()])
    assert np.corrcoef(truth, merged["I"])[0, 1] > 0.995


def test_files(result: tuple[Reduction, Path], geometry: Geometry) -> None:
    found, out = result
    names = {"merged.hkl", "merged.ins", "unmerged.hkl", "frames.cif_pets", "reduction.json"}
    assert {p.name for p in out.iterdir()} == names
    pets = read_cif_pets(out / "frames.cif_pets")
    assert len(pets.zones) == len(geometry)
    assert len(pets.reflections) == len(found.spots)
    np.testing.assert_allclose(pets.ub, found.geometry.ub, atol=1e-7)
    np.testing.assert_allclose(pets.zones["omega"], np.degrees(found.geometry.omega), atol=1e-4)
    assert read_hkl(out / "merged.hkl")["I"].max() == 9999.99
    record = json.loads((out / "reduction.json").read_text())
    assert record["settings"]["cell"] == list(APPROXIMATE)
    assert len(record["frames"]["alpha_deg"]) == len(geometry)


def test_workers_and_repeats_change_nothing(
    series: Path, result: tuple[Reduction, Path], tmp_path: Path
) -> None:
    reduce(series, spec(), tmp_path, workers=2)
    for name in ("merged.hkl", "unmerged.hkl", "frames.cif_pets", "reduction.json"):
        assert (tmp_path / name).read_bytes() == (result[1] / name).read_bytes(), name


def test_frames_cif_pets_holds_every_item_and_its_signs(result: tuple[Reduction, Path]) -> None:
    """Every item of PHYSICS C1; spots lie where the file's angles put them, and not with a sign turned round."""
    found, out = result
    block = gemmi.cif.read(str(out / "frames.cif_pets")).sole_block()
    lone = [
        f"_cell_{x}" for x in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    ]
    lone += [f"_diffrn_orient_matrix_UB_{i}{j}" for i in (1, 2, 3) for j in (1, 2, 3)]
    for tag in (*lone, "_diffrn_radiation_wavelength", "_diffrn_pets_omega"):
        assert np.isfinite(gemmi.cif.as_number(block.find_value(tag))), tag
    text = read_cif_pets(out / "frames.cif_pets").extra
    assert {"data collection geometry", "dstarmax", "RC width", "mosaicity", "rotation axis position",
            "reflection size", "integration mode", "Virtual frame settings: number of merged frames",
            "step between frames", "sum all intensities"} <= set(text)  # fmt: skip
    zone = ["id", "u", "v", "w", "precession_angle", "alpha", "beta", "omega", "scale"]
    assert len(block.find("_diffrn_zone_axis_", zone)) == len(found.geometry)
    refln = ["index_h", "index_k", "index_l", "intensity_meas", "intensity_sigma", "zone_axis_id"]
    assert len(block.find("_refln_", refln)) == len(found.spots)
    assert np.median(misses_px(found, out)) < 0.01
    for angle in ("alpha", "omega"):
        assert np.median(misses_px(found, out, angle)) > 3
    assert np.median(misses_px(found, out, mirrored=True)) > 3


def misses_px(found: Reduction, out: Path, flipped: str = "", mirrored: bool = False) -> np.ndarray:
    """(n,) pixels between the spots and where UB and angles of frames.cif_pets put them, one angle's sign turned."""
    pets, spots = read_cif_pets(out / "frames.cif_pets"), found.spots
    zones = pets.zones.assign(**{flipped: -pets.zones[flipped]}) if flipped else pets.zones
    rotations = np.array(
        [frame_matrix(*row) for row in np.radians(zones[["alpha", "beta", "omega"]].to_numpy())]
    )
    ub = np.diag([1.0, 1.0, -1.0]) @ pets.ub if mirrored else pets.ub
    frame = spots["frame"].to_numpy(np.int64)
    g_lab = np.einsum("mij,mj->mi", rotations[frame], spots[["h", "k", "l"]].to_numpy() @ ub.T)
    return np.linalg.norm(to_pixels(found.geometry, frame, g_lab) - spots[["x", "y"]].to_numpy(), axis=1)


def test_reference_cell_gives_the_camera_length(series: Path, tmp_path: Path) -> None:
    """The log's 1/Å per pixel is 1.2 % too small: cell and scale come out right with a reference, and only with one."""
    (tmp_path / "frames.h5").write_bytes((series / "frames.h5").read_bytes())
    with h5py.File(tmp_path / "frames.h5", "r+") as file:
        file["entry/nanoed"].attrs["a_per_px"] = 0.988 * file["entry/nanoed"].attrs["a_per_px"]
    blind = {"cell": None, "laue": None, "orientation": {"refine": False}}
    found = reduce(tmp_path, spec(reference_cell=CELL, **blind))
    np.testing.assert_allclose(found.geometry.cell, (*sorted(CELL[:3]), *CELL[3:]), rtol=1e-3)
    assert found.statistics["camera_length_ratio"] == pytest.approx(1 / 0.988, rel=5e-4)
    with pytest.raises(InputError, match="reference_cell"):
        reduce(tmp_path, spec(reference_cell=(7.1, 5.3, 5.0, 90, 90, 90), **blind))


def test_an_axis_far_from_the_stated_one_is_found(series: Path, geometry: Geometry, tmp_path: Path) -> None:
    """30° off, and a search within 5° by default: what that indexes is too little."""
    shutil.copytree(series, tmp_path / "data")
    with h5py.File(tmp_path / "data" / "frames.h5", "r+") as file:
        file["entry/nanoed"].attrs["axis_azimuth_deg"] += 30.0
    found = reduce(tmp_path / "data", spec(orientation={"refine": False}))
    error = np.degrees(np.median(found.geometry.omega) - np.median(geometry.omega))
    assert abs((error + 180) % 360 - 180) < 2
    assert any("tilt axis lies 3" in alarm for alarm in alarms(found.statistics, found.frames))


def test_a_distortion_left_in_shows(series: Path, result: tuple[Reduction, Path]) -> None:
    found = reduce(series, spec(distortion="none", orientation={"refine": False}))
    assert found.statistics["peak_scatter_px"] > 1.5 * result[0].statistics["peak_scatter_px"]


def test_wrong_cell_is_an_input_error(series: Path) -> None:
    with pytest.raises(InputError, match=r"field 'cell': .* indexes .* %") as caught:
        reduce(series, spec(cell=(11.3, 8.2, 6.1, 90, 90, 90)))
    assert "\n" not in str(caught.value)


def test_a_lattice_that_runs_away_is_an_input_error(series: Path, monkeypatch) -> None:
    """Refined on a handful of wrong peaks a cell may grow without limit: no memory holds its reflections."""

    def refine_positions(geometry, *_):
        return replace(geometry, ub=1e-3 * geometry.ub), 1.0

    monkeypatch.setattr(lattice, "refine_positions", refine_positions)
    with pytest.raises(InputError, match="field 'cell': the lattice ran away"):
        reduce(series, spec(orientation={"refine": False}))


def test_empty_frames_are_an_input_error(geometry: Geometry, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blank = (rng.poisson(np.full((288, 288), 1.0)).astype(np.uint32) for _ in range(len(geometry)))
    write_dataset(tmp_path, nominal(geometry), blank)
    with pytest.raises(InputError, match="no peaks found"):
        reduce(tmp_path, spec())


def test_truncated_data_is_an_input_error(series: Path, tmp_path: Path) -> None:
    whole = (series / "frames.h5").read_bytes()
    (tmp_path / "frames.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"frames\.h5") as caught:
        reduce(tmp_path, spec())
    assert "\n" not in str(caught.value)


def test_a_damaged_frame_is_an_input_error(series: Path, tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    path.write_bytes((series / "frames.h5").read_bytes())
    with h5py.File(path) as file:
        chunk = file["entry/data/data"].id.get_chunk_info(7)
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\0" * 64)
    with pytest.raises(InputError, match="frame"):
        reduce(tmp_path, spec())


def test_unwritable_folder_is_an_input_error(series: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="cannot write"):
        reduce(series, spec(orientation={"refine": False}), tmp_path / "taken")


def test_frames_without_enough_peaks_of_the_lattice_are_an_input_error(
    series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from nanoed.pipeline.reduce import reduce as module

    def matching_nothing(*given: Any) -> tuple[Lattice, float]:
        lattice, ratio = calibrated(*given)
        return replace(lattice, matched=np.zeros_like(lattice.matched)), ratio

    calibrated = module.calibrated
    monkeypatch.setattr(module, "calibrated", matching_nothing)
    with pytest.raises(InputError, match="min_peaks"):
        reduce(series, spec())


def test_predicted_spots_lie_where_they_were_drawn(
    result: tuple[Reduction, Path], geometry: Geometry
) -> None:
    spots, setting = result[0].spots, settings_of(result[0].geometry, geometry)
    frame = spots["frame"].to_numpy()
    hkl = spots[["h", "k", "l"]].to_numpy() @ setting
    g_lab = np.einsum("mij,mj->mi", geometry.rotations()[frame], hkl @ geometry.ub.T)
    drawn = to_pixels(geometry, frame, g_lab)
    assert np.abs(spots[["x", "y"]].to_numpy() - drawn).max() < 0.3


def test_centre_far_off_and_blank_frames(tmp_path: Path) -> None:
    """The log's centre is 20 pixels wrong and six frames show no crystal: they are named and left out."""
    from dataclasses import replace

    true = true_geometry()
    true = replace(true, centres=true.centres + np.array([16.0, -12.0]))
    write_series(tmp_path, true, blank=range(12, 18))
    found = reduce(tmp_path, spec())
    blank = found.frames["blank"].to_numpy()
    assert np.nonzero(blank)[0].tolist() == list(range(12, 18))
    assert not found.spots["frame"].isin(range(12, 18)).any()
    errors = tilt_errors(found.geometry, true)[~blank]
    assert np.sqrt(((errors - errors.mean(axis=0))[:, :2] ** 2).sum(axis=1).mean()) < 0.06


def test_nothing_given(series: Path, geometry: Geometry) -> None:
    """Neither cell nor symmetry nor axis: the lattice, its Bravais class, the axis and the sense of rotation."""
    found = reduce(series, spec(cell=None, laue=None, axis={"search_deg": 180.0}))
    np.testing.assert_allclose(found.geometry.cell, (*sorted(CELL[:3]), *CELL[3:]), rtol=2e-3)
    assert found.statistics["bravais_lattices"][0]["symbol"] == "oP"
    assert (found.statistics["laue"], found.statistics["rotation_reversed"]) == ("mmm", False)
    nominal_sense, other = found.statistics["indexed_by_sense"]
    assert nominal_sense > other + 0.03
    error = np.degrees(np.median(found.geometry.omega) - np.median(geometry.omega))
    assert abs((error + 180) % 360 - 180) < 0.4


def test_tilt_angles_of_the_wrong_sign_are_noticed(geometry: Geometry, tmp_path: Path) -> None:
    """The lattice of the right hand is found all the same, and the log says that the stage turns the other way."""
    from dataclasses import replace

    write_series(tmp_path, geometry)
    with h5py.File(tmp_path / "frames.h5", "r+") as file:
        angles = [d for d in _datasets(file) if d.shape == (len(geometry),) and d[0] < 0 < d[-1]]
        assert angles
        for dataset in angles:
            dataset[...] = -dataset[...]
    found = reduce(tmp_path, spec())
    assert found.statistics["rotation_reversed"]
    turned = replace(found.geometry, alpha=-found.geometry.alpha, omega=found.geometry.omega + np.pi)
    errors = tilt_errors(turned, geometry)
    assert np.sqrt(((errors - errors.mean(axis=0))[:, :2] ** 2).sum(axis=1).mean()) < 0.06


def _datasets(group: h5py.Group) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    group.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found
