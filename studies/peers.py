"""Multislice of a 10 nm sphere of ITO at 0.2 Å, and the same work by abTEM where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from time import process_time

import numpy as np
from scipy import fft

from nanoed.sim.atoms import Atoms, cut_atoms
from nanoed.sim.multislice import Grid, Optics, exit_spectra, potential_slices
from nanoed.sim.particle import Body
from nanoed.sim.physics.crystal import read_cif

DIAMETER_A, BOX_A, SAMPLING = 100.0, 110.0, 0.2
SLICE_A = 2.0
"""Ours; spots change by less than 0.5 % in |F| from 0.5 Å on, because depths are interpolated between slices."""
PEER_SLICE_A = 1.0
"""abTEM's default."""
BEAMS = 4

PEER = """
import sys
from time import process_time
import abtem, ase, dask
import numpy as np
dask.config.set(scheduler="synchronous")
abtem.config.set({"precision": "float32", "fftw.threads": 1, "diagnostics.progress_bar": False})
table = np.loadtxt(sys.argv[1])
box, sampling, slices = (float(a) for a in sys.argv[2:5])
atoms = ase.Atoms(numbers=table[:, 0].astype(int), positions=table[:, 1:], cell=[box] * 3)
seconds = []
began = process_time()
potential = abtem.Potential(atoms, sampling=sampling, slice_thickness=slices, parametrization="lobato")
potential = potential.build(lazy=False)
seconds.append(process_time() - began)
for _ in range(3):
    began = process_time()
    abtem.PlaneWave(energy=200e3).multislice(potential, lazy=False)
    seconds.append(process_time() - began)
print(seconds[0], min(seconds[1:]))
"""
"""Run by NANOED_ORACLE_PYTHON, with nothing of ours."""


def sphere() -> Atoms:
    """The sphere in the middle of its box."""
    crystal = read_cif(Path(__file__).parent / "structures" / "ito.cif")
    body = Body("sphere", DIAMETER_A, DIAMETER_A, np.array([0.0, 0.0, 1.0]))
    atoms = cut_atoms(crystal, body, np.eye(3))
    middle = BOX_A / 2 * np.array([1.0, 1.0, -1.0])
    return Atoms(atoms.species, atoms.kind, atoms.xyz + middle, atoms.occupancy)


def multislice_seconds(atoms: Atoms) -> tuple[float, float]:
    """Processor time of the potential, and of one beam direction more through it, one thread."""
    points = round(BOX_A / SAMPLING)
    grid = Grid((BOX_A, BOX_A, BOX_A), (points, points), round(BOX_A / SLICE_A))
    optics = Optics(200.0, "lobato")
    next(potential_slices(atoms, grid, optics))
    began = process_time()
    for _ in potential_slices(atoms, grid, optics):
        pass
    potential = process_time() - began
    taken = []
    for count in (1, 1 + BEAMS):
        beams = np.column_stack([np.full(count, 0.3), np.linspace(0, 0.8, count)])
        beams /= np.linalg.norm(beams, axis=1)[:, None]
        began = process_time()
        for _ in exit_spectra(atoms, grid, optics, beams, workers=1):
            pass
        taken.append(process_time() - began)
    return potential, (taken[1] - taken[0]) / BEAMS


def fft_seconds() -> float:
    """Processor time of the Fourier transforms that one beam direction needs."""
    points = round(BOX_A / SAMPLING)
    wave = np.ones((points, points), np.complex64)
    taken = []
    for _ in range(8):
        began = process_time()
        fft.fft2(wave, workers=1)
        taken.append(process_time() - began)
    return 2 * round(BOX_A / SLICE_A) * min(taken)


def abtem_seconds(atoms: Atoms) -> tuple[float, float] | None:
    """The same of abTEM by the interpreter NANOED_ORACLE_PYTHON; None where there is none with abtem."""
    python = shutil.which(os.environ.get("NANOED_ORACLE_PYTHON", ""))
    if python is None:
        return None
    number = {"In": 49.0, "O": 8.0}
    elements = [number[atoms.species[k][0]] for k in atoms.kind]
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | dict.fromkeys(threads, "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "atoms.txt"
        xyz = atoms.xyz * np.array([1.0, 1.0, -1.0])
        np.savetxt(path, np.column_stack([elements, xyz]))
        command = [python, "-c", PEER, str(path), str(BOX_A), str(SAMPLING), str(PEER_SLICE_A)]
        done = subprocess.run(command, capture_output=True, text=True, env=alone, check=False)
    if done.returncode != 0:
        return None
    potential, beam = (float(word) for word in done.stdout.split()[-2:])
    return potential, beam
