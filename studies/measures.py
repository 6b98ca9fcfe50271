"""How far a result is from the truth: orientations, uncertainties, displacement parameters, cell."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nanoed.sim.physics.crystal import Crystal, u_matrix
from nanoed.sim.physics.geometry import frame_matrix, rot_x, rot_y
from nanoed.studies.compare import Comparison

Array = NDArray[np.float64]
NEGLIGIBLE_SU = 1e-9  # fractional; coordinates fixed by symmetry have no uncertainty


def orientation_errors_deg(refined: pd.DataFrame, true: pd.DataFrame) -> Array:
    """Out-of-plane angle between refined and true orientation of each frame; (n,) degrees.

    refined : alpha, beta, omega and, where they were refined, tilt_x_deg, tilt_y_deg (degrees; the
    orientation is R_x(tilt_x) R_y(tilt_y) R_z(omega) R_x(alpha) R_y(beta)).
    true : alpha_true_deg, beta_true_deg, omega_true_deg, the same frames in the same order.
    The rotation C common to all frames turns the crystal in its own frame (a different but equal choice of
    UB) and is that which minimises sum |O_i - T_i C|²; what is left, O_i C^T T_i^T, is split at the beam.
    """
    nominal = _orientations(refined[["alpha", "beta", "omega"]].to_numpy(float))
    if "tilt_x_deg" in refined:
        tilts = np.radians(refined[["tilt_x_deg", "tilt_y_deg"]].to_numpy(float))
        nominal = np.array([rot_x(x) @ rot_y(y) for x, y in tilts]) @ nominal
    truth = _orientations(true[["alpha_true_deg", "beta_true_deg", "omega_true_deg"]].to_numpy(float))
    u, _, vt = np.linalg.svd(np.einsum("nji,njk->ik", truth, nominal))
    common = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    left = nominal @ common.T @ truth.transpose(0, 2, 1)
    vectors = Rotation.from_matrix(left).as_rotvec()
    return np.degrees(np.hypot(vectors[:, 0], vectors[:, 1]))


def rms(values: Array) -> float:
    """Root of the mean square; NaN for none."""
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else float("nan")


def pull_rms(comparison: Comparison, reference: Crystal, su_xyz: Array) -> float:
    """rms of (refined - true) / s.u. over refined coordinates; 1 means honest uncertainties.

    su_xyz : (n, 3) fractional, rows of the refined structure; coordinates that symmetry fixes have none.
    """
    su = comparison.transformed_su(np.nan_to_num(np.asarray(su_xyz, float)))
    delta = comparison.matched.xyz - reference.xyz
    delta -= np.rint(delta)
    refined = su > NEGLIGIBLE_SU
    return rms(delta[refined] / su[refined])


def u_rmsd_A2(comparison: Comparison, reference: Crystal) -> float:
    """rms difference of the equivalent isotropic displacement parameters over the sites, Å²."""
    return rms(comparison.matched.u_iso - reference.u_iso)


def adp_npd(crystal: Crystal) -> int:
    """Number of sites whose displacement parameters are not positive definite."""
    bad = crystal.u_iso <= 0
    for i in np.flatnonzero(~np.isnan(crystal.u_ij).any(axis=1)):
        bad[i] = np.linalg.eigvalsh(u_matrix(crystal.u_ij[i])).min() <= 0
    return int(bad.sum())


def occ_max_err(comparison: Comparison, reference: Crystal) -> float:
    """Largest difference of an occupancy from the true one."""
    return float(np.abs(comparison.matched.occupancy - reference.occupancy).max())


def cell_err_pct(cell: tuple[float, ...], true: tuple[float, ...]) -> float:
    """Largest relative error of a cell length, in percent."""
    return float(100 * np.max(np.abs(np.array(cell[:3]) / np.array(true[:3]) - 1)))


def _orientations(angles_deg: Array) -> Array:
    return np.array([frame_matrix(*np.radians(row)) for row in angles_deg])
