"""Sphinx: the guides of this folder, and the API from the docstrings. `sphinx-build -W docs docs/_build`."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "src"))
nanoed = importlib.import_module("nanoed")
project = "nanoed"
author = "The nanoed developers"
copyright = author
version = release = nanoed.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_heading_anchors = 3
html_theme = "alabaster"
html_title = "nanoed"
html_theme_options = {
    "description": "3D electron diffraction of nanoparticles, simulated and opened",
    "page_width": "70rem",
}
autodoc_default_options = {"members": True, "show-inheritance": False, "exclude-members": "model_config"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
nitpicky = False


def as_plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text (|g|, a*, name : shape and unit): escaped, a line per line of the source."""
    text = "\n".join(lines).strip("\n")
    lines[:] = []
    for paragraph in re.split(r"\n\s*\n", text):
        body = [_escaped(line) for line in paragraph.splitlines()]
        lines += [f"| {line}" if line.strip() else "|" for line in body] + [""]


def _escaped(line: str) -> str:
    parts = re.split(r"`([^`]*)`", line)
    plain = [re.sub(r"([\\*|_`])", r"\\\1", part) for part in parts[::2]]
    code = [f"``{part}``" if part.strip() == part and part else part for part in parts[1::2]]
    joined = plain[0]
    for one, two in zip(code, plain[1:], strict=True):
        joined += f"{one}\\ {two}"
    return joined


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_plain_text)
