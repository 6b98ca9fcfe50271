"""What a beam meets in a convex particle: the distribution of its chords along any direction.

A chord through a cylinder lies in a plane that contains the beam and the axis, offset by v from it; that plane cuts
the cylinder in a rectangle, whose chords are a trapezium. Ellipsoids of revolution have P(t) = 2t / T².
Both are exact; the fine quadrature is condensed to a few Gauss nodes that reproduce its moments.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.polyhedron import polyhedron_chord_areas

Array = NDArray[np.float64]
FINE = 24


class Shape(Protocol):
    """A convex body: sphere, ellipsoid, cylinder or plate by its measures, polyhedron by its faces; Å."""

    @property
    def shape(self) -> str: ...
    @property
    def diameter(self) -> float: ...
    @property
    def length(self) -> float: ...
    @property
    def axis(self) -> Array: ...


def chord_distribution(body: Shape, direction: Array, n: int = 12) -> tuple[Array, Array, float]:
    """Gauss nodes of the area-weighted distribution of chords along a direction.

    body : its axis and `direction` (3,) in the same frame.  Returns thickness (n,) Å, weights (n,) of sum 1, and the
    projected area, Å². Law: area · <t> is the particle's volume.
    """
    if body.shape == "polyhedron":
        t, w = polyhedron_chord_areas(body.normals, body.distances, direction)  # type: ignore[attr-defined]
        return *gauss_nodes(t, w / w.sum(), n), float(w.sum())
    cosine = float(abs(np.asarray(body.axis) @ direction) / np.linalg.norm(direction))
    if body.shape in ("sphere", "ellipsoid"):
        t, w = _ellipsoid_chords(body.diameter, body.length, cosine)
    else:
        t, w = _cylinder_chords(body.diameter, body.length, cosine)
    area = float(w.sum())
    nodes, weights = gauss_nodes(t, w / area, n)
    return nodes, weights, area


def _ellipsoid_chords(diameter: float, length: float, cosine: float) -> tuple[Array, Array]:
    """Fine nodes t (Å) and the area of each (Å²) for an ellipsoid of revolution."""
    longest = 1 / np.sqrt((1 - cosine**2) / diameter**2 + cosine**2 / length**2)
    area = np.pi * diameter**2 * length / (4 * longest)
    x, w = np.polynomial.legendre.leggauss(FINE)
    t = 0.5 * (x + 1)
    return longest * t, area * w * t


def _cylinder_chords(diameter: float, length: float, cosine: float) -> tuple[Array, Array]:
    """Fine nodes t (Å) and the area of each (Å²) for a cylinder whose axis makes an angle with the beam."""
    sine = np.sqrt(max(1 - cosine**2, 0.0))
    x, w = np.polynomial.legendre.leggauss(FINE)
    phi = 0.25 * np.pi * (x + 1)
    half = 0.5 * diameter * np.cos(phi)
    strip = 2 * 0.25 * np.pi * w * half  # both sides of the axis
    across = np.divide(2 * half, sine, out=np.full_like(half, np.inf), where=sine > 0)
    longest = np.minimum(across, length / cosine if cosine > 0 else np.inf)
    flat = np.abs(length * sine - 2 * half * cosine)
    ramps = length * sine + 2 * half * cosine - flat
    t = np.concatenate([longest, np.outer(0.5 * (x + 1), longest).ravel()])
    area = np.concatenate([strip * flat, np.outer(0.5 * w, strip * ramps).ravel()])
    return t, area


def gauss_nodes(t: Array, w: Array, n: int) -> tuple[Array, Array]:
    """The n-point Gauss quadrature of a discrete measure (t, w), by Lanczos (Gautschi 2004, section 2.2.3).

    Exact for polynomials in t up to degree 2n - 1; fewer points where the measure has fewer.
    """
    vector, previous = np.sqrt(w / w.sum()), np.zeros_like(w)
    basis: list[Array] = []
    diagonal, side, beta = [], [], 0.0
    for _ in range(n):
        basis.append(vector)
        image = t * vector - beta * previous
        diagonal.append(vector @ image)
        image -= diagonal[-1] * vector
        for b in basis:
            image -= (b @ image) * b
        beta = float(np.linalg.norm(image))
        if beta < 1e-12 * np.abs(t).max():
            break
        side.append(beta)
        previous, vector = vector, image / beta
    k = len(diagonal)
    nodes, vectors = np.linalg.eigh(
        np.diag(diagonal) + np.diag(side[: k - 1], 1) + np.diag(side[: k - 1], -1)
    )
    return nodes, w.sum() * vectors[0] ** 2
