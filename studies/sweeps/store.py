"""Finished runs on disk, addressed by their run key, and the lock of the folder that holds them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole
from nanoed.studies.folder import alone, no_empty_folders, placed, refusals

MARK = "study.toml"
"""What a folder must hold for a study to be written into it again."""
OURS = {"runs", ".runs.lock"}
"""What a study that was killed before it wrote MARK may have left."""
KEY_LETTERS = 20
"""Of the run key, in the name of a run's folder; the whole key is in its run.json."""


class Store:
    """A folder of runs, each `RUNS/KEY/` with results.csv, run.json, timings.csv and the refined models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def scratch(self) -> Path:
        """Folder for the frames of runs while they last, inside what the lock holds."""
        return self.folder / ".nanoed-scratch"

    def place(self, key: str) -> Path:
        """Folder of the run with this key."""
        return self.folder / key[:KEY_LETTERS]

    def holds(self, key: str) -> bool:
        """Whether the run with this key is there, whole."""
        try:
            record = json.loads((self.place(key) / "run.json").read_text(encoding="utf-8"))
            return bool(record["run_key"] == key) and (self.place(key) / "results.csv").is_file()
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def results(self, key: str) -> str:
        """The text of the run's results.csv."""
        return (self.place(key) / "results.csv").read_text(encoding="utf-8")

    def core_seconds(self, key: str) -> float:
        """Processor time that the run took, s; NaN where it is not on record."""
        record = json.loads((self.place(key) / "run.json").read_text(encoding="utf-8"))
        return float(record.get("core_seconds", "nan"))

    def megabytes(self, key: str) -> float:
        """What the run takes on disk."""
        return sum(path.stat().st_size for path in self.place(key).rglob("*") if path.is_file()) / 1e6

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write a run, whole or not at all."""
        with placed(self.place(key), force=True) as work:
            for name, content in files.items():
                write_whole(work / name, content)

    def sweep_up(self) -> None:
        """Remove what a killed study left half-written."""
        for path in self.folder.glob(f".{'[0-9a-f]' * KEY_LETTERS}.partial-*"):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def held(out: Path, runs: Path | None) -> Iterator[Store]:
    """The store of a study's runs, in `runs` or `out`/runs, while the locks of both folders are held.

    Where one of them is refused, nothing is made. Raises InputError.
    """
    out, place = out.absolute(), (runs or out / "runs").absolute()
    if place == out or place in out.parents:
        raise InputError("holds --out", file=place, field="--runs", allowed="another folder, or one in --out")
    option = "--runs" if runs else "--out"
    with refusals(place, option):
        check_folder(place)
        if place.exists() and not os.access(place, os.W_OK):
            raise InputError("read-only", file=place, field="--runs", allowed="a writable folder")
    _usable(out)
    with no_empty_folders(place, out), ExitStack() as both:
        with refusals(place, option):
            place.parent.mkdir(parents=True, exist_ok=True)
        locks = [alone(place, "--runs"), claimed(out)]
        for lock in locks[::-1] if out in place.parents else locks:
            both.enter_context(lock)
        yield Store(place)


def check_folder(runs: Path) -> None:
    """Raise InputError for runs that are no folder."""
    if runs.exists() and not runs.is_dir():
        raise InputError("not a folder", file=runs, field="--runs", allowed="a folder")


def _usable(folder: Path) -> None:
    """Raise InputError for a folder that holds something other than a study."""
    with refusals(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError("not a folder", file=folder, field="--out", allowed="a folder")
        found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        others = [name for name in found if name not in OURS and not name.startswith(".partial-")]
        if others and not (folder / MARK).exists():
            allowed = "a new or empty folder, or one of a study"
            raise InputError("the folder holds something else", file=folder, field="--out", allowed=allowed)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the lock of a study's folder, made where it is missing.

    Raises InputError where another process holds it, and for a folder that holds something other than a study.
    """
    folder = folder.absolute()
    _usable(folder)
    with refusals(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        with refusals(folder):
            folder.mkdir(exist_ok=True)
        yield
