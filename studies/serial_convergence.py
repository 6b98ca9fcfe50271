"""From where dynamical refinement of serial frames converges: orientations and thickness that start out wrong."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.frames import tilted
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.serial.lattice import angles_of
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError
from nanoed.sim.physics.geometry import frame_matrix
from nanoed.sim.streams import stream
from nanoed.sim.truth import Truth
from nanoed.studies.analysis import KINEMATICAL_SCALE
from nanoed.studies.compare import compare
from nanoed.studies.serial import orientation_errors

FRAMES = 16
"""Evenly spread over the series."""
TILT_ERRORS_DEG = (0.0, 0.1, 0.3, 0.8)
"""rms of either tilt, put on top of the orientations found."""
THICKNESS_FACTORS = (0.6, 1.0, 1.6)
"""Mean thickness at the start over the one found."""
Trial = tuple[str, float, float, bool]
"""Method, rms error of the orientations at the start (degrees), factor on the thickness, whether tilts are refined."""
FEW: tuple[Trial, ...] = (
    ("kinematical-frames", 0.0, 1.0, True),
    *(("dynamical", error, 1.0, True) for error in (0.0, 0.3, 0.8)),
)
"""The least that shows whether refinement converges from orientations as found, and how far from them."""


def convergence_map(
    data: PetsData,
    thickness_A: float,
    model: Crystal,
    spec: RefineSpec,
    crystal: Crystal,
    truth: Truth,
    workers: int,
    trials: Sequence[Trial],
) -> pd.DataFrame:
    """One row per refinement: method, what was wrong at the start, whether tilts were refined, and what came out.

    data : frames as found.  thickness_A : mean thickness found.  spec : still frames, sphere.  model : start.
    """
    rows = []
    for method, error, factor, tilts in trials:
        thickness = spec.thickness.model_copy(update={"start_A": factor * thickness_A})
        scale = KINEMATICAL_SCALE if method == "kinematical-frames" else 1.0
        chosen = spec.model_copy(
            update={"thickness": thickness, "optimise_orientations": tilts, "potential_scale": scale}
        )
        asked = {"method": method, "orientation_error_deg": error, "thickness_factor": factor, "tilts": tilts}
        wrong = disturbed(some_frames(data), error)
        try:
            found = refine_dynamical(wrong, replace(model, cell=data.cell), chosen, workers)
        except ConvergenceError as failure:
            rows.append(asked | {"status": "not_converged", "message": str(failure)})
            continue
        rows.append(asked | {"status": "ok"} | _result(found, wrong, crystal, truth))
    return pd.DataFrame(rows)


def every_trial() -> list[Trial]:
    """The whole map: all errors of the orientations and of the thickness, tilts held, and the other theory."""
    trials: list[Trial] = []
    for error in TILT_ERRORS_DEG:
        trials += [("dynamical", error, factor, True) for factor in THICKNESS_FACTORS]
        trials += [("dynamical", error, 1.0, False), ("kinematical-frames", error, 1.0, True)]
    return trials


def some_frames(data: PetsData) -> PetsData:
    """FRAMES zones, evenly spread, and their reflections."""
    rows = np.unique(np.linspace(0, len(data.zones) - 1, FRAMES).round().astype(int))
    zones = data.zones.iloc[rows].reset_index(drop=True)
    reflections = data.reflections[data.reflections["zone"].isin(zones["id"])].reset_index(drop=True)
    return replace(data, zones=zones, reflections=reflections)


def disturbed(data: PetsData, error_deg: float) -> PetsData:
    """Every frame tilted about lab x and y by normal deviates of `error_deg`; the same deviates for every error."""
    rng = stream(1, "disturbed orientations")
    vectors = np.zeros((len(data.zones), 3))
    vectors[:, :2] = np.radians(error_deg) * rng.standard_normal((len(data.zones), 2))
    old = np.array(
        [frame_matrix(*row) for row in np.radians(data.zones[["alpha", "beta", "omega"]].to_numpy(float))]
    )
    new = Rotation.from_rotvec(vectors).as_matrix() @ old
    angles = np.degrees([angles_of(o) for o in new])
    zones = data.zones.assign(alpha=angles[:, 0], beta=angles[:, 1], omega=angles[:, 2])
    return replace(data, zones=zones)


def _result(found: Refinement, data: PetsData, crystal: Crystal, truth: Truth) -> dict[str, Any]:
    """Agreement, distances from the truth, and the median tilt error that is left."""
    distance = compare(found.crystal, crystal)
    zones = data.zones.assign(frame=data.zones["id"] - 1).merge(found.frames, on="frame", how="inner")
    angles = np.radians(zones[["alpha", "beta", "omega"]].to_numpy(float))
    tilts = np.radians(zones[["tilt_x_deg", "tilt_y_deg"]].to_numpy(float))
    refined = [tilted(frame_matrix(*a), t) for a, t in zip(angles, tilts, strict=True)]
    named = np.degrees([angles_of(o) for o in refined])
    zones = zones.assign(alpha=named[:, 0], beta=named[:, 1], omega=named[:, 2])
    left = orientation_errors(zones, truth, crystal).out_of_plane_deg
    return {
        "r_obs_pct": found.statistics["r_obs_pct"],
        "wr_all_pct": found.statistics["wr_all_pct"],
        "av_dist_A": distance.d_av_A,
        "max_dist_A": distance.d_max_A,
        "thickness_A": found.statistics["thickness_A"],
        "tilt_error_left_deg": float(np.median(left)),
    }
