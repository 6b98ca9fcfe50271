"""Structure factors against cctbx, gemmi and Felix."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest
from goldens import STRUCTURES, assert_same_table, golden, regenerated, shipped

from nanoed.pipeline.io.shelx_model import read_shelx_model
from nanoed.sim.physics.crystal import Crystal, write_cif
from nanoed.sim.physics.scattering import structure_factors, u_g

HKL = ["h", "k", "l"]
FELIX_SPEED_OF_LIGHT = 2.99762458e8
"""m/s, as in that program's list of constants (the last digits of 299792458 are exchanged)."""


def disagreement(crystal: Crystal, hkl: np.ndarray, printed: np.ndarray) -> float:
    """Largest |F - conj(printed)| over the largest |printed|: the border is crossed by conjugation."""
    ours = structure_factors(crystal, hkl, "peng")
    return float(np.abs(ours - printed.conj()).max() / np.abs(printed).max())


def cctbx_factors(name: str) -> tuple[np.ndarray, np.ndarray]:
    table = golden("cctbx_structure_factors")
    table = table[table["structure"] == name]
    return table[HKL].to_numpy(), table["F_real"].to_numpy() + 1j * table["F_imag"].to_numpy()


@pytest.mark.parametrize("name", ["brookite", "anatase", "quartz"])
def test_cctbx(name: str):
    hkl, printed = cctbx_factors(name)
    assert len(hkl) > 150
    assert disagreement(shipped(name), hkl, printed) < 1e-6


def test_cctbx_rejects_the_wrong_sign_and_the_wrong_hand():
    quartz = shipped("quartz")
    hkl, printed = cctbx_factors("quartz")
    assert disagreement(quartz, hkl, printed.conj()) > 0.1
    inverted = replace(quartz, xyz=-quartz.xyz, spacegroup="P 31 2 1")
    assert disagreement(inverted, hkl, printed) > 0.1
    assert disagreement(quartz, hkl[:, [1, 0, 2]], printed) > 0.1
    isotropic = replace(quartz, u_ij=np.full_like(quartz.u_ij, np.nan))
    assert disagreement(isotropic, hkl, printed) > 1e-3


def test_cctbx_now(oracle_python: Callable[[str], str]):
    found = regenerated(oracle_python("cctbx"), "generate_cctbx.py")
    assert_same_table(found, golden("cctbx_structure_factors"), 1e-7)


def test_cctbx_tyrosine_now(oracle_python: Callable[[str], str], shared: Path, tmp_path: Path):
    """All of measured tyrosine's reflections to 0.7 Å with anisotropic atoms: equal to 1e-4; without hydrogen not."""
    model = read_shelx_model(shared / "tyrosine" / "tyrosine.ins")
    write_cif(model, tmp_path / "tyrosine.cif")
    script = Path(__file__).with_name("generate_cctbx.py")
    command = [oracle_python("cctbx"), str(script), str(tmp_path), "tyrosine=0.7"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    table = pd.read_csv(StringIO(text), comment="#")
    hkl, printed = table[HKL].to_numpy(), table["F_real"].to_numpy() + 1j * table["F_imag"].to_numpy()
    assert len(hkl) > 1500
    assert disagreement(model, hkl, printed) < 1e-4
    bare = replace(model, occupancy=np.where(np.array(model.elements) == "H", 0.0, 1.0))
    assert disagreement(bare, hkl, printed) > 1e-2


@pytest.mark.parametrize("name", ["brookite", "anatase", "quartz", "ito", "mgti2o5"])
def test_gemmi(name: str):
    small = gemmi.read_small_structure(str(STRUCTURES / f"{name}.cif"))
    small.change_occupancies_to_crystallographic()
    small.setup_cell_images()
    calculator = gemmi.StructureFactorCalculatorE(small.cell)
    hkl, _ = cctbx_factors("brookite")
    printed = np.array([calculator.calculate_sf_from_small_structure(small, list(h)) for h in hkl.tolist()])
    assert disagreement(shipped(name), hkl, printed) < 1e-6


def felix_crystal() -> Crystal:
    """SrTiO3 with the cell and B factors of Felix's example."""
    u_iso = np.array([0.4153, 1.1035, 0.8888]) / (8 * np.pi**2)
    return Crystal(
        name="SrTiO3",
        cell=(3.8996, 3.8996, 3.8996, 90.0, 90.0, 90.0),
        spacegroup="P m -3 m",
        labels=("Sr1", "Ti1", "O1"),
        elements=("Sr", "Ti", "O"),
        xyz=np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.0, 0.5, 0.5]]),
        occupancy=np.ones(3),
        u_iso=u_iso,
        u_ij=np.full((3, 6), np.nan),
    )


def felix_ratio(table: pd.DataFrame, crystal: Crystal, factors: str = "kirkland") -> np.ndarray:
    ours = np.abs(u_g(crystal, table[HKL].to_numpy(), 200.0, factors))
    return ours / table["U_g"].to_numpy()


def assert_agrees_with_felix(table: pd.DataFrame) -> None:
    """Equal to 1e-5 1/Å², and to the printed digits but for one factor, most of it Felix's speed of light in gamma."""
    ours = np.abs(u_g(felix_crystal(), table[HKL].to_numpy(), 200.0, "kirkland"))
    assert np.abs(ours - table["U_g"].to_numpy()).max() < 1e-5
    ratio = felix_ratio(table, felix_crystal())
    assert np.abs(ratio / np.median(ratio) - 1).max() < 1e-5
    rest_energy = 510998.95 * (FELIX_SPEED_OF_LIGHT / 299792458) ** 2
    gamma_ratio = (1 + 200e3 / 510998.95) / (1 + 200e3 / rest_energy)
    assert abs(np.median(ratio) / gamma_ratio - 1) < 2e-5


def test_felix():
    assert_agrees_with_felix(golden("felix_srtio3"))


def test_felix_rejects_another_table_and_another_cell():
    table, crystal = golden("felix_srtio3"), felix_crystal()
    assert np.ptp(felix_ratio(table, crystal, "peng")) > 1e-3
    assert np.ptp(felix_ratio(table, replace(crystal, u_iso=crystal.u_iso[[1, 0, 2]]))) > 1e-3
    assert (
        abs(np.median(felix_ratio(table, replace(crystal, cell=(3.9, 3.9, 3.9, 90.0, 90.0, 90.0)))) - 1)
        > 2e-4
    )


def test_felix_whole_table(shared: Path):
    from oracles.generate_felix import read_structure_factors

    assert_agrees_with_felix(read_structure_factors(shared / "felix_srtio3" / "StructureFactors.txt"))
