"""Free parameters of a structure: what the site symmetries leave, as a linear map onto the sites."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.scattering import SITE_QUANTITIES

Array = NDArray[np.float64]
U_ISO = SITE_QUANTITIES.index("u_iso")
SAME_PLACE = 1e-6
LARGEST_STEP_A, LARGEST_STEP_A2 = 0.15, 0.01
"""One cycle moves no atom further (Å) and no U_iso by more (Å²): beyond it the derivatives say nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """p free parameters of a crystal with n sites.

    names : of the parameters.  start : (p,) values.  jacobian : (n, 11, p), derivative of every site's
    SITE_QUANTITIES (fractional, Å²); values v stand for the site quantities of `crystal` plus jacobian @ (v - start).
    """

    crystal: Crystal
    names: tuple[str, ...]
    start: Array
    jacobian: Array

    def limited(self, step: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """The step (p,), shortened as a whole where it would carry an atom or a U_iso too far."""
        shift = self.jacobian @ step
        far = np.linalg.norm(shift[:, :3] @ self.crystal.frac_to_cart.T, axis=1).max() / LARGEST_STEP_A
        large = np.abs(shift[:, U_ISO]).max() / LARGEST_STEP_A2
        return step / max(1.0, float(far), float(large))

    def apply(self, values: Array) -> Crystal:
        """The crystal with parameters `values` (p,)."""
        shift = self.jacobian @ (values - self.start)
        return replace(
            self.crystal, xyz=self.crystal.xyz + shift[:, :3], u_iso=self.crystal.u_iso + shift[:, U_ISO]
        )

    def uncertainties(self, covariance: NDArray[np.floating[Any]]) -> dict[str, Array]:
        """s.u. of coordinates "xyz" (n, 3) and "u_iso" (n,) from the covariance (p, p) of the parameters."""
        variance = np.einsum("nqp,pr,nqr->nq", self.jacobian, covariance, self.jacobian)
        su = np.sqrt(np.maximum(variance, 0.0))
        return {"xyz": su[:, :3], "u_iso": su[:, U_ISO]}


def free_parameters(crystal: Crystal) -> Parameters:
    """Coordinates that the site symmetry leaves free and one U_iso per site; elements on one site share both.

    Anisotropic sites are given their U_eq. Raises InputError for a structure that leaves nothing to refine.
    """
    isotropic = replace(crystal, u_ij=np.full_like(crystal.u_ij, np.nan))
    names: list[str] = []
    start: list[float] = []
    columns: list[Array] = []
    for sites in _shared_sites(isotropic):
        label = isotropic.labels[sites[0]]
        for k, direction in _free_directions(isotropic, isotropic.xyz[sites[0]]):
            columns.append(_column(isotropic, sites, slice(0, 3), direction))
            names.append(f"{label}.{'xyz'[k]}")
            start.append(float(isotropic.xyz[sites[0], k]))
        columns.append(_column(isotropic, sites, U_ISO, 1.0))
        names.append(f"{label}.U_iso")
        start.append(float(isotropic.u_iso[sites[0]]))
    if not names:
        raise InputError("the model has no free parameters", field="model")
    return Parameters(isotropic, tuple(names), np.array(start), np.stack(columns, axis=-1))


def _column(crystal: Crystal, sites: list[int], quantity: int | slice, value: float | Array) -> Array:
    out = np.zeros((len(crystal.labels), len(SITE_QUANTITIES)))
    for site in sites:
        out[site, quantity] = value
    return out


def _shared_sites(crystal: Crystal) -> list[list[int]]:
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


def _free_directions(crystal: Crystal, x: Array) -> list[tuple[int, Array]]:
    """Coordinates that may move and the direction (3,) that each drags along, with a 1 at that coordinate.

    The mean of the site's operations projects on the free directions; its reduced row-echelon form is the basis.
    """
    turned = crystal.rotations @ x + crystal.translations - x
    stays = np.abs(turned - np.rint(turned)).max(axis=1) < 1e-4
    rows = crystal.rotations[stays].mean(axis=0).T.copy()
    found: list[tuple[int, Array]] = []
    for k in range(3):
        pivot = int(np.abs(rows[len(found) :, k]).argmax()) + len(found) if len(found) < 3 else 0
        if len(found) == 3 or abs(rows[pivot, k]) < 1e-9:
            continue
        rows[[len(found), pivot]] = rows[[pivot, len(found)]]
        rows[len(found)] /= rows[len(found), k]
        for j in range(3):
            if j != len(found):
                rows[j] -= rows[j, k] * rows[len(found)]
        found.append((k, rows[len(found)]))
    return [(k, rows[i].copy()) for i, (k, _) in enumerate(found)]
