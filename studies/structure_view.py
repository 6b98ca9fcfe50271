"""The structure of a run three times over: the truth, and every refined model as displacements from it."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nanoed.pipeline.page.drawing import INK, MUTED, styled
from nanoed.pipeline.page.html import Overlay, Section
from nanoed.sim.physics.crystal import Crystal
from nanoed.studies.compare import Comparison
from nanoed.studies.figures import SERIES
from nanoed.studies.page_parts import Source

Array = NDArray[np.float64]
SHIFT = ("dx_A", "dy_A", "dz_A")
PLACE = ("x_A", "y_A", "z_A")
EDGE = "cell edge"


def structure_table(truth: Crystal, comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Atoms of one cell, Å in a Cartesian frame with a along x, and their displacement in every model.

    Returns figure_tables.TABLES["structure"]: for the truth and each method a row per atom (displacement from the true
    site; zero for the truth), and three rows for the edges of the cell. Atoms on the faces of the cell are repeated.
    """
    index, operation, xyz = truth.unit_cell_images()
    index, operation, xyz = _closed(index, operation, xyz)
    edges = truth.frac_to_cart
    base = pd.DataFrame({"label": np.array(truth.labels)[index], "element": np.array(truth.elements)[index]})
    base[list(PLACE)] = xyz @ edges.T
    parts = [base.assign(model="truth", **dict.fromkeys(SHIFT, 0.0))]
    for method, comparison in comparisons.items():
        delta = _displacements(comparison, truth)[index]
        turned = np.einsum("nij,nj->ni", truth.rotations[operation], delta) @ edges.T
        parts.append(base.assign(model=method, **dict(zip(SHIFT, turned.T, strict=True))))
    cell = pd.DataFrame(edges.T, columns=list(PLACE))
    parts.append(cell.assign(model=EDGE, label=["a", "b", "c"], element="", **dict.fromkeys(SHIFT, 0.0)))
    return pd.concat(parts, ignore_index=True)


def _closed(
    index: NDArray[np.int64], operation: NDArray[np.int64], xyz: Array
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The atoms of the cell and their images on its far faces, edges and corners."""
    places, kept = [], []
    for i, place in enumerate(xyz):
        steps = [(0, 1) if abs(x) < 1e-3 else (-1, 0) if abs(x - 1) < 1e-3 else (0,) for x in place]
        for move in np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3):
            places.append(place + move)
            kept.append(i)
    return index[kept], operation[kept], np.array(places)


def _displacements(comparison: Comparison, truth: Crystal) -> Array:
    """(n, 3) fractional, rows of the truth; NaN where the model has no such site."""
    atoms = comparison.atoms
    delta = np.full((len(truth.labels), 3), np.nan)
    moved = atoms[list(SHIFT)].to_numpy(float) / np.asarray(truth.cell[:3])
    for label, row in zip(atoms["reference_label"], moved, strict=True):
        for name in label.split("/"):
            delta[truth.labels.index(name)] = row
    return delta


def magnification(table: pd.DataFrame) -> float:
    """1, 2 or 5 times a power of ten that makes the largest displacement about half an ångström."""
    largest = float(np.nanmax(np.linalg.norm(table[list(SHIFT)].to_numpy(float), axis=1), initial=1e-4))
    decade = 10 ** np.floor(np.log10(0.5 / largest))
    return float(max(1.0, max(step * decade for step in (1, 2, 5) if step * decade <= 0.5 / largest)))


def structure_figure(table: pd.DataFrame, times: float) -> Figure:
    """The cell along its three axes; arrows: displacements of the models, `times` as long as they are.

    table : columns of figure_tables.TABLES["structure"].
    """
    edges = table[table["model"] == EDGE][list(PLACE)].to_numpy(float)
    truth = table[table["model"] == "truth"]
    with styled():
        figure = Figure(figsize=(7.2, 3.1), layout="constrained")
        for axes, along in zip(figure.subplots(1, 3), range(3), strict=True):
            plane = _plane(edges, along)
            _draw_cell(axes, edges @ plane.T, along)
            places = truth[list(PLACE)].to_numpy(float) @ plane.T
            for element in dict.fromkeys(truth["element"]):
                some = places[(truth["element"] == element).to_numpy()]
                size = 26 if element in ("O", "H", "N", "C", "F") else 60
                axes.scatter(*some.T, s=size, facecolors="none", edgecolors=INK, linewidths=0.6)
            for method in (m for m in SERIES if (table["model"] == m).any()):
                shift = table[table["model"] == method][list(SHIFT)].to_numpy(float) @ plane.T
                arrows: Any = {"angles": "xy", "scale_units": "xy", "scale": 1 / times, "width": 0.008}
                axes.quiver(*places.T, *shift.T, color=SERIES[method][1], label=SERIES[method][0], **arrows)
            axes.set(aspect="equal", title=f"along {'abc'[along]}")
            axes.set_axis_off()
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _plane(edges: Array, along: int) -> Array:
    """(2, 3) orthonormal vectors of the plane seen along an edge: the next edge to the right, the third upwards."""
    view = edges[along] / np.linalg.norm(edges[along])
    right = edges[(along + 1) % 3] - (edges[(along + 1) % 3] @ view) * view
    right /= np.linalg.norm(right)
    return np.array([right, np.cross(view, right)])


def _draw_cell(axes: Axes, flat: Array, along: int) -> None:
    """Outline of the cell and names of the two edges in the plane. flat : (3, 2) edges as seen."""
    one, two = flat[(along + 1) % 3], flat[(along + 2) % 3]
    outline = np.array([np.zeros(2), one, one + two, two, np.zeros(2)])
    axes.plot(*outline.T, color=MUTED, linewidth=0.6)
    for edge, name in ((one, "abc"[(along + 1) % 3]), (two, "abc"[(along + 2) % 3])):
        at = 0.5 * edge - 0.09 * np.linalg.norm(flat, axis=1).max() * _outward(edge, one + two)
        axes.text(at[0], at[1], name, ha="center", va="center", style="italic")


def _outward(edge: Array, diagonal: Array) -> Array:
    normal = np.array([-edge[1], edge[0]]) / np.linalg.norm(edge)
    return normal if normal @ diagonal > 0 else -normal


def structure_section(source: Source) -> Section | None:
    """The overlay to turn by hand and, for paper and for browsers that cannot, its drawing along the axes."""
    table = source.table("structure")
    if table is None or table.empty:
        return None
    times = magnification(table)
    caption = (
        f"Circles: true sites. Arrows: displacements of the refined models, drawn {times:g} times as long."
    )
    picture = source.drawn("structure", structure_figure(table, times), caption)
    note = "One cell, in the description of the truth. Drag to turn, scroll to come closer."
    overlay = Overlay(overlay_json(table), times)
    return Section(
        "structure",
        "Structure",
        (note,),
        pictures=(picture,),
        downloads=(source.download("structure"),),
        overlay=overlay,
    )


def overlay_json(table: pd.DataFrame) -> str:
    """What the viewer of the page is given: edges, atoms of the truth, displacements by model; Å."""
    truth, models = table[table["model"] == "truth"], [m for m in SERIES if (table["model"] == m).any()]

    def rows(model: str, columns: tuple[str, ...]) -> list[list[float | None]]:
        values = table[table["model"] == model][list(columns)].to_numpy(float)
        return [[round(x, 5) if np.isfinite(x) else None for x in row] for row in values.tolist()]

    document = {
        "edges": rows(EDGE, PLACE),
        "elements": list(truth["element"]),
        "labels": list(truth["label"]),
        "truth": rows("truth", PLACE),
        "models": [{"name": SERIES[m][0], "colour": SERIES[m][1], "shifts": rows(m, SHIFT)} for m in models],
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False)
