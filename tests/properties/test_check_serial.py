"""The study check-serial at small scale: sets of first frames, disturbed orientations, figures from tables."""

import numpy as np
import pandas as pd
import pytest
from simulations import crystal, experiment

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.frames import Engine, frames_of
from nanoed.pipeline.spec import RefineSpec, ThicknessSpec
from nanoed.sim.dataset import open_dataset, write_dataset
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import frame_matrix
from nanoed.sim.setup import prepare
from nanoed.studies.check_serial import findings, first_frames
from nanoed.studies.serial_convergence import FRAMES, disturbed, some_frames
from nanoed.studies.serial_figures import convergence_figure, frames_figure


def still(n=40, semi_angle=0.0):
    rng = np.random.default_rng(4)
    zones = pd.DataFrame({"id": np.arange(1, n + 1), "semi_angle": semi_angle, "scale": 1.0})
    zones[["alpha", "beta", "omega"]] = rng.uniform(-60, 60, (n, 3))
    hkl = np.array(
        [(h, k, m) for h in range(-6, 7) for k in range(-6, 7) for m in range(-6, 7) if h or k or m]
    )
    tables = [
        pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=100.0, sigma=1.0, zone=number)
        for number in zones["id"]
    ]
    return PetsData((9.0, 9.0, 9.0, 90.0, 90.0, 90.0), 0.0251, np.eye(3) / 9, zones, pd.concat(tables))


def test_first_frames_are_those(tmp_path):
    nominal = prepare(experiment(engine="kinematical"), crystal()).nominal
    shown = [np.full(nominal.shape, i, np.uint16) for i in range(nominal.n_frames)]
    write_dataset(tmp_path / "all", nominal, shown)
    with open_dataset(first_frames(tmp_path / "all", 2, tmp_path / "some")) as series:
        assert [int(frame.max()) for frame in series] == [0, 1]
        assert np.array_equal(series.nominal.alpha_deg, nominal.alpha_deg[:2])


def test_disturbed_orientations_are_off_by_what_was_asked():
    data = some_frames(still())
    assert len(data.zones) == FRAMES
    assert set(data.reflections["zone"]) == set(data.zones["id"])
    wrong = disturbed(data, 0.5)
    before, after = (
        np.array([frame_matrix(*row) for row in np.radians(d.zones[["alpha", "beta", "omega"]].to_numpy())])
        for d in (data, wrong)
    )
    turned = after @ before.transpose(0, 2, 1)
    angle = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert np.sqrt((angle**2).mean()) == pytest.approx(0.5 * np.sqrt(2), rel=0.3)
    same = disturbed(data, 0.0).zones
    assert np.allclose(same[["alpha", "beta", "omega"]], data.zones[["alpha", "beta", "omega"]])


def test_still_frames_are_refined_near_the_ewald_sphere_and_nowhere_else():
    spec = RefineSpec(protocol="still", still_s_max=0.004)
    data = still(3)
    frames = frames_of(data, spec)
    engine = Engine(data.ub, ThicknessSpec(), "still", 1.6, 0.02, None)
    assert np.array_equal(engine.rotations(frames[0], 100.0), np.eye(3)[None])
    for frame in frames:
        g = frame.hkl @ (frame.orientation @ data.ub).T
        assert np.abs(g[:, 2] - 0.5 * data.wavelength * (g**2).sum(axis=1)).max() <= 0.004
    wide = frames_of(data, spec.model_copy(update={"still_s_max": 0.008}))
    assert sum(len(f.hkl) for f in wide) > 1.5 * sum(len(f.hkl) for f in frames)
    with pytest.raises(InputError, match="semi-angle"):
        frames_of(data, RefineSpec())


def test_unknown_part_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such part"):
        findings(tmp_path, tmp_path / "out", ["all"], 1, None)
    assert not (tmp_path / "out").exists()


def test_figures_are_drawn_from_their_tables(tmp_path):
    names = (
        "error_median_deg",
        "error_95_pct_deg",
        "r_split",
        "r_int",
        "coverage",
        "max_dist_A",
        "av_dist_A",
    )
    rows = [{"seed": s, "frames": n} | dict.fromkeys(names, 0.1 / n) for s in (1, 2) for n in (50, 100)]
    frames_figure(pd.DataFrame(rows), tmp_path / "frames.svg")
    rows = [
        {"method": m, "orientation_error_deg": e, "thickness_factor": f, "tilts": t}
        | dict.fromkeys(("max_dist_A", "r_obs_pct", "tilt_error_left_deg"), 0.1)
        for m, f, t in (
            ("dynamical", 1.0, True),
            ("dynamical", 1.0, False),
            ("kinematical-frames", 1.0, True),
        )
        for e in (0.0, 0.2)
    ]
    convergence_figure(pd.DataFrame(rows), tmp_path / "map.svg")
    for name in ("frames.svg", "map.svg"):
        assert (tmp_path / name).read_text().count("<path") > 20
