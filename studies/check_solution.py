"""The study check-solution: every published case solved from the frames of its simulated experiment.

The reduction is told an approximate cell and the Laue class, never the space group or the structure; the solution is
told the composition. SEEDS seeds of the solution are spread in turn over EXPERIMENTS simulated experiments of each
case (particle, flaws and noise by their own seeds: that of the case, then 1, 2, ...). Each answer is held against
the truth, in all and by charge flipping alone; beside them the charge flipping of cctbx, where it is installed, on
the same lists and told the space group. The part tyrosine is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.io.shelx_model import read_shelx_model
from nanoed.pipeline.reduce.reduce import reduce
from nanoed.pipeline.serial.index import index
from nanoed.pipeline.solve.data import Intensities, read_intensities
from nanoed.pipeline.solve.solve import best_of, solve
from nanoed.pipeline.solve.spec import SolveSpec
from nanoed.pipeline.solve.structures import FLIPPING, Structure
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.simulate import simulate
from nanoed.studies.case import Case, load_case, shipped_cases
from nanoed.studies.compare import compare
from nanoed.studies.findings import Finding, asked_parts
from nanoed.studies.run import given
from nanoed.studies.solution_peer import peer_available, peer_solution

Progress = Callable[[str, int, int], None]
SEEDS = range(1, 11)
EXPERIMENTS: Mapping[str, int] = {"anatase": 10, "mgti2o5": 3, "ito-01": 2, "ito-02": 2}
"""Simulated experiments of a case, where simulation is cheap; 1 of the others."""
ALLOWED_A = 0.3
TYROSINE = "C9H11NO3"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one seed gave: largest distance of an atom (Å; inf for a wrong group or nothing), of charge flipping alone
    too, seconds of wall and processor time."""

    d_max: float
    d_max_flipping: float
    seconds: float
    busy: float


def findings(
    reference: Path, out: Path, parts: Sequence[str] | None, workers: int, progress: Progress | None
) -> list[Finding]:
    """The figures of the asked cases and of tyrosine (None: all). Raises InputError for others.

    reference : folder with tyrosine/.  out : not needed.
    """
    known: dict[str, Callable[[int, Progress | None], Iterator[Finding]]] = {
        name: partial(_case, name) for name in shipped_cases() if load_case(name).published
    }
    known["tyrosine"] = partial(_tyrosine, reference)
    return [finding for part in asked_parts(parts, known) for finding in known[part](workers, progress)]


def lists_of(name: str, workers: int, progress: Progress | None) -> list[Intensities]:
    """Merged intensities of every experiment of a case, simulated and reduced."""
    found = []
    for seed in [None, *range(1, EXPERIMENTS.get(name, 1))]:
        case = load_case(name) if seed is None else load_case(name, (f"seed={seed}",))
        with tempfile.TemporaryDirectory() as folder:
            reduced_blind(case, Path(folder), workers, progress)
            found.append(read_intensities(Path(folder) / "reduced", case.solving))
    return found


def reduced_blind(case: Case, folder: Path, workers: int, progress: Progress | None) -> None:
    """Simulate into `folder` and reduce into `folder/reduced`, the space group kept back.

    Where the approximate cell is refused the reduction finds one itself, as an experimenter would have it.
    """
    truth = case.crystal
    experiment = case.experiment.model_copy(update={"structure": truth.name})
    simulate(experiment, truth, folder / "data", folder / "truth", workers, progress)
    told = {
        "cell": given(truth, case.start, case.seed).cell,
        "laue": case.reduce.laue_class,
        "spacegroup": None,
    }
    if experiment.protocol.kind == "serial":
        index(folder / "data", case.index.model_copy(update=told), folder / "reduced", workers, progress)
        return
    spec = case.reduce.model_copy(update=told)
    try:
        reduce(folder / "data", spec, folder / "reduced", workers, progress)
    except InputError:
        spec = spec.model_copy(update={"cell": None})
        reduce(folder / "data", spec, folder / "reduced", workers, progress)


def _case(name: str, workers: int, progress: Progress | None) -> Iterator[Finding]:
    yield from judged(load_case(name), lists_of(name, workers, progress), workers)


def judged(case: Case, lists: Sequence[Intensities], workers: int) -> Iterator[Finding]:
    """The figures of one case from its lists of intensities."""
    truth, spec = case.crystal, case.solving
    pairs = [(seed, lists[i % len(lists)]) for i, seed in enumerate(SEEDS)]
    answers = [_answer(data, spec.model_copy(update={"seed": seed}), truth, workers) for seed, data in pairs]
    good = sum(a.d_max <= ALLOWED_A for a in answers)
    yield Finding(case.name, "simulated experiments", len(lists))
    yield Finding(case.name, "reflections, median", float(np.median([len(d.reflections) for d in lists])))
    yield Finding(case.name, f"solutions of {len(SEEDS)} seeds", good, ">=", 0.9 * len(SEEDS))
    alone = sum(a.d_max_flipping <= ALLOWED_A for a in answers)
    yield Finding(case.name, "of them by charge flipping alone", alone)
    python = peer_available()
    if python is not None:
        theirs = [peer_solution(python, data, spec, truth.spacegroup, seed) for seed, data in pairs]
        right = sum(distance(found, truth) <= ALLOWED_A for found in theirs if found is not None)
        yield Finding(case.name, "cctbx, told the space group: solutions", right)
    yield Finding(
        case.name, "median largest distance of an atom / Å", float(np.median([a.d_max for a in answers]))
    )
    yield Finding(
        case.name, "longest time of a seed / s", round(max(a.seconds for a in answers), 1), "<=", 60.0
    )
    yield Finding(case.name, "longest processor time of a seed / s", round(max(a.busy for a in answers), 1))


def distance(found: Crystal, truth: Crystal) -> float:
    """Largest distance of an atom (Å); inf where the space group or the sites are not those of the truth."""
    if _number(found) != _number(truth):
        return np.inf
    try:
        return compare(found, truth).d_max_A
    except InputError:
        return np.inf


def _answer(data: Intensities, spec: SolveSpec, truth: Crystal, workers: int) -> Answer:
    began, busy = perf_counter(), process_time()
    structures: tuple[Structure, ...] = ()
    with suppress(ConvergenceError):
        structures = solve(data, spec, workers).structures
    seconds, busy = perf_counter() - began, process_time() - busy
    distances = []
    for some in (structures, [s for s in structures if s.method == FLIPPING]):
        best = best_of(some, spec)
        distances.append(np.inf if best is None else distance(best.crystal, truth))
    return Answer(distances[0], distances[1], seconds, busy)


def _number(crystal: Crystal) -> int:
    """Of the space group in the International Tables."""
    return int(gemmi.find_spacegroup_by_name(crystal.spacegroup).number)


def _tyrosine(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """Atoms but hydrogen of the deposited model that the best structure has, wherever its origin and hand."""
    folder = reference / "tyrosine"
    model = read_shelx_model(folder / "tyrosine.ins")
    data = read_intensities(folder / "tyrosine.hkl", SolveSpec(composition=TYROSINE))
    atoms, elements, seconds = [], [], []
    for seed in SEEDS:
        began = perf_counter()
        try:
            found = solve(data, SolveSpec(composition=TYROSINE, seed=seed), workers).crystal
            placed, named = atoms_found(found, model)
        except ConvergenceError:
            placed, named = 0.0, 0.0
        atoms.append(placed)
        elements.append(named)
        seconds.append(perf_counter() - began)
    yield Finding("tyrosine", "unique reflections", len(data.reflections))
    yield Finding("tyrosine", "atoms within 0.3 Å, mean of 10 seeds, %", 100 * float(np.mean(atoms)))
    yield Finding("tyrosine", "atoms within 0.3 Å, worst seed, %", 100 * min(atoms))
    yield Finding("tyrosine", "their element right, mean of 10 seeds, %", 100 * float(np.mean(elements)))
    yield Finding("tyrosine", "longest time of a seed / s", round(max(seconds), 1), "<=", 60.0)


def atoms_found(found: Crystal, model: Crystal) -> tuple[float, float]:
    """Parts of the model's atoms but hydrogen that are found, and found as the right element, at the best origin.

    Origins are those that the Euclidean normaliser of P 21 21 21 allows, multiples of 1/2; both hands are tried.
    """
    heavy = np.array([name not in ("H", "D") for name in model.elements])
    xyz, names = model.xyz[heavy], np.array(model.elements)[heavy]
    site, atoms = found.unit_cell_atoms()
    best = (0.0, 0.0)
    if _number(found) != _number(model):
        return best
    halves: NDArray[np.float64] = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3), axis=-1).reshape(-1, 3)
    for origin in halves:
        for hand in (1.0, -1.0):
            d = (hand * xyz + origin)[:, None] - atoms
            length = np.linalg.norm((d - np.rint(d)) @ found.frac_to_cart.T, axis=2)
            nearest, near = length.argmin(axis=1), length.min(axis=1) < ALLOWED_A
            right = near & (np.array(found.elements)[site[nearest]] == names)
            best = max(best, (float(near.mean()), float(right.mean())))
    return best
