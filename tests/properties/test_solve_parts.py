"""Parts of structure solution: symmetry of a density, its origin, peaks and the assignment of elements."""

import gemmi
import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.io.ins import read_ins
from nanoed.pipeline.solve.atoms import Kind, Peaks, assign, density, find_peaks, kinds
from nanoed.pipeline.solve.data import lattice_centring
from nanoed.pipeline.solve.flipping import amplitudes, flip, mean_amplitude, normalised
from nanoed.pipeline.solve.spec import AtomSpec, FlippingSpec, SolveSpec, SymmetrySpec
from nanoed.pipeline.solve.symmetry import agreement_maps, averaged, candidates, find_symmetry
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.scattering import reflections_within, structure_factors

NAMES = ("brookite", "anatase", "ito", "mgti2o5", "quartz")


def shifted(name, shift=(0.137, 0.291, 0.443)):
    """All reflections and structure factors of a shipped structure whose origin is anywhere."""
    crystal = shipped(name)
    hkl = reflections_within(crystal, 1.2)
    return crystal, hkl, structure_factors(crystal, hkl) * np.exp(-2j * np.pi * hkl @ np.array(shift))


@pytest.mark.parametrize("name", NAMES)
def test_space_group_is_named_wherever_the_origin_lies(name):
    crystal, hkl, f = shifted(name)
    symmetry = find_symmetry(hkl, f, agreement_maps(hkl, f, crystal.laue_rotations), SymmetrySpec())
    wanted = gemmi.find_spacegroup_by_name(crystal.spacegroup)
    assert gemmi.find_spacegroup_by_name(symmetry.candidate.spacegroup).number == wanted.number
    assert symmetry.agreement.min() > 0.999
    assert len(symmetry.names) == len(symmetry.candidate.rotations) + len(symmetry.candidate.centring) - 1


@pytest.mark.parametrize("name", ["brookite", "quartz"])
def test_random_phases_have_no_symmetry(name):
    crystal, hkl, f = shifted(name)
    noise = np.random.default_rng(1).uniform(0, 2 * np.pi, len(hkl))
    order = {tuple(h): i for i, h in enumerate(hkl)}
    mate = np.array([order[tuple(-h)] for h in hkl])
    broken = np.abs(f) * np.exp(1j * (noise - noise[mate]))
    maps = agreement_maps(hkl, broken, crystal.laue_rotations)
    assert find_symmetry(hkl, broken, maps, SymmetrySpec()) is None


def test_the_hand_of_the_density_is_named():
    crystal, hkl, f = shifted("quartz")
    for values, name in ((f, "P 32 2 1"), (f.conj(), "P 31 2 1")):
        maps = agreement_maps(hkl, values, crystal.laue_rotations)
        assert find_symmetry(hkl, values, maps, SymmetrySpec()).candidate.spacegroup == name


def test_averaging_a_symmetric_density_moves_its_origin_alone():
    crystal, hkl, f = shifted("brookite")
    symmetry = find_symmetry(hkl, f, agreement_maps(hkl, f, crystal.laue_rotations), SymmetrySpec())
    out = averaged(hkl, f, symmetry)
    assert np.abs(out) == pytest.approx(np.abs(f), abs=1e-6 * np.abs(f).max())
    assert np.abs(out.imag).max() < 2e-2 * np.abs(out).max()


def test_candidates_have_exactly_the_matrices_of_the_laue_group():
    laue = tuple(tuple(int(x) for x in r.ravel()) for r in shipped("brookite").laue_rotations)
    names = {group.spacegroup for group in candidates(laue)}
    assert {"P b c a", "P c a b", "P n m a", "P 21 21 21", "B b m m", "F d d d:2"} <= names
    assert not {"P 1 21/c 1", "I 41/a m d:2", "P m -3"} & names


@pytest.mark.parametrize("normalise", [False, True])
def test_flipping_keeps_measured_moduli_and_friedel_pairs(normalise):
    crystal, hkl, f = shifted("anatase")
    spec = FlippingSpec(cycles=20, polish_cycles=2)
    d_star = np.linalg.norm(hkl @ crystal.reciprocal_basis.T, axis=1)
    data = amplitudes(hkl, np.abs(f), d_star, spec)
    phased = flip(data, 1.1, spec, np.random.default_rng(0), normalise)
    assert np.abs(phased.f) == pytest.approx(np.abs(f), rel=1e-6, abs=1e-9)
    order = {tuple(h): i for i, h in enumerate(hkl)}
    mate = np.array([order[tuple(-h)] for h in hkl])
    assert np.allclose(phased.f, phased.f[mate].conj())
    assert len(crystal.labels) == 2


@pytest.mark.parametrize("name", ["brookite", "anatase", "ito", "quartz"])
def test_peaks_of_the_true_density_are_the_sites_with_their_multiplicities(name):
    crystal, hkl, f = shifted(name, (0.0, 0.0, 0.0))
    laue = tuple(tuple(int(x) for x in r.ravel()) for r in crystal.laue_rotations)
    group = next(c for c in candidates(laue) if c.spacegroup == crystal.spacegroup)
    rho = density(hkl, f, crystal.cell, 0.15)
    atoms = int(crystal.multiplicities.sum())
    peaks = find_peaks(rho, group, crystal.cell, AtomSpec(), atoms)
    assert sorted(peaks.multiplicity) == sorted(crystal.multiplicities)
    _, true = crystal.unit_cell_atoms()
    for x in peaks.xyz:
        d = true - x
        assert np.linalg.norm((d - np.rint(d)) @ crystal.frac_to_cart.T, axis=1).min() < 0.1


def test_heaviest_elements_take_the_highest_peaks_that_fit():
    peaks = Peaks(np.zeros((4, 3)), np.array([9.0, 8.0, 3.0, 1.0]), np.array([8, 4, 8, 8]))
    ti, o = kinds(SolveSpec(composition="TiO2"))
    chosen = assign(peaks, (ti, o), 4)
    assert [(i, kind.elements[0][0]) for i, kind in chosen] == [(1, "Ti"), (0, "O")]
    assert assign(peaks, (ti, o), 3) is None


def test_shared_elements_have_the_ratio_of_the_composition_and_hydrogen_is_left_out():
    metal, oxygen = kinds(SolveSpec(composition="MgTi2O5H2", shared=(("Mg", "Ti"),)))
    assert metal == Kind((("Mg", 1 / 3), ("Ti", 2 / 3)), 3.0)
    assert oxygen.count == 5


def test_instructions_give_cell_and_laue_group(tmp_path):
    path = tmp_path / "a.ins"
    path.write_text("CELL 0.0251 5 6 7 90 100 90\nLATT -1\nSYMM -X, 0.5+Y, -Z\n", encoding="utf-8")
    read = read_ins(path)
    assert read.cell == (5, 6, 7, 90, 100, 90)
    assert len(read.rotations) == 4
    path.write_text("CELL 0.0251 5 6 7 90 100\n", encoding="utf-8")
    with pytest.raises(InputError, match="CELL"):
        read_ins(path)
    path.write_text("CELL 0.0251 5 6 7 90 100 90\nSYMM -X, 0.5+Q, -Z\n", encoding="utf-8")
    with pytest.raises(InputError, match="SYMM"):
        read_ins(path)


def test_centring_is_found_by_weak_absences_or_by_their_lack():
    crystal = shipped("anatase")
    hkl = np.array([h for h in reflections_within(crystal, 1.0) if h.sum() % 2 == 0])
    allowed_only = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=10.0)
    body = np.array([[0.5, 0.5, 0.5]])
    assert np.array_equal(lattice_centring(allowed_only, 0.01), body)
    forbidden = allowed_only.assign(h=allowed_only["h"] + 1)
    for intensity, wanted in ((0.05, body), (1.0, np.empty((0, 3)))):
        both = pd.concat([allowed_only, forbidden.assign(I=intensity)])
        assert np.array_equal(lattice_centring(both, 0.01), wanted)


def test_normalised_amplitudes_have_mean_square_one_at_every_resolution():
    crystal, hkl, _ = shifted("brookite")
    d_star = np.linalg.norm(hkl @ crystal.reciprocal_basis.T, axis=1)
    wilson = 7 * np.exp(-3 * d_star**2 / 4)
    modulus = wilson * np.sqrt(np.random.default_rng(2).exponential(size=len(hkl)))
    modulus[::9] = np.nan
    outer = d_star > 0.6  # within the first shell the mean is its own
    assert mean_amplitude(d_star, modulus, 200)[outer] == pytest.approx(wilson[outer], rel=0.12)
    data = amplitudes(hkl, modulus, d_star, FlippingSpec())
    after = normalised(data, FlippingSpec())
    shells = np.array_split(np.argsort(data.level[data.measured]), 5)
    square = [np.square(after.modulus[data.measured][shell]).mean() for shell in shells]
    assert square == pytest.approx(5 * [1.0], rel=0.2)
    raw = [np.square(data.modulus[data.measured][shell]).mean() for shell in shells]
    assert max(raw) > 2 * min(raw)
    assert after.weak.sum() == pytest.approx(data.weak.sum(), abs=2)
