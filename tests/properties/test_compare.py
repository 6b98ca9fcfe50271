"""Laws of structure comparison: another description of a structure is the same structure."""

import importlib.resources
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import gemmi
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.scattering import structure_factors
from nanoed.studies.compare import compare, format_comparison
from nanoed.studies.normaliser import Group, mappings

PROPERTY = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


class Setting(NamedTuple):
    """A space group, a cell, and coordinate triplets of its normaliser beyond the group itself."""

    group: str
    cell: tuple[float, ...]
    normaliser: tuple[str, ...]
    polar: tuple[int, ...] = ()


# The additional generators are those of International Tables A, Euclidean normalisers.
SETTINGS = (
    Setting("P b c a", (9.1, 5.5, 5.1, 90, 90, 90), ("x+1/2,y,z", "x,y+1/2,z", "x,y,z+1/2")),
    Setting("P b c a", (6.1, 6.1, 6.1, 90, 90, 90), ("x+1/2,y,z", "y,z,x")),
    Setting("P 1 21/c 1", (6.0, 7.3, 8.1, 90, 103, 90), ("x+1/2,y,z", "x,y+1/2,z", "x,y,z+1/2")),
    Setting("P -1", (6.0, 7.3, 8.1, 81, 103, 95), ("x+1/2,y,z", "x,y+1/2,z", "x,y,z+1/2")),
    Setting("P 21 21 21", (6.0, 7.3, 9.4, 90, 90, 90), ("x+1/2,y,z", "x,y,z+1/2", "-x,-y,-z")),
    Setting("I 41/a m d:1", (5.8, 5.8, 9.5, 90, 90, 90), ("x,y,z+1/2",)),
    Setting("I 41/a m d:2", (5.8, 5.8, 9.5, 90, 90, 90), ("x,y,z+1/2",)),
    Setting("C m c m", (5.8, 7.7, 9.5, 90, 90, 90), ("x+1/2,y,z", "x,y,z+1/2")),
    Setting("I a -3", (9.5, 9.5, 9.5, 90, 90, 90), ("y+1/4,x+1/4,z+1/4",)),
    Setting("P 32 2 1", (6.9, 6.9, 8.4, 90, 90, 120), ("-x,-y,z", "x,y,z+1/2")),
    Setting("P 1 21 1", (6.0, 7.3, 8.1, 90, 103, 90), ("x+1/2,y,z", "x,y,z+1/2", "-x,-y,-z"), (1,)),
    Setting("P n a 21", (6.0, 7.3, 8.1, 90, 90, 90), ("x+1/2,y,z", "x,y+1/2,z", "x,y,-z"), (2,)),
    Setting("P 31", (6.9, 6.9, 8.4, 90, 90, 120), ("-x,-y,z", "x+2/3,y+1/3,z"), (2,)),
    Setting("P 1", (6.0, 7.3, 8.1, 81, 103, 95), ("-x,-y,-z",), (0, 1, 2)),
)
settings_and_seeds = st.tuples(st.sampled_from(SETTINGS), st.integers(0, 2**32 - 1))


def make(
    group: str, cell: tuple[float, ...], xyz: np.ndarray, elements: tuple[str, ...], u_ij=None
) -> Crystal:
    n = len(elements)
    return Crystal(
        name="made",
        cell=tuple(map(float, cell)),
        spacegroup=group,
        labels=tuple(f"{e}{i}" for i, e in enumerate(elements)),
        elements=elements,
        xyz=np.asarray(xyz, dtype=float),
        occupancy=np.ones(n),
        u_iso=np.full(n, 0.005),
        u_ij=np.full((n, 6), np.nan) if u_ij is None else u_ij,
    )


def random_crystal(setting: Setting, rng: np.random.Generator, anisotropic: bool = False) -> Crystal:
    """Four atoms of two elements, at least 0.3 Å from each other and from their own images."""
    elements = ("O", "Ti", "O", "Ti")
    while True:
        crystal = make(setting.group, setting.cell, rng.random((4, 3)), elements)
        images = np.einsum("gij,nj->gni", crystal.rotations, crystal.xyz) + crystal.translations[:, None]
        delta = images[:, :, None] - crystal.xyz
        distance = np.linalg.norm((delta - np.rint(delta)) @ crystal.frac_to_cart.T, axis=-1)
        if (distance < 0.3).sum() == len(elements):
            break
    u_ij = None
    if anisotropic:
        u_ij = np.hstack([rng.uniform(0.004, 0.012, (4, 3)), rng.uniform(-0.002, 0.002, (4, 3))])
    return make(setting.group, setting.cell, crystal.xyz, elements, u_ij)


def rewritten(crystal: Crystal, setting: Setting, rng: np.random.Generator) -> Crystal:
    """The same atoms after random normaliser elements, operations, lattice translations and a permutation."""
    operations = list(gemmi.SpaceGroup(setting.group).operations())
    xyz = crystal.xyz
    for _ in range(3):
        op = gemmi.Op(setting.normaliser[rng.integers(len(setting.normaliser))])
        xyz = np.array([op.apply_to_xyz(x) for x in xyz.tolist()])
    for axis in setting.polar:
        xyz[:, axis] += rng.random()
    xyz = np.array([operations[rng.integers(len(operations))].apply_to_xyz(x) for x in xyz.tolist()])
    xyz += rng.integers(-2, 3, xyz.shape)
    order = rng.permutation(len(xyz))
    return replace(
        crystal,
        labels=tuple(crystal.labels[i] for i in order),
        elements=tuple(crystal.elements[i] for i in order),
        xyz=xyz[order],
    )


def shipped(name: str) -> Crystal:
    return read_cif(importlib.resources.files("nanoed.studies") / "structures" / f"{name}.cif")


@PROPERTY
@given(settings_and_seeds)
def test_another_description_is_the_same_structure(case):
    setting, seed = case
    rng = np.random.default_rng(seed)
    crystal = random_crystal(setting, rng)
    found = compare(rewritten(crystal, setting, rng), crystal)
    assert found.d_max_A < 1e-4
    assert found.degree_of_lattice_distortion < 1e-9
    assert list(found.atoms["element"]) == list(crystal.elements)


@PROPERTY
@given(settings_and_seeds, st.floats(1e-3, 0.05))
def test_displacements_come_back(case, size):
    setting, seed = case
    rng = np.random.default_rng(seed)
    crystal = random_crystal(setting, rng)
    step = rng.normal(size=(4, 3))
    step *= size / np.linalg.norm(step, axis=1, keepdims=True)
    fractional = np.linalg.solve(crystal.frac_to_cart, step.T).T
    moved = replace(crystal, xyz=crystal.xyz + fractional)
    found = compare(rewritten(moved, setting, rng), crystal)
    if setting.polar:
        assert found.d_max_A <= 2 * size
        weight = found.atoms["multiplicity"]
        for axis in setting.polar if len(setting.polar) == 3 else ():
            assert np.average(found.atoms[("dx_A", "dy_A", "dz_A")[axis]], weights=weight) == pytest.approx(
                0, abs=1e-9
            )
    else:
        np.testing.assert_allclose(found.atoms["distance_A"], size, rtol=1e-6)
        np.testing.assert_allclose(found.d_av_A, size, rtol=1e-6)


@PROPERTY
@given(settings_and_seeds)
def test_exchange_changes_nothing_in_equal_cells(case):
    setting, seed = case
    rng = np.random.default_rng(seed)
    one, two = random_crystal(setting, rng), random_crystal(setting, rng)
    forth, back = compare(one, two), compare(two, one)
    assert forth.d_av_A == pytest.approx(back.d_av_A, rel=0.3 if setting.polar else 1e-6)
    assert forth.inverted == back.inverted or setting.polar


@PROPERTY
@given(settings_and_seeds)
def test_matched_structure_scatters_like_the_refined_one(case):
    """|F| of the matched crystal at h P is |F| of the refined one at h: coordinates and U are right."""
    setting, seed = case
    rng = np.random.default_rng(seed)
    crystal = random_crystal(setting, rng, anisotropic=True)
    reference = rewritten(crystal, setting, rng)
    found = compare(crystal, reference)
    hkl = rng.integers(-4, 5, (30, 3))
    turned = np.rint(hkl @ found.transform[0]).astype(int)
    before = np.abs(structure_factors(crystal, hkl, "peng"))
    after = np.abs(structure_factors(found.matched, turned, "peng"))
    np.testing.assert_allclose(after, before, atol=1e-6 * before.max() + 1e-9)


def test_two_origins_of_anatase():
    cell = (3.7842, 3.7842, 9.5146, 90, 90, 90)
    one = make("I 41/a m d:1", cell, [(0, 0, 0), (0, 0, 0.2081)], ("Ti", "O"))
    two = make("I 41/a m d:2", cell, [(0, 0.25, 0.1669), (0, 0.25, 0.375)], ("O", "Ti"))
    for found in (compare(one, two), compare(two, one)):
        assert found.d_max_A < 1e-9 + 9.5146 * 1e-4
        assert not found.inverted
    wrong = make("I 41/a m d:2", cell, [(0, 0, 0.2081), (0, 0, 0)], ("O", "Ti"))
    with pytest.raises(InputError):
        compare(wrong, one)  # the origin of the other choice: other multiplicities


def test_two_settings_of_pseudobrookite():
    b_setting = shipped("mgti2o5")
    c_setting = replace(
        b_setting,
        spacegroup="C m c m",
        cell=(*np.roll(b_setting.cell[:3], 1), 90.0, 90.0, 90.0),
        xyz=np.roll(b_setting.xyz, 1, axis=1),
    )
    found = compare(c_setting, b_setting)
    assert found.d_max_A < 1e-9
    assert len(found.atoms) == 5  # Ti and Mg share a site, which counts once
    assert tuple(found.matched.elements) == tuple(b_setting.elements)
    np.testing.assert_allclose(found.matched.occupancy, b_setting.occupancy)
    unchanged_cell = replace(c_setting, cell=b_setting.cell)
    with pytest.raises(InputError):
        compare(unchanged_cell, b_setting)


def test_exchange_coset_of_bixbyite():
    ito = shipped("ito")
    exchanged = replace(ito, xyz=ito.xyz[:, [1, 0, 2]] + 0.25)
    assert compare(exchanged, ito).d_max_A < 1e-9
    halfway = replace(ito, xyz=0.5 * (ito.xyz + (ito.xyz[:, [1, 0, 2]] + 0.25)))
    with pytest.raises(InputError):
        compare(halfway, ito)


def test_hand_is_reported_not_hidden():
    quartz = shipped("quartz")
    inverted = replace(quartz, xyz=-quartz.xyz, spacegroup="P 31 2 1")
    found = compare(inverted, quartz)
    assert found.inverted
    assert found.d_max_A < 1e-9
    assert "opposite" in format_comparison(found)
    assert not compare(quartz, quartz).inverted
    with pytest.raises(InputError):
        compare(inverted, quartz, allow_inversion=False)


def test_hand_in_a_group_that_has_both():
    rng = np.random.default_rng(1)
    crystal = make("P 21 21 21", (6.0, 7.3, 9.4, 90, 90, 90), rng.random((4, 3)), ("O", "Ti", "O", "Ti"))
    inverted = replace(crystal, xyz=-crystal.xyz)
    assert compare(inverted, crystal).inverted
    assert compare(inverted, crystal).d_max_A < 1e-9
    assert compare(inverted, crystal, allow_inversion=False).d_max_A > 0.2


def test_swapped_axes_are_seen():
    brookite = shipped("brookite")
    swapped = replace(brookite, xyz=brookite.xyz[:, [0, 2, 1]])
    assert compare(swapped, brookite).d_av_A > 0.2


def test_cell_of_the_reference_measures():
    brookite = shipped("brookite")
    long = replace(brookite, cell=tuple(x * 1.01 for x in brookite.cell[:3]) + brookite.cell[3:])
    step = np.array([[0.01, 0, 0]] * 3)
    found = compare(replace(long, xyz=long.xyz + step), brookite)
    np.testing.assert_allclose(found.atoms["dx_A"], 0.01 * brookite.cell[0], rtol=1e-9)
    # eta of a cell that is larger by 1 %: (1/1.01^2 - 1)/2, three times
    assert found.degree_of_lattice_distortion == pytest.approx((1 - 1.01**-2) / 2 / np.sqrt(3), rel=1e-9)


def test_uncertainties_follow_the_axes():
    b_setting = shipped("mgti2o5")
    c_setting = replace(
        b_setting,
        spacegroup="C m c m",
        cell=(*np.roll(b_setting.cell[:3], 1), 90.0, 90.0, 90.0),
        xyz=np.roll(b_setting.xyz, 1, axis=1),
    )
    su = np.arange(3 * len(b_setting.labels), dtype=float).reshape(-1, 3)
    np.testing.assert_allclose(compare(c_setting, b_setting).transformed_su(np.roll(su, 1, axis=1)), su)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: replace(c, elements=("Ti", "O", "N")), "compositions"),
        (lambda c: make(c.spacegroup, c.cell, c.xyz[:2], c.elements[:2]), "numbers of sites"),
        (lambda c: replace(c, spacegroup="P n m a"), "cell and space group"),
        (lambda c: replace(c, cell=(9.2, 9.2, 9.2, 90.0, 90.0, 90.0)), "cell and space group"),
    ],
    ids=["element", "missing atom", "group", "cell"],
)
def test_what_cannot_be_compared_says_so_in_one_line(change: Callable[[Crystal], Crystal], says: str):
    brookite = shipped("brookite")
    with pytest.raises(InputError, match=says) as caught:
        compare(change(brookite), brookite)
    assert "\n" not in str(caught.value)


def test_normaliser_of_p_b_c_a_has_eight_origins():
    group = gemmi.SpaceGroup("P b c a").operations()
    rotations = np.array([np.array(op.rot) // gemmi.Op.DEN for op in group])
    translations = np.array([np.array(op.tran) / gemmi.Op.DEN for op in group])
    metric = np.diag([81.0, 30.0, 26.0])
    found = mappings(
        metric, Group.of(rotations, translations), metric, Group.of(rotations, translations), 0.03, 0.3
    )
    shifts = {tuple(m.shift) for m in found}
    assert shifts == {(x, y, z) for x in (0.0, 0.5) for y in (0.0, 0.5) for z in (0.0, 0.5)}
