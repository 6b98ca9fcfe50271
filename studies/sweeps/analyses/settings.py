"""What a study's [settings] may tell its analysis, as models that are validated before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, create_model

from nanoed.sim.physics.errors import InputError
from nanoed.studies.settings import nearest, validated
from nanoed.studies.sweeps.grid import Labelled
from nanoed.studies.tables import RESULT_COLUMNS, TEXT_COLUMNS

DERIVED = ("obs_per_par", "hand_right")
"""Columns that `common.derived` adds to those of the results."""
NUMBERS = (*(name for name in RESULT_COLUMNS if name not in (*TEXT_COLUMNS, "seed")), *DERIVED)
"""Results that are numbers."""


LevelNames = Mapping[str, Sequence[str]]
"""The axes of a study with the labels of their levels."""


class Settings(BaseModel):
    """The settings of an analysis; a field that none reads is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Wanted = TypeVar("Wanted", bound=Settings)


def settings_of(model: type[Wanted], given: Mapping[str, Any]) -> Wanted:
    """The settings of a study as its analysis takes them. Raises InputError."""
    study = create_model("Study", settings=(model, ...))
    found: Wanted = validated(study, {"settings": given}).settings  # type: ignore[attr-defined]
    return found


def check_none(settings: Mapping[str, Any], axes: LevelNames, points: Sequence[Labelled]) -> None:
    """Raise InputError for any setting: means alone take none."""
    settings_of(Settings, settings)


def known_column(name: str, axes: Iterable[str], field: str) -> None:
    """Raise InputError for what is neither an axis of the grid nor a column of the results."""
    known = (*axes, *(column for column in RESULT_COLUMNS if column not in ("message", "digest")), *DERIVED)
    if name not in known:
        raise InputError("no such axis or column of the results", field=field, value=name, allowed=nearest(name, known))


def _number(name: str) -> str:
    if name not in NUMBERS:
        raise ValueError(f"not a column of numbers of the results; allowed: {nearest(name, NUMBERS)}")
    return name


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names):
        raise ValueError("not a list of one name and more, each once")
    return names


Quantity = Annotated[str, AfterValidator(_number)]
"""The name of a column of numbers."""
Quantities = Annotated[tuple[Quantity, ...], AfterValidator(_each_once)]
