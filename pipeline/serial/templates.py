"""Templates of a lattice: what its zone axes look like, over the asymmetric part of the sphere of directions."""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.serial.lattice import KnownLattice
from nanoed.pipeline.serial.spec import TemplateSpec

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """Expected spots of n zone axes.

    frames : (n, 3, 3) rotations of the crystal that put the zone axis along +z.  first : (n + 1,) where the
    spots of each template start; radius, azimuth, weight of the spots (1/Å, rad; weights of unit norm),
    in order of radius.
    """

    frames: Array
    first: Index
    radius: Array
    azimuth: Array
    weight: Array

    def __len__(self) -> int:
        return len(self.frames)


def zone_axes(turns: Array, step: float) -> Array:
    """(n, 3) directions about `step` rad apart, one of every orbit under the rotations `turns`.

    Points of a Fibonacci lattice of 4π / (0.866 step²) members in the Dirichlet domain of a general direction.
    """
    n = int(np.ceil(4 * np.pi / (0.866 * step * step)))
    z = 1 - (2 * np.arange(n) + 1) / n
    azimuth = np.pi * (1 + np.sqrt(5)) * np.arange(n)
    points = np.column_stack([*(np.sqrt(1 - z * z) * np.array([np.cos(azimuth), np.sin(azimuth)])), z])
    centre = np.array([0.2113, 0.3921, 0.8953])
    centre /= np.linalg.norm(centre)
    own = points @ centre
    others = np.einsum("qij,nj,i->nq", turns, points, centre)
    return points[own >= others.max(axis=1) - 0.5 * step]


def make_templates(lattice: KnownLattice, wavelength: float, spec: TemplateSpec) -> Templates:
    """Templates every `step_deg`, of nodes up to d_star_max within s_max, weight exp(-S² / 2 s_sigma²)."""
    g = lattice.hkl @ lattice.basis.T
    length = np.linalg.norm(g, axis=1)
    g, length = g[length <= spec.d_star_max], length[length <= spec.d_star_max]
    frames = _upright(zone_axes(lattice.turns, np.radians(spec.step_deg)))
    s = frames[:, 2] @ g.T - 0.5 * wavelength * length**2
    zone, node = np.nonzero(np.abs(s) < spec.s_max)
    xy = np.einsum("nij,nj->ni", frames[zone, :2], g[node])
    weight = np.exp(-0.5 * (s[zone, node] / spec.s_sigma) ** 2)
    weight /= np.sqrt(np.bincount(zone, weight**2, len(frames)))[zone]
    radius = np.hypot(*xy.T)
    order = np.lexsort((radius, zone))
    first = np.searchsorted(zone, np.arange(len(frames) + 1))
    return Templates(frames, first, radius[order], np.arctan2(xy[:, 1], xy[:, 0])[order], weight[order])


def _upright(axes: Array) -> Array:
    """Rotations (n, 3, 3) that take unit vectors `axes` (n, 3) to +z."""
    x = np.cross(np.eye(3)[np.abs(axes).argmin(axis=1)], axes)
    x /= np.linalg.norm(x, axis=1)[:, None]
    return np.stack([x, np.cross(axes, x), axes], axis=1)


@nb.njit(cache=True, nogil=True)
def correlate(
    radius: Array,
    azimuth: Array,
    weight: Array,
    first: Index,
    t_radius: Array,
    t_azimuth: Array,
    t_weight: Array,
    reach: float,
    n_bins: int,
    score: Array,
    turn: Array,
) -> None:
    """Best in-plane turns of every template against the peaks of a frame: score, turn (n, 2), rad.

    radius, azimuth, weight : (p,) peaks in order of radius.  Score(ω) = Σ w_p w_t (1 - d²/reach²)² over pairs nearer
    than `reach`, d² = Δr² + (r Δφ)² with Δφ = φ_p - φ_t - ω, on n_bins of ω; the two are the highest that are not
    neighbours of one another.
    """
    step = 2.0 * np.pi / n_bins
    votes, padded = np.empty(n_bins), np.empty(4 * n_bins)  # differences of azimuths, two turns added
    for z in range(first.shape[0] - 1):
        padded[:] = 0.0
        low = 0
        for t in range(first[z], first[z + 1]):
            while low < radius.shape[0] and radius[low] < t_radius[t] - reach:
                low += 1
            p = low
            while p < radius.shape[0] and radius[p] <= t_radius[t] + reach:
                across = 1.0 - ((radius[p] - t_radius[t]) / reach) ** 2
                place = (azimuth[p] - t_azimuth[t]) / step + 2 * n_bins
                narrow = radius[p] * step / reach
                span = min(int(np.sqrt(max(across, 0.0)) / narrow) + 1, n_bins // 2 - 1)
                middle = int(place + 0.5)
                amount = weight[p] * t_weight[t]
                for k in range(middle - span, middle + span + 1):
                    left = max(across - ((k - place) * narrow) ** 2, 0.0)
                    padded[k] += amount * left * left
                p += 1
        for k in range(n_bins):
            votes[k] = padded[k] + padded[k + n_bins] + padded[k + 2 * n_bins] + padded[k + 3 * n_bins]
        best = int(np.argmax(votes))
        score[z, 0], turn[z, 0] = votes[best], best * step
        for k in range(best - 4, best + 5):
            votes[k % n_bins] = 0.0
        best = int(np.argmax(votes))
        score[z, 1], turn[z, 1] = votes[best], best * step


@nb.njit(cache=True, nogil=True)
def distinct(trials: Array, turns: Array, angle: float, most: int) -> Index:
    """Rows of `trials` (n, 3, 3), in order, that are further than `angle` rad from all rows before that are kept.

    Modulo the rotations `turns` (k, 3, 3) of the crystal; at most `most` of them.
    """
    kept = np.empty(most, np.int64)
    limit = 1.0 + 2.0 * np.cos(angle)
    n = 0
    for t in range(trials.shape[0]):
        new = True
        for k in range(n):
            between = trials[kept[k]].T @ trials[t]
            for q in range(turns.shape[0]):
                if (between * turns[q]).sum() > limit:
                    new = False
                    break
            if not new:
                break
        if new:
            kept[n] = t
            n += 1
            if n == most:
                break
    return kept[:n].copy()
