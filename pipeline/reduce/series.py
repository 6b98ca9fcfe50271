"""Work over the frames of a series: ordered, on a few threads, a few frames in memory at a time."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.dataset import DataSet
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
T = TypeVar("T")
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


def keep_memory() -> None:
    """Ask the C library to keep freed memory for the next frame; does nothing where it cannot be asked.

    By default glibc returns every array of a frame's size to the system, which must clear its pages anew for the next:
    a third of the time of a frame.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, size in ((M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**29), (M_TOP_PAD, 2**26)):
        mallopt(option, size)


def over_frames(
    work: Callable[[int], T], indices: Sequence[int], workers: int, stage: str, progress: Progress | None
) -> Iterator[T]:
    """work(i) for every index, yielded in order whatever the number of threads."""
    total = len(indices)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque[Future[T]] = deque()
        for done, i in enumerate(indices):
            waiting.append(pool.submit(work, i))
            if len(waiting) > workers + 1:
                yield waiting.popleft().result()
            if progress:
                progress(stage, done + 1, total)
        while waiting:
            yield waiting.popleft().result()


def check_order(dataset: DataSet) -> None:
    """Raise InputError for a series whose frames are not in the order of the stage angle, naming the first that is not;
    a reading may fall back by up to half the median step."""
    alpha = dataset.nominal.alpha_deg
    slack = 0.5 * float(np.median(np.abs(np.diff(alpha)))) if len(alpha) > 1 else 0.0
    back = [np.flatnonzero(a < np.maximum.accumulate(a) - slack) for a in (alpha, -alpha)]
    if all(len(frames) for frames in back):
        first = max(int(frames[0]) for frames in back)
        raise InputError(
            f"frame {first} is out of order", file=dataset.path, field="alpha_deg", value=float(alpha[first]),
            allowed="frames in the order of the stage angle, rising or falling",
        )  # fmt: skip


def spread_out(n: int, count: int) -> list[int]:
    """At most `count` indices evenly over range(n)."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(count, n)).round()})


def read_frame(dataset: DataSet, i: int) -> Array:
    """Frame i as float64 counts, (ny, nx)."""
    return dataset.frame(i).astype(np.float64)


def valid_pixels(
    frame: Array, centre: Array, radius_px: float, saturation: float, bad: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(ny, nx) False within radius_px of the direct beam, on saturated, on impossible and on `bad` pixels."""
    y, x = np.ogrid[: frame.shape[0], : frame.shape[1]]
    outside = (x + 0.5 - centre[0]) ** 2 + (y + 0.5 - centre[1]) ** 2 > radius_px**2
    return outside & (frame < saturation) & (frame >= 0) & ~bad
