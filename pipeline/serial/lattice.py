"""The lattice that every particle has: its nodes, its rotations, and those that the Laue class lacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.geometry import candidates, reciprocal_basis
from nanoed.pipeline.reduce.positions import constrained_cell
from nanoed.pipeline.reduce.symmetry import centring_absent, laue_rotations, metric_class
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class KnownLattice:
    """Lattice of the given cell with the metric of its Laue class.

    basis : (3, 3) 1/Å, columns a*, b*, c* in the crystal's Cartesian frame.  hkl : (m, 3) nodes up to the
    resolution limit, those that centring extinguishes left out.
    turns : (k, 3, 3) proper rotations of the lattice in that frame, identity first.
    matrices : (k, 3, 3) the same on indices: node h (a column) falls on `matrices` h.
    classes : (k,) coset of each rotation; equal numbers cannot be told apart by any intensity, number 0 is the
    proper part of the Laue class, all others are indexing ambiguities.
    """

    basis: Array
    hkl: Index
    turns: Array
    matrices: Index
    classes: Index

    @property
    def n_classes(self) -> int:
        return int(self.classes.max()) + 1

    @property
    def reindexing(self) -> Index:
        """(n_classes, 3, 3) one index matrix of every coset, the identity first."""
        first = [int(np.flatnonzero(self.classes == c)[0]) for c in range(self.n_classes)]
        return self.matrices[first]


def known_lattice(
    cell: tuple[float, ...], laue: str, spacegroup: str | None, d_star_max: float, tolerance: float
) -> KnownLattice:
    """The lattice of a cell (Å, degrees), its metric that of the Laue class.

    tolerance : relative deviation of lengths and angles up to which a rotation counts as one of the lattice.
    Raises InputError where the cell is further than that from the metric of the Laue class.
    """
    ideal = constrained_cell(metric_class(laue, spacegroup), cell)
    if np.abs(ideal / np.array(cell) - 1).max() > 2 * tolerance:
        allowed = f"the metric of {laue}, such as {', '.join(f'{x:.6g}' for x in ideal)}"
        raise InputError("the cell is not that of the Laue class", field="cell", value=cell, allowed=allowed)
    basis = reciprocal_basis(ideal)
    own = np.unique(laue_rotations(laue, spacegroup).transpose(0, 2, 1), axis=0)
    matrices = lattice_matrices(basis, spacegroup, tolerance)
    classes = cosets(matrices, own)
    order = np.lexsort((np.abs(matrices - np.eye(3, dtype=int)).sum(axis=(1, 2)), classes))
    matrices, classes = matrices[order], classes[order]
    turns = basis @ matrices @ np.linalg.inv(basis)
    hkl = candidates(basis, d_star_max)
    return KnownLattice(basis, hkl[~centring_absent(hkl, spacegroup)], _orthogonal(turns), matrices, classes)


def within(lattice: KnownLattice, d_star_max: float) -> KnownLattice:
    """The lattice with its nodes up to another limit, 1/Å."""
    g = lattice.hkl @ lattice.basis.T
    return replace(lattice, hkl=lattice.hkl[(g * g).sum(axis=1) <= d_star_max**2])


def lattice_matrices(basis: Array, spacegroup: str | None, tolerance: float) -> Index:
    """(k, 3, 3) matrices of -1, 0, 1 and determinant 1 that keep the metric and the centring."""
    every = np.array(list(product((-1, 0, 1), repeat=9)), dtype=np.int64).reshape(-1, 3, 3)
    every = every[np.rint(np.linalg.det(every)) == 1]
    metric = basis.T @ basis
    scale = np.sqrt(np.outer(np.diag(metric), np.diag(metric)))
    change = np.abs(every.transpose(0, 2, 1) @ metric @ every - metric) / scale
    every = every[change.max(axis=(1, 2)) < tolerance]
    nodes = np.array(list(product(range(-2, 3), repeat=3)))
    present = ~centring_absent(nodes, spacegroup)
    kept = [m for m in every if not centring_absent((nodes @ m.T)[present], spacegroup).any()]
    return np.array(kept)


def cosets(matrices: Index, laue: Index) -> Index:
    """(k,) number of the coset of each lattice matrix with respect to the Laue class; 0 holds the identity."""
    own = {m.tobytes() for m in np.ascontiguousarray(laue)}
    classes = np.full(len(matrices), -1, np.int64)
    identity = int(np.flatnonzero((matrices == np.eye(3, dtype=int)).all(axis=(1, 2)))[0])
    number = 0
    for i in [identity, *range(len(matrices))]:
        if classes[i] >= 0:
            continue
        back = np.rint(np.linalg.inv(matrices[i])).astype(np.int64)
        for j in range(len(matrices)):
            if np.ascontiguousarray(matrices[j] @ back).tobytes() in own:
                classes[j] = number
        number += 1
    return classes


def _orthogonal(turns: Array) -> Array:
    """The nearest rotations (k, 3, 3)."""
    left, _, right = np.linalg.svd(turns)
    return left @ right


def angle_between(first: Array, second: Array, turns: Array) -> Array:
    """(n,) rad between orientations (n, 3, 3), crystal to lab, modulo the rotations `turns` of the crystal."""
    trace = np.einsum("nij,qjk,nik->nq", first, turns, second)
    return np.arccos(np.clip((trace.max(axis=1) - 1) / 2, -1, 1))


def angles_of(orientation: Array) -> Array:
    """alpha, beta, omega (rad) with R_z(omega) R_x(alpha) R_y(beta) = orientation; (3,)."""
    m = orientation
    alpha = np.arcsin(np.clip(m[2, 1], -1, 1))
    return np.array([alpha, np.arctan2(-m[2, 0], m[2, 2]), np.arctan2(-m[0, 1], m[1, 1])])
