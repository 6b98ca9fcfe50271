"""What a solution starts from: merged intensities, their Laue group and the cell; expanded to P1."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.hkl import read_hkl
from nanoed.pipeline.io.ins import Cell, read_ins
from nanoed.pipeline.reduce.merge import merge
from nanoed.pipeline.reduce.symmetry import laue_rotations
from nanoed.pipeline.solve.spec import SolveSpec
from nanoed.pipeline.spec import MergeSpec, ReduceSpec
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Complex = NDArray[np.complex128]
_A, _B, _C = (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)
CENTRINGS = (
    (_A, _B, _C), ((2 / 3, 1 / 3, 1 / 3),), ((1 / 3, 2 / 3, 1 / 3),), ((0.5, 0.5, 0.5),), (_A,), (_B,), (_C,),
)  # fmt: skip
"""Vectors of F, R obverse, R reverse, I, A, B, C."""


@dataclass(frozen=True, slots=True, eq=False)
class Intensities:
    """cell : Å, degrees.  rotations : (k, 3, 3) matrices of the Laue group, h R runs over the equivalents.

    reflections : h, k, l, I, sigma, one row per unique reflection.  wavelength : Å.  centring : (m, 3) vectors of the
    lattice besides 0, to which the reflections belong.
    """

    cell: Cell
    wavelength: float
    rotations: Index
    reflections: pd.DataFrame
    centring: Array = field(default_factory=lambda: np.empty((0, 3)))

    @property
    def reciprocal_basis(self) -> Array:
        """(3, 3) with columns a*, b*, c*, 1/Å."""
        return np.asarray(np.linalg.inv(np.array(gemmi.UnitCell(*self.cell).orth.mat.tolist())).T)

    def expanded(self, d_star_max: float) -> tuple[Index, Array]:
        """All hkl (n, 3) of P1 up to d_star_max or the last measured one, Friedel mates included, and |F| (n,).

        |F| = sqrt(max(I, 0)), NaN where nothing was measured.
        """
        unique = self.reflections[["h", "k", "l"]].to_numpy(np.int64)
        length = np.linalg.norm(unique @ self.reciprocal_basis.T, axis=1)
        inside = length <= d_star_max
        images = np.einsum("ni,kij->knj", unique[inside], self.rotations).reshape(-1, 3)
        amplitude = np.sqrt(np.maximum(self.reflections["I"].to_numpy(float)[inside], 0.0))
        measured, first = np.unique(images, axis=0, return_index=True)
        hkl = np.concatenate([measured, self._nodes(length[inside].max(initial=0.0))])
        hkl, place = np.unique(hkl, axis=0, return_index=True)
        known = place < len(measured)
        modulus = np.full(len(hkl), np.nan)
        modulus[known] = np.tile(amplitude, len(self.rotations))[first][place[known]]
        return hkl, modulus

    def _nodes(self, reach: float) -> Index:
        """(n, 3) nodes of the lattice up to `reach` (1/Å), without 000."""
        basis = self.reciprocal_basis
        most = np.floor(reach * np.linalg.norm(np.linalg.inv(basis), axis=1) + 1e-9).astype(int)
        hkl = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij"), -1).reshape(-1, 3)
        phase = hkl @ self.centring.T
        node = (np.abs(phase - np.rint(phase)) < 1e-6).all(axis=1)
        length = np.linalg.norm(hkl @ basis.T, axis=1)
        return np.asarray(hkl[node & (length > 0) & (length <= reach + 1e-9)])


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
    centring = lattice_centring(unique, spec.symmetry.centring_ratio)
    unique = unique[nodes(unique, centring)].reset_index(drop=True)
    if not (unique["I"] > 0).any():
        raise InputError("no positive intensity", file=hkl, field="I")
    return Intensities(instructions.cell, instructions.wavelength, rotations, unique, centring)


def lattice_centring(reflections: pd.DataFrame, ratio: float) -> Array:
    """Vectors (m, 3) of the lattice besides 0, found among CENTRINGS: the first whose absences are absent, or none.

    Dynamical scattering excites no reflection that a centring forbids, so their intensities are zero but for errors:
    their mean is at most `ratio` of the mean of the others, or the list has none of them because the reduction knew.
    """
    intensity = reflections["I"].to_numpy(float)
    for vectors in CENTRINGS:
        node = nodes(reflections, np.array(vectors))
        if node.all() or (node.any() and intensity[~node].mean() <= ratio * intensity[node].mean()):
            return np.array(vectors)
    return np.empty((0, 3))


def nodes(reflections: pd.DataFrame, centring: Array) -> NDArray[np.bool_]:
    """(n,) whether h, k, l are nodes of the lattice with the centring vectors (m, 3)."""
    phase = reflections[["h", "k", "l"]].to_numpy(float) @ centring.T
    return np.asarray((np.abs(phase - np.rint(phase)) < 1e-6).all(axis=1))


def _laue_of_reduction(path: Path) -> Index | None:
    """Laue group of the merging that `reduction.json` tells of; None without that file. Raises InputError."""
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        merged_in = record["settings"] | record.get("statistics", {})  # found where it was not given
        spec = ReduceSpec(laue=merged_in["laue"], spacegroup=merged_in["spacegroup"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("not the record of a reduction", file=path, field="settings") from error
    return laue_rotations(spec.laue_class, spec.spacegroup)
