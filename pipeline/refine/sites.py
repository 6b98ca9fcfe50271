"""What the symmetry of a site, a shared position, a composition and a polar axis leave free, as linear algebra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.crystal import SAME_SITE_A, Crystal, u_matrix

Array = NDArray[np.float64]
SAME_PLACE = 1e-6
RIGHT_A2 = 1e-12
U_PLACES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Where U11 U22 U33 U12 U13 U23 stand in the tensor."""


def shared_sites(crystal: Crystal) -> list[list[int]]:
    """Sites grouped by position."""
    groups: list[list[int]] = []
    for i, x in enumerate(crystal.xyz):
        for group in groups:
            d = x - crystal.xyz[group[0]]
            if np.abs(d - np.rint(d)).max() < SAME_PLACE:
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def stabiliser(crystal: Crystal, x: Array) -> Array:
    """Rotations (m, 3, 3) of the operations that leave the position x (3,) where it is, to SAME_SITE_A."""
    return crystal.rotations[_stays(crystal, x)[0]].astype(float)


def _stays(crystal: Crystal, x: Array) -> tuple[NDArray[np.bool_], Array]:
    """Which operations (m,) leave x in place, and how far all of them carry it (m, 3), fractional."""
    away = crystal.rotations @ x + crystal.translations - x
    away -= np.rint(away)
    return np.linalg.norm(away @ crystal.frac_to_cart.T, axis=1) < SAME_SITE_A, away


def on_special_positions(crystal: Crystal) -> Crystal:
    """The crystal with each site that is rounded off its special position put back onto it, the mean of its images."""
    xyz = crystal.xyz.copy()
    for site, x in enumerate(crystal.xyz):
        stays, away = _stays(crystal, x)
        xyz[site] += away[stays].mean(axis=0)
    return replace(crystal, xyz=xyz)


def free_directions(crystal: Crystal, x: Array) -> list[tuple[int, Array]]:
    """Coordinates that may move and the direction (3,) that each drags along, with a 1 at that coordinate.

    The mean of the site's operations projects on the free directions; its reduced row-echelon form is the basis.
    """
    return echelon(stabiliser(crystal, x).mean(axis=0).T)


def free_tensors(crystal: Crystal, x: Array) -> list[tuple[int, Array]]:
    """Components of U_ij that are free at x, each with the tensor (6,) that it drags along."""
    return echelon(_tensor_projection(crystal, x))


def symmetric_tensor(crystal: Crystal, x: Array, u6: Array) -> Array:
    """U_ij (6,) with the symmetry of the site at x: u6 itself to 1e-12 Å², else the mean of its images."""
    projected = u6 @ _tensor_projection(crystal, x)
    return u6 if np.abs(projected - u6).max() <= RIGHT_A2 else np.asarray(projected, np.float64)


def _tensor_projection(crystal: Crystal, x: Array) -> Array:
    """(6, 6) on whose rows the components of U_ij are projected by the symmetry of the site at x.

    With U* = N U N, N = diag(a*, b*, c*), an operation R of the site demands U* = R U* Rᵀ; the mean of these over
    the site's operations is the projection (Peterse & Palm 1966, Acta Cryst. 20, 147).
    """
    lengths = np.linalg.norm(crystal.reciprocal_basis, axis=0)
    outer = np.outer(lengths, lengths)
    turns = stabiliser(crystal, x)
    rows = np.empty((6, 6))
    for k, unit in enumerate(np.eye(6)):
        star = u_matrix(unit) * outer
        mean = np.einsum("mij,jk,mlk->il", turns, star, turns) / len(turns) / outer
        rows[k] = [mean[i, j] for i, j in U_PLACES]
    return rows


def isotropic_tensor(crystal: Crystal, u_iso: float) -> Array:
    """U_ij (6,) of a sphere: U* = U_iso G*, G* the reciprocal metric."""
    basis = crystal.reciprocal_basis
    metric, lengths = basis.T @ basis, np.linalg.norm(basis, axis=0)
    return np.array([u_iso * metric[i, j] / (lengths[i] * lengths[j]) for i, j in U_PLACES])


def equivalent_weights(crystal: Crystal) -> Array:
    """The row (6,) whose product with U_ij is U_eq, a third of the trace of the Cartesian tensor."""
    lengths = np.linalg.norm(crystal.reciprocal_basis, axis=0)
    to_cart = crystal.frac_to_cart * lengths
    return np.array([np.trace(to_cart @ u_matrix(unit) @ to_cart.T) / 3 for unit in np.eye(6)])


def polar_directions(crystal: Crystal) -> Array:
    """Directions (k, 3) along which the origin is free: what all rotations of the group leave in place."""
    return np.array([v for _, v in echelon(crystal.rotations.mean(axis=0).T)]).reshape(-1, 3)


def echelon(rows: Array) -> list[tuple[int, Array]]:
    """Reduced row-echelon form: pivot column and row of each independent row; the pivot's value is 1."""
    rows = np.array(rows, float)
    found: list[int] = []
    for k in range(rows.shape[1]):
        if len(found) == len(rows):
            break
        pivot = int(np.abs(rows[len(found) :, k]).argmax()) + len(found)
        if abs(rows[pivot, k]) < 1e-9:
            continue
        at = len(found)
        rows[[at, pivot]] = rows[[pivot, at]]
        rows[at] /= rows[at, k]
        others = np.arange(len(rows)) != at
        rows[others] -= np.outer(rows[others, k], rows[at])
        found.append(k)
    return [(k, rows[i].copy()) for i, k in enumerate(found)]


def null_space(rows: Array, p: int) -> tuple[list[int], Array]:
    """Parameters that stay free under rows @ shift = 0, and the shifts (p, free) that a unit step of each makes.

    Each constraint gives up the parameter with its largest coefficient.
    """
    rows = np.array(rows, float).reshape(-1, p)
    given_up: list[tuple[int, int]] = []
    for i in range(len(rows)):
        k = int(np.abs(rows[i]).argmax())
        if abs(rows[i, k]) < 1e-9:
            continue
        rows[i] /= rows[i, k]
        others = np.arange(len(rows)) != i
        rows[others] -= np.outer(rows[others, k], rows[i])
        given_up.append((i, k))
    free = [k for k in range(p) if k not in {k for _, k in given_up}]
    basis = np.zeros((p, len(free)))
    basis[free, np.arange(len(free))] = 1
    for i, k in given_up:
        basis[k] = -rows[i, free]
    return free, basis
