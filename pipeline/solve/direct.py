"""Structures tried in direct space: the composition on the sites of every space group that leaves few choices.

A small structure gives too few reflections for phases to be found from, above all where a tilt series misses the
strongest; but its atoms then have few places to go to. Sites are the points of a grid that holds all special
positions; arrangements are judged by R on the amplitudes that were measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, prod

import gemmi
import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.io.ins import Cell
from nanoed.pipeline.solve.atoms import Kind, Peaks, crystal_of, formula_units
from nanoed.pipeline.solve.data import Intensities
from nanoed.pipeline.solve.spec import DirectSpec, SolveSpec
from nanoed.pipeline.solve.symmetry import Candidate, candidates
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.factors import electron_factor

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Complex = NDArray[np.complex128]
Members = tuple[tuple[int, ...], ...]
"""Rows of sites of every kind of atoms."""
POINTS = gemmi.Op.DEN
"""Grid points along an axis: every special position of every group has coordinates of which some are twenty-fourths."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """An arrangement: its group, formula units per cell, model, and R (%) on a grid and at low resolution."""

    group: Candidate
    units: int
    crystal: Crystal
    r_pct: float


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """One point of every orbit: place (n, 3) in twenty-fourths, multiplicity (n,), kind (n,) number of the stabiliser.

    sums : (n, reflections) geometric structure factors of the orbits.
    """

    place: Index
    multiplicity: Index
    kind: Index
    sums: Complex


def direct_trials(data: Intensities, wanted: tuple[Kind, ...], spec: SolveSpec) -> list[Trial]:
    """The best arrangements of every group that `settings.max_placements` allows to be tried, best first.

    Groups are those of the Laue class with the lattice's centring, in one choice of origin. Of arrangements with
    equal R in one group, which differ by the choice of origin, one is kept. R is that on a grid; a structure is as
    good as its refinement, but what lies above max_r_pct already is left out.
    """
    settings = spec.direct
    hkl, observed = _reflections(data, settings.d_star_max)
    factors = _factors(data, hkl, wanted, spec)
    laue = tuple(tuple(int(x) for x in r.ravel()) for r in data.rotations)
    found: list[Trial] = []
    for group in candidates(laue):
        if group.preference < 1000 and _same_lattice(group.centring, data.centring):
            found += _of_group(group, data.cell, hkl, observed, factors, wanted, spec)
    found.sort(key=lambda trial: (round(trial.r_pct, 6), -trial.group.order, trial.group.preference))
    near = [trial for trial in found if trial.r_pct <= spec.max_r_pct]
    same = {(round(trial.r_pct, 6), trial.group.spacegroup): trial for trial in reversed(near)}
    return list(reversed(same.values()))[: settings.refined]


def _of_group(
    group: Candidate,
    cell: Cell,
    hkl: Index,
    observed: Array,
    factors: Array,
    wanted: tuple[Kind, ...],
    spec: SolveSpec,
) -> list[Trial]:
    """The best arrangements in one group, at most `per_wyckoff` of every choice of special positions."""
    settings, metric = spec.direct, np.array(gemmi.UnitCell(*cell).orth.mat.tolist())
    counts = [[kind.count * units for kind in wanted] for units in formula_units(wanted, cell, spec.atoms)]
    general = POINTS**3 // group.order  # a lower bound on the choices that general positions leave
    if min(comb(general, int(max(n)) // group.order) for n in counts) > settings.max_placements:
        return []
    sites = _sites(group, metric, hkl, spec.atoms.min_distance_A)
    found: list[Trial] = []
    for units, atoms in zip(formula_units(wanted, cell, spec.atoms), counts, strict=True):
        for members, r in _arrangements(sites, atoms, factors, observed, settings):
            chosen = [(i, kind) for kind, part in zip(wanted, members, strict=True) for i in part]
            if _apart(sites.place[[i for i, _ in chosen]] / POINTS, group, metric, spec.atoms.min_distance_A):
                peaks = Peaks(sites.place / POINTS, np.ones(len(sites.place)), sites.multiplicity)
                model = crystal_of(peaks, chosen, group.spacegroup, cell, spec.atoms.u_iso_A2)
                found.append(Trial(group, units, model, 100 * r))
    return found


def _arrangements(
    sites: Sites, atoms: Sequence[float], factors: Array, observed: Array, settings: DirectSpec
) -> Iterator[tuple[Members, float]]:
    """Sites of every kind and R, best first; kind after kind, the best partial arrangements kept."""
    f, members, value = np.zeros((1, len(observed)), np.complex128), [Members()], np.ones(1)
    for n, factor in zip(atoms, factors, strict=True):
        own = _placements(sites.multiplicity, n, settings.max_placements)
        if not own:
            return
        g = _sums(sites, own) * factor
        r = residuals(f[: max(1, settings.max_trials // len(own))], g, observed)
        best = np.argsort(r, axis=None, kind="stable")[: settings.kept]
        first, second = np.divmod(best, len(own))
        members = [(*members[i], own[j]) for i, j in zip(first, second, strict=True)]
        f, value = f[first] + g[second], r.ravel()[best]
    seen: Counter[Members] = Counter()
    for rows, r_value in zip(members, value.tolist(), strict=True):
        taken = [i for part in rows for i in part]
        wyckoff = tuple(tuple(sorted(sites.kind[list(part)].tolist())) for part in rows)
        if len(set(taken)) == len(taken) and seen[wyckoff] < settings.per_wyckoff:
            seen[wyckoff] += 1
            yield rows, r_value


def _sums(sites: Sites, placements: Sequence[tuple[int, ...]]) -> Complex:
    """(n, reflections) geometric structure factors of n sets of sites."""
    out = np.empty((len(placements), sites.sums.shape[1]), np.complex128)
    size = np.array([len(rows) for rows in placements])
    for k in np.unique(size):
        which = np.flatnonzero(size == k)
        rows = np.array([placements[int(i)] for i in which])
        out[which] = sites.sums[rows[:, 0]]
        for column in rows.T[1:]:
            out[which] += sites.sums[column]
    return out


def _placements(multiplicity: Index, atoms: float, most: int) -> list[tuple[int, ...]]:
    """All sets of sites whose multiplicities sum to `atoms`; none where there are more than `most`."""
    n = round(atoms)
    if abs(n - atoms) > 1e-6 or n < 1:
        return []
    rows = {int(m): np.flatnonzero(multiplicity == m).tolist() for m in np.unique(multiplicity)}
    shares = [c for c in _partitions(n, sorted(rows)) if all(c[m] <= len(rows[m]) for m in c)]
    if sum(prod(comb(len(rows[m]), k) for m, k in c.items()) for c in shares) > most:
        return []
    found: list[tuple[int, ...]] = []
    for share in shares:
        for parts in product(*(combinations(rows[m], k) for m, k in share.items())):
            found.append(tuple(i for part in parts for i in part))
    return found


def _partitions(n: int, sizes: Sequence[int]) -> Iterator[Counter[int]]:
    """All ways to write n as a sum of sizes."""
    if n == 0:
        yield Counter()
    elif sizes:
        for k in range(n // sizes[0] + 1):
            for rest in _partitions(n - k * sizes[0], sizes[1:]):
                yield rest + Counter({sizes[0]: k}) if k else rest


def _sites(group: Candidate, metric: Array, hkl: Index, min_distance: float) -> Sites:
    """One point of every orbit whose points are no nearer than `min_distance` to one another."""
    rotations = np.concatenate([group.rotations] * len(group.centring))
    shifts = np.concatenate([group.translations + c for c in group.centring])
    shifts = np.rint(POINTS * shifts).astype(np.int64)
    axis = np.arange(POINTS)
    place = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    weights = np.array([POINTS * POINTS, POINTS, 1])
    own, first = place @ weights, np.ones(len(place), bool)
    for rotation, shift in zip(rotations, shifts, strict=True):
        first &= ((place @ rotation.T + shift) % POINTS) @ weights >= own
    place = place[first]
    images = np.einsum("kij,nj->nki", rotations, place) + shifts
    apart = (images - place[:, None]) / POINTS
    distance = np.linalg.norm((apart - np.rint(apart)) @ metric.T, axis=2)
    fixed = distance < 1e-6
    sound = (fixed | (distance >= min_distance)).all(axis=1)
    place, images, fixed = place[sound], images[sound], fixed[sound]
    _, kind = np.unique(fixed, axis=0, return_inverse=True)
    multiplicity = len(rotations) // fixed.sum(axis=1)
    table = np.exp(-2j * np.pi * np.arange(POINTS) / POINTS)
    sums = np.zeros((len(place), len(hkl)), np.complex128)
    for k in range(len(rotations)):
        sums += table[(images[:, k] @ hkl.T) % POINTS]
    return Sites(place, multiplicity, kind.ravel(), sums / fixed.sum(axis=1)[:, None])


def _apart(xyz: Array, group: Candidate, metric: Array, min_distance: float) -> bool:
    """Whether no atom of one site is nearer than `min_distance` to one of another."""
    rotations = np.concatenate([group.rotations] * len(group.centring))
    shifts = np.concatenate([group.translations + c for c in group.centring])
    for i, j in combinations(range(len(xyz)), 2):
        d = rotations @ xyz[i] + shifts - xyz[j]
        if np.linalg.norm((d - np.rint(d)) @ metric.T, axis=1).min() < min_distance:
            return False
    return True


def _reflections(data: Intensities, d_star_max: float) -> tuple[Index, Array]:
    """Measured reflections (n, 3) up to a resolution and their amplitudes (n,)."""
    hkl = data.reflections[["h", "k", "l"]].to_numpy(np.int64)
    near = np.linalg.norm(hkl @ data.reciprocal_basis.T, axis=1) <= d_star_max
    return hkl[near], np.sqrt(np.maximum(data.reflections["I"].to_numpy(float)[near], 0.0))


def _factors(data: Intensities, hkl: Index, wanted: tuple[Kind, ...], spec: SolveSpec) -> Array:
    """(kinds, n) scattering factors with the displacement that atoms start with."""
    d_star = np.linalg.norm(hkl @ data.reciprocal_basis.T, axis=1)
    damping = np.exp(-2 * np.pi**2 * spec.atoms.u_iso_A2 * d_star**2)
    return np.array([
        damping * sum(part * electron_factor(name, d_star / 2, spec.factors) for name, part in kind.elements)
        for kind in wanted
    ])  # fmt: skip


def _same_lattice(own: Array, other: Array) -> bool:
    """Whether a group's centring vectors (m, 3), 0 among them, are those of the lattice (m - 1, 3), 0 left out."""
    keys = [{tuple(np.rint(POINTS * v).astype(int) % POINTS) for v in vectors} for vectors in (own, other)]
    return keys[0] == keys[1] | {(0, 0, 0)}


def residuals(partial: Complex, added: Complex, observed: Array) -> Array:
    """R = Σ |F_o - k |F_a + F_b|| / Σ F_o of every pair, (m, n), with k of least squares.

    partial : (m, reflections).  added : (n, reflections).  observed : (reflections,).
    """
    out = np.empty((len(partial), len(added)))
    _residuals(partial, added, observed, out)
    return out


@nb.njit(cache=True, nogil=True)
def _residuals(partial: Complex, added: Complex, observed: Array, out: Array) -> None:
    size = np.empty(observed.shape[0])
    total = observed.sum()
    for i in range(partial.shape[0]):
        for j in range(added.shape[0]):
            oc, cc = 0.0, 0.0
            for h in range(observed.shape[0]):
                f = partial[i, h] + added[j, h]
                square = f.real * f.real + f.imag * f.imag
                size[h] = np.sqrt(square)
                oc += observed[h] * size[h]
                cc += square
            k = oc / max(cc, 1e-300)
            left = 0.0
            for h in range(observed.shape[0]):
                left += abs(observed[h] - k * size[h])
            out[i, j] = left / total
