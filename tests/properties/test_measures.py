"""Measures against the truth: what they must not see, and what they must."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from simulations import crystal as shipped

from nanoed.studies.compare import compare
from nanoed.studies.measures import adp_npd, cell_err_pct, occ_max_err, orientation_errors_deg

RNG = np.random.default_rng(3)
N = 40


def frames(alpha, beta, omega):
    return pd.DataFrame({"alpha": alpha, "beta": beta, "omega": omega})


def truth(table):
    return pd.DataFrame({f"{name}_true_deg": table[name] for name in ("alpha", "beta", "omega")})


@pytest.fixture
def true():
    return frames(np.linspace(-48, 50, N), RNG.normal(0, 0.3, N), 38.4 + RNG.normal(0, 0.2, N))


def test_true_orientations_have_no_error(true):
    assert orientation_errors_deg(true, truth(true)).max() < 1e-6


def test_rotation_in_the_plane_is_not_out_of_plane(true):
    turned = true.assign(omega=true["omega"] + RNG.normal(0, 0.5, N))
    errors = orientation_errors_deg(turned, truth(true))
    assert np.sqrt(np.mean(errors**2)) < 0.1


def test_common_shift_of_the_stage_is_removed(true):
    shifted = true.assign(alpha=true["alpha"] + 0.7)
    kept = frames(true["alpha"], 0 * true["beta"], 0 * true["omega"])
    assert orientation_errors_deg(shifted.assign(beta=0.0, omega=0.0), truth(kept)).max() < 1e-6


def test_random_tilts_are_found_at_their_size(true):
    wrong = true.assign(alpha=true["alpha"] + RNG.normal(0, 0.2, N))
    errors = orientation_errors_deg(wrong, truth(true))
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(0.2, rel=0.35)


def test_refined_tilts_that_undo_the_error_are_credited(true):
    """A tilt about lab x by t undoes an error of -t of a frame whose tilt axis is x; the other sign doubles it."""
    flat = true.assign(beta=0.0, omega=0.0)
    error = RNG.normal(0, 0.2, N)
    wrong = flat.assign(alpha=flat["alpha"] + error, tilt_x_deg=-error, tilt_y_deg=0.0)
    assert orientation_errors_deg(wrong, truth(flat)).max() < 1e-6
    flipped = wrong.assign(tilt_x_deg=error)
    assert np.sqrt(np.mean(orientation_errors_deg(flipped, truth(flat)) ** 2)) > 0.3


def test_shuffled_frames_are_seen(true):
    shuffled = true.iloc[RNG.permutation(N)].reset_index(drop=True)
    assert orientation_errors_deg(shuffled, truth(true)).max() > 5


def test_cell_error_is_the_largest_relative_one():
    assert cell_err_pct((10.1, 5.0, 4.98, 90, 90, 90), (10, 5, 5, 90, 90, 90)) == pytest.approx(1.0)


def test_displacements_that_are_not_positive_definite_are_counted():
    crystal = shipped("quartz")
    assert adp_npd(crystal) == 0
    u = crystal.u_ij.copy()
    u[0, 3] = 1.1 * np.sqrt(u[0, 0] * u[0, 1])  # U_12 beyond what U_11 and U_22 allow; U_eq stays positive
    assert adp_npd(dataclasses.replace(crystal, u_ij=u)) == 1
    flat = dataclasses.replace(crystal, u_ij=np.full_like(u, np.nan), u_iso=np.array([0.01, 0.0]))
    assert adp_npd(flat) == 1


def test_largest_error_of_an_occupancy():
    crystal = shipped("mgti2o5")
    wrong = dataclasses.replace(
        crystal, occupancy=crystal.occupancy + np.array([0.05, -0.05, -0.01, 0.01, 0, 0, 0])
    )
    assert occ_max_err(compare(wrong, crystal), crystal) == pytest.approx(0.05)
