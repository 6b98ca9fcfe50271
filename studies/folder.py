"""Output folders: written beside their place and moved there when they are complete, by one command at a time."""

import errno
import fcntl
import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import flush

_REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EEXIST,
    errno.EISDIR,
    errno.EIO,
    errno.ELOOP,
}


class CannotWriteError(InputError):
    """A disk that is full, read-only or not there: of the moment, not of what was to be computed."""


@contextmanager
def placed(
    out: Path, force: bool, entries: tuple[str, ...] = (), room: int = 0, option: str = "--out"
) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its place at the end; nothing is left of it after an error.

    Where `out` holds anything it is refused without `force`, with which `entries` (or whatever was written)
    are replaced, the last of them last, and other files stay. `room` bytes must be free at the start, for the
    HDF5 library does not survive a disk that fills up under it. What is there in the end is on the disk, not only in
    its cache. Raises InputError for a folder that is refused, that another command is writing, that cannot be made or
    cannot be filled; `option` is how it was given.
    """
    out = out.absolute()
    with refusals(out, option):
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise InputError(
                "not a folder", file=out, field=option, allowed="a folder, new or of a former run"
            )
        if not force and out.is_dir() and any(out.iterdir()):
            raise InputError(
                "the folder holds something else",
                file=out,
                field=option,
                allowed="a new or empty folder, one of an equal run, or --force",
            )
    work = out.with_name(f".{out.name}.partial-{os.getpid()}")
    with no_empty_folders(out.parent):
        try:
            with refusals(out, option):
                out.parent.mkdir(parents=True, exist_ok=True)
            with alone(out, option):
                with refusals(out, option):
                    _sweep(out)
                    work.mkdir()
                if out.exists() and not os.access(out, os.W_OK):
                    raise InputError("read-only", file=out, field=option, allowed="a writable folder")
                with refusals(out, option):
                    _reserve(work / "room", room)
                    yield work
                    _settle(work)
                    _move(work, out, entries or tuple(sorted(os.listdir(work))))
                    flush(out.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def no_empty_folders(*places: Path) -> Iterator[None]:
    """Remove at the end what was missing of the places and of the folders above them, unless it holds something."""
    missing = {path for place in places for path in (place, *place.parents) if not path.exists()}
    try:
        yield
    finally:
        for path in sorted(missing, key=lambda path: -len(path.parts)):
            with suppress(OSError):
                path.rmdir()


@contextmanager
def alone(out: Path, option: str = "--out") -> Iterator[None]:
    """Hold the lock of an output folder, a file beside it that lives as long as the command does.

    Raises InputError where another process holds it; a lock that a killed process left behind holds nobody up.
    """
    path = out.with_name(f".{out.name}.lock")
    with refusals(out, option):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink == 0:  # its last holder removed it in between
                raise BlockingIOError
        except BlockingIOError as error:
            os.close(handle)
            raise InputError(
                "in use", file=out, field=option, allowed="a folder that no other command is writing"
            ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _sweep(out: Path) -> None:
    """Remove what killed commands left beside the folder; to be called by who holds its lock."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Have the system put every file of a folder on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            flush(Path(place) / name)
        flush(Path(place))


@contextmanager
def refusals(out: Path, option: str = "--out") -> Iterator[None]:
    """Turn what the system says of a full, read-only or missing disk into a CannotWriteError about `out`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        code = error.errno if isinstance(error, OSError) else None
        found = re.search(r"errno = (\d+)", str(error))  # HDF5 tells it in words
        code = int(found[1]) if code is None and found else code
        if code not in _REFUSALS:
            raise
        assert code is not None
        if code in (errno.EEXIST, errno.ENOTDIR):
            way = next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), out)
            raise CannotWriteError(
                "cannot write: a file is in its way", file=out, field=option, value=way, allowed="a folder in folders"
            ) from error
        raise CannotWriteError(
            f"cannot write: {os.strerror(code)}",
            file=out,
            field=option,
            allowed="a writable folder with free space",
        ) from error


def _reserve(path: Path, size: int) -> None:
    """Claim `size` bytes of the disk for a moment; the system says whether there is room for them."""
    if not size:
        return
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    path.unlink()


def _move(work: Path, out: Path, entries: tuple[str, ...]) -> None:
    if not out.exists() or not any(out.iterdir()):
        os.replace(work, out)
        return
    _remove(out / entries[-1])
    for name in entries:
        _remove(out / name)
        if (work / name).exists():
            os.replace(work / name, out / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
