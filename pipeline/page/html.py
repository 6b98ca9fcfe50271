"""A self-contained HTML page of tables and figures."""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from importlib.resources import files

import jinja2
from markupsafe import Markup, escape

VIEWER_SHA256 = "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table cell, a smaller line under it and, for a number, the value that the column is sorted by."""

    text: str
    value: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Names of the columns and rows of a sortable table."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG element (trusted, made by drawing.inline_svg) and the caption below it.

    full : it takes the whole width, with no other picture beside it.
    """

    svg: str
    caption: str = ""
    full: bool = False


@dataclass(frozen=True, slots=True)
class Download:
    """A file that the page carries inside itself."""

    name: str
    content: bytes

    @property
    def href(self) -> str:
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(self.content).decode("ascii")


@dataclass(frozen=True, slots=True)
class Overlay:
    """A structure to be turned by hand: JSON for templates/overlay.js, and by how much displacements are magnified."""

    document: str
    times: float


@dataclass(frozen=True, slots=True)
class Section:
    """One headed part of a page; what it has is shown in the order notes, overlay, tables, pictures, downloads.

    viewer : its pictures are shown one at a time, with a slider; in print all of them.
    """

    anchor: str
    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    downloads: tuple[Download, ...] = ()
    folded: bool = False
    viewer: bool = False
    overlay: Overlay | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Title, one line under it, alarms (failures, shown first) and sections."""

    title: str
    subtitle: str
    alarms: tuple[str, ...] = ()
    sections: tuple[Section, ...] = field(default=())


def typeset(text: str) -> Markup:
    """The text, escaped, with R_obs and the like set as symbols with a subscript."""
    symbol = re.compile(r"\b([wM]?R|F|S)_(obs|calc|all|int|g)\b")
    return Markup(symbol.sub(r"<i>\1</i><sub>\2</sub>", str(escape(text))))


def render(page: Page) -> str:
    """The page as HTML. Every text is escaped; no script but ours and 3Dmol.js may run and nothing is loaded."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["typeset"] = typeset
    scripts = [_template("report.js")]
    if any(section.overlay for section in page.sections):
        scripts += [vendored_viewer(), _template("overlay.js")]
    return environment.from_string(_template("report.html.j2")).render(
        page=page,
        css=Markup(_template("report.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        markup=Markup,
    )


def vendored_viewer() -> str:
    """3Dmol.js as its authors published it; ValueError for any other bytes."""
    raw = (files("nanoed.pipeline.page") / "vendor" / "3dmol" / "3Dmol-min.js").read_bytes()
    if hashlib.sha256(raw).hexdigest() != VIEWER_SHA256:
        raise ValueError("pipeline/page/vendor/3dmol/3Dmol-min.js is not the file that ORIGIN.md names")
    return raw.decode("utf-8")


def _template(name: str) -> str:
    return (files("nanoed.pipeline.page") / "templates" / name).read_text("utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
