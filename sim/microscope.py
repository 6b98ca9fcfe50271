"""Beam model, and presets of real instruments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.particle import Body, chord_map
from nanoed.sim.physics.electron import wavelength_A

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


def convergence_disc(instrument: Instrument) -> float:
    """Radius of the convergence disc, 1/Å."""
    return 1e-3 * instrument.convergence_mrad / wavelength_A(instrument.voltage_kv)


def beam_electrons(instrument: Instrument, exposure_s: float) -> float:
    """Electrons of the whole beam in one exposure; half of a Gaussian's pass within its full width at half maximum."""
    within = instrument.flux_e_A2_s * exposure_s * np.pi * (5 * instrument.beam_diameter_nm) ** 2
    return float(within * (2.0 if instrument.beam_profile == "gaussian" else 1.0))


def flux_share(body: Body, to_lab: Array, instrument: Instrument, places: Array) -> Array:
    """Mean over the particle's projected area of the flux over its stated value (that in `beam_diameter_nm`), (m,).

    to_lab : (3, 3).  places : (m, 2) x, y of the particle from the beam's centre, Å.
    Top-hat: the lit part of the area. Gaussian of full width d: 2 ln2 2^(-4 r²/d²).
    """
    radius, reach = 5 * instrument.beam_diameter_nm, 0.5 * body.extent
    flat = instrument.beam_profile == "top-hat"
    if flat and reach + float(np.hypot(*places.T).max()) <= radius:
        return np.ones(len(places))
    n = 401 if flat else 101
    x, y = np.meshgrid(*2 * (np.linspace(-reach, reach, n),))
    covered = chord_map(body, to_lab, x, y) > 0
    x, y = x[covered], y[covered]
    shares = np.empty(len(places))
    for k, (x_k, y_k) in enumerate(places):
        r2 = ((x + x_k) ** 2 + (y + y_k) ** 2) / radius**2
        shares[k] = np.mean(r2 <= 1) if flat else 2 * np.log(2) * np.mean(2.0**-r2)
    return shares
