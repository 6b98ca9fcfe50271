"""Virtual frames: sums of neighbours on one scale, complete reflections alone, widths chosen from the data."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from spot_frames import nominal, true_geometry

from nanoed.pipeline.reduce.geometry import candidates, predict
from nanoed.pipeline.reduce.orientation import Model, Oriented
from nanoed.pipeline.reduce.rocking import RockingShape, rocking_profile
from nanoed.pipeline.reduce.virtual import chosen, virtual_frames
from nanoed.pipeline.spec import VirtualSpec
from nanoed.sim.dataset import Nominal

STEP_DEG, N = 0.4, 40
SHAPE = RockingShape(0.001, np.radians(0.1), 0.0, np.radians(STEP_DEG) / 2)


def rotation() -> tuple[Oriented, Nominal]:
    """A series of 40 frames of 0.4° with frame scales of 20 %."""
    even = np.radians((np.arange(N) - N // 2) * STEP_DEG)
    true = replace(
        true_geometry(N, STEP_DEG), alpha=even, semi_angle=0.0, half_sweep=np.radians(STEP_DEG) / 2
    )
    model = Model(0.2 * np.sin(np.arange(N)), SHAPE, 0.1)
    log = replace(nominal(true, step_deg=STEP_DEG), protocol="continuous_rotation", semi_angle_deg=0.0,
                  rotation_deg=STEP_DEG)  # fmt: skip
    sd = np.radians(0.01 + 0.001 * np.arange(2 * N).reshape(N, 2))
    return SimpleNamespace(geometry=true, model=model, sd=sd), log  # type: ignore[return-value]


def measured(oriented: Oriented) -> pd.DataFrame:
    """I = 1000 k P of every reflection on every frame, sigma 1."""
    geometry, hkl = oriented.geometry, candidates(oriented.geometry.ub, 1.0)
    parts = []
    for i in range(N):
        seen = predict(geometry, i, hkl, tail=0.02)
        p, _ = rocking_profile(seen.s, seen.g, seen.axis_distance, SHAPE)
        table = pd.DataFrame(seen.hkl, columns=["h", "k", "l"])
        parts.append(table.assign(frame=i, I=1000 * np.exp(oriented.model.log_scale[i]) * p, sigma=1.0))
    return pd.concat(parts, ignore_index=True)


def test_a_virtual_frame_holds_the_integral_of_the_rocking_curve() -> None:
    """Σ P over a curve crossed in full is 1 over the distance between frames in S, whatever the frames' scales."""
    oriented, log = rotation()
    found = virtual_frames(oriented, measured(oriented), np.zeros(N, bool), log, VirtualSpec())
    assert (found.merged, found.step, len(found.zones)) == (6, 4, 9)
    assert found.zones["semi_angle"].to_numpy() == pytest.approx(np.full(9, 1.2))
    assert list(found.zones["first"]) == list(range(0, 36, 4))
    assert list(found.zones["last"] - found.zones["first"]) == [5] * 9
    geometry, ratios, counted = oriented.geometry, [], []
    for number, first in zip(found.zones["id"], found.zones["first"], strict=True):
        zone = found.reflections[found.reflections["zone"] == number]
        middle = np.mean(geometry.rotations()[first + 2 : first + 4], axis=0)
        g_lab = zone[["h", "k", "l"]].to_numpy() @ (middle @ geometry.ub).T
        s = g_lab[:, 2] - 0.5 * geometry.wavelength * (g_lab**2).sum(axis=1)
        axis = np.array([np.cos(geometry.omega[first]), np.sin(geometry.omega[first]), 0.0])
        lever = np.linalg.norm(np.cross(g_lab, axis), axis=1)
        inside = (np.abs(s) < 0.5 * lever * np.radians(1.2)) & (lever > 0.4)
        scale = np.exp(oriented.model.log_scale[first : first + 6]).mean()
        expected = 1000 * scale / (lever * np.radians(STEP_DEG))
        ratios += (zone["I"].to_numpy() / expected)[inside].tolist()
        counted += (zone["sigma"].to_numpy()[inside] / np.sqrt(6)).tolist()
    assert len(ratios) > 20
    assert np.array(ratios) == pytest.approx(np.ones(len(ratios)), abs=0.12)
    assert all(0.5 < c < 1.4 for c in counted)


def test_what_a_missing_frame_would_have_held_is_left_out() -> None:
    oriented, log = rotation()
    spots, blank = measured(oriented), np.zeros(N, bool)
    whole = virtual_frames(oriented, spots, blank, log, VirtualSpec()).reflections
    blank[18] = True
    holed = virtual_frames(oriented, spots[spots["frame"] != 18], blank, log, VirtualSpec()).reflections
    both = whole.merge(holed, on=["h", "k", "l", "zone"], suffixes=("", "_holed"), how="left")
    there = both["I_holed"].notna()
    assert 0.2 < (~there[both["zone"] == 5]).mean() < 0.9
    assert (both["I_holed"] / both["I"])[there & (both["I"] > 1)].min() > 0.93
    assert there[~both["zone"].isin([4, 5])].all()


def test_precession_frames_stay_as_they_are() -> None:
    """But for the semi-angle, which is the one that fits the rocking curves and not the nominal one."""
    oriented, log = rotation()
    log = replace(log, protocol="precession", semi_angle_deg=1.0)
    fitted = replace(oriented.model.shape, semi_angle=np.radians(1.03))
    turned = replace(oriented.model, shape=fitted)
    oriented = SimpleNamespace(geometry=oriented.geometry, model=turned, sd=oriented.sd)  # type: ignore[assignment]
    spots, blank = measured(oriented), np.arange(N) == 3
    found = virtual_frames(oriented, spots[spots["frame"] != 3], blank, log, VirtualSpec())
    assert (found.merged, len(found.zones), len(found.reflections)) == (1, N - 1, (spots["frame"] != 3).sum())
    assert set(found.reflections["zone"]) == set(found.zones["id"])
    assert found.zones["semi_angle"].to_numpy() == pytest.approx(np.full(N - 1, 1.03))
    assert found.zones["tilt_su"][0] == pytest.approx(np.sqrt((0.010**2 + 0.011**2) / 2))


def test_widths_follow_the_rotation_and_the_rocking_curve() -> None:
    oriented, _ = rotation()
    assert chosen(400, 0.2, oriented, VirtualSpec()) == (12, 8)
    assert chosen(117, 1.0, oriented, VirtualSpec()) == (3, 2)
    assert chosen(5, 0.2, oriented, VirtualSpec()) == (5, 3)
    assert chosen(400, 0.2, oriented, VirtualSpec(frames=7, step=5)) == (7, 5)
    small = SimpleNamespace(
        geometry=oriented.geometry, model=Model(np.zeros(N), replace(SHAPE, width=0.02), 0.1)
    )
    assert chosen(400, 0.2, small, VirtualSpec())[0] > 20  # type: ignore[arg-type]
