"""Indices that a lattice allows but a crystal does not: the model is turned to those that the data were given.

Where the lattice has rotations that the Laue class lacks (m-3 in a cubic lattice, -3m in a hexagonal one), positions of
spots cannot tell which of them the indices took; intensities can.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.refine.statistics import r_factor
from nanoed.pipeline.serial.lattice import cosets, lattice_matrices
from nanoed.sim.physics.crystal import Crystal, u_matrix
from nanoed.sim.physics.scattering import structure_factors

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
METRIC_TOLERANCE = 0.01
"""Relative change of the metric up to which a rotation counts as one of the lattice."""
SHIFTS = (0.0, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4)
"""Of the origin, along each axis, that may bring the turned symmetry back to its symbol."""


def in_setting_of(model: Crystal, merged: pd.DataFrame) -> Crystal:
    """The model in the indices of merged intensities (h, k, l, I): turned where it fits better so, else itself.

    Of the rotations of the lattice that the Laue class lacks, one per coset, that which gives the lowest kinematical R
    of |F|, with one scale.
    """
    hkl = merged[["h", "k", "l"]].to_numpy(np.int64)
    f_o = np.sqrt(np.maximum(merged["I"].to_numpy(float), 0.0))
    best, found = np.inf, model
    for matrix in alternatives(model):
        turned = model if np.array_equal(matrix, np.eye(3)) else turned_model(model, matrix)
        if turned is None:
            continue
        f_c = np.abs(structure_factors(turned, hkl))
        scale = float(f_o @ f_c) / max(float(f_c @ f_c), 1e-300)
        r = r_factor(f_o**2, (scale * f_c) ** 2)
        if r < best - 1e-9:
            best, found = r, turned
    return found


def alternatives(crystal: Crystal) -> IntArray:
    """(k, 3, 3) one matrix on indices of every coset of the lattice's rotations by the Laue class's, identity first."""
    proper = np.unique([r for r in crystal.laue_rotations if np.linalg.det(r) > 0], axis=0)
    matrices = lattice_matrices(crystal.reciprocal_basis, crystal.spacegroup, METRIC_TOLERANCE)
    classes = cosets(matrices, np.ascontiguousarray(proper.transpose(0, 2, 1)))
    order = np.argsort(np.abs(matrices - np.eye(3, dtype=int)).sum(axis=(1, 2)), kind="stable")
    first = [next(i for i in order if classes[i] == c) for c in range(classes.max() + 1)]
    return matrices[first]


def turned_model(crystal: Crystal, matrix: IntArray) -> Crystal | None:
    """The crystal whose reflection h is reflection `matrix` h of this one; None where its symbol then is another.

    Coordinates become matrixᵀ x, and the origin moves where that keeps the symmetry as it is written.
    """
    turn = matrix.T.astype(float)
    back = np.linalg.inv(turn)
    rotations = np.rint(turn @ crystal.rotations @ back).astype(int)
    translations = crystal.translations @ turn.T
    known = _by_rotation(crystal.rotations, crystal.translations)
    for shift in product(SHIFTS, repeat=3):
        moved = translations + shift - rotations @ np.array(shift)
        if all(_known(known, r, t) for r, t in zip(rotations, moved, strict=True)):
            xyz = crystal.xyz @ turn.T + shift
            return replace(crystal, xyz=xyz, u_ij=_turned_u(crystal, turn))
    return None


def _by_rotation(rotations: IntArray, translations: Array) -> dict[bytes, list[Array]]:
    known: dict[bytes, list[Array]] = {}
    for r, t in zip(rotations, translations, strict=True):
        known.setdefault(np.ascontiguousarray(r, dtype=int).tobytes(), []).append(t)
    return known


def _known(known: dict[bytes, list[Array]], rotation: IntArray, translation: Array) -> bool:
    candidates = known.get(np.ascontiguousarray(rotation, dtype=int).tobytes(), [])
    return any(np.abs(translation - t - np.rint(translation - t)).max() < 1e-4 for t in candidates)


def _turned_u(crystal: Crystal, turn: Array) -> Array:
    """U of the turned atoms, of the basis of unit vectors along a*, b*, c* as in a CIF; lengths of axes are kept."""
    out = crystal.u_ij.copy()
    length = np.linalg.norm(crystal.reciprocal_basis, axis=0)
    for i in np.flatnonzero(~np.isnan(out).any(axis=1)):
        beta = u_matrix(out[i]) * np.outer(length, length)
        u = turn @ beta @ turn.T / np.outer(length, length)
        out[i] = u[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    return out
