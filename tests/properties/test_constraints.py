"""What a user holds or restrains beside symmetry: kept in every step, counted honestly, refused where it cannot be."""

from dataclasses import replace

import numpy as np
import pytest
from goldens import shipped

from nanoed.pipeline.refine.neighbours import bound_to, neighbours
from nanoed.pipeline.refine.parameters import Parameters, free_parameters, parameters_of
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError


def made(name_or_crystal: str | Crystal, **settings) -> Parameters:
    crystal = shipped(name_or_crystal) if isinstance(name_or_crystal, str) else name_or_crystal
    return parameters_of(crystal, RefineSpec.model_validate(settings))


def moved(parameters: Parameters, seed: int = 3) -> Crystal:
    shift = np.random.default_rng(seed).normal(0, 2e-3, len(parameters.start))
    return parameters.apply(parameters.start + shift)


def test_fixed_parameters_stay() -> None:
    free = made("brookite")
    held = made("brookite", constraints={"fixed": ["Ti1.?", "O*.U_iso"]})
    assert set(free.names) - set(held.names) == {"Ti1.x", "Ti1.y", "Ti1.z", "O1.U_iso", "O2.U_iso"}
    after, before = moved(held), shipped("brookite")
    assert after.xyz[0] == pytest.approx(before.xyz[0], abs=1e-15)
    assert after.u_iso[1:] == pytest.approx(before.u_iso[1:], abs=1e-15)
    assert np.abs(after.xyz[1:] - before.xyz[1:]).max() > 1e-4


def test_shared_parameters_have_one_value() -> None:
    shared = made("brookite", constraints={"shared": [["O1.U_iso", "O2.U_iso"]]})
    assert len(shared.names) == len(made("brookite").names) - 1
    before, after = shipped("brookite"), moved(shared)
    assert after.u_iso[1] == pytest.approx(after.u_iso[2], abs=1e-15)
    assert shared.crystal.u_iso[1] == pytest.approx(before.u_iso[1:].mean())
    assert after.u_iso[1] != pytest.approx(shared.crystal.u_iso[1], abs=1e-6)


def test_linear_equations_hold() -> None:
    terms = {"Ti1.x": 1.0, "O1.x": -2.0}
    linear = made("brookite", constraints={"linear": [{"terms": terms, "value": 0.12}]})
    for crystal in (linear.crystal, moved(linear)):
        assert crystal.xyz[0, 0] - 2 * crystal.xyz[1, 0] == pytest.approx(0.12, abs=1e-12)
    kept = made("brookite", constraints={"linear": [{"terms": terms}]})
    before = shipped("brookite").xyz
    assert moved(kept).xyz[0, 0] - 2 * moved(kept).xyz[1, 0] == pytest.approx(
        before[0, 0] - 2 * before[1, 0], abs=1e-12
    )


def test_a_vacancy_is_refined_by_itself() -> None:
    names = made("brookite", constraints={"free_occupancies": ["O2"]}).names
    assert [n for n in names if n.endswith("occupancy")] == ["O2.occupancy"]


@pytest.mark.parametrize(
    ("constraints", "told"),
    [
        ({"fixed": ["Zr1.x"]}, "Zr1.x"),
        ({"shared": [["O9.U_iso", "O1.U_iso"]]}, "O9.U_iso"),
        ({"linear": [{"terms": {"Ti1.q": 1.0}}]}, "Ti1.q"),
        ({"fixed": ["Ti1.x"], "linear": [{"terms": {"Ti1.x": 1.0}, "value": 0.3}]}, "contradict"),
        ({"fixed": ["*"]}, "no free parameters"),
        ({"linear": [{"terms": {"Ti1.x": 0.0, "O1.x": 0.0}}]}, "all coefficients are zero"),
        ({"linear": [{"terms": {"Ti1.x": 1.0, "Ti1.[x]": -1.0}}]}, "all coefficients are zero"),
    ],
)
def test_constraints_that_cannot_be_kept(constraints: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        made("brookite", constraints=constraints)


def test_a_polar_axis_that_an_atom_fixes_is_not_fixed_twice() -> None:
    """Pca21: z floats; holding Ti1.z leaves the other z's independent, as many as by the centre of charge."""
    polar = replace(shipped("brookite"), spacegroup="P c a 21")
    floating, held = made(polar), made(polar, constraints={"fixed": ["Ti1.z"]})
    assert len(floating.names) == len(held.names)
    shift = held.jacobian[:, 2] @ np.arange(1.0, len(held.names) + 1)
    assert shift[0] == 0
    assert np.abs(shift[1:]).min() > 0


POLAR = {"P 1": np.eye(3), "P 1 m 1": np.eye(3)[[0, 2]], "R 3 :R": np.ones((1, 3)), "I 4": np.eye(3)[[2]]}


@pytest.mark.parametrize("group", POLAR)
def test_no_polar_shift_is_left(group: str) -> None:
    """No combination of the parameters moves all atoms alike along a polar direction."""
    cell = {"P 1 m 1": (5.0, 6.0, 7.0, 90.0, 100.0, 90.0), "R 3 :R": (5.0, 5.0, 5.0, 80.0, 80.0, 80.0)}
    crystal = Crystal(
        "x", cell.get(group, (5.0, 5.0, 7.0, 90.0, 90.0, 90.0)), group, ("Si1", "O1"), ("Si", "O"),
        np.array([[0.11, 0.27, 0.33], [0.4, 0.37, 0.71]]), np.ones(2), np.full(2, 0.01), np.full((2, 6), np.nan),
    )  # fmt: skip
    parameters = free_parameters(crystal)
    shifts = parameters.jacobian[:, :3].reshape(6, -1)
    for direction in POLAR[group]:
        uniform = np.tile(direction, 2)
        moves = np.linalg.lstsq(shifts, uniform, rcond=None)[0]
        assert np.abs(shifts @ moves - uniform).max() > 1e-3
    assert np.linalg.matrix_rank(shifts) == 6 - len(POLAR[group])


def test_a_rounded_special_position_is_put_back() -> None:
    """0.333 for 1/3 leaves the site on its threefold axis, in position as in multiplicity."""
    crystal = Crystal(
        "x", (4.0, 4.0, 6.0, 90.0, 90.0, 120.0), "P -3 m 1", ("O1",), ("O",), np.array([[0.333, 0.667, 0.2]]),
        np.ones(1), np.full(1, 0.01), np.full((1, 6), np.nan),
    )  # fmt: skip
    parameters = free_parameters(crystal)
    assert parameters.names == ("O1.z", "O1.U_iso")
    assert parameters.crystal.xyz[0, :2] == pytest.approx([1 / 3, 2 / 3], abs=1e-12)
    assert parameters.crystal.multiplicities[0] == 2


def ice() -> Crystal:
    """A water molecule in a box without symmetry, its second hydrogen given as an image of the cell next door."""
    a = 5.0
    xyz = np.array([[0.1, 0.2, 0.3], [0.1 + 0.96 / a, 0.2, 0.3], [0.1 - 0.24 / a, 0.2 + 0.93 / a - 1, 0.3]])
    return Crystal(
        "ice", (a, a, a, 90.0, 90.0, 90.0), "P -1", ("O1", "H1", "H2"), ("O", "H", "H"), xyz, np.ones(3),
        np.array([0.02, 0.03, 0.03]), np.full((3, 6), np.nan),
    )  # fmt: skip


@pytest.mark.parametrize("adp_model", ["isotropic", "anisotropic"])
def test_hydrogen_rides(adp_model: str) -> None:
    riding = made(ice(), adp_model=adp_model)
    assert all(name.startswith("O1.") for name in riding.names)
    after = moved(riding)
    shift = after.xyz - riding.crystal.xyz
    assert shift[1] == pytest.approx(shift[0], abs=1e-15)
    assert shift[2] == pytest.approx(shift[0], abs=1e-15)
    assert np.abs(shift[0]).max() > 1e-4
    assert after.u_iso[1:] == pytest.approx(1.5 * after.u_iso[0])
    assert np.isnan(after.u_ij[1:]).all()
    su = riding.uncertainties(np.eye(len(riding.names)) * 1e-8)
    assert (su["xyz"][1] > 0).all()


def with_hydrogen(parent: str, directions: np.ndarray, occupancy: float = 1.0) -> Crystal:
    """An atom in a box without symmetry and a hydrogen atom 1 Å away in each direction (n, 3), and no other."""
    n, a = len(directions), 6.0
    bonds = directions / np.linalg.norm(directions, axis=1)[:, None] / a
    xyz = np.array([0.3, 0.4, 0.5]) + np.vstack([np.zeros((1, 3)), bonds])
    return Crystal(
        "x", (a, a, a, 90.0, 90.0, 90.0), "P 1", (f"{parent}1", *(f"H{i}" for i in range(n))), (parent, *["H"] * n),
        xyz, np.array([1.0] + [occupancy] * n), np.full(n + 1, 0.02), np.full((n + 1, 6), np.nan),
    )  # fmt: skip


THREE = np.array([[1.0, 0.2, -0.5], [-0.6, 0.9, -0.5], [-0.4, -1.1, -0.5]])


@pytest.mark.parametrize(
    ("crystal", "factor"),
    [
        (with_hydrogen("C", THREE[:1]), 1.2),
        (with_hydrogen("C", THREE[:2]), 1.2),
        (with_hydrogen("C", THREE), 1.5),
        (with_hydrogen("C", np.vstack([THREE, THREE * [-1, -1, 1]]), 0.5), 1.5),
        (with_hydrogen("C", np.vstack([THREE[:2], -THREE[:2]]), 0.5), 1.2),
        (with_hydrogen("N", THREE), 1.5),
        (with_hydrogen("N", THREE[:2]), 1.2),
        (with_hydrogen("O", THREE[:1]), 1.5),
    ],
)
def test_hydrogen_that_swings_moves_more(crystal: Crystal, factor: float) -> None:
    """Methyl (disordered or not), NH3, hydroxyl and water 1.5, others 1.2 times U_eq; both can be set."""
    assert made(crystal).crystal.u_iso[1:] == pytest.approx(factor * 0.02)
    asked = made(crystal, constraints={"riding_u": 2.0, "riding_u_rotor": 3.0}).crystal
    assert asked.u_iso[1:] == pytest.approx({1.2: 0.04, 1.5: 0.06}[factor])


def test_hydrogen_that_does_not_ride() -> None:
    assert "H1.x" in made(ice(), constraints={"hydrogens": "free"}).names
    fixed = made(ice(), constraints={"hydrogens": "fixed"})
    assert moved(fixed).xyz[1:] == pytest.approx(ice().xyz[1:])
    lonely = replace(ice(), xyz=ice().xyz + 0.4 * np.eye(3)[[1, 0, 1]] * [[0], [1], [0]])
    with pytest.raises(InputError, match="H1"):
        made(lonely)


def test_neighbours_of_silicon() -> None:
    """Quartz: four oxygens in two pairs, near 1.61 Å."""
    found = bound_to(shipped("quartz"), 0)
    assert len(found) == 2
    assert [b.length for b in found] == pytest.approx([1.61, 1.61], abs=0.02)
    assert all(n.length > 2.9 for n in neighbours(shipped("quartz"), 0, 3.2) if n.other == 0)


def box(group: str, elements: str, xyz: list[list[float]]) -> Crystal:
    labels = tuple(f"{e}{i}" for i, e in enumerate(elements, 1))
    n = len(labels)
    return Crystal(
        "x", (8.0, 9.0, 10.0, 90.0, 90.0, 90.0), group, labels, tuple(elements), np.array(xyz), np.ones(n),
        np.full(n, 0.01), np.full((n, 6), np.nan),
    )  # fmt: skip


def test_neighbours_at_one_distance_are_not_one() -> None:
    """Silicon as far from an oxygen as from its inverted image has two bonds, which no symmetry makes equal."""
    both = box("P -1", ["Si", "O"], [[0.0, 0.15, 0.03], [0.1, 0.0, 0.0]])
    found = [b for b in bound_to(both, 0) if b.other == 1]
    assert len(found) == 2
    assert found[0].length == pytest.approx(found[1].length, abs=1e-12)
    one = box("P m m m", ["Si", "O"], [[0.0, 0.15, 0.03], [0.1, 0.0, 0.0]])
    assert len([b for b in bound_to(one, 0) if b.other == 1]) == 1
    made_of = made(both, restraints={"bonds": [{"atoms": ["Si1", "O2"], "length_A": 1.6}]})
    assert len(made_of.restraints.bonds) == 2


def test_a_chain_of_images_has_one_bond() -> None:
    """Along a screw axis the image above and the one below are one bond, told once."""
    chain = box("P 21", ["S"], [[0.05, 0.0, 0.0]])
    chain = replace(chain, cell=(8.0, 3.4, 10.0, 90.0, 90.0, 90.0))
    assert [b.length for b in bound_to(chain, 0)] == pytest.approx([np.hypot(0.8, 1.7)])


@pytest.mark.parametrize(
    ("group", "xyz", "similar", "rigid"),
    [
        ("P 1 2 1", [0.09, 0.1, 0.0], 6, 0),  # exchanged by the axis: the bond turns round
        ("P -1", [0.06, 0.05, 0.03], 0, 0),  # an inversion leaves the tensor as it is
        ("P 21", [0.07, 0.0, 0.0], 6, 1),
        ("P 1 2/m 1", [0.09, 0.0, 0.0], 0, 0),  # the axis with the site's own mirror is an inversion
    ],
)
def test_restraints_between_images_of_one_site(group: str, xyz: list[float], similar: int, rigid: int) -> None:
    short = replace(box(group, ["C"], [xyz]), cell=(8.0, 2.0 if group == "P 21" else 9.0, 10.0, 90.0, 90.0, 90.0))
    for kind, expected in (("similar", similar), ("rigid_bond", rigid)):
        asked = {"adps": [{"kind": kind, "su_A2": 0.01}]}
        parameters = made(short, adp_model="anisotropic", restraints=asked)
        at = parameters.start + 1e-3 * np.arange(1, len(parameters.start) + 1)
        residual, slope = parameters.restrained(at)
        assert len(residual) == expected
        if expected:
            assert np.abs(residual).max() > 1e-6
            assert np.abs(slope).max() > 1e-3


RESTRAINTS = {
    "bonds": [{"atoms": ["Si1", "O1"], "length_A": 1.6, "su_A": 0.01}],
    "adps": [
        {"kind": "rigid_bond", "su_A2": 0.002},
        {"kind": "similar", "su_A2": 0.01},
        {"kind": "isotropic", "su_A2": 0.01, "atoms": ["O*"]},
    ],
}


def test_derivatives_of_restraints() -> None:
    parameters = made("quartz", adp_model="anisotropic", restraints=RESTRAINTS)
    at = parameters.start + np.random.default_rng(1).normal(0, 2e-3, len(parameters.start))
    residual, slope = parameters.restrained(at)
    assert len(residual) == 2 + 2 + 12 + 6
    for k in range(len(at)):
        step = 1e-4 * np.eye(len(at))[k]
        near = parameters.restrained(at + step)[0] - parameters.restrained(at - step)[0]
        far = parameters.restrained(at + 2 * step)[0] - parameters.restrained(at - 2 * step)[0]
        expected = -(8 * near - far) / 12e-4
        assert slope[:, k] == pytest.approx(expected, abs=1e-6 * max(1.0, np.abs(expected).max()))
    assert np.abs(slope[:, 0]).max() > 1


def test_restraints_of_a_sphere_are_kept() -> None:
    """A sphere is isotropic, equal tensors are similar and rigid; a bond of another length is not 1.6 Å."""
    sphere = free_parameters(free_parameters(shipped("quartz")).crystal, "anisotropic").crystal
    equal = replace(sphere, u_iso=np.full(2, 0.01), u_ij=np.full((2, 6), np.nan))
    parameters = made(equal, adp_model="anisotropic", restraints=RESTRAINTS)
    residual, _ = parameters.restrained(parameters.start)
    assert np.abs(residual[2:]).max() < 1e-10
    lengths = [b.length for b in bound_to(equal, 0)]
    assert residual[:2] == pytest.approx([(1.6 - x) / 0.01 for x in lengths])


@pytest.mark.parametrize(
    ("restraints", "told"),
    [
        ({"bonds": [{"atoms": ["Si1", "O7"], "length_A": 1.6}]}, "O7"),
        ({"bonds": [{"atoms": ["Si1", "O1"], "length_A": 2.4}]}, "no such bond"),
        ({"adps": [{"kind": "isotropic", "su_A2": 0.01, "atoms": ["N*"]}]}, "anisotropic"),
    ],
)
def test_restraints_that_fit_nothing(restraints: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        made("quartz", adp_model="anisotropic", restraints=restraints)
