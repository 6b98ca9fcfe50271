"""Parts that every page is made of: figures beside their tables, downloads, tables of plain values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from nanoed.pipeline.page import drawing
from nanoed.pipeline.page.html import Cell, Download, Picture, Table
from nanoed.sim.physics.files import write_whole
from nanoed.studies.figure_tables import FOLDER, read_table


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a page is made from: a folder, the rows of its results.csv, published values; pdf: are PDFs wanted."""

    folder: Path
    results: pd.DataFrame
    published: Mapping[str, Any]
    pdf: bool = False

    def table(self, name: str) -> pd.DataFrame | None:
        """The table `figures/NAME.csv`, None without it. Raises InputError for a file that is not this table."""
        return read_table(self.folder, name)

    def drawn(self, name: str, figure: Figure, caption: str) -> Picture:
        """Write the figure as `figures/NAME.svg` (and .pdf) beside its table and return it for the page."""
        document = drawing.svg(figure)
        write_whole(self.folder / FOLDER / f"{name}.svg", document)
        if self.pdf:
            write_whole(self.folder / FOLDER / f"{name}.pdf", drawing.pdf(figure))
        return Picture(drawing.inline_svg(document, name.replace("_", "-"), caption), caption)

    def download(self, name: str) -> Download:
        """The table `figures/NAME.csv`, for the page to carry inside itself."""
        return Download(f"{name}.csv", (self.folder / FOLDER / f"{name}.csv").read_bytes())


def plain(
    table: pd.DataFrame,
    columns: tuple[str, ...],
    names: tuple[str, ...],
    formats: Mapping[str, str],
    caption: str = "",
) -> Table:
    """Some columns of a table under other names; numbers by their format, six digits without one."""
    rows = tuple(
        tuple(cell(row[column], formats.get(column, "{:.6g}")) for column in columns)
        for _, row in table.iterrows()
    )
    return Table(names, rows, caption)


def cell(value: Any, form: str) -> Cell:
    """Numbers are formatted and sortable, text stays text, what is not applicable is an en dash."""
    if isinstance(value, str):
        return Cell(value)
    number = float(value)
    return Cell(form.format(number), number) if math.isfinite(number) else Cell("–")
