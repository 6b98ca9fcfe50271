"""Free parameters of a structure: what symmetry and composition leave, as a linear map onto the sites."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.sites import (
    equivalent_weights,
    free_directions,
    free_tensors,
    isotropic_tensor,
    null_space,
    polar_directions,
    shared_sites,
)
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.scattering import SITE_QUANTITIES

Array = NDArray[np.float64]
AdpModel = Literal["isotropic", "anisotropic", "as_model"]
Occupancies = Literal["fixed", "sites", "composition"]
OCCUPANCY, U_ISO, U_IJ = SITE_QUANTITIES.index("occupancy"), SITE_QUANTITIES.index("u_iso"), slice(5, 11)
U_NAMES = ("U11", "U22", "U33", "U12", "U13", "U23")
LARGEST_STEP_A, LARGEST_STEP_A2 = 0.15, 0.01
"""One cycle moves no atom further (Å) and no U by more (Å²): beyond it the derivatives say nothing."""


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
        """The step (p,), shortened as a whole where it would carry an atom or a U too far."""
        shift = self.jacobian @ step
        far = np.linalg.norm(shift[:, :3] @ self.crystal.frac_to_cart.T, axis=1).max() / LARGEST_STEP_A
        large = np.abs(shift[:, U_ISO:]).max() / LARGEST_STEP_A2
        return step / max(1.0, float(far), float(large))

    def apply(self, values: NDArray[np.floating[Any]]) -> Crystal:
        """The crystal with parameters `values` (p,); u_iso of anisotropic sites is U_eq."""
        shift = self.jacobian @ (values - self.start)
        u_ij = self.crystal.u_ij + shift[:, U_IJ]
        u_iso = self.crystal.u_iso + shift[:, U_ISO]
        aniso = ~np.isnan(u_ij).any(axis=1)
        u_iso[aniso] = u_ij[aniso] @ equivalent_weights(self.crystal)
        return replace(
            self.crystal,
            xyz=self.crystal.xyz + shift[:, :3],
            occupancy=self.crystal.occupancy + shift[:, OCCUPANCY],
            u_iso=u_iso,
            u_ij=u_ij,
        )

    def uncertainties(self, covariance: NDArray[np.floating[Any]]) -> dict[str, Array]:
        """s.u. "xyz" (n, 3), "occupancy" (n,), "u_iso" (n,) and "u_ij" (n, 6) from the covariance (p, p).

        u_iso of an anisotropic site is that of U_eq.
        """
        full = np.einsum("nqp,pr,nsr->nqs", self.jacobian, covariance, self.jacobian)
        su = np.sqrt(np.maximum(np.diagonal(full, axis1=1, axis2=2), 0.0))
        row = equivalent_weights(self.crystal)
        aniso = ~np.isnan(self.crystal.u_ij).any(axis=1)
        of_eq = np.sqrt(np.maximum(np.einsum("q,nqs,s->n", row, full[:, U_IJ, U_IJ], row), 0.0))
        u_iso = np.where(aniso, of_eq, su[:, U_ISO])
        return {"xyz": su[:, :3], "occupancy": su[:, OCCUPANCY], "u_iso": u_iso, "u_ij": su[:, U_IJ]}


def free_parameters(
    crystal: Crystal, adp_model: AdpModel = "isotropic", occupancies: Occupancies = "fixed"
) -> Parameters:
    """Coordinates, displacement parameters and occupancies that symmetry and composition leave free.

    Elements on one site share coordinates and displacement. adp_model : of all sites, or as the model has them.
    occupancies : fixed; "sites": the elements of a mixed site exchange; "composition": so that the cell's
    composition stays. Polar axes are fixed by the centre of charge (Flack & Schwarzenbach 1988, Acta Cryst. A44, 499).
    Raises InputError for a structure that leaves nothing to refine.
    """
    crystal = _with_adps(crystal, adp_model)
    names: list[str] = []
    start: list[float] = []
    columns: list[Array] = []
    for sites in shared_sites(crystal):
        for name, value, column in _of_site(crystal, sites, occupancies != "fixed"):
            names.append(name)
            start.append(value)
            columns.append(column)
    if not names:
        raise InputError("the model has no free parameters", field="model")
    jacobian = np.stack(columns, axis=-1)
    rows = _constraints(crystal, jacobian, occupancies)
    free, basis = null_space(rows, len(names))
    return Parameters(crystal, tuple(names[k] for k in free), np.array(start)[free], jacobian @ basis)


def _with_adps(crystal: Crystal, adp_model: AdpModel) -> Crystal:
    u_ij = crystal.u_ij.copy()
    if adp_model == "isotropic":
        u_ij[:] = np.nan
    elif adp_model == "anisotropic":
        for i in np.flatnonzero(np.isnan(u_ij).any(axis=1)):
            u_ij[i] = isotropic_tensor(crystal, crystal.u_iso[i])
    return replace(crystal, u_ij=u_ij)


def _of_site(crystal: Crystal, sites: list[int], mixing: bool) -> Iterator[tuple[str, float, Array]]:
    """Name, start value and column (n, 11) of every parameter of one position."""
    first = sites[0]
    label, x = crystal.labels[first], crystal.xyz[first]
    for k, direction in free_directions(crystal, x):
        yield f"{label}.{'xyz'[k]}", float(x[k]), _column(crystal, sites, slice(0, 3), direction)
    if np.isnan(crystal.u_ij[first]).any():
        yield f"{label}.U_iso", float(crystal.u_iso[first]), _column(crystal, sites, U_ISO, 1.0)
    else:
        for k, tensor in free_tensors(crystal, x):
            yield (
                f"{label}.{U_NAMES[k]}",
                float(crystal.u_ij[first, k]),
                _column(crystal, sites, U_IJ, tensor),
            )
    if mixing and len(sites) > 1:
        for site in sites:
            value = float(crystal.occupancy[site])
            yield f"{crystal.labels[site]}.occupancy", value, _column(crystal, [site], OCCUPANCY, 1.0)


def _column(crystal: Crystal, sites: list[int], quantity: int | slice, value: float | Array) -> Array:
    out = np.zeros((len(crystal.labels), len(SITE_QUANTITIES)))
    for site in sites:
        out[site, quantity] = value
    return out


def _constraints(crystal: Crystal, jacobian: Array, occupancies: Occupancies) -> Array:
    """Rows (k, p) that shifts of the parameters must be orthogonal to."""
    rows = []
    counts = crystal.multiplicities * crystal.occupancy
    charge = counts * np.array([_atomic_number(e) for e in crystal.elements])
    for direction in polar_directions(crystal):
        along = direction / (direction @ direction)
        rows.append(np.einsum("n,q,nqp->p", charge / charge.sum(), along, jacobian[:, :3]))
    if occupancies != "fixed":
        rows += [jacobian[sites, OCCUPANCY].sum(axis=0) for sites in shared_sites(crystal) if len(sites) > 1]
    if occupancies == "composition":
        for element in sorted(set(crystal.elements)):
            of_element = crystal.multiplicities * np.array([e == element for e in crystal.elements])
            rows.append(of_element @ jacobian[:, OCCUPANCY])
    return np.array(rows).reshape(-1, jacobian.shape[2])


def _atomic_number(element: str) -> int:
    return int(gemmi.Element(element).atomic_number)
