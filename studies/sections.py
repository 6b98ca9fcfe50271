"""Sections of reciprocal space, put together from the frames as they were recorded and oriented."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numba import njit
from numpy.typing import NDArray

from nanoed.pipeline.page.drawing import styled
from nanoed.pipeline.page.html import Download, Section
from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.sim.dataset import DataSet
from nanoed.sim.physics.errors import InputError
from nanoed.studies.figure_tables import FOLDER, TABLES, write_table
from nanoed.studies.page_parts import Source, replace

Array = NDArray[np.float64]
Frames = NDArray[np.int64]
NAMES = ("0kl", "h0l", "hk0")
LARGEST_SIDE_PX = 512  # frames are summed in blocks to about this size first
MOST_FRAMES = 400
STEPS = 200  # of the grid across a section


def write_sections(folder: Path, data: DataSet, geometry: Geometry, frames: Frames, reach: float) -> None:
    """Write `figures/section_NAME.csv` for 0kl, h0l and hk0 up to |g| = reach (1/Å), and `figures/sections.csv`.

    frames : those that have an orientation; of more than MOST_FRAMES some are taken.
    Each is a grid: the mean electrons per pixel of the frame's pixels that lie in the section, above the median of the
    frame at equal |g|; empty where no frame was.
    """
    planes = section_planes(geometry.ub)
    lengths = 1 / np.linalg.norm(np.linalg.inv(geometry.ub), axis=1)  # distance of successive layers, 1/Å
    half = np.minimum(0.3 * lengths, 0.012)
    total, count = np.zeros((3, STEPS, STEPS)), np.zeros((3, STEPS, STEPS), np.int64)
    _collect(data, geometry, frames, reach, planes, half, total, count)
    at = (np.arange(STEPS) + 0.5) * 2 * reach / STEPS - reach
    rows = []
    for i, name in enumerate(NAMES):
        mean = np.where(count[i] > 0, total[i] / np.maximum(count[i], 1) / data.nominal.gain, np.nan)
        replace(folder / FOLDER / f"section_{name}.csv", _grid_text(at, mean))
        flat = planes[i][:2] @ geometry.ub
        one, two = (i + 1) % 3, (i + 2) % 3
        rows.append((name, half[i], reach, "abc"[one], *flat[:, one], "abc"[two], *flat[:, two]))
    write_table(folder, "sections", pd.DataFrame(rows, columns=list(TABLES["sections"])))


def section_planes(ub: Array) -> Array:
    """(3, 3, 3): for 0kl, h0l, hk0 two orthonormal vectors u, v of the plane and its normal.

    ub : (3, 3) 1/Å, columns a*, b*, c*. u lies along the next reciprocal axis in the order a*, b*, c*, a*.
    """
    planes = np.empty((3, 3, 3))
    for i in range(3):
        u = ub[:, (i + 1) % 3] / np.linalg.norm(ub[:, (i + 1) % 3])
        normal = np.cross(ub[:, (i + 1) % 3], ub[:, (i + 2) % 3])
        normal /= np.linalg.norm(normal)
        planes[i] = u, np.cross(normal, u), normal
    return planes


def _collect(
    data: DataSet,
    geometry: Geometry,
    frames: Frames,
    reach: float,
    planes: Array,
    half: Array,
    total: Array,
    count: Any,
) -> None:
    """Add the pixels of every frame to `total` and `count` (3, n, n)."""
    block = max(1, round(max(data.nominal.shape) / LARGEST_SIDE_PX))
    rotations, middle = geometry.rotations(), geometry.centres.mean(axis=0)
    step = -(-len(frames) // MOST_FRAMES)
    bent = _bent(data.nominal.shape, block, middle, geometry.distortion.undone)
    for i in np.asarray(frames)[::step].tolist():
        frame = _summed(np.asarray(data.frame(i), float), block)
        shift = (geometry.centres[i] - middle) / block
        seen = np.array([plane @ rotations[i].T for plane in planes])
        a, wavelength = geometry.a_per_px * block, geometry.wavelength
        _add(frame, bent, shift, a, wavelength, seen, half, reach, total, count)


def _summed(frame: Array, block: int) -> Array:
    ny, nx = (size // block for size in frame.shape)
    return frame[: ny * block, : nx * block].reshape(ny, block, nx, block).sum(axis=(1, 3)) / block**2


def _bent(
    shape: tuple[int, int], block: int, centre: Array, undone: Callable[[Any], Any]
) -> NDArray[np.complex128]:
    """(ny, nx) places of blocks from `centre` in blocks, x + iy with y up, distortion undone."""
    ny, nx = (size // block for size in shape)
    x = (np.arange(nx) + 0.5) * block - centre[0]
    y = centre[1] - (np.arange(ny) + 0.5) * block
    w = np.asarray(undone((x[None, :] + 1j * y[:, None]).ravel()), np.complex128)
    return w.reshape(ny, nx) / block


@njit(cache=True)
def _add(frame, bent, shift, a, wavelength, seen, half, reach, total, count):  # type: ignore[no-untyped-def]  # numba
    """Each pixel at g on the Ewald sphere, less the frame's median at equal |g|, onto the sections that it lies in.

    bent, shift : pixels.  a : 1/Å per pixel.  seen : (3, 3, 3) u, v, normal of each section in the frame's axes.
    half : (3,) and reach : 1/Å.  total, count : (3, n, n) rows along v, columns along u.
    """
    ny, nx = frame.shape
    n, k = total.shape[1], 1.0 / wavelength
    rings = int(np.ceil(reach / a)) + 1
    level = np.zeros(rings)
    held = np.empty(ny * nx)
    ring_of = np.empty((ny, nx), np.int64)
    fill = np.zeros(rings + 1, np.int64)
    for i in range(ny):
        for j in range(nx):
            x, y = bent[i, j].real - shift[0], bent[i, j].imag + shift[1]
            ring = int(np.sqrt(x * x + y * y))
            ring_of[i, j] = ring if ring < rings else -1
            if ring < rings:
                fill[ring + 1] += 1
    first = np.cumsum(fill)
    place = first[:-1].copy()
    for i in range(ny):
        for j in range(nx):
            if ring_of[i, j] >= 0:
                held[place[ring_of[i, j]]] = frame[i, j]
                place[ring_of[i, j]] += 1
    for r in range(rings):
        if first[r + 1] > first[r]:
            level[r] = np.median(held[first[r] : first[r + 1]])
    for i in range(ny):
        for j in range(nx):
            if ring_of[i, j] < 0:
                continue
            gx, gy = a * (bent[i, j].real - shift[0]), a * (bent[i, j].imag + shift[1])
            gz = k - np.sqrt(k * k - gx * gx - gy * gy)
            for s in range(3):
                if abs(seen[s, 2, 0] * gx + seen[s, 2, 1] * gy + seen[s, 2, 2] * gz) > half[s]:
                    continue
                u = seen[s, 0, 0] * gx + seen[s, 0, 1] * gy + seen[s, 0, 2] * gz
                v = seen[s, 1, 0] * gx + seen[s, 1, 1] * gy + seen[s, 1, 2] * gz
                column, row = int((u + reach) * n / (2 * reach)), int((v + reach) * n / (2 * reach))
                if 0 <= column < n and 0 <= row < n:
                    total[s, row, column] += frame[i, j] - level[ring_of[i, j]]
                    count[s, row, column] += 1


def _grid_text(at: Array, values: Array) -> str:
    """A grid as CSV: the first row u, the first column v (1/Å), empty where nothing was measured."""
    text = io.StringIO()
    text.write("v\\u," + ",".join(f"{u:.4f}" for u in at) + "\n")
    for v, row in zip(at, values, strict=True):
        text.write(f"{v:.4f}," + ",".join("" if np.isnan(x) else f"{x:.3g}" for x in row) + "\n")
    return text.getvalue()


def read_grid(path: Path) -> tuple[Array, Array]:
    """Coordinates (n,) and values (n, n) of a grid, NaN where it is empty. Raises InputError."""
    try:
        table = pd.read_csv(path, index_col=0)
        at, values = table.index.to_numpy(float), table.to_numpy(float)
        if values.shape != (len(at), len(at)) or len(at) < 2 or not np.isfinite(at).all():
            raise ValueError("not square")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"not a section ({error})", file=path) from error
    return at, values


def sections_figure(sections: pd.DataFrame, grids: dict[str, tuple[Array, Array]]) -> Figure:
    """The sections beside each other, dark where many electrons arrived, with the reciprocal axes.

    sections : columns of figure_tables.TABLES["sections"].  grids : by name, coordinates (1/Å) and values (electrons).
    """
    with styled():
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        for axes, (_, row) in zip(
            figure.subplots(1, len(sections), squeeze=False)[0], sections.iterrows(), strict=True
        ):
            at, values = grids[row["section"]]
            white = max(float(np.nanquantile(values, 0.998)), 1e-9) if np.isfinite(values).any() else 1.0
            edge = 1.5 * at[-1] - 0.5 * at[-2]
            limit = (-1.03 * edge, 1.03 * edge)
            shown = np.log1p(100 * np.clip(values, 0, white) / white)
            picture = axes.imshow(shown, cmap="gray_r", origin="lower", extent=(-edge, edge, -edge, edge),
                                  interpolation="none")  # fmt: skip
            picture.set_rasterized(True)
            axes.add_patch(
                Circle(
                    (0, 0),
                    row["reach"],
                    fill=False,
                    edgecolor="#d55e00",
                    linewidth=0.7,
                    linestyle=(0, (4, 3)),
                )
            )
            for name in ("first", "second"):
                arrow = np.array([row[f"{name}_u"], row[f"{name}_v"]], float)
                far = 0.76 * row["reach"] * arrow / max(float(np.linalg.norm(arrow)), 1e-12)
                axes.annotate("", far, (0, 0), arrowprops={"arrowstyle": "->", "color": "#0072b2", "lw": 0.8})
                axes.text(
                    *(1.1 * far), f"{row[name]}*", color="#0072b2", style="italic", ha="center", va="center"
                )
            axes.set(
                title=row["section"],
                xlabel=r"$u$ (Å$^{-1}$)",
                aspect="equal",
                xlim=limit,
                ylim=limit,
            )
            axes.spines[["top", "right"]].set_visible(True)
        figure.axes[0].set_ylabel(r"$v$ (Å$^{-1}$)")
    return figure


def sections_section(source: Source) -> Section | None:
    """The part of a run's page that shows the sections; None where the run wrote none."""
    sections = source.table("sections")
    if sections is None or sections.empty:
        return None
    if set(sections["section"]) - set(NAMES):
        raise InputError(
            "unknown section",
            file=source.folder / FOLDER / "sections.csv",
            field="section",
            allowed=", ".join(NAMES),
        )
    paths = {name: source.folder / FOLDER / f"section_{name}.csv" for name in sections["section"]}
    grids = {name: read_grid(path) for name, path in paths.items()}
    thick = 2 * sections["half_thickness"].max()
    caption = (
        "Sections through the origin, put together from the frames with the orientations found: mean electrons per "
        f"pixel above the background at equal |g|, logarithmic, in a layer {thick:.3f} Å⁻¹ thick. Blank: not measured."
    )
    picture = source.drawn("sections", sections_figure(sections, grids), caption)
    downloads = tuple(Download(path.name, path.read_bytes()) for path in paths.values())
    return Section("sections", "Reciprocal space", (), (), (picture,), downloads)
