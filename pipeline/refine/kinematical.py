"""Kinematical refinement on merged intensities: I = scale · |F|²."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.refine.normal import determined
from nanoed.pipeline.refine.parameters import OFF_LATTICE, TWIN, Parameters, parameters_of
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.statistics import agreement, as_refined, unit_weights, weights
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.physics.scattering import allowed, structure_factor_derivatives

Array = NDArray[np.float64]
LARGEST_DAMPING = 1e8
UNDETERMINED = "the reflections do not determine all parameters; try fewer parameters, or a higher d_star_max"
FREE_DAMPING = 1e-2
"""Steps damped by more than this are too short to tell whether the least squares has settled."""


def refine_kinematical(hkl: pd.DataFrame, model: Crystal, spec: RefineSpec) -> Refinement:
    """Refine coordinates, displacements, occupancies and one scale on F² (Levenberg-Marquardt, full covariance).

    hkl : h, k, l, I, sigma, one row per unique reflection. Systematic absences and reflections beyond
    spec.d_star_max are left out. Raises InputError for data that cannot be used, ConvergenceError also where they
    do not determine the parameters.
    """
    data = selected(hkl, model, spec)
    parameters = parameters_of(model, spec, by_frames=False)
    _check_number(len(data), parameters)
    observed, sigma = data["I"].to_numpy(float), data["sigma"].to_numpy(float)
    w = weights(observed, sigma, spec.instability) if spec.weights == "errors" else unit_weights(sigma)
    indices = data[["h", "k", "l"]].to_numpy()
    values, scale, covariance, history = _minimise(parameters, indices, observed, w, spec)
    crystal = parameters.apply(values)
    calculated, _ = _intensities(parameters, values, indices, spec)
    table = data[["h", "k", "l"]].assign(I_obs=observed / scale, sigma=sigma / scale, I_calc=calculated)
    n_parameters = len(values) + 1
    beside = parameters.restrained(values)[0]
    restraints = (float(beside @ beside), len(beside))
    statistics = agreement(table, n_parameters, spec.instability, restraints=restraints)
    statistics["max_shift_su"] = float(history["max_shift_su"].iloc[-1])
    statistics["g_max"] = spec.d_star_max
    if spec.weights != "errors":
        chi2, norm = float(w @ (observed - scale * calculated) ** 2), float(w @ observed**2)
        statistics |= as_refined(chi2, norm, len(data) - n_parameters, restraints)
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
        covariance=covariance[:-1, :-1],
        parametrised=parameters,
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


def _check_number(n_reflections: int, parameters: Parameters) -> None:
    """Raise InputError where reflections and restraints are no more than parameters and scale."""
    found = n_reflections + len(parameters.restrained(parameters.start)[0])
    if found <= len(parameters.names) + 1:
        allowed = f"more than {len(parameters.names) + 1} parameters"
        raise InputError("too few reflections inside the limits", value=found, allowed=allowed)


def _intensities(
    parameters: Parameters, values: Array, hkl: NDArray[np.int64], spec: RefineSpec
) -> tuple[Array, Array]:
    """|F|² (n,) and its derivatives (n, p); of a twin, the sum over its domains by their volumes."""
    crystal = parameters.apply(values)

    def squares(indices: NDArray[np.int64]) -> tuple[Array, Array]:
        f, slope = structure_factor_derivatives(crystal, indices, spec.factors, parameters.jacobian)
        return np.abs(f) ** 2, 2 * (f.conj()[:, None] * slope).real

    found, slope = squares(hkl)
    if spec.twin is None:
        return found, slope
    image, place = hkl @ np.array(spec.twin.law).T, parameters.place(TWIN)
    second, second_slope = squares(np.rint(image).astype(np.int64))
    elsewhere = np.abs(image - np.rint(image)).max(axis=1) > OFF_LATTICE
    second[elsewhere], second_slope[elsewhere] = 0.0, 0.0
    share = spec.twin.fraction if place is None else float(values[place])
    slope = (1 - share) * slope + share * second_slope
    if place is not None:
        slope[:, place] = second - found
    return (1 - share) * found + share * second, slope


def _minimise(
    parameters: Parameters, hkl: NDArray[np.int64], observed: Array, w: Array, spec: RefineSpec
) -> tuple[Array, float, Array, pd.DataFrame]:
    """Parameters, scale, covariance (p + 1, scale last) and history of the least squares."""
    values, damping, history = parameters.start.copy(), 1e-3, []
    current = _state(parameters, values, hkl, observed, w, spec)
    for cycle in range(spec.max_cycles):
        cost, _, residual, jacobian = current
        beside, by_parameters = parameters.restrained(values)
        by_parameters = np.column_stack([by_parameters, np.zeros(len(beside))])
        normal = jacobian.T @ (w[:, None] * jacobian) + by_parameters.T @ by_parameters
        covariance = np.asarray(np.linalg.pinv(normal, hermitian=True), np.float64)
        gof2 = cost / max(len(observed) + len(beside) - len(values) - 1, 1)
        right = jacobian.T @ (w * residual) + by_parameters.T @ beside
        while True:
            try:
                step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), right)
            except np.linalg.LinAlgError:
                raise ConvergenceError(UNDETERMINED) from None
            move = parameters.limited(step[:-1])
            trial = _state(parameters, values + move, hkl, observed, w, spec)
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
            if not determined(normal):
                raise ConvergenceError(UNDETERMINED)
            return values, current[1], covariance * gof2, pd.DataFrame(history)
    raise ConvergenceError(
        f"kinematical refinement did not converge in {spec.max_cycles} cycles (largest shift/su {shift:.2g}); "
        "try a better start model or fewer parameters"
    )


def _state(
    parameters: Parameters, values: Array, hkl: NDArray[np.int64], observed: Array, w: Array, spec: RefineSpec
) -> tuple[float, float, Array, Array]:
    """Weighted sum of squares with that of the restraints, best scale, residuals, and Jacobian with the scale last."""
    calculated, slope = _intensities(parameters, values, hkl, spec)
    scale = float((w * observed) @ calculated / max(float((w * calculated) @ calculated), 1e-300))
    residual = observed - scale * calculated
    beside = parameters.restrained(values)[0]
    cost = float(w @ residual**2) + float(beside @ beside)
    return cost, scale, residual, np.column_stack([scale * slope, calculated])
