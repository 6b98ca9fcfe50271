"""Protocols: which nominal goniometer angles a data set visits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nanoed.sim.spec import Protocol

Array = NDArray[np.float64]


def nominal_alpha_deg(protocol: Protocol) -> Array:
    """Stage angle at the middle of every frame as the goniometer reports it, (n,) degrees.

    Precession stands still at tilt_min, tilt_min + step, ... up to tilt_max; continuous rotation fills
    tilt_min to tilt_max with sweeps of one step.  At least one frame. Serial: the stage stays at zero.
    """
    if protocol.kind == "serial":
        return np.zeros(protocol.n_frames)
    span, step = protocol.tilt_max_deg - protocol.tilt_min_deg, protocol.tilt_step_deg
    if protocol.kind == "precession":
        count = int(np.floor(span / step + 1e-9)) + 1
        return protocol.tilt_min_deg + step * np.arange(count, dtype=np.float64)
    count = max(1, int(np.floor(span / step + 1e-9)))
    return protocol.tilt_min_deg + step * np.arange(count, dtype=np.float64) + 0.5 * sweep_deg(protocol)


def sweep_deg(protocol: Protocol) -> float:
    """Stage rotation during the exposure of one frame, degrees: the step less what the readout gap misses."""
    if protocol.kind != "continuous_rotation":
        return 0.0
    return protocol.tilt_step_deg * protocol.exposure_s / (protocol.exposure_s + protocol.readout_gap_s)


def fluence_before(protocol: Protocol, flux: float) -> Array:
    """Electrons per Å² that a particle in the beam has seen by the middle of every frame, (n,).

    flux : e/Å²/s.  The beam stays on during readout; in serial data the particles change, and none is damaged.
    """
    if protocol.kind == "serial":
        return np.zeros(protocol.n_frames)
    each = protocol.exposure_s + protocol.readout_gap_s
    n = len(nominal_alpha_deg(protocol))
    return flux * (each * np.arange(n, dtype=np.float64) + 0.5 * protocol.exposure_s)
