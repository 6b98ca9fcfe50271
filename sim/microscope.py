"""Beam and detector models, and presets of real instruments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nanoed.sim.spec import Instrument

Array = NDArray[np.float64]

PRESETS: dict[str, dict[str, Any]] = {
    # voltage, detector, beam and flux: Cordero Oyonarte et al. 2025 (CNRS, brookite); 512 x 512 pixels of 55
    # um, resolution at the edge 1.6 1/Å: choice for the published limit of 1.4; convergence: below 1 mrad
    # (PHYSICS H1); point spread and dead time: PHYSICS H4; counters of a Medipix3 in its deep mode; axis
    # azimuth: choice.
    "jeol-f200": {
        "voltage_kv": 200.0,
        "detector_px": (512, 512),
        "pixel_size_um": 55.0,
        "a_per_px": 0.00622,
        "beam_diameter_nm": 100.0,
        "flux_e_A2_s": 24.0,
        "beam_profile": "top-hat",
        "convergence_mrad": 0.25,
        "psf_sigma_px": 1.0,
        "gain": 1.0,
        "dead_time_us": 1.9,
        "counter_bits": 24,
        "axis_azimuth_deg": 38.4,
    },
}


def beam_area_A2(instrument: Instrument) -> float:
    """Illuminated area of the film, Å²; the flux is the mean over the stated diameter."""
    return float(np.pi * (5 * instrument.beam_diameter_nm) ** 2)


def saturation_counts(instrument: Instrument) -> int:
    """Largest count a pixel can show."""
    return 2**instrument.counter_bits - 1


def recorded_electrons(electrons: Array, instrument: Instrument, exposure_s: float) -> Array:
    """Electrons that a pixel registers on average when `electrons` of this exposure reach it; any shape.

    Paralysable counter, m = n exp(-n tau) with n the arrival rate (PHYSICS H4).
    """
    rate = electrons / exposure_s
    return electrons * np.exp(-rate * instrument.dead_time_us * 1e-6)


def read_out(recorded: Array, instrument: Instrument, rng: np.random.Generator | None) -> NDArray[np.generic]:
    """One frame as the detector delivers it: `gain` counts per electron, clipped at the counter's depth.

    recorded : (ny, nx) expected electrons.  With `rng` integer counts of Poisson-distributed electrons,
    without it the expectation itself, float32.
    """
    full = saturation_counts(instrument)
    if rng is None:
        return np.minimum(instrument.gain * recorded, full).astype(np.float32)
    counts = np.rint(instrument.gain * rng.poisson(recorded))
    return np.minimum(counts, full).astype(np.uint16 if instrument.counter_bits <= 16 else np.uint32)
