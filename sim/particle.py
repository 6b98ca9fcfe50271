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
    along = xyz @ body.axis
    across2 = np.square(xyz).sum(1) - along**2
    r, h = 0.5 * body.diameter, 0.5 * body.length
    if body.shape in ("sphere", "ellipsoid"):
        return across2 / r**2 + along**2 / h**2 <= 1
    return (across2 <= r**2) & (np.abs(along) <= h)
