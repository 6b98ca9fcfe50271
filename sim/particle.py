"""A particle: its shape in the crystal's frame, how it lies on the film, and what a beam through it meets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.streams import stream

if TYPE_CHECKING:
    from nanoed.sim.physics.crystal import Crystal
    from nanoed.sim.spec import Particle

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A convex particle centred at the origin of the crystal's Cartesian frame.

    axis : (3,) unit vector.  diameter, length : Å, across and along the axis.
    """

    shape: str
    diameter: float
    length: float
    axis: Array


def body_of(particle: Particle, crystal: Crystal) -> Body:
    """The particle's spec in Å and in the Cartesian frame of `crystal`."""
    axis = crystal.frac_to_cart @ np.asarray(particle.axis_uvw, float)
    length = particle.diameter_nm if particle.length_nm is None else particle.length_nm
    return Body(particle.shape, 10 * particle.diameter_nm, 10 * length, axis / np.linalg.norm(axis))


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


def lit_fraction(body: Body, to_lab: Array, beam_diameter: float) -> float:
    """Share of the particle's projected area inside a centred beam of `beam_diameter` Å."""
    reach = 0.5 * float(np.hypot(body.diameter, body.length))
    if 2 * reach <= beam_diameter or (
        body.shape in ("sphere", "ellipsoid") and max(body.diameter, body.length) <= beam_diameter
    ):
        return 1.0
    grid = np.linspace(-reach, reach, 401)
    x, y = np.meshgrid(grid, grid)
    covered = chord_map(body, to_lab, x, y) > 0
    return float((covered & (x * x + y * y <= 0.25 * beam_diameter**2)).sum() / covered.sum())
