"""Settings from TOML: reading, merging, `--set a.b=VALUE`, and validation with one clear line per mistake."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError

from nanoed.sim.physics.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """The document in `path`; raises InputError where it is missing, unreadable or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("no such file", file=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({getattr(error, 'strerror', None) or error})", file=path) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"not TOML ({error})", file=path) from error


def write_toml(document: Mapping[str, Any]) -> str:
    """The document as TOML text; None is left out, for TOML has no word for it."""
    return tomli_w.dumps(_plain(document))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, tables merged field by field."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def with_overrides(document: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """The document after every `a.b=VALUE`, the last one winning; VALUE is a TOML value, else a string."""
    for text in overrides:
        field, equals, value = text.partition("=")
        parts = [part.strip() for part in field.split(".")]
        if not equals or not all(parts):
            raise InputError("not an override", field="--set", value=text, allowed="field.name=VALUE")
        change: Any = _toml_value(value.strip())
        for part in reversed(parts):
            change = {part: change}
        document = merged(document, change)
    return dict(document)


def validated(
    model: type[Model], document: Mapping[str, Any], file: Path | None = None, overrides: Iterable[str] = ()
) -> Model:
    """The document as a `model` after every `a.b=VALUE`.

    Raises InputError naming the first wrong field, what it may be, and the file or `--set` that it comes from.
    """
    changed = with_overrides(document, overrides)
    try:
        return model.model_validate(changed)
    except ValidationError as error:
        first = error.errors()[0]
        of_file = changed == document or (first["loc"], first["type"]) in _mistakes(model, document)
        raise _first_mistake(model, error, file if of_file else Path("--set")) from None


def settings(model: type[Model], config: Path | None, overrides: Iterable[str]) -> Model:
    """A spec from a TOML file (or nothing but defaults) and `--set` overrides."""
    document = read_toml(config) if config is not None else {}
    return validated(model, document, config, overrides)


def nearest(name: str, valid: Iterable[str]) -> str:
    """`valid` as a phrase for an error message, what is spelt most like `name` named first."""
    names = sorted(valid)
    if not names:
        return "none, for there is none"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}? One of {', '.join(names)}" if close else f"one of {', '.join(names)}"


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _mistakes(model: type[BaseModel], document: Mapping[str, Any]) -> set[tuple[tuple[int | str, ...], str]]:
    """Place and kind of everything that is wrong in the document."""
    try:
        model.model_validate(document)
    except ValidationError as error:
        return {(mistake["loc"], mistake["type"]) for mistake in error.errors()}
    return set()


_IN_TOML = {"dictionary": "a table", "tuple": "a list", "list": "a list"}


def _wanted(message: str) -> str:
    """What may stand there, from pydantic's sentence about it."""
    text = re.sub(r"^\w+ should (?:be |have )?", "", message)
    text = re.sub(r"^a valid (?:dictionary\b.*|tuple$|list$)", lambda found: _IN_TOML[found[0].split()[2]], text)
    return re.sub(r"( after validation|, unable to parse).*$", "", text)


def _first_mistake(model: type[BaseModel], error: ValidationError, file: Path | None) -> InputError:
    mistakes = error.errors(include_url=False)
    place, owner = _place(model, mistakes[0]["loc"])
    field, kind = ".".join(place) or "case", mistakes[0]["type"]
    if kind == "extra_forbidden":
        valid = nearest(place[-1], owner.model_fields if owner else ())
        return InputError("unknown field", file=file, field=field, allowed=valid)
    if kind == "missing" and place[-1].isdigit():
        return InputError("too few values", file=file, field=".".join(place[:-1]), value=mistakes[0]["input"])
    if kind == "missing":
        return InputError("missing field", file=file, field=field, allowed="a value")
    if kind == "value_error":
        what, _, allowed = mistakes[0]["msg"].removeprefix("Value error, ").partition("; allowed: ")
        value = None if isinstance(mistakes[0]["input"], dict) else mistakes[0]["input"]
        return InputError(what, file=file, field=field, value=value, allowed=allowed or None)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        told = mistakes[0]["ctx"]
        field = f"{field}.{told['discriminator'].strip(chr(39))}"
        if kind == "union_tag_not_found":
            return InputError("missing field", file=file, field=field, allowed="a value")
        allowed = f"one of {told['expected_tags'].replace(chr(39), '')}"
        return InputError("value not allowed", file=file, field=field, value=told["tag"], allowed=allowed)
    same = [m for m in mistakes if _place(model, m["loc"])[0] == place]
    allowed = " or ".join(dict.fromkeys(_wanted(m["msg"]) for m in same))
    return InputError(
        "value not allowed", file=file, field=field, value=mistakes[0]["input"], allowed=allowed
    )


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel] | None]:
    """The field names in `loc`, without the parts that only say which branch of a union was tried.

    Returns the names and the model that the last of them belongs to.
    """
    names: list[str] = []
    owner: type[BaseModel] | None = model
    within: type[BaseModel] | None = model
    branches: dict[str, type[BaseModel]] = {}
    of_table = False
    for part in loc:
        if of_table:
            names.append(str(part))
            of_table = False
        elif str(part) in branches:
            within, branches = branches[str(part)], {}
        elif isinstance(part, int):
            names.append(str(part))
        elif within is not None:
            owner = within
            names.append(str(part))
            field = within.model_fields.get(str(part))
            within = _model_in(field.annotation) if field else None
            of_table = field is not None and get_origin(field.annotation) is dict
            branches = _branches(field.annotation, field.discriminator) if field else {}
    return names, owner


def _branches(annotation: Any, discriminator: Any) -> dict[str, type[BaseModel]]:
    """The models of a union by the values of the field that tells them apart; empty for anything else."""
    if not isinstance(discriminator, str):
        return {}
    return {
        str(tag): model
        for model in get_args(annotation)
        for tag in get_args(model.model_fields[discriminator].annotation)
    }


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model an annotation is or contains (`Spec`, `Spec | None`)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for item in get_args(annotation) if (found := _model_in(item))), None)
