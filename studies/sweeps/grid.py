"""A study: a grid of cases as a TOML file, and the points that a choice of it has.

Every level of an axis is part of a case file: what it says replaces what the base case says.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from nanoed.sim.physics.errors import InputError
from nanoed.studies.case import Case, Name, canonical_json, changed_case, shipped_cases
from nanoed.studies.settings import nearest, read_toml, validated, write_toml
from nanoed.studies.tables import RESULT_COLUMNS

SHIPPED = Path(__file__).parent / "shipped"
Extent = Literal["default", "quick", "full"]


def _without_seed(part: dict[str, Any]) -> dict[str, Any]:
    if "seed" in part:
        raise ValueError("seeds are given by `seeds` of the block")
    return part


Changes = Annotated[dict[str, Any], AfterValidator(_without_seed)]
"""Part of a case file; the seed is no part of it."""


def _listed(levels: Any) -> Any:
    if not isinstance(levels, Mapping):
        raise ValueError("not the levels of an axis; allowed: a list of values, or a table of parts of a case file")
    return levels


Levels = Annotated[dict[str, Changes], Field(min_length=1), BeforeValidator(_listed)]
AxisName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Choice(_Part):
    """The part of a block that is run: None is all of it.

    axes : labels of the levels, by axis.  skip : the block is left out.
    """

    cases: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    axes: dict[str, tuple[str, ...]] = {}
    skip: bool = False


Choices = Annotated[tuple[Choice, ...], BeforeValidator(lambda given: [given] if isinstance(given, Mapping) else given)]


class Block(_Part):
    """The product of cases, axes and seeds.

    cases : shipped names, or paths of case files (from a TOML file: relative to it).
    set : part of a case file, for all points of the block.
    axes : by name, either label -> part of a case file, or a list of values of the field that the axis is named
        after (`"experiment.instrument.flux_e_A2_s" = [1, 10]`).
    default, quick : what a plain run and one with --quick take of it, one product or several; --full takes everything.
    """

    name: Name
    cases: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    set: Changes = {}
    axes: dict[AxisName, Levels] = {}
    default: Choices = (Choice(),)
    quick: Choices = (Choice(),)

    @field_validator("axes", mode="before")
    @classmethod
    def _labelled(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: _levels(str(name), levels) for name, levels in given.items()}

    @model_validator(mode="after")
    def _choices_exist(self) -> Block:
        for name in self.axes:
            if name in (*RESULT_COLUMNS, "block"):
                raise ValueError(f"axis {name} has the name of a column of the results")
        for choice in (*self.default, *self.quick):
            for name, labels in choice.axes.items():
                known = self.axes.get(name)
                if known is None:
                    raise ValueError(f"no axis {name!r} to choose from, {nearest(name, self.axes)}")
                for label in labels:
                    if label not in known:
                        raise ValueError(f"axis {name} has no level {label!r}, {nearest(label, known)}")
            if not set(choice.cases or ()) <= set(self.cases):
                raise ValueError(f"cases {list(choice.cases or ())} are not all among {list(self.cases)}")
        return self

    def chosen(self, extent: Extent) -> list[Block]:
        """The block cut down to each product that `extent` takes of it."""
        choices = {"default": self.default, "quick": self.quick, "full": (Choice(),)}[extent]
        return [self._cut(choice) for choice in choices if not choice.skip]

    def _cut(self, choice: Choice) -> Block:
        axes = {
            name: {label: levels[label] for label in choice.axes.get(name, tuple(levels))}
            for name, levels in self.axes.items()
        }
        cut = {"cases": choice.cases or self.cases, "seeds": choice.seeds or self.seeds, "axes": axes}
        return self.model_copy(update=cut)


class Study(_Part):
    """A grid of cases and the analysis that its results are for.

    analysis : one of the shipped analyses, "summary" for means over seeds alone.
    settings : what the analysis takes, by name.
    set : part of a case file, for all points of all blocks; what a block sets stands above it.
    """

    name: Name
    title: str = ""
    analysis: Name = "summary"
    settings: dict[str, Any] = {}
    set: Changes = {}
    block: Annotated[tuple[Block, ...], Field(min_length=1)]
    _file: Path | None = PrivateAttr(None)

    @property
    def file(self) -> Path | None:
        """The user's file that the study was read from, for messages."""
        return self._file

    @field_validator("block")
    @classmethod
    def _named_once(cls, value: tuple[Block, ...]) -> tuple[Block, ...]:
        names = [block.name for block in value]
        if len(set(names)) < len(names):
            raise ValueError("two blocks have the same name")
        return value

    @property
    def axes(self) -> list[str]:
        """Names of the axes of all blocks, in order."""
        return list(dict.fromkeys(name for block in self.block for name in block.axes))

    @property
    def levels(self) -> dict[str, list[str]]:
        """Labels of the levels of every axis, of all blocks, in order."""
        every = {name: [label for block in self.block for label in block.axes.get(name, ())] for name in self.axes}
        return {name: list(dict.fromkeys(labels)) for name, labels in every.items()}

    def toml(self) -> str:
        """The study as a TOML file to copy and edit."""
        return write_toml(self.model_dump(mode="json", exclude_defaults=True))


class Labelled(Protocol):
    """What has a place in the grid: a block and a label by axis."""

    @property
    def block(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where the points of a study stand, without their cases."""

    block: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a study: the block it belongs to, its labels by axis, and the case."""

    block: str
    labels: Mapping[str, str]
    case: Case

    @property
    def text(self) -> str:
        """The point in words, for progress and messages."""
        levels = " ".join(f"{name}={label}" for name, label in self.labels.items())
        return " ".join(filter(None, (self.block, self.case.name, levels, f"seed={self.case.seed}")))


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def is_study(name: str) -> bool:
    """Whether a shipped name is a study's, or the TOML file of a path has blocks as studies do."""
    if not name.endswith(".toml"):
        return name in shipped_studies()
    return "block" in read_toml(Path(name))


def study_file(name: str) -> Path:
    """Path of a study given by shipped name or by path; raises InputError for an unknown name."""
    if name.endswith(".toml"):
        return Path(name)
    if name not in shipped_studies():
        allowed = f"a path that ends in .toml, or {nearest(name, shipped_studies())}"
        raise InputError("unknown study", field="STUDY", value=name, allowed=allowed)
    return SHIPPED / f"{name}.toml"


def load_study(name: str) -> Study:
    """The study of a shipped name, or of a path that ends in `.toml`; raises InputError for anything wrong in it."""
    path = study_file(name)
    document = read_toml(path)
    _resolve_paths({"set": document.get("set")}, path.parent)
    for block in document.get("block", []) if isinstance(document.get("block"), list) else []:
        _resolve_paths(block, path.parent)
    study = validated(Study, document, path)
    study._file = path if name.endswith(".toml") else None
    return study


def points_of(study: Study, extent: Extent) -> list[Point]:
    """Every point that `extent` takes, once, in the order of the file; raises InputError for a case that cannot be."""
    blocks = [part for block in study.block for part in block.chosen(extent)]
    points = [point for block in blocks for point in _points(block, study.set)]
    return list({(p.block, *p.labels.items(), p.case.digest): p for p in points}.values())


def places_of(study: Study) -> list[Place]:
    """Block and labels of every point of the whole grid; no case is looked for."""
    return [
        Place(block.name, dict(zip(block.axes, labels, strict=True)))
        for block in study.block
        for labels in itertools.product(*block.axes.values())
    ]


def study_digest(study: Study, points: list[Point]) -> str:
    """SHA-256 over the analysis and the digests of all points with their labels."""
    each = [[p.block, dict(p.labels), p.case.digest] for p in points]
    parts = {"analysis": study.analysis, "settings": study.settings, "points": each}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _points(block: Block, common: dict[str, Any]) -> Iterator[Point]:
    for case in block.cases:
        for labels in itertools.product(*block.axes.values()):
            named = dict(zip(block.axes, labels, strict=True))
            parts = [common, block.set, *(block.axes[axis][label] for axis, label in named.items())]
            for seed in block.seeds:
                yield Point(block.name, named, _case(case, [*parts, {"seed": seed}], block.name))


def _case(name: str, parts: list[dict[str, Any]], block: str) -> Case:
    if not name.endswith(".toml") and name not in shipped_cases():
        allowed = f"a path that ends in .toml, or {nearest(name, shipped_cases())}"
        raise InputError("unknown case", field=f"block {block}: cases", value=name, allowed=allowed)
    return changed_case(name, parts, f"block {block}")


def _levels(name: str, given: Any) -> Any:
    """A list of values of the field `name` as labelled parts of a case file."""
    if not isinstance(given, list):
        return given
    levels: dict[str, dict[str, Any]] = {}
    for value in given:
        part: Any = value
        for field in reversed(name.split(".")):
            part = {field: part}
        levels[str(value)] = part
    return levels


def _resolve_paths(block: Any, folder: Path) -> None:
    """Cases and structures that are files stand relative to the study's."""
    if not isinstance(block, dict):
        return
    if isinstance(block.get("cases"), list):
        block["cases"] = [_resolved(name, ".toml", folder) for name in block["cases"]]
    axes = block.get("axes")
    levels = (
        [level for axis in axes.values() if isinstance(axis, dict) for level in axis.values()]
        if isinstance(axes, dict)
        else []
    )
    for part in [block.get("set"), *levels]:
        if isinstance(part, dict) and "structure" in part:
            part["structure"] = _resolved(part["structure"], ".cif", folder)


def _resolved(name: Any, ending: str, folder: Path) -> Any:
    return str((folder / name).resolve()) if isinstance(name, str) and name.endswith(ending) else name
