"""Precession and rotation: what the sampled orientations must be, exactly."""

import numpy as np
import pytest

from nanoed.sim.physics.geometry import excitation_errors
from nanoed.sim.physics.sampling import precession_rotations, precession_steps, rotation_sweep

PHI = np.radians(1.2)


def test_a_precession_tilts_the_beam_by_its_semi_angle_all_around() -> None:
    turns = precession_rotations(PHI, 48)
    assert turns @ turns.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (48, 1, 1)), abs=1e-14)
    assert np.linalg.det(turns) == pytest.approx(np.ones(48), abs=1e-14)
    assert turns[:, 2, 2] == pytest.approx(np.full(48, np.cos(PHI)), abs=1e-14)
    assert turns.mean(axis=0) == pytest.approx(np.diag([np.cos(PHI / 2) ** 2] * 2 + [np.cos(PHI)]), abs=1e-14)


def test_the_excitation_error_swings_by_g_times_the_semi_angle() -> None:
    """To first order S = S_0 + g_perp phi cos(psi - psi_g)."""
    g = np.array([0.6, -0.5, 0.01])
    s = excitation_errors(precession_rotations(1e-5, 64) @ g, 0.0250793)
    middle = excitation_errors(g, 0.0250793)
    assert s.mean() == pytest.approx(middle, abs=1e-10)
    assert np.ptp(s) / 2 == pytest.approx(np.hypot(0.6, 0.5) * 1e-5, rel=2e-3)
    assert np.std(s) == pytest.approx(np.hypot(0.6, 0.5) * 1e-5 / np.sqrt(2), rel=1e-4)


@pytest.mark.parametrize(("t", "semi_angle_deg", "steps"), [(150, 1.2, 48), (300, 1.3, 80), (600, 1.3, 140)])
def test_steps_follow_the_fitted_rule(t: float, semi_angle_deg: float, steps: int) -> None:
    """2π g_max phi t + 20, as tabulated for g_max 1.4 1/Å."""
    assert precession_steps(1.4, np.radians(semi_angle_deg), t) == steps


def test_a_sweep_turns_about_its_axis_alone_and_covers_its_width_evenly() -> None:
    azimuth, half = 0.67, np.radians(0.5)
    turns = rotation_sweep(azimuth, half, 10)
    axis = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    assert turns @ axis == pytest.approx(np.tile(axis, (10, 1)), abs=1e-15)
    across = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    lifted = (turns @ across)[:, 2]
    assert np.arcsin(lifted) == pytest.approx(half * (np.arange(10) * 0.2 - 0.9), abs=1e-14)
