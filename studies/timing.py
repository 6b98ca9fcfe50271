"""One timing of `nanoed bench`, beside a floor that it cannot beat or the time of a peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any


@dataclass(frozen=True, slots=True)
class Timing:
    """One kernel or stage: what it worked on, its seconds, and the seconds below which it cannot go."""

    kernel: str
    size: str
    seconds: float
    floor: float | None = None
    floor_is: str = ""

    def cells(self) -> tuple[str, ...]:
        """The timing as cells of a table."""
        if self.floor is None:
            return (self.kernel, self.size, f"{self.seconds:.3g}", "", "", "")
        ratio = f"{self.seconds / self.floor:.3g}"
        return (self.kernel, self.size, f"{self.seconds:.3g}", f"{self.floor:.3g}", ratio, self.floor_is)

    def to_dict(self) -> dict[str, Any]:
        """The timing as JSON-ready values."""
        return asdict(self)


def best_of(work: Callable[[], object], times: int) -> float:
    """Shortest wall time of `times` calls after one that warms up, seconds."""
    work()
    taken = []
    for _ in range(times):
        began = perf_counter()
        work()
        taken.append(perf_counter() - began)
    return min(taken)
