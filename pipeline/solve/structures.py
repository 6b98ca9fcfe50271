"""Refined structures from phased densities and from trials in direct space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.spec import RefineSpec
from nanoed.pipeline.solve.atoms import Kind, assign, contrast, crystal_of, density, find_peaks, formula_units
from nanoed.pipeline.solve.data import Intensities
from nanoed.pipeline.solve.direct import Trial
from nanoed.pipeline.solve.flipping import Amplitudes, flip
from nanoed.pipeline.solve.spec import FlippingSpec, SolveSpec
from nanoed.pipeline.solve.symmetry import Candidate, Symmetry, agreement_maps, averaged, find_symmetry
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.physics.scattering import allowed, structure_factors

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Complex = NDArray[np.complex128]
FLIPPING, DIRECT = "charge flipping", "direct space"


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """One random start: its threshold, whether on normalised amplitudes, R and skewness at the end, phased F (n,).

    laue_agreement : mean over the rotations of the Laue group of their agreement at the best translation.
    """

    number: int
    threshold: float
    normalised: bool
    r: float
    skewness: float
    f: Complex
    laue_agreement: float


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A refined structure.

    method : FLIPPING or DIRECT.  number : of the start or trial.  symmetry : of the density; None in direct space.
    units : formula units per cell.  contrast : of the peaks; NaN in direct space.  density : of |F_o| with its phases.
    r_pct : R(all) of all reflections that were measured; what the group forbids counts with F_c = 0, so that no group
    gains by leaving out what it cannot explain.
    """

    method: str
    number: int
    group: Candidate
    symmetry: Symmetry | None
    refinement: Refinement
    units: int
    contrast: float
    density: Array
    r_pct: float

    @property
    def crystal(self) -> Crystal:
        return self.refinement.crystal


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """What became of a start or a trial: group, symmetry and structure as far as there are any, else why not."""

    method: str
    number: int
    group: Candidate | None
    symmetry: Symmetry | None
    structure: Structure | None
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What all starts and trials share: data, their expansion to P1, the kinds of atoms, the settings."""

    data: Intensities
    grid: Amplitudes
    wanted: tuple[Kind, ...]
    spec: SolveSpec


def start(problem: Problem, number: int) -> Start:
    """Charge flipping from one set of random phases."""
    spec, grid = problem.spec, problem.grid
    threshold, normalise = _settings(number, spec.flipping)
    rng = np.random.default_rng([spec.seed, number])
    phased = flip(grid, threshold, spec.flipping, rng, normalise)
    maps = agreement_maps(grid.hkl[grid.known], phased.f[grid.known], problem.data.rotations)
    agreement = float(maps.best.mean())
    return Start(number, threshold, normalise, float(phased.r[-1]), phased.skewness, phased.f, agreement)


def _settings(number: int, spec: FlippingSpec) -> tuple[float, bool]:
    """Threshold of a start and whether it is on normalised amplitudes: every second is, from number 1 on."""
    if not spec.normalised_thresholds:
        return spec.thresholds[number % len(spec.thresholds)], False
    turn, normalise = divmod(number, 2)
    thresholds = spec.normalised_thresholds if normalise else spec.thresholds
    return thresholds[turn % len(thresholds)], bool(normalise)


def from_start(problem: Problem, begun: Start) -> Attempt:
    """The start as a refined structure, or why it is none; later rounds take the phases of the refined model."""
    hkl, known, spec = problem.grid.hkl, problem.grid.known, problem.spec
    maps = agreement_maps(hkl[known], begun.f[known], problem.data.rotations)
    symmetry = find_symmetry(hkl[known], begun.f[known], maps, spec.symmetry)
    if symmetry is None:
        why = "no space group of the Laue class agrees with the density"
        return Attempt(FLIPPING, begun.number, None, None, None, why)
    f, best = averaged(hkl, begun.f, symmetry), None
    for _ in range(spec.atoms.rounds):
        try:
            found = _of_density(problem, begun.number, symmetry, f)
        except (ConvergenceError, InputError, np.linalg.LinAlgError) as error:
            why = str(error) if best is None else ""
            return Attempt(FLIPPING, begun.number, symmetry.candidate, symmetry, best, why)
        if best is not None and found.r_pct >= best.r_pct - spec.atoms.gain_pct:
            break
        best, f = found, _phased_by(problem, found.crystal)
    return Attempt(FLIPPING, begun.number, symmetry.candidate, symmetry, best, "")


def from_trial(problem: Problem, number: int, trial: Trial) -> Attempt:
    """The arrangement as a refined structure, or why it is none."""
    try:
        refinement = _refined(problem, trial.crystal)
    except (ConvergenceError, InputError, np.linalg.LinAlgError) as error:
        return Attempt(DIRECT, number, trial.group, None, None, str(error))
    f = _phased_by(problem, refinement.crystal)
    rho = density(problem.grid.hkl, f, problem.data.cell, problem.spec.atoms.spacing_A)
    structure = Structure(DIRECT, number, trial.group, None, refinement, trial.units, np.nan, rho,
                          _r_of_all(problem, refinement))  # fmt: skip
    return Attempt(DIRECT, number, trial.group, None, structure, "")


def _of_density(problem: Problem, number: int, symmetry: Symmetry, f: Complex) -> Structure:
    """Peaks of F (n,), atoms, kinematical refinement. Raises ConvergenceError where peaks do not make the formula."""
    data, spec, wanted, group = problem.data, problem.spec, problem.wanted, symmetry.candidate
    rho = density(problem.grid.hkl, f, data.cell, spec.atoms.spacing_A)
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
    refinement = _refined(problem, model)
    return Structure(FLIPPING, number, group, symmetry, refinement, units, clear, rho,
                     _r_of_all(problem, refinement))  # fmt: skip


def _refined(problem: Problem, model: Crystal) -> Refinement:
    spec = RefineSpec(factors=problem.spec.factors, d_star_max=problem.spec.d_star_max)
    return refine_kinematical(problem.data.reflections, model, spec)


def _r_of_all(problem: Problem, refinement: Refinement) -> float:
    """R(all) in percent with the group's absences, whose F_c is 0."""
    hkl = problem.data.reflections[["h", "k", "l"]].to_numpy(np.int64)
    amplitude = np.sqrt(np.maximum(problem.data.reflections["I"].to_numpy(float), 0.0))
    near = np.linalg.norm(hkl @ problem.data.reciprocal_basis.T, axis=1) <= problem.spec.d_star_max
    absent = near & ~allowed(refinement.crystal, hkl)
    part = float(amplitude[absent].sum() / amplitude[near].sum())
    return (1 - part) * float(refinement.statistics["r_all_pct"]) + 100 * part


def _phased_by(problem: Problem, model: Crystal) -> Complex:
    """(n,) measured amplitudes with the phases of a model; the model's F, scaled, where nothing was measured."""
    hkl, known = problem.grid.hkl, problem.grid.known
    calculated = structure_factors(model, hkl, problem.spec.factors)
    size, measured = np.abs(calculated), problem.grid.amplitude
    scale = (measured * size)[known].sum() / np.square(size[known]).sum()
    return np.where(known, measured / np.maximum(size, 1e-300), scale) * calculated
