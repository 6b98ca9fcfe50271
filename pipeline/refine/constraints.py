"""Constraints that a user gives, as linear equations between parameters, and hydrogen atoms that ride."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.neighbours import bound_to
from nanoed.pipeline.refine.sites import equivalent_weights
from nanoed.pipeline.refine.spec import ConstraintSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.scattering import SITE_QUANTITIES

Array = NDArray[np.float64]
U_ISO, U_IJ = SITE_QUANTITIES.index("u_iso"), slice(5, 11)


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


def riders(crystal: Crystal, spec: ConstraintSpec) -> list[tuple[int, int, Array]]:
    """Riding hydrogen site, site of the atom it is bound to, and rotation (3, 3) of the bound image.

    Raises InputError for a hydrogen atom that is bound to nothing.
    """
    if spec.hydrogens != "riding":
        return []
    hydrogen, out = is_hydrogen(crystal), []
    for site in np.flatnonzero(hydrogen):
        near = [b for b in bound_to(crystal, int(site)) if not hydrogen[b.other]]
        if not near:
            raise InputError(
                "a riding hydrogen atom is bound to nothing", field="constraints.hydrogens",
                value=crystal.labels[site], allowed="fixed or free, or a model with its neighbour",
            )  # fmt: skip
        nearest = min(near, key=lambda b: b.length)
        out.append((int(site), nearest.other, nearest.rotation))
    return out


def ride(crystal: Crystal, riding: Iterable[tuple[int, int, Array]], factor: float, jacobian: Array) -> None:
    """Fill the rows of riding sites in the jacobian (n, 11, p): shifts of the parent's image, factor times its U_eq."""
    weights = equivalent_weights(crystal)
    for site, parent, rotation in riding:
        jacobian[site, :3] = rotation @ jacobian[parent, :3]
        anisotropic = not np.isnan(crystal.u_ij[parent]).any()
        u_eq = weights @ jacobian[parent, U_IJ] if anisotropic else jacobian[parent, U_ISO]
        jacobian[site, U_ISO] = factor * u_eq
