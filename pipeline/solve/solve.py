"""Several starts of charge flipping, the symmetry of each, structures of the best, refined and ranked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.solve.atoms import (
    Kind,
    assign,
    contrast,
    crystal_of,
    density,
    find_peaks,
    formula_units,
    kinds,
)
from nanoed.pipeline.solve.data import Intensities
from nanoed.pipeline.solve.flipping import Amplitudes, amplitudes, flip
from nanoed.pipeline.solve.symmetry import Symmetry, agreement_maps, averaged, find_symmetry
from nanoed.pipeline.spec import RefineSpec, SolveSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.physics.scattering import structure_factors

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Complex = NDArray[np.complex128]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """One random start: its threshold, R and skewness at the end, phased F (n,).

    laue_agreement : mean over the rotations of the Laue group of their agreement at the best translation.
    """

    number: int
    threshold: float
    r: float
    skewness: float
    f: Complex
    laue_agreement: float


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A start made a structure: its refinement, formula units per cell, contrast of its peaks, density."""

    start: Start
    symmetry: Symmetry
    refinement: Refinement
    units: int
    contrast: float
    density: Array

    @property
    def r_all_pct(self) -> float:
        return float(self.refinement.statistics["r_all_pct"])


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """What became of a start: its symmetry and structure as far as there are any, else why not."""

    start: Start
    symmetry: Symmetry | None
    structure: Structure | None
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The best structure.  starts : a table of all starts, best first."""

    best: Structure
    starts: pd.DataFrame

    @property
    def crystal(self) -> Crystal:
        return self.best.refinement.crystal


def solve(data: Intensities, spec: SolveSpec, workers: int = 1, progress: Progress | None = None) -> Solution:
    """Solve a structure from merged intensities; same data and spec, same answer, whatever the workers.

    Raises InputError for a composition that cannot be used, ConvergenceError where no start is a solution.
    """
    wanted = kinds(spec)
    hkl, modulus = data.expanded(spec.d_star_max)
    if len(hkl) < 2:
        raise InputError("no reflections inside the limit", field="d_star_max", value=spec.d_star_max)
    grid = amplitudes(hkl, modulus, spec.flipping)
    starts: list[Start] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in pool.map(lambda number: _start(number, grid, data, spec), range(spec.starts)):
            starts.append(start)
            if progress is not None:
                progress("charge flipping", len(starts), spec.starts)
        ranked = sorted(starts, key=lambda s: (-s.laue_agreement, s.number))
        attempts: list[Attempt] = []
        for first in range(0, len(ranked), spec.solutions):
            batch = ranked[first : first + spec.solutions]
            attempts += pool.map(lambda s: _attempt(s, grid, data, wanted, spec), batch)
            if progress is not None:
                progress("structures", len(attempts), len(ranked))
            if sum(_accepted(attempt, spec) for attempt in attempts) >= spec.solutions:
                break
    table = _table(ranked, attempts)
    found = [a.structure for a in attempts if a.structure is not None]
    best = min((s.r_all_pct for s in found), default=np.inf)
    found = [s for s in found if s.r_all_pct <= spec.symmetry.r_tolerance * best]
    found.sort(key=lambda s: (-s.symmetry.candidate.order, s.r_all_pct, s.start.number))
    if not found or found[0].r_all_pct > spec.max_r_pct:
        raise ConvergenceError(_advice(table, spec))
    return Solution(found[0], table)


def _start(number: int, grid: Amplitudes, data: Intensities, spec: SolveSpec) -> Start:
    threshold = spec.flipping.thresholds[number % len(spec.flipping.thresholds)]
    phased = flip(grid, threshold, spec.flipping, np.random.default_rng([spec.seed, number]))
    maps = agreement_maps(grid.hkl[grid.known], phased.f[grid.known], data.rotations)
    laue_agreement = float(maps.best.mean())
    return Start(number, threshold, float(phased.r[-1]), phased.skewness, phased.f, laue_agreement)


def _attempt(
    start: Start, grid: Amplitudes, data: Intensities, wanted: tuple[Kind, ...], spec: SolveSpec
) -> Attempt:
    """The start as a refined structure, or why it is none; later rounds take the phases of the refined model."""
    hkl, known = grid.hkl, grid.known
    maps = agreement_maps(hkl[known], start.f[known], data.rotations)
    symmetry = find_symmetry(hkl[known], start.f[known], maps, spec.symmetry)
    if symmetry is None:
        return Attempt(start, None, None, "no space group of the Laue class agrees with the density")
    f, best = averaged(hkl, start.f, symmetry), None
    for _ in range(spec.atoms.rounds):
        try:
            found = _refined(start, symmetry, hkl, f, data, wanted, spec)
        except (ConvergenceError, InputError, np.linalg.LinAlgError) as error:
            return Attempt(start, symmetry, best, str(error) if best is None else "")
        if best is not None and found.r_all_pct >= best.r_all_pct - spec.atoms.gain_pct:
            break
        best = found
        model = structure_factors(found.refinement.crystal, hkl, spec.factors)
        size = np.abs(model)
        scale = (np.abs(f) * size)[known].sum() / np.square(size[known]).sum()
        f = np.where(known, np.abs(f) / np.maximum(size, 1e-300), scale) * model
    return Attempt(start, symmetry, best, "")


def _accepted(attempt: Attempt, spec: SolveSpec) -> bool:
    return attempt.structure is not None and attempt.structure.r_all_pct <= spec.max_r_pct


def _refined(
    start: Start,
    symmetry: Symmetry,
    hkl: Index,
    f: Complex,
    data: Intensities,
    wanted: tuple[Kind, ...],
    spec: SolveSpec,
) -> Structure:
    """Peaks of F (n,), atoms, kinematical refinement. Raises ConvergenceError where peaks do not make the formula."""
    group, rho = symmetry.candidate, density(hkl, f, data.cell, spec.atoms.spacing_A)
    choices = formula_units(wanted, data.cell, spec.atoms)
    most = int(1.25 * max(choices) * sum(kind.count for kind in wanted))
    peaks = find_peaks(rho, group, data.cell, spec.atoms, most)
    made = []
    for units in choices:
        chosen = assign(peaks, wanted, units)
        if chosen is not None:
            made.append((contrast(peaks, chosen), units, chosen))
    if not made:
        raise ConvergenceError("the peaks do not make the composition")
    clear, units, chosen = max(made, key=lambda row: row[0])
    model = crystal_of(peaks, chosen, group.spacegroup, data.cell, spec.atoms.u_iso_A2)
    least_squares = RefineSpec(factors=spec.factors, d_star_max=spec.d_star_max)
    refinement = refine_kinematical(data.reflections, model, least_squares)
    return Structure(start, symmetry, refinement, units, clear, rho)


def _table(ranked: list[Start], attempts: list[Attempt]) -> pd.DataFrame:
    """One row per start, in the order of rank."""
    by_number = {attempt.start.number: attempt for attempt in attempts}
    rows = []
    for start in ranked:
        attempt = by_number.get(start.number, Attempt(start, None, None, "not among the best"))
        symmetry, made = attempt.symmetry, attempt.structure
        rows.append(
            {
                "start": start.number,
                "threshold": start.threshold,
                "r_flipping": start.r,
                "skewness": start.skewness,
                "laue_agreement": start.laue_agreement,
                "spacegroup": symmetry.candidate.spacegroup if symmetry else "",
                "min_agreement": float(symmetry.agreement.min()) if symmetry else np.nan,
                "mean_agreement": float(symmetry.agreement.mean()) if symmetry else np.nan,
                "r_all_pct": made.r_all_pct if made else np.nan,
                "contrast": made.contrast if made else np.nan,
                "message": attempt.message,
            }
        )
    return pd.DataFrame(rows)


def _advice(table: pd.DataFrame, spec: SolveSpec) -> str:
    symmetric = int((table["spacegroup"] != "").sum())
    lowest = table["r_all_pct"].min()
    if symmetric == 0:
        found = f"no density of {len(table)} starts has the symmetry of a space group of the Laue class"
        hint = "try more starts or cycles, another seed, or a lower Laue class"
    elif np.isnan(lowest):
        why = table.loc[table["spacegroup"] != "", "message"].iloc[0]
        found = f"{symmetric} of {len(table)} densities are symmetric, none gave atoms ({why})"
        hint = "check the composition, or give atoms.formula_units"
    else:
        found = f"the best structure has R(all) {lowest:.1f} %, above max_r_pct = {spec.max_r_pct:g}"
        hint = "try more starts or cycles, another seed, or check cell and composition"
    return f"no solution: {found}; {hint}"
