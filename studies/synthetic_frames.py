"""Frames made by the Bloch engine of the physics for studies of the refinement: intensities without pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.frames import Engine, Frame
from nanoed.pipeline.spec import ThicknessSpec
from nanoed.sim.physics.bloch import potential_table
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.scattering import reflections_within

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """A stepwise precession series and the crystal's body.

    alpha_deg : stage angles.  tilt_rms_deg : true orientations are off the listed ones by this about x and y.
    size_A : diameter of `body`.  electrons : through the crystal in a frame.  background : electrons under a spot.
    d_star_max : of the listed reflections, 1/Å.  g_max, s_max, s_taper : beams, 1/Å.
    """

    alpha_deg: tuple[float, ...]
    body: ThicknessSpec
    size_A: float
    electrons: float
    background: float
    tilt_rms_deg: float = 0.05
    semi_angle_deg: float = 1.2
    voltage_kv: float = 200.0
    d_star_max: float = 1.4
    g_max: float = 1.6
    s_max: float = 0.02
    s_taper: float = 0.1
    factors: str = "peng"
    beta_deg: float = 4.0
    omega_deg: float = 40.0


def expected_frames(crystal: Crystal, series: Series, rng: np.random.Generator) -> PetsData:
    """Frames with expected electrons as intensities, and the s.u. of counting: sigma² = I + background."""
    ub, wavelength = crystal.reciprocal_basis, wavelength_A(series.voltage_kv)
    engine = Engine(ub, series.body, "precession", series.g_max, series.s_max, None, series.s_taper)
    potential = potential_table(crystal, series.voltage_kv, engine.g_max, series.factors)
    hkl = reflections_within(crystal, series.d_star_max)
    semi = float(np.radians(series.semi_angle_deg))
    rows, parts = [], []
    for zone, alpha in enumerate(series.alpha_deg, 1):
        angles = (alpha, series.beta_deg, series.omega_deg)
        orientation = frame_matrix(*np.radians(angles))
        g = hkl @ (orientation @ ub).T
        some = hkl[np.abs(excitation_errors(g, wavelength)) < semi * np.linalg.norm(g, axis=1)]
        none = np.zeros(len(some))
        tilt = np.radians(series.tilt_rms_deg) * rng.standard_normal(2)
        frame = Frame(zone, orientation, semi, 0.0, some, none, none, none)
        found, _ = engine.intensities(frame, tilt, series.size_A, (tilt, series.size_A), potential, False)
        counts = series.electrons * found
        table = pd.DataFrame(some, columns=["h", "k", "l"])
        parts.append(table.assign(I=counts, sigma=np.sqrt(counts + series.background), zone=zone))
        rows.append([zone, 0.0, 0.0, 1.0, series.semi_angle_deg, *angles, 1.0])
    names = ["id", "u", "v", "w", "semi_angle", "alpha", "beta", "omega", "scale"]
    zones = pd.DataFrame(rows, columns=names)
    return PetsData(crystal.cell, wavelength, ub, zones, pd.concat(parts, ignore_index=True))


def noisy(data: PetsData, rng: np.random.Generator) -> PetsData:
    """The frames with normal errors of their s.u."""
    table = data.reflections
    errors = table["sigma"].to_numpy() * rng.standard_normal(len(table))
    return replace(data, reflections=table.assign(I=table["I"] + errors))
