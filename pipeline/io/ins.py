"""The crystal part of a SHELX .ins: cell, wavelength and symmetry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.crystal import SOUND_CELL, sound_cell
from nanoed.sim.physics.errors import InputError

CELL_LINE = f"wavelength a b c alpha beta gamma: {SOUND_CELL}"
Cell = tuple[float, float, float, float, float, float]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Instructions:
    """cell : Å, degrees.  wavelength : Å.  rotations : (k, 3, 3) distinct matrices of the Laue group."""

    cell: Cell
    wavelength: float
    rotations: Index


def read_ins(path: str | Path) -> Instructions:
    """Read CELL and SYMM of a SHELX .ins or .res. Raises InputError for a file without a sound CELL or SYMM."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from error
    cell: tuple[float, ...] = ()
    matrices = [np.eye(3, dtype=np.int64)]
    for line in lines:
        word, _, rest = line.partition(" ")
        try:
            if word.upper() == "CELL":
                cell = tuple(float(x) for x in rest.split()[:7])
            elif word.upper() == "SYMM":
                matrices.append(_rotation(rest))
        except (ValueError, RuntimeError) as error:
            raise InputError("cannot be understood", file=path, field=word.upper(), value=rest) from error
    if len(cell) != 7 or not (0 < cell[0] <= 1e4 and sound_cell(cell[1:])):
        raise InputError("no sound cell", file=path, field="CELL", value=list(cell), allowed=CELL_LINE)
    wavelength, a, b, c, alpha, beta, gamma = cell
    both = np.array(matrices + [-m for m in matrices]).reshape(-1, 9)
    rotations = np.unique(both, axis=0).reshape(-1, 3, 3)
    return Instructions((a, b, c, alpha, beta, gamma), wavelength, rotations)


def _rotation(text: str) -> Index:
    """(3, 3) of an operation such as `-x, 1/2+y, -z`; ValueError for what turns no lattice into itself."""
    matrix = np.array(gemmi.Op(text.strip().lower()).rot, np.int64)
    whole = matrix // gemmi.Op.DEN
    if (matrix % gemmi.Op.DEN).any() or np.abs(whole).max() > 1 or abs(round(np.linalg.det(whole))) != 1:
        raise ValueError("not a symmetry operation")
    return whole
