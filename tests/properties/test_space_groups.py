"""Laue class and space group from made-up intensities whose symmetry is known, with dynamically excited absences."""

import gemmi
import numpy as np
import pandas as pd
import pytest

from nanoed.pipeline.reduce.bravais import symbol_of
from nanoed.pipeline.reduce.geometry import candidates, reciprocal_basis
from nanoed.pipeline.reduce.spacegroup import (
    SymmetryFound,
    find_symmetry,
    groups_of,
    lattice_of_metric,
    laue_tests,
)
from nanoed.pipeline.reduce.symmetry import absent, centring_absent, laue_rotations, representative
from nanoed.pipeline.spec import SymmetryTestSpec

CELLS = {
    "P b c a": (5.1, 5.4, 9.2, 90, 90, 90),
    "P 1 21/c 1": (5.1, 11.8, 5.5, 90, 112, 90),
    "I 41/a m d": (3.8, 3.8, 9.5, 90, 90, 90),
    "P 4/m": (6.1, 6.1, 7.5, 90, 90, 90),
    "C m c m": (3.7, 9.7, 10.0, 90, 90, 90),
    "I a -3": (10.1, 10.1, 10.1, 90, 90, 90),
    "P 32 2 1": (4.9, 4.9, 5.4, 90, 90, 120),
    "P -3 1 m": (5.9, 5.9, 6.4, 90, 90, 120),
}


def measured(group: str, excited: float = 0.06, seed: int = 1, laue: str | None = None) -> pd.DataFrame:
    """Intensities of all hkl to 1 1/Å, exponential over the equivalents of the group's Laue class, 10 % of scatter
    between these, extinguished ones at `excited` times the mean of the others, noise on all, three quarters kept."""
    rng = np.random.default_rng(seed)
    ub = reciprocal_basis(CELLS[group])
    hkl = candidates(ub, 1.0)
    hkl = hkl[~centring_absent(hkl, group)]
    found = gemmi.find_spacegroup_by_name(group)
    unique, family = np.unique(
        representative(hkl, laue_rotations(laue or found.laue_str(), group)), axis=0, return_inverse=True
    )
    size = rng.exponential(1000.0, len(unique)) * np.exp(-1.5 * np.linalg.norm(unique @ ub.T, axis=1) ** 2)
    size = size * np.array([found.operations().epsilon_factor_without_centering(h) for h in unique.tolist()])
    size = np.where(absent(unique, group), excited * size, size)
    intensity = size[family] * (1 + 0.1 * rng.standard_normal(len(hkl)))
    sigma = np.hypot(8.0, 0.03 * intensity)
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=rng.normal(intensity, sigma), sigma=sigma)
    return table[rng.random(len(table)) < 0.75]


def found(group: str, table: pd.DataFrame, bravais: str | None = None) -> SymmetryFound:
    ub = reciprocal_basis(CELLS[group])
    return find_symmetry(table, ub, bravais or symbol_of(group), group[0], SymmetryTestSpec())


@pytest.mark.parametrize("group", CELLS)
def test_laue_class_and_space_group_are_found(group: str) -> None:
    result = found(group, measured(group))
    assert result.tests[0].accepted
    assert result.laue == gemmi.find_spacegroup_by_name(group).laue_str()
    rotations = {m.tobytes() for m in laue_rotations(result.laue, result.spacegroup)}
    assert rotations == {m.tobytes() for m in laue_rotations(result.laue, group)}
    assert group in result.ranking[0].groups
    assert result.ranking[0].log_odds == 0.0
    if len(result.ranking) > 1:
        assert result.ranking[1].log_odds < -1
        assert result.ranking[0].mean_ratio < 0.2 or result.ranking[0].n_absent == 0


def test_strongly_excited_absences_are_tolerated_and_present_ones_are_not() -> None:
    """A fifth of the mean is still an absence (C7); as strong as the others they are none."""
    for seed in range(2, 6):
        strong = measured("P b c a", excited=0.2, seed=seed)
        assert "P b c a" in found("P b c a", strong).ranking[0].groups
    present = found("P b c a", measured("P b c a", excited=1.0)).ranking
    assert "P m m m" in present[0].groups
    place = next(e for e in present if "P b c a" in e.groups)
    assert place.log_odds < -50
    assert place.mean_ratio > 0.5


def test_pseudosymmetry_of_the_metric_is_refused() -> None:
    """A lattice of 4/mmm whose intensities are those of 4/m: the class of the lattice does not hold."""
    result = found("P 4/m", measured("P 4/m"))
    tests = {t.laue: t for t in result.tests}
    assert tests["4/m"].accepted
    assert not tests["4/mmm"].accepted
    assert tests["4/mmm"].r_int > 0.6 * result.r_unrelated
    assert tests["4/m"].r_int < 0.2
    higher = found("P 4/m", measured("P 4/m", laue="4/mmm"))
    assert higher.laue == "4/mmm"


def test_shuffled_intensities_have_no_symmetry_to_find() -> None:
    table = measured("I 41/a m d")
    shuffled = table.assign(I=np.random.default_rng(3).permutation(table["I"].to_numpy()))
    result = found("I 41/a m d", shuffled)
    assert result.laue == "4/m"
    assert not any(t.accepted for t in result.tests)
    assert result.tests[0].r_int > 0.8 * result.r_unrelated


def test_settings_are_those_of_the_cell() -> None:
    names = groups_of("mmm", "P m m m")
    assert {"P b c a", "P c a b", "P n m a", "P m c n", "P 21 21 21", "P m m 2", "P 2 m m"} <= set(names)
    assert "C m c m" not in names
    assert "P 1 21/c 1" in groups_of("2/m", "P 1 2/m 1")
    assert "P 1 1 21/b" not in groups_of("2/m", "P 1 2/m 1")
    assert "P 3 1 m" not in groups_of("-3m", "P -3 m 1")


def test_metric_of_a_cell() -> None:
    assert lattice_of_metric((9.17, 5.45, 5.14, 90, 90.1, 90)) == "oP"
    assert lattice_of_metric((5.0, 5.01, 5.02, 90, 90, 90)) == "cP"
    assert lattice_of_metric((5.0, 5.01, 7.0, 90, 90, 90)) == "tP"
    assert lattice_of_metric((5.0, 5.01, 7.0, 90, 90, 120.1)) == "hP"
    assert lattice_of_metric((5.0, 6.0, 7.0, 90, 101, 90)) == "mP"
    assert lattice_of_metric((5.0, 6.0, 7.0, 93, 101, 90)) == "aP"


def test_record_is_plain() -> None:
    record = found("P b c a", measured("P b c a")).record()
    assert record["space_groups"][0]["groups"][0] == "P b c a"
    assert [t["laue"] for t in record["laue_tests"]] == ["mmm"]


@pytest.mark.parametrize(
    ("group", "cell", "laue"),
    [
        ("F 4/m m m", (5.4, 5.4, 9.5, 90, 90, 90), "4/mmm"),
        ("C 4 2 2", (8.6, 8.6, 7.5, 90, 90, 90), "-1"),
        ("B 1 1 2/b", (8.1, 5.4, 6.2, 90, 90, 103), "-1"),
        ("A 1 2/n 1", (8.1, 5.4, 6.2, 90, 103, 90), "2/m"),
    ],
)
def test_classes_without_a_symmorphic_name_are_not_tested(
    monkeypatch: pytest.MonkeyPatch, group: str, cell: tuple[float, ...], laue: str
) -> None:
    monkeypatch.setitem(CELLS, group, cell)
    result = found(group, measured(group))
    assert [t.laue for t in result.tests] == [laue]


def test_every_setting_has_a_class_to_test() -> None:
    table, spec = measured("P b c a").iloc[:20], SymmetryTestSpec()
    for bravais, centring in {(symbol_of(group.xhm()), group.hm[0]) for group in gemmi.spacegroup_table()}:
        assert laue_tests(table, np.eye(3), bravais, centring, spec)[0]
