"""The study check-simulation: what `nanoed simulate` costs, that it loses no electrons, how its frames look, and what
DIALS makes of them.

Writes a contact sheet of every case beside its figures. Times and memory are those of the machine at hand.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanoed.pipeline.io.export import export
from nanoed.sim.dataset import DataSet, open_dataset
from nanoed.sim.truth import read_truth
from nanoed.studies.artefacts import grey_levels
from nanoed.studies.case import load_case, shipped_cases
from nanoed.studies.child import Spent, spent_by
from nanoed.studies.dials import INDEX, run_steps
from nanoed.studies.findings import Finding, asked_parts

Progress = Callable[[str, int, int], None]
COLUMNS, ROWS, SIDE_PX = 4, 3, 256
"""Of a contact sheet: frames from first to last, each shrunk to SIDE_PX by the mean of its pixels."""
DIALS_CASE = "brookite-ua"
CAMERA_LENGTH_RIGHT = "experiment.flaws.camera_length_error_pct=off"


def findings(
    reference: Path, out: Path, parts: Sequence[str] | None, workers: int, progress: Progress | None
) -> list[Finding]:
    """The figures of the asked parts: the published cases, and "dials". Raises InputError for others.

    reference : not needed.  out : folder for check-simulation/CASE.jpg.
    """
    known: dict[str, Callable[[Path, int], Iterator[Finding]]] = {
        name: partial(_case, name) for name in shipped_cases() if load_case(name).published
    }
    known["dials"] = _dials
    asked = asked_parts(parts, known)
    sheets = out / "check-simulation"
    sheets.mkdir(parents=True, exist_ok=True)
    found: list[Finding] = []
    for i, part in enumerate(asked):
        if progress is not None:
            progress(f"check-simulation {part}", i, len(asked))
        found += known[part](sheets, workers)
    return found


def _case(name: str, sheets: Path, workers: int) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        data, envelope = Path(folder) / "data", Path(folder) / "truth"
        spent = _simulated(name, data, envelope, workers)
        frames = read_truth(envelope).frames
        with open_dataset(data) as series:
            Image.fromarray(contact_sheet(series)).save(sheets / f"{name}.jpg", quality=80)
            number = len(series)
    incident = frames["incident_e"].to_numpy()
    lost = (frames["on_detector_e"] + frames["missed_e"]).to_numpy() / incident - 1
    yield Finding(name, "frames", number)
    yield Finding(name, "seconds of nanoed simulate", round(spent.seconds, 1), "<=", 60.0)
    yield Finding(name, "peak memory / GB", round(spent.peak_MB / 1e3, 2), "<=", 3.0)
    yield Finding(name, "largest share of electrons lost", float(np.abs(lost).max()), "<=", 0.005)


def _simulated(name: str, data: Path, envelope: Path, workers: int, *overrides: str) -> Spent:
    """What `nanoed simulate` takes in a process of its own. Raises InputError if it fails."""
    given = [word for override in overrides for word in ("--set", override)]
    folders = ("--data", str(data), "--truth", str(envelope))
    return spent_by(["simulate", name, *folders, "--workers", str(workers), *given])


def contact_sheet(series: DataSet) -> NDArray[np.uint8]:
    """Frames from the first to the last of a series, grey on a logarithmic scale, side by side, row by row."""
    chosen = np.linspace(0, len(series) - 1, COLUMNS * ROWS).round().astype(int)
    sheet = np.full((ROWS * (SIDE_PX + 4), COLUMNS * (SIDE_PX + 4)), 128, np.uint8)
    for place, i in enumerate(chosen):
        grey, _ = grey_levels(_shrunk(series.frame(int(i)).astype(np.float64)))
        row, column = divmod(place, COLUMNS)
        top, left = row * (SIDE_PX + 4) + 2, column * (SIDE_PX + 4) + 2
        sheet[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    return sheet


def _shrunk(frame: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of blocks of pixels, at most SIDE_PX of them on a side."""
    block = -(-max(frame.shape) // SIDE_PX)
    ny, nx = (n // block * block for n in frame.shape)
    return np.asarray(frame[:ny, :nx].reshape(ny // block, block, nx // block, block).mean(axis=(1, 3)))


def _dials(sheets: Path, workers: int) -> Iterator[Finding]:
    """DIALS finds and indexes the spots of exported continuous rotation, told nothing about the crystal.

    The camera length is right here: DIALS holds the nominal one fixed, and every error of it is one of the cell.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _simulated(DIALS_CASE, folder / "data", folder / "truth", workers, CAMERA_LENGTH_RIGHT)
        export(folder / "data", "smv", folder / "smv")
        run_steps(folder, INDEX)
        crystal = json.loads((folder / "indexed.expt").read_text())["crystal"][0]
    edges = np.array([crystal[f"real_space_{axis}"] for axis in "abc"])
    lengths = np.sort(np.linalg.norm(edges, axis=1))
    true = np.sort(load_case(DIALS_CASE).crystal.cell[:3])
    cosines = [
        edges[i] @ edges[j] / np.linalg.norm(edges[i]) / np.linalg.norm(edges[j])
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    yield Finding(
        "dials",
        f"{DIALS_CASE}: largest error of a cell length / %",
        float(100 * np.abs(lengths / true - 1).max()),
        "<=",
        1.0,
    )
    yield Finding(
        "dials",
        f"{DIALS_CASE}: largest departure of an angle from 90°",
        float(np.abs(np.degrees(np.arccos(cosines)) - 90).max()),
        "<=",
        1.0,
    )
