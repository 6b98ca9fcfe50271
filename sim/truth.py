"""The sealed envelope: what really happened, kept away from the data set (DESIGN section 3)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import whole, write_whole
from nanoed.sim.physics.hdf5 import damage, open_contained, table

Array = NDArray[np.float64]

SCHEMA_VERSION = (1, 1)
LARGEST_TABLE = 10**8  # reflections of all frames
REFLECTION_COLUMNS = {
    "frame": np.int32,
    "crystal": np.int32,
    "h": np.int32,
    "k": np.int32,
    "l": np.int32,
    "i_true": np.float64,
    "s_g": np.float64,
    "x_px": np.float64,
    "y_px": np.float64,
    "partiality": np.float64,
}
FRAME_COLUMNS = (
    "particle",
    "size_scale",
    "flux_share",
    "alpha_true_deg",
    "beta_true_deg",
    "omega_true_deg",
    "centre_x_px",
    "centre_y_px",
    "thickness_mean_A",
    "thickness_max_A",
    "area_A2",
    "incident_e",
    "on_detector_e",
    "missed_e",
)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Everything that the data set does not say.

    summary : experiment, resolved flaws, structure, `ub_true` (3, 3; 1/Å, columns a*, b*, c*, lab at zero
    tilt), `thickness_mean_A` (area-weighted mean chord, averaged over frames; None: all are blank), `a_per_px_true`,
    `elliptic`, ...
    frames : one row per frame, FRAME_COLUMNS: angles in degrees, electrons expected before the detector
    counts; particle counted from 0, -1 in a blank frame; flux_share: flux on the particle over the nominal flux.
    reflections : one row per frame, crystal (0 but for twin and other particles) and reflection: h, k, l;
    i_true (electrons expected in the reflection, wherever they land); s_g (1/Å, at the centre of the frame);
    x_px, y_px (spot centre); partiality (mean over the frame of the kinematical rocking curve, 1 where the Bragg
    condition holds throughout).
    """

    summary: dict[str, Any]
    frames: pd.DataFrame
    reflections: pd.DataFrame

    @property
    def ub_true(self) -> Array:
        return np.array(self.summary["ub_true"])


def write_truth(folder: str | os.PathLike[str], truth: Truth) -> None:
    """Write truth.json and truth.h5, each complete or not at all; raises InputError if it cannot."""
    path = Path(folder)
    document = {"schema_version": SCHEMA_VERSION} | truth.summary
    write_whole(path / "truth.json", json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")
    with whole(path / "truth.h5") as part:
        _write_tables(part, truth)


def _write_tables(path: Path, truth: Truth) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"] = np.array(SCHEMA_VERSION, np.int64)
        for name in FRAME_COLUMNS:
            file[f"frames/{name}"] = truth.frames[name].to_numpy(np.float64)
        for name, dtype in REFLECTION_COLUMNS.items():
            file.create_dataset(
                f"reflections/{name}",
                data=truth.reflections[name].to_numpy(dtype),
                compression="gzip",
                shuffle=True,
            )


def read_truth(folder: str | os.PathLike[str]) -> Truth:
    """Read what write_truth wrote; raises InputError when it is missing, damaged or from a newer version."""
    path = Path(folder)
    with damage(path, "not a truth folder", "truth.json and truth.h5 written by nanoed"):
        text = (path / "truth.json").read_text(encoding="utf-8")
        summary = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if summary["schema_version"][0] > SCHEMA_VERSION[0]:
            raise InputError(
                "written by a newer version",
                file=path / "truth.json",
                field="schema_version",
                value=summary["schema_version"],
                allowed=f"up to {SCHEMA_VERSION[0]}.x",
            )
        with open_contained(path / "truth.h5") as file:
            frames = _columns(file, "frames", dict.fromkeys(FRAME_COLUMNS, np.float64))
            reflections = _columns(file, "reflections", REFLECTION_COLUMNS)
    return Truth(summary, frames, reflections)


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word} is not a finite number")
    return value


def _columns(file: h5py.File, group: str, kinds: Mapping[str, Any]) -> pd.DataFrame:
    """A group's columns, all of one length, as a table."""
    columns = {name: table(file, f"{group}/{name}", LARGEST_TABLE) for name in kinds}
    sizes = {values.shape for values in columns.values()}
    if len(sizes) != 1 or len(next(iter(sizes))) != 1:
        raise InputError("columns of unequal length", field=group, value=sorted(sizes)[:2])
    for name, kind in kinds.items():
        if columns[name].dtype != kind:
            raise InputError("wrong type of numbers", field=f"{group}/{name}", value=str(columns[name].dtype))
    return pd.DataFrame(columns)
