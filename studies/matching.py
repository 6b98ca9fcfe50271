"""Pairing of the sites of two structures over every description that symmetry allows.

Atoms that share a position are one site. The best pairing is the one with the least sum of m u^2, m the
multiplicity of a site and u its distance from its partner in the cell of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from nanoed.sim.physics.crystal import Crystal
from nanoed.studies.normaliser import (
    TRANSLATION_DENOMINATOR,
    Array,
    Group,
    IntArray,
    Mapping,
    polar_directions,
)


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """Atoms of a structure grouped by position.

    rows : the crystal's rows at each site.  keys : the elements there, joined by "/".
    xyz : (n, 3) fractional.  multiplicity : (n,).
    """

    rows: tuple[tuple[int, ...], ...]
    keys: tuple[str, ...]
    xyz: Array
    multiplicity: Array

    @classmethod
    def of(cls, crystal: Crystal, tolerance_A: float) -> Sites:
        """Rows nearer than `tolerance_A` to the first row of a site belong to it (mixed occupation)."""
        rows: list[list[int]] = []
        for i, position in enumerate(crystal.xyz):
            for site in rows:
                apart = position - crystal.xyz[site[0]]
                if np.linalg.norm(crystal.frac_to_cart @ (apart - np.rint(apart))) < tolerance_A:
                    site.append(i)
                    break
            else:
                rows.append([i])
        ordered = tuple(tuple(sorted(site, key=lambda i: (crystal.elements[i], i))) for site in rows)
        first = [site[0] for site in ordered]
        return cls(
            rows=ordered,
            keys=tuple("/".join(crystal.elements[i] for i in site) for site in ordered),
            xyz=np.asarray(crystal.xyz, dtype=float)[first],
            multiplicity=np.asarray(crystal.multiplicities, dtype=float)[first],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What sites are paired with: sites, space group, (3, 3) cell edges in Å as columns, free directions."""

    sites: Sites
    group: Group
    edges: Array
    free: Array

    @classmethod
    def of(cls, crystal: Crystal, sites: Sites) -> Target:
        """The sites of a reference crystal with its symmetry and cell."""
        group = Group.of(crystal.rotations, crystal.translations)
        return cls(sites, group, crystal.frac_to_cart, polar_directions(group))

    def projector(self) -> Array:
        """Projection (3, 3) of fractional vectors on the free directions, perpendicular in Å."""
        basis = self.edges @ self.free
        return self.free @ np.linalg.solve(basis.T @ basis, basis.T) @ self.edges


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A mapping with its pairing, one entry per site of the reference.

    shift : (3,) the mapping's shift with the part along free directions.
    pairing : (n,) index of the site that stands there.  delta : (n, 3) its fractional displacement from the
    reference site.  operation : (n,) the operation of the reference group that brings it there after the
    mapping.  cost : sum of m u^2 in Å^2.
    """

    mapping: Mapping
    shift: Array
    pairing: IntArray
    delta: Array
    operation: IntArray
    cost: float


def best_match(candidates: list[Mapping], sites: Sites, target: Target, tie_A2: float) -> Match | None:
    """The candidate with the least sum of m u^2, None where sites cannot be paired at all.

    A later candidate must be better by `tie_A2` times the sum of the multiplicities.
    """
    allowed = np.array(
        [
            [
                key == other and m == n
                for other, n in zip(target.sites.keys, target.sites.multiplicity, strict=True)
            ]
            for key, m in zip(sites.keys, sites.multiplicity, strict=True)
        ]
    )
    tie = tie_A2 * target.sites.multiplicity.sum()
    best: Match | None = None
    for mapping in candidates:
        moved = sites.xyz @ mapping.linear.T + mapping.shift
        for start in _polar_starts(moved, allowed, target):
            match = _settle(mapping, moved, start, allowed, target)
            if match is not None and (best is None or match.cost < best.cost - tie):
                best = match
    return best


def _polar_starts(moved: Array, allowed: NDArray[np.bool_], target: Target) -> Array:
    """Shifts (k, 3) along the free directions that put one moved site beside a site it can pair with.

    The site is the one with the fewest partners. Without free directions the only start is zero.
    """
    if target.free.shape[1] == 0:
        return np.zeros((1, 3))
    anchor = int(allowed.sum(axis=1).argmin())
    group = target.group
    images = group.rotations @ moved[anchor] + group.translations / TRANSLATION_DENOMINATOR
    delta = (target.sites.xyz[allowed[anchor]][:, None] - images).reshape(-1, 3)
    starts = (delta - np.rint(delta)) @ target.projector().T
    return np.unique(np.round(starts, 6), axis=0)


def _settle(
    mapping: Mapping, moved: Array, start: Array, allowed: NDArray[np.bool_], target: Target
) -> Match | None:
    """Pair the sites; along free directions remove the weighted mean displacement, until nothing changes."""
    multiplicity = target.sites.multiplicity
    shift = np.array(start)
    index = np.arange(len(multiplicity))
    best: Match | None = None
    while True:
        orbits = nearest_images(moved + shift, target.sites.xyz, target.group, target.edges)
        pairing = pair_sites(orbits.squared, allowed, multiplicity)
        if pairing is None:
            return None
        chosen = pairing, index
        cost = float(orbits.squared[chosen] @ multiplicity)
        if best is not None and cost > best.cost - 1e-12:
            return best
        delta = orbits.delta[chosen]
        best = Match(mapping, mapping.shift + shift, pairing, delta, orbits.operation[chosen], cost)
        if target.free.shape[1] == 0:
            return best
        shift = shift - target.projector() @ np.average(delta, axis=0, weights=multiplicity)


@dataclass(frozen=True, slots=True, eq=False)
class Orbits:
    """Nearest symmetry images of n moved sites to m targets.

    delta : (n, m, 3) image - target, fractional.  squared : (n, m) Å^2.  operation : (n, m) index of the
    operation that makes the image.
    """

    delta: Array
    squared: Array
    operation: IntArray


def nearest_images(moved: Array, targets: Array, group: Group, edges: Array) -> Orbits:
    """For every moved site (n, 3) and target (m, 3) the nearest member of the moved site's orbit.

    edges : (3, 3), columns the cell edges in Å. In a skew cell the neighbouring translations are tried too.
    """
    shifts = group.translations / TRANSLATION_DENOMINATOR
    images = np.einsum("gij,nj->gni", group.rotations, moved) + shifts[:, None]
    delta = images[:, :, None] - targets
    delta = delta - np.rint(delta)
    delta = (delta + _neighbours(edges)[:, None, None, None]).reshape(-1, *delta.shape[1:])
    squared = np.square(delta @ edges.T).sum(axis=-1)
    best = squared.argmin(axis=0)
    i, j = np.ogrid[: len(moved), : len(targets)]
    return Orbits(delta[best, i, j], squared[best, i, j], best % len(group.rotations))


def _neighbours(edges: Array) -> Array:
    """Lattice translations (k, 3), 000 first, that can shorten a vector with components within +-1/2.

    None along an axis that is perpendicular to both others.
    """
    metric = edges.T @ edges
    skew = np.abs(metric - np.diag(np.diag(metric))).max(axis=1) > 1e-6 * metric.max()
    return np.array(list(product(*[(0, 1, -1) if s else (0,) for s in skew])), dtype=float)


def pair_sites(squared: Array, allowed: NDArray[np.bool_], multiplicity: Array) -> IntArray | None:
    """Which moved site stands on each target: the allowed pairing with the least sum of m u^2.

    squared : (n, n) Å^2, moved by target.  multiplicity : (n,) of the targets.  Returns (n,) indices of moved
    sites, None where no complete pairing is allowed.
    """
    worst = float((squared * multiplicity).max()) + 1.0
    cost = np.where(allowed, squared * multiplicity, worst * (len(multiplicity) + 1))
    row, column = linear_sum_assignment(cost)
    if not allowed[row, column].all():
        return None
    pairing = np.empty(len(row), dtype=np.int64)
    pairing[column] = row
    return pairing
