"""A specimen atom by atom, for the multislice engine: cut from a crystal, strained, shaken, on a carbon film."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nanoed.sim.background import CARBON
from nanoed.sim.particle import inside
from nanoed.sim.physics.crystal import u_matrix

if TYPE_CHECKING:
    from nanoed.sim.particle import Body
    from nanoed.sim.physics.crystal import Crystal

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Tensor = tuple[float, float, float, float, float, float]
"""U11 U22 U33 U12 U13 U23 in the lab, Å²."""
U_CARBON = 0.006
"""Å²; mean square displacement of the film's atoms, that of graphite averaged over directions."""
CARBON_NEIGHBOURS_A = 1.35
"""No two atoms of the film are nearer: the first peak of amorphous carbon begins here."""


@dataclass(frozen=True, slots=True, eq=False)
class Atoms:
    """N atoms in the lab frame.

    species : element and displacement tensor of every kind.  kind : (N,) index into it.  xyz : (N, 3) Å.
    occupancy : (N,).
    """

    species: tuple[tuple[str, Tensor], ...]
    kind: IntArray
    xyz: Array
    occupancy: Array


def isotropic(u: float) -> Tensor:
    """The tensor of an atom that moves alike in all directions; u in Å²."""
    return (u, u, u, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Strain:
    """How a particle's atoms depart from their lattice.

    uniform_pct : xx, yy, zz, yz, xz, xy of the strain tensor in the crystal's Cartesian frame, percent.
    surface_pct, depth : radial displacement, the strain surface_pct at the surface decaying over `depth` Å inwards;
    positive is outwards.
    """

    uniform_pct: tuple[float, float, float, float, float, float] = (0, 0, 0, 0, 0, 0)
    surface_pct: float = 0.0
    depth: float = 5.0

    def __bool__(self) -> bool:
        return any(self.uniform_pct) or self.surface_pct != 0

    @property
    def lattice(self) -> Array:
        """(3, 3) that carries vectors of the unstrained lattice to those of the uniformly strained one."""
        xx, yy, zz, yz, xz, xy = 0.01 * np.asarray(self.uniform_pct)
        return np.array([[1 + xx, xy, xz], [xy, 1 + yy, yz], [xz, yz, 1 + zz]])


def cut_atoms(crystal: Crystal, body: Body, to_lab: Array, strain: Strain | None = None) -> Atoms:
    """Atoms of the crystal inside the particle, which is centred at the origin of both frames.

    to_lab : (3, 3) rotation from the crystal's Cartesian frame.
    strain : displaces the atoms after they are cut, so that their number does not depend on it.
    """
    site, operation, fractional = crystal.unit_cell_images()
    reach = 0.5 * body.extent
    most = np.ceil(reach * np.linalg.norm(crystal.reciprocal_basis, axis=0)).astype(int) + 1
    cells = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij"), -1).reshape(-1, 3)
    kept = []
    for i, x in enumerate(fractional):
        xyz = (cells + x) @ crystal.frac_to_cart.T
        xyz = xyz[inside(body, xyz)]
        kept.append((np.full(len(xyz), i), xyz))
    image, xyz = np.concatenate([k for k, _ in kept]), np.concatenate([x for _, x in kept])
    if strain:
        xyz = strained(xyz, body, strain)
    return _of_images(crystal, site, operation, image, xyz @ to_lab.T, to_lab)


def strained(xyz: Array, body: Body, strain: Strain) -> Array:
    """Atoms (n, 3), Å in the crystal's Cartesian frame about the particle's centre, after a strain.

    r -> r + ε r + s d r / (R + d) exp(-(R - |r|) / d), R the distance from the centre to the surface along r, ε the
    uniform tensor, s the radial strain at the surface, d its depth.
    """
    out = xyz @ strain.lattice.T
    if strain.surface_pct == 0:
        return np.asarray(out)
    r = np.maximum(np.linalg.norm(xyz, axis=1), 1e-9)
    surface = _surface_distance(body, xyz / r[:, None])
    move = 0.01 * strain.surface_pct * strain.depth * np.exp(-(surface - r) / strain.depth)
    return np.asarray(out + xyz * (move / (surface + strain.depth))[:, None])


def _surface_distance(body: Body, direction: Array) -> Array:
    """Å from the centre to the surface along unit vectors (n, 3); (n,)."""
    if body.shape == "polyhedron":
        with np.errstate(divide="ignore"):
            reach = body.distances / np.maximum(direction @ body.normals.T, 1e-12)
        return np.asarray(reach.min(axis=1))
    along = np.abs(direction @ body.axis)
    across = np.sqrt(np.maximum(1 - along**2, 0))
    if body.shape in ("sphere", "ellipsoid"):
        return np.asarray(0.5 / np.hypot(across / body.diameter, along / body.length))
    with np.errstate(divide="ignore"):
        return np.asarray(0.5 * np.minimum(body.diameter / across, body.length / along))


def carbon_film(
    low: Array, high: Array, rng: np.random.Generator, units_per_A3: float = CARBON.units_per_A3
) -> Atoms:
    """Amorphous carbon that fills the box from `low` to `high` (3,) Å.

    Random sequential addition: uniform draws, those nearer than CARBON_NEIGHBOURS_A to an earlier atom dropped, until
    the density is reached. It has the density of PHYSICS H5 and the excluded volume of atoms, which damps scattering by
    small angles, but no bond angles.
    """
    extent = np.asarray(high, float) - low
    wanted = round(units_per_A3 * float(np.prod(extent)))
    xyz = np.empty((0, 3))
    while len(xyz) < wanted:
        new = low + extent * rng.random((2 * (wanted - len(xyz)) + 8, 3))
        if len(xyz):
            new = new[cKDTree(xyz).query(new, distance_upper_bound=CARBON_NEIGHBOURS_A)[0] == np.inf]
        pairs = cKDTree(new).query_pairs(CARBON_NEIGHBOURS_A, output_type="ndarray")
        xyz = np.concatenate([xyz, np.delete(new, np.unique(pairs.max(axis=1, initial=0)), axis=0)])
    xyz = xyz[:wanted]
    return Atoms((("C", isotropic(U_CARBON)),), np.zeros(wanted, np.int64), xyz, np.ones(wanted))


def together(first: Atoms, second: Atoms) -> Atoms:
    """Both."""
    if len(second.kind) == 0:
        return first
    species = tuple(dict.fromkeys(first.species + second.species))
    kinds = [np.array([species.index(one) for one in atoms.species])[atoms.kind] for atoms in (first, second)]
    return Atoms(
        species,
        np.concatenate(kinds),
        np.concatenate([first.xyz, second.xyz]),
        np.concatenate([first.occupancy, second.occupancy]),
    )


def shaken(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """One frozen phonon (Einstein): every atom displaced by its own Gaussian of covariance U, and U = 0.

    Law: the mean of the wave over many draws is the wave of atoms smeared by exp(-2π² qᵀ U q), for a thin object.
    """
    value, axes = np.linalg.eigh(np.array([u_matrix(np.array(u)) for _, u in atoms.species]))
    root = axes * np.sqrt(np.maximum(value, 0))[:, None, :]
    moved = np.einsum("nij,nj->ni", root[atoms.kind], rng.standard_normal(atoms.xyz.shape))
    still = tuple((element, isotropic(0.0)) for element, _ in atoms.species)
    return replace(atoms, species=still, xyz=atoms.xyz + moved)


def _of_images(
    crystal: Crystal, site: IntArray, operation: IntArray, image: IntArray, xyz: Array, to_lab: Array
) -> Atoms:
    """Atoms at xyz (n, 3), each the `image` (n,) of the cell's; those of equal element and tensor are one species.

    site, operation : (N,) of the images of the cell.
    """
    lengths = np.linalg.norm(crystal.reciprocal_basis, axis=0)
    each: list[tuple[str, Tensor]] = []
    for j, by in zip(site, operation, strict=True):
        element, given = crystal.elements[j], crystal.u_ij[j]
        tensor = np.array(isotropic(float(crystal.u_iso[j])))
        if not np.isnan(given).any():
            star = u_matrix(given) * np.outer(lengths, lengths)
            turned = to_lab @ crystal.frac_to_cart @ crystal.rotations[by]
            u = turned @ star @ turned.T
            tensor = np.array([u[0, 0], u[1, 1], u[2, 2], u[0, 1], u[0, 2], u[1, 2]])
        u11, u22, u33, u12, u13, u23 = np.round(tensor, 9).tolist()
        each.append((element, (u11, u22, u33, u12, u13, u23)))
    species = tuple(dict.fromkeys(each))
    kind = np.array([species.index(one) for one in each])
    return Atoms(species, kind[image], xyz, crystal.occupancy[site[image]])
