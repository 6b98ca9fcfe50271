"""The Bloch-wave engine by itself: against abTEM on the same beams, and how its cost grows with beams and frames.

Cost model, per orientation (N beams, n = πλt·R + a few terms, R half the width of the spectrum of A, p parameters):
intensities n N² multiplications of a matrix by a vector while n < 6 N, else one diagonalisation, about 9 N³;
derivatives (p + 2) n N² or (p + 4) N³ more. Frames and orientations add up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics import bloch, sampling
from nanoed.sim.physics.crystal import read_cif
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.studies.timing import Timing

Array = NDArray[np.float64]
STRUCTURES = Path(__file__).parent / "structures"
VOLTAGE_KV, G_MAX, WAVELENGTH = 200.0, 1.6, 0.0250793
THICKNESS_A = np.linspace(25.0, 300.0, 12)
ALPHA_DEG, BETA_DEG = 12.3, -7.1
BEAMS = 60
ASKED = {"brookite": 30.0, "quartz": 15.0}
"""How many times faster than abTEM, real and complex matrices."""
ORIENTATIONS = 64

PEER = """
import sys
from time import process_time
import abtem
import numpy as np
from abtem.bloch import BlochWaves, StructureFactor
from ase.io import read
name, g_max, s_max, alpha, beta = sys.argv[1], *(float(a) for a in sys.argv[2:6])
thickness = [float(a) for a in sys.argv[6].split(",")]
abtem.config.set({"precision": "float64", "diagnostics.progress_bar": False})
def turn(axis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) if axis == 0 else np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
atoms = read(name)
frame = np.diag([1.0, -1.0, -1.0]) @ turn(0, alpha) @ turn(1, beta)
atoms.set_cell(atoms.cell.array @ frame.T, scale_atoms=True)
sigma = {e: 0.006**0.5 for e in set(atoms.get_chemical_symbols())}
factors = StructureFactor(
    atoms, g_max=2 * g_max + 0.01, parametrization="lobato", thermal_sigma=sigma, cutoff="hard", centering="P"
)
seconds = []
for k in range(24):
    waves = BlochWaves(factors, energy=200e3, sg_max=s_max, g_max=g_max, centering="P",
                       orientation_matrix=turn(0, 0.001 * k))
    began = process_time()
    waves.calculate_diffraction_patterns(thickness, lazy=False)
    seconds.append(process_time() - began)
print(len(waves.hkl), min(seconds[2:]))
"""
"""Run by NANOED_ORACLE_PYTHON, with nothing of ours: a direction of the beam, 12 thicknesses; its beams are chosen
before the clock starts, ours after."""


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """A crystal in one orientation. ub : (3, 3) 1/Å, lab."""

    potential: bloch.PotentialTable
    ub: Array

    def beams(self, s_max: float) -> int:
        """Beams within s_max of the Ewald sphere, 1/Å."""
        g = self.potential.hkl @ self.ub.T
        return int((np.abs(excitation_errors(g, WAVELENGTH)) <= s_max).sum())

    def reach(self, beams: int) -> float:
        """s_max, 1/Å, with that many beams."""
        s = np.sort(np.abs(excitation_errors(self.potential.hkl @ self.ub.T, WAVELENGTH)))
        return float(s[beams - 1] * (1 + 1e-9))

    def seconds(self, s_max: float, orientations: int = ORIENTATIONS, times: int = 5) -> float:
        """Processor time of the intensities of many orientations, each with 12 thicknesses."""
        rotations = sampling.rotation_sweep(0.0, 1e-3, orientations)
        weights = np.full(THICKNESS_A.size, 1 / THICKNESS_A.size)
        hkl = self.potential.hkl[:1]
        taken = []
        for _ in range(times + 1):
            began = process_time()
            bloch.rocking_curves(self.potential, self.ub, rotations, THICKNESS_A, weights, hkl, s_max)
            taken.append(process_time() - began)
        return min(taken[1:])


def engine() -> list[Timing]:
    """Seconds per orientation of real and complex matrices, abTEM's where it is, and the growth of the cost."""
    timings = []
    for name, kind in (("brookite", "real"), ("quartz", "complex")):
        made = _made(name)
        s_max = made.reach(BEAMS)
        ours = made.seconds(s_max) / ORIENTATIONS
        size = f"{made.beams(s_max)} beams, {THICKNESS_A.size} thicknesses to {THICKNESS_A.max() / 10:g} nm"
        timings.append(Timing(f"bloch, {kind}, per orientation", size, ours))
        peer = _abtem(name, s_max)
        if peer is not None:
            wanted = f"ours; {ASKED[name]:g} times asked"
            timings.append(
                Timing(f"abTEM, {kind}, per orientation", f"{peer[0]} beams", peer[1], ours, wanted)
            )
    return timings + _growth()


def _growth() -> list[Timing]:
    """More beams against their square, more orientations against their number."""
    made = _made("brookite")
    few, many = (made.reach(n) for n in (60, 240))
    small, large = made.seconds(few) / ORIENTATIONS, made.seconds(many) / ORIENTATIONS
    square = small * (made.beams(many) / made.beams(few)) ** 2
    one = made.seconds(few, ORIENTATIONS)
    return [
        Timing("bloch, real, four times the beams", f"{made.beams(many)} beams", large, square, "N² from 60"),
        Timing(
            "bloch, real, eight times the orientations",
            f"{8 * ORIENTATIONS} orientations",
            made.seconds(few, 8 * ORIENTATIONS),
            8 * one,
            f"eight times {ORIENTATIONS}",
        ),
    ]


def _made(name: str) -> _Bench:
    crystal = read_cif(STRUCTURES / f"{name}.cif")
    ub = frame_matrix(np.radians(ALPHA_DEG), np.radians(BETA_DEG), 0.0) @ crystal.reciprocal_basis
    return _Bench(bloch.potential_table(crystal, VOLTAGE_KV, G_MAX, "lobato"), ub)


def _abtem(name: str, s_max: float) -> tuple[int, float] | None:
    """Beams, and processor time of one orientation, by the interpreter NANOED_ORACLE_PYTHON; None without abtem."""
    python = shutil.which(os.environ.get("NANOED_ORACLE_PYTHON", ""))
    if python is None:
        return None
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | dict.fromkeys(threads, "1")
    numbers = [str(v) for v in (G_MAX, s_max, ALPHA_DEG, BETA_DEG)]
    command = [python, "-c", PEER, str(STRUCTURES / f"{name}.cif"), *numbers, ",".join(map(str, THICKNESS_A))]
    done = subprocess.run(command, capture_output=True, text=True, env=alone, check=False)
    if done.returncode != 0:
        return None
    beams, seconds = done.stdout.split()[-2:]
    return int(beams), float(seconds)
