"""Files written whole or not at all; the one way in which this program writes a file of its own accord."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanoed.sim.physics.errors import InputError


@contextmanager
def whole(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `target` to be written to; what is there at the end takes the target's place.

    It is on the disk before it does, not in the cache alone; after an error nothing is left. The folder is made where
    it is missing. Raises InputError where the system refuses.
    """
    place = Path(target)
    part = place.with_name(f".partial-{place.name}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield part
        flush(part)
        os.replace(part, place)
    except OSError as error:
        raise InputError(
            f"cannot write: {error.strerror or error}",
            file=place,
            field="folder",
            value=place.parent,
            allowed="a writable folder with free space",
        ) from error
    finally:
        if part.exists():
            part.unlink()


def write_whole(target: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file, text as UTF-8, see `whole`; returns its path."""
    with whole(target) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return Path(target)


def flush(path: Path) -> None:
    """Have the system put a file or folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
