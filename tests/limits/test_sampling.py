"""Precession and rotation: what the sampled orientations must be, exactly."""

import numpy as np
import pytest

from nanoed.sim.physics.geometry import excitation_errors
from nanoed.sim.physics.sampling import precession_rotations, precession_steps, rotation_sweep, spread_sweep

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


@pytest.mark.parametrize("ratio", [1.0, 0.8, 1.25])
def test_a_mosaic_scatters_about_and_across_the_axis(ratio: float) -> None:
    """Variances of both tilts: a third of the half-width squared plus the spread's, and the spread's; none mixed."""
    azimuth, half, at = 0.67, np.radians(0.5), np.radians(0.2)
    spread = ratio * at
    turns, shares, _ = spread_sweep(azimuth, half, 40, spread, at, 13)
    axis = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    across = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    lifted = np.array([np.arcsin((turns @ v)[:, 2]) for v in (across, axis)])
    assert shares.sum() == pytest.approx(1)
    assert lifted @ shares == pytest.approx([0, 0], abs=1e-12)
    expected = np.diag([half**2 / 3 + spread**2, spread**2])
    assert (lifted * shares) @ lifted.T == pytest.approx(expected, rel=2e-3, abs=1e-9)
    alone, shares, _ = spread_sweep(azimuth, half, 40, spread, at)
    assert alone @ axis == pytest.approx(np.tile(axis, (len(alone), 1)), abs=1e-15)


@pytest.mark.parametrize("across", [1, 5])
def test_shares_of_a_mosaic_change_as_their_derivatives_say(across: int) -> None:
    at, step = np.radians(0.2), 1e-7
    _, _, slope = spread_sweep(0.3, 0.01, 20, 1.1 * at, at, across)
    ahead, behind = (spread_sweep(0.3, 0.01, 20, 1.1 * at + s, at, across)[1] for s in (step, -step))
    assert slope == pytest.approx((ahead - behind) / (2 * step), abs=1e-6 * np.abs(slope).max())
