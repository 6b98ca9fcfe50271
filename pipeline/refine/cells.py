"""Cells that should be one: of the model, of the data, of the orientation matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.reduce.geometry import cell_of
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError

Cell = tuple[float, float, float, float, float, float]
ERROR_PCT, WARNING_PCT = 5.0, 1.0
"""Differences of an axis or an angle that are refused, and told."""


def difference_pct(cell: Cell, other: Cell) -> float:
    """Largest relative difference of an axis or an angle, percent."""
    return 100 * float(np.abs(np.array(cell) / np.array(other) - 1).max())


def check_cells(cell: Cell, model: Crystal, data: Path | None = None) -> None:
    """Raise InputError, which names the file `data`, where the model's cell is more than 5 % off that of the data."""
    if difference_pct(model.cell, cell) > ERROR_PCT:
        raise InputError(
            f"the cell of the model {model.name} and that of the data differ by more than {ERROR_PCT:g} %",
            file=data, field="cell", value=tuple(round(x, 4) for x in model.cell),
            allowed=f"a model within {ERROR_PCT:g} % of {tuple(round(float(x), 4) for x in cell)}, Å and degrees",
        )  # fmt: skip


def warning(name: str, cell: Cell, data_cell: Cell) -> str:
    """What to say where a cell is more than 1 % off that of the data; else nothing."""
    off = difference_pct(cell, data_cell)
    return f"; {name} is {off:.1f} % off the cell of the data" if off > WARNING_PCT else ""


def cell_warning(data: PetsData, model: Crystal) -> str:
    """What to say where the model's cell, or that of the orientation matrix, is more than 1 % off that of the data."""
    of_model = warning("the model's cell", model.cell, data.cell)
    return of_model + warning("the orientation matrix", cell_of(data.ub), data.cell)
