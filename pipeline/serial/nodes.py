"""Reflections of serial data: which there are, and which share an intensity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.symmetry import absent, representative
from nanoed.pipeline.serial.intensities import Full
from nanoed.pipeline.serial.lattice import KnownLattice
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.scattering import structure_factors

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Reflections: hkl (m, 3), g (m, 3) 1/Å in the crystal frame, key (m,) of their equivalents, unique (keys, 3)."""

    hkl: Index
    g: Array
    key: Index
    unique: Index

    @property
    def n_keys(self) -> int:
        return len(self.unique)


def lattice_nodes(lattice: KnownLattice, spacegroup: str | None) -> Nodes:
    """Nodes that some indexing allows, equivalents those under the symmetry of the lattice with the inversion.

    Where the metric has that symmetry nearly, a node at the limit whose equivalents lie beyond it is left out.
    """
    dark = np.array([absent(lattice.hkl @ m.T, spacegroup) for m in lattice.reindexing]).all(axis=0)
    rows = lattice.matrices.transpose(0, 2, 1)
    hkl = lattice.hkl[~dark]
    weights = _weights(hkl)
    whole = np.array([np.isin(hkl @ m @ weights, hkl @ weights) for m in rows]).all(axis=0)
    hkl = hkl[whole]
    bare = Nodes(hkl, np.ascontiguousarray(hkl @ lattice.basis.T), np.zeros(0, np.int64), hkl)
    return with_keys(bare, np.concatenate([rows, -rows]))


def with_keys(nodes: Nodes, rotations: Index) -> Nodes:
    """The same nodes with the equivalents under `rotations`, which act on rows of indices."""
    unique, key = np.unique(representative(nodes.hkl, rotations), axis=0, return_inverse=True)
    return replace(nodes, key=key.astype(np.int64), unique=unique)


def keys_of_classes(lattice: KnownLattice, nodes: Nodes) -> Index:
    """(classes, m) key of every node after the reindexing of each class; keys are those of `nodes`."""
    weights = _weights(nodes.hkl)
    numbers = nodes.hkl @ weights
    order = np.argsort(numbers)
    places = [order[np.searchsorted(numbers[order], nodes.hkl @ m.T @ weights)] for m in lattice.reindexing]
    return np.array([nodes.key[place] for place in places])


def _weights(hkl: Index) -> Index:
    """(3,) that give every node, and every one with indices up to three times as large, a number of its own."""
    span = 6 * int(np.abs(hkl).max()) + 3
    return np.array([span * span, span, 1])


def setting_of(full: Full, keys: Index, nodes: Nodes, model: Crystal) -> int:
    """The class whose reindexing makes the intensities correlate best with those of the model, kinematically.

    full : by the keys of `nodes`.  keys : (classes, m), `keys_of_classes`: h of class c has the intensity of key
    keys[c]. Amplitudes are compared, so that a few strong reflections do not decide.
    """
    expected = np.abs(structure_factors(model, nodes.hkl, "peng"))
    found = np.sqrt(full.value[nodes.key])
    known = full.seen[nodes.key] > 0
    calculated = np.zeros(len(nodes.unique))
    calculated[nodes.key] = expected
    agreement = [np.corrcoef(found[known], calculated[key][known])[0, 1] for key in keys]
    return int(np.argmax(agreement))
