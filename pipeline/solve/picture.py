"""A picture of a solution: the structure and its density, both seen along the shortest axis of the cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import gemmi
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nanoed.pipeline.solve.solve import Solution

COLOURS = ("#3b6fb6", "#c8442f", "#5a9e4b", "#8a5aa5", "#d39b2a", "#7a7a7a")


def draw(solution: Solution, path: str | Path) -> None:
    """Write the picture (PNG): atoms of one cell, and the highest density along the line of sight."""
    crystal = solution.crystal
    view = int(np.argmin(crystal.cell[:3]))
    first, second = (axis for axis in range(3) if axis != view)
    plane = _plane(crystal, first, second)
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _structure(left, crystal, plane, first, second)
    _density(right, solution.best.density, plane, view)
    for axes, title in (
        (left, f"{crystal.spacegroup}, along {'abc'[view]}"),
        (right, "density, highest along it"),
    ):
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ plane.T
        axes.add_patch(Polygon(corners.tolist(), fill=False, edgecolor="0.3", linewidth=0.8))
        axes.set(title=title, xlabel="Å", ylabel="Å", aspect="equal")
    with whole(path) as part:
        figure.savefig(part, dpi=130, format="png", metadata={"Software": None})


def _plane(crystal: Crystal, first: int, second: int) -> NDArray[np.float64]:
    """(2, 2) columns: the two axes of the cell in their own plane, Å."""
    axes = crystal.frac_to_cart
    a, b = axes[:, first], axes[:, second]
    cosine = float(a @ b / np.linalg.norm(a))
    return np.array([[np.linalg.norm(a), cosine], [0.0, np.sqrt(float(b @ b) - cosine**2)]])


def _structure(axes: Axes, crystal: Crystal, plane: NDArray[np.float64], first: int, second: int) -> None:
    site, xyz = crystal.unit_cell_atoms()
    names = list(dict.fromkeys(crystal.elements))
    names.sort(key=lambda name: -gemmi.Element(name).atomic_number)
    elements = np.array(crystal.elements)[site]
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        at = xyz[elements == name][:, [first, second]] @ plane.T
        size = 25.0 + 3.0 * gemmi.Element(name).atomic_number
        axes.scatter(
            at[:, 0], at[:, 1], s=size, color=colour, edgecolor="white", linewidth=0.5, label=name, alpha=0.9
        )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=len(names), frameon=False)


def _density(axes: Axes, rho: NDArray[np.float64], plane: NDArray[np.float64], view: int) -> None:
    seen = rho.max(axis=view)
    seen = np.pad(seen, ((0, 1), (0, 1)), mode="wrap")
    u, v = (np.linspace(0, 1, n) for n in seen.shape)
    uu, vv = np.meshgrid(u, v, indexing="ij")
    x, y = plane[0, 0] * uu + plane[0, 1] * vv, plane[1, 0] * uu + plane[1, 1] * vv
    levels = np.linspace(0.08, 1.0, 12) * seen.max()
    axes.contour(x, y, seen, levels=levels, cmap="viridis", linewidths=0.8)
