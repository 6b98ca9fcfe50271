"""The .cif_pets that DIALS exports is read, and its frames stand where DIALS meant them."""

import os
import subprocess
import sys
from pathlib import Path

import gemmi
import numpy as np
import pytest
from conftest import need

from nanoed.pipeline.io.cif_pets import PetsData, read_cif_pets, zone_axes
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix

SCRIPT = Path(__file__).with_name("write_dials_pets.py")
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> PetsData:
    """What DIALS writes of a sweep of 40° about an axis at 17.2°; our gemmi is lent to it."""
    folder = tmp_path_factory.mktemp("pets")
    (folder / "gemmi").symlink_to(Path(gemmi.__file__).parent)
    settings = {"capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": str(folder)}}
    check = f"import dials, sys, gemmi; assert sys.version_info[:2] == {sys.version_info[:2]}"
    found = (
        Path(SYSTEM_PYTHON).exists()
        and not subprocess.run([SYSTEM_PYTHON, "-c", check], **settings, check=False).returncode
    )
    need("dials", bool(found), "no system Python of this version that has DIALS")
    done = subprocess.run([SYSTEM_PYTHON, SCRIPT, folder / "out"], **settings, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return read_cif_pets(folder / "out.cif_pets")


def test_zones_and_text(exported: PetsData) -> None:
    assert len(exported.zones) == 12
    assert exported.zones["semi_angle"].to_numpy() == pytest.approx(2.5)
    assert np.diff(exported.zones["alpha"]) == pytest.approx(3.0, abs=2e-3)
    assert exported.extra["data collection geometry"] == "continuous rotation"
    assert len(exported.reflections) > 300


def test_orientations_give_the_zone_axes_that_dials_lists(exported: PetsData) -> None:
    listed, direct = exported.zones[["u", "v", "w"]].to_numpy(), np.linalg.inv(exported.ub)
    for sign, largest in ((1.0, 0.01), (-1.0, None)):
        zones = exported.zones.assign(alpha=sign * exported.zones["alpha"])
        a, b = zone_axes(exported.ub, zones) @ direct, listed @ direct
        cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        assert angle.max() < largest if largest else angle.max() > 5


def test_reflections_lie_as_near_to_the_sphere_as_dials_says(exported: PetsData) -> None:
    """The exporter's cut: |S| below 0.04 1/Å at the centre of each frame; with UB turned about they are not."""
    worst = {1.0: 0.0, -1.0: 0.0}
    for zone, table in exported.reflections.groupby("zone"):
        row = exported.zones.set_index("id").loc[zone]
        for sign in worst:
            angles = np.radians([sign * row["alpha"], row["beta"], row["omega"]])
            g = table[["h", "k", "l"]].to_numpy() @ (frame_matrix(*angles) @ exported.ub).T
            worst[sign] = max(worst[sign], float(np.abs(excitation_errors(g, exported.wavelength)).max()))
    assert worst[1.0] < 0.0405
    assert worst[-1.0] > 0.1
