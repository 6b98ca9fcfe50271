"""A particle: its shape in the crystal's frame, how it lies on the film, and what a beam through it meets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.polyhedron import polyhedron_chords, vertices, volume
from nanoed.sim.streams import stream

if TYPE_CHECKING:
    from nanoed.sim.physics.crystal import Crystal
    from nanoed.sim.spec import Particle

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Atoms:
    """N atoms in the lab frame.

    species : element and isotropic displacement parameter U (Å²) of every kind.  kind : (N,) index into it.
    xyz : (N, 3) Å.  occupancy : (N,).
    """

    species: tuple[tuple[str, float], ...]
    kind: IntArray
    xyz: Array
    occupancy: Array


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A convex particle centred at the origin of the crystal's Cartesian frame.

    axis : (3,) unit vector.  diameter, length : Å, across and along the axis; of a polyhedron, the diameter of
    the sphere of equal volume.  normals, distances : (m, 3) unit vectors and (m,) Å of a polyhedron's faces.
    """

    shape: str
    diameter: float
    length: float
    axis: Array
    normals: Array = field(default_factory=lambda: np.empty((0, 3)))
    distances: Array = field(default_factory=lambda: np.empty(0))

    @property
    def extent(self) -> float:
        """Diameter of the sphere about the origin that holds the particle, Å."""
        if self.shape == "polyhedron":
            return 2 * float(np.linalg.norm(vertices(self.normals, self.distances), axis=1).max())
        if self.shape in ("sphere", "ellipsoid"):
            return max(self.diameter, self.length)
        return float(np.hypot(self.diameter, self.length))

    def scaled(self, factor: float) -> Body:
        """The same shape, `factor` times the size."""
        diameter, length = factor * self.diameter, factor * self.length
        return replace(self, diameter=diameter, length=length, distances=factor * self.distances)


def body_of(particle: Particle, crystal: Crystal) -> Body:
    """The particle's spec in Å and in the Cartesian frame of `crystal`."""
    axis = crystal.frac_to_cart @ np.asarray(particle.axis_uvw, float)
    axis /= np.linalg.norm(axis)
    length = particle.diameter_nm if particle.length_nm is None else particle.length_nm
    body = Body(particle.shape, 10 * particle.diameter_nm, 10 * length, axis)
    if particle.shape != "polyhedron":
        return body
    normals, distances = faces_of(particle.faces, crystal)
    size = 10 * particle.diameter_nm / (6 / np.pi * volume(normals, distances)) ** (1 / 3)
    return replace(body, normals=normals, distances=size * distances)


def faces_of(faces: Sequence[tuple[int, int, int, float]], crystal: Crystal) -> tuple[Array, Array]:
    """Unit normals (m, 3) in the crystal's Cartesian frame and distances (m,) of the faces and their equivalents.

    Raises InputError when they do not close a particle.
    """
    found: dict[tuple[int, ...], float] = {}
    for *hkl, distance in faces:
        for index in np.array(hkl) @ np.asarray(crystal.laue_rotations):
            found.setdefault(tuple(int(i) for i in index), distance)
    normals = np.array(list(found)) @ crystal.reciprocal_basis.T
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    if np.linalg.matrix_rank(normals, tol=1e-6) < 3:
        raise InputError(
            "the faces leave the particle open", field="particle.faces", value=faces, allowed="a closed form"
        )
    return normals, np.array(list(found.values()))


def mounting(particle: Particle, body: Body, seed: int) -> Array:
    """Rotation from the crystal's Cartesian frame to the lab at zero tilt, (3, 3).

    The long axis is inclined to the film plane by an angle uniform in sine within inclination_max_deg, at a
    random azimuth; the roll about it is random.
    """
    rng = stream(seed, "mounting")
    azimuth, roll = rng.uniform(0, 2 * np.pi, 2)
    sine = np.sin(np.radians(particle.inclination_max_deg)) * rng.uniform(-1, 1)
    cosine = np.sqrt(1 - sine**2)
    long_axis = np.array([cosine * np.cos(azimuth), cosine * np.sin(azimuth), sine])
    return _frame_about(long_axis, roll) @ _frame_about(body.axis, 0.0).T


def _frame_about(axis: Array, roll: float) -> Array:
    """Right-handed orthonormal columns (u, v, axis) with u turned by `roll` about the axis."""
    helper = np.eye(3)[int(np.argmin(np.abs(axis)))]
    u = np.cross(helper, axis)
    u /= np.linalg.norm(u)
    v = np.cross(axis, u)
    return np.column_stack([np.cos(roll) * u + np.sin(roll) * v, np.cos(roll) * v - np.sin(roll) * u, axis])


def chord_map(body: Body, to_lab: Array, x: Array, y: Array) -> Array:
    """Length of the beam's path through the particle at lab position (x, y), Å, in the shape of x.

    to_lab : (3, 3) rotation from the crystal's Cartesian frame.  x, y : Å.  Exact: intersection of the ray
    along z with the quadric, or with the infinite cylinder and the slab between its end faces.
    """
    a = to_lab @ body.axis
    along = x * a[0] + y * a[1]
    across2 = x * x + y * y
    r, h = 0.5 * body.diameter, 0.5 * body.length
    if body.shape == "polyhedron":
        return polyhedron_chords(body.normals @ to_lab.T, body.distances, x, y)
    if body.shape in ("sphere", "ellipsoid"):
        k = 1 / h**2 - 1 / r**2
        qa, qb = 1 / r**2 + k * a[2] ** 2, k * a[2] * along
        qc = across2 / r**2 + k * along**2 - 1
        return 2 * np.sqrt(np.maximum(qb * qb - qa * qc, 0)) / qa
    tiny = 1e-12
    qa = max(1 - a[2] ** 2, tiny)
    qb, qc = -a[2] * along, across2 - along**2 - r * r
    root = np.sqrt(np.maximum(qb * qb - qa * qc, 0))
    enter, leave = (-qb - root) / qa, (-qb + root) / qa
    if abs(a[2]) > tiny:
        face = np.sort(np.stack([(-h - along) / a[2], (h - along) / a[2]]), axis=0)
        enter, leave = np.maximum(enter, face[0]), np.minimum(leave, face[1])
        return np.maximum(leave - enter, 0)
    return np.where(np.abs(along) <= h, leave - enter, 0.0)


def inside(body: Body, xyz: Array) -> NDArray[np.bool_]:
    """Whether points (n, 3), Å in the crystal's Cartesian frame, lie in the particle; (n,)."""
    if body.shape == "polyhedron":
        return np.asarray((xyz @ body.normals.T <= body.distances).all(axis=1))
    if body.shape == "polyhedron":
        return np.asarray((xyz @ body.normals.T <= body.distances).all(1))
    along = xyz @ body.axis
    across2 = np.square(xyz).sum(1) - along**2
    r, h = 0.5 * body.diameter, 0.5 * body.length
    if body.shape in ("sphere", "ellipsoid"):
        return across2 / r**2 + along**2 / h**2 <= 1
    return (across2 <= r**2) & (np.abs(along) <= h)


def cut_atoms(crystal: Crystal, body: Body, to_lab: Array) -> Atoms:
    """Atoms of the crystal inside the particle, which is centred at the origin of both frames.

    to_lab : (3, 3) rotation from the crystal's Cartesian frame. Anisotropic sites move isotropically with their U_eq.
    """
    site, fractional = crystal.unit_cell_atoms()
    reach = 0.5 * body.extent
    most = np.ceil(reach * np.linalg.norm(crystal.reciprocal_basis, axis=0)).astype(int) + 1
    cells = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij"), -1).reshape(-1, 3)
    kept = []
    for i, x in enumerate(fractional):
        xyz = (cells + x) @ crystal.frac_to_cart.T
        xyz = xyz[inside(body, xyz)]
        kept.append((np.full(len(xyz), site[i]), xyz))
    sites = np.concatenate([k for k, _ in kept])
    return _of_sites(crystal, sites, np.concatenate([x for _, x in kept]) @ to_lab.T)


def slab_atoms(crystal: Crystal, supercell: IntArray) -> tuple[Atoms, Array, Array]:
    """Atoms of one right-angled cell of a slab, its edges (3,) Å, and the crystal's orientation.

    supercell : (3, 3) integers, columns are the edges along the lab's x, y, z in units of a, b, c. Atoms lie in
    0 <= x, y and -z_edge <= z < 0. The orientation (3, 3) carries the crystal's Cartesian frame to the lab.
    Raises InputError if the edges are not at right angles or not right-handed.
    """
    edges = crystal.frac_to_cart @ np.asarray(supercell)
    lengths = np.linalg.norm(edges, axis=0)
    to_lab = (edges / lengths).T
    if not np.allclose(to_lab @ to_lab.T, np.eye(3), atol=1e-9) or np.linalg.det(to_lab) < 0:
        raise InputError(
            "not a right-angled cell", field="supercell", value=np.asarray(supercell).tolist(),
            allowed="integers whose columns make a right-angled, right-handed cell",
        )  # fmt: skip
    site, fractional = crystal.unit_cell_atoms()
    most = int(np.abs(supercell).sum(1).max())
    steps = np.arange(-most - 1, most + 2)
    cells = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 1, 3)
    inner = (cells + fractional) @ np.linalg.inv(supercell).T + 1e-9
    here = ((inner >= 0) & (inner < 1)).all(-1)
    xyz = inner[here] * lengths - np.array([0, 0, lengths[2]])
    return _of_sites(crystal, np.broadcast_to(site, here.shape)[here], xyz), lengths, to_lab


def shaken(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """One frozen phonon (Einstein): every atom displaced by its own Gaussian of variance U per axis, and U = 0.

    Law: the mean of the wave over many draws is the wave of atoms smeared by exp(-2π² U q²), for a thin object.
    """
    u = np.array([u for _, u in atoms.species])
    moved = atoms.xyz + np.sqrt(u)[atoms.kind, None] * rng.standard_normal(atoms.xyz.shape)
    return Atoms(tuple((element, 0.0) for element, _ in atoms.species), atoms.kind, moved, atoms.occupancy)


def _of_sites(crystal: Crystal, sites: IntArray, xyz: Array) -> Atoms:
    """Atoms at xyz (n, 3) of the crystal's sites (n,); sites of equal element and U are one species."""
    each = [(element, float(u)) for element, u in zip(crystal.elements, crystal.u_iso, strict=True)]
    species = tuple(dict.fromkeys(each))
    kind = np.array([species.index(one) for one in each])
    return Atoms(species, kind[sites], xyz, crystal.occupancy[sites])
