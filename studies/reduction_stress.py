"""Data sets with something wrong: what the reduction makes of them, the right answer or a clear error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nanoed.pipeline.reduce.bravais import symbol_of
from nanoed.pipeline.reduce.reduce import reduce
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.physics.geometry import rot_z
from nanoed.sim.setup import Setup, prepare
from nanoed.sim.simulate import record
from nanoed.sim.truth import Truth, read_truth
from nanoed.studies.case import Case, load_case
from nanoed.studies.findings import Finding
from nanoed.studies.measures import orientation_errors_deg, rms
from nanoed.studies.reduction_measures import cell_errors, distortion_errors, intensity_errors, setting
from nanoed.studies.rows import frame_orientations, true_frames

CASE = "anatase"  # the cheapest
Progress = Callable[[str, int, int], None]


def as_it_is(setup: Setup) -> Setup:
    """No change."""
    return setup


def blanked(setup: Setup, blank: np.ndarray) -> Setup:
    """The same series with no crystal in the frames of a mask (n,)."""
    particle = np.where(blank, -1, setup.population.particle)
    return replace(setup, population=replace(setup.population, particle=particle))


def a_fifth_blank(setup: Setup) -> Setup:
    """Every fifth frame, counted at random, without the crystal."""
    n = setup.nominal.n_frames
    return blanked(setup, np.isin(np.arange(n), np.random.default_rng(1).permutation(n)[: n // 5]))


def lost_half_way(setup: Setup) -> Setup:
    """The crystal leaves the beam in the middle of the series."""
    n = setup.nominal.n_frames
    return blanked(setup, np.arange(n) >= n // 2)


def tilts_reversed(setup: Setup) -> Setup:
    """The log gives the tilt angles with the wrong sign."""
    return replace(setup, nominal=replace(setup.nominal, alpha_deg=-setup.nominal.alpha_deg))


def camera_length_off(setup: Setup) -> Setup:
    """The log gives a camera length 1 % too short."""
    return replace(setup, nominal=replace(setup.nominal, a_per_px=1.01 * setup.true.a_per_px))


@dataclass(frozen=True, slots=True)
class Trouble:
    """name; settings of the case; change of the experiment made ready; right: also the distortions are asked for."""

    name: str
    settings: tuple[str, ...] = ()
    change: Callable[[Setup], Setup] = as_it_is
    distortions: bool = False


ALL_LENSES = tuple(
    f'experiment.flaws.{name}="default"' for name in ("barrel_pct", "spiral_pct", "parabolic_pct")
)
TROUBLES = (
    Trouble("no distortion", ('experiment.flaws.elliptic_pct="off"',), distortions=True),
    Trouble("all distortions", ALL_LENSES, distortions=True),
    Trouble("second particle 10 %", ("experiment.flaws.second_particle_pct=10.0",)),
    Trouble("second particle 20 %", ("experiment.flaws.second_particle_pct=20.0",)),
    Trouble("20 % of frames blank", change=a_fifth_blank),
    Trouble("crystal lost half-way", change=lost_half_way),
    Trouble("beam centre 20 px off", ("experiment.flaws.centre_offset_px=20.0",)),
    Trouble("tilt angles of the wrong sign", change=tilts_reversed),
    Trouble("camera length 1 % wrong", change=camera_length_off),
)


def findings(workers: int, progress: Progress | None) -> tuple[list[dict[str, Any]], list[Finding]]:
    """A row for every trouble, and what they make of the limits of healthy data."""
    rows = [row_of(trouble, workers, progress) for trouble in TROUBLES]
    return rows, [finding for row in rows for finding in judged(row)]


def row_of(trouble: Trouble, workers: int, progress: Progress | None) -> dict[str, Any]:
    """The figures of one trouble, nothing given to the reduction; or the error that it ends in."""
    case = load_case(CASE, trouble.settings)
    head = {"case": case.name, "trouble": trouble.name}
    everywhere = case.reduce.axis.model_copy(update={"search_deg": 180.0})
    spec = case.reduce.model_copy(update={"cell": None, "spacegroup": None, "laue": None, "axis": everywhere})
    with TemporaryDirectory() as scratch:
        data, envelope = Path(scratch) / "data", Path(scratch) / "truth"
        setup = trouble.change(prepare(case.experiment, case.crystal))
        record(setup, data, envelope, workers, progress)
        truth = read_truth(envelope)
        try:
            found = reduce(data, spec, None, workers, progress)
        except (InputError, ConvergenceError) as error:
            return head | {"status": "failed", "message": str(error)}
    blank = setup.population.particle < 0
    return head | {"status": "ok", "message": ""} | figures(case, found, truth, blank, trouble.distortions)


def figures(case: Case, found: Any, truth: Truth, blank: np.ndarray, distortions: bool) -> dict[str, Any]:
    """What is right and by how much it is not."""
    numbers = found.statistics
    zones = frame_orientations(found.virtual.zones, truth, case.crystal)
    errors = orientation_errors_deg(zones, true_frames(zones, truth))
    # R_z(w + 180°) R_x(-a) R_z(180°) = R_z(w) R_x(a): a log of the wrong sign turns the crystal at zero tilt
    turn = rot_z(np.pi) if numbers["rotation_reversed"] else np.eye(3)
    matrix, mismatch = setting(turn @ found.geometry.ub, truth)
    cell = cell_errors(found.geometry, case.crystal, truth)
    intensities = intensity_errors(found, truth, matrix)
    said_blank = found.frames["blank"].to_numpy(bool)
    warped = distortion_errors(found.geometry, truth) if distortions else {}
    return {
        "bravais_right": numbers["bravais"] == symbol_of(case.crystal.spacegroup),
        "hand_right": mismatch < 0.03,
        "rotation_reversed": bool(numbers["rotation_reversed"]),
        "length_err_pct": cell["length_err_pct"],
        "ratio_err_pct": cell["ratio_err_pct"],
        "angle_err_deg": cell["angle_err_deg"],
        "orientation_err_deg": rms(errors),
        "blank_frames": int(blank.sum()),
        "blank_called_so_pct": 100 * float(said_blank[blank].mean()) if blank.any() else np.nan,
        "others_called_blank_pct": 100 * float(said_blank[~blank].mean()),
        "sum_err_pct": intensities["sum_err_pct"],
        "corr_ln": intensities["corr_ln"],
        **warped,
    }


def judged(row: dict[str, Any]) -> Iterator[Finding]:
    """The limits of healthy data."""
    name = f"{row['case']}, {row['trouble']}"
    yield Finding(name, "reduced", int(row["status"] == "ok"), "==", 1)
    if row["status"] != "ok":
        return
    yield Finding(name, "lattice and hand right", int(row["bravais_right"] and row["hand_right"]), "==", 1)
    reversed_log = row["trouble"] == "tilt angles of the wrong sign"
    yield Finding(name, "sense said to be reversed", int(row["rotation_reversed"]), "==", int(reversed_log))
    limits = {"length_err_pct": 0.5, "ratio_err_pct": 0.2, "angle_err_deg": 0.2, "orientation_err_deg": 0.07,
              "sum_err_pct": 5.0}  # fmt: skip
    for quantity, limit in limits.items():
        yield Finding(name, quantity, float(row[quantity]), "<=", limit)
    yield Finding(name, "corr_ln", float(row["corr_ln"]), ">=", 0.98)
    if row["blank_frames"]:
        yield Finding(name, "blank frames called so, %", row["blank_called_so_pct"], "==", 100.0)
    yield Finding(name, "other frames called blank, %", row["others_called_blank_pct"], "<=", 2.0)
    for kind in ("elliptic", "parabolic", "cubic"):
        if f"{kind}_pct" in row:
            most = max(0.1 * row[f"{kind}_pct"], 0.05)
            yield Finding(name, f"{kind} distortion: error, %", row[f"{kind}_err_pct"], "<=", most)
