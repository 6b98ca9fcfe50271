"""How long the stages of a run take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, process_time


@dataclass(frozen=True, slots=True)
class Laps:
    """Seconds of each stage by its name: by the clock on the wall, and of this process's processor time."""

    wall: dict[str, float] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside, also where it fails."""
        wall, busy = perf_counter(), process_time()
        try:
            yield
        finally:
            self.wall[name] = perf_counter() - wall
            self.busy[name] = process_time() - busy

    def csv(self) -> str:
        """The stages in order as CSV text."""
        rows = [f"{name},{self.wall[name]:.3f},{self.busy[name]:.3f}\n" for name in self.wall]
        return "stage,seconds,core_seconds\n" + "".join(rows)
