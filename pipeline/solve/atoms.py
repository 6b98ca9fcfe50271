"""From a symmetric density to atoms: peaks, their sites, and elements from the composition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import gemmi
import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, next_fast_len
from scipy.ndimage import maximum_filter

from nanoed.pipeline.io.formula import parse_formula
from nanoed.pipeline.io.ins import Cell
from nanoed.pipeline.solve.spec import AtomSpec, SolveSpec
from nanoed.pipeline.solve.symmetry import Candidate
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Sites of a density, highest first: xyz (n, 3) fractional, height (n,), multiplicity (n,)."""

    xyz: Array
    height: Array
    multiplicity: Index


@dataclass(frozen=True, slots=True)
class Kind:
    """What a site may hold: its elements with their occupancies, and how many there are in a formula unit."""

    elements: tuple[tuple[str, float], ...]
    count: float

    @property
    def atomic_number(self) -> float:
        return sum(gemmi.Element(name).atomic_number * part for name, part in self.elements)


def kinds(spec: SolveSpec) -> tuple[Kind, ...]:
    """The kinds of sites of `spec.composition`, heaviest first, without hydrogen. Raises InputError."""
    formula = {name: n for name, n in parse_formula(spec.composition).items() if name not in ("H", "D")}
    if not formula:
        raise InputError(
            "nothing to look for", field="composition", value=spec.composition, allowed="such as TiO2"
        )
    groups = [tuple(group) for group in spec.shared]
    mixed = [name for group in groups for name in group]
    unknown = [name for name in mixed if name not in formula]
    if unknown or len(set(mixed)) != len(mixed):
        allowed = "each once, of " + ", ".join(formula)
        raise InputError(
            "elements that cannot share sites", field="shared", value=str(spec.shared), allowed=allowed
        )
    groups += [(name,) for name in formula if name not in mixed]
    found = []
    for group in groups:
        count = sum(formula[name] for name in group)
        found.append(Kind(tuple((name, formula[name] / count) for name in group), count))
    return tuple(sorted(found, key=lambda kind: -kind.atomic_number))


def density(hkl: Index, f: Complex, cell: Cell, spacing: float) -> Array:
    """The density of F (n,) at all reflections (n, 3), Friedel mates included, on voxels of at most `spacing` Å."""
    a, b, c = (next_fast_len(max(int(np.ceil(x / spacing)), 2 * m + 1), real=True)
               for x, m in zip(cell[:3], np.abs(hkl).max(axis=0).tolist(), strict=True))  # fmt: skip
    half = np.zeros((a, b, c // 2 + 1), np.complex128)
    stored = hkl[:, 2] >= 0
    half[tuple(hkl[stored].T)] = f[stored]
    return np.asarray(irfftn(half, (a, b, c), norm="forward", workers=1))


def find_peaks(rho: Array, group: Candidate, cell: Cell, spec: AtomSpec, most: int) -> Peaks:
    """Sites of the local maxima of `rho`, highest first, until `most` atoms stand in the cell.

    Peaks nearer than `special_A` to their own images stand on the mean of those; peaks nearer than
    `min_distance_A` to an atom that is there already are left out.
    """
    maxima = _maxima(rho)
    metric = np.array(gemmi.UnitCell(*cell).orth.mat.tolist())
    rotations, translations = _all_operations(group)
    atoms = np.empty((0, 3))
    sites: list[tuple[Array, float, int]] = []
    for x, height in maxima:
        if len(atoms) >= most:
            break
        images = rotations @ x + translations
        near = images - x - np.rint(images - x)
        own = np.linalg.norm(near @ metric.T, axis=1) < spec.special_A
        x = x + near[own].mean(axis=0)
        orbit = _distinct((rotations @ x + translations) % 1.0, metric)
        if (
            _nearest(x, atoms, metric) < spec.min_distance_A
            or _nearest(x, orbit, metric, 1) < spec.min_distance_A
        ):
            continue
        atoms = np.vstack([atoms, orbit])
        sites.append((x % 1.0, height, len(orbit)))
    xyz = np.array([site[0] for site in sites]).reshape(-1, 3)
    return Peaks(xyz, np.array([site[1] for site in sites]), np.array([site[2] for site in sites], np.int64))


def formula_units(kinds_: Iterable[Kind], cell: Cell, spec: AtomSpec) -> list[int]:
    """Formula units per cell that are tried, the likeliest volume per atom first."""
    if spec.formula_units is not None:
        return [spec.formula_units]
    atoms = sum(kind.count for kind in kinds_)
    volume = gemmi.UnitCell(*cell).volume / (atoms * spec.volume_per_atom_A3)
    low, high = int(np.ceil(volume / spec.volume_ratio)), int(np.floor(volume * spec.volume_ratio))
    return sorted(range(max(low, 1), max(high, 1) + 1), key=lambda z: abs(np.log(z / volume)))


def assign(peaks: Peaks, kinds_: tuple[Kind, ...], units: int) -> list[tuple[int, Kind]] | None:
    """(peak, kind) of every site: the highest peaks hold the heaviest kind; None where they cannot make the formula.

    A peak whose multiplicity exceeds what is left of a kind is passed over for it.
    """
    free = list(range(len(peaks.xyz)))
    chosen: list[tuple[int, Kind]] = []
    for kind in kinds_:
        left = kind.count * units
        for i in list(free):
            if peaks.multiplicity[i] <= left + 1e-6:
                chosen.append((i, kind))
                free.remove(i)
                left -= peaks.multiplicity[i]
        if left > 1e-6:
            return None
    return chosen


def contrast(peaks: Peaks, chosen: list[tuple[int, Kind]]) -> float:
    """Lowest peak that is an atom over the highest that is none; large for a clear solution."""
    taken = {i for i, _ in chosen}
    rest = [h for i, h in enumerate(peaks.height) if i not in taken]
    return float(min(peaks.height[i] for i in taken) / max([*rest, 1e-6 * peaks.height[0]]))


def crystal_of(
    peaks: Peaks, chosen: list[tuple[int, Kind]], spacegroup: str, cell: Cell, u_iso: float
) -> Crystal:
    """The structure of the chosen sites, labelled by element and number."""
    labels, elements, xyz, occupancy = [], [], [], []
    numbers: dict[str, int] = {}
    for i, kind in chosen:
        for element, part in kind.elements:
            numbers[element] = numbers.get(element, 0) + 1
            labels.append(f"{element}{numbers[element]}")
            elements.append(element)
            xyz.append(peaks.xyz[i])
            occupancy.append(part)
    n = len(labels)
    return Crystal("solution", cell, spacegroup, tuple(labels), tuple(elements), np.array(xyz),
                   np.array(occupancy), np.full(n, u_iso), np.full((n, 6), np.nan))  # fmt: skip


def _all_operations(group: Candidate) -> tuple[Index, Array]:
    """Operations with centring: (m, 3, 3), (m, 3)."""
    rotations = np.concatenate([group.rotations] * len(group.centring))
    return rotations, np.concatenate([group.translations + c for c in group.centring])


def _maxima(rho: Array) -> list[tuple[Array, float]]:
    """Positive local maxima, highest first: fractional position and height by a parabola along each axis."""
    where = np.argwhere((rho == maximum_filter(rho, size=3, mode="wrap")) & (rho > 0))
    found = []
    for voxel in where:
        top, position, height = rho[tuple(voxel)], voxel.astype(float), rho[tuple(voxel)]
        for axis, n in enumerate(rho.shape):
            step = np.eye(3, dtype=int)[axis]
            before, after = rho[tuple((voxel - step) % rho.shape)], rho[tuple((voxel + step) % rho.shape)]
            bend = before - 2 * top + after
            shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
            position[axis] = (position[axis] + shift) / n
            height -= 0.25 * (before - after) * shift
        found.append((position, float(height)))
    return sorted(found, key=lambda peak: (-round(peak[1], 6), *peak[0]))


def _distinct(points: Array, metric: Array) -> Array:
    """Points (m, 3) without those that fall on an earlier one."""
    d = points[:, None] - points[None]
    same = np.linalg.norm((d - np.rint(d)) @ metric.T, axis=2) < 1e-3
    return points[~np.tril(same, -1).any(axis=1)]


def _nearest(x: Array, points: Array, metric: Array, rank: int = 0) -> float:
    """Distance (Å) of x from the nearest of `points` (m, 3), or the next with rank 1; inf without one."""
    if len(points) <= rank:
        return np.inf
    d = points - x
    return float(np.sort(np.linalg.norm((d - np.rint(d)) @ metric.T, axis=1))[rank])
