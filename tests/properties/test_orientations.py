"""Orientations, frame scales and intensities by joint least squares, against the same sums written out."""

from dataclasses import replace

import numpy as np
import pytest
from spot_frames import true_geometry, true_intensities

from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.orientation import (
    Calculated,
    Measurements,
    Model,
    contradictions,
    evaluate,
    frame_equations,
    refine_orientations,
)
from nanoed.pipeline.reduce.rocking import RockingShape
from nanoed.pipeline.reduce.symmetry import laue_rotations, representative
from nanoed.pipeline.spec import OrientationSpec
from nanoed.sim.physics.errors import ConvergenceError

SPEC = OrientationSpec()


def measured(
    geometry: Geometry, shape: RockingShape, turning: float, rng: np.random.Generator
) -> Measurements:
    """Spots within the rocking curve, 2 % noise; the strength of every reflection changes from frame to frame.

    turning : amplitude of sin(phase + 1.5 alpha), a phase for each reflection: what dynamical diffraction does
    to equivalents as the crystal turns.
    """
    hkl, full = true_intensities(geometry)
    unique, reflection = np.unique(hkl, axis=0, return_inverse=True)
    _, family = np.unique(representative(unique, laue_rotations("mmm", None)), axis=0, return_inverse=True)
    g = geometry.rotations() @ geometry.ub @ hkl.T
    s = g[:, 2] - 0.5 * geometry.wavelength * (g**2).sum(axis=1)
    near = np.abs(s) < np.linalg.norm(g, axis=1) * geometry.semi_angle + 0.008
    spot, frame = np.nonzero(near.T)
    order = np.argsort(reflection[spot], kind="stable")
    spot, frame = spot[order], frame[order]
    blank = np.zeros(len(spot))
    data = Measurements(frame, reflection[spot], family, blank, blank + 1, hkl[spot])
    p = evaluate(geometry, data, Model(np.zeros(len(geometry)), shape, 0.3), SPEC).p
    phase = rng.uniform(0, 2 * np.pi, len(hkl))[spot]
    truth = full[spot] * p * np.exp(turning * np.sin(phase + 1.5 * geometry.alpha[frame]))
    sigma = 0.02 * truth + 0.002 * truth.max()
    intensity = truth + sigma * rng.standard_normal(len(truth))
    return Measurements(frame, reflection[spot], family, intensity, sigma, hkl[spot])


@pytest.fixture(scope="module")
def shape() -> RockingShape:
    return RockingShape(0.003, float(np.radians(0.1)), float(np.radians(1.0)))


def dense_normal(
    data: Measurements, q: np.ndarray, jacobian: np.ndarray, now: Calculated, frames: int
) -> np.ndarray:
    """All parameters at once: tilts and scales, intensities, common values; then Schur's complement."""
    n, m, n_families = 3 * frames, data.n_reflections, int(data.family.max()) + 1
    rows = np.zeros((len(q) + m, n + m + n_families))
    i = np.arange(len(q))
    for c in range(3):
        rows[i, 3 * data.frame + c] = jacobian[:, c]
    rows[i, n + data.reflection] = q
    h = np.arange(m)
    rows[len(q) + h, n + h], rows[len(q) + h, n + m + data.family] = 1.0, -1.0
    weight = np.concatenate([now.weight, now.ridge])
    whole = rows.T @ (weight[:, None] * rows)
    a, b, d = whole[:n, :n], whole[:n, n:], whole[n:, n:]
    return np.asarray(a - b @ np.linalg.pinv(d, rcond=1e-14, hermitian=True) @ b.T)


def test_normal_matrix_is_that_of_all_parameters_together(shape: RockingShape) -> None:
    geometry = true_geometry(5)
    data = measured(geometry, shape, 0.3, np.random.default_rng(1))
    keep = data.family[data.reflection] < 40
    unique, reflection = np.unique(data.reflection[keep], return_inverse=True)
    data = Measurements(
        data.frame[keep],
        reflection,
        data.family[unique],
        data.intensity[keep],
        data.sigma[keep],
        data.hkl[keep],
    )
    model = Model(0.1 * np.random.default_rng(2).standard_normal(5), shape, 0.1)
    now = evaluate(geometry, data, model, SPEC)
    assert (now.ridge > 0).mean() > 0.5
    normal, _ = frame_equations(data, model, now, 5)
    k = np.exp(model.log_scale)[data.frame]
    signal = now.full[data.reflection] * k
    jacobian = np.column_stack([(signal * now.slope)[:, None] * now.by_tilt, signal * now.p])
    expected = dense_normal(data, k * now.p, jacobian, now, 5)
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(normal / size, expected / size, atol=1e-6)


def test_a_drift_of_the_scales_goes_in_one_step(shape: RockingShape) -> None:
    """Nearly all that holds a drift over many frames is the tie between equivalents on both sides of it."""
    geometry = true_geometry(31)
    data = measured(geometry, shape, 0.0, np.random.default_rng(7))
    drift = 0.2 * np.sin(3 * geometry.alpha)
    drift -= drift.mean()
    model = Model(drift, shape, 0.3)
    now = evaluate(geometry, data, model, SPEC)

    def left(state: Calculated) -> float:
        normal, right = frame_equations(data, model, state, 31)
        prior = np.eye(31) / SPEC.scale_spread**2
        step = np.linalg.solve(normal[2::3, 2::3] + prior, right[2::3] - prior @ drift)
        return float((drift + step) @ drift / (drift @ drift))

    assert abs(left(now)) < 0.05
    assert left(replace(now, ridge=0 * now.ridge)) < -0.2  # a matrix without the ties overshoots


@pytest.mark.parametrize("turning", [0.0, 0.5])
def test_scales_stay_near_one(shape: RockingShape, turning: float) -> None:
    """Frames of equal scale stay so where the strengths of reflections turn with the crystal."""
    geometry = true_geometry(31)
    data = measured(geometry, shape, turning, np.random.default_rng(7))
    found = refine_orientations(geometry, data, shape, SPEC)
    assert np.abs(found.model.log_scale).max() < 0.05 + 0.4 * turning
    assert np.degrees(np.sqrt(np.mean((found.geometry.alpha - geometry.alpha) ** 2))) < 0.01 + 0.1 * turning
    assert not contradictions(data, found, SPEC)


def test_intensities_without_equivalence_are_told(shape: RockingShape) -> None:
    """Frames at random scales, far beyond the prior, are an error that says what to try."""
    geometry = true_geometry(31)
    rng = np.random.default_rng(7)
    data = measured(geometry, shape, 0.0, rng)
    scale = np.exp(1.0 * rng.standard_normal(31))[data.frame]
    data = replace(data, intensity=scale * data.intensity, sigma=scale * data.sigma)
    with pytest.raises(ConvergenceError, match=r"frame scales .* Laue class"):
        refine_orientations(geometry, data, shape, SPEC)
