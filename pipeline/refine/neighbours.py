"""Atoms around a site: distances to symmetry images, and which of them are bound."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.sites import stabiliser
from nanoed.sim.physics.crystal import Crystal

Array = NDArray[np.float64]
BOUND = 1.25
"""Atoms nearer than this times the sum of their covalent radii are bound."""
SAME_IMAGE_A = 1e-3
"""Images nearer to each other than this are one."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbour:
    """An image R x + t of site `other` near site `site`; length : Å."""

    site: int
    other: int
    rotation: Array
    translation: Array
    length: float


def neighbours(crystal: Crystal, site: int, reach: float) -> list[Neighbour]:
    """Images within `reach` Å of a site, nearest first, one of those that are equivalent; itself is none.

    Equivalent: the symmetry of the site carries one image to the other; two images of the site itself also where an
    operation carries one pair to the other pair.
    """
    kept: list[Neighbour] = []
    known = np.empty((0, 3))
    turns = stabiliser(crystal, crystal.xyz[site])
    for pair in images(crystal, site, reach):
        away = pair.rotation @ crystal.xyz[pair.other] + pair.translation - crystal.xyz[site]
        same = [other for other, b in zip(known, kept, strict=True) if b.other == pair.other]
        if not _carried(crystal, away, np.array(same).reshape(-1, 3), turns, pair):
            kept.append(pair)
            known = np.vstack([known, away])
    return kept


def _carried(crystal: Crystal, away: Array, known: Array, turns: Array, pair: Neighbour) -> bool:
    """Whether symmetry carries a pair, whose image is `away` (3,) fractional, to one that is known (k, 3)."""
    carried = turns @ away
    if pair.other == pair.site:
        back = -np.linalg.solve(pair.rotation, away)
        carried = np.vstack([carried, turns @ back])
    apart = (known[:, None] - carried) @ crystal.frac_to_cart.T
    return bool((np.linalg.norm(apart, axis=2) < SAME_IMAGE_A).any())


def images(crystal: Crystal, site: int, reach: float) -> list[Neighbour]:
    """All images within `reach` Å of a site, nearest first; itself is none."""
    cells = np.ceil(reach * np.linalg.norm(crystal.reciprocal_basis, axis=0)).astype(int)
    shifts = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in cells], indexing="ij"), -1).reshape(-1, 3)
    found: list[Neighbour] = []
    for other, x in enumerate(crystal.xyz):
        images = crystal.rotations @ x + crystal.translations
        away = images - crystal.xyz[site]
        base = -np.rint(away)
        every = (away + base)[:, None] + shifts
        length = np.linalg.norm(every @ crystal.frac_to_cart.T, axis=2)
        seen = np.empty((0, 3))
        for m, s in np.argwhere((length <= reach) & (length > 0.1)):
            at = crystal.frac_to_cart @ every[m, s]
            if (np.linalg.norm(seen - at, axis=1) < SAME_IMAGE_A).any():
                continue
            seen = np.vstack([seen, at])
            moved = crystal.translations[m] + base[m] + shifts[s]
            found.append(
                Neighbour(site, other, crystal.rotations[m].astype(float), moved, float(length[m, s]))
            )
    return sorted(found, key=lambda b: (b.length, b.other))


def bound_to(crystal: Crystal, site: int) -> list[Neighbour]:
    """Atoms bound to a site, by the covalent radii; two metals are not."""
    metal = np.array([gemmi.Element(e).is_metal for e in crystal.elements])
    reach = bond_reach(crystal, site)
    near = neighbours(crystal, site, float(reach.max()))
    return [b for b in near if b.length <= reach[b.other] and not (metal[site] and metal[b.other])]


def bond_reach(crystal: Crystal, site: int) -> Array:
    """Å up to which every site (n,) counts as bound to one, by the covalent radii."""
    radii = np.array([gemmi.Element(e).covalent_r for e in crystal.elements])
    return np.asarray(BOUND * (radii[site] + radii), np.float64)


def separation(crystal: Crystal, pair: Neighbour) -> Array:
    """Vector (3,) Å from the site to the image, at the crystal's present coordinates."""
    away = pair.rotation @ crystal.xyz[pair.other] + pair.translation - crystal.xyz[pair.site]
    return np.asarray(crystal.frac_to_cart @ away, np.float64)
