"""The study check-solution: every published case solved from the frames of its simulated experiment.

The reduction is told an approximate cell and the Laue class, never the space group or the structure; the solution is
told
the composition. Each of SEEDS random seeds of charge flipping is held against the truth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import gemmi
import numpy as np

from nanoed.pipeline.reduce.reduce import reduce
from nanoed.pipeline.serial.index import index
from nanoed.pipeline.solve.data import Intensities, read_intensities
from nanoed.pipeline.solve.solve import solve
from nanoed.pipeline.spec import SolveSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.simulate import simulate
from nanoed.studies.case import Case, load_case, shipped_cases
from nanoed.studies.compare import compare
from nanoed.studies.findings import Finding, asked_parts
from nanoed.studies.run import given

Progress = Callable[[str, int, int], None]
SEEDS = range(1, 11)
ALLOWED_A = 0.3


def findings(
    reference: Path, out: Path, parts: Sequence[str] | None, workers: int, progress: Progress | None
) -> list[Finding]:
    """The figures of the asked cases (None: all published ones). Raises InputError for others.

    reference, out : not needed.
    """
    known: dict[str, Callable[[int, Progress | None], Iterator[Finding]]] = {
        name: partial(_case, name) for name in shipped_cases() if load_case(name).published
    }
    return [finding for part in asked_parts(parts, known) for finding in known[part](workers, progress)]


def _case(name: str, workers: int, progress: Progress | None) -> Iterator[Finding]:
    case = load_case(name)
    truth = case.crystal
    with tempfile.TemporaryDirectory() as folder:
        _reduced(case, truth, Path(folder), workers, progress)
        data = read_intensities(Path(folder) / "reduced", case.solving)
    attempts = [_attempt(data, case.solving, seed, truth, workers) for seed in SEEDS]
    good = [a for a in attempts if a[0] and a[1] <= ALLOWED_A]
    yield Finding(name, "reflections", len(data.reflections))
    yield Finding(name, f"solutions of {len(SEEDS)} seeds", len(good), ">=", 0.9 * len(SEEDS))
    yield Finding(name, "median largest distance of an atom / Å", float(np.median([a[1] for a in attempts])))
    yield Finding(name, "longest time of a seed / s", round(max(a[2] for a in attempts), 1), "<=", 60.0)


def _reduced(case: Case, truth: Crystal, folder: Path, workers: int, progress: Progress | None) -> None:
    """Simulate into `folder` and reduce into `folder/reduced`, the space group kept back."""
    experiment = case.experiment.model_copy(update={"structure": truth.name})
    simulate(experiment, truth, folder / "data", folder / "truth", workers, progress)
    told = {
        "cell": given(truth, case.start, case.seed).cell,
        "laue": case.reduce.laue_class,
        "spacegroup": None,
    }
    if experiment.protocol.kind == "serial":
        index(folder / "data", case.indexing.model_copy(update=told), folder / "reduced", workers, progress)
    else:
        reduce(folder / "data", case.reduce.model_copy(update=told), folder / "reduced", workers, progress)


def _attempt(
    data: Intensities, spec: SolveSpec, seed: int, truth: Crystal, workers: int
) -> tuple[bool, float, float]:
    """Whether the space group is right, the largest distance of an atom (Å), and the seconds that it took."""
    began = perf_counter()
    try:
        found = solve(data, spec.model_copy(update={"seed": seed}), workers).crystal
    except ConvergenceError:
        return False, np.inf, perf_counter() - began
    seconds = perf_counter() - began
    if _number(found) != _number(truth):
        return False, np.inf, seconds
    try:
        return True, compare(found, truth).d_max_A, seconds
    except InputError:
        return True, np.inf, seconds


def _number(crystal: Crystal) -> int:
    """Of the space group in the International Tables."""
    return int(gemmi.find_spacegroup_by_name(crystal.spacegroup).number)
