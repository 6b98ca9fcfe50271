"""Part of the study check-refinement: mordenite, a zeolite measured by continuous rotation and refined by Jana2006.

The data are Jana's pairs of reflection and frame as given; the start is Jana's kinematical model; the file's
orientations are off by up to half a degree, so that tilts are searched that far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pandas as pd

from nanoed.pipeline.io.cif_pets import PetsData, read_cif_pets
from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.frames import frames_of
from nanoed.pipeline.refine.result import Refinement
from nanoed.sim.physics.crystal import Crystal
from nanoed.studies.findings import Finding
from nanoed.studies.foreign import jana_model, jana_pairs
from nanoed.studies.measured import measured_settings

Progress = Callable[[str, int, int], None]
PRINTED = "printed by Jana"
OWN_RULE = {"rs_g_max": 0.66, "ds_g_min": 0.0015, "d_star_max": 1.3}
"""Selection of reflections by ourselves: the limits of rotation data (PHYSICS A4)."""


def mordenite_refined(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """Jana's pairs refined dynamically from the kinematical model, against Jana's dynamical refinement."""
    folder = reference / "mordenite"
    cif = folder / "jana2006_mordenite.cif"
    measured = read_cif_pets(next(folder.glob("*.cif_pets")))
    pairs = jana_pairs(cif)
    listed = pairs.rename(columns={"I_obs": "I"})[["h", "k", "l", "I", "sigma", "zone"]]
    data, name = replace(measured, reflections=listed), "mordenite dynamical"
    began, busy = perf_counter(), process_time()
    found = refine_dynamical(
        data, jana_model(cif, "mordenite_kinematical"), measured_settings("mordenite"), workers, progress
    )
    seconds, busy = perf_counter() - began, process_time() - busy
    yield Finding(name, "pairs", float(found.statistics["n_all"]), "==", float(len(pairs)), "Jana's list")
    for column, quantity, limit in (
        ("r_obs_pct", "R_obs, %", 9.56),
        ("r_all_pct", "R_all, %", 16.40),
        ("wr_f_pct", "wR on F, %", 11.0),
    ):
        yield Finding(name, quantity, float(found.statistics[column]), "<=", limit, PRINTED)
    away = _distances(found.crystal, jana_model(cif, "mordenite_dynamical"))
    yield Finding(name, "mean distance to Jana's dynamical model, Å", float(away.mean()), "<=", 0.01, PRINTED)
    yield Finding(name, "largest distance, Å", float(away.max()))
    yield Finding(name, "thickness, Å", float(found.statistics["thickness_A"]), source="Jana: 416.7")
    yield from _selection(name, measured, pairs, found)
    yield Finding(name, "seconds", seconds, source="aim: 1800 on two free cores")
    yield Finding(name, "seconds of processor time", busy)


def _distances(found: Crystal, other: Crystal) -> np.ndarray:
    """Distances of equally labelled sites, Å; both are described alike."""
    place = [other.labels.index(label) for label in found.labels]
    return np.asarray(np.linalg.norm((found.xyz - other.xyz[place]) @ other.frac_to_cart.T, axis=1))


def _selection(name: str, measured: PetsData, pairs: pd.DataFrame, found: Refinement) -> Iterator[Finding]:
    """Recall and precision of our own choice from all reflections, in Jana's frames, with the refined tilts."""
    spec = measured_settings("mordenite").model_copy(update=OWN_RULE)
    tilts = np.radians(found.frames[["tilt_x_deg", "tilt_y_deg"]].to_numpy())
    zones = found.frames["frame"].to_numpy() + 1
    chosen = {
        (f.zone, *h)
        for f in frames_of(measured, spec, dict(zip(zones.tolist(), tilts, strict=True)))
        if f.zone in set(zones.tolist())
        for h in f.hkl.tolist()
    }
    given = set(map(tuple, pairs[["zone", "h", "k", "l"]].to_numpy().tolist()))
    both = len(given & chosen)
    yield Finding(name, "recall of our own selection, %", 100 * both / len(given))
    yield Finding(name, "precision of our own selection, %", 100 * both / max(len(chosen), 1))
