"""Parts of the study check-refinement: our intensities against those that Dyngo calculated for the same model.

No data are fitted: Dyngo's I_calc stand in the place of measurements. Every frame has its own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nanoed.pipeline.io.cif_pets import PetsData, read_cif_pets
from nanoed.pipeline.refine.frames import Engine, frames_of, protocol_of
from nanoed.pipeline.refine.orientations import search_tilts
from nanoed.pipeline.refine.parameters import parameters_of
from nanoed.pipeline.refine.problem import Problem, State
from nanoed.pipeline.refine.statistics import r_factor
from nanoed.pipeline.spec import RefineSpec, ThicknessSpec
from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.electron import voltage_kv, wavelength_A
from nanoed.studies.findings import Finding
from nanoed.studies.foreign import jana_model, jana_pairs, jana_zones
from nanoed.studies.measured import measured_settings

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
RELATIVE_ERROR, FLOOR = 0.02, 0.5
"""s.u. given to calculated intensities, so that the search for tilts weighs them like good measurements."""
MORDENITE_A, MORDENITE_EVERY = 416.68, 8
"""Jana's refined thickness; one of so many frames is compared."""
ALANINE_A, ALANINE_EVERY = 2468.723, 12
"""Largest thickness of the wedge, in Jana's m42 file for its thickness model 2."""
SPREAD_DEG = (0.0, 0.122)
"""Standard deviation of the Gaussian spread of orientations across the rotation axis; PETS2's mosaicity of the data."""
SPREAD_TILTS = (-1.3998, -0.5319, 0.0, 0.5319, 1.3998)
"""Orientations of equal weight in standard deviations, the means of fifths of the Gaussian.

The job says 'mosaicity 5'. A non-negative fit of Dyngo's intensities by ours on a grid of tilts across the axis finds
five of about equal weight, near 0, ±0.070° and ±0.168°; a smooth Gaussian describes them less well (R 0.039).
"""
ALANINE = RefineSpec(
    adp_model="as_model",
    d_star_max=2.26,
    g_margin=0.14,
    s_g_max=0.01,
    s_g_taper=0.0,
    protocol="rotation",
    rs_g_max=100.0,
    n_azimuth=120,
    tilt_search_deg=0.0,
    thickness=ThicknessSpec(model="wedge", nodes=24),
)
"""gmax, sgmax and intsteps of the m42 file."""


def mordenite_dyngo(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """Jana2006/Dyngo on mordenite: its final tilts are in no file, so that ours are found on its intensities."""
    folder, name = reference / "mordenite", "mordenite, Dyngo"
    cif = folder / "jana2006_mordenite.cif"
    data = _calculated(read_cif_pets(next(folder.glob("*.cif_pets"))), jana_pairs(cif), MORDENITE_EVERY)
    spec = measured_settings("mordenite").model_copy(update={"tilt_settled_deg": 0.001})
    problem, state = _problem(
        data, jana_model(cif, "mordenite_dynamical"), spec, MORDENITE_A, workers, progress
    )
    with threadpool_limits(1):
        state = replace(state, tilts=search_tilts(problem, state))
        r = _residuals(replace(problem, at=state), state)
    yield from _quoted(name, r, "")


def alanine_dyngo(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """Jana2020/Dyngo on L-alanine at the orientations of its job, which has no tilts of its own."""
    path = reference / "alanine" / "alanine_dynamical_IAM_jana2020.cif"
    model = read_cif(path)
    data = _calculated(jana_zones(path, model.cell, wavelength_A(200.0)), jana_pairs(path), ALANINE_EVERY)
    problem, state = _problem(data, model, ALANINE, ALANINE_A / 2, workers, progress)
    for degrees in SPREAD_DEG:
        with threadpool_limits(1):
            r = _residuals(problem, state, degrees)
        aim = 0.02 if degrees else None
        yield from _quoted("alanine, Dyngo", r, f", spread {degrees:g}° across the axis", aim)


def _calculated(data: PetsData, pairs: pd.DataFrame, every: int) -> PetsData:
    """The data with Dyngo's intensities for measurements, in one of so many frames."""
    zones = sorted(pairs["zone"].unique())[every // 2 :: every]
    kept = pairs[pairs["zone"].isin(zones)]
    table = kept[["h", "k", "l", "zone"]].assign(
        I=kept["I_calc"], sigma=RELATIVE_ERROR * kept["I_calc"] + FLOOR
    )
    return replace(data, reflections=table)


def _problem(
    data: PetsData, model: Crystal, spec: RefineSpec, mean_A: float, workers: int, progress: Progress | None
) -> tuple[Problem, State]:
    """The frames at the mean thickness given, untilted."""
    frames, parameters = frames_of(data, spec), parameters_of(model, spec)
    engine = Engine(
        data.ub, spec.thickness, protocol_of(data, spec), spec.d_star_max + spec.g_margin, spec.s_g_max,
        spec.n_azimuth, spec.s_g_taper,
    )  # fmt: skip
    state = State(parameters.start, np.zeros(1), np.zeros((len(frames), 2)))

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("frames", done, total)

    problem = Problem(frames, parameters, engine, spec, voltage_kv(data.wavelength), state, workers, report)
    sizes = problem.coefficients([f.orientation for f in frames], mean_A)[:1]
    state = replace(state, sizes=sizes)
    return replace(problem, at=state), state


def _residuals(problem: Problem, state: State, spread_deg: float = 0.0) -> list[tuple[float, float]]:
    """Sum of |F_Dyngo - k F_ours| with the best scale, and of F_Dyngo, of every frame."""
    out = []
    for frame, ours in zip(problem.frames, _spread_intensities(problem, state, spread_deg), strict=True):
        theirs = frame.observed
        first = (np.sqrt(theirs) @ np.sqrt(ours) / ours.sum()) ** 2
        r = min(r_factor(theirs, first * k**2 * ours) for k in np.linspace(0.95, 1.05, 21))
        total = float(np.sqrt(theirs).sum())
        out.append((r * total, total))
    return out


def _spread_intensities(problem: Problem, state: State, spread_deg: float) -> list[Array]:
    """Intensities of every frame, averaged over a spread of orientations across the rotation axis."""
    if spread_deg == 0:
        return [i for i, _ in problem.evaluate(state, derivatives=False)]
    at = np.array(SPREAD_TILTS)
    potential = problem.potential(state.values, derivatives=False)

    def averaged(i: int) -> Array:
        azimuth = problem.frames[i].azimuth
        across = np.array([-np.sin(azimuth), np.cos(azimuth)])
        tilts = state.tilts[i] + np.radians(spread_deg) * at[:, None] * across
        parts = [problem.frame(i, state, tilt, potential, False)[0] for tilt in tilts]
        return np.asarray(np.mean(parts, axis=0), np.float64)

    return problem.each(averaged)


def _quoted(
    name: str, residuals: list[tuple[float, float]], setting: str, aim: float | None = None
) -> Iterator[Finding]:
    """R over all frames, and the least and the largest of a frame."""
    off, total = np.array(residuals).T
    relation = "<=" if aim is not None else ""
    yield Finding(
        name, f"R on F over {len(off)} frames{setting}", float(off.sum() / total.sum()), relation, aim
    )
    yield Finding(name, f"least R of a frame{setting}", float((off / total).min()))
    yield Finding(name, f"largest R of a frame{setting}", float((off / total).max()))
