"""Starts of charge flipping and trials in direct space, made structures and ranked together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from nanoed.pipeline.solve.atoms import kinds
from nanoed.pipeline.solve.data import Intensities
from nanoed.pipeline.solve.direct import direct_trials
from nanoed.pipeline.solve.flipping import amplitudes
from nanoed.pipeline.solve.spec import SolveSpec
from nanoed.pipeline.solve.structures import (
    FLIPPING,
    Attempt,
    Problem,
    Start,
    Structure,
    from_start,
    from_trial,
    start,
)
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError, InputError

Progress = Callable[[str, int, int], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The best structure.  structures : all that were made.  starts : a table of all trials and starts."""

    best: Structure
    structures: tuple[Structure, ...]
    starts: pd.DataFrame

    @property
    def crystal(self) -> Crystal:
        return self.best.crystal


def solve(data: Intensities, spec: SolveSpec, workers: int = 1, progress: Progress | None = None) -> Solution:
    """Solve a structure from merged intensities; same data and spec, same answer, whatever the workers.

    Raises InputError for a composition that cannot be used, ConvergenceError where nothing found is a solution.
    """
    wanted = kinds(spec)
    hkl, modulus = data.expanded(spec.d_star_max)
    if len(hkl) < 2:
        raise InputError("no reflections inside the limit", field="d_star_max", value=spec.d_star_max)
    d_star = np.linalg.norm(hkl @ data.reciprocal_basis.T, axis=1)
    problem = Problem(data, amplitudes(hkl, modulus, d_star, spec.flipping), wanted, spec)
    with ThreadPoolExecutor(workers) as pool:
        trials = _trials(problem, pool, progress)
        ranked, attempts = _starts(problem, pool, progress)
    table = _table(trials, ranked, attempts)
    found = tuple(a.structure for a in [*trials, *attempts] if a.structure is not None)
    best = best_of(found, spec)
    if best is None:
        raise ConvergenceError(_advice(table, spec))
    return Solution(best, found, table)


def best_of(structures: Sequence[Structure], spec: SolveSpec) -> Structure | None:
    """The structure of highest symmetry among those with R within r_tolerance of the lowest; None above max_r_pct."""
    lowest = min((s.r_pct for s in structures), default=np.inf)
    near = [s for s in structures if s.r_pct <= spec.symmetry.r_tolerance * lowest]
    near.sort(key=lambda s: (-s.group.order, round(s.r_pct, 3), s.method, s.number))
    return near[0] if near and near[0].r_pct <= spec.max_r_pct else None


def _trials(problem: Problem, pool: ThreadPoolExecutor, progress: Progress | None) -> list[Attempt]:
    """Arrangements in direct space, refined."""
    if progress is not None:
        progress("direct space", 0, 1)
    trials = direct_trials(problem.data, problem.wanted, problem.spec)
    return list(pool.map(lambda row: from_trial(problem, *row), enumerate(trials)))


def _starts(
    problem: Problem, pool: ThreadPoolExecutor, progress: Progress | None
) -> tuple[list[Start], list[Attempt]]:
    """Starts in batches, the most symmetric of each first, and what became of them, until the answer is settled."""
    spec = problem.spec
    ranked: list[Start] = []
    attempts: list[Attempt] = []
    for batch in _parts(range(spec.starts), 2 * spec.solutions):
        begun = list(pool.map(lambda number: start(problem, number), batch))
        begun.sort(key=lambda s: (-s.laue_agreement, s.number))
        ranked += begun
        for few in _parts(begun, spec.solutions):
            attempts += pool.map(lambda s: from_start(problem, s), few)
            if progress is not None:
                progress("charge flipping", len(ranked), spec.starts)
            if _settled(attempts, spec):
                return ranked, attempts
    return ranked, attempts


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Successive parts of at most `size` items."""
    return (items[first : first + size] for first in range(0, len(items), size))


def _settled(attempts: list[Attempt], spec: SolveSpec) -> bool:
    """Whether `solutions` starts gave the best structure's group with R within r_tolerance of the lowest."""
    structures = [a.structure for a in attempts if a.structure is not None]
    best = best_of(structures, spec)
    if best is None:
        return False
    limit = spec.symmetry.r_tolerance * min(s.r_pct for s in structures)
    same = [s for s in structures if s.r_pct <= limit and s.group.spacegroup == best.group.spacegroup]
    return len(same) >= spec.solutions


def _table(trials: list[Attempt], ranked: list[Start], attempts: list[Attempt]) -> pd.DataFrame:
    """One row per trial and start, each in the order of rank."""
    by_number = {attempt.number: attempt for attempt in attempts}
    rows = [_row(attempt) for attempt in trials]
    for begun in ranked:
        idle = Attempt(FLIPPING, begun.number, None, None, None, "not among the best")
        rows.append(
            _row(by_number.get(begun.number, idle))
            | {
                "threshold": begun.threshold,
                "normalised": begun.normalised,
                "r_flipping": begun.r,
                "skewness": begun.skewness,
                "laue_agreement": begun.laue_agreement,
            }
        )
    return pd.DataFrame(rows)


def _row(attempt: Attempt) -> dict[str, object]:
    symmetry, made = attempt.symmetry, attempt.structure
    return {
        "method": attempt.method,
        "start": attempt.number,
        "threshold": np.nan,
        "normalised": False,
        "r_flipping": np.nan,
        "skewness": np.nan,
        "laue_agreement": np.nan,
        "spacegroup": attempt.group.spacegroup if attempt.group else "",
        "min_agreement": float(symmetry.agreement.min()) if symmetry else np.nan,
        "mean_agreement": float(symmetry.agreement.mean()) if symmetry else np.nan,
        "r_all_pct": float(made.refinement.statistics["r_all_pct"]) if made else np.nan,
        "r_pct": made.r_pct if made else np.nan,
        "contrast": made.contrast if made else np.nan,
        "message": attempt.message,
    }


def _advice(table: pd.DataFrame, spec: SolveSpec) -> str:
    flipped = table[table["method"] == FLIPPING]
    symmetric = int((flipped["spacegroup"] != "").sum())
    lowest = table["r_pct"].min()
    if np.isnan(lowest) and symmetric == 0:
        found = f"no density of {len(flipped)} starts has the symmetry of a space group of the Laue class"
        hint = "try more starts or cycles, another seed, or a lower Laue class"
    elif np.isnan(lowest):
        why = flipped.loc[flipped["spacegroup"] != "", "message"].iloc[0]
        found = f"{symmetric} of {len(flipped)} densities are symmetric, none gave atoms ({why})"
        hint = "check the composition, or give atoms.formula_units"
    else:
        found = f"the best structure has R(all) {lowest:.1f} %, above max_r_pct = {spec.max_r_pct:g}"
        hint = "try more starts or cycles, another seed, or check cell and composition"
    return f"no solution: {found}; {hint}"
