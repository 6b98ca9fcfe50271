"""Constraints that a user gives, as linear equations between parameters, and hydrogen atoms that ride."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.neighbours import bond_reach, bound_to, images
from nanoed.pipeline.refine.sites import equivalent_weights
from nanoed.pipeline.refine.spec import ConstraintSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.scattering import SITE_QUANTITIES

Array = NDArray[np.float64]
U_ISO, U_IJ = SITE_QUANTITIES.index("u_iso"), slice(5, 11)
MOST_HELD = 2.5
"""Hydrogen atoms on one atom, disordered ones by their occupancy; more are a group that turns."""


def equations(spec: ConstraintSpec, names: Sequence[str], start: Array) -> tuple[Array, Array]:
    """Rows (k, p) and right sides (k,) of the equations that parameters `names` (p) with values `start` must keep.

    Raises InputError for a pattern or a name that fits no parameter.
    """
    rows: list[Array] = []
    values: list[float] = []
    for pattern in spec.fixed:
        for k in matching(pattern, names, "constraints.fixed"):
            rows.append(np.eye(len(names))[k])
            values.append(float(start[k]))
    for group in spec.shared:
        found = sorted({k for pattern in group for k in matching(pattern, names, "constraints.shared")})
        for k in found[1:]:
            rows.append(np.eye(len(names))[found[0]] - np.eye(len(names))[k])
            values.append(0.0)
    for equation in spec.linear:
        row = np.zeros(len(names))
        for name, coefficient in equation.terms.items():
            row[matching(name, names, "constraints.linear")] += coefficient
        if not row.any():
            raise InputError(
                "all coefficients are zero", field="constraints.linear", value=equation.terms,
                allowed="an equation that holds something",
            )  # fmt: skip
        rows.append(row)
        values.append(float(row @ start) if equation.value is None else equation.value)
    return np.array(rows).reshape(-1, len(names)), np.array(values)


def matching(pattern: str, names: Sequence[str], field: str) -> list[int]:
    """Places of the names that match a pattern with * and ?; raises InputError for none."""
    found = [k for k, name in enumerate(names) if fnmatchcase(name, pattern)]
    if not found:
        allowed = f"patterns of {', '.join(names)}"
        raise InputError("fits no free parameter", field=field, value=pattern, allowed=allowed)
    return found


def satisfied(rows: Array, values: Array, start: Array) -> Array:
    """The start (p,) moved as little as possible so that rows @ start = values. Raises InputError if nothing does."""
    if not len(rows):
        return start
    moved: Array = start + np.linalg.pinv(rows) @ (values - rows @ start)
    if np.abs(rows @ moved - values).max() > 1e-9 * max(1.0, float(np.abs(values).max())):
        raise InputError("these equations contradict each other or the symmetry", field="constraints")
    return moved


def is_hydrogen(crystal: Crystal) -> NDArray[np.bool_]:
    """(n,) which sites are hydrogen or deuterium."""
    return np.array([gemmi.Element(e).atomic_number == 1 for e in crystal.elements], bool)


@dataclass(frozen=True, slots=True, eq=False)
class Rider:
    """A riding hydrogen site, the atom it is bound to, rotation (3, 3) of the bound image, U over the parent's U_eq."""

    site: int
    parent: int
    rotation: Array
    factor: float


def riders(crystal: Crystal, spec: ConstraintSpec) -> list[Rider]:
    """The hydrogen atoms that ride.

    Raises InputError for a hydrogen atom that is bound to nothing.
    """
    if spec.hydrogens != "riding":
        return []
    hydrogen, out = is_hydrogen(crystal), list[Rider]()
    for site in np.flatnonzero(hydrogen):
        near = [b for b in bound_to(crystal, int(site)) if not hydrogen[b.other]]
        if not near:
            raise InputError(
                "a riding hydrogen atom is bound to nothing", field="constraints.hydrogens",
                value=crystal.labels[site], allowed="fixed or free, or a model with its neighbour",
            )  # fmt: skip
        nearest = min(near, key=lambda b: b.length)
        factor = spec.riding_u_rotor if _swings(crystal, nearest.other, hydrogen) else spec.riding_u
        out.append(Rider(int(site), nearest.other, nearest.rotation, factor))
    return out


def _swings(crystal: Crystal, parent: int, hydrogen: NDArray[np.bool_]) -> bool:
    """Whether hydrogen atoms turn about the bond that holds their parent: on oxygen, or three on one atom."""
    if crystal.elements[parent] == "O":
        return True
    reach = bond_reach(crystal, parent)
    bound = [b for b in images(crystal, parent, float(reach.max())) if b.length <= reach[b.other]]
    return sum(float(crystal.occupancy[b.other]) for b in bound if hydrogen[b.other]) > MOST_HELD


def ride(crystal: Crystal, riding: Iterable[Rider], jacobian: Array) -> None:
    """Fill the rows of riding sites in the jacobian (n, 11, p): shifts of the parent's image, factor times its U_eq."""
    weights = equivalent_weights(crystal)
    for r in riding:
        jacobian[r.site, :3] = r.rotation @ jacobian[r.parent, :3]
        anisotropic = not np.isnan(crystal.u_ij[r.parent]).any()
        u_eq = weights @ jacobian[r.parent, U_IJ] if anisotropic else jacobian[r.parent, U_ISO]
        jacobian[r.site, U_ISO] = r.factor * u_eq
