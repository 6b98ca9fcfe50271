"""What a solution starts from: merged intensities, their Laue group and the cell; expanded to P1."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.hkl import read_hkl
from nanoed.pipeline.io.ins import Cell, read_ins
from nanoed.pipeline.reduce.merge import merge
from nanoed.pipeline.reduce.symmetry import laue_rotations
from nanoed.pipeline.spec import MergeSpec, ReduceSpec, SolveSpec
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True, eq=False)
class Intensities:
    """cell : Å, degrees.  rotations : (k, 3, 3) matrices of the Laue group, h R runs over the equivalents.

    reflections : h, k, l, I, sigma, one row per unique reflection.  wavelength : Å.
    """

    cell: Cell
    wavelength: float
    rotations: Index
    reflections: pd.DataFrame

    @property
    def reciprocal_basis(self) -> Array:
        """(3, 3) with columns a*, b*, c*, 1/Å."""
        return np.asarray(np.linalg.inv(np.array(gemmi.UnitCell(*self.cell).orth.mat.tolist())).T)

    def expanded(self, d_star_max: float) -> tuple[Index, Array]:
        """All hkl (n, 3) of P1, Friedel mates included, and |F| = sqrt(max(I, 0)) (n,)."""
        unique = self.reflections[["h", "k", "l"]].to_numpy(np.int64)
        inside = np.linalg.norm(unique @ self.reciprocal_basis.T, axis=1) <= d_star_max
        images = np.einsum("ni,kij->knj", unique[inside], self.rotations).reshape(-1, 3)
        amplitude = np.sqrt(np.maximum(self.reflections["I"].to_numpy(float)[inside], 0.0))
        hkl, first = np.unique(images, axis=0, return_index=True)
        return hkl, np.tile(amplitude, len(self.rotations))[first]


def read_intensities(reduced: str | Path, spec: SolveSpec) -> Intensities:
    """Intensities of a folder of reduced data (merged.hkl, merged.ins) or of a .hkl beside its .ins.

    The Laue group is `spec.laue`, or that in which the data were merged, or that of the .ins; the space group of
    neither is used. Unmerged lists are merged. Raises InputError.
    """
    path = Path(reduced)
    hkl = path / "merged.hkl" if path.is_dir() else path
    instructions = read_ins(hkl.with_suffix(".ins"))
    rotations = instructions.rotations
    merged_in = _laue_of_reduction(path / "reduction.json") if path.is_dir() else None
    if spec.laue is not None:
        rotations = laue_rotations(spec.laue, None)
    elif merged_in is not None:
        rotations = merged_in
    measured = read_hkl(hkl)
    values = measured[["I", "sigma"]].to_numpy(float)
    if not np.isfinite(values).all():
        raise InputError("intensities must be finite", file=hkl, field="I, sigma")
    unique = merge(measured, rotations, MergeSpec()).reflections
    if not (unique["I"] > 0).any():
        raise InputError("no positive intensity", file=hkl, field="I")
    return Intensities(instructions.cell, instructions.wavelength, rotations, unique)


def _laue_of_reduction(path: Path) -> Index | None:
    """Laue group of the merging that `reduction.json` tells of; None without that file. Raises InputError."""
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        spec = ReduceSpec(laue=settings["laue"], spacegroup=settings["spacegroup"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("not the record of a reduction", file=path, field="settings") from error
    return laue_rotations(spec.laue_class, spec.spacegroup)
