"""Where a reflection falls: the refined geometry of a tilt series and the map between g and pixels."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.distortion import Distortion
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix

Array = NDArray[np.float64]


NO_DISTORTION = Distortion()


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Lattice, goniometer and detector of a series of n frames.

    ub : (3, 3) 1/Å, columns a*, b*, c*.  alpha, beta, omega : (n,) radians; omega contains the axis azimuth.
    centres : (n, 2) pixels.  a_per_px : 1/Å per pixel.  wavelength : Å.
    distortion : of the patterns.
    semi_angle : radians, precession semi-angle (0 without).  half_sweep : radians, half the rotation per
    frame.
    """

    ub: Array
    alpha: Array
    beta: Array
    omega: Array
    centres: Array
    a_per_px: float
    wavelength: float
    distortion: Distortion = NO_DISTORTION
    semi_angle: float = 0.0
    half_sweep: float = 0.0

    def __len__(self) -> int:
        return len(self.alpha)

    def rotations(self) -> Array:
        """(n, 3, 3) R_z(omega) R_x(alpha) R_y(beta) of every frame."""
        rows = zip(self.alpha, self.beta, self.omega, strict=True)
        return np.array([frame_matrix(*row) for row in rows]).reshape(-1, 3, 3)

    @property
    def cell(self) -> tuple[float, float, float, float, float, float]:
        """Direct cell of UB: Å and degrees."""
        return cell_of(self.ub)


def cell_of(ub: Array) -> tuple[float, float, float, float, float, float]:
    """Cell (Å, degrees) whose reciprocal basis has the columns of ub."""
    direct = np.linalg.inv(ub)
    a, b, c = np.linalg.norm(direct, axis=1)
    cosines = (
        direct[1] @ direct[2] / (b * c),
        direct[0] @ direct[2] / (a * c),
        direct[0] @ direct[1] / (a * b),
    )
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return float(a), float(b), float(c), float(angles[0]), float(angles[1]), float(angles[2])


def reciprocal_basis(cell: tuple[float, ...] | Array) -> Array:
    """(3, 3) 1/Å, columns a*, b*, c* in a Cartesian frame with a along x."""
    return np.array(gemmi.UnitCell(*(float(x) for x in cell)).frac.mat.tolist()).T


def to_pixels(geometry: Geometry, frame: NDArray[np.int64], g_lab: Array) -> Array:
    """(m, 2) pixel positions of g_lab (m, 3) on the frames with the given indices (m,)."""
    w = geometry.distortion(np.asarray((g_lab[:, 0] + 1j * g_lab[:, 1]) / geometry.a_per_px, np.complex128))
    centre = geometry.centres[frame]
    return np.column_stack([centre[:, 0] + w.real, centre[:, 1] - w.imag])


def to_reciprocal(geometry: Geometry, frame: NDArray[np.int64], pixels: Array) -> Array:
    """(m, 3) lab vectors on the Ewald sphere of the untilted beam for pixel positions (m, 2)."""
    offset = pixels - geometry.centres[frame]
    w = offset[:, 0] - 1j * offset[:, 1]
    w = geometry.a_per_px * geometry.distortion.undone(w)
    k = 1.0 / geometry.wavelength
    return np.column_stack([w.real, w.imag, k - np.sqrt(np.maximum(k * k - np.abs(w) ** 2, 0.0))])


def to_sample(geometry: Geometry, frame: NDArray[np.int64], g_lab: Array) -> Array:
    """(m, 3) vectors in the frame of the crystal at zero angles: the inverse rotation of their frame."""
    return np.einsum("mji,mj->mi", geometry.rotations()[frame], g_lab)


def candidates(ub: Array, d_star_max: float, d_star_min: float = 1e-6) -> NDArray[np.int64]:
    """(m, 3) all hkl with d_star_min < |g| <= d_star_max, in lexical order."""
    reach = np.ceil(d_star_max * np.linalg.norm(np.linalg.inv(ub), axis=1)).astype(int)
    axes = [np.arange(-r, r + 1) for r in reach]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ ub.T, axis=1)
    return hkl[(length <= d_star_max) & (length > d_star_min)].astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Reflections expected on one frame: hkl (m, 3), S and |g| (m,) 1/Å, distance of g from the tilt axis
    (m,) 1/Å, dS/d(tilt about lab x, y) (m, 2) 1/Å per radian, pixels (m, 2)."""

    hkl: NDArray[np.int64]
    s: Array
    g: Array
    axis_distance: Array
    tilt_slope: Array
    pixels: Array


def predict(
    geometry: Geometry, frame: int, hkl: NDArray[np.int64], tail: float, margin: float = 0.0
) -> Predictions:
    """Reflections of `hkl` within |S| < |g| (semi_angle + margin) + D_g half_sweep + tail on a frame.

    margin : rad, misorientation allowed for.  tail : 1/Å, width of the rocking curve.
    """
    rotation = frame_matrix(geometry.alpha[frame], geometry.beta[frame], geometry.omega[frame])
    g_lab = hkl @ (rotation @ geometry.ub).T
    s = excitation_errors(g_lab, geometry.wavelength)
    g = np.linalg.norm(g_lab, axis=1)
    axis = np.array([np.cos(geometry.omega[frame]), np.sin(geometry.omega[frame]), 0.0])
    distance = np.linalg.norm(np.cross(g_lab, axis), axis=1)
    keep = np.abs(s) < g * geometry.semi_angle + distance * geometry.half_sweep + g * margin + tail
    pixels = to_pixels(geometry, np.full(int(keep.sum()), frame), g_lab[keep])
    slope = np.column_stack([g_lab[keep, 1], -g_lab[keep, 0]])
    return Predictions(hkl[keep], s[keep], g[keep], distance[keep], slope, pixels)
