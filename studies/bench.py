"""`nanoed bench`: seconds of the kernels and of the stages of a run, each beside a floor it cannot beat."""

import csv
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nanoed.sim.dataset import open_dataset
from nanoed.sim.diffraction import diffraction, orientations
from nanoed.sim.physics import bloch
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.scattering import SITE_QUANTITIES, u_g
from nanoed.sim.physics.thickness import chord_distribution
from nanoed.sim.setup import Setup, prepare
from nanoed.studies import peers
from nanoed.studies.analysis import Progress
from nanoed.studies.bench_bloch import engine
from nanoed.studies.case import Case
from nanoed.studies.run import run_case
from nanoed.studies.timing import Timing, best_of

Array = NDArray[np.float64]
BLOCK = 512
"""Side of the square matrices whose product measures the speed of arithmetic."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The middle frame of a case, ready for the kernel.

    ub : (3, 3) 1/Å, lab.  rotations (m, 3, 3), weights (m,); thickness (k,) Å, thickness_weights (k,).
    hkl : (n, 3) reflections of the frame.  matrix : (N, N) 1/Å², A at the frame's centre, symmetric.
    """

    setup: Setup
    ub: Array
    rotations: Array
    weights: Array
    thickness: Array
    thickness_weights: Array
    hkl: NDArray[np.int64]
    matrix: Array

    @property
    def radians(self) -> float:
        """Phase that the fastest wave gathers in the thickest column, π λ t times half the spread of A."""
        spread = np.ptp(np.linalg.eigvalsh(self.matrix)) / 2
        return float(np.pi * wavelength_A(self.setup.nominal.voltage_kv) * spread * self.thickness.max())


def bench(case: Case, stages: bool, progress: Progress | None = None) -> list[Timing]:
    """Time the kernels on the middle frame of a case, one core, and the stages of a whole run of it."""
    frame = middle_frame(case)
    with threadpool_limits(1):
        timings = kernels(frame) + engine() + multislice()
    return timings + (run_stages(case, frame, progress) if stages else [])


def middle_frame(case: Case) -> Frame:
    """What the simulator computes for the frame in the middle of a case."""
    setup = prepare(case.experiment, case.crystal)
    i = setup.nominal.n_frames // 2
    rotation = frame_matrix(setup.true.alpha[i], setup.true.beta[i], setup.true.omega[i])
    beam = (rotation @ setup.mount).T @ np.array([0.0, 0.0, 1.0])
    thickness, thickness_weights, _ = chord_distribution(setup.body, beam)
    rotations, weights = orientations(setup, i, float(thickness.max()))
    ub = rotation @ setup.ub
    hkl = diffraction(setup, i).hkl
    return Frame(setup, ub, rotations, weights, thickness, thickness_weights, hkl, _matrix(setup, ub))


def kernels(frame: Frame) -> list[Timing]:
    """The Bloch-wave kernels beside the linear algebra that any such kernel needs, at the case's own size."""
    rng = np.random.default_rng(1)
    a, n, turns = frame.matrix, len(frame.matrix), len(frame.rotations)
    block, row = rng.standard_normal((BLOCK, BLOCK)), a.ravel()
    flops = 2 * BLOCK**3 / best_of(lambda: block @ block, 5)
    reading = best_of(lambda: [row @ row for _ in range(1000)], 5) / 1000
    vector = rng.standard_normal(n)
    product = best_of(lambda: [a @ vector for _ in range(1000)], 5) / 1000
    table = _table_with_derivatives(frame.setup.crystal, frame.setup)
    columns = table.box.shape[1] + bloch.TILTS_AND_THICKNESS - 1
    several = rng.standard_normal((n, columns))
    products = best_of(lambda: [a @ several for _ in range(100)], 5) / 100
    terms, size = frame.radians, f"{n} beams"
    nodes = f"{size}, {len(frame.thickness)} thicknesses"
    return [
        Timing("matrix-vector product", size, product, reading, "reading the matrix once"),
        Timing("eigh", size, best_of(lambda: np.linalg.eigh(a), 3), 9 * n**3 / flops, "9 N³ operations"),
        Timing(
            *("bloch, intensities, per orientation", nodes, best_of(_forward(frame), 2) / turns),
            *(terms * product, f"a matrix-vector product per radian of phase, {terms:.0f}"),
        ),
        Timing(
            *(
                f"bloch, {columns} derivatives, per orientation",
                nodes,
                best_of(_jacobian(frame, table), 1) / turns,
            ),
            *(terms * (product + products), "such a product for the wave and for every derivative"),
        ),
    ]


def multislice() -> list[Timing]:
    """Multislice of a sphere of 40,000 atoms, and abTEM beside it where NANOED_ORACLE_PYTHON has it; one thread."""
    atoms = peers.sphere()
    potential, beam = peers.multislice_seconds(atoms)
    size = f"ITO sphere 10 nm, {peers.SAMPLING:g} Å, slices {peers.SLICE_A:g} Å"
    timings = [
        Timing("multislice, potential", size, potential),
        Timing("multislice, per beam direction", size, beam, peers.fft_seconds(), "two FFTs per slice"),
    ]
    if (found := peers.abtem_seconds(atoms)) is not None:
        size = f"the same, slices {peers.PEER_SLICE_A:g} Å"
        timings += [
            Timing("abTEM, potential", size, found[0], potential, "ours"),
            Timing("abTEM, per beam direction", size, found[1], beam, "ours"),
        ]
    return timings


def run_stages(case: Case, frame: Frame, progress: Progress | None = None) -> list[Timing]:
    """Stages of a whole run in this process, where the kernels are compiled already; one worker."""
    with tempfile.TemporaryDirectory(prefix="nanoed-bench-") as folder:
        done = run_case(case, Path(folder) / case.name, progress=progress)
        with (done.folder / "timings.csv").open(encoding="utf-8") as file:
            seconds = {row["stage"]: float(row["seconds"]) for row in csv.DictReader(file)}
        reading = best_of(lambda: _read_frames(done.folder / "data"), 1)
    frames = frame.setup.nominal.n_frames
    with threadpool_limits(1):
        once = frames * best_of(_forward(frame), 2)
    floors = {
        "simulate": (once, "intensities of every frame"),
        "reduce": (reading, "reading the frames"),
        "refine dynamical": (once, "intensities of every frame, once"),
    }
    return [
        Timing(stage, f"{frames} frames", took, *floors.get(stage, ())) for stage, took in seconds.items()
    ]


def matrix_product_seconds(times: int = 20) -> float:
    """Least processor time of a product of BLOCK x BLOCK matrices on one core, the unit of speed of this machine."""
    a = np.random.default_rng(1).standard_normal((BLOCK, BLOCK))
    taken = []
    with threadpool_limits(1):
        for _ in range(times):
            began = process_time()
            a @ a
            taken.append(process_time() - began)
    return max(min(taken), 1e-6)


def _forward(frame: Frame) -> Callable[[], object]:
    setup = frame.setup
    return lambda: bloch.frame_intensities(
        setup.potential,
        frame.ub,
        frame.rotations,
        frame.weights,
        frame.thickness,
        frame.thickness_weights,
        frame.hkl,
        setup.nominal.voltage_kv,
        setup.g_max,
        setup.s_max,
    )


def _jacobian(frame: Frame, table: bloch.PotentialTable) -> Callable[[], object]:
    """The kernel with derivatives; few reflections are asked for, so that it works with as many beams."""
    return lambda: bloch.frame_jacobian(
        table,
        frame.ub,
        frame.ub,
        frame.rotations,
        frame.weights,
        frame.thickness,
        frame.thickness_weights,
        frame.hkl[:1],
        frame.setup.s_max,
    )


def _table_with_derivatives(crystal: Crystal, setup: Setup) -> bloch.PotentialTable:
    """The potential with derivatives by the coordinates and U_iso of every site."""
    sites = len(crystal.labels)
    jacobian = np.zeros((sites, len(SITE_QUANTITIES), 4 * sites))
    for site in range(sites):
        for column, name in enumerate(("x", "y", "z", "u_iso")):
            jacobian[site, SITE_QUANTITIES.index(name), 4 * site + column] = 1.0
    return bloch.potential_table(
        crystal, setup.nominal.voltage_kv, setup.g_max, setup.experiment.factors, jacobian
    )


def _matrix(setup: Setup, ub: Array) -> Array:
    """Structure matrix at a frame's centre: 2KS on the diagonal, U_{g-h} beside it; real part, (N, N)."""
    voltage = setup.nominal.voltage_kv
    g = setup.candidates @ ub.T
    s = excitation_errors(g, wavelength_A(voltage))
    near = np.abs(s) <= setup.s_max
    hkl = setup.candidates[near]
    difference = (hkl[:, None] - hkl[None, :]).reshape(-1, 3)
    u = u_g(setup.crystal, difference, voltage, setup.experiment.factors).real.reshape(len(hkl), -1)
    np.fill_diagonal(u, 2 / wavelength_A(voltage) * s[near])
    return (u + u.T) / 2


def _read_frames(folder: Path) -> None:
    with open_dataset(folder) as data:
        for _ in data:
            pass
