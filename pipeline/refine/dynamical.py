"""Dynamical refinement on the intensities of every frame.

In the order that keeps scales, thickness, displacement parameters and orientations apart (A9): a scan over thickness;
structure and thickness on a few frames; the tilts of all frames; then everything together. The first stages use
beams twice as near to the Ewald sphere; the last one the full set, with a Jacobian that is kept as long as it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.frames import Engine, Frame, check_cells, frames_of, tilted
from nanoed.pipeline.refine.normal import block_of, cost_of, scale_of, solve
from nanoed.pipeline.refine.parameters import Parameters, free_parameters
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.statistics import agreement, merged_r_obs_pct
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.bloch import PotentialTable, potential_table
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import voltage_kv
from nanoed.sim.physics.errors import ConvergenceError

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
T = TypeVar("T")
LARGEST_TILT_STEP = np.radians(0.15)
LARGEST_DAMPING = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """values : (p,) of the structure.  log_size : of the body's diameter, Å.  tilts : (frames, 2) rad."""

    values: Array
    log_size: float
    tilts: Array

    @property
    def size(self) -> float:
        return float(np.exp(self.log_size))


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What stays the same during one stage. at : the state that fixes beams and sampling."""

    frames: list[Frame]
    parameters: Parameters
    engine: Engine
    spec: RefineSpec
    voltage: float
    at: State
    workers: int
    report: Callable[[int, int], None]

    def potential(self, values: Array, derivatives: bool) -> PotentialTable:
        crystal = self.parameters.apply(values)
        jacobian = self.parameters.jacobian if derivatives else None
        return potential_table(crystal, self.voltage, self.engine.g_max, self.spec.factors, jacobian)

    def each(self, work: Callable[[int], T]) -> list[T]:
        """work(i) of every frame, in order, over the workers; reports progress."""

        def results(pool: ThreadPoolExecutor) -> Iterator[T]:
            for done, result in enumerate(pool.map(work, range(len(self.frames))), 1):
                self.report(done, len(self.frames))
                yield result

        with ThreadPoolExecutor(self.workers) as pool:
            return list(results(pool))

    def evaluate(self, state: State, derivatives: bool) -> list[tuple[Array, Array]]:
        """Intensities and derivatives of every frame."""
        potential = self.potential(state.values, derivatives)
        return self.each(lambda i: self.frame(i, state, potential, derivatives))

    def frame(
        self, i: int, state: State, potential: PotentialTable, derivatives: bool
    ) -> tuple[Array, Array]:
        fixed = (self.at.tilts[i], self.at.size)
        return self.engine.intensities(
            self.frames[i], state.tilts[i], state.size, fixed, potential, derivatives
        )


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
    check_cells(data, model)
    parameters = free_parameters(model, spec.adp_model, spec.occupancies)
    with threadpool_limits(1):
        problem, state = _approach(data, parameters, spec, workers, progress)
        return _finish(problem, state, data, progress)


def _engine(data: PetsData, spec: RefineSpec, coarse: bool) -> Engine:
    s_max = spec.s_g_max / 2 if coarse else spec.s_g_max
    g_max = spec.d_star_max + (0.0 if coarse else spec.g_margin)
    return Engine(data.ub, spec.thickness, spec.protocol, g_max, s_max, spec.n_azimuth)


def _reporter(progress: Progress | None, stage: str) -> Callable[[int, int], None]:
    return (lambda done, total: progress(stage, done, total)) if progress else (lambda done, total: None)


def _approach(
    data: PetsData, parameters: Parameters, spec: RefineSpec, workers: int, progress: Progress | None
) -> tuple[Problem, State]:
    """The full problem and a state near its solution."""
    frames = frames_of(data, spec)
    few = frames[:: max(1, len(frames) // spec.start_frames)]
    voltage = voltage_kv(data.wavelength)
    coarse = _engine(data, spec, coarse=True)
    start = State(parameters.start, np.log(_start_size(coarse, few, spec)), np.zeros((len(few), 2)))
    problem = Problem(
        few, parameters, coarse, spec, voltage, start, workers, _reporter(progress, "thickness scan")
    )
    if spec.thickness.start_A is None:
        start = _scanned(problem, start)
    problem = replace(problem, at=start, report=_reporter(progress, "first cycles"))
    near, _, _ = gauss_newton(problem, start, settled=1.0, tilts=spec.optimise_orientations)
    state = State(near.values, near.log_size, np.zeros((len(frames), 2)))
    problem = replace(problem, frames=frames, at=state, report=_reporter(progress, "orientations"))
    if spec.optimise_orientations:
        state = replace(state, tilts=search_tilts(problem, state))
        frames = frames_of(data, spec, {f.zone: t for f, t in zip(frames, state.tilts, strict=True)})
        known = {f.zone: t for f, t in zip(problem.frames, state.tilts, strict=True)}
        state = replace(state, tilts=np.array([known.get(f.zone, np.zeros(2)) for f in frames]))
    engine = _engine(data, spec, coarse=False)
    return replace(problem, frames=frames, engine=engine, at=state), state


def _start_size(engine: Engine, frames: list[Frame], spec: RefineSpec) -> float:
    """Diameter (Å) whose mean chord over the frames is the given start, or the scan's lower end."""
    mean = spec.thickness.start_A or spec.thickness.scan_A[0]
    return mean / float(np.mean([engine.mean_chord(f.orientation) for f in frames]))


def _scanned(problem: Problem, start: State) -> State:
    """The best thickness of the scan, every frame with its own scale."""
    low, high = problem.spec.thickness.scan_A
    ratio = problem.spec.thickness.scan_ratio
    steps = start.log_size + np.arange(0, np.log(high / low) + 1e-9, np.log(ratio))
    costs = []
    for log_size in steps:
        state = replace(start, log_size=float(log_size))
        found = replace(problem, at=state).evaluate(state, derivatives=False)
        costs.append(sum(cost_of(f, i) for f, (i, _) in zip(problem.frames, found, strict=True)))
    return replace(start, log_size=float(steps[int(np.argmin(costs))]))


def search_tilts(problem: Problem, state: State) -> Array:
    """Two tilts per frame with structure and thickness held, by Levenberg-Marquardt in each frame; (frames, 2) rad."""
    potential = problem.potential(state.values, derivatives=False)
    prior = np.radians(problem.spec.tilt_prior_deg)

    def search(i: int) -> Array:
        frame, tilt, damping = problem.frames[i], state.tilts[i], 1e-2
        fixed = (problem.at.tilts[i], problem.at.size)

        def compute(t: Array, derivatives: bool) -> tuple[Array, Array]:
            return problem.engine.intensities(frame, t, state.size, fixed, potential, derivatives)

        calculated, slope = compute(tilt, True)
        cost = cost_of(frame, calculated) + float(tilt @ tilt) / prior**2
        for _ in range(8):
            block = block_of(frame, calculated, slope, tilt, prior, damping)
            step = _limited(np.linalg.solve(block.ll, block.loc))
            trial, trial_slope = compute(tilt + step, True)
            trial_cost = cost_of(frame, trial) + float((tilt + step) @ (tilt + step)) / prior**2
            if trial_cost < cost:
                gain = cost - trial_cost
                tilt, calculated, slope, cost, damping = (
                    tilt + step,
                    trial,
                    trial_slope,
                    trial_cost,
                    damping / 10,
                )
                if gain < 1e-3 * cost or np.linalg.norm(step) < np.radians(0.003):
                    break
            else:
                damping = max(10 * damping, 0.1)
        return tilt

    return np.array(problem.each(search))


def _limited(step: Array) -> Array:
    """Tilt steps (..., 2) no longer than LARGEST_TILT_STEP."""
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    return step * np.minimum(1.0, LARGEST_TILT_STEP / np.maximum(length, 1e-300))


def gauss_newton(
    problem: Problem, state: State, settled: float, tilts: bool
) -> tuple[State, Array, pd.DataFrame]:
    """Damped Gauss-Newton on structure, size and tilts together.

    The Jacobian is kept while steps shrink to a third or better, else computed anew. Returns the state, the covariance
    of structure and log size (p + 1) at unit weight, and the history. Raises ConvergenceError.
    """
    prior = np.radians(problem.spec.tilt_prior_deg)
    found = problem.evaluate(state, derivatives=True)
    calculated, slopes = [i for i, _ in found], [s for _, s in found]
    cost, damping, last = _total(problem, state, calculated, prior), 0.0, np.inf
    n_data = sum(len(f.observed) for f in problem.frames)
    history, fresh, total = [], True, sum(float(f.weight @ f.observed**2) for f in problem.frames)
    for cycle in range(problem.spec.max_cycles):
        blocks = [
            block_of(*row, prior, damping)
            for row in zip(problem.frames, calculated, slopes, state.tilts, strict=True)
        ]
        step, local, normal = solve(blocks, tilts, damping)
        trial = _moved(state, step, local)
        trial_found = [i for i, _ in problem.evaluate(trial, derivatives=False)]
        trial_cost = _total(problem, trial, trial_found, prior)
        su = np.sqrt(np.diag(np.linalg.pinv(normal, hermitian=True)) * max(cost / n_data, 1.0))
        shift = float(np.max(np.abs(step) / su))
        if trial_cost > cost * (1 + 1e-9):
            if shift < settled:
                return state, np.linalg.pinv(normal, hermitian=True), pd.DataFrame(history)
            if fresh:
                damping = max(10 * damping, 1e-2)
                if damping > LARGEST_DAMPING:
                    break
                continue
        else:
            state, calculated, cost = trial, trial_found, trial_cost
            history.append({"cycle": cycle, "wr_all_pct": 100 * np.sqrt(cost / total), "max_shift_su": shift})
            fresh = False
            if shift < settled and damping < 0.1:
                return state, np.linalg.pinv(normal, hermitian=True), pd.DataFrame(history)
            damping = damping / 10 if damping > 1e-4 else 0.0
        if trial_cost > cost or shift > last / 3:
            found = problem.evaluate(state, derivatives=True)
            calculated, slopes, fresh = [i for i, _ in found], [s for _, s in found], True
        last = shift
    raise ConvergenceError(
        f"dynamical refinement did not settle in {problem.spec.max_cycles} cycles (largest shift/su {shift:.2g}, "
        f"wR {100 * np.sqrt(cost / total):.1f} %); try a better start model, another thickness model or start_A"
    )


def _total(problem: Problem, state: State, calculated: list[Array], prior: float) -> float:
    fit = sum(cost_of(f, i) for f, i in zip(problem.frames, calculated, strict=True))
    return fit + float(np.sum(state.tilts**2)) / prior**2


def _moved(state: State, step: Array, local: Array) -> State:
    log_size = state.log_size + float(np.clip(step[-1], -0.2, 0.2))
    return State(state.values + step[:-1], log_size, state.tilts + _limited(local))


def _finish(problem: Problem, state: State, data: PetsData, progress: Progress | None) -> Refinement:
    """The last stage and what it found."""
    spec = problem.spec
    problem = replace(problem, report=_reporter(progress, "dynamical refinement"))
    state, covariance, history = gauss_newton(problem, state, spec.settled, spec.optimise_orientations)
    calculated = [i for i, _ in problem.evaluate(state, derivatives=False)]
    crystal = problem.parameters.apply(state.values)
    table = _reflections(problem.frames, calculated)
    frames = _frame_table(problem, state, calculated)
    n_parameters = len(state.values) + 1 + len(problem.frames)
    n_tilts = state.tilts.size if spec.optimise_orientations else 0
    statistics = agreement(table, n_parameters, spec.instability)
    gof = statistics["gof"]
    covariance = covariance * max(gof, 1e-300) ** 2
    statistics |= {
        "mr_obs_pct": merged_r_obs_pct(table, crystal),
        "max_shift_su": float(history["max_shift_su"].iloc[-1]),
        "g_max": problem.engine.g_max,
        "s_g_max": spec.s_g_max,
        "rs_g_max": spec.rs_g_max,
        "n_azimuth": int(frames["n_azimuth"].max()),
        "n_tilts": n_tilts,
        "thickness_A": float(frames["thickness_A"].mean()),
    }
    su = np.sqrt(np.diag(covariance))
    names = [*problem.parameters.names, "diameter_A"]
    values = [*state.values, state.size]
    return Refinement(
        method="dynamical",
        crystal=crystal,
        su=problem.parameters.uncertainties(covariance[:-1, :-1]),
        statistics=statistics,
        parameters=pd.DataFrame({"name": names, "value": values, "su": [*su[:-1], su[-1] * state.size]}),
        reflections=table,
        frames=frames,
        history=history,
        settings=spec.model_dump(mode="json"),
        message=f"converged in {len(history)} cycles",
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


def _frame_table(problem: Problem, state: State, calculated: list[Array]) -> pd.DataFrame:
    rows = []
    for frame, tilt, i_c in zip(problem.frames, state.tilts, calculated, strict=True):
        orientation = tilted(frame.orientation, tilt)
        longest = problem.at.size * float(problem.engine.chords(orientation)[0].max())
        x, y = np.degrees(tilt)
        rows.append(
            {
                "frame": frame.zone - 1,
                "scale": scale_of(frame, i_c),
                "tilt_x_deg": x,
                "tilt_y_deg": y,
                "thickness_A": state.size * problem.engine.mean_chord(orientation),
                "n_azimuth": len(problem.engine.rotations(frame, longest)),
            }
        )
    return pd.DataFrame(rows)
