"""Weights of merged intensities in the kinematical refinement: of their errors, or all alike."""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.io.hkl import write_hkl
from nanoed.pipeline.refine.cif import refined_document
from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.refine.spec import RefineSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.scattering import structure_factors, unique_reflections
from nanoed.studies import cli
from nanoed.studies.analysis import refine
from nanoed.studies.compare import compare

UNIT = RefineSpec(weights="unit")


def brookite() -> Crystal:
    return shipped("brookite")


def scattered(relative: float, seed: int = 1) -> pd.DataFrame:
    """Intensities of brookite with errors in proportion to them, and their s.u."""
    hkl = unique_reflections(brookite(), 1.4)
    true = np.abs(structure_factors(brookite(), hkl)) ** 2
    noise = np.random.default_rng(seed).standard_normal(len(true))
    sigma = relative * true + 1e-4 * true.max()
    return pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=true + sigma * noise, sigma=sigma)


def test_unit_weights_know_no_sigma() -> None:
    """The same model as with equal sigmas and no instability, whatever the sigmas are, and not that of the errors."""
    data = scattered(0.1)
    unit = refine_kinematical(data, brookite(), UNIT)
    equal = refine_kinematical(data.assign(sigma=1e-3 * data["I"].max()), brookite(), RefineSpec(instability=0.0))
    np.testing.assert_allclose(unit.crystal.xyz, equal.crystal.xyz, atol=2e-6)
    np.testing.assert_allclose(unit.parameters["su"], equal.parameters["su"], rtol=2e-3)
    of_errors = refine_kinematical(data, brookite(), RefineSpec())
    assert np.abs(unit.crystal.xyz - of_errors.crystal.xyz).max() > 1e-4


def test_weights_of_the_errors_are_the_better_where_errors_go_with_the_intensity() -> None:
    """Gauss and Markov: 20 % errors in proportion to I move atoms several times further with unit weights."""
    distances = {"errors": [], "unit": []}
    for seed in range(6):
        for name, found in distances.items():
            refined = refine_kinematical(scattered(0.2, seed), brookite(), RefineSpec(weights=name))
            found.append(compare(refined.crystal, brookite()).d_av_A)
    assert np.mean(distances["unit"]) > 4 * np.mean(distances["errors"])


def test_the_cif_says_unit_weights_and_has_their_residuals() -> None:
    data = scattered(0.1)
    found = refine_kinematical(data, brookite(), UNIT)
    block, table, s = refined_document(found).sole_block(), found.reflections, found.statistics
    chi2 = float(((table["I_obs"] - table["I_calc"]) ** 2).sum())
    assert s["wr_refined_pct"] == pytest.approx(100 * np.sqrt(chi2 / (table["I_obs"] ** 2).sum()), rel=1e-9)
    assert s["wr_all_pct"] != pytest.approx(s["wr_refined_pct"], rel=0.1)
    assert gemmi.cif.as_string(block.find_value("_refine_ls_weighting_scheme")) == "unit"
    details = gemmi.cif.as_string(block.find_value("_refine_ls_weighting_details"))
    assert details == "w=1/<s^2^(I)>, the same for all reflections"
    assert float(block.find_value("_refine_ls_wR_factor_ref")) == pytest.approx(s["wr_refined_pct"] / 100, abs=1e-4)
    of_errors = refined_document(refine_kinematical(data, brookite(), RefineSpec())).sole_block()
    assert gemmi.cif.as_string(of_errors.find_value("_refine_ls_weighting_scheme")) == "sigma"


def test_restraints_stand_in_the_residual_of_the_same_weights() -> None:
    """S with restraints is that of the weights of the least squares, as S without is."""
    bond = {"bonds": [{"atoms": ["Ti1", "O1"], "length_A": 2.05, "su_A": 0.01}]}
    s = refine_kinematical(scattered(0.1), brookite(), RefineSpec(weights="unit", restraints=bond)).statistics
    free, n = s["n_all"] - s["n_par"], s["n_restraints"]
    beside = s["gof_refined_restrained"] ** 2 * (free + n) - s["gof_refined"] ** 2 * free
    assert beside == pytest.approx(s["gof_restrained"] ** 2 * (free + n) - s["gof"] ** 2 * free, rel=1e-6)
    assert beside > 0


def test_frames_have_no_such_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["refine", str(tmp_path), "--model", "brookite", "--out", str(tmp_path / "o"), "--set", "weights=unit"]
    assert cli.status(args) == 2
    assert "weights of averaged intensities" in capsys.readouterr().err


def test_the_method_is_the_kinematical_one_with_unit_weights(tmp_path: Path) -> None:
    file = tmp_path / "some.hkl"
    write_hkl(file, scattered(0.1))
    by_method = refine("kinematical-unit", file, brookite(), RefineSpec())
    by_spec = refine("kinematical", file, brookite(), UNIT)
    assert by_method.method == "kinematical-unit"
    np.testing.assert_array_equal(by_method.crystal.xyz, by_spec.crystal.xyz)
