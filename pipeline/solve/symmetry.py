"""The space group of a density in P1, its origin, and the agreement of every operation with the density.

A density symmetric under x -> R x + t has F(hR) = F(h) exp(2 pi i h.t); the agreement of an operation is
Re sum F(h)* F(hR) exp(-2 pi i h.t) / sum |F(h) F(hR)|, 1 for a perfect one. As a function of t it is one Fourier
transform (Palatinus & van der Lee 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import gemmi
import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftn
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import minimize

from nanoed.pipeline.solve.spec import SymmetrySpec

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Complex = NDArray[np.complex128]
Grid = tuple[int, int, int]
INVERSION = -np.eye(3, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A space-group setting: operations x -> R x + w without centring, and its centring vectors.

    which : place of each rotation in the list of the Laue group.  preference : the lower, the more usual.
    """

    spacegroup: str
    which: tuple[int, ...]
    rotations: Index
    translations: Array
    centring: Array
    preference: int

    @property
    def order(self) -> int:
        return len(self.rotations) * len(self.centring)

    @property
    def inversion(self) -> int | None:
        """Place of the inversion among the rotations."""
        found = np.nonzero((self.rotations == INVERSION).all(axis=(1, 2)))[0]
        return int(found[0]) if len(found) else None


@dataclass(frozen=True, slots=True, eq=False)
class Symmetry:
    """candidate : the group named.  origin : (3,) its place in the density.  agreement : of every operation,
    centring first; `names` as triplets."""

    candidate: Candidate
    origin: Array
    names: tuple[str, ...]
    agreement: Array


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Agreement of every rotation (k, 3, 3) as a function of its translation: (k, *shape), and its splines."""

    rotations: Index
    values: Array
    splines: Array

    @property
    def best(self) -> Array:
        """(k,) agreement of each rotation at its best translation."""
        return self.values.reshape(len(self.values), -1).max(axis=1)

    def at(self, which: int, translations: Array) -> Array:
        """(m,) agreement of one rotation at translations (m, 3), between voxels by cubic splines."""
        where = (translations * np.array(self.values.shape[1:])).T
        return map_coordinates(self.splines[which], where, order=3, mode="grid-wrap", prefilter=False)

    def near(self, which: int, translations: Array) -> Array:
        """(m,) agreement of one rotation at the voxels nearest to translations (m, 3)."""
        shape = np.array(self.values.shape[1:])
        return np.asarray(self.values[which][tuple((np.rint(translations * shape).astype(int) % shape).T)])


def agreement_maps(hkl: Index, f: Complex, rotations: Index) -> Maps:
    """Maps of all rotations of the Laue group; hkl (n, 3) closed under them, f (n,)."""
    shape = map_shape(hkl)
    grid = np.zeros(shape, np.complex128)
    grid[tuple(hkl.T)] = f
    values = np.empty((len(rotations), *shape))
    for i, rotation in enumerate(rotations):
        turned = grid[tuple((hkl @ rotation).T)]
        product = np.zeros(shape, np.complex128)
        product[tuple(hkl.T)] = f.conj() * turned
        values[i] = fftn(product, workers=1).real / np.abs(f * turned).sum()
    return Maps(rotations, values, np.array([spline_filter(v, mode="grid-wrap") for v in values]))


def map_shape(hkl: Index) -> Grid:
    """Voxels of a map: multiples of 12, so that every translation of a space group falls on one."""
    a, b, c = (12 * int(np.ceil((2 * m + 1) / 12)) for m in np.abs(hkl).max(axis=0))
    return (a, b, c)


def find_symmetry(hkl: Index, f: Complex, maps: Maps, spec: SymmetrySpec) -> Symmetry | None:
    """The largest group all of whose operations agree with the density; None where no group of the Laue class does.

    Of groups of one order the best on average; equal descriptions of one group are told by `preference`.
    """
    groups = candidates(tuple(tuple(int(x) for x in r.ravel()) for r in maps.rotations))
    best = maps.best
    for order in sorted({group.order for group in groups}, reverse=True):
        scored = []
        for group in (g for g in groups if g.order == order):
            if best[list(group.which)].min() >= spec.grid_loss * spec.min_agreement:
                origin, mean = _best_origin(group, maps)
                scored.append((-round(mean, 3), group.preference, group, origin))
        for _, _, group, origin in sorted(scored, key=lambda row: row[:2])[: spec.tried_groups]:
            symmetry = _refined(group, origin, hkl, f)
            if symmetry.agreement.min() >= spec.min_agreement:
                return symmetry
    return None


def averaged(hkl: Index, f: Complex, symmetry: Symmetry) -> Complex:
    """F (n,) about the group's origin, averaged over its operations, with the moduli of f."""
    moved = f * np.exp(2j * np.pi * (hkl @ symmetry.origin))
    lookup = np.zeros(map_shape(hkl), np.complex128)
    lookup[tuple(hkl.T)] = moved
    total = np.zeros_like(f)
    for rotation, w in zip(symmetry.candidate.rotations, symmetry.candidate.translations, strict=True):
        total += lookup[tuple((hkl @ rotation).T)] * np.exp(-2j * np.pi * (hkl @ w))
    size = np.abs(total)
    out = np.abs(f) * total / np.maximum(size, 1e-300)
    return np.where(size > 1e-9 * np.abs(f).max() * len(symmetry.candidate.rotations), out, 0.0)


@lru_cache(maxsize=16)
def candidates(laue: tuple[tuple[int, ...], ...]) -> tuple[Candidate, ...]:
    """All tabulated settings of space groups with exactly these matrices (rows of 9) of the Laue group."""
    place, found = {matrix: i for i, matrix in enumerate(laue)}, []
    for number, group in enumerate(gemmi.spacegroup_table()):
        operations = group.operations()
        rotations = np.array([op.rot for op in operations.sym_ops], np.int64) // gemmi.Op.DEN
        matrices = {tuple(int(x) for x in m.ravel()) for r in rotations for m in (r, -r)}
        if matrices != set(place):
            continue
        which = tuple(place[tuple(int(x) for x in r.ravel())] for r in rotations)
        translations = np.array([op.tran for op in operations.sym_ops]) / gemmi.Op.DEN
        centring = np.array(operations.cen_ops) / gemmi.Op.DEN
        preference = number + (1000 if group.ext == "1" else 0)
        found.append(Candidate(str(group.xhm()), which, rotations, translations, centring, preference))
    return tuple(found)


def _best_origin(group: Candidate, maps: Maps) -> tuple[Array, float]:
    """Origin (3,) in the density and mean agreement of the group's operations about it, centring included."""
    identity = np.eye(3, dtype=np.int64)
    same = int(np.nonzero((maps.rotations == identity).all(axis=(1, 2)))[0][0])
    origins = _grid(maps) if group.inversion is None else _centres(group, maps)
    total = np.full(len(origins), maps.at(same, group.centring).sum())
    for which, rotation, w in zip(group.which, group.rotations, group.translations, strict=True):
        if which != same:
            translations = w + origins @ (identity - rotation).T
            total += (maps.near if group.inversion is None else maps.at)(which, translations)
    top = int(total.argmax())
    return origins[top], float(total[top] / (len(group.rotations) - 1 + len(group.centring)))


def _centres(group: Candidate, maps: Maps) -> Array:
    """Origins that put the group's inversion onto the density's: 8 per centring vector."""
    assert group.inversion is not None
    where = maps.values[group.which[group.inversion]]
    peak = np.array(np.unravel_index(where.argmax(), where.shape)) / np.array(where.shape)
    halves = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    centres = (peak + group.centring - group.translations[group.inversion]) / 2
    return (centres[:, None] + halves).reshape(-1, 3)


def _grid(maps: Maps) -> Array:
    shape = maps.values.shape[1:]
    axes = [np.arange(n) / n for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _refined(candidate: Candidate, origin: Array, hkl: Index, f: Complex) -> Symmetry:
    """The origin moved to the best mean agreement of all operations, and the agreement of each."""
    lookup = np.zeros(map_shape(hkl), np.complex128)
    lookup[tuple(hkl.T)] = f
    identity = np.eye(3)
    one = (
        hkl @ np.array([1_000_000, 1_000, 1]) > 0
    )  # of each pair of Friedel mates, whose terms are conjugates
    hkl, f, power = hkl[one], f[one], np.abs(f[one]) ** 2
    products = [f.conj() * lookup[tuple((hkl @ r).T)] for r in candidate.rotations]
    totals = [np.abs(p).sum() for p in products]

    def agreement(p: Array) -> Array:
        shifts = [
            w + (identity - r) @ p for r, w in zip(candidate.rotations, candidate.translations, strict=True)
        ]
        waves = (np.exp(-2j * np.pi * (hkl @ t)) for t in shifts)
        sums = [(q * wave).sum().real for q, wave in zip(products, waves, strict=True)]
        return np.array(sums) / np.array(totals)

    def disagreement(shift: Array) -> float:
        return -float(agreement(origin + shift).mean())

    fit = minimize(disagreement, np.zeros(3), method="BFGS")
    place = origin + np.asarray(fit.x)
    centred = [(power * np.cos(2 * np.pi * (hkl @ c))).sum() / power.sum() for c in candidate.centring[1:]]
    names = [_triplet(np.eye(3, dtype=np.int64), c) for c in candidate.centring[1:]]
    names += [_triplet(r, w) for r, w in zip(candidate.rotations, candidate.translations, strict=True)]
    return Symmetry(candidate, place, tuple(names), np.concatenate([centred, agreement(place)]))


def _triplet(rotation: Index, translation: Array) -> str:
    op = gemmi.Op()
    op.rot = (rotation * gemmi.Op.DEN).tolist()
    op.tran = np.rint(translation * gemmi.Op.DEN).astype(int).tolist()
    return str(op.wrap().triplet())
