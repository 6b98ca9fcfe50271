"""Sections of reciprocal space in the report of a run: their tables, and the drawing of these."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.page.html import Download
from nanoed.pipeline.page.html import Section as Part
from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.page.figures import sections_figure
from nanoed.pipeline.reduce.page.sections import HALF, PLANES, Section, sections
from nanoed.sim.dataset import DataSet
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole
from nanoed.studies.figure_tables import FOLDER, TABLES, write_table
from nanoed.studies.page_parts import Source

Array = NDArray[np.float64]
MOST_FRAMES = 400
STEPS = 240  # of the grid across a section


def write_sections(
    folder: Path,
    data: DataSet,
    geometry: Geometry,
    bad: NDArray[np.bool_],
    frames: NDArray[np.int64],
    reach: float,
) -> None:
    """Write `figures/section_NAME.csv` for hk0, h0l and 0kl up to |g| = reach (1/Å), and `figures/sections.csv`.

    bad : (ny, nx) pixels left out.  frames : those that have an orientation; of more than MOST_FRAMES some are taken.
    Each is a grid: the mean counts of the pixels that lie in the section; empty where no frame was.
    """
    some = frames[:: -(-len(frames) // MOST_FRAMES)].tolist()
    rows = []
    for plane in sections(data, geometry, bad, some, reach, side=STEPS):
        write_whole(folder / FOLDER / f"section_{plane.name}.csv", _grid_text(plane))
        rows.append((plane.name, plane.reach, *plane.axes.ravel()))
    write_table(folder, "sections", pd.DataFrame(rows, columns=list(TABLES["sections"])))


def _grid_text(plane: Section) -> str:
    """A section as CSV: the first row u, the first column v (1/Å), empty where nothing was measured."""
    n = len(plane.image)
    at = (np.arange(n) + 0.5) * 2 * plane.reach / n - plane.reach
    text = io.StringIO()
    text.write("v\\u," + ",".join(f"{u:.4f}" for u in at) + "\n")
    for v, row in zip(at[::-1], plane.image, strict=True):
        text.write(f"{v:.4f}," + ",".join("" if np.isnan(x) else f"{x:.4g}" for x in row) + "\n")
    return text.getvalue()


def read_sections(folder: Path, table: pd.DataFrame) -> list[Section]:
    """The sections of a run, in the order of PLANES. Raises InputError for a file that is none.

    table : columns of figure_tables.TABLES["sections"].
    """
    if list(table["section"]) != [name for name, *_ in PLANES]:
        raise InputError(
            "not the sections",
            file=folder / FOLDER / "sections.csv",
            field="section",
            allowed=", ".join(name for name, *_ in PLANES),
        )
    axes = table[["first_u", "first_v", "second_u", "second_v"]].to_numpy(float).reshape(-1, 2, 2)
    parts = zip(table["section"], table["reach"], axes, strict=True)
    return [
        Section(name, _read_grid(folder / FOLDER / f"section_{name}.csv"), reach, vectors)
        for name, reach, vectors in parts
    ]


def _read_grid(path: Path) -> Array:
    """(n, n) values, NaN where the grid is empty."""
    try:
        values = pd.read_csv(path, index_col=0).to_numpy(float)
        if values.shape[0] != values.shape[1] or len(values) < 2:
            raise ValueError("not square")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"not a section ({error})", file=path) from error
    return values


def sections_section(source: Source) -> Part | None:
    """The part of a run's page that shows the sections; None where the run wrote none."""
    table = source.table("sections")
    if table is None or table.empty:
        return None
    planes = read_sections(source.folder, table)
    caption = (
        "Sections through the origin, put together from the frames with the orientations found: pixels within"
        f" {HALF:g} of the index 0, over the median at the same distance; logarithmic. Blank: not measured."
    )
    picture = source.drawn("sections", sections_figure(planes), caption)
    paths = [source.folder / FOLDER / f"section_{plane.name}.csv" for plane in planes]
    downloads = tuple(Download(path.name, path.read_bytes()) for path in paths)
    return Part("sections", "Reciprocal space", (), (), (picture,), downloads)
