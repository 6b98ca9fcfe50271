"""How far the fitted frame scales are worth having: as far as equivalents agree the better for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.curvefit import intensities
from nanoed.pipeline.reduce.merge import r_int
from nanoed.pipeline.reduce.orientation import Measurements, Oriented, evaluate
from nanoed.pipeline.spec import OrientationSpec

Array = NDArray[np.float64]
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def shrunk_scales(
    oriented: Oriented, data: Measurements, spec: OrientationSpec, min_recorded: float
) -> tuple[Oriented, float]:
    """The result with ln k of all frames times the part of 0 to 1 that makes R_int least, and this part.

    Scales of frames that share few reflections with others are mostly error, and the fit that made them knows no
    better: it has a parameter for every intensity. Equivalents do (C7: scales minimise their differences). 1
    without equivalents.
    """
    found = [(_agreement(_with(oriented, part), data, spec, min_recorded), part) for part in PARTS]
    if not all(np.isfinite(r) for r, _ in found):
        return oriented, 1.0
    part = _least(np.array([r for r, _ in found]))
    return _with(oriented, part), part


def _with(oriented: Oriented, part: float) -> Oriented:
    model = replace(oriented.model, log_scale=part * oriented.model.log_scale)
    return replace(oriented, model=model)


def _agreement(oriented: Oriented, data: Measurements, spec: OrientationSpec, min_recorded: float) -> float:
    """R_int of the intensities that these scales give, in the families of `data`."""
    now = evaluate(oriented.geometry, data, oriented.model, spec)
    table: pd.DataFrame = intensities(oriented.geometry, data, oriented.model, now)
    good = (table["recorded"] >= min_recorded).to_numpy()
    _, group = np.unique(data.family[good], return_inverse=True)
    return r_int(table["I"].to_numpy(float)[good], group.astype(np.int64)) if good.any() else float("nan")


def _least(values: Array) -> float:
    """Place of the minimum of the parabola through the least of five values and its neighbours, within 0 to 1."""
    i = int(np.clip(np.argmin(values), 1, len(PARTS) - 2))
    before, here, after = values[i - 1 : i + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend > 1e-12 else float(np.argmin(values) - i)
    step = PARTS[1] - PARTS[0]
    return float(np.clip(PARTS[i] + step * np.clip(shift, -1, 1), 0.0, 1.0))
