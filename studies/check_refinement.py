"""The study check-refinement: the refinement against measured data that other programs refined.

Reference data lie outside the project; every row of the result says what was found, what it is held against and
whether that is met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.cif_pets import read_cif_pets
from nanoed.pipeline.io.hkl import read_hkl
from nanoed.pipeline.io.shelx_model import read_shelx_model
from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.statistics import r_factor, wr_f
from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.scattering import allowed, structure_factors, to_unique
from nanoed.studies.check_derivatives import derivatives, noise_free
from nanoed.studies.check_dyngo import alanine_dyngo, mordenite_dyngo
from nanoed.studies.check_mordenite import mordenite_refined
from nanoed.studies.check_synthetic import mgti2o5, occupancies, replicates
from nanoed.studies.findings import Finding, asked_parts
from nanoed.studies.foreign import jana_pairs, jana_zones
from nanoed.studies.measured import measured_settings
from nanoed.studies.sphere_refinement import sphere_refined

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


def findings(
    reference: Path, out: Path, parts: Sequence[str] | None, workers: int, progress: Progress | None
) -> list[Finding]:
    """The figures of the asked parts (None: all of PARTS) on the data in `reference`. Raises InputError."""
    asked = asked_parts(parts, PARTS)
    if not set(asked) <= set(SYNTHETIC) and not reference.is_dir():
        raise InputError("no such folder", field="--reference", value=reference, allowed="reference data")
    return [finding for part in asked for finding in PARTS[part](reference, workers, progress)]


def _alanine(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    path = reference / "alanine" / "alanine_dynamical_IAM_jana2020.cif"
    pairs = jana_pairs(path)
    yield from _printed(pairs, "alanine", {"r_obs": 0.0800, "r_all": 0.1049, "wr_all": 0.0908})
    model = read_cif(path)
    zones = jana_zones(path, model.cell, wavelength_A(200.0))
    inside = 0
    columns = zones.zones[["id", "semi_angle", "alpha", "beta", "omega"]].to_numpy(float)
    for zone, *degrees in columns:
        semi_angle, *angles = np.radians(degrees)
        hkl = pairs.loc[pairs["zone"] == int(zone), ["h", "k", "l"]].to_numpy()
        g = hkl @ (frame_matrix(*angles) @ zones.ub).T
        lever = np.hypot(g[:, 1], g[:, 2])
        rs = np.abs(excitation_errors(g, zones.wavelength)) / (lever * semi_angle)
        inside += int((rs < 0.66).sum())
    share = 100 * inside / len(pairs)
    yield Finding("alanine", "pairs with RS_g < 0.66, %", share, ">=", 99.9, "Jana2020's csgmaxr")


def _mordenite(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    pairs = jana_pairs(reference / "mordenite" / "jana2006_mordenite.cif")
    yield from _printed(pairs, "mordenite", {"r_obs": 0.0956, "r_all": 0.1640, "wr_all": 0.1100})


def _printed(pairs: pd.DataFrame, data: str, printed: dict[str, float]) -> Iterator[Finding]:
    """R and wR of Jana's pairs by our formulae, rounded as printed."""
    i_o, sigma, i_c = (pairs[name].to_numpy(float) for name in ("I_obs", "sigma", "I_calc"))
    seen = pairs["seen"].to_numpy()
    found = {
        "r_obs": r_factor(i_o[seen], i_c[seen]),
        "r_all": r_factor(i_o, i_c),
        "wr_all": wr_f(i_o, sigma, i_c, 0.01),
    }
    yield Finding(data, "pairs", float(len(pairs)))
    for name, value in found.items():
        yield Finding(data, f"{name} of its pairs", round(value, 4), "==", printed[name], "printed by Jana")


def _tyrosine(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """R1 = sum ||F_o| - |F_c|| / sum |F_o| over I > 2 sigma (SHELX's), the deposited model with one scale."""
    model = read_shelx_model(reference / "tyrosine" / "tyrosine.ins")
    data = read_hkl(reference / "tyrosine" / "tyrosine.hkl")
    hkl = data[["h", "k", "l"]].to_numpy()
    length = np.linalg.norm(hkl @ model.reciprocal_basis.T, axis=1)
    unique = pd.DataFrame(to_unique(model, hkl), columns=["h", "k", "l"])
    w = 1 / data["sigma"] ** 2
    sums = unique.assign(w=w, wi=w * data["I"])[(length < 1 / 0.7) & allowed(model, hkl)]
    merged = sums.groupby(["h", "k", "l"], as_index=False).sum()
    i_o, sigma = (merged["wi"] / merged["w"]).to_numpy(), 1 / np.sqrt(merged["w"].to_numpy())
    f_c = np.abs(structure_factors(model, merged[["h", "k", "l"]].to_numpy()))
    f_o = np.sqrt(np.maximum(i_o, 0))
    seen = i_o > 2 * sigma
    scales = (f_o[seen] @ f_c[seen]) / (f_c[seen] @ f_c[seen]) * np.linspace(0.8, 1.2, 81)
    r1 = min(np.abs(f_o[seen] - k * f_c[seen]).sum() / f_o[seen].sum() for k in scales)
    yield Finding("tyrosine", "unique reflections", float(len(merged)))
    yield Finding(
        "tyrosine", "R1 of the deposited model, %", 100 * float(r1), "<=", 12.5, "issue of the data"
    )


def _quartz(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    folder = reference / "quartz"
    data, model = read_cif_pets(folder / "quartz.cif_pets"), read_cif(folder / "quartz_enantiomer_1.cif")
    began, busy = perf_counter(), process_time()
    right = refine_dynamical(data, model, measured_settings("quartz"), workers, progress)
    seconds, busy = perf_counter() - began, process_time() - busy
    r_obs, wr2 = zone_statistics(right)
    source = "diffBloch 0.2 at these settings"
    yield Finding("quartz", "mean R_obs of zones, %", 100 * float(r_obs.mean()), "<=", 5.17, source)
    yield Finding("quartz", "mean wR2 of zones, %", 100 * float(wr2.mean()), "<=", 3.98, source)
    yield Finding("quartz", "reflections", float(right.statistics["n_all"]))
    yield Finding("quartz", "observed reflections", float(right.statistics["n_obs"]))
    yield Finding("quartz", "R_obs of held-out frames, %", right.statistics["r_heldout_pct"])
    yield Finding("quartz", "seconds", seconds, "<=", 30.0, "two free cores; diffBloch 0.2: 27.9 min")
    yield Finding("quartz", "seconds of processor time", busy)


def _quartz_absorption(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """Absorption, a tenth of the potential (A1), beside the same refinement without."""
    folder, name = reference / "quartz", "quartz absorption"
    data, model = read_cif_pets(folder / "quartz.cif_pets"), read_cif(folder / "quartz_enantiomer_1.cif")
    spec = measured_settings("quartz").model_copy(update={"absorption": 0.1})
    r_obs, wr2 = zone_statistics(refine_dynamical(data, model, spec, workers, progress))
    source = "diffBloch 0.2 with absorption"
    yield Finding(name, "mean R_obs of zones, %", 100 * float(r_obs.mean()), "<=", 4.77, source)
    yield Finding(name, "mean wR2 of zones, %", 100 * float(wr2.mean()))


def _quartz_hand(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """Both hands refined alike, U isotropic and with looser convergence, and their R compared zone by zone."""
    folder, name = reference / "quartz", "quartz hand"
    data, model = read_cif_pets(folder / "quartz.cif_pets"), read_cif(folder / "quartz_enantiomer_1.cif")
    spec = measured_settings("quartz").model_copy(update={"adp_model": "isotropic", "reselections": 1})
    hands = {"right": model, "inverted": inverted(model)}
    r = {
        hand: zone_statistics(refine_dynamical(data, crystal, spec, workers, progress))[0]
        for hand, crystal in hands.items()
    }
    for hand, values in r.items():
        yield Finding(name, f"mean R_obs of zones, {hand} structure, %", 100 * float(values.mean()))
    both = pd.concat([r["right"], r["inverted"]], axis=1).dropna().to_numpy()
    worse = both[:, 1] - both[:, 0]
    z = float(worse.mean() / (worse.std(ddof=1) / np.sqrt(len(worse))))
    yield Finding(name, "z of the paired difference over zones", z, ">=", 3.0, "the model's hand")


def inverted(crystal: Crystal) -> Crystal:
    """The mirror image, P 32 2 1 becoming P 31 2 1."""
    other = {"P 32 2 1": "P 31 2 1", "P 31 2 1": "P 32 2 1"}[crystal.spacegroup]
    return replace(crystal, spacegroup=other, xyz=-crystal.xyz)


def zone_statistics(refinement: Refinement) -> tuple[pd.Series, pd.Series]:
    """R_obs and wR2 of every frame by the definitions of diffBloch, each with the best of 100 scales; fractions.

    wR2 = sqrt(sum w² (k I_c - I_o)² / sum w² I_o²), w = 1 / sqrt(sigma_F² + (0.01 F_o)²), sigma_F = sigma / 2F_o, or
    5 sqrt(sigma) where I_o < 0.01 sigma.
    """
    scale = refinement.frames.set_index("frame")["scale"]
    r_obs, wr2 = {}, {}
    for frame, table in refinement.reflections.groupby("frame"):
        k = float(scale[frame])
        i_o, sigma = k * table["I_obs"].to_numpy(), k * table["sigma"].to_numpy()
        r_obs[frame], wr2[frame] = _of_zone(i_o, sigma, table["I_calc"].to_numpy())
    return pd.Series(r_obs), pd.Series(wr2)


def _of_zone(i_o: Array, sigma: Array, i_c: Array) -> tuple[float, float]:
    f_o, seen = np.sqrt(np.maximum(i_o, 0)), i_o > 3 * sigma
    scales = np.linspace(0.02, 2, 100) * i_o.sum() / i_c.sum()
    sigma_f = np.where(i_o < 0.01 * sigma, 5 * np.sqrt(sigma), sigma / (2 * np.maximum(f_o, 1e-30)))
    w2 = 1 / (sigma_f**2 + (0.01 * f_o) ** 2)
    r = [np.abs(f_o[seen] - np.sqrt(k * i_c[seen])).sum() for k in scales]
    wr = [np.sqrt((w2 * (k * i_c - i_o) ** 2).sum()) for k in scales]
    return float(min(r) / f_o[seen].sum()), float(min(wr) / np.sqrt((w2 * i_o**2).sum()))


SYNTHETIC = {
    "derivatives": derivatives,
    "noise-free": noise_free,
    "replicates": replicates,
    "occupancies": occupancies,
    "mgti2o5": mgti2o5,
    "ito-sphere": sphere_refined,
}
"""Parts that need no reference data."""
PARTS = {
    "alanine": _alanine,
    "mordenite": _mordenite,
    "mordenite-dynamical": mordenite_refined,
    "mordenite-dyngo": mordenite_dyngo,
    "alanine-dyngo": alanine_dyngo,
    "tyrosine": _tyrosine,
    "quartz": _quartz,
    "quartz-absorption": _quartz_absorption,
    "quartz-hand": _quartz_hand,
    **SYNTHETIC,
}
