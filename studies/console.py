"""What a person sees in the terminal: progress on stderr, tables on stdout."""

import csv
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

Progress = Callable[[str, int, int], None]
LINE_EVERY_S = 10.0


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A callable progress(stage, done, total): bars in a terminal, one line per finished stage elsewhere."""
    if not sys.stderr.isatty():
        lines = _Lines()
        yield lines.update
        lines.finish()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for earlier in bars.tasks:
                    bars.update(earlier.id, completed=earlier.total)
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield progress


class _Lines:
    """Progress for logs: a line when a stage ends, and one every ten seconds while it lasts."""

    def __init__(self) -> None:
        self.stage, self.began, self.told, self.state = "", 0.0, 0.0, ""

    def update(self, stage: str, done: int, total: int) -> None:
        """Note the state of a stage; print what is due."""
        now = perf_counter()
        if stage != self.stage:
            self.finish()
            self.stage, self.began, self.told = stage, now, now
        self.state = f"{done}/{total}" if total > 1 else ""
        if now - self.told > LINE_EVERY_S:
            say(f"{stage}: {self.state} ...")
            self.told = now

    def finish(self) -> None:
        """Print how the last stage ended."""
        if self.stage:
            say(f"{self.stage}: {self.state}{', ' if self.state else ''}{perf_counter() - self.began:.1f} s")
            self.stage = ""


def plain_warnings() -> None:
    """From now on a warning is one line, without the place in the source that it came from."""
    warnings.formatwarning = lambda message, *_, **__: f"nanoed: warning: {' '.join(str(message).split())}\n"


def say(text: str) -> None:
    """A remark that is not part of the output."""
    print(text, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """A table as JSON; what is not applicable is null."""
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns: text to the left, numbers to the right, for terminals and pipes alike."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    to_right = [i > 0 and any(row[i][-1:].isdigit() for row in rows) for i in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [
            cell.rjust(w) if right else cell.ljust(w)
            for cell, w, right in zip(row, widths, to_right, strict=True)
        ]
        print("  ".join(cells).rstrip())


def records(text: str) -> list[dict[str, Any]]:
    """The rows of a CSV text as JSON-ready values: numbers as numbers, nothing as None."""
    return [{name: _value(cell) for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """Name and value, one pair a line."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        print(f"{name.ljust(width)}  {shown}")


def _value(cell: str) -> Any:
    if cell == "":
        return None
    try:
        return int(cell)
    except ValueError:
        try:
            return float(cell)
        except ValueError:
            return cell
