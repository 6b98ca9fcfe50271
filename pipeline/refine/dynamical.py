"""Dynamical refinement on the intensities of every frame.

In the order that keeps scales, thickness, displacement parameters and orientations apart (A9): a scan over thickness;
structure and thickness on a few frames; the tilts of all frames; then everything together. The first stages use
beams twice as near to the Ewald sphere; the last one the full set, with a Jacobian that is kept as long as it serves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.cells import check_cells
from nanoed.pipeline.refine.frames import Engine, Frame, as_recorded, frames_of, protocol_of
from nanoed.pipeline.refine.minimise import Fit, gauss_newton
from nanoed.pipeline.refine.normal import balanced, cost_of, relative_misfits
from nanoed.pipeline.refine.orientations import search_tilts, searches_widely
from nanoed.pipeline.refine.outcome import refinement_of
from nanoed.pipeline.refine.parameters import Parameters, parameters_of
from nanoed.pipeline.refine.problem import Problem, State
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import voltage_kv
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
SMALLEST_MISFIT = 0.01
"""Intensities that fit better than a hundredth of their errors are exact, and orientations need no other witness."""
WEAK, PATIENCE = 0.01, 10
"""Strength of the potential below which closed forms come within 0.2 % of the engine (PHYSICS B), and how many times as
many of their cheap cycles are allowed: kinematical intensities leave much of strong data unexplained, which is slow."""
Progress = Callable[[str, int, int], None]


def refine_dynamical(
    data: PetsData,
    model: Crystal,
    spec: RefineSpec,
    workers: int = 1,
    progress: Progress | None = None,
) -> Refinement:
    """Refine coordinates, displacements, occupancies, thickness, a scale and two tilts per frame on F² of every frame.

    Raises InputError for data that cannot be refined, ConvergenceError where the least squares does not settle.
    """
    check_cells(data.cell, model)
    spec = as_recorded(data, spec)
    parameters = parameters_of(model, spec)
    with threadpool_limits(1):
        problem, state, scan = _approach(data, parameters, spec, workers, progress)
        return replace(_finish(problem, state, data, progress), scan=scan)


def dynamical_thickness(
    data: PetsData, model: Crystal, spec: RefineSpec, workers: int = 1, progress: Progress | None = None
) -> float:
    """Mean thickness, Å, that a scan and some cycles on a few frames find.

    Raises as `refine_dynamical`.
    """
    check_cells(data.cell, model)
    with threadpool_limits(1):
        problem, state, _ = _near(data, frames_of(data, spec), parameters_of(model, spec), spec, workers, progress)
        problem = replace(problem, engine=_engine(data, spec, start=False), at=state)
        state = gauss_newton(problem, state, 1.0, spec.optimise_orientations, enough=spec.start_cycles).state
    chords = [problem.engine.mean_chord(f.orientation) * state.size(f) for f in problem.frames]
    return float(np.mean(chords))


def with_thickness_held(spec: RefineSpec, mean_A: float) -> RefineSpec:
    """The settings with a mean thickness, Å, that is held, the same curve for all frames."""
    held = {"start_A": mean_A, "refine": False, "angle_terms": 0, "frame_spread": None}
    return spec.model_copy(update={"thickness": spec.thickness.model_copy(update=held)})


def _engine(data: PetsData, spec: RefineSpec, start: bool) -> Engine:
    """The engine, or the one of the first stages."""
    s_max = spec.s_g_max * (spec.start_s_ratio if start else 1.0)
    g_max = spec.d_star_max + (0.0 if start else spec.g_margin)
    across = 1 if start else spec.mosaic_tilts
    alone = start and spec.potential_scale <= WEAK
    return Engine(
        data.ub, spec.thickness, protocol_of(data, spec), g_max, s_max, spec.n_azimuth, spec.s_g_taper, across, alone
    )


def _reporter(progress: Progress | None, stage: str) -> Callable[[int, int], None]:
    return (lambda done, total: progress(stage, done, total)) if progress else (lambda done, total: None)


def _near(
    data: PetsData,
    frames: list[Frame],
    parameters: Parameters,
    spec: RefineSpec,
    workers: int,
    progress: Progress | None,
) -> tuple[Problem, State, pd.DataFrame]:
    """The problem of a few of the frames, a state near its solution, and the scan over thickness."""
    _check_number(frames, parameters)
    few = frames[:: max(1, len(frames) // spec.start_frames)]
    voltage, engine = voltage_kv(data.wavelength), _engine(data, spec, start=True)
    state = State(parameters.start, np.zeros(1), np.zeros((len(few), 2)))
    report = _reporter(progress, "thickness scan")
    problem = Problem(few, parameters, engine, spec, voltage, state, workers, report)
    mean = spec.thickness.start_A or spec.thickness.scan_A[0]
    state = replace(state, sizes=problem.coefficients([f.orientation for f in few], mean))
    scan = pd.DataFrame()
    if spec.thickness.start_A is None:
        state, scan = _scanned(problem, state)
    problem = replace(problem, at=state, report=_reporter(progress, "first cycles"))
    if spec.optimise_orientations and searches_widely(problem):
        state = replace(state, tilts=search_tilts(problem, state))
        problem = replace(problem, at=state)
    found = gauss_newton(
        problem, state, settled=1.0, tilts=spec.optimise_orientations, enough=spec.start_cycles
    )
    return problem, found.state, scan


def _approach(
    data: PetsData, parameters: Parameters, spec: RefineSpec, workers: int, progress: Progress | None
) -> tuple[Problem, State, pd.DataFrame]:
    """The full problem, a state near its solution, and the scan over thickness."""
    frames = frames_of(data, spec)
    problem, near, scan = _near(data, frames, parameters, spec, workers, progress)
    state = replace(near, tilts=np.zeros((len(frames), 2)))
    if spec.thickness.frame_spread is not None:
        state = replace(state, sizes=np.append(near.sizes, np.zeros(len(data.zones))))
    problem = replace(problem, frames=frames, at=state, report=_reporter(progress, "orientations"))
    if spec.optimise_orientations:
        weighed = _reweighted(problem, state) if problem.stated else problem
        state = replace(state, tilts=search_tilts(weighed, state))
        known = {f.zone: t for f, t in zip(frames, state.tilts, strict=True)}
        frames = frames_of(data, spec, known)
        state = replace(state, tilts=np.array([known.get(f.zone, np.zeros(2)) for f in frames]))
    engine = _engine(data, spec, start=False)
    return replace(problem, frames=frames, engine=engine, at=state), state, scan


def _check_number(frames: list[Frame], parameters: Parameters) -> None:
    """Raise InputError where there are no more reflections than scales and parameters of the structure."""
    found, asked = sum(len(f.observed) for f in frames), len(frames) + len(parameters.names) + 1
    if found <= asked:
        raise InputError(
            "too few reflections inside the limits", value=found, allowed=f"more than {asked} parameters"
        )


def _scanned(problem: Problem, start: State) -> tuple[State, pd.DataFrame]:
    """The best thickness of the scan, every frame with its own scale, and thickness_A and wr_all_pct of all."""
    low, high = problem.spec.thickness.scan_A
    ratio = problem.spec.thickness.scan_ratio
    states, costs = [], []
    for step in np.arange(0, np.log(high / low) + 1e-9, np.log(ratio)):
        state = replace(start, sizes=start.sizes + np.eye(len(start.sizes))[0] * step)
        found = replace(problem, at=state).evaluate(state, derivatives=False)
        states.append(state)
        costs.append(sum(cost_of(f, i) for f, (i, _) in zip(problem.frames, found, strict=True)))
    total = sum(float(f.weight @ f.observed**2) for f in problem.frames)
    chord = np.mean([problem.engine.mean_chord(f.orientation) for f in problem.frames])
    thickness = [float(np.exp(s.sizes[0]) * chord) for s in states]
    scan = pd.DataFrame({"thickness_A": thickness, "wr_all_pct": 100 * np.sqrt(np.array(costs) / total)})
    return states[int(np.argmin(costs))], scan


def _reselected(problem: Problem, fit: Fit) -> tuple[Problem, Fit]:
    """The fit repeated with the beams and the sampling of the state that it found, until tilts and structure stay."""
    spec = problem.spec
    for _ in range(spec.reselections):
        problem = _reweighted(replace(problem, at=fit.state), fit.state)
        again = gauss_newton(problem, fit.state, spec.settled, spec.optimise_orientations, fit.slopes)
        moved = np.degrees(np.abs(again.state.tilts - fit.state.tilts).max())
        shift = np.abs((again.state.values - fit.state.values) / again.su[: len(again.state.values)]).max()
        fit = replace(again, history=pd.concat([fit.history, again.history], ignore_index=True))
        if moved < spec.tilt_settled_deg and shift < spec.settled:
            break
    return problem, fit


def _searched_again(problem: Problem, fit: Fit) -> tuple[Problem, Fit]:
    """Wide searches with the structure that the cycles before gave, of the frames that fit worse than the median."""
    spec = problem.spec
    for _ in range(spec.tilt_searches - 1):
        problem = replace(problem, at=fit.state)
        wr = relative_misfits(problem.frames, [i for i, _ in problem.evaluate(fit.state, derivatives=False)])
        state = replace(
            fit.state, tilts=search_tilts(problem, fit.state, np.flatnonzero(wr >= np.median(wr)))
        )
        problem = _reweighted(replace(problem, at=state), state)
        again = gauss_newton(problem, state, spec.settled, True)
        fit = replace(again, history=pd.concat([fit.history, again.history], ignore_index=True))
    return problem, fit


def _reweighted(problem: Problem, state: State) -> Problem:
    """The problem with weights of frames, and of errors stated for orientations, that follow a state's misfit."""
    frames, spec = problem.frames, problem.spec
    if spec.frame_weights != "mean_wr" and not problem.stated:
        return problem
    calculated = [i for i, _ in problem.evaluate(state, derivatives=False)]
    if spec.frame_weights == "mean_wr":
        frames = balanced(frames, calculated)
    working = [(f, i) for f, i, w in zip(frames, calculated, problem.working, strict=True) if w]
    chi2 = sum(cost_of(f, i) for f, i in working)
    freedom = sum(len(f.observed) - 1 for f, _ in working) - len(state.values) - len(state.sizes)
    misfit = float(np.sqrt(chi2 / max(freedom, 1)))
    return replace(problem, frames=frames, misfit=max(misfit, SMALLEST_MISFIT))


def _finish(problem: Problem, state: State, data: PetsData, progress: Progress | None) -> Refinement:
    """The last stage, again with the beams of the orientations that it found, and its results.

    Where tilts are searched on a grid, that is done again with the structure that the cycles before gave. A weak
    potential comes to its solution in closed form first.
    """
    problem = replace(problem, report=_reporter(progress, "dynamical refinement"))
    if problem.spec.potential_scale > WEAK:
        return refinement_of(*_cycled(problem, state), data)
    patient = problem.spec.model_copy(update={"max_cycles": PATIENCE * problem.spec.max_cycles})
    alone, near = _cycled(replace(problem, spec=patient, engine=replace(problem.engine, alone=True)), state)
    problem = replace(problem, frames=alone.frames, at=near.state, misfit=alone.misfit)
    fit = gauss_newton(problem, near.state, problem.spec.settled, problem.spec.optimise_orientations)
    fit = replace(fit, history=pd.concat([near.history, fit.history], ignore_index=True))
    return refinement_of(*_reselected(problem, fit), data)


def _cycled(problem: Problem, state: State) -> tuple[Problem, Fit]:
    """The settled fit, with the beams of the orientations that it found."""
    spec = problem.spec
    problem = _reweighted(problem, state)
    first = gauss_newton(problem, state, spec.settled, spec.optimise_orientations)
    if spec.optimise_orientations and searches_widely(problem):
        problem, first = _searched_again(problem, first)
    return _reselected(problem, first)
