"""DIALS and our reduction on the same frames of continuous rotation, both told nothing, both against the truth."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.export import export
from nanoed.pipeline.reduce.geometry import Geometry, cell_of
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.reduce import Reduction
from nanoed.pipeline.reduce.unindexed import explained
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import Nominal, open_dataset
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import rot_z
from nanoed.sim.truth import Truth
from nanoed.studies.findings import Finding
from nanoed.studies.reduction_measures import setting

Array = NDArray[np.float64]
CASES = ("brookite-ua", "brookite-iit")
SPOTS_PHIL = (
    "spotfinder.filter.min_spot_size=3",
    "spotfinder.filter.d_max=15",
    "spotfinder.threshold.dispersion.gain=1",
    "nproc=1",
)
INDEX = (
    ("dials.import", "template=smv/frame_#####.img", "smv/dials_import.phil"),
    ("dials.find_spots", "imported.expt", *SPOTS_PHIL),
    ("dials.index", "imported.expt", "strong.refl", "detector.fix=distance"),
)
INTEGRATE = (
    ("dials.refine", "indexed.expt", "indexed.refl", "detector.fix=distance"),
    ("dials.integrate", "refined.expt", "refined.refl", "nproc=1"),
    ("dials.export", "integrated.expt", "integrated.refl", "format=mtz", "mtz.hklout=integrated.mtz"),
)
"""The camera length is held, as ours is: it and the cell cannot both be known."""
WHOLE = 0.99  # of a reflection that DIALS recorded
KEYS = ["h", "k", "l"]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a program says of a series.

    ub : (3, 3) 1/Å in the frame whose x is the tilt axis.  found, indexed : spots, as the program counts them.
    reflections : h, k, l in its own cell, I on one scale, free of the Lorentz factor, sigma; one row per hkl.
    """

    ub: Array
    found: int
    indexed: int
    reflections: pd.DataFrame


def run_steps(folder: Path, steps: Sequence[Sequence[str]]) -> str:
    """Output of DIALS's programs, run one after the other in `folder`; raises InputError where one is missing or
    fails."""
    said = ""
    for step in steps:
        if shutil.which(step[0]) is None:
            raise InputError(
                "DIALS is not installed", field="--part", value="dials", allowed=f"{step[0]} on PATH"
            )
        done = subprocess.run(step, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise InputError(f"{step[0]} failed: {done.stdout[-300:]}", field="--part", value="dials")
        said += done.stdout
    return said


def by_dials(data: Path, folder: Path) -> Answer:
    """DIALS from exported frames to profile-fitted intensities, all in `folder`. Raises InputError where it fails."""
    export(data, "smv", folder / "smv")
    said = run_steps(folder, INDEX)
    run_steps(folder, INTEGRATE)
    with open_dataset(data) as series:
        nominal = series.nominal
    crystal = json.loads((folder / "integrated.expt").read_text())["crystal"][0]
    found, indexed = spots_told(said)
    return Answer(axis_frame(crystal, nominal), found, indexed, merged_mtz(folder / "integrated.mtz"))


def spots_told(said: str) -> tuple[int, int]:
    """Spots that dials.find_spots saved and dials.index indexed, by what they print; raises InputError without."""
    saved = re.findall(r"^Saved (\d+) reflections to strong", said, re.MULTILINE)
    indexed = re.findall(r"^\|\s*\d+\s*\|\s*(\d+)\s*\|\s*\d+\s*\|\s*[\d.]+%\s*\|", said, re.MULTILINE)
    if not saved or not indexed:
        raise InputError("DIALS does not say how many spots it indexed", field="--part", value="dials")
    return int(saved[-1]), int(indexed[-1])


def axis_frame(crystal: dict[str, list[float]], nominal: Nominal) -> Array:
    """UB (3, 3) of a crystal in DIALS's file, turned from the laboratory to the frame whose x is the tilt axis."""
    direct = np.array([crystal[f"real_space_{axis}"] for axis in "abc"])
    return np.asarray(rot_z(-np.radians(nominal.axis_azimuth_deg)) @ np.linalg.inv(direct), np.float64)


def merged_mtz(path: Path) -> pd.DataFrame:
    """h, k, l, I, sigma of profile-fitted, whole reflections; those recorded twice as the mean of both."""
    mtz = gemmi.read_mtz_file(str(path))
    mtz.switch_to_original_hkl()
    table = pd.DataFrame(np.array(mtz, copy=True), columns=mtz.column_labels())
    names = {"H": "h", "K": "k", "L": "l", "IPR": "I", "SIGIPR": "sigma"}
    table = table[table["FRACTIONCALC"] > WHOLE][list(names)].rename(columns=names)
    table[KEYS] = table[KEYS].round().astype(np.int64)
    groups = table.groupby(KEYS, sort=True)
    error = groups["sigma"].agg(lambda s: float(np.sqrt((s**2).mean() / len(s))))
    return groups["I"].mean().to_frame().assign(sigma=error).reset_index()


def by_us(found: Reduction) -> Answer:
    """The same of our reduction: peaks of single frames, and I of whole rocking curves."""
    indexed = indexed_peaks(found.geometry, found.peaks, found.spec)
    return Answer(found.geometry.ub, len(found.peaks), indexed, found.fitted[[*KEYS, "I", "sigma"]])


def indexed_peaks(geometry: Geometry, peaks: Peaks, spec: ReduceSpec) -> int:
    """Peaks within the last reach of matching of a reflection that is at most three rocking widths from Bragg's
    place."""
    corner = float(np.abs(peaks.pixels - geometry.centres[peaks.frame]).max(initial=0.0)) * geometry.a_per_px
    reach, tail = spec.positions.reach_px[-1], 3 * spec.integration.tail
    return int(explained(geometry, peaks, 1.5 * corner, reach, tail).sum())


def true_integrals(truth: Truth) -> pd.DataFrame:
    """h, k, l, T: ∫ I dS of the electrons of every reflection, mean over its passes through the Ewald sphere.

    A pass is a run of neighbouring frames; those at the first or the last frame are incomplete and left out.
    """
    table = truth.reflections[truth.reflections["crystal"] == 0].sort_values([*KEYS, "frame"], kind="stable")
    hkl, frame = table[KEYS].to_numpy(np.int64), table["frame"].to_numpy(np.int64)
    new = np.ones(len(table), bool)
    new[1:] = (hkl[1:] != hkl[:-1]).any(axis=1) | (np.diff(frame) != 1)
    number = np.cumsum(new) - 1
    s, i_true = table["s_g"].to_numpy(float), table["i_true"].to_numpy(float)
    step = np.zeros(len(table))
    inner = ~new[1:]
    difference = np.where(inner, np.abs(np.diff(s)), 0.0)
    step[1:] += 0.5 * difference
    step[:-1] += 0.5 * difference
    first = np.nonzero(new)[0]
    last = np.append(first[1:], len(table)) - 1
    whole = (frame[first] > 0) & (frame[last] < truth.frames.index.size - 1) & (last > first + 1)
    passes = pd.DataFrame(hkl[first], columns=KEYS).assign(T=np.bincount(number, i_true * step))
    return passes[whole].groupby(KEYS, sort=True)["T"].mean().reset_index()


def compared(
    name: str, answers: dict[str, Answer], truth: Truth, factor: float
) -> tuple[list[dict[str, object]], pd.DataFrame]:
    """One row per program, and the common reflections: h, k, l, T and every program's I and sigma.

    factor : true over nominal 1/Å per pixel, which no program can know.
    """
    table = true_integrals(truth)
    rows: list[dict[str, object]] = []
    for program, answer in answers.items():
        matrix, _ = setting(answer.ub, truth)
        own = answer.reflections.copy()
        own[KEYS] = own[KEYS].to_numpy(np.int64) @ matrix.T
        table = table.merge(own.rename(columns={"I": program, "sigma": f"{program} sigma"}), on=KEYS)
        rows.append(_lattice_row(name, program, answer, truth, factor))
    observed = (table[list(answers)] > 3 * table[[f"{p} sigma" for p in answers]].to_numpy()).all(axis=1)
    for row, program in zip(rows, answers, strict=True):
        row["common"] = len(table)
        row["corr"] = _correlation(table[program], table["T"])
        strong = table[observed]
        row["observed_by_both"] = len(strong)
        row["corr_ln"] = _correlation(np.log(strong[program]), np.log(strong["T"]))
    return rows, table


def _correlation(found: pd.Series, true: pd.Series) -> float:
    return float(np.corrcoef(found, true)[0, 1]) if len(found) > 2 else float("nan")


def _lattice_row(name: str, program: str, answer: Answer, truth: Truth, factor: float) -> dict[str, object]:
    """Cell, its errors with the camera length put right (`factor`: true over nominal 1/Å per pixel), and spots."""
    cell, true = np.array(cell_of(answer.ub)), np.array(truth.summary["structure"]["cell"])
    relative = np.sort(cell[:3]) / factor / np.sort(true[:3])
    return {
        "case": name,
        "program": program,
        "hand_right": setting(answer.ub, truth)[1] < 0.05,
        "cell": " ".join(f"{x:.4f}" for x in cell[:3]) + " " + " ".join(f"{x:.2f}" for x in cell[3:]),
        "length_err_pct": float(100 * np.abs(relative - 1).max()),
        "ratio_err_pct": float(100 * (relative.max() / relative.min() - 1)),
        "angle_err_deg": float(np.abs(np.sort(cell[3:]) - np.sort(true[3:])).max()),
        "spots": answer.found,
        "indexed": answer.indexed,
        "indexed_pct": 100 * answer.indexed / answer.found,
        "reflections": len(answer.reflections),
    }


def findings_of(table: pd.DataFrame) -> Iterator[Finding]:
    """What the rows of `compared` say of the limit: our correlations at least those of DIALS - 0.005."""
    for case, rows in table.groupby("case", sort=False):
        for key in ("corr", "corr_ln"):
            by = dict(zip(rows["program"], rows[key].to_numpy(float), strict=True))
            yield Finding(
                "dials", f"{case}: {key} of nanoed", by["nanoed"], ">=", by["DIALS"] - 0.005, "DIALS - 0.005"
            )
