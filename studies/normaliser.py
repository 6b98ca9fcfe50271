"""Coordinate mappings that carry one description of a space group into another.

A mapping is x' = Q x + w (fractional); in the notation of International Tables (P, p), Q = P^-1 and
w = -P^-1 p. The mappings of a group onto itself are its affine normaliser; those that also preserve the cell
are its Euclidean normaliser.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

TRANSLATION_DENOMINATOR = 24
"""Every translation of a tabulated space group, in any of its settings, is a multiple of 1/24."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Operations of a space group: rotations (m, 3, 3) integer and translations (m, 3) in units of 1/24."""

    rotations: IntArray
    translations: IntArray

    @classmethod
    def of(cls, rotations: NDArray, translations: NDArray) -> Group:
        """From operations with fractional translations; centring translations are among the operations."""
        shifts = np.rint(np.asarray(translations) * TRANSLATION_DENOMINATOR).astype(np.int64)
        return cls(np.asarray(rotations, dtype=np.int64), shifts % TRANSLATION_DENOMINATOR)

    def centrings(self) -> IntArray:
        """Translations (k, 3), in units of 1/24, of the operations without rotation; 000 included."""
        pure = (self.rotations == np.eye(3, dtype=np.int64)).all(axis=(1, 2))
        return self.translations[pure]

    def point_group(self) -> tuple[IntArray, IntArray]:
        """Distinct rotations (n, 3, 3) and one translation (n, 3) of each, in units of 1/24."""
        _, first = np.unique(_codes(self.rotations), return_index=True)
        return self.rotations[first], self.translations[first]

    def primitive_basis(self) -> Array:
        """Columns: a basis (3, 3) of the lattice of translations, in units of the cell edges."""
        unit = TRANSLATION_DENOMINATOR
        vectors = np.vstack([self.centrings(), unit * np.eye(3, dtype=np.int64)])
        n_points = len(self.centrings())
        for three in combinations(vectors[vectors.any(axis=1)], 3):
            basis = np.array(three).T / unit
            if abs(abs(np.linalg.det(basis)) * n_points - 1) < 1e-9:
                return basis
        raise ValueError("the centring translations do not form a lattice")


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """x' = linear @ x + shift; `strain` is that of the mapped cell against the reference cell."""

    linear: IntArray
    shift: Array
    strain: float

    @property
    def improper(self) -> bool:
        """Whether the linear part turns a right-handed frame into a left-handed one."""
        return bool(np.linalg.det(self.linear) < 0)


def _codes(matrices: NDArray) -> IntArray:
    """One integer per 3 x 3 integer matrix, equal only for equal matrices (entries -8..8)."""
    powers = 17 ** np.arange(9, dtype=np.int64)
    flat = np.rint(matrices).astype(np.int64).reshape(*matrices.shape[:-2], 9)
    return (flat + 8) @ powers


@cache
def unimodular() -> tuple[IntArray, IntArray]:
    """All P (n, 3, 3) with entries -1, 0, 1 and determinant +-1, and their inverses (n, 3, 3), integer."""
    entries = np.array(list(product((-1, 0, 1), repeat=9)), dtype=np.int64).reshape(-1, 3, 3)
    determinant = np.rint(np.linalg.det(entries)).astype(np.int64)
    matrices = entries[np.abs(determinant) == 1]
    return matrices, np.rint(np.linalg.inv(matrices)).astype(np.int64)


def metric_strain(metric: Array, reference_metric: Array, basis_changes: NDArray) -> Array:
    """Strain of each changed cell against the reference cell.

    metric, reference_metric : (3, 3) Å^2.  basis_changes : (n, 3, 3), P.  Returns (n,): the Frobenius norm of
    (L^-1 P^T G P L^-T - 1) / 2 with L L^T = G_reference, zero for equal cells.
    """
    inverse = np.linalg.inv(np.linalg.cholesky(reference_metric))
    changed = np.swapaxes(basis_changes, 1, 2) @ metric @ basis_changes
    return np.linalg.norm(inverse @ changed @ inverse.T - np.eye(3), axis=(1, 2)) / 2


def linear_parts(
    metric: Array,
    group: Group,
    reference_metric: Array,
    reference: Group,
    tolerance: float,
    max_strain: float,
) -> list[tuple[IntArray, float]]:
    """Q that carry cell, lattice and point group into those of the reference, one per coset of it.

    Returns (Q, strain) pairs with a strain of at most `max_strain` and within `tolerance` of the smallest.
    """
    changes, inverses = unimodular()
    strain = metric_strain(metric, reference_metric, changes)
    near = np.flatnonzero(strain <= max_strain)
    rotations, _ = group.point_group()
    wanted, _ = reference.point_group()
    if near.size == 0 or len(rotations) != len(wanted):
        return []
    conjugated = inverses[near, None] @ rotations @ changes[near, None]
    near = near[np.isin(_codes(conjugated), _codes(wanted)).all(axis=1)]
    near = near[[_same_lattice(inverses[i], group, reference) for i in near]]
    if near.size == 0:
        return []
    near = near[strain[near] <= strain[near].min() + tolerance]
    return _coset_representatives(inverses[near], strain[near], wanted)


def _same_lattice(linear: IntArray, group: Group, reference: Group) -> bool:
    moved = (group.centrings() @ linear.T) % TRANSLATION_DENOMINATOR
    return {tuple(v) for v in moved.tolist()} == {tuple(v) for v in reference.centrings().tolist()}


def _coset_representatives(
    linear: IntArray, strain: Array, rotations: IntArray
) -> list[tuple[IntArray, float]]:
    """Of the Q that differ by a rotation of the reference group, the one most like the identity."""
    distance = np.abs(linear - np.eye(3, dtype=np.int64)).sum(axis=(1, 2)) - 0.5 * np.linalg.det(linear)
    distance -= 0.1 * linear.sum(axis=(1, 2))
    seen: set[int] = set()
    chosen = []
    for i in np.argsort(distance, kind="stable"):
        if int(_codes(linear[i])) not in seen:
            seen.update(_codes(rotations @ linear[i]).tolist())
            chosen.append((linear[i], float(strain[i])))
    return chosen


def origin_shifts(linear: IntArray, group: Group, reference: Group) -> Array:
    """Shifts w (k, 3) with which x' = Q x + w carries the operations of `group` into those of `reference`.

    Solves (R' - 1) w = Q t - t' modulo the reference lattice for every operation (R, t), with R' = Q R Q^-1,
    by exact integer elimination in a primitive basis. One w for each connected set of solutions: where the
    origin is free (`polar_directions`) any multiple of those directions may be added. Empty where no shift
    exists.
    """
    basis = reference.primitive_basis()
    to_primitive = np.rint(np.linalg.inv(basis)).astype(np.int64)
    rotations, translations = group.point_group()
    inverse = np.rint(np.linalg.inv(linear)).astype(np.int64)
    target_rotations, target_translations = reference.point_group()
    place = {code: i for i, code in enumerate(_codes(target_rotations).tolist())}
    order = [place[code] for code in _codes(linear @ rotations @ inverse).tolist()]
    right = (translations @ linear.T - target_translations[order]) @ to_primitive.T
    left = np.rint(to_primitive @ (target_rotations[order] - np.eye(3)) @ basis).astype(np.int64)
    equations = np.concatenate([left, right[:, :, None]], axis=2).reshape(-1, 4)
    solutions = _solve_modulo(equations)
    return np.array([(basis @ s) % 1.0 for s in solutions]).reshape(-1, 3)


def _solve_modulo(equations: IntArray) -> list[Array]:
    """All w in [0, 1)^3 with M w = d (mod 1); rows are (M | d), d in 1/24; free unknowns are set to 0."""
    echelon = _row_echelon(equations)
    if any(row[3] % TRANSLATION_DENOMINATOR for row in echelon if not any(row[:3])):
        return []
    solutions = [np.zeros(3)]
    for row in reversed([row for row in echelon if any(row[:3])]):
        column = next(i for i in range(3) if row[i])
        branches = []
        for partial in solutions:
            known = row[3] / TRANSLATION_DENOMINATOR - np.dot(row[:3], partial)
            for whole in range(abs(row[column])):
                step = partial.copy()
                step[column] = ((known + whole) / row[column]) % 1.0
                branches.append(step)
        solutions = branches
    return solutions


def _row_echelon(equations: IntArray) -> list[list[int]]:
    """Row echelon form over the integers (unimodular row operations) of distinct rows (M | d)."""
    rows = [list(map(int, row)) for row in np.unique(equations, axis=0)]
    done: list[list[int]] = []
    for column in range(3):
        while sum(1 for row in rows if row[column]) > 1:
            pivot = min((row for row in rows if row[column]), key=lambda row: abs(row[column]))
            for row in rows:
                if row is not pivot and row[column]:
                    factor = row[column] // pivot[column]
                    row[:] = [a - factor * b for a, b in zip(row, pivot, strict=True)]
        for row in [row for row in rows if row[column]]:
            rows.remove(row)
            done.append(row)
    return done + rows


def polar_directions(group: Group) -> Array:
    """Columns (3, k): fractional directions along which the origin is not fixed by symmetry (k = 0..3)."""
    rotations, _ = group.point_group()
    return null_space((rotations - np.eye(3)).reshape(-1, 3))


def mappings(
    metric: Array,
    group: Group,
    reference_metric: Array,
    reference: Group,
    tolerance: float,
    max_strain: float,
) -> list[Mapping]:
    """Every mapping of a group with its cell onto the reference's, up to operations of the reference.

    metric, reference_metric : (3, 3) Å^2. Order: proper first, then by strain, then nearest to the identity.
    """
    parts = linear_parts(metric, group, reference_metric, reference, tolerance, max_strain)
    found = [
        Mapping(linear, shift, strain)
        for linear, strain in parts
        for shift in origin_shifts(linear, group, reference)
    ]

    def rank(m: Mapping) -> tuple[bool, float, int, float]:
        wrapped = m.shift - np.rint(m.shift)
        distance = int(np.abs(m.linear - np.eye(3, dtype=np.int64)).sum())
        return m.improper, round(m.strain, 4), distance, float(np.abs(wrapped).sum())

    return sorted(found, key=rank)
