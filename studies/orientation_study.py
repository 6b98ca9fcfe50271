"""How far the orientations of frames are from the truth after the reduction and after dynamical refinement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.reduce import reduce
from nanoed.sim.simulate import simulate
from nanoed.sim.truth import Truth, read_truth
from nanoed.studies.analysis import outcome
from nanoed.studies.case import Case, load_case
from nanoed.studies.findings import Finding
from nanoed.studies.measures import orientation_errors_deg, rms
from nanoed.studies.rows import frame_orientations, true_frames, with_refined_tilts
from nanoed.studies.run import given

CASES = ("anatase", "mgti2o5", "brookite-cnrs-01", "brookite-ua")
"""Precession of three crystals, and continuous rotation."""
FLANKS = {"rs_g_max": 1.2, "s_g_max": 0.04}
"""Settings of a refinement for orientations: within 0.75 of the precession semi-angle a small tilt hardly changes an
intensity; the flanks beyond tell it, and need beams farther from the Ewald sphere."""
Array = NDArray[np.floating[Any]]
Progress = Callable[[str, int, int], None]


def findings(workers: int, progress: Progress | None) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The rows of every case of CASES, two by precession and one by rotation, and what they make of the limits."""
    rows = [row for name in CASES for row in rows_of(load_case(name), workers, progress)]
    return rows, [finding for row in rows for finding in judged(row)]


def rows_of(case: Case, workers: int, progress: Progress | None) -> list[dict[str, Any]]:
    """A case reduced and its start model refined dynamically, structure and two tilts of every frame: a row with the
    settings of the case and, for precession, one with FLANKS. Errors are those of measures.orientation_errors_deg."""
    told = given(case.crystal, case.start, case.seed)
    rows = []
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        simulate(case.experiment, case.crystal, folder / "data", folder / "truth", workers, progress)
        truth = read_truth(folder / "truth")
        spec = case.reduce.model_copy(update={"cell": told.cell})
        reduced = reduce(folder / "data", spec, folder / "reduced", workers, progress).virtual.zones
        zones = frame_orientations(reduced, truth, case.crystal)
        precessed = case.experiment.protocol.kind == "precession"
        for name, changes in (("case", {}), ("flanks", FLANKS))[: 2 if precessed else 1]:
            settings = case.refine.model_copy(update=changes)
            found = outcome(
                "dynamical", folder / "reduced", told.model, settings, folder / name, workers, progress
            )
            row = {"case": case.name, "seed": case.seed, "settings": name, "status": found.status}
            if found.refinement is not None:
                stated = reduced["tilt_su"].to_numpy(float)
                row |= errors(with_refined_tilts(zones, found.refinement), truth, stated)
                row |= {"r_obs_pct": found.refinement.statistics["r_obs_pct"]}
            rows.append(row | {"message": found.message})
    return rows


def errors(refined: pd.DataFrame, truth: Truth, stated_deg: Array) -> dict[str, Any]:
    """The columns of orientations.csv: frames, errors before and after, degrees, and how large those before are over
    what the reduction states for either of the two tilts, (n,) degrees."""
    true = true_frames(refined, truth)
    before = orientation_errors_deg(refined.drop(columns=["tilt_x_deg", "tilt_y_deg"]), true)
    after = orientation_errors_deg(refined, true)
    return {
        "frames": len(refined),
        "reduced_deg": rms(before),
        "reduced_over_stated": rms(before / (np.sqrt(2) * stated_deg)),
        "refined_deg": rms(after),
        "refined_median_deg": float(np.median(after)),
        "refined_worst_deg": float(after.max()),
    }


def judged(row: dict[str, Any]) -> Iterator[Finding]:
    """At most 0.07° from the reduction, by rotation 0.15°; 0.03° after refinement of strong data with FLANKS."""
    name, settings = f"orientations, {row['case']}", row["settings"]
    yield Finding(name, f"{settings}: refined", int(row["status"] == "ok"), "==", 1)
    if "refined_deg" not in row:
        return
    if settings == "case":
        limit = 0.15 if row["case"] == "brookite-ua" else 0.07
        yield Finding(name, "from the reduction: orientations, rms, degrees", row["reduced_deg"], "<=", limit)
        yield Finding(name, "from the reduction: errors over those stated, rms", row["reduced_over_stated"])
        yield Finding(name, "case: refined orientations, rms, degrees", row["refined_deg"])
    else:
        yield Finding(name, "flanks: refined orientations, rms, degrees", row["refined_deg"], "<=", 0.03)
    yield Finding(name, f"{settings}: refined orientations, median, degrees", row["refined_median_deg"])
    yield Finding(name, f"{settings}: refined orientations, worst, degrees", row["refined_worst_deg"])
