"""Running the points of a study that are not there yet, on many cores, and the table of them all."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from nanoed.sim.physics.errors import InputError
from nanoed.studies.sweeps.cluster import connected
from nanoed.studies.sweeps.grid import Point
from nanoed.studies.sweeps.store import Store
from nanoed.studies.sweeps.task import Done, failed_rows, run_point
from nanoed.studies.tables import RESULT_COLUMNS, results_text

if TYPE_CHECKING:
    from distributed import Client

Task = Callable[[Mapping[str, Any], str, str | None], Done]
Tell = Callable[[str], None]


@dataclass(slots=True)
class Sweep:
    """What became of a sweep: runs that were there already, the keys of those made, and those lost (by key, why).

    core_seconds : processor time of the runs made, of all their stages.  wall_seconds : from before the cores were
    started until they were gone.  cores : most that it had at a time.  held_seconds : of all cores, busy or not; the
    integral of their number over the wall time.  kept_MB : what the runs made left on disk.
    """

    reused: int = 0
    made: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    core_seconds: float = 0.0
    wall_seconds: float = 0.0
    cores: int = 0
    held_seconds: float = 0.0
    kept_MB: float = 0.0

    @property
    def busy_share(self) -> float:
        """Parallel efficiency: processor time of the runs over the time for which the cores were held; NaN without.

        The start of the workers, the loading of their libraries, waiting for the disk and the idle end of the last runs
        count as idle; so does time that other programs took from the cores.
        """
        return self.core_seconds / self.held_seconds if self.held_seconds > 0 else math.nan


def run_points(
    points: Sequence[Point],
    store: Store,
    expected: Mapping[str, float],
    workers: int,
    scheduler: str | None,
    tell: Tell,
    task: Task = run_point,
) -> Sweep:
    """Run every point whose key the store does not hold, the longest first; each result is stored as it comes.

    expected : processor seconds by run key, for the order and the time left.  A task that dies with its worker three
    times is lost: it is not stored, so that a later sweep tries it again.
    """
    store.folder.mkdir(parents=True, exist_ok=True)
    store.sweep_up()
    unique = {point.case.run_key: point for point in points}
    todo = {key: point for key, point in unique.items() if not store.holds(key)}
    found = Sweep(reused=len(unique) - len(todo))
    if found.reused:
        tell(f"{found.reused} of {len(unique)} runs are there already")
    if todo:
        scratch = None if scheduler else str(store.scratch)
        began, marks = perf_counter(), []
        with _present(scheduler), connected(min(workers, len(todo)), scheduler) as client:
            for cores in _collect(client, todo, store, expected, scratch, tell, task, found):
                marks.append((perf_counter(), cores))
        ended = perf_counter()
        found.wall_seconds, found.cores = ended - began, max(cores for _, cores in marks)
        found.held_seconds = held_seconds(marks, began, ended)
    return found


@contextmanager
def _present(scheduler: str | None) -> Iterator[None]:
    """Turn the end of somebody's scheduler into an InputError; what was finished is stored."""
    try:
        yield
    except (CancelledError, OSError) as error:
        of_this_machine = isinstance(error, OSError) and error.errno is not None  # Dask's own have no number
        if scheduler is None or of_this_machine:
            raise
        raise InputError(
            "the scheduler has gone; finished runs are kept", field="--scheduler", value=scheduler,
            allowed="the same command again, with a scheduler that runs",
        ) from error  # fmt: skip


def results_table(points: Sequence[Point], axes: Sequence[str], store: Store, lost: Mapping[str, str]) -> str:
    """All rows of all points as CSV text, in the order of the points: block, the axes, then the columns of a run."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["block", *axes, *RESULT_COLUMNS])
    for point in points:
        head = [point.block, *(point.labels.get(axis, "") for axis in axes)]
        for row in _rows(point, store, lost):
            table.writerow([*head, *(row.get(name, "") for name in RESULT_COLUMNS)])
    return buffer.getvalue()


def _rows(point: Point, store: Store, lost: Mapping[str, str]) -> list[dict[str, str]]:
    key = point.case.run_key
    if store.holds(key):
        text = store.results(key)
    else:
        text = results_text(failed_rows(point.case, lost.get(key, "not run")))
    return list(csv.DictReader(io.StringIO(text)))


def _collect(
    client: Client,
    todo: Mapping[str, Point],
    store: Store,
    expected: Mapping[str, float],
    scratch: str | None,
    tell: Tell,
    task: Task,
    found: Sweep,
) -> Iterator[int]:
    """Keep every core busy with one point, store what comes back, and say how long the rest will take.

    Yields how many cores there are, at the beginning and after every point.

    A worker is never handed a second point to wait, so that one which dies takes no other's blame; workers that join
    later get theirs when the next point is done.
    """
    from distributed import as_completed

    order = sorted(todo, key=lambda key: -expected.get(key, 0.0))
    clock = _Clock({key: max(expected.get(key, 0.0), 1e-3) for key in order})
    client.wait_for_workers(1)
    waiting, busy = order[::-1], as_completed()
    keys: dict[str, str] = {}  # of the points that are being run, by future

    def fill_up() -> int:
        cores = max(1, sum(client.nthreads().values()))
        while waiting and len(keys) < cores:
            key = waiting.pop()
            document = todo[key].case.document
            future = client.submit(task, document, key, scratch, key=f"nanoed-{key}", pure=False)
            keys[future.key] = key
            busy.add(future)
        return min(cores, len(todo))

    yield fill_up()
    for future in busy:
        key = keys.pop(future.key)
        why = _stored(future, key, store)
        if why is None:
            found.made.append(key)
            found.core_seconds += _known(store.core_seconds(key))
            found.kept_MB += store.megabytes(key)
        else:
            found.lost[key] = why
        tell(f"{clock.passed(key)}: {todo[key].text}{'' if why is None else f': lost: {why}'}")
        future.release()
        yield fill_up()


def _stored(future: Any, key: str, store: Store) -> str | None:
    """Store what a task handed back; why there is nothing to store, or None."""
    error = future.exception()
    if error is not None:
        return " ".join(f"{type(error).__name__}: {error}".split())
    done: Done = future.result()
    if done.key != key:
        raise InputError(
            "the workers run another version of nanoed or its libraries",
            field="--scheduler",
            allowed="workers with the sources of this program",
        )
    store.put(key, done.files)
    return None


def held_seconds(marks: Sequence[tuple[float, int]], began: float, ended: float) -> float:
    """The integral of the number of cores; marks : times from which on there were so many, the first since `began`."""
    times = [began, *(time for time, _ in marks[1:]), ended]
    spans = zip(marks, times[:-1], times[1:], strict=True)
    return sum(cores * (after - before) for (_, cores), before, after in spans)


def _known(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else seconds


class _Clock:
    """Progress by expected seconds, corrected by how long what is done has taken."""

    def __init__(self, expected: Mapping[str, float]) -> None:
        self.expected, self.began = dict(expected), perf_counter()
        self.total, self.done, self.count = sum(expected.values()), 0.0, 0

    def passed(self, key: str) -> str:
        """Note that the run of a key is over; the state in words."""
        self.done += self.expected[key]
        self.count += 1
        left = (perf_counter() - self.began) * (self.total / self.done - 1)
        return f"{self.count}/{len(self.expected)}, {in_words(left)} left"


def in_words(seconds: float) -> str:
    """A duration as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
