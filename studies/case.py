"""A case: one experiment, how its data are treated, and the digest that names the whole."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Set
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nanoed.pipeline.serial.spec import IndexSpec
from nanoed.pipeline.spec import ReduceSpec, RefineSpec, SolveSpec
from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.errors import InputError
from nanoed.sim.spec import Experiment
from nanoed.studies.settings import merged, nearest, read_toml, validated, write_toml

HERE = Path(__file__).parent
OF_NO_RUN = {"__pycache__", "commands", "sweeps"}
"""Folders that no number of a run depends on; a contract of the imports keeps it so."""
NAME_PATTERN = r"^[a-z0-9._-]+$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Method = Literal["kinematical", "kinematical-unit", "kinematical-nonaveraged", "kinematical-frames", "dynamical"]


_SHARED = ("laue", "spacegroup", "composition", "d_star_max", "coverage_s_max")
"""Fields that ReduceSpec and IndexSpec both have and a case gives once."""


class Start(BaseModel):
    """What the refinement starts from; derived from the truth on purpose, with the case's seed.

    model : "displaced" takes the structure that made the data, its atoms moved; "solve" solves the structure from
        the reduced data and knows nothing of it.
    displacement_A : every atom is moved this far, in a random direction that its site allows.
    u_iso_A2 : displacement parameter given to every atom.
    occupancies : "random" spreads elements that share sites evenly over these.
    cell_error_pct : every independent axis of the approximate cell is this much too long or too short.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Literal["displaced", "solve"] = "displaced"
    displacement_A: Annotated[float, Field(ge=0, le=1)] = 0.1
    u_iso_A2: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    occupancies: Literal["true", "random"] = "true"
    cell_error_pct: Annotated[float, Field(ge=0, le=10)] = 1.0


class Case(BaseModel):
    """One run: what makes the data and what treats them.

    published : row of `cases/published.csv` that results are set beside, "" for none.
    structure : shipped name, or path of a CIF (from a TOML file: relative to it).
    seed : the only one; everything random follows from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Name
    title: str = ""
    published: str = ""
    structure: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("kinematical", "dynamical")
    experiment: Experiment
    start: Start = Start()
    reduce: ReduceSpec = ReduceSpec()
    index: IndexSpec = IndexSpec()
    solve: SolveSpec = SolveSpec()
    refine: RefineSpec = RefineSpec()

    @model_validator(mode="before")
    @classmethod
    def _one_structure_one_seed(cls, given: Any) -> Any:
        """The experiment's structure and seed are the case's; they cannot be given a second time."""
        if not isinstance(given, Mapping) or not isinstance(given.get("experiment"), Mapping):
            return given
        shared = {key: given[key] for key in ("structure", "seed") if key in given}
        for key, value in shared.items():
            if given["experiment"].get(key, value) != value:
                raise ValueError(f"experiment.{key} is set by the case's {key}; give that one alone")
        return {**given, "experiment": {**given["experiment"], **shared}}

    @model_validator(mode="before")
    @classmethod
    def _indexed_as_reduced(cls, given: Any) -> Any:
        """What reduction and indexing both have is that of the reduction unless the indexing has its own.

        It is filled in here, so that a resolved case loads to the same case.
        """
        if not isinstance(given, Mapping):
            return given
        reduce, index = (_given_fields(given.get(name, {})) for name in ("reduce", "index"))
        if reduce is None or index is None:
            return given
        usual = {key: ReduceSpec.model_fields[key].default for key in _SHARED}
        shared = {key: reduce.get(key, usual[key]) for key in _SHARED if key not in index}
        return {**given, "index": {**index, **shared}}

    @field_validator("methods")
    @classmethod
    def _each_once(cls, value: tuple[Method, ...]) -> tuple[Method, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a method is named twice")
        return value

    @model_validator(mode="after")
    def _hands_are_told(self) -> Self:
        if self.refine.both_hands and "dynamical" not in self.methods:
            raise ValueError("refine.both_hands needs dynamical among the methods: no other one tells the hand")
        return self

    @property
    def solving(self) -> SolveSpec:
        """How the structure is solved; the composition is that of the reduction unless it has its own."""
        composition = self.solve.composition or self.reduce.composition
        return self.solve.model_copy(update={"composition": composition})

    @property
    def crystal(self) -> Crystal:
        """The structure; raises InputError where it cannot be read."""
        return read_cif(structure_file(self.structure))

    @property
    def document(self) -> dict[str, Any]:
        """Every field with its value, defaults filled in, as it stands in a TOML file."""
        fields = self.model_dump(mode="json")
        del fields["experiment"]["structure"], fields["experiment"]["seed"]
        return fields

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the resolved case, its structure by content."""
        document = self.document | {"structure": crystal_document(self.crystal)}
        return hashlib.sha256(canonical_json(document).encode()).hexdigest()

    @property
    def run_key(self) -> str:
        """Names what a run's numbers depend on: digest, our sources, versions of the numerical packages."""
        versions = {name: version(name) for name in ("numpy", "scipy", "numba", "gemmi")}
        parts = {"digest": self.digest, "sources": sources_hash(), "versions": versions}
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def toml(self) -> str:
        """The resolved case as a TOML file that loads to the same case."""
        return write_toml(self.document)

    def published_values(self, file: Path | None = None) -> dict[str, str]:
        """The published numbers of this data set by column name, empty if there are none.

        file : where `published` was given, named in the InputError for an unknown one.
        """
        if not self.published:
            return {}
        table = _published()
        rows = table[table["dataset"] == self.published]
        if rows.empty:
            raise InputError(
                "unknown published data set",
                file=file,
                field="published",
                value=self.published,
                allowed=nearest(self.published, table["dataset"]),
            )
        return {str(key): str(value) for key, value in rows.iloc[0].items() if value}


def shipped_cases() -> list[str]:
    """Names of the cases that come with the package."""
    return sorted(path.stem for path in (HERE / "cases").glob("*.toml"))


def shipped_structures() -> list[str]:
    """Names of the structures that come with the package."""
    return sorted(path.stem for path in (HERE / "structures").glob("*.cif"))


@cache
def _published() -> pd.DataFrame:
    return pd.read_csv(HERE / "cases" / "published.csv", comment="#", dtype=str, keep_default_na=False)


def load_case(name: str, overrides: Iterable[str] = (), argument: str = "CASE") -> Case:
    """The case of a shipped name or of a path that ends in `.toml`, after the overrides `a.b=VALUE`.

    argument : how the name was given, for the error.  Raises InputError for an unknown name or field, a wrong value, or
    a structure that cannot be read.
    """
    overrides = list(overrides)
    case = validated(Case, _document(name, (), argument), _case_file(name, argument), overrides)
    changed = {text.partition("=")[0].strip() for text in overrides}
    structure_file(case.structure, file=_origin(name, "structure", changed))
    case.published_values(_origin(name, "published", changed))
    return case


def _origin(name: str, field: str, changed: Set[str]) -> Path:
    return Path("--set") if field in changed else _case_file(name)


def changed_case(name: str, parts: Iterable[Mapping[str, Any]], where: str) -> Case:
    """The case of a shipped name or path with `parts` of case files laid over it, the last one winning.

    where : named in the InputError for a wrong field or value.
    """
    document = _document(name, ())
    for part in parts:
        document = merged(_without_other_kinds(document, part), part)
    case = validated(Case, document, Path(where))
    structure_file(case.structure, file=Path(where))
    case.published_values(Path(where))
    return case


def structure_file(structure: str, field: str = "structure", file: Path | None = None) -> Path:
    """Path of a structure given by shipped name or by path; raises InputError if there is none.

    field, file : how and where it was given, for the error.
    """
    path = Path(structure) if Path(structure).suffix else HERE / "structures" / f"{structure}.cif"
    try:
        found, nameless = path.is_file(), not Path(structure).suffix and Path(structure).is_file()
    except (OSError, ValueError):  # a name too long or with a NUL in it
        found = nameless = False
    if not found:
        what = "a file without an ending" if nameless else "no such structure"
        allowed = f"the path of a CIF that is there, ending in .cif, or {nearest(structure, shipped_structures())}"
        raise InputError(what, file=file, field=field, value=structure, allowed=allowed)
    return path


def crystal_document(crystal: Crystal) -> dict[str, Any]:
    """The content of a structure as plain values, independent of how its file was written."""
    rows = [[None if math.isnan(u) else float(u) for u in row] for row in crystal.u_ij]
    return {
        "name": crystal.name,
        "cell": [float(x) for x in crystal.cell],
        "spacegroup": crystal.spacegroup,
        "labels": list(crystal.labels),
        "elements": list(crystal.elements),
        "xyz": crystal.xyz.tolist(),
        "occupancy": crystal.occupancy.tolist(),
        "u_iso": [None if math.isnan(u) else float(u) for u in crystal.u_iso],
        "u_ij": rows,
    }


def canonical_json(document: Any) -> str:
    """The one JSON text of a document: sorted keys, no spaces, shortest exact numbers."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@cache
def sources_hash() -> str:
    """SHA-256 over the package's own files that a run's files depend on, by relative path and content."""
    root, digest = HERE.parent, hashlib.sha256()
    files = (
        Path(folder) / name
        for part in ("sim", "pipeline", "studies")
        for folder, _, names in os.walk(root / part, followlinks=True)
        for name in names
    )
    for path in sorted(files):
        if not OF_NO_RUN & set(path.relative_to(root).parts):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _given_fields(part: Any) -> dict[str, Any] | None:
    """The fields of a table or a spec that were given; None for what is neither."""
    if isinstance(part, BaseModel):
        return {name: getattr(part, name) for name in part.model_fields_set}
    return dict(part) if isinstance(part, Mapping) else None


def _case_file(name: str, argument: str = "CASE") -> Path:
    if name.endswith(".toml"):
        return Path(name)
    if name not in shipped_cases():
        allowed = f"a path that ends in .toml, or {nearest(name, shipped_cases())}"
        raise InputError("unknown case", field=argument, value=name, allowed=allowed)
    return HERE / "cases" / f"{name}.toml"


def _document(name: str, seen: tuple[str, ...], argument: str = "CASE") -> dict[str, Any]:
    """The fields of a case file after those of the shipped case that it extends."""
    path = _case_file(name, argument)
    document = read_toml(path)
    base = document.pop("extends", None)
    structure = document.get("structure")
    if isinstance(structure, str) and structure.endswith(".cif"):
        document["structure"] = str((path.parent / structure).resolve())
    if base is None:
        return document
    if not isinstance(base, str) or base not in shipped_cases() or base in seen:
        raise InputError(
            "cannot extend this",
            file=path,
            field="extends",
            value=base,
            allowed=nearest(str(base), shipped_cases()),
        )
    return merged(_without_other_kinds(_document(base, (*seen, base)), document), document)


def _without_other_kinds(base: dict[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """`base` without the protocol if that of `document` is of another kind: their fields do not mix."""
    below, over = (part.get("experiment", {}).get("protocol", {}) for part in (base, document))
    if over.get("kind", below.get("kind")) == below.get("kind"):
        return base
    experiment = {key: value for key, value in base["experiment"].items() if key != "protocol"}
    return base | {"experiment": experiment}
