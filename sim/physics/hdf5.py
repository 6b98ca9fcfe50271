"""HDF5 files from elsewhere: nothing outside the file is followed, and sizes are checked before memory is claimed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nanoed.sim.physics.errors import InputError

LARGEST_CHUNK_BYTES = 2**29
LARGEST_TABLE = 10**6
"""Numbers of a table that is read in one piece, unless its reader says otherwise."""


@contextmanager
def damage(path: str | Path, what: str, allowed: str) -> Iterator[None]:
    """Whatever the HDF5 or another library says of a damaged file, as one InputError about `path`."""
    try:
        yield
    except InputError as error:
        known = str(error)
        raise InputError(known, file=None if str(path) in known else path) from error
    except Exception as error:  # of a damaged file the libraries raise whatever they stumble over
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise InputError(what, file=path, value=reason[:80], allowed=allowed) from error


def open_contained(path: str | Path) -> h5py.File:
    """The HDF5 file, open for reading, after a look at every link and data set in it.

    Raises InputError for links to other files, virtual data sets and pixels stored outside the file.
    """
    file = h5py.File(path, "r")
    try:
        _refuse_outside(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _refuse_outside(file: h5py.File, path: str | Path) -> None:
    links: list[tuple[str, str]] = []

    def note(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            links.append((name, link.filename))

    file.visititems_links(note)
    for name, target in links:
        raise InputError("links to other files are refused", file=path, field=name, value=target,
                         allowed="data in the file")  # fmt: skip
    elsewhere: list[str] = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            elsewhere.append(name)

    file.visititems(look)
    for name in elsewhere:
        raise InputError("the numbers are not inside the file", file=path, field=name,
                         value="virtual or external", allowed="ordinary data sets")  # fmt: skip


def stored(dataset: Any, name: str) -> h5py.Dataset:
    """The data set, if it is one of numbers and the file holds all that its size declares.

    Raises InputError for a group, text, chunks of more than LARGEST_CHUNK_BYTES and missing pieces.
    """
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iufb" or dataset.shape is None:
        raise InputError("not a table of numbers", field=name, allowed="integers or real numbers")
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    if dataset.chunks is None:
        held = dataset.id.get_storage_size()
        complete = held >= declared
    else:
        if math.prod(dataset.chunks) * dataset.dtype.itemsize > LARGEST_CHUNK_BYTES:
            raise InputError("chunks too large", field=name, value=dataset.chunks,
                             allowed=f"at most {LARGEST_CHUNK_BYTES} bytes")  # fmt: skip
        pairs = zip(dataset.shape, dataset.chunks, strict=True)
        complete = dataset.id.get_num_chunks() >= math.prod(-(-size // chunk) for size, chunk in pairs)
    if not complete:
        raise InputError("the file declares more than it holds", field=name, value=dataset.shape,
                         allowed="a complete file")  # fmt: skip
    return dataset


def table(group: h5py.Group, name: str, largest: int = LARGEST_TABLE) -> np.ndarray:
    """All numbers of a data set of at most `largest` numbers. Raises InputError for a larger one."""
    dataset = stored(group[name], name)
    if math.prod(dataset.shape) > largest:
        raise InputError("too many numbers", field=name, value=dataset.shape, allowed=f"at most {largest}")
    return np.asarray(dataset[()])
