"""Intensities of all reflections and tilts and scales of all frames, each from the other."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.series import over_frames
from nanoed.pipeline.serial.local import turned
from nanoed.pipeline.serial.partiality import partialities, search_tilt
from nanoed.pipeline.serial.spec import PartialitySpec

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Oriented:
    """Frames with an orientation. frame : (n,) number in the data set.  orientation : (n, 3, 3) crystal to lab.

    shift : (n, 2) of the centre, 1/Å.  log_scale : (n,).  diameter : (n,) Å.  cost : (n,) 1 - cos² of the angle
    between observed and calculated amplitudes.
    """

    frame: Index
    orientation: Array
    shift: Array
    log_scale: Array
    diameter: Array
    cost: Array

    def __len__(self) -> int:
        return len(self.frame)

    def select(self, rows: Index | NDArray[np.bool_]) -> Oriented:
        """The frames of a mask or index array."""
        return Oriented(self.frame[rows], self.orientation[rows], self.shift[rows], self.log_scale[rows],
                        self.diameter[rows], self.cost[rows])  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """What the frames show at the nodes near their Ewald spheres, frame after frame.

    first : (frames + 1,) where the spots of each start.  node : (n,) row of the lattice's list.
    s, g : (n,), xy : (n, 2) excitation error, |g| and detector plane, 1/Å, at the orientation of `observe`.
    intensity, sigma : (n,).
    """

    first: Index
    node: Index
    s: Array
    g: Array
    xy: Array
    intensity: Array
    sigma: Array

    @property
    def owner(self) -> Index:
        """(n,) row of the frame of each spot."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    def at(self, oriented: Oriented, nodes: Array, wavelength: float) -> Spots:
        """The same spots at other orientations."""
        g_lab = np.einsum("nij,nj->ni", oriented.orientation[self.owner], nodes[self.node])
        s = g_lab[:, 2] - 0.5 * wavelength * self.g**2
        return replace(self, s=s, xy=np.ascontiguousarray(g_lab[:, :2]))


@dataclass(frozen=True, slots=True, eq=False)
class Full:
    """Full intensities: value (keys,), seen (keys,) sum of squared partialities behind each."""

    value: Array
    seen: Array


def recorded(spots: Spots, oriented: Oriented, spec: PartialitySpec) -> Array:
    """(n,) partiality of every spot."""
    p = np.empty(len(spots.s))
    diameter = oriented.diameter[spots.owner]
    partialities(spots.s, spots.g, diameter, float(np.radians(spec.mosaicity_deg)), p)
    return p


def full_intensities(spots: Spots, oriented: Oriented, key: Index, n_keys: int, spec: PartialitySpec) -> Full:
    """I = Σ w k p I_f / Σ w k² p², the intensities of reflections that share a key (row of `lattice.hkl` -> key).

    w = 1 / (sigma² + (model_error k p I)²), in two rounds from w = 1; the profile fit of C6 with the partiality for
    the profile.
    """
    p = recorded(spots, oriented, spec)
    own = key[spots.node]
    q = p * np.exp(oriented.log_scale)[spots.owner]
    weight = np.ones(len(q))
    for _ in range(3):
        top = np.bincount(own, weight * q * spots.intensity, n_keys)
        bottom = np.bincount(own, weight * q * q, n_keys)
        value = np.maximum(top, 0) / np.maximum(bottom, 1e-300)
        floor = 0.02 * value.mean()
        spread = (spec.model_error * np.maximum(q * value[own], q * floor)) ** 2
        weight = 1 / np.maximum(spots.sigma**2 + spread, 1e-300)
    return Full(value, np.bincount(own, p * p, n_keys).astype(np.float64))


def refine_tilts(
    spots: Spots,
    oriented: Oriented,
    full: Full,
    key: Index,
    width: float,
    spec: PartialitySpec,
    workers: int = 1,
) -> Oriented:
    """Tilts and scales of all frames that fit the full intensities best; width : rad, half-width of the search."""
    own = key[spots.node]
    known = full.seen[own] >= spec.min_seen
    n = len(oriented)
    tilt, cost, ratio = np.zeros((n, 2)), np.ones(n), np.zeros(n)
    root, root_full = np.sqrt(np.maximum(spots.intensity, 0)), np.sqrt(full.value[own])
    edges = np.linspace(0, n, 4 * workers + 1).astype(int)

    def part(k: int) -> None:
        rows = slice(edges[k], edges[k + 1])
        _tilts(spots.first[edges[k] : edges[k + 1] + 1], spots.s, spots.xy, spots.g, root, root_full, known,
               oriented.diameter[rows], float(np.radians(spec.mosaicity_deg)), width, spec.steps, tilt[rows],
               cost[rows], ratio[rows])  # fmt: skip

    deque(over_frames(part, range(4 * workers), workers, "", None), maxlen=0)
    vectors = np.column_stack([tilt, np.zeros(n)])
    moved = np.array([turned(v, o) for v, o in zip(vectors, oriented.orientation, strict=True)])
    scale = np.where(ratio > 0, 2 * np.log(np.maximum(ratio, 1e-300)), oriented.log_scale)
    return replace(oriented, orientation=moved.reshape(-1, 3, 3), log_scale=scale, cost=cost)


def levelled(oriented: Oriented) -> Oriented:
    """Scales about a mean of 1."""
    return replace(oriented, log_scale=oriented.log_scale - oriented.log_scale.mean())


def total_cost(spots: Spots, oriented: Oriented, full: Full, key: Index, spec: PartialitySpec) -> Array:
    """(n,) cost of every frame as it stands."""
    return refine_tilts(spots, oriented, full, key, 0.0, spec).cost


def fit_diameters(
    spots: Spots, oriented: Oriented, key: Index, n_keys: int, run: Index, spec: PartialitySpec
) -> Oriented:
    """One diameter for all, then one for each run (n,) about it, where the costs are least.

    The first by golden section on ln D within a factor of 3 of the present one; those of the runs on a grid, with a
    prior of `diameter_spread`: minimised is Σ n/2 ln cost + (Δ ln D / spread)² / 2, n the spots of a frame.
    """
    count = np.diff(spots.first)

    def loss(factor: float) -> Array:
        trial = replace(oriented, diameter=oriented.diameter * factor)
        full = full_intensities(spots, trial, key, n_keys, spec)
        cost = total_cost(spots, trial, full, key, spec)
        return 0.5 * count * np.log(np.maximum(cost, 1e-12))

    logs = np.linspace(-np.log(3), np.log(3), 12)
    for _ in range(3):
        values = [float(loss(float(np.exp(x))).sum()) for x in logs]
        best = int(np.argmin(values))
        low, high = logs[max(best - 1, 0)], logs[min(best + 1, len(logs) - 1)]
        logs = np.linspace(low, high, 6)
    oriented = replace(oriented, diameter=oriented.diameter * float(np.exp(logs[2:4].mean())))
    grid = spec.diameter_spread * np.linspace(-2, 2, 17)
    by_run = np.array([np.bincount(run, loss(float(np.exp(x))), int(run.max()) + 1) for x in grid])
    by_run += 0.5 * (grid[:, None] / spec.diameter_spread) ** 2
    return replace(oriented, diameter=oriented.diameter * np.exp(grid[by_run.argmin(axis=0)])[run])


@nb.njit(cache=True, nogil=True)
def _tilts(
    first: Index,
    s: Array,
    xy: Array,
    g: Array,
    root: Array,
    root_full: Array,
    known: NDArray[np.bool_],
    diameter: Array,
    mosaicity: float,
    width: float,
    steps: int,
    tilt: Array,
    cost: Array,
    ratio: Array,
) -> None:
    """`search_tilt` of every frame in two rounds."""
    for f in range(first.shape[0] - 1):
        a, b = first[f], first[f + 1]
        tilt[f, 0], tilt[f, 1], cost[f], ratio[f] = search_tilt(
            s[a:b],
            xy[a:b],
            g[a:b],
            root[a:b],
            root_full[a:b],
            known[a:b],
            diameter[f],
            mosaicity,
            width,
            steps,
            2,
        )


@nb.njit(cache=True, nogil=True)
def peaks_at_nodes(
    orientation: Array,
    shift: Array,
    nodes: Array,
    peaks: Array,
    intensity: Array,
    wavelength: float,
    s_max: float,
    reach: float,
    box: Array,
) -> tuple[Index, Array, Array, Array]:
    """Nodes within s_max of the Ewald sphere whose spot lies in box (x_min, x_max, y_min, y_max, 1/Å).

    Returns node, s, xy and the intensity of the nearest peak within `reach`, 0 where there is none. A peak belongs
    to the node with the smallest excitation error among those it is near.
    """
    m = nodes.shape[0]
    node, s, xy = np.empty(m, np.int64), np.empty(m), np.empty((m, 2))
    n = 0
    for t in range(m):
        a, b, c = nodes[t, 0], nodes[t, 1], nodes[t, 2]
        z = orientation[2, 0] * a + orientation[2, 1] * b + orientation[2, 2] * c
        error = z - 0.5 * wavelength * (a * a + b * b + c * c)
        if abs(error) >= s_max:
            continue
        x = orientation[0, 0] * a + orientation[0, 1] * b + orientation[0, 2] * c + shift[0]
        y = orientation[1, 0] * a + orientation[1, 1] * b + orientation[1, 2] * c + shift[1]
        if x > box[0] and x < box[1] and y > box[2] and y < box[3]:
            node[n], s[n], xy[n, 0], xy[n, 1] = t, error, x - shift[0], y - shift[1]
            n += 1
    seen = np.zeros(n)
    for p in range(peaks.shape[0]):
        best, chosen = 1e30, -1
        for t in range(n):
            d2 = (peaks[p, 0] - shift[0] - xy[t, 0]) ** 2 + (peaks[p, 1] - shift[1] - xy[t, 1]) ** 2
            if d2 < reach * reach and abs(s[t]) < best:
                best, chosen = abs(s[t]), t
        if chosen >= 0:
            seen[chosen] = max(seen[chosen], intensity[p])
    return node[:n].copy(), s[:n].copy(), xy[:n].copy(), seen
