"""Laue equivalents and systematic absences of a list of reflections."""

from __future__ import annotations

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.geometry import candidates

Index = NDArray[np.int64]

_SYMMORPHIC = {"-1": "P -1", "2/m": "P 1 2/m 1", "mmm": "P m m m", "4/m": "P 4/m", "4/mmm": "P 4/m m m",
               "-3": "P -3", "-3m": "P -3 m 1", "6/m": "P 6/m", "6/mmm": "P 6/m m m", "m-3": "P m -3",
               "m-3m": "P m -3 m"}  # fmt: skip
_DIAGONAL = {"-3": "R -3 :R", "-3m": "R -3 m :R"}
"""Classes whose threefold axis lies along [111] of rhombohedral and of cubic axes."""


def laue_rotations(laue: str, spacegroup: str | None) -> Index:
    """(k, 3, 3) distinct matrices R; h R runs over the equivalents of h, Friedel's included.

    From the space group where it belongs to the Laue class (it fixes the setting), else from the class alone, on the
    axes of the group.
    """
    group = gemmi.find_spacegroup_by_name(spacegroup) if spacegroup else None
    if group is None or group.laue_str() != laue:
        diagonal = group is not None and (group.ext == "R" or group.crystal_system_str() == "cubic")
        names = _SYMMORPHIC | _DIAGONAL if diagonal else _SYMMORPHIC
        group = gemmi.find_spacegroup_by_name(names[laue])
    matrices = [np.array(op.rot) // gemmi.Op.DEN for op in group.operations().sym_ops]
    return np.unique(np.array(matrices + [-m for m in matrices], dtype=np.int64), axis=0)


def metric_class(laue: str, spacegroup: str | None) -> str:
    """The Laue class with what its metric needs beside: "2/m a" and "2/m c" by the unique axis where that is not b, "r"
    for a trigonal group on rhombohedral axes."""
    rotations = laue_rotations(laue, spacegroup)
    if laue in ("-3", "-3m"):
        cyclic = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
        return "r" if (rotations == cyclic).all(axis=(1, 2)).any() else laue
    if laue == "2/m":
        half_turn = next(r for r in rotations if np.trace(r) == -1)
        return {0: "2/m a", 1: "2/m", 2: "2/m c"}[int(np.argmax(np.diag(half_turn)))]
    return laue


def representative(hkl: Index, rotations: Index) -> Index:
    """(n, 3) the equivalent that is largest in the order l, k, h; the same for all equivalents."""
    every = np.einsum("ni,kij->nkj", hkl, rotations)
    span = 2 * int(np.abs(every).max(initial=0)) + 1
    key = (every[..., 2] * span + every[..., 1]) * span + every[..., 0]
    return every[np.arange(len(hkl)), np.argmax(key, axis=1)]


def absent(hkl: Index, spacegroup: str | None) -> NDArray[np.bool_]:
    """(n,) True where the space group extinguishes the reflection; all False without one."""
    if spacegroup is None:
        return np.zeros(len(hkl), bool)
    operations = gemmi.find_spacegroup_by_name(spacegroup).operations()
    return np.asarray(operations.systematic_absences(np.ascontiguousarray(hkl, dtype=np.int32)), bool)


def centring_absent(hkl: Index, spacegroup: str | None) -> NDArray[np.bool_]:
    """(n,) True where lattice centring alone extinguishes the reflection: such nodes do not exist."""
    if spacegroup is None:
        return np.zeros(len(hkl), bool)
    centring = gemmi.find_spacegroup_by_name(spacegroup).operations().cen_ops
    phase = hkl @ np.array(centring, dtype=float).T / gemmi.Op.DEN
    return np.any(np.abs(phase - np.round(phase)) > 1e-6, axis=1)


def possible(ub: NDArray[np.float64], d_star_max: float, rotations: Index, spacegroup: str | None) -> int:
    """Number of unique reflections of the Laue class up to d_star_max that the space group allows."""
    hkl = candidates(ub, d_star_max)
    return len(np.unique(representative(hkl[~absent(hkl, spacegroup)], rotations), axis=0))
