"""What several commands share: arguments, options, and the reading of settings.

Heavy imports happen inside the functions, so that help is instant.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from nanoed.studies.case import Case

Spec = TypeVar("Spec", bound="BaseModel")
CaseName = Annotated[
    str, typer.Argument(metavar="CASE", help="Shipped name (see `nanoed list`) or path of a .toml file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=VALUE", help="Override a field; repeatable, the last one wins."),
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings as in a case, TOML.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")]
OptionalOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder to write [default: ./NAME-digest8].")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processor cores to use [default: all].")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier command left in the folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def chosen_case(name: str, overrides: list[str] | None, argument: str = "CASE") -> "Case":
    """The case of a name or path, given as `argument`, after the overrides."""
    from nanoed.studies.case import load_case

    return load_case(name, overrides or (), argument)


def spec_of(model: type[Spec], config: Path | None, overrides: list[str] | None, **given: Any) -> Spec:
    """The settings of --config, then the options `given` (None: not), then every --set; errors name which it was."""
    from nanoed.studies.settings import settings, validated

    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        validated(model, {name: value}, Path(f"--{name}"))
    options = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
    return settings(model, config, [*options, *(overrides or [])])


def cell_numbers(text: str) -> list[float]:
    """The six numbers of --cell; raises InputError for anything else."""
    from nanoed.sim.physics.errors import InputError

    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 6 or not 0 < min(numbers) <= max(numbers) < float("inf"):
        allowed = "six numbers: a,b,c in Å and alpha,beta,gamma in degrees"
        raise InputError("not a cell", field="--cell", value=text, allowed=allowed)
    return numbers


def cores(asked: int | None) -> int:
    """The processor cores to use: those asked for, else all that this process may use."""
    if asked is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return asked or os.cpu_count() or 1
