"""SHELX files: HKLF 4 round trip, LATT/SYMM against gemmi's operations, electron scattering factors."""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest

from nanoed.pipeline.io.formula import parse_formula
from nanoed.pipeline.io.hkl import four_gaussians, read_hkl, write_hkl, write_ins
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


@pytest.mark.parametrize(
    "name", ["P b c a", "I 41/a m d:2", "I a -3", "P 32 2 1", "C m c m", "P 1 21/c 1", "P -1"]
)
def test_symmetry_lines_generate_the_group(tmp_path: Path, name: str) -> None:
    cell = (5.0, 5.0, 6.0, 90.0, 90.0, 120.0 if "32" in name else 90.0)
    write_ins(tmp_path / "a.ins", "test", 0.025, cell, name, "SiO2")
    lines = (tmp_path / "a.ins").read_text().splitlines()
    latt = int(next(line for line in lines if line.startswith("LATT")).split()[1])
    ops = [gemmi.Op()] + [gemmi.Op(line[5:]) for line in lines if line.startswith("SYMM")]
    group = gemmi.find_spacegroup_by_name(name).operations()
    centrings = {1: 1, 2: 2, 3: 3, 4: 4, 5: 2, 6: 2, 7: 2}[abs(latt)]
    assert len(ops) * centrings * (2 if latt > 0 else 1) == len(group)
    every = {op.wrap().triplet() for op in group}
    assert all(op.wrap().triplet() in every for op in ops)


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
