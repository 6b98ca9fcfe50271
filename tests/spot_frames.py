"""Small synthetic tilt series for tests of the reduction: kinematical, spots drawn directly, Poisson counts."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from nanoed.pipeline.reduce.distortion import Distortion
from nanoed.pipeline.reduce.geometry import Geometry, candidates, reciprocal_basis, to_pixels
from nanoed.pipeline.reduce.rocking import RockingShape, rocking_profile
from nanoed.pipeline.reduce.symmetry import laue_rotations, representative
from nanoed.sim.dataset import Nominal, write_dataset
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.geometry import excitation_errors, rot_x, rot_y, rot_z

CELL = (7.1, 5.3, 4.6, 90.0, 90.0, 90.0)
A_PER_PX = 0.008
SPOT_SIGMA = 1.2


def true_geometry(n: int = 31, step_deg: float = 2.0, size: int = 288, seed: int = 3) -> Geometry:
    """A series of n precession frames with drifts, jitter and an elliptic distortion of 0.6 %."""
    rng = np.random.default_rng(seed)
    alpha = np.radians((np.arange(n) - n // 2) * step_deg)
    wave = np.sin(np.linspace(0, 3, n))
    ub = rot_z(0.7) @ rot_y(0.4) @ rot_x(-0.9) @ reciprocal_basis(CELL)
    centres = np.array([size / 2 + 1.3, size / 2 - 0.8]) + 0.4 * rng.standard_normal((n, 2))
    return Geometry(
        ub=ub,
        alpha=alpha + np.radians(0.15 * wave + 0.06 * rng.standard_normal(n)),
        beta=np.radians(0.2 * np.cos(np.linspace(0, 2, n))),
        omega=np.radians(131.6 + 0.1 * wave),
        centres=centres,
        a_per_px=A_PER_PX,
        wavelength=wavelength_A(200.0),
        distortion=Distortion(0.006 * np.exp(0.8j), edge=0.5 * size),
        semi_angle=np.radians(1.0),
    )


def nominal(geometry: Geometry, size: int = 288, step_deg: float = 2.0) -> Nominal:
    """What the log of such a series would say."""
    n = len(geometry)
    return Nominal(
        voltage_kv=200.0,
        shape=(size, size),
        a_per_px=A_PER_PX,
        pixel_size_um=55.0,
        centre_px=(size / 2, size / 2),
        exposure_s=1.0,
        alpha_deg=(np.arange(n) - n // 2) * step_deg,
        axis_azimuth_deg=133.0,
        protocol="precession",
        semi_angle_deg=1.0,
        rotation_deg=0.0,
        gain=1.0,
        saturation=2**24 - 1,
    )


def true_intensities(geometry: Geometry, strength: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """All hkl to 1.0 1/Å and I_hkl in electrons 1/Å, equal for equivalents in mmm, fading with |g|."""
    hkl = candidates(geometry.ub, 1.0)
    unique, family = np.unique(representative(hkl, laue_rotations("mmm", None)), axis=0, return_inverse=True)
    random = np.random.default_rng(5).exponential(size=len(unique))[family]
    g = np.linalg.norm(hkl @ geometry.ub.T, axis=1)
    return hkl, strength * random * np.exp(-2.0 * g**2)


def expected_frame(
    geometry: Geometry, i: int, hkl: np.ndarray, full: np.ndarray, size: int = 288
) -> np.ndarray:
    """(size, size) expected counts of frame i: direct beam, spots and a falling background."""
    g_lab = hkl @ (geometry.rotations()[i] @ geometry.ub).T
    s, g = excitation_errors(g_lab, geometry.wavelength), np.linalg.norm(g_lab, axis=1)
    shape = RockingShape(0.003, np.radians(0.1), geometry.semi_angle, geometry.half_sweep)
    axis = np.array([np.cos(geometry.omega[i]), np.sin(geometry.omega[i]), 0.0])
    p, _ = rocking_profile(s, g, np.linalg.norm(np.cross(g_lab, axis), axis=1), shape)
    pixels = to_pixels(geometry, np.full(len(hkl), i), g_lab)
    y, x = np.mgrid[:size, :size] + 0.5
    r = np.hypot(x - geometry.centres[i, 0], y - geometry.centres[i, 1])
    image = 4.0 / (1 + (r / 40) ** 2) + 0.5 + 3e5 * _spot(r)
    for (px, py), electrons in zip(pixels, full * p, strict=True):
        if electrons > 0.01 and 0 < px < size and 0 < py < size:
            rows = slice(max(0, int(py) - 9), int(py) + 10)
            columns = slice(max(0, int(px) - 9), int(px) + 10)
            image[rows, columns] += electrons * _spot(np.hypot(x[rows, columns] - px, y[rows, columns] - py))
    return image


def _spot(r: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * (r / SPOT_SIGMA) ** 2) / (2 * np.pi * SPOT_SIGMA**2)


def write_series(folder: Path, geometry: Geometry, seed: int = 11, blank: Collection[int] = ()) -> Path:
    """Write the data set of a geometry with Poisson counts; frames in `blank` show no crystal."""
    hkl, full = true_intensities(geometry)
    rng = np.random.default_rng(seed)
    frames = (
        rng.poisson(expected_frame(geometry, i, hkl, 0 * full if i in blank else full)).astype(np.uint32)
        for i in range(len(geometry))
    )
    return write_dataset(folder, nominal(geometry), frames)
