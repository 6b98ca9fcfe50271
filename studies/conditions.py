"""Every value of a case with what it means and where it comes from, for the report.

Meanings are the docstrings of the specs. A source is, in this order: the table of flaws, the comment behind
the value in the case's TOML file, the instrument preset, the tag of the physics notes in the docstring.
"""

import ast
import inspect
import itertools
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from pydantic import BaseModel

from nanoed.sim.flaws import FLAWS, magnitudes
from nanoed.sim.spec import Flaws

STUDY = "Cordero Oyonarte et al. 2025"
_TAGS = (("[S]", f"({STUDY})"), ("[choice]", "choice:"), ("[PHYSICS", "PHYSICS"))
_PRESET_SOURCES: Mapping[str, str] = {
    "voltage_kv": STUDY,
    "detector_px": f"{STUDY}: CheeTah or Timepix quad",
    "pixel_size_um": "Medipix and Timepix chips",
    "a_per_px": "choice: the detector's edge beyond the published limit of 1.4 1/Å",
    "beam_diameter_nm": STUDY,
    "flux_e_A2_s": STUDY,
    "beam_profile": "choice",
    "gain": "choice: one count per electron",
    "convergence_mrad": "PHYSICS H1: below 1",
    "psf_sigma_px": "PHYSICS H4",
    "dead_time_us": "PHYSICS H4",
    "cluster_px": "PHYSICS H4",
    "counter_max": "the detector's manual, PHYSICS H4",
    "axis_azimuth_deg": "choice",
}


def condition_table(case: BaseModel, toml: str = "") -> pd.DataFrame:
    """One row per value of a resolved case: field (dotted), value (text), meaning, source.

    case : any pydantic model; `experiment.flaws` are resolved to magnitudes.  toml : the case's file, whose
    comments name sources; a comment counts only while the value behind it is still the case's.
    """
    comments = _comments(toml)
    rows = []
    for field, value, meaning, origin in _values(case, ""):
        group, _, name = field.rpartition(".")
        if group == "experiment" and value == getattr(case, name, None):
            continue  # the case's own structure and seed
        if group.endswith("flaws") and name in FLAWS:
            default = FLAWS[name]
            value = magnitudes(Flaws.model_validate({name: value}))[name]
            source = default.source if value == default.value else "off" if value == 0 else "case"
            rows.append((field, _text(value), default.meaning, source))
            continue
        said, comment = comments.get(field, (None, ""))
        source = comment if said == _plain(value) else ""
        if not source and group.endswith("instrument"):
            source = _PRESET_SOURCES.get(name, "")
        rows.append((field, _text(value), meaning, source or _tagged(meaning) or origin))
    return pd.DataFrame(rows, columns=["field", "value", "meaning", "source"])


def _values(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any, str, str]]:
    """Dotted name, value, meaning and `case` or `default` of every field, models within models in place."""
    meanings = _meanings(type(model))
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _values(value, f"{prefix}{name}.")
        else:
            origin = "default" if not field.is_required() and value == field.default else "case"
            yield f"{prefix}{name}", value, meanings.get(name, ""), origin


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """What a model's source says about its fields: strings below them, `name : text` in its docstring."""
    found = {}
    for entry in re.split(r"\n\s*(?=\w+(?:, \w+)* : )", "\n" + (inspect.getdoc(model) or ""))[1:]:
        names, _, text = entry.partition(" : ")
        text = text.split("\n\n")[0]
        found.update(dict.fromkeys(names.strip().split(", "), " ".join(text.split())))
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, below in itertools.pairwise(body.body):
        match (field, below):
            case (ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text)))):
                found[name] = " ".join(text.split())
    return found


def _comments(toml: str) -> dict[str, tuple[Any, str]]:
    """Dotted field -> (value, comment) of every line `name = value # comment`."""
    found, table = {}, ""
    for line in toml.splitlines():
        if head := re.match(r"\s*\[([\w.-]+)\]", line):
            table = head[1] + "."
        elif entry := re.match(r"\s*([\w-]+)\s*=\s*([^#]+?)\s+#\s*(.+)", line):
            try:
                value = tomllib.loads(f"v = {entry[2]}")["v"]
            except tomllib.TOMLDecodeError:
                continue
            comment = entry[3].strip()
            for tag, text in _TAGS:
                comment = STUDY if comment == "[S]" else comment.replace(tag, text)
            found[table + entry[1]] = (value, comment.replace("]", ""))
    return found


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    """A value as the table shows it."""
    if value is None:
        return "automatic"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return " ".join(_text(item) for item in value)
    return str(value)


def _tagged(meaning: str) -> str:
    """The sections of the physics notes that a docstring names: "(C3.1)" -> "PHYSICS C3.1"."""
    sections = re.findall(r"\b[A-H]\d{1,2}(?:\.\d)?\b", " ".join(re.findall(r"\(([^()]*)\)", meaning)))
    return "PHYSICS " + ", ".join(dict.fromkeys(sections)) if sections else ""
