"""The thermal diffuse absorptive potential against Felix, and what absorption does to the beams."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from goldens import golden, shipped
from oracles.test_structure_factors import HKL, felix_crystal

from nanoed.sim.physics.absorption import Absorption, absorptive_potential, thermal_diffuse_factor
from nanoed.sim.physics.bloch import frame_intensities, potential_table
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.scattering import u_g

KV = 200.0
TOLERANCE = 1e-3
"""Felix's own speed of light shifts all by 1e-4 (see test_structure_factors)."""


def disagreement(table: pd.DataFrame, crystal: Crystal, absorption: Absorption = "thermal") -> float:
    hkl = table[HKL].to_numpy()
    u = u_g(crystal, hkl, KV, "kirkland")
    found = np.abs(absorptive_potential(crystal, hkl, u, KV, "kirkland", absorption))
    return float(np.abs(found / table["U_g_absorptive"].to_numpy() - 1).max())


def test_felix() -> None:
    assert disagreement(golden("felix_srtio3"), felix_crystal()) < TOLERANCE


def test_felix_rejects_other_displacements_and_a_fraction() -> None:
    table, crystal = golden("felix_srtio3"), felix_crystal()
    assert disagreement(table, replace(crystal, u_iso=crystal.u_iso[[1, 0, 2]])) > 0.1
    assert disagreement(table, replace(crystal, u_iso=1.2 * crystal.u_iso)) > 0.1
    assert disagreement(table, crystal, 0.04) > 0.1


def test_felix_whole_table(shared: Path) -> None:
    from oracles.generate_felix import read_structure_factors

    table = read_structure_factors(shared / "felix_srtio3" / "StructureFactors.txt")
    assert disagreement(table, felix_crystal()) < TOLERANCE


def test_atoms_at_rest_scatter_nothing_diffusely() -> None:
    s = np.linspace(0, 2, 9)
    assert np.abs(thermal_diffuse_factor("Ti", s, 0.0, KV)).max() == 0
    small, large = (thermal_diffuse_factor("Ti", s, u, KV)[0] for u in (1e-4, 1e-2))
    assert 0 < small < large


def intensities(crystal: Crystal, absorption: Absorption, s_max: float, thickness: float) -> np.ndarray:
    potential = potential_table(crystal, KV, 1.2, "lobato", absorption=absorption)
    turn, one, t = np.eye(3)[None], np.ones(1), np.array([thickness])
    ub = np.array([[0.9, 0.3, -0.2], [-0.28, 0.95, 0.1], [0.22, -0.03, 0.97]]) @ crystal.reciprocal_basis
    return frame_intensities(potential, ub, turn, one, t, one, potential.hkl, KV, 1.2, s_max)


@pytest.mark.parametrize("name", ["quartz", "ito"])
@pytest.mark.parametrize("absorption", ["thermal", 0.1])
def test_the_mean_wave_decays_exactly(name: str, absorption: Absorption) -> None:
    """With 000 alone, I = exp(-2π U'_0 t λ)."""
    crystal, origin = shipped(name), np.zeros((1, 3), np.int64)
    u = u_g(crystal, origin, KV, "lobato")
    lost = absorptive_potential(crystal, origin, u, KV, "lobato", absorption)[0].real
    found = intensities(crystal, absorption, 0.0, 500.0)[0]
    assert found < 0.99
    assert found == pytest.approx(np.exp(-2 * np.pi * lost * 500.0 * wavelength_A(KV)), rel=1e-9)


@pytest.mark.parametrize("name", ["quartz", "ito"])
def test_absorption_takes_flux_and_none_is_none(name: str) -> None:
    crystal = shipped(name)
    without, thermal = (intensities(crystal, a, 0.03, 300.0) for a in (0.0, "thermal"))
    faint = intensities(crystal, 1e-9, 0.03, 300.0)
    assert thermal.sum() < 0.999 * without.sum()
    assert faint == pytest.approx(without, abs=1e-7)


def test_derivatives_are_refused() -> None:
    crystal = shipped("anatase")
    jacobian = np.zeros((len(crystal.labels), 11, 1))
    with pytest.raises(ValueError, match="derivatives"):
        potential_table(crystal, KV, 0.8, jacobian=jacobian, absorption="thermal")
