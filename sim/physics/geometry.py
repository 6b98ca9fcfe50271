"""The lab frame: rotations of the goniometer, excitation errors and the map from reciprocal space to pixels.

Right-handed, z from the sample to the source, the beam along -z; x right and y up on the detector as displayed,
so that pixel rows run along -y. All rotations are active.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rot_x(angle: float) -> Array:
    """Active right-handed rotation about x, rad; (3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rot_y(angle: float) -> Array:
    """Active right-handed rotation about y, rad; (3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rot_z(angle: float) -> Array:
    """Active right-handed rotation about z, rad; (3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rot_in_plane(azimuth: Array | float, angle: Array | float) -> Array:
    """Active right-handed rotations about axes in the plane of the detector, R_z(azimuth) R_x(angle) R_z(-azimuth).

    azimuth, angle : rad, broadcast against each other, (n,) or one for all.  Returns (n, 3, 3).
    """
    azimuth, angle = np.broadcast_arrays(np.atleast_1d(azimuth), np.atleast_1d(angle))
    x, y, c, s = np.cos(azimuth), np.sin(azimuth), np.cos(angle), np.sin(angle)
    xy = x * y * (1 - c)
    columns = [c + x * x * (1 - c), xy, y * s, xy, c + y * y * (1 - c), -x * s, -y * s, x * s, c]
    return np.stack(columns, axis=1).reshape(-1, 3, 3)


def frame_matrix(alpha: float, beta: float, omega: float) -> Array:
    """Rotation of a frame, R_z(omega) R_x(alpha) R_y(beta), (3, 3); angles in rad, omega with the axis azimuth."""
    return rot_z(omega) @ rot_x(alpha) @ rot_y(beta)


def excitation_errors(g: Array, wavelength: float) -> Array:
    """Distance of each reciprocal-lattice point from the Ewald sphere along the untilted beam.

    g : (n, 3) 1/Å, lab frame.  Returns (n,) 1/Å, positive inside the sphere.
    Exact: S = (K² - |k0 + g|²) / 2K = g_z - g² / 2K with k0 = (0, 0, -K)  (Spence & Zuo 1992, eq. 3.19
    without the small-angle step).
    """
    return g[..., 2] - 0.5 * wavelength * np.einsum("...i,...i->...", g, g)


def g_to_pixel(g_xy: Array, centre_px: Array, a_per_px: float) -> tuple[Array, Array]:
    """Pixel coordinates of the in-plane part of g; the first pixel's centre is at (0.5, 0.5).

    g_xy : (n, 2) 1/Å.  centre_px : (2,) px.  a_per_px : 1/Å per pixel.  Returns px, py : (n,).
    """
    return centre_px[0] + g_xy[:, 0] / a_per_px, centre_px[1] - g_xy[:, 1] / a_per_px


def pixel_to_g(px: Array, py: Array, centre_px: Array, a_per_px: float) -> Array:
    """In-plane part of g of pixel positions, (n, 2) 1/Å: the inverse of `g_to_pixel`."""
    return np.column_stack([(px - centre_px[0]) * a_per_px, (centre_px[1] - py) * a_per_px])
