"""A self-contained HTML page of tables and figures."""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from importlib.resources import files

import jinja2
from markupsafe import Markup, escape


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table cell and, for a number, the value that the column is sorted by."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Names of the columns and rows of a sortable table."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG element (trusted, made by drawing.inline_svg) and the caption below it."""

    svg: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Download:
    """A file that the page carries inside itself."""

    name: str
    content: bytes

    @property
    def href(self) -> str:
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(self.content).decode("ascii")


@dataclass(frozen=True, slots=True)
class Section:
    """One headed part of a page; what it has is shown in the order notes, tables, pictures, downloads."""

    anchor: str
    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    downloads: tuple[Download, ...] = ()
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Title, one line under it, alarms (failures, shown first) and sections."""

    title: str
    subtitle: str
    alarms: tuple[str, ...] = ()
    sections: tuple[Section, ...] = field(default=())


def typeset(text: str) -> Markup:
    """The text, escaped, with R_obs and the like set as symbols with a subscript."""
    symbol = re.compile(r"\b(w?R|F|S)_(obs|calc|all|int|g)\b")
    return Markup(symbol.sub(r"<i>\1</i><sub>\2</sub>", str(escape(text))))


def render(page: Page) -> str:
    """The page as HTML. Every text is escaped; no script but ours may run and nothing is loaded."""
    folder = files("nanoed.pipeline.page") / "templates"
    read = {
        name: (folder / name).read_text("utf-8") for name in ("report.html.j2", "report.css", "report.js")
    }
    script = read["report.js"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["typeset"] = typeset
    return environment.from_string(read["report.html.j2"]).render(
        page=page, css=Markup(read["report.css"]), script=Markup(script), script_hash=digest, markup=Markup
    )
