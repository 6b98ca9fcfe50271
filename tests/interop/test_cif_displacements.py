"""Displacement parameters of CIFs in the older conventions: B = 8π² U, and beta_ij, which are refused."""

from pathlib import Path

import numpy as np
import pytest

from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.errors import InputError

CIF = """data_x
_cell_length_a 5
_cell_length_b 6
_cell_length_c 7
_cell_angle_alpha 90
_cell_angle_beta 105
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1 2/m 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_{iso}_iso_or_equiv
Ti1 Ti 0.1 0.2 0.3 .
O1 O 0.5 0.6 0.7 {o}
loop_
_atom_site_aniso_label
_atom_site_aniso_{kind}_11
_atom_site_aniso_{kind}_22
_atom_site_aniso_{kind}_33
_atom_site_aniso_{kind}_12
_atom_site_aniso_{kind}_13
_atom_site_aniso_{kind}_23
Ti1 {tensor}
"""
U = np.array([0.011, 0.012, 0.013, 0.001, -0.002, 0.003])


def read(folder: Path, kind: str, factor: float) -> Crystal:
    tensor = " ".join(f"{factor * u:.9f}(12)" for u in U)
    text = CIF.format(iso=kind[0].upper(), kind=kind, o=f"{factor * 0.02:.9f}", tensor=tensor)
    (folder / "a.cif").write_text(text)
    return read_cif(folder / "a.cif")


def test_b_is_8_pi_squared_u(tmp_path: Path) -> None:
    by_u, by_b = (read(tmp_path, kind, factor) for kind, factor in (("U", 1.0), ("B", 8 * np.pi**2)))
    np.testing.assert_allclose(by_b.u_ij[0], U, rtol=1e-6)
    assert np.isnan(by_b.u_ij[1]).all()
    np.testing.assert_allclose(by_b.u_iso, by_u.u_iso, rtol=1e-6)
    assert by_b.u_iso[0] == pytest.approx(0.012, rel=0.1)


def test_beta_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"_atom_site_aniso_beta_11.*beta_ij.*U_ij or B_ij"):
        read(tmp_path, "beta", 1.0)


def test_beta_is_refused_outside_a_loop_too(tmp_path: Path) -> None:
    text = CIF.format(iso="U", kind="U", o="0.02", tensor=" ".join("0.01" for _ in U))
    pairs = "".join(f"_atom_site_aniso_beta_{ij} 0.001\n" for ij in ("11", "22", "33", "12", "13", "23"))
    (tmp_path / "a.cif").write_text(text + pairs)
    with pytest.raises(InputError, match=r"_atom_site_aniso_beta_11.*beta_ij"):
        read_cif(tmp_path / "a.cif")


def test_a_component_that_is_not_given_is_zero_in_b_as_in_u(tmp_path: Path) -> None:
    found = []
    for kind, factor in (("U", 1.0), ("B", 8 * np.pi**2)):
        tensor = " ".join(f"{factor * u:.9f}" for u in U[:5]) + " ."
        (tmp_path / "a.cif").write_text(CIF.format(iso=kind, kind=kind, o=f"{factor * 0.02:.9f}", tensor=tensor))
        found.append(read_cif(tmp_path / "a.cif"))
    np.testing.assert_allclose(found[1].u_ij[0], [*U[:5], 0.0], rtol=1e-6)
    np.testing.assert_allclose(found[1].u_iso, found[0].u_iso, rtol=1e-6)
