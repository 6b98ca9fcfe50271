"""Kinematical refinement on merged intensities: I = scale · |F|²."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.refine.parameters import Parameters, free_parameters
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.statistics import agreement, weights
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.physics.scattering import allowed, structure_factor_derivatives

Array = NDArray[np.float64]
LARGEST_DAMPING = 1e8
FREE_DAMPING = 1e-2
"""Steps damped by more than this are too short to tell whether the least squares has settled."""


def refine_kinematical(hkl: pd.DataFrame, model: Crystal, spec: RefineSpec) -> Refinement:
    """Refine coordinates, displacements, occupancies and one scale on F² (Levenberg-Marquardt, full covariance).

    hkl : h, k, l, I, sigma, one row per unique reflection. Systematic absences and reflections beyond
    spec.d_star_max are left out. Raises InputError for data that cannot be used, ConvergenceError.
    """
    data = selected(hkl, model, spec)
    parameters = free_parameters(model, spec.adp_model, spec.occupancies)
    observed, sigma = data["I"].to_numpy(float), data["sigma"].to_numpy(float)
    w = weights(observed, sigma, spec.instability)
    indices = data[["h", "k", "l"]].to_numpy()
    values, scale, covariance, history = _minimise(parameters, indices, observed, w, spec)
    crystal = parameters.apply(values)
    calculated, _ = _intensities(parameters, values, indices, spec.factors)
    table = data[["h", "k", "l"]].assign(I_obs=observed / scale, sigma=sigma / scale, I_calc=calculated)
    n_parameters = len(values) + 1
    statistics = agreement(table, n_parameters, spec.instability)
    statistics["max_shift_su"] = float(history["max_shift_su"].iloc[-1])
    statistics["g_max"] = spec.d_star_max
    su = np.sqrt(np.diag(covariance))
    return Refinement(
        method="kinematical",
        crystal=crystal,
        su=parameters.uncertainties(covariance[:-1, :-1]),
        statistics=statistics,
        parameters=pd.DataFrame({"name": [*parameters.names, "scale"], "value": [*values, scale], "su": su}),
        reflections=table,
        frames=pd.DataFrame(),
        history=history,
        settings=spec.model_dump(mode="json"),
        message=f"converged in {len(history)} cycles",
    )


def selected(hkl: pd.DataFrame, model: Crystal, spec: RefineSpec) -> pd.DataFrame:
    """Reflections inside the resolution limit that the space group allows. Raises InputError."""
    values = hkl[["I", "sigma"]].to_numpy(float)
    if not np.isfinite(values).all() or (values[:, 1] <= 0).any():
        raise InputError("intensities must be finite and their s.u. positive", field="I, sigma")
    indices = hkl[["h", "k", "l"]].to_numpy()
    length = np.linalg.norm(indices @ model.reciprocal_basis.T, axis=1)
    kept = hkl[(length <= spec.d_star_max) & (length > 0) & allowed(model, indices)]
    if len(kept) < 2:
        raise InputError("no reflections inside the limit", field="d_star_max", value=spec.d_star_max)
    return kept.reset_index(drop=True)


def _intensities(
    parameters: Parameters, values: Array, hkl: NDArray[np.int64], factors: str
) -> tuple[Array, Array]:
    """|F|² (n,) and its derivatives (n, p)."""
    f, slope = structure_factor_derivatives(parameters.apply(values), hkl, factors, parameters.jacobian)
    return np.abs(f) ** 2, 2 * (f.conj()[:, None] * slope).real


def _minimise(
    parameters: Parameters, hkl: NDArray[np.int64], observed: Array, w: Array, spec: RefineSpec
) -> tuple[Array, float, Array, pd.DataFrame]:
    """Parameters, scale, covariance (p + 1, scale last) and history of the least squares."""
    values, damping, history = parameters.start.copy(), 1e-3, []
    current = _state(parameters, values, hkl, observed, w, spec.factors)
    for cycle in range(spec.max_cycles):
        cost, _, residual, jacobian = current
        normal = jacobian.T @ (w[:, None] * jacobian)
        covariance = np.asarray(np.linalg.pinv(normal, hermitian=True), np.float64)
        gof2 = cost / max(len(observed) - len(values) - 1, 1)
        right = jacobian.T @ (w * residual)
        while True:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), right)
            move = parameters.limited(step[:-1])
            trial = _state(parameters, values + move, hkl, observed, w, spec.factors)
            if trial[0] <= cost * (1 + 1e-12):
                break
            damping *= 10
            if damping > LARGEST_DAMPING:
                raise ConvergenceError(
                    "kinematical refinement found no step that lowers wR; try a better start model"
                )
        shift = float(np.max(np.abs(step) / np.sqrt(np.diag(covariance) * max(gof2, 1))))
        wr = 100 * np.sqrt(trial[0] / (w @ observed**2))
        history.append({"cycle": cycle, "wr_all_pct": wr, "max_shift_su": shift})
        free = damping <= FREE_DAMPING
        values, current, damping = values + move, trial, max(damping / 10, 1e-9)
        if free and shift < spec.settled:
            return values, current[1], covariance * gof2, pd.DataFrame(history)
    raise ConvergenceError(
        f"kinematical refinement did not converge in {spec.max_cycles} cycles (largest shift/su {shift:.2g}); "
        "try a better start model or fewer parameters"
    )


def _state(
    parameters: Parameters, values: Array, hkl: NDArray[np.int64], observed: Array, w: Array, factors: str
) -> tuple[float, float, Array, Array]:
    """Weighted sum of squares, best scale, residuals, and Jacobian with the scale last."""
    calculated, slope = _intensities(parameters, values, hkl, factors)
    scale = float((w * observed) @ calculated / max(float((w * calculated) @ calculated), 1e-300))
    residual = observed - scale * calculated
    return float(w @ residual**2), scale, residual, np.column_stack([scale * slope, calculated])
