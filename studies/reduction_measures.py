"""How far reduced data are from the truth: lattice, hand, axis, distortion and intensities with their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.axis import mean_axis
from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.reduce import Reduction
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.geometry import frame_matrix
from nanoed.sim.truth import Truth

Array = NDArray[np.float64]
BINS = (-np.inf, 1.0, 3.0, 10.0, 30.0, 100.0, np.inf)
"""Edges of the bins of true intensity over expected sigma."""


def camera_factor(found: Geometry, truth: Truth) -> float:
    """True over nominal 1/Å per pixel: lengths of the found cell are true ones times this."""
    return float(truth.summary["a_per_px_true"]) / found.a_per_px


def setting(ub: Array, truth: Truth) -> tuple[NDArray[np.int64], float]:
    """(3, 3) whole-number matrix M, h_true = M h_found, of the found cell, and the mismatch of the lattices.

    The mismatch is the largest |UB_found - UB_true M| over the longest reciprocal axis, after the scale of the camera
    length is taken out: small only for the right lattice in the right orientation, of the right hand, since M must
    have a positive determinant.
    """
    ratio = np.linalg.inv(truth.ub_true) @ ub
    scale = abs(np.linalg.det(ratio)) ** (1 / 3)
    whole = [np.round(ratio * s / scale) for s in np.cbrt([1.0, 2.0, 4.0, 0.5, 0.25, 3.0])]
    matrix = min(whole, key=lambda m: float(np.abs(ratio - m).max()))
    miss = truth.ub_true @ (ratio - matrix)
    size = np.linalg.norm(truth.ub_true, axis=0).max()
    good = np.linalg.det(matrix) > 0.1
    return matrix.astype(np.int64), float(np.abs(miss).max() / size) if good else np.inf


def cell_errors(found: Geometry, crystal: Crystal, truth: Truth) -> dict[str, float]:
    """Largest errors of the lengths with the true camera length, of the axis ratios, and of the angles.

    Axes are compared in order of their lengths, since without a space group their names are a matter of taste.
    """
    ours, true = (np.array(cell) for cell in (found.cell, crystal.cell))
    lengths = np.sort(ours[:3]) / camera_factor(found, truth)
    relative = lengths / np.sort(true[:3])
    return {
        "length_err_pct": float(100 * np.abs(relative - 1).max()),
        "ratio_err_pct": float(100 * (relative.max() / relative.min() - 1)),
        "angle_err_deg": float(np.abs(np.sort(ours[3:]) - np.sort(true[3:])).max()),
        "camera_err_pct": 100 * (1 / camera_factor(found, truth) - 1),
    }


def axis_err_deg(found: Reduction, truth: Truth) -> float:
    """Azimuth of the mean axis of the found orientations less that of the true ones, degrees."""
    nominal = np.radians(found.frames["alpha_nominal_deg"].to_numpy(float))
    angles = np.radians(truth.frames[["alpha_true_deg", "beta_true_deg", "omega_true_deg"]].to_numpy(float))
    true = np.array([frame_matrix(*row) for row in angles])
    start = float(np.radians(truth.summary["axis_azimuth_true_deg"]))
    error = found.statistics["axis_azimuth_deg"] - np.degrees(mean_axis(true, nominal, start))
    return float((error + 180) % 360 - 180)


def distortion_errors(found: Geometry, truth: Truth) -> dict[str, float]:
    """Error of every distortion at the detector's edge, in percent, beside the true amplitude."""
    lenses, ours = truth.summary["distortion"], found.distortion
    edge = ours.edge * found.a_per_px / float(lenses["edge"])  # the same pixels
    pairs = {
        "elliptic": (complex(*truth.summary["elliptic"]), ours.ellipse),
        "parabolic": (complex(*lenses["parabolic"]) * edge, ours.parabolic),
        "cubic": (complex(*lenses["cubic"]) * edge**2, ours.cubic),
    }
    errors = {f"{name}_pct": 100 * abs(true) for name, (true, _) in pairs.items()}
    return errors | {f"{name}_err_pct": 100 * abs(found - true) for name, (true, found) in pairs.items()}


def intensity_errors(found: Reduction, truth: Truth, matrix: NDArray[np.int64]) -> dict[str, Any]:
    """Spots of all frames against the electrons that the crystal sent into them.

    matrix : (3, 3), h_true = M h_found. The truth is what leaves the crystal in a reflection, before film, plasmon
    losses and detector. These take the same part of every spot of a frame (0.8-0.9 of the electrons stay in a spot,
    the others make its halo) and detectors count an electron more or less than once, so a scale per frame (weighted
    least squares) is taken out first, as every use of the data does; its mean and spread are told. `slope` is that of
    the spots below 30 sigma on this scale, which the strong ones set: were strong and weak spots on different scales,
    it would not be 1. Pulls, in bins of the true intensity over the expected sigma, take sigma from the expected and
    not from the observed counts, and allow for the part of a spot in the scale of its own frame.
    """
    spots = found.spots.copy()
    spots[["h", "k", "l"]] = spots[["h", "k", "l"]].to_numpy(np.int64) @ matrix.T
    true = truth.reflections[truth.reflections["crystal"] == 0]
    both = spots.merge(true, on=["frame", "h", "k", "l"])
    scale, k = _frame_scales(both)
    observed, expected = both["I"].to_numpy(float) / k, both["i_true"].to_numpy(float)
    sigma = both["sigma"].to_numpy(float) / k
    strong = observed > 3 * sigma
    logs = np.log(observed[strong]), np.log(np.maximum(expected[strong], 1e-9))
    expected_sigma = _expected_sigma(both, k)
    middle = expected < 30 * expected_sigma
    weight = middle * expected_sigma**-2
    result = {
        "n_spots": len(both),
        "scale_mean": float(scale.mean()),
        "scale_spread_pct": 100 * float(scale.std() / scale.mean()),
        "sum_err_pct": 100 * float(np.abs(observed - expected)[strong].sum() / expected[strong].sum()),
        "corr_ln": float(np.corrcoef(*logs)[0, 1]),
        "slope": float((weight * observed * expected).sum() / (weight * expected**2).sum()),
    }
    leverage = _leverage(both, expected, expected_sigma)
    told = leverage < 0.9  # the others are alone in setting their frame's scale
    pull = ((observed - expected) / (expected_sigma * np.sqrt(1 - np.minimum(leverage, 0.9))))[told]
    bins = np.digitize((expected / expected_sigma)[told], BINS[1:-1])
    for b in range(len(BINS) - 1):
        own = pull[bins == b]
        result[f"pull_n_{b}"] = len(own)
        result[f"pull_rms_{b}"] = float(np.sqrt((own**2).mean())) if len(own) else np.nan
        result[f"pull_mean_{b}"] = float(own.mean()) if len(own) else np.nan
    return result


def _frame_scales(both: pd.DataFrame) -> tuple[pd.Series, Array]:
    """Σ w I I_true / Σ w I_true² of every frame, w = 1/sigma² at the scale before; and the same for every spot (n,)."""
    k = np.full(len(both), float(both["I"].sum() / both["i_true"].sum()))
    for _ in range(3):
        weight = _expected_sigma(both, k) ** -2 / k**2
        top = (weight * both["I"] * both["i_true"]).groupby(both["frame"]).sum()
        scale = top / (weight * both["i_true"] ** 2).groupby(both["frame"]).sum()
        k = np.maximum(both["frame"].map(scale).to_numpy(float), 1e-6)
    return scale, k


def _leverage(both: pd.DataFrame, expected: Array, sigma: Array) -> Array:
    """(n,) w I_true² / Σ w I_true² over the frame: how far a spot sets the scale of its frame itself."""
    own = pd.Series((expected / sigma) ** 2, index=both.index)
    return (own / own.groupby(both["frame"]).transform("sum")).to_numpy(float)


def _expected_sigma(both: pd.DataFrame, k: Array) -> Array:
    """Sigma (n,) with the counting noise of the true intensity in place of that of the observed one."""
    relative = both["relative"].to_numpy(float)
    observed, expected = both["I"].to_numpy(float), both["i_true"].to_numpy(float) * k
    shot = both["shot"].to_numpy(float)
    background = (
        both["sigma"].to_numpy(float) ** 2 - (relative * observed) ** 2 - shot * np.maximum(observed, 0.0)
    )
    variance = np.maximum(background, 0.0) + shot * np.maximum(expected, 0.1)
    return np.asarray(np.sqrt(variance + (relative * expected) ** 2) / k, np.float64)
