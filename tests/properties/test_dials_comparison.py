"""The comparison with DIALS, without DIALS: its file is read, the truth summed over passes, the better answer wins."""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest

from nanoed.sim.dataset import Nominal
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import rot_x, rot_z
from nanoed.sim.truth import Truth
from nanoed.studies.dials import (
    Answer,
    axis_frame,
    compared,
    findings_of,
    merged_mtz,
    run_steps,
    spots_told,
    true_integrals,
)

UB = rot_x(0.4) @ rot_z(0.3) @ np.diag([1 / 5.1, 1 / 5.4, 1 / 9.2])
N = 60


@pytest.fixture
def truth() -> Truth:
    """Sixty reflections, each crossing the sphere once in the middle of the series, one cut off by its end."""
    rng = np.random.default_rng(3)
    rows = []
    for n in range(60):
        hkl, middle, total = (1 + n % 5, n // 5, n % 3), int(rng.integers(10, 50)), rng.exponential(100.0) + 1
        middle = N - 1 if n == 0 else middle
        for frame in range(middle - 8, min(N, middle + 9)):
            s = 0.0015 * (frame - middle) * (1 + n % 3)
            rows.append((frame, 0, *hkl, total * np.exp(-0.5 * (s / 0.003) ** 2), s))
    table = pd.DataFrame(rows, columns=["frame", "crystal", "h", "k", "l", "i_true", "s_g"])
    summary = {"ub_true": UB.tolist(), "structure": {"cell": [5.1, 5.4, 9.2, 90.0, 90.0, 90.0]}}
    return Truth(summary, pd.DataFrame({"particle": np.zeros(N)}), table)


def answer(truth: Truth, noise: float, ub: np.ndarray = UB) -> Answer:
    table = true_integrals(truth)
    rng = np.random.default_rng(int(1000 * noise))
    intensity = 7 * table["T"] * (1 + noise * rng.standard_normal(len(table)))
    return Answer(ub, 100, 90, table[["h", "k", "l"]].assign(I=intensity, sigma=0.01 * intensity.abs()))


def test_true_integrals_do_not_depend_on_the_speed_of_the_pass(truth: Truth) -> None:
    """∫ I dS of a Gaussian of width 0.003 is its height times 0.003 sqrt(2π), however many frames it takes."""
    found = true_integrals(truth)
    peak = truth.reflections.groupby(["h", "k", "l"])["i_true"].max().reset_index()
    both = found.merge(peak, on=["h", "k", "l"])
    assert len(both) == 59  # without the one that the series cut off
    np.testing.assert_allclose(both["T"], both["i_true"] * 0.003 * np.sqrt(2 * np.pi), rtol=2e-3)


def test_the_better_answer_is_told_and_the_worse_refused(truth: Truth) -> None:
    answers = {"DIALS": answer(truth, 0.1), "nanoed": answer(truth, 0.02)}
    rows, common = compared("made up", answers, truth, 1.0)
    assert len(common) == 59
    assert rows[0]["corr"] < rows[1]["corr"]
    assert rows[1]["length_err_pct"] == pytest.approx(0, abs=1e-6)
    assert [f.met for f in findings_of(pd.DataFrame(rows))] == [True, True]
    swapped = {"DIALS": answers["nanoed"], "nanoed": answer(truth, 0.6)}
    assert False in [f.met for f in findings_of(pd.DataFrame(compared("made up", swapped, truth, 1.0)[0]))]


def test_indices_of_another_setting_are_carried_over(truth: Truth) -> None:
    turned = answer(truth, 0.02)
    basis = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # UB' = UB M, h' = M⁻¹ h
    hkl = turned.reflections[["h", "k", "l"]].to_numpy() @ np.linalg.inv(basis).T
    other = turned.reflections.assign(**dict(zip("hkl", np.rint(hkl).astype(int).T, strict=True)))
    rows, common = compared("made up", {"DIALS": Answer(UB @ basis, 1, 1, other)}, truth, 1.0)
    assert len(common) == 59
    assert rows[0]["corr"] > 0.99
    mirrored = Answer(np.diag([1.0, 1.0, -1.0]) @ UB, 1, 1, turned.reflections)
    assert not compared("made up", {"DIALS": mirrored}, truth, 1.0)[0][0]["hand_right"]


def test_its_axes_become_ours() -> None:
    azimuth = 38.4
    nominal = Nominal(200.0, (64, 64), 0.01, 55.0, (32.0, 32.0), 1.0, np.array([0.0, 1.0]), azimuth,
                      "continuous_rotation", 0.0, 1.0, 1.0, 1000)  # fmt: skip
    direct = np.linalg.inv(rot_z(np.radians(azimuth)) @ UB)
    crystal = {f"real_space_{name}": row.tolist() for name, row in zip("abc", direct, strict=True)}
    np.testing.assert_allclose(axis_frame(crystal, nominal), UB, atol=1e-12)


def test_reads_profile_fitted_whole_reflections(tmp_path: Path) -> None:
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = gemmi.SpaceGroup("P 1")
    mtz.set_cell_for_all(gemmi.UnitCell(5.1, 5.4, 9.2, 90, 90, 90))
    mtz.add_dataset("x")
    for label, kind in (
        ("M/ISYM", "Y"),
        ("BATCH", "B"),
        ("IPR", "J"),
        ("SIGIPR", "Q"),
        ("I", "J"),
        ("FRACTIONCALC", "R"),
    ):
        mtz.add_column(label, kind)
    rows = [(1, 2, 3, 1, 1, 10, 2, 99, 1.0), (1, 2, 3, 1, 9, 14, 2, 99, 1.0), (2, 0, 0, 1, 3, 5, 1, 99, 0.4)]
    mtz.set_data(np.array(rows, np.float32))
    mtz.write_to_file(str(tmp_path / "a.mtz"))
    found = merged_mtz(tmp_path / "a.mtz")
    assert found[["h", "k", "l"]].to_numpy().tolist() == [[1, 2, 3]]
    assert found["I"].tolist() == [12.0]
    assert found["sigma"].tolist() == pytest.approx([2 / np.sqrt(2)])


def test_numbers_of_spots_are_read_from_what_dials_prints() -> None:
    said = """Saved 398 reflections to strong.refl
|   Imageset |   # indexed |   # unindexed | % indexed   |
|------------+-------------+---------------+-------------|
|          0 |         301 |            97 | 75.6%       |
+------------+-------------+---------------+-------------+
|          0 |         395 |             2 | 99.5%       |
"""
    assert spots_told(said) == (398, 395)
    with pytest.raises(InputError, match="does not say"):
        spots_told("Saved 398 reflections to strong.refl")


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dials\.nothing on PATH"):
        run_steps(tmp_path, (("dials.nothing",),))
