"""Free parameters: what symmetry and composition leave, counted and kept."""

from dataclasses import replace

import numpy as np
import pytest
from goldens import shipped

from nanoed.pipeline.refine.parameters import free_parameters
from nanoed.pipeline.refine.sites import free_tensors, isotropic_tensor
from nanoed.sim.physics.crystal import Crystal, u_matrix
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.scattering import allowed, reflections_within, structure_factors

QUARTZ = ["Si1.x", "Si1.U11", "Si1.U22", "Si1.U33", "Si1.U13"]


def varied(crystal: Crystal, seed: int = 3, **choices) -> Crystal:
    """The crystal with all its free parameters moved at random."""
    parameters = free_parameters(crystal, **choices)
    shift = np.random.default_rng(seed).normal(0, 3e-3, len(parameters.start))
    return parameters.apply(parameters.start + shift)


@pytest.mark.parametrize(
    ("name", "isotropic", "anisotropic"),
    [("anatase", 3, 6), ("brookite", 12, 27), ("ito", 7, 16), ("quartz", 6, 14), ("mgti2o5", 13, 26)],
)
def test_counts(name: str, isotropic: int, anisotropic: int) -> None:
    """16 for ITO: 4 coordinates and 12 U_ij, as the published refinement counts them."""
    assert len(free_parameters(shipped(name)).names) == isotropic
    assert len(free_parameters(shipped(name), "anisotropic").names) == anisotropic


def test_composition_leaves_one_occupancy() -> None:
    crystal = shipped("mgti2o5")
    occupancies = [n for n in free_parameters(crystal, occupancies="composition").names if "occ" in n]
    assert len(occupancies) == 1
    moved = varied(crystal, occupancies="composition")
    assert moved.occupancy != pytest.approx(crystal.occupancy)
    for element in ("Mg", "Ti"):
        of_element = crystal.multiplicities * (np.array(crystal.elements) == element)
        assert of_element @ moved.occupancy == pytest.approx(of_element @ crystal.occupancy, rel=1e-12)
    assert moved.occupancy[0] + moved.occupancy[1] == pytest.approx(1)
    assert len([n for n in free_parameters(crystal, occupancies="sites").names if "occ" in n]) == 2


@pytest.mark.parametrize("name", ["anatase", "ito", "quartz", "mgti2o5"])
def test_symmetry_survives(name: str) -> None:
    """Equivalent reflections keep equal amplitudes: the moved atoms and tensors still have their site's symmetry."""
    crystal = varied(shipped(name), adp_model="anisotropic")
    hkl = reflections_within(crystal, 0.7)
    f = np.abs(structure_factors(crystal, hkl))
    for rotation in crystal.rotations:
        assert np.abs(structure_factors(crystal, hkl @ rotation)) == pytest.approx(f, abs=1e-9)
    assert f[~allowed(crystal, hkl)] == pytest.approx(0, abs=1e-9)
    assert asymmetry(crystal) < 1e-12


def asymmetry(crystal: Crystal) -> float:
    """Largest change of a U* by an operation of its site."""
    lengths = np.linalg.norm(crystal.reciprocal_basis, axis=0)
    worst = 0.0
    for site, x in enumerate(crystal.xyz):
        star = u_matrix(crystal.u_ij[site]) * np.outer(lengths, lengths)
        turned = crystal.rotations @ x + crystal.translations - x
        stays = np.abs(turned - np.rint(turned)).max(axis=1) < 1e-4
        worst = max(worst, *(np.abs(r @ star @ r.T - star).max() for r in crystal.rotations[stays]))
    return float(worst)


def test_a_tensor_off_the_site_symmetry_is_seen() -> None:
    """What the constraints forbid: U23 alone on silicon's twofold axis in quartz."""
    crystal = free_parameters(shipped("quartz"), "anisotropic").crystal
    assert asymmetry(crystal) < 1e-12
    u_ij = crystal.u_ij.copy()
    u_ij[0, 5] += 3e-3
    assert asymmetry(replace(crystal, u_ij=u_ij)) > 1e-5


def test_given_tensors_get_the_symmetry_of_their_site() -> None:
    """Those of a CIF with four digits, say; one that is right stays as it is to the last bit."""
    right = varied(shipped("quartz"), adp_model="anisotropic")
    assert (free_parameters(right, "as_model").crystal.u_ij == right.u_ij).all()
    rounded = replace(right, u_ij=np.round(right.u_ij, 4))
    assert asymmetry(rounded) > 1e-8
    found = free_parameters(rounded, "as_model").crystal
    assert asymmetry(found) < 1e-15
    assert found.u_ij == pytest.approx(rounded.u_ij, abs=1e-4)


@pytest.mark.parametrize("kinds", [(True, False), (False, True), (True, True)])
def test_elements_on_one_site_share_their_displacement(kinds: tuple[bool, bool]) -> None:
    """Ti and Mg, one of them isotropic, or with unlike U, in the model: the first's holds, at the start and later."""
    crystal = shipped("mgti2o5")
    u_iso, u_ij = crystal.u_iso + np.array([0, 0.002, 0, 0.002, 0, 0, 0]), crystal.u_ij.copy()
    for site, anisotropic in zip((0, 1), kinds, strict=True):
        if anisotropic:
            u_ij[site] = isotropic_tensor(crystal, u_iso[site])
    moved = varied(replace(crystal, u_iso=u_iso, u_ij=u_ij), adp_model="as_model")
    for one, other in ((0, 1), (2, 3)):
        np.testing.assert_array_equal(moved.u_ij[one], moved.u_ij[other])
        assert moved.u_iso[one] == moved.u_iso[other]
    assert np.isfinite(moved.u_ij[0]).all() == kinds[0]


def test_sphere_of_any_cell() -> None:
    """A sphere is allowed on every site, its U_eq is U_iso and its structure factors those of U_iso."""
    crystal = shipped("quartz")
    isotropic = free_parameters(crystal).crystal
    sphere = free_parameters(isotropic, "anisotropic")
    hkl = reflections_within(crystal, 1.0)
    found = structure_factors(sphere.apply(sphere.start), hkl)
    assert found == pytest.approx(structure_factors(isotropic, hkl), abs=1e-10)
    assert sphere.apply(sphere.start).u_iso == pytest.approx(isotropic.u_iso, rel=1e-12)
    free = free_tensors(crystal, crystal.xyz[0])
    tensor = isotropic_tensor(crystal, 0.01)
    assert sum(tensor[k] * row for k, row in free) == pytest.approx(tensor, abs=1e-14)


def test_polar_axis_keeps_the_centre_of_charge() -> None:
    crystal = replace(shipped("brookite"), spacegroup="P c a 21")
    names = free_parameters(crystal).names
    assert len(names) == len(free_parameters(shipped("brookite")).names) - 1
    assert "Ti1.z" not in names
    moved = varied(crystal)
    charge = np.where(np.array(crystal.elements) == "Ti", 22.0, 8.0) * crystal.multiplicities
    assert charge @ (moved.xyz - crystal.xyz)[:, 2] == pytest.approx(0, abs=1e-12)
    assert abs(charge @ (moved.xyz - crystal.xyz)[:, 0]) > 1e-3


def test_uncertainties_of_an_anisotropic_site() -> None:
    parameters = free_parameters(shipped("quartz"), "anisotropic")
    assert list(parameters.names[:5]) == QUARTZ
    su = parameters.uncertainties(np.diag(np.full(len(parameters.names), 1e-8)))
    assert su["u_ij"].shape == (2, 6)
    assert su["u_ij"][0, 0] == pytest.approx(1e-4)
    assert (su["u_iso"] > 0).all()
    assert su["occupancy"] == pytest.approx(0)


def test_nothing_to_refine() -> None:
    crystal = shipped("quartz")
    empty = replace(crystal, labels=(), elements=(), xyz=np.empty((0, 3)), occupancy=np.empty(0),
                    u_iso=np.empty(0), u_ij=np.empty((0, 6)))  # fmt: skip
    with pytest.raises(InputError, match="no free parameters"):
        free_parameters(empty)
