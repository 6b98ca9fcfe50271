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
from nanoed.pipeline.refine.cells import cell_warning, check_cells
from nanoed.pipeline.refine.frames import Engine, Frame, frames_of
from nanoed.pipeline.refine.heldout import heldout_r_obs_pct
from nanoed.pipeline.refine.minimise import Fit, gauss_newton
from nanoed.pipeline.refine.normal import balanced, cost_of, relative_misfits, scale_of
from nanoed.pipeline.refine.orientations import search_tilts, searches_widely
from nanoed.pipeline.refine.parameters import Parameters, parameters_of
from nanoed.pipeline.refine.problem import Problem, State, basis
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.statistics import agreement, merged_r_obs_pct, r_obs_pct
from nanoed.pipeline.refine.uncertainties import frame_uncertainties
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import voltage_kv
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
SU_OF_FRAMES = ["scale_su", "tilt_x_su_deg", "tilt_y_su_deg", "thickness_su_A"]


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
    parameters = parameters_of(model, spec)
    with threadpool_limits(1):
        problem, state, scan = _approach(data, parameters, spec, workers, progress)
        return replace(_finish(problem, state, data, progress), scan=scan)


def _engine(data: PetsData, spec: RefineSpec, start: bool) -> Engine:
    """The engine, or the one of the first stages."""
    s_max = spec.s_g_max * (spec.start_s_ratio if start else 1.0)
    g_max = spec.d_star_max + (0.0 if start else spec.g_margin)
    return Engine(data.ub, spec.thickness, spec.protocol, g_max, s_max, spec.n_azimuth, spec.s_g_taper)


def _reporter(progress: Progress | None, stage: str) -> Callable[[int, int], None]:
    return (lambda done, total: progress(stage, done, total)) if progress else (lambda done, total: None)


def _approach(
    data: PetsData, parameters: Parameters, spec: RefineSpec, workers: int, progress: Progress | None
) -> tuple[Problem, State, pd.DataFrame]:
    """The full problem, a state near its solution, and the scan over thickness."""
    frames = frames_of(data, spec)
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
    near = gauss_newton(
        problem, state, settled=1.0, tilts=spec.optimise_orientations, enough=spec.start_cycles
    ).state
    state = replace(near, tilts=np.zeros((len(frames), 2)))
    if spec.thickness.frame_spread is not None:
        state = replace(state, sizes=np.append(near.sizes, np.zeros(len(data.zones))))
    problem = replace(problem, frames=frames, at=state, report=_reporter(progress, "orientations"))
    if spec.optimise_orientations:
        state = replace(state, tilts=search_tilts(problem, state))
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
    """The problem with the frames' weights at a state, where these follow from the misfit."""
    if problem.spec.frame_weights != "mean_wr":
        return problem
    calculated = [i for i, _ in problem.evaluate(state, derivatives=False)]
    return replace(problem, frames=balanced(problem.frames, calculated))


def _finish(problem: Problem, state: State, data: PetsData, progress: Progress | None) -> Refinement:
    """The last stage, again with the beams of the orientations that it found, and its results.

    Where tilts are searched on a grid, that is done again with the structure that the cycles before gave.
    """
    spec = problem.spec
    problem = replace(problem, report=_reporter(progress, "dynamical refinement"))
    problem = _reweighted(problem, state)
    first = gauss_newton(problem, state, spec.settled, spec.optimise_orientations)
    if spec.optimise_orientations and searches_widely(problem):
        problem, first = _searched_again(problem, first)
    problem, fit = _reselected(problem, first)
    state, history = fit.state, fit.history
    calculated = [i for i, _ in problem.evaluate(state, derivatives=False)]
    crystal = problem.parameters.apply(state.values)
    table = _reflections(problem.frames, calculated)
    frames = _frame_table(problem, fit, calculated)
    used = table["frame"].isin(frames["frame"][problem.working])
    n_sizes = len(state.sizes) if spec.thickness.frame_spread is None else 1 + int(problem.working.sum())
    n_parameters = len(state.values) + n_sizes + int(problem.working.sum())
    beside = problem.parameters.restrained(state.values)[0]
    restraints = (float(beside @ beside), len(beside))
    n_tilts = 2 * int(problem.working.sum()) if spec.optimise_orientations else 0
    statistics = agreement(table[used], n_parameters, spec.instability, n_tilts, restraints)
    chi2 = sum(
        cost_of(f, i) for f, i, w in zip(problem.frames, calculated, problem.working, strict=True) if w
    )
    n_free = max(int(used.sum()) + restraints[1] - n_parameters - n_tilts, 1)
    misfit = (chi2 + restraints[0]) / n_free
    covariance: Array = np.asarray(fit.covariance * misfit, np.float64)
    frames[SU_OF_FRAMES] *= np.sqrt(misfit)
    statistics |= {
        "mr_obs_pct": merged_r_obs_pct(table[used], crystal),
        "max_shift_su": float(history["max_shift_su"].iloc[-1]),
        "g_max": problem.engine.g_max,
        "s_g_max": spec.s_g_max,
        "rs_g_max": spec.rs_g_max,
        "n_azimuth": int(frames["n_azimuth"].max()),
        "n_tilts": n_tilts,
        "thickness_A": float(frames["thickness_A"].mean()),
        "thickness_su_A": _mean_thickness_su(problem, state, frames["thickness_A"].to_numpy(), covariance),
    }
    if not used.all():
        statistics["r_heldout_pct"] = r_obs_pct(table[~used])
    elif spec.heldout_folds is not None:
        statistics["r_heldout_pct"] = heldout_r_obs_pct(
            problem, state, calculated, fit.slopes, spec.heldout_folds
        )
    p = len(state.values)
    return Refinement(
        method="dynamical",
        crystal=crystal,
        su=problem.parameters.uncertainties(covariance[:p, :p]),
        statistics=statistics,
        parameters=_parameter_table(problem, state, np.sqrt(np.diag(covariance))),
        reflections=table,
        frames=frames,
        history=history,
        settings=spec.model_dump(mode="json"),
        message=f"converged in {len(history)} cycles" + cell_warning(data, crystal),
        covariance=covariance[:p, :p],
        parametrised=problem.parameters,
        wavelength=data.wavelength,
    )


def _mean_thickness_su(problem: Problem, state: State, thickness: Array, covariance: Array) -> float:
    """s.u. of the mean thickness of the frames, Å."""
    k = len(state.sizes)
    slope = np.mean([t * basis(f, k) for f, t in zip(problem.frames, thickness, strict=True)], axis=0)
    sizes = covariance[-k:, -k:]
    return float(np.sqrt(slope @ sizes @ slope))


def _parameter_table(problem: Problem, state: State, su: Array) -> pd.DataFrame:
    """name, value, su; the body's diameter as such, its change with the stage angle as coefficients of its log."""
    p, size = len(state.values), float(np.exp(state.sizes[0]))
    n_terms = problem.spec.thickness.angle_terms
    values, of_values = problem.parameters.shown(np.asarray(state.values, np.float64), su[:p])
    terms = [f"log_diameter_{k}" for k in range(1, n_terms + 1)]
    return pd.DataFrame(
        {
            "name": [*problem.parameters.names, "diameter_A", *terms],
            "value": [*values, size, *state.sizes[1 : n_terms + 1]],
            "su": [*of_values, su[p] * size, *su[p + 1 : p + n_terms + 1]],
        }
    )


def _reflections(frames: list[Frame], calculated: list[Array]) -> pd.DataFrame:
    parts = []
    for frame, i_c in zip(frames, calculated, strict=True):
        scale = scale_of(frame, i_c)
        part = pd.DataFrame(frame.hkl, columns=["h", "k", "l"])
        parts.append(
            part.assign(
                I_obs=frame.observed / scale, sigma=frame.sigma / scale, I_calc=i_c, frame=frame.zone - 1
            )
        )
    return pd.concat(parts, ignore_index=True)


def _frame_table(problem: Problem, fit: Fit, calculated: list[Array]) -> pd.DataFrame:
    """What each frame has for itself; s.u. at unit weight."""
    state, rows = fit.state, []
    su = frame_uncertainties(problem, state, calculated, fit.slopes, fit.covariance)
    for i, (frame, i_c) in enumerate(zip(problem.frames, calculated, strict=True)):
        orientation = problem.orientation(i, state)
        longest = problem.at.size(frame) * float(problem.engine.chords(orientation)[0].max())
        x, y = np.degrees(state.tilts[i])
        thickness = state.size(frame) * problem.engine.mean_chord(orientation)
        rows.append(
            {
                "frame": frame.zone - 1,
                "scale": scale_of(frame, i_c),
                "tilt_x_deg": x,
                "tilt_y_deg": y,
                "semi_angle_deg": np.degrees(frame.semi_angle),
                "thickness_A": thickness,
                "n_azimuth": len(problem.engine.rotations(frame, longest)),
                "scale_su": su[i, 0],
                "tilt_x_su_deg": np.degrees(su[i, 1]),
                "tilt_y_su_deg": np.degrees(su[i, 2]),
                "thickness_su_A": thickness * su[i, 3],
            }
        )
    return pd.DataFrame(rows)
