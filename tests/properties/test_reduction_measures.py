"""Measures of a reduction against the truth: the right lattice, its hand, errors of cell, scale and pulls."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation
from spot_frames import true_geometry

from nanoed.pipeline.reduce.axis import mean_axis
from nanoed.pipeline.reduce.geometry import reciprocal_basis
from nanoed.sim.physics.geometry import frame_matrix
from nanoed.studies import check_reduction
from nanoed.studies.orientation_study import errors, judged
from nanoed.studies.reduction_measures import intensity_errors, setting

UB = Rotation.random(random_state=4).as_matrix() @ reciprocal_basis((9.2, 5.5, 5.1, 90, 90, 90))
TRUTH = SimpleNamespace(ub_true=UB)


def test_axes_by_another_name_are_the_same_lattice_and_the_other_hand_is_not() -> None:
    turned = Rotation.from_rotvec([0.002, -0.004, 0.003]).as_matrix() @ UB
    named = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    matrix, miss = setting(1.007 * turned @ named, TRUTH)  # type: ignore[arg-type]
    assert np.array_equal(matrix, named)
    assert miss < 0.02
    primitive = np.array([[1, 1, 0], [1, -1, 0], [0, 0, -1]])
    assert np.array_equal(setting(UB @ primitive, TRUTH)[0], primitive)  # type: ignore[arg-type]
    mirror = np.diag([1.0, 1.0, -1.0]) @ UB
    assert setting(mirror, TRUTH)[1] > 0.1  # type: ignore[arg-type]
    assert setting(Rotation.from_rotvec([0.2, 0, 0]).as_matrix() @ UB, TRUTH)[1] > 0.1  # type: ignore[arg-type]


def test_mean_axis_knows_a_slow_second_tilt_from_nothing() -> None:
    """beta = d sin(alpha) with omega to match is an axis d off; drifts of the stage angle are none."""
    alpha, d = np.radians(np.linspace(-50, 50, 41)), np.radians(0.3)
    right = np.array([frame_matrix(a, 0, 0.7 + d) for a in alpha])
    assert mean_axis(right, alpha, 0.7) == pytest.approx(0.7 + d, abs=1e-6)
    tilted = np.array([frame_matrix(a, d * np.sin(a), 0.7) for a in alpha])
    assert np.degrees(mean_axis(tilted, alpha, 0.7) - 0.7) == pytest.approx(0.3, abs=0.05)
    drifted = np.array([frame_matrix(a + 0.003 * np.sin(3 * a), 0, 0.7) for a in alpha])
    assert mean_axis(drifted, alpha, 0.7) == pytest.approx(0.7, abs=1e-4)


def drawn(factor: float, noise: float) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Spots of three frames with scales 0.8 to 0.9, `noise` times the counting error they state."""
    rng = np.random.default_rng(9)
    n = 3000
    frame, hkl = np.repeat(np.arange(3), n // 3), np.arange(n)
    true = 10 ** rng.uniform(-1, 5, n)
    scale = np.array([0.8, 0.85, 0.9])[frame]
    variance = scale * true + 30.0
    observed = scale * true + noise * np.sqrt(variance) * rng.standard_normal(n)
    observed = np.where(true < 1500, factor, 1.0) * observed
    sigma = np.sqrt(np.maximum(variance + observed - scale * true, 3.0))
    table = {"frame": frame, "h": hkl, "k": 0, "l": 0}
    spots = pd.DataFrame(table | {"I": observed, "sigma": sigma, "shot": 1.0, "relative": 0.0})
    truth = SimpleNamespace(reflections=pd.DataFrame(table | {"i_true": true, "crystal": 0}))
    found = SimpleNamespace(spots=spots, statistics={"gain": 1.0}, geometry=true_geometry(3))
    return found, truth


def test_honest_spots_have_unit_pulls_and_a_slope_of_one() -> None:
    found, truth = drawn(1.0, 1.0)
    figures = intensity_errors(found, truth, np.eye(3, dtype=np.int64))  # type: ignore[arg-type]
    assert figures["scale_mean"] == pytest.approx(0.85, rel=0.005)
    assert figures["scale_spread_pct"] == pytest.approx(5.9, abs=0.7)
    assert figures["slope"] == pytest.approx(1.0, abs=0.02)
    for b in range(6):
        assert figures[f"pull_rms_{b}"] == pytest.approx(1.0, abs=0.12)
        assert figures[f"pull_mean_{b}"] == pytest.approx(0.0, abs=0.15)


def test_what_is_wrong_shows() -> None:
    found, truth = drawn(0.8, 1.0)
    assert intensity_errors(found, truth, np.eye(3, dtype=np.int64))["slope"] < 0.9  # type: ignore[arg-type]
    found, truth = drawn(1.0, 2.0)
    assert intensity_errors(found, truth, np.eye(3, dtype=np.int64))["pull_rms_2"] > 1.7  # type: ignore[arg-type]


def test_orientations_before_and_after_refinement() -> None:
    """Jitter of a tilt that the refined tilts take off: errors before, none after; the wrong sign doubles them."""
    rng = np.random.default_rng(3)
    n, jitter = 20, 0.1 * rng.standard_normal(20)
    stage = np.linspace(-40, 40, n)
    columns = {"alpha_true_deg": stage + jitter, "beta_true_deg": 0.0, "omega_true_deg": 0.0}
    truth = SimpleNamespace(frames=pd.DataFrame(columns))
    given = pd.DataFrame(
        {"first": np.arange(n), "last": np.arange(n), "alpha": stage, "beta": 0.0, "omega": 0.0}
    )
    stated = np.full(n, np.std(jitter))
    found = errors(given.assign(tilt_x_deg=jitter, tilt_y_deg=0.0), truth, stated)  # type: ignore[arg-type]
    assert found["reduced_over_stated"] == pytest.approx(np.sqrt(0.5), rel=1e-3)  # one of the two tilts alone is off
    assert found["reduced_deg"] == pytest.approx(np.std(jitter), rel=1e-3)
    assert found["refined_deg"] < 1e-6
    wrong = errors(given.assign(tilt_x_deg=-jitter, tilt_y_deg=0.0), truth, stated)  # type: ignore[arg-type]
    assert wrong["refined_deg"] == pytest.approx(2 * np.std(jitter), rel=1e-3)
    row = {"case": "anatase", "settings": "flanks", "status": "ok"} | wrong
    assert [f.met for f in judged(row)] == [True, False, None, None]


@pytest.mark.parametrize(("spots", "seeds"), [(140, 3), (70, 6), (10, 24), (1, 3)])
def test_seeds_are_added_where_a_bin_of_pulls_is_thin(monkeypatch, spots: int, seeds: int) -> None:
    """By the number of spots alone: a bin of next to none counts as empty, and MOST_SEEDS are the most."""
    row = {"mode": "blind", "pull_n_0": 1000, "pull_n_1": spots, "pull_mean_0": 9.0}
    monkeypatch.setattr(check_reduction, "rows_of", lambda case, workers, progress: [row])
    assert len(check_reduction._over_seeds("anatase", 1, None)) == seeds
