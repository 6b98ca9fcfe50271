"""Restraints on bond lengths and displacements, as residuals in units of their s.u. with derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.neighbours import Neighbour, bound_to, neighbours, separation
from nanoed.pipeline.refine.sites import SAME_PLACE, equivalent_weights, shared_sites
from nanoed.pipeline.refine.spec import AdpRestraint, BondRestraint, RestraintSpec
from nanoed.sim.physics.crystal import Crystal, u_matrix
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.scattering import SITE_QUANTITIES

Array = NDArray[np.float64]
Row = tuple[float, Array]
"""Residual and its derivative by every site's quantities (n, 11)."""
U_ISO, U_IJ = SITE_QUANTITIES.index("u_iso"), slice(5, 11)
WINDOW = 0.25
"""Bonds are those whose length is within this share of the target."""
UPPER = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class Restraints:
    """Which pairs and sites are restrained; found once, in the start model."""

    bonds: tuple[tuple[Neighbour, BondRestraint], ...] = ()
    pairs: tuple[tuple[Neighbour, AdpRestraint], ...] = ()
    sites: tuple[tuple[int, AdpRestraint], ...] = ()

    def evaluate(self, crystal: Crystal) -> tuple[Array, Array]:
        """Residuals (m,), (target - value) / su, and derivatives of value / su by SITE_QUANTITIES (m, n, 11)."""
        rows = [*self._of_bonds(crystal), *self._of_pairs(crystal), *self._of_sites(crystal)]
        slopes = np.array([slope for _, slope in rows])
        return np.array([r for r, _ in rows]), slopes.reshape(-1, *_nothing(crystal).shape)

    def _of_bonds(self, crystal: Crystal) -> Iterator[Row]:
        for bond, asked in self.bonds:
            away = separation(crystal, bond)
            length = float(np.linalg.norm(away))
            along = away / length @ crystal.frac_to_cart / asked.su_A
            slope = _nothing(crystal)
            slope[bond.site, :3] -= along
            slope[bond.other, :3] += along @ bond.rotation
            yield (asked.length_A - length) / asked.su_A, slope

    def _of_pairs(self, crystal: Crystal) -> Iterator[Row]:
        for pair, asked in self.pairs:
            own, own_slope = _tensor(crystal, pair.site, np.eye(3))
            other, other_slope = _tensor(crystal, pair.other, pair.rotation)
            difference = own - other
            by_u = _nothing(crystal)[None] + np.zeros((6, 1, 1))
            by_u[:, pair.site] += own_slope
            by_u[:, pair.other] -= other_slope
            if asked.kind == "rigid_bond":
                yield _along(crystal, pair, difference, by_u, asked.su_A2)
            else:
                for value, slope in zip(difference, by_u, strict=True):
                    yield -float(value) / asked.su_A2, slope / asked.su_A2

    def _of_sites(self, crystal: Crystal) -> Iterator[Row]:
        weights = equivalent_weights(crystal)
        for site, asked in self.sites:
            tensor, by_u = _tensor(crystal, site, np.eye(3))
            for k in range(6):
                sphere = float(k < 3)
                slope = _nothing(crystal)
                slope[site] = by_u[k]
                slope[site, U_IJ] -= sphere * weights
                value = tensor[k] - sphere * weights @ crystal.u_ij[site]
                yield -float(value) / asked.su_A2, slope / asked.su_A2


def _nothing(crystal: Crystal) -> Array:
    return np.zeros((len(crystal.labels), len(SITE_QUANTITIES)))


def _tensor(crystal: Crystal, site: int, rotation: Array) -> tuple[Array, Array]:
    """Cartesian U11 U22 U33 U12 U13 U23 (6,) Å² of a site's image, and derivatives by SITE_QUANTITIES (6, 11)."""
    slope = np.zeros((6, len(SITE_QUANTITIES)))
    if np.isnan(crystal.u_ij[site]).any():
        slope[:3, U_ISO] = 1.0
        return crystal.u_iso[site] * slope[:, U_ISO], slope
    lengths = np.linalg.norm(crystal.reciprocal_basis, axis=0)
    to_cart = crystal.frac_to_cart @ rotation * lengths
    for k, unit in enumerate(np.eye(6)):
        made = to_cart @ u_matrix(unit) @ to_cart.T
        slope[:, 5 + k] = [made[i, j] for i, j in UPPER]
    return slope[:, U_IJ] @ crystal.u_ij[site], slope


def _along(crystal: Crystal, pair: Neighbour, difference: Array, by_u: Array, su: float) -> Row:
    """Difference of the mean-square displacements along the bond, the bond's own turning included."""
    away = separation(crystal, pair)
    length = float(np.linalg.norm(away))
    unit = away / length
    product = np.array([unit[i] * unit[j] * (1 if i == j else 2) for i, j in UPPER])
    slope = np.einsum("k,knq->nq", product, by_u)
    tensor = u_matrix(difference)
    turning = 2 * (np.eye(3) - np.outer(unit, unit)) @ tensor @ unit / length @ crystal.frac_to_cart
    slope[pair.site, :3] -= turning
    slope[pair.other, :3] += turning @ pair.rotation
    return -float(product @ difference) / su, slope / su


def restraints_of(crystal: Crystal, spec: RestraintSpec) -> Restraints:
    """The restraints on a crystal; raises InputError for one that fits no bond or no site."""
    bonds = tuple((bond, asked) for asked in spec.bonds for bond in _bonds(crystal, asked))
    pairs, sites = [], []
    for asked in spec.adps:
        own = _anisotropic(crystal, asked)
        if asked.kind == "isotropic":
            sites += [(site, asked) for site in own]
            continue
        found = [b for site in own for b in bound_to(crystal, site) if b.other in own and b.other >= site]
        if not found:
            raise InputError("no atoms that match are bound", field="restraints.adps", value=asked.atoms)
        pairs += [(b, asked) for b in found if not _alike_by_symmetry(crystal, b, asked)]
    return Restraints(bonds, tuple(pairs), tuple(sites))


def _alike_by_symmetry(crystal: Crystal, pair: Neighbour, asked: AdpRestraint) -> bool:
    """Whether symmetry alone keeps the restraint, so that it is no observation.

    Two images of one site have the same tensor where an inversion or a translation carries one to the other, and the
    same displacement along their bond where an operation exchanges them, which turns the bond round.
    """
    if pair.other != pair.site:
        return False
    x = crystal.xyz[pair.site]
    image = pair.rotation @ x + pair.translation
    for rotation, translation in zip(crystal.rotations, crystal.translations, strict=True):
        away = rotation @ x + translation - image
        if np.abs(away - np.rint(away)).max() > SAME_PLACE:
            continue
        if abs(np.trace(rotation)) == 3:
            return True
        if asked.kind == "rigid_bond" and np.abs(rotation @ (image - x) + image - x).max() < SAME_PLACE:
            return True
    return False


def _bonds(crystal: Crystal, asked: BondRestraint) -> list[Neighbour]:
    first, second = asked.atoms
    for label in asked.atoms:
        if label not in crystal.labels:
            allowed = ", ".join(crystal.labels)
            raise InputError("no such atom", field="restraints.bonds.atoms", value=label, allowed=allowed)
    reach = (1 + WINDOW) * asked.length_A
    near = neighbours(crystal, crystal.labels.index(first), reach)
    found = [
        b for b in near if crystal.labels[b.other] == second and b.length >= (1 - WINDOW) * asked.length_A
    ]
    if not found:
        allowed = f"atoms within {100 * WINDOW:g} % of {asked.length_A} Å"
        raise InputError("no such bond", field="restraints.bonds.atoms", value=asked.atoms, allowed=allowed)
    return found


def _anisotropic(crystal: Crystal, asked: AdpRestraint) -> list[int]:
    """Positions with anisotropic displacements where a label matches. Raises InputError for none."""
    found = [
        group[0]
        for group in shared_sites(crystal)
        if any(fnmatchcase(crystal.labels[i], pattern) for i in group for pattern in asked.atoms)
        and not np.isnan(crystal.u_ij[group[0]]).any()
    ]
    if not found:
        raise InputError(
            "no atoms with anisotropic displacements match", field="restraints.adps.atoms", value=asked.atoms,
            allowed=f"patterns of {', '.join(crystal.labels)}, with adp_model anisotropic",
        )  # fmt: skip
    return found
