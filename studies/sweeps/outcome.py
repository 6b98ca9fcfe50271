"""What an analysis makes of a study's results, and how that is laid down: CSV, SVG, PDF and one page."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from nanoed.pipeline.page.drawing import inline_svg, pdf, svg
from nanoed.pipeline.page.html import Download, Page, Picture, Section, Table, render
from nanoed.sim.physics.files import write_whole
from nanoed.studies.sweeps.shown import page_table

WIDE = 4.5
"""Inches; what is wider stands alone on the page."""
TAKEN = frozenset(("results", "summary", "failures", "sweep", "study", "index", "report"))
"""Names of files of a study that are no table of its analysis."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A figure, the name of the table that it is drawn from, and its caption."""

    figure: Figure
    table: str
    caption: str


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Sentences, tables by name and drawings by name, in the order in which they are shown.

    shown : by name, how a table looks on the page where that is not `page_table`; () for one that is only to be had as
    a file.  titles : by name, of the sections that are not called like their table.
    """

    remarks: tuple[str, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    drawings: Mapping[str, Drawing] = field(default_factory=dict)
    shown: Mapping[str, tuple[Table, ...]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

    def beside(self, other: Outcome) -> Outcome:
        """Both, the other one's parts last."""
        return Outcome(
            (*self.remarks, *other.remarks),
            dict(self.tables) | dict(other.tables),
            dict(self.drawings) | dict(other.drawings),
            dict(self.shown) | dict(other.shown),
            dict(self.titles) | dict(other.titles),
        )


def write_outcome(outcome: Outcome, out: Path, title: str, header: str, alarms: tuple[str, ...]) -> Path:
    """Write NAME.csv, NAME.svg, NAME.pdf of everything and index.html into `out`; returns the page's path.

    header : the line, without its #, that says how the numbers were made; it stands above every table.
    What the page that was there before showed and this one does not is removed.
    """
    texts = {name: csv_text(table, header) for name, table in outcome.tables.items()}
    for name, text in texts.items():
        write_whole(out / f"{name}.csv", text)
    pictures = {name: svg(drawing.figure) for name, drawing in outcome.drawings.items()}
    for name, drawing in outcome.drawings.items():
        write_whole(out / f"{name}.svg", pictures[name])
        write_whole(out / f"{name}.pdf", pdf(drawing.figure))
    page = Page(title, header, alarms, tuple(_sections(outcome, texts, pictures)))
    outdated = _shown_before(out) - {f"{name}.csv" for name in texts}
    outdated -= {f"{name}.{ending}" for name in pictures for ending in ("svg", "pdf")}
    write_whole(out / "index.html", render(page))
    for name in outdated:
        (out / name).unlink(missing_ok=True)
    return out / "index.html"


def _shown_before(out: Path) -> set[str]:
    """Files of the tables and drawings of the page that is there, but for those that are not its own any more."""
    try:
        page = (out / "index.html").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return set()
    name = "[A-Za-z0-9][A-Za-z0-9._-]*"
    carried = re.findall(rf'download="({name})\.csv" href="data:text/csv;charset=utf-8;base64,([^"]*)"', page)
    tables = {f"{table}.csv" for table, content in carried if _holds(out / f"{table}.csv", content)}
    drawn = {drawing for drawing in re.findall(rf' id="({name})-figure_1"', page) if drawing not in TAKEN}
    own = {drawing for drawing in drawn if _shows(page, out / f"{drawing}.svg", drawing)}
    return tables | {f"{drawing}.{ending}" for drawing in own for ending in ("svg", "pdf")}


def _shows(page: str, path: Path, name: str) -> bool:
    """Whether a drawing is what a page shows under this name."""
    try:
        return inline_svg(path.read_text(encoding="utf-8"), name, "").partition(">")[2] in page
    except (OSError, ValueError):
        return False


def _holds(path: Path, content: str) -> bool:
    """Whether a file is what a page carries, base64."""
    try:
        return base64.b64encode(path.read_bytes()).decode("ascii") == content
    except OSError:
        return False


def csv_text(table: pd.DataFrame, header: str) -> str:
    """The table as CSV under the header line; numbers to six significant digits."""
    return f"# {header}\n" + table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _sections(outcome: Outcome, texts: Mapping[str, str], pictures: Mapping[str, str]) -> list[Section]:
    sections = [Section("findings", "Findings", notes=outcome.remarks)] if outcome.remarks else []
    drawn: dict[str, list[Picture]] = {}
    for name, drawing in outcome.drawings.items():
        width = drawing.figure.get_figwidth()
        drawn_svg = inline_svg(pictures[name], name, drawing.caption)
        drawn_svg = drawn_svg.replace("<svg ", f'<svg style="max-width: {8 * width:.0f}rem" ', 1)
        picture = Picture(drawn_svg, drawing.caption, width > WIDE)
        drawn.setdefault(drawing.table, []).append(picture)
    for name, table in outcome.tables.items():
        section = Section(
            anchor=name,
            title=outcome.titles.get(name, name.replace("_", " ").replace("-", " ").capitalize()),
            tables=outcome.shown[name] if name in outcome.shown else (page_table(table),),
            pictures=tuple(drawn.get(name, ())),
            downloads=(Download(f"{name}.csv", texts[name].encode()),),
        )
        sections.append(section)
    return sections
