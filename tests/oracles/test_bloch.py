"""Bloch-wave intensities against abTEM, beam by beam."""

from collections.abc import Callable
from dataclasses import replace

import gemmi
import numpy as np
import pandas as pd
import pytest
from goldens import assert_same_table, golden, regenerated, shipped

from nanoed.sim.physics.bloch import frame_intensities, potential_table
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.geometry import rot_x, rot_y

VOLTAGE_KV, G_MAX, S_MAX = 200.0, 1.6, 0.02
THICKNESSES_A = (50.0, 150.0, 300.0)
U_ISO_A2 = {"brookite": {"Ti": 0.0050, "O": 0.0065}, "quartz": {"Si": 0.0078, "O": 0.0134}}
TOLERANCE = 1e-5


def isotropic(name: str) -> Crystal:
    """A shipped structure with the U_iso that abTEM was given."""
    crystal = shipped(name)
    u_iso = np.array([U_ISO_A2[name][element] for element in crystal.elements])
    return replace(crystal, u_iso=u_iso, u_ij=np.full_like(crystal.u_ij, np.nan))


def starting_ub(crystal: Crystal) -> np.ndarray:
    """Columns a*, b*, c* with a along x and b in the x-y plane (1/Å)."""
    return np.linalg.inv(np.array(gemmi.UnitCell(*crystal.cell).orth.mat.tolist())).T


def disagreement(
    crystal: Crystal, frame: pd.DataFrame, tilt_sign: float = 1.0, conjugate: bool = False
) -> float:
    """Largest difference of an intensity over all thicknesses, in units of the strongest diffracted beam."""
    alpha, beta = np.radians(frame[["alpha_deg", "beta_deg"]].to_numpy()[0]) * tilt_sign
    ub_lab = rot_x(alpha) @ rot_y(beta) @ starting_ub(crystal)
    potential = potential_table(crystal, VOLTAGE_KV, G_MAX, "lobato")
    if conjugate:
        potential = replace(potential, box=potential.box.conj())
    hkl = frame[["h", "k", "l"]].to_numpy()
    diffracted = hkl.any(axis=1)
    worst = 0.0
    for thickness in THICKNESSES_A:
        ours = frame_intensities(
            potential,
            ub_lab,
            rotations=np.eye(3)[None],
            rotation_weights=np.ones(1),
            thickness=np.array([thickness]),
            thickness_weights=np.ones(1),
            hkl=hkl,
            voltage_kv=VOLTAGE_KV,
            g_max=G_MAX,
            s_max=S_MAX,
        )
        theirs = frame[f"I_{thickness:.0f}A"].to_numpy()
        worst = max(worst, float(np.abs(ours - theirs).max() / theirs[diffracted].max()))
    return worst


def frames(name: str) -> list[pd.DataFrame]:
    table = golden("abtem_bloch")
    table = table[table["structure"] == name]
    return [frame for _, frame in table.groupby(["alpha_deg", "beta_deg"])]


@pytest.mark.parametrize("name", ["brookite", "quartz"])
def test_abtem(name: str):
    found = frames(name)
    assert len(found) == 3
    assert max(disagreement(isotropic(name), frame) for frame in found) < TOLERANCE


def test_abtem_rejects_a_conjugated_potential_and_the_wrong_hand():
    """In a many-beam case both are the inverted crystal."""
    quartz = isotropic("quartz")
    inverted = replace(quartz, xyz=-quartz.xyz, spacegroup="P 31 2 1")
    for frame in frames("quartz"):
        wrong = disagreement(quartz, frame, conjugate=True)
        assert wrong > 0.01
        assert disagreement(inverted, frame) == pytest.approx(wrong, rel=1e-6)


def test_abtem_rejects_a_reversed_tilt():
    tilted = [frame for frame in frames("brookite") if frame["alpha_deg"].iloc[0] != 0]
    assert min(disagreement(isotropic("brookite"), frame, tilt_sign=-1.0) for frame in tilted) > 0.1


def test_abtem_now(oracle_python: Callable[[str], str]):
    found = regenerated(oracle_python("abtem"), "generate_abtem.py")
    assert_same_table(found, golden("abtem_bloch"), 1e-7)
