"""Serial data beside the truth: orientations equal though their angles differ; frames that could be oriented."""

from dataclasses import dataclass

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nanoed.pipeline.serial.lattice import KnownLattice, angles_of, known_lattice
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.geometry import frame_matrix
from nanoed.sim.truth import Truth

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """Found against true orientations of n frames.

    vector : (n, 3) rad, rotation about lab x, y and the beam from the true to the nearest equivalent found, modulo the
    lattice.  turn : (n, 3, 3) the rotation of the crystal that makes it so.  same : (n,) whether the nearest
    equivalent is one of the Laue class, in the setting that most frames take.
    """

    vector: Array
    turn: Array
    same: NDArray[np.bool_]

    @property
    def angle_deg(self) -> Array:
        """(n,) whole angle, degrees."""
        return np.degrees(np.linalg.norm(self.vector, axis=1))

    @property
    def out_of_plane_deg(self) -> Array:
        """(n,) the part that tilts the beam in the crystal, degrees."""
        return np.degrees(np.hypot(self.vector[:, 0], self.vector[:, 1]))


def lattice_of(crystal: Crystal) -> KnownLattice:
    """Rotations of the crystal's lattice and their classes."""
    laue = str(gemmi.find_spacegroup_by_name(crystal.spacegroup).laue_str())
    return known_lattice(crystal.cell, laue, crystal.spacegroup, 0.3, 0.01)


def true_orientations(truth: Truth, crystal: Crystal) -> Array:
    """(n, 3, 3) crystal's Cartesian frame (a along x) to lab, of all frames."""
    mount = truth.ub_true @ np.linalg.inv(crystal.reciprocal_basis)
    angles = np.radians(truth.frames[["alpha_true_deg", "beta_true_deg", "omega_true_deg"]].to_numpy(float))
    return np.array([frame_matrix(*row) for row in angles]) @ mount


def usable_frames(truth: Truth) -> NDArray[np.bool_]:
    """(n,) True for frames of one particle: neither none nor two."""
    double = np.zeros(len(truth.frames), bool)
    double[truth.reflections.loc[truth.reflections["crystal"] > 0, "frame"].unique()] = True
    return (truth.frames["particle"] >= 0).to_numpy() & ~double


def orientation_errors(frames: pd.DataFrame, truth: Truth, crystal: Crystal) -> Errors:
    """Errors of frame, alpha, beta, omega (degrees; UB along the crystal's axes) against the truth."""
    lattice = lattice_of(crystal)
    true = true_orientations(truth, crystal)[frames["frame"].to_numpy(int)]
    angles = np.radians(frames[["alpha", "beta", "omega"]].to_numpy(float))
    found = np.array([frame_matrix(*row) for row in angles]).reshape(-1, 3, 3)
    trace = np.einsum("nij,qjk,nik->nq", found, lattice.turns, true)
    best = trace.argmax(axis=1)
    turn = lattice.turns[best]
    left = np.einsum("nij,njk,nlk->nil", found, turn, true)
    classes = lattice.classes[best]
    usual = int(np.bincount(classes).argmax()) if len(classes) else 0
    return Errors(Rotation.from_matrix(left).as_rotvec().reshape(-1, 3), turn, classes == usual)


def named_as_in_truth(frames: pd.DataFrame, truth: Truth, crystal: Crystal) -> pd.DataFrame:
    """The same orientations in the angles that the truth has for them: of all equivalents the nearest."""
    errors = orientation_errors(frames, truth, crystal)
    mount = truth.ub_true @ np.linalg.inv(crystal.reciprocal_basis)
    angles = np.radians(frames[["alpha", "beta", "omega"]].to_numpy(float))
    found = np.array([frame_matrix(*row) for row in angles]).reshape(-1, 3, 3)
    turned = found @ errors.turn @ mount.T
    named = np.degrees(np.array([angles_of(o) for o in turned]).reshape(-1, 3))
    return frames.assign(alpha=named[:, 0], beta=named[:, 1], omega=named[:, 2])
