"""Shapes of strong spots against the profile: flattened tops, and electrons outside the core."""

from __future__ import annotations

import numba as nb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.profile import Profile, share_at

Array = NDArray[np.float64]

FAINT = 0.05  # background over the top of a spot in the weights of `spot_shapes`, alike for all


@nb.njit(cache=True, nogil=True)
def spot_shapes(
    net: Array,
    background: Array,
    valid: NDArray[np.bool_],
    x: Array,
    y: Array,
    zone: NDArray[np.int64],
    intensity: Array,
    shares: Array,
    step: float,
    core: float,
    aperture: float,
    gain: float,
    found: Array,
) -> None:
    """found (n, 5): `a` of net + I P = b P - a P² and its variance; Σ P² / Σ P; r, the counts outside the core over
    their part by the profile of those in the aperture, and its variance.

    net : (ny, nx) frame minus background minus all spots.  background (n,) counts per pixel.  intensity (n,) counts.
    core, aperture : radii in pixels.  Least squares within the aperture with the weights 1 / (P / P_top + FAINT),
    Poisson's but for a constant, the same for every intensity: what is wrong with the profile itself gives a in
    proportion to I, lost counts t (I P)² give t I². Neither depends on what `intensity` is, to which they add.
    """
    ny, nx = net.shape
    for s in range(x.shape[0]):
        m1, m2, w2, w3, within = 0.0, 0.0, 0.0, 0.0, 0.0
        slope, top, bottom, variance = 0.0, 0.0, 0.0, 0.0
        inner, outer, inner2, outer2, part = 0.0, 0.0, 0.0, 0.0, 0.0
        highest = shares[zone[s], 0]
        for turn in range(2):
            for row in range(max(0, int(y[s] - aperture)), min(ny, int(y[s] + aperture) + 2)):
                for column in range(max(0, int(x[s] - aperture)), min(nx, int(x[s] + aperture) + 2)):
                    r = np.sqrt((column + 0.5 - x[s]) ** 2 + (row + 0.5 - y[s]) ** 2)
                    if r > aperture or not valid[row, column]:
                        continue
                    p = share_at(shares, zone[s], r, step)
                    counts = gain * max(background[s] + intensity[s] * p, 0.0)
                    w = 1.0 / (p / highest + FAINT)
                    if turn == 1:
                        q = w * (p * p - slope * p)
                        top -= q * net[row, column]
                        bottom += q * (p * p - slope * p)
                        variance += q * q * counts
                        continue
                    m1, m2, w2, w3 = m1 + p, m2 + p * p, w2 + w * p * p, w3 + w * p * p * p
                    if r <= core:
                        inner, inner2, within = inner + net[row, column], inner2 + counts, within + p
                    else:
                        outer, outer2 = outer + net[row, column], outer2 + counts
            if w2 <= 0.0:
                break
            slope, part = w3 / w2, 1.0 - within / m1
        found[s, 0] = top / bottom if bottom > 0.0 else 0.0
        found[s, 1] = variance / bottom**2 if bottom > 0.0 else np.inf
        found[s, 2] = m2 / m1 if m1 > 0.0 else 0.0
        found[s, 3] = (1.0 - part) * outer - part * inner
        found[s, 4] = (1.0 - part) ** 2 * outer2 + part**2 * inner2


def aperture_error(spots: pd.DataFrame, profile: Profile, aperture: float, least: float) -> float:
    """Relative error of intensities by what spots' shapes do to the part of their electrons outside the aperture.

    spots : columns frame, I, sigma, ring, sigma_ring of spots.integrate.  aperture : radius in pixels.  least : I /
    sigma of the spots that have a say. The scatter of their electrons outside the core, more than counting makes and
    but for what the spots of a frame share, as a change of the profile's width would make it: a width that grows by δ
    takes 2π R² P(R) δ out of a radius R. 0 where there are fewer than ten spots more than frames.
    """
    use = (spots["I"] > least * spots["sigma"]).to_numpy(bool)
    frame, intensity = spots["frame"].to_numpy(np.int64)[use], spots["I"].to_numpy(float)[use]
    if len(frame) < 10 + len(np.unique(frame)):
        return 0.0
    ring = spots["ring"].to_numpy(float)[use] / intensity
    counting = (spots["sigma_ring"].to_numpy(float)[use] / intensity) ** 2
    scatter = excess_scatter(ring, counting, frame)
    shares = profile.shares.mean(axis=0)
    r = np.arange(len(shares)) * profile.step
    core, edge = (float(np.interp(at, r, r**2 * shares)) for at in (profile.core, aperture))
    within, whole = (
        float(np.trapezoid(np.where(r <= at, r * shares, 0.0), r)) for at in (profile.core, aperture)
    )
    change = core - edge * within / whole
    return scatter * edge / change if change > 0 else 0.0


def excess_scatter(values: Array, variance: Array, group: NDArray[np.int64]) -> float:
    """s (robust, >= 0) of values (n,) whose variances are `variance` (n,) + s² about the weighted means of groups."""
    _, own = np.unique(group, return_inverse=True)
    n, groups = len(values), int(own.max()) + 1

    def spread(s2: float) -> float:
        weight = 1.0 / (variance + s2)
        mean = np.bincount(own, weight * values) / np.bincount(own, weight)
        size = np.abs(values - mean[own]) * np.sqrt(weight)
        return float(1.4826 * np.median(size) * np.sqrt(n / (n - groups)))

    low, high = 0.0, float(np.var(values)) + 1e-12
    if spread(low) <= 1.0:
        return 0.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if spread(middle) > 1.0 else (low, middle)
    return float(np.sqrt(high))
