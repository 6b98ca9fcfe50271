"""SHELX files: HKLF 4 round trip, LATT/SYMM against gemmi's operations, electron scattering factors."""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest

from nanoed.pipeline.io.formula import parse_formula
from nanoed.pipeline.io.hkl import _symmetry_lines, four_gaussians, read_hkl, write_hkl, write_ins
from nanoed.pipeline.io.shelx_model import read_shelx_model
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.factors import electron_factor


def test_hkl_round_trip(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "h": [1, -12, 0],
            "k": [0, 3, 2],
            "l": [0, 0, -7],
            "I": [5e5, -20.0, 1e3],
            "sigma": [100.0, 40.0, 0.01],
        }
    )
    scale = write_hkl(tmp_path / "a.hkl", table)
    back = read_hkl(tmp_path / "a.hkl")
    assert back["I"].max() == 9999.99
    pd.testing.assert_frame_equal(back[["h", "k", "l"]], table[["h", "k", "l"]])
    np.testing.assert_allclose(back["I"], table["I"] * scale, atol=0.005)
    assert back["sigma"].min() >= 0.01
    assert all(len(line) == 28 for line in (tmp_path / "a.hkl").read_text().splitlines())


def test_reads_measured_data(shared: Path) -> None:
    path = next((shared / "tyrosine").glob("*.hkl"))
    assert len(read_hkl(path)) == 6260


def test_hkl_errors(tmp_path: Path) -> None:
    (tmp_path / "bad.hkl").write_text("   1   2   x  10.00   1.00\n")
    with pytest.raises(InputError, match="line 1"):
        read_hkl(tmp_path / "bad.hkl")
    with pytest.raises(InputError, match="no reflections"):
        write_hkl(tmp_path / "a.hkl", pd.DataFrame({c: [] for c in ("h", "k", "l", "I", "sigma")}))


def generated(lines: list[str]) -> set[str]:
    """Operations that LATT and SYMM stand for, by the manual of SHELX."""
    on_a, on_b, on_c = "x,y+1/2,z+1/2", "x+1/2,y,z+1/2", "x+1/2,y+1/2,z"
    shifts = {1: [], 2: ["x+1/2,y+1/2,z+1/2"], 3: ["x+2/3,y+1/3,z+1/3", "x+1/3,y+2/3,z+2/3"],
              4: [on_a, on_b, on_c], 5: [on_a], 6: [on_b], 7: [on_c]}  # fmt: skip
    latt = int(lines[0].split()[1])
    ops = [gemmi.Op()] + [gemmi.Op(line[5:]) for line in lines[1:]]
    ops += [gemmi.Op("-x,-y,-z") * op for op in ops] if latt > 0 else []
    ops += [gemmi.Op(shift) * op for shift in shifts[abs(latt)] for op in ops]
    named = [op.wrap().triplet() for op in ops]
    assert len(named) == len(set(named))
    return set(named)


def test_symmetry_lines_generate_every_group() -> None:
    """Positive LATT is a centre at the origin: origin choice 1 of I 41/a m d has none there."""
    for group in gemmi.spacegroup_table():
        lines = _symmetry_lines(group)
        assert all(line.startswith("SYMM ") for line in lines[1:])
        assert generated(lines) == {op.wrap().triplet() for op in group.operations()}, group.xhm()


@pytest.mark.parametrize("element", ["H", "O", "Si", "Ti", "In"])
def test_sfac_reproduces_the_electron_factors(element: str) -> None:
    p = np.array(four_gaussians(element))
    s = np.linspace(0, 1.2, 50)
    fitted = (p[0:8:2] * np.exp(-np.outer(s**2, p[1:8:2]))).sum(axis=1) + p[8]
    np.testing.assert_allclose(fitted, electron_factor(element, s, "peng"), atol=0.01 * fitted[0])


def test_sfac_has_the_fourteen_numbers_of_shelxl(tmp_path: Path) -> None:
    """a1 b1 ... a4 b4 c f' f" mu r wt, on two lines of at most 80 characters."""
    write_ins(tmp_path / "a.ins", "test", 0.025, (9.2, 5.4, 5.1, 90.0, 90.0, 90.0), "P b c a", "TiO2")
    text = (tmp_path / "a.ins").read_text()
    assert max(map(len, text.splitlines())) <= 80
    lines = [line.split() for line in text.replace("=\n", " ").splitlines() if line.startswith("SFAC")]
    assert [words[1] for words in lines] == ["Ti", "O"]
    for (_, element, *numbers), weight in zip(lines, (47.867, 15.999), strict=True):
        values = np.array(numbers, float)
        assert len(values) == 14
        np.testing.assert_allclose(values[:9], four_gaussians(element), atol=1e-4)
        assert values[9:12].tolist() == [0.0, 0.0, 0.0]
        assert 0.5 < values[12] < 2
        assert values[13] == pytest.approx(weight, abs=0.01)


def test_formula() -> None:
    assert parse_formula("MgTi2O5") == {"Mg": 1.0, "Ti": 2.0, "O": 5.0}
    with pytest.raises(InputError, match="composition"):
        parse_formula("Xx2?")
    with pytest.raises(InputError, match="composition"):
        parse_formula("Ti.")


@pytest.mark.parametrize(
    "name",
    [
        "P b c a",
        "I 41/a m d:2",
        "I a -3",
        "P 32 2 1",
        "C m c m",
        "B b m m",
        "P 1 21/c 1",
        "P -1",
        "R -3 :H",
        "F d -3 m:2",
    ],
)
def test_a_model_takes_its_group_from_latt_and_symm(tmp_path: Path, name: str) -> None:
    trigonal = "32" in name or "R" in name
    cell = (5.0, 5.0, 6.0, 90.0, 90.0, 120.0 if trigonal else 90.0)
    write_ins(tmp_path / "a.ins", "test", 0.025, cell, name, "SiO2")
    text = (
        (tmp_path / "a.ins")
        .read_text()
        .replace("HKLF 4", "FVAR 1.0 0.25\nSi1 1 10.1 10.2 10.3 10.5 0.01\nHKLF 4")
    )
    (tmp_path / "a.ins").write_text(text)
    found = read_shelx_model(tmp_path / "a.ins")
    ours, theirs = (gemmi.find_spacegroup_by_name(n) for n in (found.spacegroup, name))
    assert {op.wrap().triplet() for op in ours.operations()} == {
        op.wrap().triplet() for op in theirs.operations()
    }
    assert found.xyz[0] == pytest.approx([0.1, 0.2, 0.3])
    assert found.occupancy[0] == pytest.approx(0.5 * len(found.rotations) / found.multiplicities[0])


ATOMS = """TITL x
CELL 0.025 5 5 6 90 90 90
LATT 1
SFAC C H O
FVAR 0.7 0.3
MOVE 1 1 1 1
C1 1 0.1 0.2 0.3 11.0 0.01 0.02 =
 0.03 0.001 0.002 0.003
H1 2 0.12 0.2 0.3 11.0 -1.5
O1 3 0 0 0 20.5 0.02
O2 3 0.3 0.3 0.3 -21.0 0.02
HKLF 4
"""


def test_free_variables_riding_and_the_order_of_u(tmp_path: Path) -> None:
    (tmp_path / "a.res").write_text(ATOMS)
    found = read_shelx_model(tmp_path / "a.res")
    assert found.elements == ("C", "H", "O", "O")
    assert found.u_ij[0] == pytest.approx([0.01, 0.02, 0.03, 0.003, 0.002, 0.001])
    assert found.u_iso[:2] == pytest.approx([0.02, 0.03])
    assert found.occupancy == pytest.approx([1.0, 1.0, 0.3, 0.7])
    assert found.spacegroup == "P -1"


NO_ATOMS = """REM 1 0.1 0.2 0.3 11.0
rem 3 0.5 0.5 0.5 11.0 0.02
TITL 1 0.5 0.5 0.5
OMIT 1 2 3 4
PLAN 20 0.5 0.6 0.7
FRAG 17 1.0 1.0 1.0 90 90 90
C9 1 0.4 0.4 0.4

C8 1 0.2 0.4 0.4
FEND
C1 1"""


def test_remarks_and_fragments_are_no_atoms(tmp_path: Path) -> None:
    """Lines that look like atoms, a name, a whole number and numbers behind it, but are instructions."""
    (tmp_path / "a.res").write_text(ATOMS)
    (tmp_path / "b.res").write_text(ATOMS.replace("C1 1", NO_ATOMS))
    plain, found = (read_shelx_model(tmp_path / name) for name in ("a.res", "b.res"))
    assert found.labels == plain.labels == ("C1", "H1", "O1", "O2")
    assert found.xyz == pytest.approx(plain.xyz)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("CELL 0.025 5 5 6 90 90 90", ""), "CELL"),
        (("O2 3", "O2 7"), "SFAC"),
        (("-21.0", "-31.0"), "FVAR"),
        (("LATT 1", "LATT 1\nSYMM x,y,q"), "SYMM"),
        (("5 5 6 90", "5 5 x 90"), "CELL"),
        (("0.025 5 5 6 90", "0.025 1 5 6 90"), "CELL"),
        (("5 5 6 90 90 90", "5 5 6 0 590 90"), "CELL"),
        (("5 5 6 90 90 90", "5 5 6 1e-320 90 90"), "CELL"),
    ],
)
def test_models_that_cannot_be_read(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    (tmp_path / "a.res").write_text(ATOMS.replace(*change))
    with pytest.raises(InputError, match=told):
        read_shelx_model(tmp_path / "a.res")
    with pytest.raises(InputError, match="cannot be read"):
        read_shelx_model(tmp_path / "none.res")
