"""The study check-reduction: the data reduction against the truth, with nothing given and as a case runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from nanoed.pipeline.reduce.bravais import symbol_of
from nanoed.pipeline.reduce.reduce import Reduction, reduce
from nanoed.sim.physics.files import write_whole
from nanoed.sim.simulate import simulate
from nanoed.sim.truth import Truth, read_truth
from nanoed.studies import dials, glycine, orientation_study, reduction_speed, reduction_stress
from nanoed.studies.case import Case, load_case
from nanoed.studies.findings import Finding, asked_parts
from nanoed.studies.measures import orientation_errors_deg, rms
from nanoed.studies.reduction_measures import (
    BINS,
    axis_err_deg,
    camera_factor,
    cell_errors,
    distortion_errors,
    intensity_errors,
    setting,
)
from nanoed.studies.rows import frame_orientations, true_frames
from nanoed.studies.run import given

Progress = Callable[[str, int, int], None]
TILT_SERIES = ("brookite-ua", "brookite-iit", "brookite-cnrs-01", "brookite-cnrs-02", "brookite-cnrs-03",
               "brookite-cnrs-04", "ito-01", "ito-02", "anatase", "mgti2o5")  # fmt: skip
SEEDS, MOST_SEEDS = 3, 24
"""Of a case, its own first; more, up to the most, where a bin of pulls is too thin to be judged."""
FEW_SPOTS, ENOUGH_SPOTS = 20, 400
"""Spots of all seeds in a bin of pulls: no more tell nothing; as many know the mean to 0.05, a third of its limit."""
APART = {
    "troubles": reduction_stress.findings,
    "orientations": orientation_study.findings,
    "speed": reduction_speed.findings,
}
"""Parts with a table of their own."""
PUBLISHED = ("r_int_pct", "redundancy", "coverage_pct", "kin_n_all", "kin_n_obs")


def findings(
    reference: Path, out: Path, parts: Sequence[str] | None, workers: int, progress: Progress | None
) -> list[Finding]:
    """The figures of the asked parts (None: all): the cases of TILT_SERIES, all seeds, "troubles",
    "orientations", "speed", "glycine" and "dials". Raises InputError for others.

    reference : folder of measured data, for "glycine".  out : folder for check-reduction/CASE.csv, one row per seed and
    mode: "blind" with neither cell, symmetry nor axis, "case" with its settings; for the tables of APART; and for
    dials.csv, both programs side by side. A reduction that fails is a row with its message.
    """
    found: list[Finding] = []
    for name in asked_parts(parts, (*TILT_SERIES, *APART, "glycine", "dials")):
        if name in APART:
            told, judged = APART[name](workers, progress)
            _write(pd.DataFrame(told), out / "check-reduction" / f"{name}.csv")
            found += judged
            continue
        if name == "glycine":
            found += glycine.figures(reference / glycine.FOLDER)
            continue
        if name == "dials":
            table = beside_dials(workers, progress)
            _write(table, out / "check-reduction" / "dials.csv")
            found += dials.findings_of(table)
            continue
        table = _over_seeds(name, workers, progress)
        _write(table, out / "check-reduction" / f"{name}.csv")
        found += _worst(name, table)
    return found


def _over_seeds(name: str, workers: int, progress: Progress | None) -> pd.DataFrame:
    """Rows of SEEDS seeds, and of more while a bin of pulls has spots, yet too few: a choice blind to the pulls."""
    rows: list[dict[str, Any]] = []
    for seed in range(MOST_SEEDS):
        case = load_case(name, (f"seed={load_case(name).seed + seed}",))
        rows += rows_of(case, workers, progress)
        table = pd.DataFrame(rows)
        spots = table[table["mode"] == "blind"].filter(regex=r"^pull_n_\d+$").sum()
        if seed + 1 >= SEEDS and not spots.between(FEW_SPOTS, ENOUGH_SPOTS, inclusive="neither").any():
            break
    return table


def _worst(name: str, table: pd.DataFrame) -> Iterator[Finding]:
    """What the seeds of a case make of the limits, both modes apart."""
    weak = name == "brookite-iit"
    limits = {
        "length_err_pct": ("<=", 0.5),
        "ratio_err_pct": ("<=", 0.2),
        "angle_err_deg": ("<=", 0.2),
        "axis_err_deg": ("<=", 0.1),
        "orientation_err_deg": ("<=", 0.15 if weak or name == "brookite-ua" else 0.07),
        "sum_err_pct": ("<=", 15.0 if weak else 5.0),
        "corr_ln": (">=", 0.95 if weak else 0.98),
    }
    for mode, rows in table.groupby("mode"):
        done = rows[rows["status"] == "ok"]
        yield Finding(name, f"{mode}: reductions of {len(rows)}", len(done), "==", len(rows))
        if len(done) == 0:
            continue
        if mode == "blind":
            right = done["bravais_right"].astype(bool) & done["sense_right"] & done["hand_right"]
            yield Finding(
                name, "blind: Bravais lattice, sense and hand right", int(right.sum()), "==", len(rows)
            )
        for quantity, (relation, limit) in limits.items():
            size = done[quantity].abs()
            worst = size.max() if relation == "<=" else size.min()
            yield Finding(name, f"{mode}: worst {quantity}", float(worst), relation, limit)
        slope = 100 * float((done["slope"] - 1).abs().max())
        yield Finding(
            name, f"{mode}: worst slope - 1, %", slope, "<=", 2.0 if weak or name == "brookite-ua" else 1.0
        )
        for kind in ("elliptic", "parabolic", "cubic"):
            allowed = np.maximum(0.1 * done[f"{kind}_pct"].to_numpy(float), 0.05)
            over = float((done[f"{kind}_err_pct"].to_numpy(float) / allowed).max())
            quantity = f"{mode}: worst {kind} distortion, errors of 10 % or 0.05 %"
            yield Finding(name, quantity, over, "<=", 1.0)
        yield from _pulls(name, str(mode), done)
        if mode == "case":
            yield from _beside_published(name, done)


PRINTED = {
    "r_int_pct": ("R_int, %", "r_int_pct"),
    "redundancy": ("redundancy", "redundancy"),
    "coverage_pct": ("coverage, %", "coverage_pct"),
    "n_all": ("reflections, all", "kin_n_all"),
    "n_obs": ("reflections, observed", "kin_n_obs"),
}
"""Columns of CASE.csv that the published tables have too: what they are called here and there."""


def _beside_published(name: str, rows: pd.DataFrame) -> Iterator[Finding]:
    """Means over the seeds as the case reduces its data, each beside the figure that was published."""
    for column, (words, published) in PRINTED.items():
        there = rows.get(f"published_{published}")
        printed = "" if there is None or there.isna().all() else f"published: {float(there.iloc[0]):g}"
        yield Finding(name, f"case: mean {words}", float(rows[column].mean()), source=printed)


def _pulls(name: str, mode: str, rows: pd.DataFrame) -> Iterator[Finding]:
    """Mean and rms of the pulls in every bin of true intensity over expected sigma, all seeds together, beside the
    standard error of the mean by the number of spots; bins of FEW_SPOTS and fewer tell nothing."""
    edges = [*(f"{e:g}" for e in BINS[1:-1])]
    words = [f"below {edges[0]}", *(f"{a}-{b}" for a, b in pairwise(edges)), f"above {edges[-1]}"]
    for b, word in enumerate(words):
        part = rows[rows[f"pull_mean_{b}"].notna()]
        n = part[f"pull_n_{b}"]
        if n.sum() <= FEW_SPOTS:
            continue
        mean = float((n * part[f"pull_mean_{b}"]).sum() / n.sum())
        root = float(np.sqrt((n * part[f"pull_rms_{b}"] ** 2).sum() / n.sum()))
        where = f"{mode}: pulls at {word} sigma ({n.sum()} spots)"
        yield Finding(name, f"{where}: |mean|", abs(mean), "<=", 0.15, f"± {root / np.sqrt(n.sum()):.2g}")
        yield Finding(name, f"{where}: rms", root, ">=", 0.85)
        yield Finding(name, f"{where}: rms", root, "<=", 1.2)


def beside_dials(workers: int, progress: Progress | None) -> pd.DataFrame:
    """DIALS and our blind reduction on the cases of dials.CASES, one row per case and program (dials.compared)."""
    rows: list[dict[str, Any]] = []
    for name in dials.CASES:
        case = load_case(name)
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            simulate(case.experiment, case.crystal, folder / "data", folder / "truth", workers, progress)
            truth = read_truth(folder / "truth")
            ours = reduce(folder / "data", _spec(case, "blind"), None, workers, progress)
            answers = {"DIALS": dials.by_dials(folder / "data", folder), "nanoed": dials.by_us(ours)}
            rows += dials.compared(name, answers, truth, camera_factor(ours.geometry, truth))[0]
    return pd.DataFrame(rows)


def rows_of(case: Case, workers: int, progress: Progress | None) -> list[dict[str, Any]]:
    """Simulate a case once and reduce it in both modes."""
    rows = []
    with TemporaryDirectory() as scratch:
        data, envelope = Path(scratch) / "data", Path(scratch) / "truth"
        simulate(case.experiment, case.crystal, data, envelope, workers, progress)
        truth = read_truth(envelope)
        for mode in ("blind", "case"):
            began = perf_counter()
            head = {"case": case.name, "seed": case.seed, "mode": mode}
            try:
                found = reduce(data, _spec(case, mode), None, workers, progress)
            except (ValueError, RuntimeError) as error:
                rows.append(head | {"status": "failed", "message": str(error)})
                continue
            seconds = perf_counter() - began
            rows.append(head | {"status": "ok", "seconds": seconds} | figures(case, found, truth))
    return rows


def _spec(case: Case, mode: str) -> Any:
    """The settings of the case with the cell that a run is told; or those with all that can be found taken away."""
    if mode == "case":
        return case.reduce.model_copy(update={"cell": given(case.crystal, case.start, case.seed).cell})
    everywhere = case.reduce.axis.model_copy(update={"search_deg": 180.0})
    return case.reduce.model_copy(update={"cell": None, "spacegroup": None, "laue": None, "axis": everywhere})


def figures(case: Case, found: Reduction, truth: Truth) -> dict[str, Any]:
    """All figures of one reduction; their names are the columns of check-reduction/CASE.csv."""
    numbers, crystal = found.statistics, case.crystal
    tried = numbers["bravais_lattices"]
    wanted = symbol_of(crystal.spacegroup)
    name = next((t["symbol"] for t in tried if t["symbol"] == numbers["bravais"]), "") if tried else ""
    zones = frame_orientations(found.virtual.zones, truth, crystal)
    errors = orientation_errors_deg(zones, true_frames(zones, truth))
    matrix, mismatch = setting(found.geometry.ub, truth)
    published = case.published_values()
    return {
        "bravais": name,
        "bravais_right": name == wanted if tried else None,
        "hand_right": mismatch < 0.03,
        "sense_right": not numbers["rotation_reversed"],
        **cell_errors(found.geometry, crystal, truth),
        "axis_err_deg": axis_err_deg(found, truth),
        "orientation_err_deg": rms(errors),
        **distortion_errors(found.geometry, truth),
        **intensity_errors(found, truth, matrix),
        "r_int_pct": 100 * numbers["r_int"],
        "redundancy": numbers["redundancy"],
        "coverage_pct": 100 * numbers["coverage"],
        "n_all": numbers["n_all"],
        "n_obs": numbers["n_obs"],
        **{f"published_{key}": published.get(key) for key in PUBLISHED if key in published},
    }


def _write(rows: pd.DataFrame, path: Path) -> None:
    """Write the table with a line that says how it was made."""
    head = f"# nanoed study check-reduction, nanoed {version('nanoed')}\n"
    write_whole(path, head + rows.to_csv(index=False, float_format="%.5g", lineterminator="\n"))
