"""The rows of `results.csv`: what was asked for, what came out, and how far that is from the truth."""

import math
from typing import Any

import numpy as np
import pandas as pd

from nanoed.pipeline.reduce.reduce import Reduction
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.serial.index import Indexed
from nanoed.sim.flaws import STANDARD
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.spec import Flaws, Particle
from nanoed.sim.truth import Truth
from nanoed.studies.analysis import Analysis, Outcome
from nanoed.studies.case import Case
from nanoed.studies.compare import Comparison
from nanoed.studies.measures import (
    adp_npd,
    cell_err_pct,
    occ_max_err,
    orientation_errors_deg,
    pull_rms,
    rms,
    u_rmsd_A2,
)
from nanoed.studies.serial import named_as_in_truth
from nanoed.studies.tables import RESULT_COLUMNS

ESSENTIAL = ("r_obs_pct", "r_all_pct", "av_dist_A", "max_dist_A")


def rows(
    case: Case,
    crystal: Crystal,
    analysis: Analysis,
    comparisons: dict[str, Comparison],
    truth: Truth,
    frames: pd.DataFrame | None,
) -> list[dict[str, Any]]:
    """One row per method, in the order of the case.

    frames : zones of the reduced data with `frame`, or None where the reduction failed.
    """
    asked = asked_for(case, crystal, len(truth.frames))
    found = reduction_columns(analysis.reduction, crystal)
    return [
        asked | found | outcome_columns(outcome, comparisons.get(outcome.method), crystal, truth, frames)
        for outcome in analysis.outcomes
    ]


def asked_for(case: Case, crystal: Crystal, n_frames: int) -> dict[str, Any]:
    """The columns that say how the data were made."""
    experiment = case.experiment
    instrument, protocol, particle = experiment.instrument, experiment.protocol, experiment.particle
    return {
        "case": case.name,
        "digest": case.digest,
        "structure": crystal.name,
        "engine": experiment.engine,
        "factors_sim": experiment.factors,
        "factors_refine": case.refine.factors,
        "flaws": active_flaws(experiment.flaws),
        "protocol": protocol.kind,
        "shape": particle.shape,
        "equiv_diameter_nm": equivalent_diameter_nm(particle),
        "beam_diameter_nm": instrument.beam_diameter_nm,
        "flux_e_A2_s": instrument.flux_e_A2_s,
        "fluence_e_A2": instrument.flux_e_A2_s * protocol.exposure_s * n_frames,
        "seed": case.seed,
        "n_frames": n_frames,
    }


def active_flaws(flaws: Flaws) -> str:
    """Names the imperfections: `none`, `default` (the set of the shipped cases), else a list of what is on."""
    values = flaws.model_dump()
    if all(value == "off" for value in values.values()):
        return "none"
    if all(value == ("default" if name in STANDARD else "off") for name, value in values.items()):
        return "default"
    active = {name: value for name, value in values.items() if value not in ("off", 0.0)}
    return "+".join(name if value == "default" else f"{name}={value:g}" for name, value in active.items())


def equivalent_diameter_nm(particle: Particle) -> float:
    """Diameter of the sphere of equal volume, nm."""
    d, length = particle.diameter_nm, particle.length_nm
    if length is None:
        return d
    if particle.shape == "ellipsoid":
        return (d * d * length) ** (1 / 3)
    return (1.5 * d * d * length) ** (1 / 3)


def reduction_columns(reduction: Reduction | Indexed | None, crystal: Crystal) -> dict[str, Any]:
    """Statistics of the reduced data, and the error of the cell found."""
    if reduction is None:
        return {}
    numbers = reduction.statistics
    return {
        "coverage_pct": 100 * numbers["coverage"],
        "coverage_s_max": numbers["coverage_s_max"],
        "redundancy": numbers["redundancy"],
        "r_int_pct": 100 * numbers["r_int"],
        "cc_half": numbers["cc_half"],
        "cell_err_pct": cell_err_pct(reduction.geometry.cell, crystal.cell),
    }


def outcome_columns(
    outcome: Outcome,
    comparison: Comparison | None,
    crystal: Crystal,
    truth: Truth,
    frames: pd.DataFrame | None,
) -> dict[str, Any]:
    """Method, status, statistics of the refinement, and its distance from the truth."""
    row: dict[str, Any] = {"method": outcome.method, "status": outcome.status, "message": outcome.message}
    thickness = truth.summary["thickness_mean_A"]
    row["thickness_true_A"] = np.nan if thickness is None else float(thickness)
    if frames is not None:
        refined = with_refined_tilts(frames, outcome.refinement)
        row["orientation_err_deg"] = rms(orientation_errors_deg(refined, true_frames(refined, truth)))
    if outcome.refinement is None:
        return row
    statistics = outcome.refinement.statistics
    row |= {name: statistics[name] for name in RESULT_COLUMNS if name in statistics}
    model = outcome.refinement.crystal
    row["adp_model"] = "isotropic" if np.isnan(model.u_ij).all() else "anisotropic"
    row["adp_npd"] = adp_npd(model)
    if comparison is not None:
        row |= {
            "av_dist_A": comparison.d_av_A,
            "max_dist_A": comparison.d_max_A,
            "u_rmsd_A2": u_rmsd_A2(comparison, crystal),
            "pull_rms": pull_rms(comparison, crystal, outcome.refinement.su["xyz"]),
        }
        if "hand_z" in statistics:  # of the refined hand over the other; here of the true one
            row["hand_z"] = -statistics["hand_z"] if comparison.inverted else statistics["hand_z"]
        if outcome.refinement.settings.get("occupancies", "fixed") != "fixed":
            row["occ_max_err"] = occ_max_err(comparison, crystal)
    return finite(row)


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """The row without numbers that are not finite: NaN is not applicable; an infinite one is said in the message.

    A refinement that ended well must have its essential numbers; without one of them it has failed, and says so.
    """
    numbers = {name: value for name, value in row.items() if isinstance(value, float)}
    bad = [name for name, value in numbers.items() if math.isinf(value)]
    bad += [name for name in ESSENTIAL if name not in bad and math.isnan(numbers.get(name, math.nan))]
    row = {name: None if name in numbers and not math.isfinite(value) else value for name, value in row.items()}
    if bad and row["status"] == "ok":
        message = f"not finite: {', '.join(bad)}"
        row |= {"status": "failed", "message": "; ".join(filter(None, (row["message"], message)))}
    return row


def frame_orientations(zones: pd.DataFrame, truth: Truth, crystal: Crystal) -> pd.DataFrame:
    """The (virtual) frames of reduced data: frame (counted from 0), first, last, alpha, beta, omega (degrees).

    zones : columns of virtual.VirtualFrames.zones. Serial frames have the angles of that equivalent of their
    orientation which is nearest to the truth.
    """
    frames = zones.assign(frame=zones["id"] - 1)[["frame", "first", "last", "alpha", "beta", "omega"]]
    if truth.summary["experiment"]["protocol"]["kind"] == "serial":
        return named_as_in_truth(frames, truth, crystal)
    return frames


def with_refined_tilts(frames: pd.DataFrame, refinement: Refinement | None) -> pd.DataFrame:
    """The frames that were refined with the tilts they were given; all frames where there are no tilts."""
    if refinement is None or refinement.frames.empty:
        return frames
    tilts = refinement.frames[["frame", "tilt_x_deg", "tilt_y_deg"]]
    return frames.merge(tilts, on="frame", how="inner")


def true_frames(frames: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """The truth of `frames`, in that order: the mean of the frames that a virtual frame is made of."""
    return over_members(truth.frames, frames)


def over_members(per_frame: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """Mean of the rows first to last of a table of all frames, one row per row of `frames`."""
    total = np.vstack([np.zeros(per_frame.shape[1]), np.cumsum(per_frame.to_numpy(float), axis=0)])
    first, last = frames["first"].to_numpy(int), frames["last"].to_numpy(int)
    mean = (total[last + 1] - total[first]) / (last + 1 - first)[:, None]
    return pd.DataFrame(mean, columns=per_frame.columns)
