"""What a checking study finds: figures beside what they are held against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure. limit : what it is held against, with relation <=, >=, == or, where nothing is asked, ""."""

    data: str
    quantity: str
    value: float
    relation: str = ""
    limit: float | None = None
    source: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the figure keeps its limit; None where nothing is asked."""
        if self.limit is None:
            return None
        return {
            "<=": self.value <= self.limit,
            ">=": self.value >= self.limit,
            "==": self.value == self.limit,
        }[self.relation]

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON-ready values."""
        return asdict(self) | {"met": self.met}

    def cells(self) -> tuple[str, ...]:
        """The finding as cells of a table."""
        limit = "" if self.limit is None else f"{self.limit:g}"
        met = {None: "", True: "yes", False: "NO"}[self.met]
        return (self.data, self.quantity, f"{self.value:.6g}", self.relation, limit, self.source, met)


def asked_parts(parts: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """The parts of a study that were asked for, None: all. Raises InputError for one that it does not have."""
    names = list(known)
    for part in parts or []:
        if part not in names:
            raise InputError("no such part", field="--part", value=part, allowed=", ".join(names))
    return names if parts is None else list(parts)


def write_findings(study: str, findings: list[Finding], path: Path) -> None:
    """Write a study's figures as CSV under a line that says how; rows of data sets that are not among them stay."""
    names = ["data", "quantity", "value", "relation", "limit", "source", "met"]
    table = pd.DataFrame([f.cells() for f in findings], columns=names)
    if path.is_file():
        before = pd.read_csv(path, dtype=str, keep_default_na=False, comment="#")
        table = pd.concat([before[~before["data"].isin(table["data"])], table])
    text = table.sort_values("data", kind="stable").to_csv(index=False)
    write_whole(path, f"# nanoed study {study}, nanoed {version('nanoed')}\n{text}")
