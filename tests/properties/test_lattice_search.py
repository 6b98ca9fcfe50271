"""A lattice from nothing: periods of peaks, reduction, the fourteen Bravais lattices with errors in the metric, axes of
every setting."""

from itertools import combinations, product
from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from spot_frames import true_geometry

from nanoed.pipeline.reduce import lattice
from nanoed.pipeline.reduce.bravais import bravais_lattices, group_of, symbol_of
from nanoed.pipeline.reduce.cellsearch import find_cell, likelihood, reduced
from nanoed.pipeline.reduce.geometry import candidates, cell_of, reciprocal_basis
from nanoed.pipeline.reduce.index import refined
from nanoed.pipeline.reduce.positions import constrained_cell, constrained_tied
from nanoed.pipeline.reduce.second import misorientation
from nanoed.pipeline.reduce.symmetry import absent, laue_rotations, metric_class
from nanoed.pipeline.spec import IndexingSpec, ReduceSpec
from nanoed.sim.physics.errors import InputError

CENTRES = {
    "P": [],
    "A": [(0, 0.5, 0.5)],
    "B": [(0.5, 0, 0.5)],
    "C": [(0.5, 0.5, 0)],
    "I": [(0.5, 0.5, 0.5)],
    "F": [(0, 0.5, 0.5), (0.5, 0, 0.5)],
    "R": [(2 / 3, 1 / 3, 1 / 3)],
}
MULTIPLICITY = {"P": 1, "F": 4, "R": 3}
LATTICES = [
    ("cF", (5.4, 5.4, 5.4, 90, 90, 90), "F"),
    ("cI", (10.1, 10.1, 10.1, 90, 90, 90), "I"),
    ("cP", (4.1, 4.1, 4.1, 90, 90, 90), "P"),
    ("hR", (4.76, 4.76, 12.99, 90, 90, 120), "R"),
    ("hP", (4.9, 4.9, 5.4, 90, 90, 120), "P"),
    ("tI", (3.78, 3.78, 9.51, 90, 90, 90), "I"),
    ("tP", (4.59, 4.59, 2.96, 90, 90, 90), "P"),
    ("oF", (5.1, 6.3, 8.8, 90, 90, 90), "F"),
    ("oI", (4.1, 6.3, 8.8, 90, 90, 90), "I"),
    ("oC", (9.797, 9.994, 3.764, 90, 90, 90), "B"),  # a and b within 2 %, yet not tetragonal
    ("oC", (4.797, 9.994, 13.76, 90, 90, 90), "A"),
    ("oP", (9.17, 5.45, 5.14, 90, 90, 90), "P"),
    ("mC", (9.17, 5.45, 5.14, 90, 108, 90), "C"),
    ("mC", (9.17, 5.45, 7.14, 90, 100, 90), "I"),
    ("mP", (5.088, 11.81, 5.462, 90, 112, 90), "P"),
    ("aP", (5.08, 7.8, 9.46, 82, 112, 97), "P"),
]


def primitive(cell: tuple[float, ...], centring: str) -> np.ndarray:
    """UB (3, 3) of a primitive cell of the lattice."""
    axes = np.linalg.inv(reciprocal_basis(cell))
    points = np.array([*np.eye(3), *CENTRES[centring]])
    steps = np.unique(np.round(np.array(list(product((-1, 0, 1), repeat=len(points)))) @ points, 6), axis=0)
    vectors = steps[np.abs(steps).max(axis=1) > 0] @ axes
    vectors = vectors[np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")]
    volume = abs(np.linalg.det(axes)) / MULTIPLICITY.get(centring, 2)
    for j, k in combinations(range(1, len(vectors)), 2):
        basis = vectors[[0, j, k]]
        if abs(abs(np.linalg.det(basis)) / volume - 1) < 1e-3:
            return np.linalg.inv(basis)
    raise AssertionError("no primitive cell")


@pytest.mark.parametrize(("symbol", "cell", "centring"), LATTICES)
def test_every_bravais_lattice_is_named_in_spite_of_errors(
    symbol: str, cell: tuple[float, ...], centring: str
) -> None:
    """Errors of 0.3 % in the metric, any orientation, any choice of primitive cell."""
    rng = np.random.default_rng(5)
    for k in range(4):
        other = rng.integers(-1, 2, (3, 3))
        while abs(round(np.linalg.det(other))) != 1:
            other = rng.integers(-1, 2, (3, 3))
        strain = np.eye(3) + 0.003 * rng.uniform(-1, 1, (3, 3))
        start = strain @ Rotation.random(random_state=k).as_matrix() @ primitive(cell, centring) @ other
        found = bravais_lattices(reduced(start), 3.0)[0]
        assert found.symbol == symbol
        assert np.linalg.det(found.ub) > 0
        ratio = MULTIPLICITY.get(found.centring, 2) * abs(np.linalg.det(found.ub) / np.linalg.det(start))
        assert ratio == pytest.approx(1.0, abs=1e-9)  # it is a cell of this lattice, not of a sublattice
        if found.centring == centring and symbol[0] in "octh":
            np.testing.assert_allclose(sorted(cell_of(found.ub)[:3]), sorted(cell[:3]), rtol=0.01)


def test_a_metric_too_far_off_is_not_taken_for_the_higher_symmetry() -> None:
    ub = reduced(primitive((9.17, 9.72, 5.14, 90, 90, 90), "P"))  # 6 % between a and b
    assert [b.symbol for b in bravais_lattices(ub, 3.0)] == ["oP", "mP", "aP"]
    assert bravais_lattices(ub, 7.0)[0].symbol == "tP"


def test_reduction_agrees_with_niggli() -> None:
    rng = np.random.default_rng(2)
    for k in range(20):
        cell = (*rng.uniform(3, 12, 3), *rng.uniform(70, 110, 3))
        other = np.array([[1, k % 3, 0], [0, 1, 0], [0, 0, 1]]) @ np.array(
            [[1, 0, 0], [0, 1, -(k % 2)], [1, 0, 1]]
        )
        assert round(np.linalg.det(other)) == 1
        start = reciprocal_basis(cell) @ np.linalg.inv(other)
        vector = gemmi.GruberVector(gemmi.UnitCell(*cell), "P")
        vector.niggli_reduce()
        np.testing.assert_allclose(
            sorted(cell_of(reduced(start))[:3]), sorted(vector.get_cell().parameters[:3]), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("cell", "centring"), [((9.17, 5.45, 5.14, 90, 90, 90), "P"), ((10.1, 10.1, 10.1, 90, 90, 90), "I")]
)
def test_peaks_within_a_missing_wedge_give_their_lattice(cell: tuple[float, ...], centring: str) -> None:
    """A third of the nodes, positions off by 0.003 1/Å, a fifth of the peaks from nowhere."""
    rng = np.random.default_rng(7)
    true = Rotation.random(random_state=3).as_matrix() @ primitive(cell, centring)
    hkl = np.array(list(product(range(-9, 10), repeat=3)))
    x = hkl @ true.T
    length = np.linalg.norm(x, axis=1)
    seen = (length < 0.8) & (length > 0.05) & (np.abs(x[:, 0]) < 0.9 * np.hypot(x[:, 1], x[:, 2]))
    x = x[seen & (rng.random(len(x)) < 0.35)]
    x = x + 0.003 * rng.standard_normal(x.shape)
    noise = rng.uniform(-0.5, 0.5, (len(x) // 4, 3))
    found = find_cell(np.vstack([x, noise]), IndexingSpec())
    assert abs(np.linalg.det(found.ub) / np.linalg.det(true)) == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(cell_of(found.ub)[:3], cell_of(reduced(true))[:3], rtol=5e-3)
    assert found.indexed[: len(x)].mean() > 0.95


def test_the_right_cell_is_likelier_than_larger_smaller_and_mixed_ones() -> None:
    """Peaks of two crystals, as many of each: a cell of two axes of one and one of the other indexes more than half."""
    rng = np.random.default_rng(8)
    true = Rotation.random(random_state=3).as_matrix() @ primitive((3.8, 3.8, 9.5, 90, 90, 90), "I")
    other = Rotation.random(random_state=5).as_matrix() @ true
    hkl = np.array(list(product(range(-5, 6), repeat=3)))
    parts = [hkl @ ub.T + 0.004 * rng.standard_normal(hkl.shape) for ub in (true, other)]
    x = np.vstack([p[np.linalg.norm(p, axis=1) < 0.9] for p in parts])
    axes, others = np.linalg.inv(true), np.linalg.inv(other)
    cells = {"right": axes, "double": axes * [[2], [1], [1]], "half": axes * [[0.5], [1], [1]],
             "mixed": np.vstack([axes[:2], others[2]])}  # fmt: skip
    scores = {}
    for name, basis in cells.items():
        trial = refined(x, np.linalg.inv(basis * np.sign(np.linalg.det(basis))), 0.3 / 5.5)
        assert trial is not None
        scores[name] = likelihood(x, trial)
    assert max(scores, key=lambda name: scores[name]) == "right"
    assert scores["right"] > scores["double"] + 50


def test_peaks_without_a_lattice_are_told() -> None:
    noise = np.random.default_rng(1).uniform(-0.7, 0.7, (400, 3))
    with pytest.raises(InputError, match="no lattice found"):
        find_cell(noise, IndexingSpec())
    with pytest.raises(InputError, match="too few peaks"):
        find_cell(noise[:6], IndexingSpec())


def test_names_of_lattices_and_their_groups() -> None:
    groups = {"P b c a": "oP", "I a -3": "cI", "I 41/a m d:1": "tI", "B b m m": "oC", "R -3 c": "hR",
              "C 1 2/c 1": "mC", "P -1": "aP", "P 32 2 1": "hP"}  # fmt: skip
    assert {name: symbol_of(name) for name in groups} == groups
    for laue, centring in product(("mmm", "m-3", "4/m", "2/m", "-3", "-3m", "6/mmm", "m-3m"), "PI"):
        if centring == "I" and laue[:2] in ("-3", "6/", "2/"):
            continue
        group = gemmi.find_spacegroup_by_name(group_of(laue, centring))
        assert (group.laue_str(), group.hm[0], group.is_symmorphic()) == (laue, centring, True)


def metric_of(cell: np.ndarray) -> np.ndarray:
    basis = reciprocal_basis(cell)
    return basis.T @ basis


def test_the_metric_of_every_setting_is_that_of_its_operations() -> None:
    for group in gemmi.spacegroup_table():
        name, laue = group.xhm(), group.laue_str()
        for make in (constrained_cell, constrained_tied):
            g = metric_of(make(metric_class(laue, name), np.array([5.0, 6.0, 7.0, 93.0, 98.0, 104.0])))
            for r in laue_rotations(laue, name):
                np.testing.assert_allclose(r @ g @ r.T, g, atol=1e-9, err_msg=name)


OBLIQUE = {"b": (6.1, 5.4, 8.3, 90, 102, 90), "c": (6.1, 8.3, 5.4, 90, 90, 102), "a": (5.4, 6.1, 8.3, 102, 90, 90)}
RHOMBOHEDRAL = (5.4, 5.4, 5.4, 55, 55, 55)


@pytest.mark.parametrize(
    ("group", "cell"),
    [
        *((name, OBLIQUE["b"]) for name in ("P 1 21/c 1", "P 1 21/n 1", "P 1 21/a 1", "C 1 2/c 1", "A 1 2/n 1",
                                           "I 1 2/a 1", "I 1 2/c 1")),
        *((name, OBLIQUE["c"]) for name in ("P 1 1 21/b", "P 1 1 21/n", "B 1 1 2/b")),
        ("P 21/b 1 1", OBLIQUE["a"]),
        ("R -3 :R", RHOMBOHEDRAL),
        ("R -3 c:R", RHOMBOHEDRAL),
    ],
)  # fmt: skip
def test_axes_of_a_lattice_found_are_those_of_the_group(
    monkeypatch: pytest.MonkeyPatch, group: str, cell: tuple[float, ...]
) -> None:
    """No peak lies on a node that the group extinguishes, and the metric is that of the setting."""
    true = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix() @ reciprocal_basis(cell)
    hkl = candidates(true, 0.7)
    x = hkl[~absent(hkl, group)] @ true.T
    centring = "P" if cell == RHOMBOHEDRAL else group[0]
    reduced = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix() @ primitive(cell, centring)
    chosen = next(b for b in bravais_lattices(reduced, 1.0) if b.symbol == symbol_of(group))
    monkeypatch.setattr(lattice, "to_reciprocal", lambda *_: x)
    monkeypatch.setattr(lattice, "to_sample", lambda *_: x)
    ub = lattice._axes(chosen, true_geometry(3), SimpleNamespace(frame=0, pixels=0), ReduceSpec(spacegroup=group))  # type: ignore[arg-type]
    found = x @ np.linalg.inv(ub).T
    np.testing.assert_allclose(found, np.rint(found), atol=1e-6)
    assert not absent(np.rint(found).astype(int), group).any()
    assert np.linalg.det(ub) > 0
    metric = metric_class(gemmi.find_spacegroup_by_name(group).laue_str(), group)
    np.testing.assert_allclose(constrained_cell(metric, cell_of(ub)), cell_of(ub), atol=1e-6)


def test_a_half_turn_about_the_unique_axis_is_no_misorientation() -> None:
    ub = reciprocal_basis(OBLIQUE["c"])
    turned = Rotation.from_rotvec([0, 0, np.pi]).as_matrix() @ ub
    assert misorientation(ub, turned, "2/m", "P 1 1 21/b")[0] < 1e-6
    assert misorientation(ub, turned, "2/m")[0] > 90
