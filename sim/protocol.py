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
    tilt_min to tilt_max with sweeps of one step.  At least one frame.
    """
    span, step = protocol.tilt_max_deg - protocol.tilt_min_deg, protocol.tilt_step_deg
    if protocol.kind == "precession":
        count = int(np.floor(span / step + 1e-9)) + 1
        return protocol.tilt_min_deg + step * np.arange(count, dtype=np.float64)
    count = max(1, int(np.floor(span / step + 1e-9)))
    return protocol.tilt_min_deg + step * (np.arange(count, dtype=np.float64) + 0.5)


def sweep_deg(protocol: Protocol) -> float:
    """Stage rotation during one frame, degrees."""
    return protocol.tilt_step_deg if protocol.kind == "continuous_rotation" else 0.0
