"""Beam and detector models, and presets of real instruments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nanoed.sim.spec import Instrument

Array = NDArray[np.float64]

# All: voltage, detector, beam and flux from Cordero Oyonarte et al. 2025; quads of four chips of 256 x 256 pixels of
# 55 um; resolution at the detector's edge 1.6 1/Å: choice for the published limit of 1.4; convergence: below 1 mrad
# (PHYSICS H1), smaller for the wider beams: choice; point spread, dead time: PHYSICS H4; axis azimuth: choice.
_COMMON: dict[str, Any] = {
    "detector_px": (512, 512),
    "pixel_size_um": 55.0,
    "a_per_px": 0.00622,
    "beam_profile": "top-hat",
    "gain": 1.0,
    "dead_time_us": 1.9,
}
PRESETS: dict[str, dict[str, Any]] = {
    # CRISMAT, brookite; counters of a Medipix3 in its deep mode, whose charge summing counts an electron once
    "jeol-f200": _COMMON
    | {
        "voltage_kv": 200.0,
        "beam_diameter_nm": 100.0,
        "flux_e_A2_s": 24.0,
        "convergence_mrad": 0.25,
        "psf_sigma_px": 1.0,
        "cluster_px": 1.0,
        "counter_max": 2**24 - 1,
        "axis_azimuth_deg": 38.4,
    },
    # Antwerp; a Timepix3 lists events, which are counted in software and, by choice, clustered there
    "fei-f20": _COMMON
    | {
        "voltage_kv": 200.0,
        "beam_diameter_nm": 300.0,
        "flux_e_A2_s": 0.66,
        "convergence_mrad": 0.1,
        "psf_sigma_px": 1.0,
        "cluster_px": 1.0,
        "counter_max": 2**24 - 1,
        "axis_azimuth_deg": -24.7,
    },
    # Pisa, LaB6; point spread between those at 100 and 200 kV, clusters of 2-4 pixels and a depth of 11800 in a
    # Timepix1 (PHYSICS H4)
    "zeiss-libra120": _COMMON
    | {
        "voltage_kv": 120.0,
        "beam_diameter_nm": 600.0,
        "flux_e_A2_s": 0.1,
        "convergence_mrad": 0.1,
        "psf_sigma_px": 0.7,
        "cluster_px": 2.0,
        "counter_max": 11800,
        "axis_azimuth_deg": 74.3,
    },
}


def beam_area_A2(instrument: Instrument) -> float:
    """Illuminated area of the film, Å²; the flux is the mean over the stated diameter."""
    return float(np.pi * (5 * instrument.beam_diameter_nm) ** 2)


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
    full = instrument.counter_max
    if rng is None:
        return np.minimum(instrument.gain * recorded, full).astype(np.float32)
    counts = np.rint(instrument.gain * rng.poisson(recorded))
    return np.minimum(counts, full).astype(np.uint16 if full < 2**16 else np.uint32)
