"""The slab of quartz on which the engines are compared: orthohexagonal (001), 20 nm, both hands."""

from dataclasses import dataclass, replace

import numpy as np
from goldens import shipped

from nanoed.sim.atoms import Atoms, _of_images
from nanoed.sim.multislice import Grid, Optics, beam_frequencies, exit_spectra
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import rot_x, rot_y

KV, FACTORS = 200.0, "lobato"
REPEATS = 37
"""Cells along c: 200.0 Å."""
SUPERCELL = np.array([[1, 1, 0], [0, 2, 0], [0, 0, 1]])
TILTS_DEG = ((3.0, 2.0), (-1.5, 2.5), (0.7, -3.2))
"""Rotations of the crystal about x, then y, which tilt the beam against n = c."""


def quartz() -> Crystal:
    """The shipped structure with isotropic displacements, which multislice takes."""
    crystal = shipped("quartz")
    return replace(crystal, u_ij=np.full_like(crystal.u_ij, np.nan))


def inverted(crystal: Crystal) -> Crystal:
    return replace(crystal, xyz=-crystal.xyz, spacegroup="P 31 2 1")


def rotation(tilt_deg: tuple[float, float]) -> np.ndarray:
    x, y = np.radians(tilt_deg)
    return rot_y(y) @ rot_x(x)


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """The crystal, its right-angled cell and UB in the lab, 1/Å."""

    crystal: Crystal
    lengths: np.ndarray
    ub: np.ndarray

    @property
    def thickness(self) -> float:
        return float(REPEATS * self.lengths[2])

    def place(self, hkl: np.ndarray) -> np.ndarray:
        """Lateral frequency of reflections in steps of 1 / lengths; (n, 2) integers."""
        return np.rint(hkl @ self.ub.T[:, :2] * self.lengths[:2]).astype(int)


def slab_atoms(crystal: Crystal, supercell: np.ndarray) -> tuple[Atoms, np.ndarray, np.ndarray]:
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
    site, operation, fractional = crystal.unit_cell_images()
    most = int(np.abs(supercell).sum(1).max())
    steps = np.arange(-most - 1, most + 2)
    cells = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 1, 3)
    inner = (cells + fractional) @ np.linalg.inv(supercell).T + 1e-9
    here = ((inner >= 0) & (inner < 1)).all(-1)
    xyz = inner[here] * lengths - np.array([0, 0, lengths[2]])
    image = np.broadcast_to(np.arange(len(site)), here.shape)[here]
    return _of_images(crystal, site, operation, image, xyz, to_lab), lengths, to_lab


def slab(crystal: Crystal) -> Slab:
    _, lengths, to_lab = slab_atoms(crystal, SUPERCELL)
    return Slab(crystal, lengths, to_lab @ crystal.reciprocal_basis)


def multislice(
    crystal: Crystal, rotations: np.ndarray, shape: tuple[int, int] = (50, 86), slices: int = 12, **optics
) -> np.ndarray:
    """Amplitudes behind the slab for every rotation, (m, nx, ny) by lateral frequency."""
    atoms, lengths, _ = slab_atoms(crystal, SUPERCELL)
    grid = Grid(tuple(lengths), shape, slices, periodic=True)
    options = Optics(**({"voltage_kv": KV, "factors": FACTORS, "dtype": np.complex128} | optics))
    beams = beam_frequencies(rotations, KV)
    return np.array(list(exit_spectra(atoms, grid, options, beams, REPEATS, workers=1)))


def r_factor(found: np.ndarray, expected: np.ndarray) -> float:
    """Σ||found| - |expected|| / Σ|expected|."""
    return float(np.abs(np.abs(found) - np.abs(expected)).sum() / np.abs(expected).sum())
