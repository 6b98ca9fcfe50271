"""The lab frame: exact excitation errors, rotations and detector map, with every sign held."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoed.sim.physics.electron import relativistic_gamma, wavelength_A, wavenumber
from nanoed.sim.physics.geometry import (
    excitation_errors,
    frame_matrix,
    g_to_pixel,
    pixel_to_g,
    rot_x,
    rot_y,
    rot_z,
)

WAVELENGTH = wavelength_A(200.0)
angle = st.floats(-np.pi, np.pi)


def test_wavelength_and_gamma_of_the_study() -> None:
    assert wavelength_A(200.0) == pytest.approx(0.0250793, abs=5e-8)
    assert wavelength_A(120.0) == pytest.approx(0.033492, abs=5e-7)
    assert wavenumber(200.0) == pytest.approx(39.873, abs=5e-4)
    assert relativistic_gamma(200.0) == pytest.approx(1.39139, abs=5e-6)
    assert relativistic_gamma(120.0) == pytest.approx(1.23483, abs=5e-6)


def test_the_excitation_error_is_exact_and_positive_inside_the_sphere() -> None:
    k, k0 = 1 / WAVELENGTH, np.array([0.0, 0.0, -1 / WAVELENGTH])
    g = np.random.default_rng(0).normal(size=(50, 3))
    exact = (k**2 - ((k0 + g) ** 2).sum(axis=1)) / (2 * k)
    assert excitation_errors(g, WAVELENGTH) == pytest.approx(exact, abs=1e-13)
    flipped = (k**2 - ((k0 - g) ** 2).sum(axis=1)) / (2 * k)
    assert np.abs(excitation_errors(g, WAVELENGTH) - flipped).max() > 0.1
    assert excitation_errors(np.array([0.0, 0.0, 0.5]), WAVELENGTH) > 0


def test_rotations_are_active_and_right_handed() -> None:
    x, y, z = np.eye(3)
    assert rot_x(np.pi / 2) @ y == pytest.approx(z)
    assert rot_y(np.pi / 2) @ z == pytest.approx(x)
    assert rot_z(np.pi / 2) @ x == pytest.approx(y)


@given(angle, angle, angle)
def test_a_frame_turns_beta_then_alpha_then_omega(alpha: float, beta: float, omega: float) -> None:
    assert frame_matrix(alpha, beta, omega) == pytest.approx(
        rot_z(omega) @ rot_x(alpha) @ rot_y(beta), abs=1e-14
    )
    assert frame_matrix(alpha, 0.0, omega) @ [1, 0, 0] == pytest.approx([np.cos(omega), np.sin(omega), 0])


def test_rows_run_down_and_columns_to_the_right() -> None:
    centre = np.array([256.3, 255.1])
    px, py = g_to_pixel(np.array([[0.1, 0.0], [0.0, 0.1]]), centre, 0.005)
    assert px == pytest.approx([276.3, 256.3])
    assert py == pytest.approx([255.1, 235.1])
    g = np.random.default_rng(1).normal(size=(20, 2))
    assert pixel_to_g(*g_to_pixel(g, centre, 0.005), centre, 0.005) == pytest.approx(g, abs=1e-12)
