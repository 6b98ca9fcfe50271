"""What a refinement returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.refine.parameters import Parameters
from nanoed.sim.physics.crystal import Crystal

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Refinement:
    """A converged refinement.

    su : "xyz" (n, 3) fractional, "occupancy" (n,), "u_iso" (n,), "u_ij" (n, 6) Å²; 0 where fixed.
    statistics : named as in the results table.
    parameters : name, value, su.  reflections : h, k, l, I_obs, sigma, I_calc (on the scale of I_calc), frame.
    frames : frame, scale, tilt_x_deg, tilt_y_deg, thickness_A (mean along the beam) with s.u.; empty if not
    frame-based.  history : cycle, wr_all_pct, largest shift / s.u.
    scan : thickness_A, wr_all_pct before anything was refined; empty without a scan.
    covariance : (p, p) of the structure's parameters, as `parametrised` has them.  wavelength : Å; None: not known.
    """

    method: str
    crystal: Crystal
    su: dict[str, Array]
    statistics: dict[str, float]
    parameters: pd.DataFrame
    reflections: pd.DataFrame
    frames: pd.DataFrame
    history: pd.DataFrame
    settings: dict[str, Any]
    message: str
    scan: pd.DataFrame = field(default_factory=pd.DataFrame)
    covariance: Array = field(default_factory=lambda: np.zeros((0, 0)))
    parametrised: Parameters | None = None
    wavelength: float | None = None
