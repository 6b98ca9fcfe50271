"""What is gathered for the report: uncertainties along a displacement, amplitudes, grey levels, curves."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.rocking import RockingShape, rocking_profile
from nanoed.sim.physics.geometry import excitation_errors
from nanoed.studies.artefacts import amplitude_table, distance_table, grey_levels, rocking_tables
from nanoed.studies.compare import compare


@pytest.mark.parametrize("name", ["brookite", "quartz"])
def test_an_isotropic_uncertainty_is_the_same_along_every_displacement(name: str) -> None:
    crystal = shipped(name)
    edges = crystal.frac_to_cart
    moves = np.random.default_rng(4).normal(size=crystal.xyz.shape)
    free = np.ones(len(moves), bool) if name == "brookite" else np.arange(len(moves)) == 1
    moves[~free] = 0
    moved = replace(crystal, xyz=crystal.xyz + 0.01 * moves @ np.linalg.inv(edges).T)
    sigma = 0.003
    su = sigma * np.linalg.norm(np.linalg.inv(edges), axis=1)[None] * free[:, None]
    table = distance_table("dynamical", compare(moved, crystal), crystal, su)
    assert table["distance_A"].to_numpy() == pytest.approx(0.01 * np.linalg.norm(moves, axis=1), abs=1e-6)
    if name == "brookite":  # in oblique axes the correlations that are neglected matter
        assert table["su_A"].to_numpy() == pytest.approx(np.full(len(moves), sigma), rel=1e-9)
    assert table["su_A"].isna().to_numpy().tolist() == (~free).tolist()


def test_amplitudes_of_negative_intensities_are_zero_and_weak() -> None:
    reflections = pd.DataFrame(
        {"h": [1, 2, 3], "k": 0, "l": 0, "I_obs": [9.0, -1.0, 2.0], "sigma": 1.0, "I_calc": [4.0, 1.0, 0.0]}
    )
    table = amplitude_table("kinematical", SimpleNamespace(reflections=reflections))  # type: ignore[arg-type]
    assert list(table["f_obs"]) == pytest.approx([3.0, 0.0, np.sqrt(2.0)])
    assert list(table["f_calc"]) == [2.0, 1.0, 0.0]
    assert list(table["observed"]) == [True, False, False]
    assert table["frame"].isna().all()


def test_grey_levels_grow_with_counts_from_black_to_white() -> None:
    counts = np.arange(65536).reshape(256, 256)
    grey, white = grey_levels(counts)
    assert grey.min() == 0
    assert grey.max() == 255
    assert (np.diff(grey.ravel().astype(int)) >= 0).all()
    assert white == pytest.approx(65535 * 0.9998, rel=1e-3)
    assert grey_levels(np.zeros((4, 4)))[0].max() == 0


def test_rocking_curves_are_put_on_one_scale_beside_the_profile_that_fits_them() -> None:
    n = 241
    alpha = np.radians(np.linspace(-30, 30, n))
    shape = RockingShape(0.001, 0.002, 0.021)
    log_scale = 0.3 * np.sin(np.arange(n))
    series = Geometry(
        ub=np.diag([0.11, 0.18, 0.2]), alpha=alpha, beta=np.zeros(n), omega=np.full(n, 0.2),
        centres=np.zeros((n, 2)), a_per_px=0.01, wavelength=0.0250793, semi_angle=0.021,
    )  # fmt: skip
    spots, fitted = [], []
    for row, hkl in enumerate([(1, 1, 0), (3, 2, 0), (2, 6, -1)]):
        g_lab = series.rotations() @ series.ub @ hkl
        s, g = excitation_errors(g_lab, series.wavelength), np.full(n, np.linalg.norm(g_lab[0]))
        profile, _ = rocking_profile(s, g, np.zeros(n), shape)
        seen = np.abs(s) < g * 0.021 + 0.008
        table = {"frame": np.arange(n), "I": 50 * (row + 1) * profile * np.exp(log_scale), "s": s, "g": g}
        spots.append(pd.DataFrame(table | dict(zip("hkl", hkl, strict=True)) | {"sigma": 1.0})[seen])
        fitted.append((*hkl, 50.0 * (row + 1), 1.0, int(seen.sum())))
    reduction = SimpleNamespace(
        geometry=series,
        spots=pd.concat(spots),
        fitted=pd.DataFrame(fitted, columns=["h", "k", "l", "I", "sigma", "n_frames"]),
        oriented=SimpleNamespace(model=SimpleNamespace(log_scale=log_scale, shape=shape)),
    )
    points, fit = rocking_tables(reduction)  # type: ignore[arg-type]
    assert len(points.groupby(["h", "k", "l"])) == 3
    for hkl, part in points.groupby(["h", "k", "l"]):
        curve = fit[(fit[["h", "k", "l"]] == list(hkl)).all(axis=1)]
        expected = np.interp(part["s_g"], curve["s_g"], curve["I"])
        assert np.abs(part["I"] - expected).max() < 0.02 * curve["I"].max()
    reduction.fitted = reduction.fitted.assign(n_frames=2)
    assert rocking_tables(reduction)[0].empty  # type: ignore[arg-type]
