"""Sums over whole rocking curves of continuous rotation give ∫I dS whatever the curve's shape; degrees of freedom."""

from dataclasses import replace

import numpy as np
import pytest
from spot_frames import true_geometry

from nanoed.pipeline.reduce.curvefit import fit_intensities, intensities, summed_intensities
from nanoed.pipeline.reduce.geometry import Geometry, candidates
from nanoed.pipeline.reduce.orientation import Measurements, Model, evaluate, excess
from nanoed.pipeline.reduce.rocking import RockingShape, rocking_profile
from nanoed.pipeline.spec import OrientationSpec
from nanoed.sim.physics.geometry import excitation_errors

STEP_DEG = 0.2
SPEC = OrientationSpec()


def rotation(n: int = 400) -> Geometry:
    """Continuous rotation in steps of 0.2° without drifts or jitter."""
    base = true_geometry(n, STEP_DEG)
    alpha = np.radians((np.arange(n) - n // 2) * STEP_DEG)
    return replace(base, alpha=alpha, beta=0 * alpha, omega=0 * alpha + 2.3, semi_angle=0.0,
                   half_sweep=np.radians(STEP_DEG) / 2)  # fmt: skip


def series(kind: str) -> tuple[Geometry, Measurements, Model, np.ndarray]:
    """Whole curves of some reflections, each of integral 1000: the model's own, or one with two unequal tops."""
    geometry, shape = rotation(), RockingShape(0.0015, np.radians(0.1), 0.0, np.radians(STEP_DEG) / 2)
    rows = []
    nodes = candidates(geometry.ub, 0.9, 0.4)
    for hkl in nodes[::3]:
        g_lab = np.array([r @ geometry.ub @ hkl for r in geometry.rotations()])
        s, g = excitation_errors(g_lab, geometry.wavelength), np.linalg.norm(g_lab, axis=1)
        near = np.nonzero(np.abs(s) < 0.012)[0]
        if (
            not 20 < len(near) < 120
            or near[0] == 0
            or near[-1] == len(geometry) - 1
            or np.diff(near).max() > 1
        ):
            continue
        axis = np.array([np.cos(2.3), np.sin(2.3), 0.0])
        distance = np.linalg.norm(np.cross(g_lab, axis), axis=1)
        p, _ = rocking_profile(s[near], g[near], distance[near], shape)
        if kind == "dynamical":
            left, right = (
                rocking_profile(s[near] + d, g[near], distance[near], shape)[0] for d in (-0.002, 0.002)
            )
            p = 0.75 * left + 0.25 * right
        rows += [(f, tuple(hkl), 1000 * x) for f, x in zip(near, p, strict=True)]
    hkl = np.array([r[1] for r in rows])
    _, reflection = np.unique(hkl, axis=0, return_inverse=True)
    order = np.argsort(reflection, kind="stable")
    value = np.array([r[2] for r in rows])[order]
    frame, family = np.array([r[0] for r in rows])[order], np.arange(reflection.max() + 1)
    data = Measurements(frame, reflection[order], family, value, np.sqrt(value + 1), hkl[order])
    return geometry, data, Model(np.zeros(len(geometry)), shape, 0.05), value


def test_sums_do_not_care_for_the_shape_and_fits_do() -> None:
    geometry, data, model, _ = series("dynamical")
    assert data.n_reflections >= 3
    calculated = evaluate(geometry, data, model, SPEC)
    summed = summed_intensities(geometry, data, model, calculated)["I"].to_numpy()
    fitted = fit_intensities(geometry, data, model, calculated)["I"].to_numpy()
    np.testing.assert_allclose(summed, 1000, rtol=0.02)
    assert np.abs(fitted / 1000 - 1).max() > 0.03
    assert np.abs(summed / 1000 - 1).max() < 0.5 * np.abs(fitted / 1000 - 1).max()


def test_both_are_exact_for_the_models_own_shape_and_a_part_of_a_curve() -> None:
    geometry, data, model, _ = series("model")
    calculated = evaluate(geometry, data, model, SPEC)
    for make in (summed_intensities, fit_intensities):
        np.testing.assert_allclose(make(geometry, data, model, calculated)["I"], 1000, rtol=1e-3)
    half = data.frame % 2 == 0
    part = Measurements(data.frame[half], data.reflection[half], data.family, data.intensity[half], data.sigma[half],
                        data.hkl[half])  # fmt: skip
    missing = evaluate(geometry, part, model, SPEC)
    np.testing.assert_allclose(summed_intensities(geometry, part, model, missing)["I"], 1000, rtol=1e-3)


def test_precession_is_fitted_and_rotation_summed() -> None:
    geometry, data, model, _ = series("dynamical")
    calculated = evaluate(geometry, data, model, SPEC)
    chosen = intensities(geometry, data, model, calculated)["I"].to_numpy()
    np.testing.assert_array_equal(chosen, summed_intensities(geometry, data, model, calculated)["I"])
    still = replace(geometry, half_sweep=0.0)
    chosen = intensities(still, data, model, calculated)["I"].to_numpy()
    np.testing.assert_array_equal(chosen, fit_intensities(still, data, model, calculated)["I"])


def test_residuals_of_many_parameters_are_too_small() -> None:
    """Two measurements of every reflection, untied: half of the measurements go into intensities."""
    n = 400
    data = Measurements(np.arange(n) % 4, np.arange(n) // 2, np.arange(n // 2), np.ones(n), np.ones(n),
                        np.zeros((n, 3), np.int64))  # fmt: skip
    geometry, many, model, _ = series("model")
    now = replace(
        evaluate(geometry, many, model, SPEC), p=np.ones(n), weight=np.ones(n), ridge=np.zeros(n // 2)
    )
    assert excess(data, now, model, 12) == pytest.approx(np.sqrt(400 / (400 - 200 - 12)))
    tied = replace(now, ridge=np.full(n // 2, 1e9))
    assert excess(data, tied, model, 12) == pytest.approx(np.sqrt(400 / (400 - 12)), rel=1e-4)
    bright = replace(model, log_scale=np.full(4, np.log(2.0)))  # Σ w k²P² is 8: half is owed to the equivalents
    assert excess(data, replace(now, ridge=np.full(n // 2, 8.0)), bright, 12) == pytest.approx(np.sqrt(400 / 288))
