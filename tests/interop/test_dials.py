"""DIALS reads the pixels and the geometry of exported SMV frames and of frames.h5 as we meant them."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from simulations import crystal, experiment

from nanoed.pipeline.io.export import export
from nanoed.pipeline.io.smv import detector_distance_mm
from nanoed.sim.dataset import open_dataset
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.simulate import simulate

pytestmark = pytest.mark.slow
PROTOCOL = {"kind": "continuous_rotation", "tilt_min_deg": -2.0, "tilt_max_deg": 2.0, "tilt_step_deg": 0.5}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dials")
    given = experiment(
        engine="kinematical",
        protocol=PROTOCOL | {"exposure_s": 1.0},
        instrument={"preset": "jeol-f200", "axis_azimuth_deg": 38.4, "dead_time_us": 0.0},
    )
    simulate(given, crystal(), folder / "data", folder / "truth")
    export(folder / "data", "smv", folder / "smv")
    return folder


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def imported(sweep: Path, form: str) -> Path:
    work = sweep / f"dials-{form}"
    work.mkdir(exist_ok=True)
    if not (work / "imported.expt").exists():
        given = (
            ["template=../smv/frame_#####.img", "../smv/dials_import.phil"]
            if form == "smv"
            else ["../data/frames.h5"]
        )
        run(work, "dials.import", *given)
    return work


@pytest.mark.parametrize("form", ["smv", "nxmx"])
def test_one_sweep_with_our_geometry(dials, sweep, form):
    model = json.loads((imported(sweep, form) / "imported.expt").read_text())
    with open_dataset(sweep / "data") as data:
        nominal = data.nominal
    assert len(model["experiment"]) == len(model["imageset"]) == 1
    beam, panel = model["beam"][0], model["detector"][0]["panels"][0]
    assert beam["wavelength"] == pytest.approx(wavelength_A(200.0), rel=1e-6)
    assert np.allclose(beam["direction"], [0, 0, 1], atol=1e-6)
    azimuth = np.radians(nominal.axis_azimuth_deg)
    goniometer = model["goniometer"][0]
    axis = np.array(goniometer.get("rotation_axis", goniometer.get("axes", [[0, 0, 0]])[0]))
    assert np.allclose(axis, [np.cos(azimuth), np.sin(azimuth), 0], atol=1e-6)
    assert not np.allclose(axis, [np.cos(azimuth), -np.sin(azimuth), 0], atol=1e-3)
    scan = model["scan"][0]
    assert scan["image_range"] == [1, 8]
    start, width = scan.get("oscillation") or (np.array(scan["properties"]["oscillation"])[:2] * [1, 1])
    assert (start, width) == pytest.approx((-2.0, 0.5), abs=1e-6)
    fast, slow, origin = (np.array(panel[name]) for name in ("fast_axis", "slow_axis", "origin"))
    if "parent" in panel or len(model["detector"][0].get("hierarchy", {})) > 0:
        origin = origin + np.array(model["detector"][0].get("hierarchy", {}).get("origin", [0, 0, 0]))
    assert np.allclose(fast, [1, 0, 0], atol=1e-6)
    assert np.allclose(slow, [0, -1, 0], atol=1e-6)
    pixel = 0.055
    expected = [-nominal.centre_px[0] * pixel, nominal.centre_px[1] * pixel, -detector_distance_mm(nominal)]
    assert np.allclose(origin, expected, rtol=1e-6, atol=1e-6 * abs(expected[2]))


@pytest.mark.parametrize("form", ["smv", "nxmx"])
def test_spots_are_found_where_we_put_pixels(dials, sweep, form):
    work = imported(sweep, form)
    text = run(work, "dials.find_spots", "imported.expt", "nproc=1", "spotfinder.threshold.dispersion.gain=1")
    found = [
        int(line.split()[1])
        for line in text.splitlines()
        if line.startswith("Saved") and "reflections" in line
    ]
    assert found
    assert found[0] > 20
