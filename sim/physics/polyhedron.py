"""Convex polyhedra given by faces: corners, volume, and the exact distribution of chords along any direction.

A chord enters through an upper face and leaves through a lower one; over the overlap of the two faces' shadows its
length is linear. Quadrature on the triangles of every overlap is therefore exact for polynomials of the length.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

Array = NDArray[np.float64]
FINE = 8  # nodes per side of a triangle: moments exact up to order 14


def vertices(normals: Array, distances: Array) -> Array:
    """Corners (k, 3) of the body n·r <= d. normals : (m, 3) unit vectors.  distances : (m,) Å."""
    scale = float(distances.max())
    found: list[Array] = []
    for three in combinations(range(len(distances)), 3):
        matrix = normals[list(three)]
        if abs(np.linalg.det(matrix)) > 1e-9:
            corner: Array = np.linalg.solve(matrix, distances[list(three)]).astype(np.float64)
            if np.all(normals @ corner <= distances + 1e-9 * scale):
                found.append(corner)
    corners = np.array(found)
    return corners[np.unique(np.round(corners / scale, 7), axis=0, return_index=True)[1]]


def volume(normals: Array, distances: Array) -> float:
    """Volume of the body, Å³."""
    return float(ConvexHull(vertices(normals, distances)).volume)


def polyhedron_chords(normals: Array, distances: Array, x: Array, y: Array) -> Array:
    """Length of the path along z through the body at (x, y), Å, in the shape of x; normals in the same frame."""
    enter, leave = np.full(x.shape, -np.inf), np.full(x.shape, np.inf)
    for n, d in zip(normals, distances, strict=True):
        room = d - n[0] * x - n[1] * y
        if abs(n[2]) < 1e-12:
            enter = np.where(room < 0, np.inf, enter)
        elif n[2] > 0:
            leave = np.minimum(leave, room / n[2])
        else:
            enter = np.maximum(enter, room / n[2])
    return np.maximum(leave - enter, 0)


def polyhedron_chord_areas(normals: Array, distances: Array, direction: Array) -> tuple[Array, Array]:
    """Fine nodes t (Å) of the chords along `direction` (3,) and the area of each (Å²)."""
    z = direction / np.linalg.norm(direction)
    u = np.linalg.svd(z[None])[2][1]
    turned = normals @ np.array([u, np.cross(z, u), z]).T
    shadows = [
        (n, d, _shadow(turned, distances, i)) for i, (n, d) in enumerate(zip(turned, distances, strict=True))
    ]
    upper = [s for s in shadows if s[0][2] > 1e-9 and len(s[2]) > 2]
    lower = [s for s in shadows if s[0][2] < -1e-9 and len(s[2]) > 2]
    lengths, areas = [], []
    for n1, d1, p1 in upper:
        for n2, d2, p2 in lower:
            points, weights = _quadrature(_overlap(p1, p2))
            top, bottom = ((d - points @ n[:2]) / n[2] for n, d in ((n1, d1), (n2, d2)))
            lengths.append(np.maximum(top - bottom, 0))
            areas.append(weights)
    return np.concatenate(lengths), np.concatenate(areas)


def _shadow(normals: Array, distances: Array, face: int) -> Array:
    """Corners of a face projected along z, counter-clockwise, (k, 2); fewer than three: no face."""
    corners = vertices(normals, distances)
    on = corners[np.abs(corners @ normals[face] - distances[face]) < 1e-6 * distances.max()][:, :2]
    if len(on) < 3:
        return on
    away = on - on.mean(0)
    return on[np.argsort(np.arctan2(away[:, 1], away[:, 0]))]


def _overlap(subject: Array, clip: Array) -> Array:
    """Intersection of two convex counter-clockwise polygons (Sutherland & Hodgman 1974), (k, 2)."""
    for a, b in zip(clip, np.roll(clip, -1, axis=0), strict=True):
        edge = b - a
        side = edge[0] * (subject[:, 1] - a[1]) - edge[1] * (subject[:, 0] - a[0])
        kept: list[Array] = []
        for i in range(len(subject)):
            j = (i + 1) % len(subject)
            if side[i] >= 0:
                kept.append(subject[i])
            if side[i] * side[j] < 0:
                kept.append(subject[i] + (subject[j] - subject[i]) * side[i] / (side[i] - side[j]))
        subject = np.array(kept).reshape(-1, 2)
        if len(subject) < 3:
            return np.empty((0, 2))
    return subject


def _quadrature(polygon: Array) -> tuple[Array, Array]:
    """Points (k, 2) and weights (k,) that integrate polynomials over a convex polygon; none for an empty one."""
    if len(polygon) < 3:
        return np.empty((0, 2)), np.empty(0)
    x, w = np.polynomial.legendre.leggauss(FINE)
    r, w = 0.5 * (x + 1), 0.5 * w
    p, q = np.meshgrid(r, r, indexing="ij")
    points, weights = [], []
    for b, c in pairwise(polygon[1:]):
        e1, e2 = b - polygon[0], c - b
        points.append(polygon[0] + p.reshape(-1, 1) * (e1 + q.reshape(-1, 1) * e2))
        weights.append(np.outer(w * r, w).ravel() * abs(e1[0] * e2[1] - e1[1] * e2[0]))
    return np.concatenate(points), np.concatenate(weights)
