"""Joint least squares of lattice, per-frame centre and azimuth, and distortion on the positions of peaks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nanoed.pipeline.reduce.geometry import (
    Geometry,
    candidates,
    cell_of,
    predict,
    reciprocal_basis,
    to_pixels,
)
from nanoed.pipeline.reduce.neighbours import nearest
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.spec import PositionSpec

Array = NDArray[np.float64]

_FREE = {"-1": (0, 1, 2, 3, 4, 5), "2/m": (0, 1, 2, 4), "2/m a": (0, 1, 2, 3), "2/m c": (0, 1, 2, 5),
         "r": (0, 3), "mmm": (0, 1, 2), "4/m": (0, 2), "4/mmm": (0, 2),
         "-3": (0, 2), "-3m": (0, 2), "6/m": (0, 2), "6/mmm": (0, 2), "m-3": (0,), "m-3m": (0,)}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Peaks with their reflection: frame (m,), hkl (m, 3), pixels (m, 2), sigma (m,) of Peaks."""

    frame: NDArray[np.int64]
    hkl: NDArray[np.int64]
    pixels: Array
    sigma: Array


def constrained_cell(laue: str, cell: tuple[float, ...] | Array) -> Array:
    """(6,) cell with the metric of a Laue class, or of symmetry.metric_class: equal axes averaged, fixed angles set."""
    a, b, c, alpha, beta, gamma = (float(x) for x in cell)
    if laue == "-1":
        return np.array([a, b, c, alpha, beta, gamma])
    if laue == "2/m":
        return np.array([a, b, c, 90.0, beta, 90.0])
    if laue in ("2/m a", "2/m c"):
        return np.array([a, b, c, alpha, 90.0, 90.0] if laue == "2/m a" else [a, b, c, 90.0, 90.0, gamma])
    if laue == "r":
        return np.repeat([(a + b + c) / 3, (alpha + beta + gamma) / 3], 3)
    if laue == "mmm":
        return np.array([a, b, c, 90.0, 90.0, 90.0])
    if laue.startswith("m-3"):
        mean = (a + b + c) / 3
        return np.array([mean, mean, mean, 90.0, 90.0, 90.0])
    return np.array([(a + b) / 2, (a + b) / 2, c, 90.0, 90.0, 90.0 if laue.startswith("4") else 120.0])


def ellipse_determined(laue: str) -> bool:
    """An elliptic distortion deforms the lattice; only a constrained metric shows it (Brazda 2022)."""
    return laue in ("mmm", "4/m", "4/mmm", "m-3", "m-3m", "-3", "-3m", "r", "6/m", "6/mmm")


def match(geometry: Geometry, peaks: Peaks, d_star_max: float, reach_px: float, tail: float) -> Matched:
    """Give every peak the one predicted reflection within `reach_px`; peaks between two are left out."""
    hkl_all = candidates(geometry.ub, d_star_max)
    parts = []
    for i in range(len(geometry)):
        own = np.nonzero(peaks.frame == i)[0]
        expected = predict(geometry, i, hkl_all, tail)
        if len(own) == 0 or len(expected.hkl) < 2:
            continue
        distance, which = nearest(expected.pixels, peaks.pixels[own], 2)
        good = (distance[:, 0] < reach_px) & (distance[:, 1] > 2 * distance[:, 0])
        hkl, pixels, sigma = expected.hkl[which[good, 0]], peaks.pixels[own][good], peaks.sigma[own][good]
        parts.append((np.full(good.sum(), i), hkl, pixels, sigma))
    if not parts:
        return Matched(np.zeros(0, np.int64), np.zeros((0, 3), np.int64), np.zeros((0, 2)), np.zeros(0))
    return Matched(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def refine_positions(
    geometry: Geometry, matched: Matched, laue: str, ellipse: bool, higher: bool, spec: PositionSpec
) -> tuple[Geometry, float]:
    """Geometry that fits the matched peaks, and the robust rms of the residuals per axis beyond counting, pixels.

    laue : as of `constrained_cell`.
    Parameters: rotation and free cell lengths and angles of UB, the ellipse where the metric shows it, with `higher`
    the parabolic and cubic terms of the distortion, and per frame centre and omega (eliminated
    by Schur's complement). Residuals: x, y, and S, which a precessed spot samples over ±|g| semi_angle.
    The camera length stays fixed: it and the cell's scale cannot be told apart (C3.6). Parabolic and cubic terms are
    refined freely first, then held to zero as far as they are not above their errors (`_believed`).
    """
    cell = constrained_cell(laue, geometry.cell)
    geometry = replace(geometry, ub=_nearest_rotation(geometry.ub, cell) @ reciprocal_basis(cell))
    scatter, free = spec.first_scatter_px, (higher, ellipse and ellipse_determined(laue))
    held = np.zeros(4 if higher else 0)
    for last in (False, True) if higher else (True,):
        for _ in range(spec.cycles):
            residual, shared, local = _jacobian(geometry, matched, laue, free)
            weight = _weights(geometry, matched, residual, scatter)
            step, local_step, normal = _solve(geometry, matched, residual, shared, local, weight, held, spec)
            geometry = _stepped(geometry, laue, free, step, local_step)
            residual = _residuals(geometry, matched)[:, :2]
            scatter = _scatter(residual, matched)
            if np.abs(local_step[:, :2]).max(initial=0.0) < 1e-3 and np.abs(step).max() < 1e-6:
                break
        if not last:
            held = _believed(geometry, normal)
    return geometry, scatter


def _higher(geometry: Geometry) -> Array:
    """(4,) real and imaginary parts of the parabolic and the cubic term."""
    lenses = geometry.distortion
    return np.array([lenses.parabolic.real, lenses.parabolic.imag, lenses.cubic.real, lenses.cubic.imag])


def _believed(geometry: Geometry, normal: Array) -> Array:
    """(4,) precisions of the parabolic and the cubic term about zero that their own sizes make likeliest.

    normal : (p, p), these four last, nothing held.  A term c = v ± s per part comes from a normal distribution about
    zero whose variance |v|²/2 - s² is its likeliest: one within its error is none, a clear one is left as it is.
    """
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    variance = (np.diag(np.linalg.pinv(normal / np.outer(scale, scale), rcond=1e-12)) / scale**2)[-4:]
    found = _higher(geometry)
    precision = np.empty(4)
    for part in (slice(0, 2), slice(2, 4)):
        own = float(variance[part].mean())
        precision[part] = 1 / max(float((found[part] ** 2).mean()) - own, 1e-3 * own)
    return precision


def _scatter(residual: Array, matched: Matched) -> float:
    """Robust rms of the residuals (m, 2) beyond what counting explains, pixels."""
    squares = (1.4826 * np.median(np.abs(residual))) ** 2 - np.median(matched.sigma**2)
    return max(float(np.sqrt(max(squares, 0.0))), 0.03)


def _nearest_rotation(ub: Array, cell: Array) -> Array:
    """(3, 3) rotation R that makes R B(cell) closest to ub."""
    left, _, right = np.linalg.svd(ub @ np.linalg.inv(reciprocal_basis(cell)))
    return left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right


def _residuals(geometry: Geometry, matched: Matched) -> Array:
    """(m, 3) observed - calculated x, y in pixels, and 0 - S in 1/Å."""
    g_lab = np.einsum("mij,mj->mi", geometry.rotations()[matched.frame], matched.hkl @ geometry.ub.T)
    s = g_lab[:, 2] - 0.5 * geometry.wavelength * (g_lab**2).sum(axis=1)
    return np.column_stack([matched.pixels - to_pixels(geometry, matched.frame, g_lab), -s])


def _free(laue: str) -> tuple[int, ...]:
    return _FREE.get(laue, _FREE["-1"])


def _ub_derivatives(ub: Array, laue: str) -> Array:
    """(k, 3, 3) dUB by three rotations (rad) and by each free cell parameter (Å or degrees)."""
    cell = constrained_cell(laue, cell_of(ub))
    rotation = _nearest_rotation(ub, cell)
    turns = [np.cross(np.eye(3)[j], ub.T).T for j in range(3)]
    for k in _free(laue):
        step = 1e-5 * cell[k]
        high, low = cell.copy(), cell.copy()
        high[k], low[k] = high[k] + step, low[k] - step
        change = reciprocal_basis(constrained_tied(laue, high)) - reciprocal_basis(
            constrained_tied(laue, low)
        )
        turns.append(rotation @ change / (2 * step))
    return np.array(turns)


def constrained_tied(laue: str, cell: Array) -> Array:
    """Cell whose dependent lengths and angles follow the first of each set of equal ones."""
    tied = cell.copy()
    if laue.startswith("m-3") or laue == "r":
        tied[1] = tied[2] = tied[0]
        tied[4] = tied[5] = tied[3]
    elif laue not in ("-1", "2/m", "2/m a", "2/m c", "mmm"):
        tied[1] = tied[0]
    return constrained_cell(laue, tied)


def _jacobian(
    geometry: Geometry, matched: Matched, laue: str, free: tuple[bool, bool]
) -> tuple[Array, Array, Array]:
    """Residuals (m, 3), derivatives of the calculated by shared (m, 3, p) and frame (m, 3, 3) parameters."""
    rotations = geometry.rotations()[matched.frame]
    hkl = matched.hkl.astype(float)
    g = np.einsum("mij,mj->mi", rotations, hkl @ geometry.ub.T)
    moves = [np.einsum("mij,mj->mi", rotations, hkl @ d.T) for d in _ub_derivatives(geometry.ub, laue)]
    turn = np.column_stack([-g[:, 1], g[:, 0], np.zeros(len(g))])
    place = np.asarray((g[:, 0] + 1j * g[:, 1]) / geometry.a_per_px, np.complex128)

    def seen(d: Array) -> Array:
        w = geometry.distortion.along(place, np.asarray((d[:, 0] + 1j * d[:, 1]) / geometry.a_per_px))
        return np.column_stack([w.real, -w.imag, d[:, 2] - geometry.wavelength * (g * d).sum(axis=1)])

    columns = [seen(d) for d in moves]
    for w in geometry.distortion.by_parameters(place, *free):
        columns.append(np.column_stack([w.real, -w.imag, np.zeros(len(g))]))
    unit_x, unit_y = np.tile([1.0, 0, 0], (len(g), 1)), np.tile([0, 1.0, 0], (len(g), 1))
    local = np.stack([unit_x, unit_y, seen(turn)], axis=2)
    return _residuals(geometry, matched), np.stack([seen(turn), *columns], axis=2), local


def _weights(geometry: Geometry, matched: Matched, residual: Array, scatter: float) -> Array:
    """(m, 3) 1/sigma² with Huber's factor on x, y; S has the spread of a precessed or swept reflection."""
    g = np.linalg.norm(matched.hkl @ geometry.ub.T, axis=1)
    spread = np.sqrt(0.5 * (g * geometry.semi_angle) ** 2 + (g * geometry.half_sweep) ** 2 / 3 + 0.005**2)
    sigma = np.hypot(scatter, matched.sigma)
    distance = np.hypot(residual[:, 0], residual[:, 1]) / sigma
    huber = np.minimum(1.0, 2.5 / np.maximum(distance, 1e-9)) * (distance < 8) / sigma**2
    return np.column_stack([huber, huber, (distance < 8) / spread**2])


def _solve(
    geometry: Geometry,
    matched: Matched,
    residual: Array,
    shared: Array,
    local: Array,
    weight: Array,
    held: Array,
    spec: PositionSpec,
) -> tuple[Array, Array, Array]:
    """Gauss-Newton steps of the shared (p,) and the frame (n, 3) parameters; the normal matrix (p, p) of the shared.

    The first shared parameter turns all frames together, so the prior holds only differences between frames. held :
    precisions about zero of the last parameters, those of `_higher`; empty where these are not refined.
    """
    n, p = len(geometry), shared.shape[2]
    mean = float(np.mean(geometry.omega))
    prior = np.array([1e-4, 1e-4, 1 / np.radians(spec.omega_scatter_deg) ** 2])
    normal, right = np.zeros((p, p)), np.zeros(p)
    blocks = []
    for i in range(n):
        own = matched.frame == i
        s, f, w, r = (
            shared[own].reshape(-1, p),
            local[own].reshape(-1, 3),
            weight[own].ravel(),
            residual[own].ravel(),
        )
        a = (f.T * w) @ f + np.diag(prior)
        b = (f.T * w) @ s
        c = (f.T * w) @ r + prior * np.array([0, 0, mean - geometry.omega[i]])
        inverse = np.linalg.inv(a)
        normal += (s.T * w) @ s - b.T @ inverse @ b
        right += (s.T * w) @ r - b.T @ inverse @ c
        blocks.append((inverse, b, c))
    if len(held):
        normal[range(-4, 0), range(-4, 0)] += held
        right[-4:] -= held * _higher(geometry)
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    step = np.linalg.lstsq(normal / np.outer(scale, scale), right / scale, rcond=1e-12)[0] / scale
    return step, np.array([inverse @ (c - b @ step) for inverse, b, c in blocks]).reshape(n, 3), normal


def _stepped(
    geometry: Geometry, laue: str, distortion_free: tuple[bool, bool], step: Array, local: Array
) -> Geometry:
    free = _free(laue)
    cell = constrained_cell(laue, geometry.cell)
    rotation = Rotation.from_rotvec(step[1:4]).as_matrix() @ _nearest_rotation(geometry.ub, cell)
    cell[list(free)] += step[4 : 4 + len(free)]
    ub = rotation @ reciprocal_basis(constrained_tied(laue, cell))
    distortion = geometry.distortion.moved(step[4 + len(free) :], *distortion_free)
    return replace(geometry, ub=ub, distortion=distortion, centres=geometry.centres + local[:, :2],
                   omega=geometry.omega + step[0] + local[:, 2])  # fmt: skip
