"""Bond lengths of a refined structure with s.u. from the whole covariance of its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nanoed.pipeline.refine.neighbours import Neighbour, bound_to, separation
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.sites import shared_sites
from nanoed.sim.physics.crystal import Crystal


@dataclass(frozen=True, slots=True)
class Bond:
    """Labels of two atoms, their distance and its s.u., Å, and the second's operation as a CIF has it (4_565)."""

    first: str
    second: str
    length_A: float
    su_A: float
    symmetry: str


def bonds(refinement: Refinement) -> list[Bond]:
    """Bound atoms by the covalent radii, each pair of sites once where equivalent, positions that share atoms once."""
    crystal, out = refinement.crystal, []
    first = [group[0] for group in shared_sites(crystal)]
    for site in first:
        for pair in bound_to(crystal, site):
            if pair.other in first and pair.other >= site:
                su = _su(refinement, pair)
                labels = crystal.labels[site], crystal.labels[pair.other]
                out.append(Bond(*labels, pair.length, su, _symmetry(crystal, pair)))
    return out


def _su(refinement: Refinement, pair: Neighbour) -> float:
    parameters = refinement.parametrised
    if parameters is None:
        return 0.0
    away = separation(refinement.crystal, pair)
    along = away / np.linalg.norm(away) @ refinement.crystal.frac_to_cart
    slope = along @ pair.rotation @ parameters.jacobian[pair.other, :3]
    slope = slope - along @ parameters.jacobian[pair.site, :3]
    variance = float(slope @ refinement.covariance @ slope)
    return float(np.sqrt(max(variance, 0.0)))


def _symmetry(crystal: Crystal, pair: Neighbour) -> str:
    """Number of the operation and translations about 5; "." for the atom as listed."""
    same = (crystal.rotations == pair.rotation).all(axis=(1, 2))
    shift = pair.translation - crystal.translations
    whole = np.abs(shift - np.rint(shift)).max(axis=1) < 1e-6
    k = int(np.flatnonzero(same & whole)[0])
    cells = np.rint(shift[k]).astype(int) + 5
    code = f"{k + 1}_{''.join(str(c) for c in cells)}"
    return "." if code == "1_555" else code
