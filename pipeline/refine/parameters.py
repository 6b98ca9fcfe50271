"""Free parameters of a structure: what symmetry and composition leave, as a linear map onto the sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.constraints import Rider, equations, is_hydrogen, ride, riders, satisfied
from nanoed.pipeline.refine.restraints import Restraints, restraints_of
from nanoed.pipeline.refine.sites import (
    equivalent_weights,
    free_directions,
    free_tensors,
    isotropic_tensor,
    null_space,
    on_special_positions,
    polar_directions,
    shared_sites,
    symmetric_tensor,
)
from nanoed.pipeline.refine.spec import ConstraintSpec, RefineSpec
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
MOSAICITY, TWIN, ABSORPTION = "mosaicity_deg", "twin_fraction", "absorption"
LARGEST_EXTRA_STEP = {MOSAICITY: 0.3, TWIN: 0.2, ABSORPTION: 0.1}
OFF_LATTICE = 0.1
"""An index of a twin's second domain further than this from a whole number is no reflection of it."""
UNCONSTRAINED, UNRESTRAINED = ConstraintSpec(), Restraints()
NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """p free parameters of a crystal with n sites.

    names : of the parameters.  start : (p,) values.  jacobian : (n, 11, p), derivative of every site's
    SITE_QUANTITIES (fractional, Å²); values v stand for the site quantities of `crystal` plus jacobian @ (v - start).
    Parameters of no site (LARGEST_EXTRA_STEP names them) have columns of zeros; the mosaicity's value is its log.
    """

    crystal: Crystal
    names: tuple[str, ...]
    start: Array
    jacobian: Array
    restraints: Restraints = UNRESTRAINED

    def place(self, name: str) -> int | None:
        """Where a parameter stands; None if it is not refined."""
        return self.names.index(name) if name in self.names else None

    def restrained(self, values: NDArray[np.floating[Any]]) -> tuple[Array, Array]:
        """Residuals (m,) of the restraints in units of their s.u., and derivatives (m, p) of what they restrain."""
        residual, slope = self.restraints.evaluate(self.apply(values))
        return residual, np.einsum("mnq,nqp->mp", slope, self.jacobian)

    def shown(self, values: Array, su: Array) -> tuple[Array, Array]:
        """Values and s.u. (p,) as they are told: the mosaicity itself in place of its log."""
        place = self.place(MOSAICITY)
        if place is None:
            return values, su
        told, told_su = values.copy(), su.copy()
        told[place] = np.exp(values[place])
        told_su[place] = told[place] * su[place]
        return told, told_su

    def limited(self, step: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """The step (p,), shortened as a whole where it would carry an atom or a U too far."""
        shift = self.jacobian @ step
        far = np.linalg.norm(shift[:, :3] @ self.crystal.frac_to_cart.T, axis=1).max() / LARGEST_STEP_A
        large = np.abs(shift[:, U_ISO:]).max() / LARGEST_STEP_A2
        extra = [
            abs(step[k]) / most
            for name, most in LARGEST_EXTRA_STEP.items()
            if (k := self.place(name)) is not None
        ]
        return step / max(1.0, float(far), float(large), *map(float, extra))

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


def parameters_of(model: Crystal, spec: RefineSpec, by_frames: bool = True) -> Parameters:
    """The parameters of a refinement by `spec`, with its constraints, restraints and extra parameters.

    by_frames : with those that only frames have, mosaicity and absorption.
    """
    extras = extra_parameters(spec)
    if not by_frames:
        extras = {name: value for name, value in extras.items() if name == TWIN}
    found = free_parameters(model, spec.adp_model, spec.occupancies, spec.constraints, extras)
    return replace(found, restraints=restraints_of(found.crystal, spec.restraints))


def extra_parameters(spec: RefineSpec) -> dict[str, float]:
    """Name and start value of refined parameters that no site has; of the mosaicity the log."""
    twin = spec.twin
    asked = {
        MOSAICITY: (spec.refine_mosaicity, float(np.log(max(spec.mosaicity_deg, 1e-300)))),
        TWIN: (twin is not None and twin.refine, 0.0 if twin is None else twin.fraction),
        ABSORPTION: (spec.refine_absorption, spec.absorption),
    }
    return {name: value for name, (refined, value) in asked.items() if refined}


def free_parameters(
    crystal: Crystal,
    adp_model: AdpModel = "isotropic",
    occupancies: Occupancies = "fixed",
    constraints: ConstraintSpec = UNCONSTRAINED,
    extras: Mapping[str, float] = NOTHING,
) -> Parameters:
    """Coordinates, displacement parameters and occupancies that symmetry, composition and constraints leave free.

    Elements on one site share coordinates and displacement. adp_model : of all sites, or as the model has them.
    occupancies : fixed; "sites": the elements of a mixed site exchange; "composition": so that the cell's
    composition stays. Polar axes are fixed by the centre of charge (Flack & Schwarzenbach 1988, Acta Cryst. A44, 499),
    unless a fixed atom does it. extras : parameters of no site, last in the list.
    Raises InputError for a structure that leaves nothing to refine and constraints that cannot be kept.
    """
    crystal = with_adps(on_special_positions(crystal), adp_model)
    riding = riders(crystal, constraints)
    hydrogen = is_hydrogen(crystal)
    passive = np.flatnonzero(hydrogen) if constraints.hydrogens == "fixed" else [r.site for r in riding]
    crystal = _riding_displacements(crystal, riding)
    names, start, columns = [], [], []
    for sites in shared_sites(crystal):
        for name, value, column in _of_site(crystal, sites, occupancies != "fixed", constraints):
            if sites[0] not in passive:
                names.append(name)
                start.append(value)
                columns.append(column)
    names += list(extras)
    start += list(extras.values())
    if not names:
        raise InputError("the model has no free parameters", field="model")
    columns += [np.zeros((len(crystal.labels), len(SITE_QUANTITIES)))] * len(extras)
    jacobian = np.stack(columns, axis=-1)
    ride(crystal, riding, jacobian)
    return _constrained(crystal, names, np.array(start), jacobian, occupancies, constraints)


def _constrained(
    crystal: Crystal,
    names: list[str],
    start: Array,
    jacobian: Array,
    occupancies: Occupancies,
    constraints: ConstraintSpec,
) -> Parameters:
    """The parameters that the equations leave, at a start that keeps them."""
    given, values = equations(constraints, names, start)
    shares = _exchange(crystal, jacobian, occupancies, constraints)
    rows = np.vstack([given, shares])
    moved = satisfied(rows, np.concatenate([values, shares @ start]), start)
    crystal = Parameters(crystal, tuple(names), start, jacobian).apply(moved)
    rows = np.vstack([rows, _origin(crystal, jacobian, rows)])
    free, basis = null_space(rows, len(names))
    if not free:
        raise InputError("the model has no free parameters", field="constraints")
    return Parameters(crystal, tuple(names[k] for k in free), moved[free], jacobian @ basis)


def _riding_displacements(crystal: Crystal, riding: list[Rider]) -> Crystal:
    """The crystal with isotropic riding atoms whose U is a multiple of their parent's U_eq."""
    u_iso, u_ij = crystal.u_iso.copy(), crystal.u_ij.copy()
    for r in riding:
        u_iso[r.site], u_ij[r.site] = r.factor * u_iso[r.parent], np.nan
    return replace(crystal, u_iso=u_iso, u_ij=u_ij)


def with_adps(crystal: Crystal, adp_model: AdpModel) -> Crystal:
    """The crystal with isotropic or anisotropic sites throughout, or as it is; U_eq stays.

    Given tensors get the symmetry of their site, and elements on one site the displacement of the first.
    """
    u_iso, u_ij = crystal.u_iso.copy(), crystal.u_ij.copy()
    for sites in shared_sites(crystal):
        u_iso[sites], u_ij[sites] = u_iso[sites[0]], u_ij[sites[0]]
    if adp_model == "isotropic":
        u_ij[:] = np.nan
    for i in np.flatnonzero(~np.isnan(u_ij).any(axis=1)):
        u_ij[i] = symmetric_tensor(crystal, crystal.xyz[i], u_ij[i])
    if adp_model == "anisotropic":
        for i in np.flatnonzero(np.isnan(u_ij).any(axis=1)):
            u_ij[i] = isotropic_tensor(crystal, u_iso[i])
    aniso = ~np.isnan(u_ij).any(axis=1)
    u_iso[aniso] = u_ij[aniso] @ equivalent_weights(crystal)
    return replace(crystal, u_ij=u_ij, u_iso=u_iso)


def _of_site(
    crystal: Crystal, sites: list[int], mixing: bool, constraints: ConstraintSpec
) -> Iterator[tuple[str, float, Array]]:
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
    for site in sites:
        if (mixing and len(sites) > 1) or _is_free(crystal.labels[site], constraints):
            value = float(crystal.occupancy[site])
            yield f"{crystal.labels[site]}.occupancy", value, _column(crystal, [site], OCCUPANCY, 1.0)


def _is_free(label: str, constraints: ConstraintSpec) -> bool:
    """Whether the occupancy of an atom is refined by itself."""
    return any(fnmatchcase(label, pattern) for pattern in constraints.free_occupancies)


def _column(crystal: Crystal, sites: list[int], quantity: int | slice, value: float | Array) -> Array:
    out = np.zeros((len(crystal.labels), len(SITE_QUANTITIES)))
    for site in sites:
        out[site, quantity] = value
    return out


def _exchange(
    crystal: Crystal, jacobian: Array, occupancies: Occupancies, constraints: ConstraintSpec
) -> Array:
    """Rows (k, p): sums of occupancies over mixed sites, and of elements over the cell, that stay."""
    rows = []
    if occupancies != "fixed":
        rows += [
            jacobian[sites, OCCUPANCY].sum(axis=0)
            for sites in shared_sites(crystal)
            if len(sites) > 1 and not any(_is_free(crystal.labels[i], constraints) for i in sites)
        ]
    if occupancies == "composition":
        for element in sorted(set(crystal.elements)):
            of_element = crystal.multiplicities * np.array([e == element for e in crystal.elements])
            rows.append(of_element @ jacobian[:, OCCUPANCY])
    return np.array(rows).reshape(-1, jacobian.shape[2])


def _origin(crystal: Crystal, jacobian: Array, rows: Array) -> Array:
    """Rows (k, p) that hold the centre of charge along every polar direction in which all atoms can still move."""
    counts = crystal.multiplicities * crystal.occupancy
    charge = counts * np.array([_atomic_number(e) for e in crystal.elements])
    _, basis = null_space(rows, jacobian.shape[2])
    shifts = (jacobian[:, :3] @ basis).reshape(3 * len(crystal.labels), -1)
    out = []
    for direction in polar_directions(crystal):
        uniform = np.tile(direction, len(crystal.labels))
        moves = np.linalg.lstsq(shifts, uniform, rcond=None)[0] if shifts.shape[1] else np.empty(0)
        if np.abs(shifts @ moves - uniform).max() < 1e-9:
            along = direction / (direction @ direction)
            out.append(np.einsum("n,q,nqp->p", charge / charge.sum(), along, jacobian[:, :3]))
    return np.array(out).reshape(-1, jacobian.shape[2])


def _atomic_number(element: str) -> int:
    return int(gemmi.Element(element).atomic_number)
