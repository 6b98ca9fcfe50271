"""Agreement of observed and calculated intensities, by the formulae of the field."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.scattering import to_unique

Array = NDArray[np.float64]
OBSERVED_SIGMA = 3.0
WEAK = 0.01
"""Below this times sigma, an intensity is taken to be that where an s.u. of F is needed (Klar et al. 2023)."""


def weights(intensity: Array, sigma: Array, instability: float, emphasis: float = 0.0) -> Array:
    """w = max(I, sigma / 100)^e / (sigma² + (2 u I)²) of observed intensities (n,).

    e = 1: a quarter of 1 / (sigma_F² + (u F)²), sigma_F as in `wr_f`.
    """
    numerator = np.maximum(intensity, WEAK * sigma) ** emphasis
    return np.asarray(numerator / (sigma**2 + (2 * instability * intensity) ** 2), np.float64)


def unit_weights(sigma: Array) -> Array:
    """1 / <sigma²> (n,) for all, so that residuals as large as the sigmas sum to n; restraints weigh little beside."""
    return np.full(len(sigma), 1 / float(np.mean(np.asarray(sigma) ** 2)))


def as_refined(chi2: float, norm: float, n_free: int, restraints: tuple[float, int]) -> dict[str, float]:
    """wR (%) and GoF with the weights of the least squares, where these are not those of the errors.

    chi2, norm : sums of w (I_o - I_c)² and w I_o².  n_free : reflections less all that is refined.  restraints : as in
    `agreement`.
    """
    found = {
        "wr_refined_pct": 100 * float(np.sqrt(chi2 / norm)),
        "gof_refined": float(np.sqrt(chi2 / max(n_free, 1))),
    }
    cost, n_restraints = restraints
    if n_restraints:
        found["gof_refined_restrained"] = float(np.sqrt((chi2 + cost) / max(n_free + n_restraints, 1)))
    return found


def r_factor(observed: Array, calculated: Array) -> float:
    """sum |F_o - F_c| / sum F_o of intensities (n,), with F = sqrt(max(I, 0)); fraction."""
    f_o, f_c = np.sqrt(np.maximum(observed, 0)), np.sqrt(np.maximum(calculated, 0))
    total = f_o.sum()
    return float(np.abs(f_o - f_c).sum() / total) if total > 0 else float("nan")


def wr_f(observed: Array, sigma: Array, calculated: Array, instability: float) -> float:
    """wR on F, w = 1 / (sigma_F² + (u F)²), sigma_F = sigma / 2F with the floor of weak reflections; fraction.

    sigma_F = 5 sqrt(sigma) where I < 0.01 sigma, which continues sigma / 2F (Klar et al. 2023, Nat. Chem. 15, 848, SI);
    with it Jana's printed wR is met to its last digit.
    """
    f_o, f_c = np.sqrt(np.maximum(observed, 0)), np.sqrt(np.maximum(calculated, 0))
    sigma_f = sigma / (2 * np.maximum(f_o, np.sqrt(WEAK * sigma)))
    w = 1 / (sigma_f**2 + (instability * f_o) ** 2)
    return float(np.sqrt((w * (f_o - f_c) ** 2).sum() / (w * f_o**2).sum()))


def agreement(
    reflections: pd.DataFrame,
    n_parameters: int,
    instability: float,
    n_tilts: int = 0,
    restraints: tuple[float, int] = (0.0, 0),
) -> dict[str, float]:
    """R_obs, R_all, wR_all (on F²), wR on F, GoF and counts, named as in the results table.

    reflections : I_obs, sigma, I_calc on one scale. n_tilts : refined too, but not counted as parameters in the
    tables of the field; GoF counts them. Observed: I > 3 sigma.  restraints : their sum of squares and number; with
    any, gof_restrained counts them as observations, sqrt((chi² + sum) / (n + r - p)), while gof is of the data alone.
    """
    i_o, sigma, i_c = (reflections[name].to_numpy(float) for name in ("I_obs", "sigma", "I_calc"))
    seen = i_o > OBSERVED_SIGMA * sigma
    w = weights(i_o, sigma, instability)
    chi2 = w * (i_o - i_c) ** 2
    cost, n_restraints = restraints
    free = max(len(i_o) + n_restraints - n_parameters - n_tilts, 1)
    restrained = (
        {"n_restraints": n_restraints, "gof_restrained": float(np.sqrt((chi2.sum() + cost) / free))}
        if n_restraints
        else {}
    )
    return restrained | {
        "n_all": len(i_o),
        "n_obs": int(seen.sum()),
        "n_par": n_parameters,
        "r_obs_pct": 100 * r_factor(i_o[seen], i_c[seen]),
        "r_all_pct": 100 * r_factor(i_o, i_c),
        "wr_all_pct": 100 * float(np.sqrt(chi2.sum() / (w * i_o**2).sum())),
        "wr_f_pct": 100 * wr_f(i_o, sigma, i_c, instability),
        "gof": float(np.sqrt(chi2.sum() / max(len(i_o) - n_parameters - n_tilts, 1))),
        "gof_obs": float(np.sqrt(chi2[seen].sum() / max(int(seen.sum()) - n_parameters - n_tilts, 1))),
    }


def r_obs_pct(reflections: pd.DataFrame) -> float:
    """R of observed reflections, percent."""
    i_o, sigma, i_c = (reflections[name].to_numpy(float) for name in ("I_obs", "sigma", "I_calc"))
    seen = i_o > OBSERVED_SIGMA * sigma
    return 100 * r_factor(i_o[seen], i_c[seen])


def merged_r_obs_pct(reflections: pd.DataFrame, crystal: Crystal) -> float:
    """MR(obs): R of observed reflections after merging Laue equivalents of scaled observed and calculated
    intensities with weights 1 / sigma²; percent.
    """
    unique = to_unique(crystal, reflections[["h", "k", "l"]].to_numpy())
    w = 1 / reflections["sigma"] ** 2
    table = pd.DataFrame({"w": w, "o": w * reflections["I_obs"], "c": w * reflections["I_calc"]})
    sums = table.groupby([unique[:, 0], unique[:, 1], unique[:, 2]]).sum()
    observed, calculated = sums["o"] / sums["w"], sums["c"] / sums["w"]
    seen = observed > OBSERVED_SIGMA / np.sqrt(sums["w"])
    return 100 * r_factor(observed[seen].to_numpy(), calculated[seen].to_numpy())
