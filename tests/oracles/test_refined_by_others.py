"""Agreement, selection and structure factors on data that other programs refined; lists that must not agree."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nanoed.pipeline.io.shelx_model import read_shelx_model
from nanoed.pipeline.refine.statistics import r_factor, wr_f
from nanoed.sim.physics.errors import InputError
from nanoed.studies.check_refinement import findings as check_refinement
from nanoed.studies.check_refinement import inverted
from nanoed.studies.findings import Finding, write_findings
from nanoed.studies.foreign import jana_pairs


@pytest.mark.parametrize("part", ["alanine", "mordenite", "tyrosine"])
def test_figures_of_others(shared: Path, part: str) -> None:
    """R and wR as Jana printed them, RS_g as its job file demands, R1 of tyrosine."""
    findings = check_refinement(shared, shared, [part], 1, None)
    assert len(findings) >= 2
    missed = [f for f in findings if f.met is False]
    assert not missed


def test_a_shuffled_list_disagrees(shared: Path) -> None:
    pairs = jana_pairs(shared / "alanine" / "alanine_dynamical_IAM_jana2020.cif")
    i_o, sigma, i_c = (pairs[name].to_numpy(float) for name in ("I_obs", "sigma", "I_calc"))
    mixed = np.random.default_rng(0).permutation(i_c)
    assert r_factor(i_o, mixed) > 5 * r_factor(i_o, i_c)
    assert wr_f(i_o, sigma, mixed, 0.01) > 5 * wr_f(i_o, sigma, i_c, 0.01)


def test_the_weights_of_intensities_are_not_those_of_amplitudes(shared: Path) -> None:
    """On F² the same data give about twice the wR that Jana prints on F."""
    pairs = jana_pairs(shared / "mordenite" / "jana2006_mordenite.cif")
    i_o, sigma, i_c = (pairs[name].to_numpy(float) for name in ("I_obs", "sigma", "I_calc"))
    w = 1 / (sigma**2 + (0.02 * i_o) ** 2)
    assert np.sqrt((w * (i_o - i_c) ** 2).sum() / (w * i_o**2).sum()) > 0.18


def test_model_of_shelx(shared: Path) -> None:
    model = read_shelx_model(shared / "tyrosine" / "tyrosine.ins")
    assert model.spacegroup == "P 21 21 21"
    counts = {e: model.elements.count(e) for e in ("C", "N", "O")}
    assert counts == {"C": 9, "N": 1, "O": 3}
    assert (model.u_iso > 0).all()


def test_the_mirror_image_of_quartz(shared: Path) -> None:
    from nanoed.sim.physics.crystal import read_cif
    from nanoed.sim.physics.scattering import structure_factors

    right = read_cif(shared / "quartz" / "quartz_enantiomer_1.cif")
    hkl = np.array([[1, 0, 1], [2, 1, 1], [1, 1, 2], [0, 1, 1]])
    other = structure_factors(inverted(right), hkl)
    assert other == pytest.approx(structure_factors(right, hkl).conj(), abs=1e-9)


def test_findings_are_kept_by_data_set(tmp_path: Path) -> None:
    path = tmp_path / "check.csv"
    write_findings("s", [Finding("b", "x", 1.0, "<=", 2.0, "s"), Finding("a", "y", 3.0)], path)
    write_findings("s", [Finding("b", "x", 5.0, "<=", 2.0, "s")], path)
    table = pd.read_csv(path, keep_default_na=False, comment="#")
    assert table["data"].tolist() == ["a", "b"]
    assert table["met"].tolist() == ["", "NO"]


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such part"):
        check_refinement(tmp_path, tmp_path, ["unknown"], 1, None)
    with pytest.raises(InputError, match="no such folder"):
        check_refinement(tmp_path / "none", tmp_path, None, 1, None)
    (tmp_path / "list.cif").write_text("data_x\n_cell_length_a 1\n")
    with pytest.raises(InputError, match="no reflections by zone"):
        jana_pairs(tmp_path / "list.cif")
