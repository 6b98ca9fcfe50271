"""Seconds and memory of `nanoed reduce` on a series, and on one of twice as many frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nanoed.sim.protocol import nominal_alpha_deg
from nanoed.sim.simulate import simulate
from nanoed.studies.case import load_case
from nanoed.studies.child import spent_by
from nanoed.studies.findings import Finding

CASE = "brookite-cnrs-01"
NAME = f"speed, {CASE}"
STEPS_DEG = (1.0, 0.5)
"""99 frames of 512 x 512 pixels, and 197."""
WORKERS = 2
Progress = Callable[[str, int, int], None]


def findings(workers: int, progress: Progress | None) -> tuple[list[dict[str, Any]], list[Finding]]:
    """A row for every length of the series, and what they make of the limits: 40 s, and memory that grows by less for
    every frame than a frame's counts themselves."""
    rows = [row_of(step, workers, progress) for step in STEPS_DEG]
    short, long = rows
    grown = (long["peak_MB"] - short["peak_MB"]) / (long["frames"] - short["frames"]) / short["frame_MB"]
    found = []
    for row, relation, limit in ((short, "<=", 40.0), (long, "", None)):
        what = f"nanoed reduce, {row['frames']} frames, {WORKERS} workers"
        found += [
            Finding(NAME, f"{what}: seconds", row["seconds"], relation, limit),
            Finding(NAME, f"{what}: seconds of processor time", row["core_seconds"]),
            Finding(NAME, f"{what}: peak memory, MB", row["peak_MB"]),
        ]
    return rows, [
        *found,
        Finding(NAME, "growth of the peak per frame, in frames as stored", grown, "<=", 1.0),
    ]


def row_of(step_deg: float, workers: int, progress: Progress | None) -> dict[str, Any]:
    """Columns of speed.csv. Kinematical intensities do: what is measured is the work on the frames."""
    case = load_case(
        CASE, (f"experiment.protocol.tilt_step_deg={step_deg}", 'experiment.engine="kinematical"')
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        simulate(case.experiment, case.crystal, folder / "data", folder / "truth", workers, progress)
        command = ["reduce", str(folder / "data"), "--out", str(folder / "out"), "--workers", str(WORKERS)]
        spent = spent_by(command)
    nx, ny = case.experiment.instrument.detector_px
    bytes_per_px = 2 if case.experiment.instrument.counter_max < 2**16 else 4
    return {
        "case": CASE,
        "frames": len(nominal_alpha_deg(case.experiment.protocol)),
        "frame_MB": nx * ny * bytes_per_px / 1e6,
        "workers": WORKERS,
    } | asdict(spent)
