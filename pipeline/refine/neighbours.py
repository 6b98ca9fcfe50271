"""Atoms around a site: distances to symmetry images, and which of them are bound."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.crystal import Crystal

Array = NDArray[np.float64]
BOUND = 1.25
"""Atoms nearer than this times the sum of their covalent radii are bound."""
SAME_LENGTH_A = 1e-5
"""Neighbours of one label whose distances differ by less are equivalent."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbour:
    """An image R x + t of site `other` near site `site`; length : Å."""

    site: int
    other: int
    rotation: Array
    translation: Array
    length: float


def neighbours(crystal: Crystal, site: int, reach: float) -> list[Neighbour]:
    """Images within `reach` Å of a site, nearest first, one of those that are equivalent; itself is none."""
    cells = np.ceil(reach * np.linalg.norm(crystal.reciprocal_basis, axis=0)).astype(int)
    shifts = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in cells], indexing="ij"), -1).reshape(-1, 3)
    found: list[Neighbour] = []
    for other, x in enumerate(crystal.xyz):
        images = crystal.rotations @ x + crystal.translations
        away = images - crystal.xyz[site]
        base = -np.rint(away)
        every = (away + base)[:, None] + shifts
        length = np.linalg.norm(every @ crystal.frac_to_cart.T, axis=2)
        seen: list[float] = []
        for m, s in np.argwhere((length <= reach) & (length > 0.1)):
            if not any(abs(length[m, s] - known) < SAME_LENGTH_A for known in seen):
                seen.append(float(length[m, s]))
                moved = crystal.translations[m] + base[m] + shifts[s]
                found.append(
                    Neighbour(site, other, crystal.rotations[m].astype(float), moved, float(length[m, s]))
                )
    return sorted(found, key=lambda b: (b.length, b.other))


def bound_to(crystal: Crystal, site: int) -> list[Neighbour]:
    """Atoms bound to a site, by the covalent radii; two metals are not."""
    metal = np.array([gemmi.Element(e).is_metal for e in crystal.elements])
    radii = np.array([gemmi.Element(e).covalent_r for e in crystal.elements])
    near = neighbours(crystal, site, BOUND * float(radii[site] + radii.max()))
    return [
        b
        for b in near
        if b.length <= BOUND * (radii[site] + radii[b.other]) and not (metal[site] and metal[b.other])
    ]


def separation(crystal: Crystal, pair: Neighbour) -> Array:
    """Vector (3,) Å from the site to the image, at the crystal's present coordinates."""
    away = pair.rotation @ crystal.xyz[pair.other] + pair.translation - crystal.xyz[pair.site]
    return np.asarray(crystal.frac_to_cart @ away, np.float64)
