""".cif_pets: files of several PETS2 builds are read, ours round-trip, and a flipped sign shows."""

from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest

from nanoed.pipeline.io.cif_pets import PetsData, read_cif_pets, write_cif_pets, zone_axes
from nanoed.sim.physics.errors import InputError

FILES = {
    "glycine_pets/glycine.cif_pets": (159, 1204, "continuous rotation", 230.391),
    "glycine_pets/glycine_dyn.cif_pets": (31, 2986, "continuous rotation", 230.391),
    "quartz/quartz.cif_pets": (99, 6666, "continuous rotation", 0.484),
    "mordenite/mordenite_s1m1_filter_dyn_s3m7.cif_pets": (126, 62209, "continuous rotation", -129.884),
}


def _angle_deg(ub: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angles between direct-lattice directions."""
    a, b = (u @ np.linalg.inv(ub) for u in (first, second))
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("name", FILES)
def test_reads_pets2_files(shared: Path, name: str) -> None:
    zones, reflections, kind, axis = FILES[name]
    data = read_cif_pets(shared / name)
    assert (len(data.zones), len(data.reflections)) == (zones, reflections)
    assert data.extra["data collection geometry"] == kind
    assert float(data.extra["rotation axis position"]) == axis
    assert data.reflections[["h", "k", "l", "zone"]].dtypes.eq(np.int64).all()


@pytest.mark.parametrize("name", FILES)
def test_zone_axes_follow_from_ub_and_angles(shared: Path, name: str) -> None:
    data = read_cif_pets(shared / name)
    listed = data.zones[["u", "v", "w"]].to_numpy()
    assert _angle_deg(data.ub, zone_axes(data.ub, data.zones), listed).max() < 0.02
    for angle in ("alpha", "beta"):
        flipped = data.zones.assign(**{angle: -data.zones[angle]})
        assert _angle_deg(data.ub, zone_axes(data.ub, flipped), listed).max() > 0.1
    assert _angle_deg(data.ub, zone_axes(-data.ub, data.zones), listed).min() > 90


@pytest.fixture
def pets() -> PetsData:
    rng = np.random.default_rng(1)
    zones = pd.DataFrame({"id": [1, 2, 5], "u": 0.0, "v": 0.0, "w": 0.0, "semi_angle": 1.2})
    zones["alpha"], zones["beta"], zones["omega"] = (
        [-40.0, 12.5, 61.25],
        [3.5, -2.25, 4.0],
        [131.5, 131.75, 131.2],
    )
    zones["scale"] = [0.9, 1.0, 1.1]
    reflections = pd.DataFrame(rng.integers(-9, 10, (50, 3)), columns=["h", "k", "l"])
    reflections["I"], reflections["sigma"] = rng.normal(10, 1e4, 50), rng.uniform(1, 100, 50)
    reflections["zone"] = rng.choice([1, 2, 5], 50)
    ub = np.array([[0.05, 0.12, 0.09], [0.03, -0.07, 0.17], [0.09, 0.11, 0.005]])
    extra = {"data collection geometry": "precession", "dstarmax": "1.400", "RC width": "0.00100"}
    data = PetsData((9.174, 5.449, 5.138, 90.0, 90.0, 90.0), 0.0250793, ub, zones, reflections, extra)
    u, v, w = zone_axes(ub, zones).T
    return replace(data, zones=zones.assign(u=u, v=v, w=w))


def test_round_trip_with_angles_far_from_zero(pets: PetsData, tmp_path: Path) -> None:
    write_cif_pets(tmp_path / "a.cif_pets", pets)
    back = read_cif_pets(tmp_path / "a.cif_pets")
    np.testing.assert_allclose(back.ub, pets.ub, atol=1e-8)
    np.testing.assert_allclose(back.cell, pets.cell, atol=1e-5)
    pd.testing.assert_frame_equal(back.zones, pets.zones, check_dtype=False, atol=1e-5, rtol=0)
    pd.testing.assert_frame_equal(back.reflections, pets.reflections, check_dtype=False, atol=1e-4, rtol=0)
    assert back.extra == pets.extra
    assert back.wavelength == pytest.approx(pets.wavelength, abs=1e-7)
    write_cif_pets(tmp_path / "b.cif_pets", back)
    assert (tmp_path / "a.cif_pets").read_bytes() == (tmp_path / "b.cif_pets").read_bytes()


def test_errors_of_orientations_are_a_loop_of_their_own(pets: PetsData, tmp_path: Path) -> None:
    stated = replace(pets, zones=pets.zones.assign(tilt_su=[0.01, 0.025, 0.013]))
    write_cif_pets(tmp_path / "a.cif_pets", stated)
    back = read_cif_pets(tmp_path / "a.cif_pets")
    assert back.zones["tilt_su"].tolist() == [0.01, 0.025, 0.013]
    text = (tmp_path / "a.cif_pets").read_text()
    (tmp_path / "b.cif_pets").write_text(text.replace("    2 0.02500\n", ""))
    assert np.isnan(read_cif_pets(tmp_path / "b.cif_pets").zones["tilt_su"][1])
    (tmp_path / "c.cif_pets").write_text(text.replace("0.02500", "-0.0250"))
    with pytest.raises(InputError, match="tilt_su"):
        read_cif_pets(tmp_path / "c.cif_pets")


@pytest.mark.parametrize("angle", ["alpha", "beta", "omega"])
def test_a_flipped_sign_moves_the_zone_axes(pets: PetsData, tmp_path: Path, angle: str) -> None:
    """The axes printed into the file belong to these angles and to no others."""
    write_cif_pets(tmp_path / "a.cif_pets", pets)
    back = read_cif_pets(tmp_path / "a.cif_pets")
    listed = back.zones[["u", "v", "w"]].to_numpy()
    assert _angle_deg(back.ub, zone_axes(back.ub, back.zones), listed).max() < 0.001
    if angle == "omega":  # turns the pattern, not the axis: seen by a lab vector instead
        from nanoed.sim.physics.geometry import frame_matrix

        row = np.radians(back.zones.loc[0, ["alpha", "beta", "omega"]].to_numpy(float))
        x = frame_matrix(*row) @ back.ub @ [1, 2, 3]
        y = frame_matrix(row[0], row[1], -row[2]) @ back.ub @ [1, 2, 3]
        assert np.linalg.norm(x - y) > 0.1
        return
    flipped = back.zones.assign(**{angle: -back.zones[angle]})
    assert _angle_deg(back.ub, zone_axes(back.ub, flipped), listed).min() > 1


def test_gemmi_reads_ours(pets: PetsData, tmp_path: Path) -> None:
    write_cif_pets(tmp_path / "a.cif_pets", pets)
    block = gemmi.cif.read(str(tmp_path / "a.cif_pets")).sole_block()
    for tag in (
        "_cell_length_a",
        "_diffrn_radiation_wavelength",
        "_diffrn_orient_matrix_UB_32",
        "_diffrn_pets_omega",
    ):
        assert block.find_value(tag) is not None
    zone = block.find(
        "_diffrn_zone_axis_", ["id", "u", "v", "w", "precession_angle", "alpha", "beta", "omega", "scale"]
    )
    assert len(zone) == 3
    assert len(block.find("_refln_", ["index_h", "intensity_meas", "intensity_sigma", "zone_axis_id"])) == 50


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("_diffrn_orient_matrix_UB_22", "_other", "_diffrn_orient_matrix_UB_22"),
        ("_refln_zone_axis_id", "_refln_other", "_refln_zone_axis_id"),
        (
            "_diffrn_radiation_wavelength 0.0250793",
            "_diffrn_radiation_wavelength x",
            "_diffrn_radiation_wavelength",
        ),
        ("data_pets", "", "CIF"),
    ],
)
def test_damaged_files_are_named_in_one_line(
    pets: PetsData, tmp_path: Path, old: str, new: str, named: str
) -> None:
    path = tmp_path / "a.cif_pets"
    write_cif_pets(path, pets)
    text = path.read_text()
    compact = text.replace("_diffrn_radiation_wavelength  ", "_diffrn_radiation_wavelength ")
    path.write_text(compact.replace(old, new) if old in compact else compact.replace(old.split()[0], "_x"))
    with pytest.raises(InputError) as caught:
        read_cif_pets(path)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.cif_pets"):
        read_cif_pets(tmp_path / "none.cif_pets")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_refln_intensity_", "_refln_F_squared_"),
        ("_diffrn_measurement_details", "_diffrn_pets_details"),
        ("_diffrn_pets_omega  0.00000\n", ""),
    ],
)
def test_tags_that_move_between_versions(pets: PetsData, tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "a.cif_pets"
    write_cif_pets(path, replace(pets, extra={"dstarmax": "1.4", "data collection geometry": "precession"}))
    before = read_cif_pets(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    after = read_cif_pets(path)
    pd.testing.assert_frame_equal(after.reflections, before.reflections)
    assert after.extra == before.extra
    assert after.extra["data collection geometry"] == "precession"
