"""What a settled least squares of frames comes to: structure with s.u., statistics, tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.cells import cell_warning
from nanoed.pipeline.refine.frames import Frame
from nanoed.pipeline.refine.heldout import heldout_r_obs_pct
from nanoed.pipeline.refine.minimise import Fit
from nanoed.pipeline.refine.normal import cost_of, scale_of
from nanoed.pipeline.refine.problem import Problem, State, basis
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.statistics import agreement, as_refined, merged_r_obs_pct, r_obs_pct
from nanoed.pipeline.refine.uncertainties import frame_uncertainties

Array = NDArray[np.float64]
SU_OF_FRAMES = ["scale_su", "tilt_x_su_deg", "tilt_y_su_deg", "thickness_su_A"]


def refinement_of(problem: Problem, fit: Fit, data: PetsData) -> Refinement:
    """The refinement that a fit stands for; s.u. carry the misfit that there is."""
    state, history, p = fit.state, fit.history, len(fit.state.values)
    if not problem.spec.thickness.refine:
        fit = replace(fit, covariance=np.pad(fit.covariance[:p, :p], (0, 1)))
    calculated = [i for i, _ in problem.evaluate(state, derivatives=False)]
    crystal = problem.parameters.apply(state.values)
    table = _reflections(problem.frames, calculated)
    frames = _frame_table(problem, fit, calculated)
    used = table["frame"].isin(frames["frame"][problem.working])
    statistics, misfit = _fitted(problem, state, calculated, table[used])
    covariance: Array = np.asarray(fit.covariance * misfit, np.float64)
    frames[SU_OF_FRAMES] *= np.sqrt(misfit)
    statistics |= {
        "mr_obs_pct": merged_r_obs_pct(table[used], crystal),
        "max_shift_su": float(history["max_shift_su"].iloc[-1]),
        "n_azimuth": int(frames["n_azimuth"].max()),
        "thickness_A": float(frames["thickness_A"].mean()),
        "thickness_su_A": _mean_thickness_su(problem, state, frames["thickness_A"].to_numpy(), covariance),
    }
    statistics |= _held_out(problem, fit, calculated, table[~used])
    return Refinement(
        method="dynamical",
        crystal=crystal,
        su=problem.parameters.uncertainties(covariance[:p, :p]),
        statistics=statistics,
        parameters=_parameter_table(problem, state, np.sqrt(np.diag(covariance))),
        reflections=table,
        frames=frames,
        history=history,
        settings=problem.spec.model_dump(mode="json"),
        message=f"converged in {len(history)} cycles" + cell_warning(data, crystal),
        covariance=covariance[:p, :p],
        parametrised=problem.parameters,
        wavelength=data.wavelength,
    )


def _fitted(
    problem: Problem, state: State, calculated: list[Array], used: pd.DataFrame
) -> tuple[dict[str, float], float]:
    """Agreement of the working frames with what was refined and counted, and chi² over the degrees of freedom.

    wr_all_pct and gof have the weights of the errors, so that methods compare; wr_refined_pct and gof_refined, where
    these are others, the weights of the least squares.
    """
    spec, n_frames = problem.spec, int(problem.working.sum())
    n_sizes = 1 + spec.thickness.angle_terms + (n_frames if spec.thickness.frame_spread is not None else 0)
    n_sizes *= spec.thickness.refine
    n_parameters = len(state.values) + n_sizes + n_frames
    n_tilts = 2 * n_frames if spec.optimise_orientations else 0
    beside = problem.parameters.restrained(state.values)[0]
    restraints = (float(beside @ beside), len(beside))
    statistics = agreement(used, n_parameters, spec.instability, n_tilts, restraints)
    statistics |= {
        "g_max": problem.engine.g_max,
        "s_g_max": spec.s_g_max,
        "rs_g_max": spec.rs_g_max,
        "n_tilts": n_tilts,
    }
    rows = zip(problem.frames, calculated, problem.working, strict=True)
    costs = [(cost_of(f, i_c), float(f.weight @ f.observed**2)) for f, i_c, working in rows if working]
    chi2, norm = np.sum(costs, axis=0)
    n_free = max(len(used) + restraints[1] - n_parameters - n_tilts, 1)
    misfit = float(chi2 + restraints[0]) / n_free
    if spec.emphasis or spec.frame_weights != "errors":
        statistics |= as_refined(chi2, norm, len(used) - n_parameters - n_tilts, restraints)
    return statistics, misfit


def _held_out(problem: Problem, fit: Fit, calculated: list[Array], held: pd.DataFrame) -> dict[str, float]:
    """R of the frames that had no say, or of all in turns; nothing where neither is asked for."""
    folds = problem.spec.heldout_folds
    if len(held):
        return {"r_heldout_pct": r_obs_pct(held)}
    if folds is None:
        return {}
    return {"r_heldout_pct": heldout_r_obs_pct(problem, fit.state, calculated, fit.slopes, folds)}


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
