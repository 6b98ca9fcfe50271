"""Finished runs on disk, addressed by their run key, and the lock of the folder that holds them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nanoed.sim.physics.errors import InputError
from nanoed.studies.folder import refusals

MARK = "study.toml"
"""What a folder must hold for a study to be written into it again."""
LOCK = ".lock"
OURS = {LOCK, "runs", ".scratch"}
"""What a study that was killed before it wrote MARK may have left."""
KEY_LETTERS = 20
"""Of the run key, in the name of a run's folder; the whole key is in its run.json."""


class Store:
    """A folder of runs, each `RUNS/KEY/` with results.csv, run.json, timings.csv and the refined models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

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

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write a run, whole or not at all: beside its place, to the disk, then moved there."""
        place = self.place(key)
        work = place.with_name(f".{place.name}.partial")
        with refusals(self.folder):
            shutil.rmtree(work, ignore_errors=True)
            for name, content in files.items():
                path = work / name
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, content)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(work, place)
            _flush_folder(self.folder)

    def sweep_up(self) -> None:
        """Remove what a killed study left half-written."""
        for path in self.folder.glob(".*.partial"):
            shutil.rmtree(path, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old or the new one, never a part."""
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.part")
        _write(scratch, text.encode())
        os.replace(scratch, path)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the lock of a study's folder, made where it is missing.

    Raises InputError where another process holds it, and for a folder that holds something other than a study.
    """
    folder = folder.absolute()
    with refusals(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError("not a folder", file=folder, field="--out", allowed="a folder")
        others = [path for path in folder.iterdir() if path.name not in OURS] if folder.is_dir() else []
        if others and not (folder / MARK).exists():
            allowed = "a new or empty folder, or one of a study"
            raise InputError("the folder holds something else", file=folder, field="--out", allowed=allowed)
    with locked(folder):
        yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, made where it is missing; raises InputError where another process holds it."""
    with refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            allowed = "a folder that no other study is writing to"
            raise InputError("in use", file=folder, allowed=allowed) from error
        yield
    finally:
        os.close(handle)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
