"""Hybrid pixel detectors: lost pulses, charge sharing, gaps between chips, dead and hot pixels, counting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.streams import stream

if TYPE_CHECKING:
    from nanoed.sim.spec import Instrument

Array = NDArray[np.float64]
HOT_PER_S = 10.0  # electrons per second that a hot pixel counts of its own; choice


def recorded_electrons(electrons: Array, instrument: Instrument, exposure_s: float) -> Array:
    """Electrons that a pixel registers on average when `electrons` of this exposure reach it; any shape.

    Paralysable counter, m = n exp(-n tau) with n the arrival rate (PHYSICS H4).
    """
    rate = electrons / exposure_s
    return electrons * np.exp(-rate * instrument.dead_time_us * 1e-6)


def with_faults(recorded: Array, size: dict[str, float], seed: int, exposure_s: float) -> Array:
    """Expected electrons (ny, nx) with the detector's dead and hot pixels, the same ones in every frame."""
    out = recorded
    for name, key in (("dead_pixel_ppm", "dead"), ("hot_pixel_ppm", "hot")):
        if size[name] > 0:
            faulty = stream(seed, key).random(recorded.shape) < 1e-6 * size[name]
            out = np.where(faulty, 0.0 if key == "dead" else out + HOT_PER_S * exposure_s, out)
    return out


def read_out(
    recorded: Array, instrument: Instrument, rng: np.random.Generator | None, gap_px: float = 0.0
) -> NDArray[np.generic]:
    """One frame as the detector delivers it: `gain` counts per hit pixel, clipped at the counter's depth.

    recorded : (ny, nx) expected electrons.  With `rng` integer counts of Poisson-distributed electrons,
    without it the expectation itself, float32.  gap_px : see `chip_borders`.
    """
    full = instrument.counter_max
    spill = 0.25 * (instrument.cluster_px - 1)
    hits = recorded if rng is None else rng.poisson(recorded).astype(np.float64)
    if spill > 0:
        hits = shared_charge(hits, spill, rng)
    counts = instrument.gain * chip_borders(hits, round(gap_px))
    if rng is None:
        return np.minimum(counts, full).astype(np.float32)
    return np.minimum(np.rint(counts), full).astype(np.uint16 if full < 2**16 else np.uint32)


def shared_charge(hits: Array, spill: float, rng: np.random.Generator | None) -> Array:
    """Counts when an electron is also counted by each of four neighbours with probability `spill`; (ny, nx).

    Law: counts per electron have mean 1 + 4 spill, so that variance over mean is <n²>/<n> (PHYSICS H4, C3).
    """
    out = hits.copy()
    for axis in (0, 1):
        for step in (1, -1):
            extra = spill * hits if rng is None else rng.binomial(hits.astype(np.int64), spill).astype(float)
            extra = np.roll(extra, step, axis)
            np.moveaxis(extra, axis, 0)[0 if step == 1 else -1] = 0
            out += extra
    return out


def chip_borders(counts: Array, width: int) -> Array:
    """Counts (ny, nx) of a quad whose pixels beside the inner chip borders are `width` pixels wide.

    Their counts are shown as `width` equal pixels, so that their noise is `width` times too small and
    correlated. 0 or 1: ordinary pixels.
    """
    if width < 2:
        return counts
    out = counts.copy()
    for axis in (0, 1):
        lines = np.moveaxis(out, axis, 0)
        middle = len(lines) // 2
        for start in (middle - width, middle):
            lines[start : start + width] = lines[start : start + width].mean(axis=0)
    return out
