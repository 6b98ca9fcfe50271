"""Bloch-wave intensities by abTEM, written as CSV to standard output.

Run with an interpreter that has abtem 1.0.11 and ase (nothing of ours is imported):
    python tests/oracles/generate_abtem.py studies/structures > tests/golden/abtem_bloch.csv

Orientation: the crystal starts with a along x and b in the x-y plane, is turned by beta about y, then by
alpha about x (active), in a frame whose z points to the source. abTEM's beam runs along its own +z; a half
turn about x carries one frame into the other.
"""

import sys
from pathlib import Path

import abtem
import ase
import numpy as np
from abtem.bloch import BlochWaves, StructureFactor
from ase.io import read

VOLTAGE_V = 200e3
G_MAX = 1.6
S_MAX = 0.02
THICKNESSES_A = (50.0, 150.0, 300.0)
TILTS_DEG = ((0.0, 0.0), (5.3, -3.1), (-20.5, 34.2))
U_ISO_A2 = {
    "brookite": {"Ti": 0.0050, "O": 0.0065},
    "quartz": {"Si": 0.0078, "O": 0.0134},
}


def rotation(axis: int, angle_deg: float) -> np.ndarray:
    """Active rotation about x (0) or y (1)."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    if axis == 0:
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def intensities(atoms: ase.Atoms, u_iso: dict[str, float], alpha: float, beta: float):
    """Miller indices (n, 3) and intensities (thicknesses, n) of one orientation."""
    turned = atoms.copy()
    frame = np.diag([1.0, -1.0, -1.0]) @ rotation(0, alpha) @ rotation(1, beta)
    turned.set_cell(atoms.cell.array @ frame.T, scale_atoms=True)
    factors = StructureFactor(
        turned,
        g_max=2 * G_MAX + 0.01,
        parametrization="lobato",
        thermal_sigma={element: u**0.5 for element, u in u_iso.items()},
        cutoff="hard",
        centering="P",
    )
    waves = BlochWaves(factors, energy=VOLTAGE_V, sg_max=S_MAX, g_max=G_MAX, centering="P")
    pattern = waves.calculate_diffraction_patterns(list(THICKNESSES_A), lazy=False)
    return np.asarray(waves.hkl), np.asarray(pattern.array)


def main(structures: Path) -> None:
    abtem.config.set({"precision": "float64"})
    columns = ",".join(f"I_{t:.0f}A" for t in THICKNESSES_A)
    print(f"# abTEM {abtem.__version__} BlochWaves, ase {ase.__version__}; tests/oracles/generate_abtem.py")
    print(f"# Lobato factors; {VOLTAGE_V / 1e3:g} kV; |g| <= {G_MAX:g} 1/A; |S| <= {S_MAX:g} 1/A")
    print(f"# U_iso (A^2) {U_ISO_A2}".replace("'", ""))
    print(f"structure,alpha_deg,beta_deg,h,k,l,{columns}")
    for name, u_iso in U_ISO_A2.items():
        atoms = read(structures / f"{name}.cif")
        for alpha, beta in TILTS_DEG:
            hkl, pattern = intensities(atoms, u_iso, alpha, beta)
            for i in np.lexsort(hkl.T[::-1]):
                values = ",".join(f"{v:.9e}" for v in pattern[:, i])
                print(f"{name},{alpha:g},{beta:g},{','.join(map(str, hkl[i]))},{values}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
