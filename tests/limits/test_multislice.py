"""Multislice against exact limits: one atom, conserved flux, vacuum, frozen phonons, and atoms cut from a crystal."""

from dataclasses import replace

import numpy as np
import pytest
from goldens import shipped
from quartz_slab import slab_atoms

from nanoed.sim.atoms import Atoms, cut_atoms, isotropic, shaken
from nanoed.sim.multislice import Grid, Optics, beam_frequencies, exit_spectra, potential_slices, spot_areas
from nanoed.sim.particle import Body, inside
from nanoed.sim.physics.electron import relativistic_gamma, wavenumber
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.factors import electron_factor
from nanoed.sim.physics.geometry import rot_x, rot_z
from nanoed.sim.physics.scattering import u_g

KV = 200.0
EXACT = Optics(KV, "lobato", dtype=np.complex128)
ONE = Atoms((("Ti", isotropic(0.005)),), np.array([0]), np.array([[3.137, 4.71, -4.29]]), np.array([0.7]))
GRID = Grid((9.0, 10.0, 8.0), (60, 72), 8)


def projected(atoms: Atoms, grid: Grid, optics: Optics = EXACT) -> np.ndarray:
    """Lateral Fourier coefficients of ∫U dz through the whole box, (nx, ny)."""
    total = sum(potential_slices(atoms, grid, optics))
    return np.fft.fft2(total) / total.size


@pytest.mark.parametrize("table", ["peng", "lobato", "kirkland"])
def test_one_atom_is_its_scattering_factor(table: str) -> None:
    """(γ / π A) occ f T exp(-2πi q·r) inside the band limit, nothing outside."""
    qx, qy = GRID.frequencies()
    q = np.hypot(qx, qy)
    wave = np.exp(-2j * np.pi * (qx * ONE.xyz[0, 0] + qy * ONE.xyz[0, 1]))
    f = electron_factor("Ti", q / 2, table) * np.exp(-2 * np.pi**2 * 0.005 * q**2)
    expected = np.where(q <= GRID.band_limit, relativistic_gamma(KV) / (np.pi * 90.0) * 0.7 * f * wave, 0)
    found = projected(ONE, GRID, replace(EXACT, factors=table))
    assert found == pytest.approx(expected, abs=2e-6 * np.abs(expected).max())
    assert np.abs(found - expected.conj()).max() > 0.5 * np.abs(expected).max()


def test_depths_are_kept_between_slices() -> None:
    """Σ_s v_s exp(-2πi q_z z_s) is f T (q_z) at the atom's own depth for slow q_z; not so with whole slices."""
    slices = np.array([v.sum() for v in potential_slices(ONE, GRID, EXACT)])
    z = -(np.arange(8) + 0.5)
    for q_z in (0.03, 0.07):
        found = (slices * np.exp(-2j * np.pi * q_z * z)).sum() / slices.sum()
        f = electron_factor("Ti", np.array([0, q_z / 2]), "lobato")
        smeared = f[1] / f[0] * np.exp(-2 * np.pi**2 * 0.005 * q_z**2)
        at = smeared * np.exp(-2j * np.pi * q_z * ONE.xyz[0, 2])
        assert abs(found - at) < 0.005
        assert abs(smeared * np.exp(-2j * np.pi * q_z * z[4]) - at) > 3 * abs(found - at)


def test_a_slab_is_its_crystal() -> None:
    """The cell's projected potential is Σ_l of U_g of the layer l = 0 times the cell's height."""
    crystal = shipped("quartz")
    crystal = replace(crystal, u_ij=np.full_like(crystal.u_ij, np.nan))
    atoms, lengths, to_lab = slab_atoms(crystal, np.array([[1, 1, 0], [0, 2, 0], [0, 0, 1]]))
    found = projected(atoms, Grid(tuple(lengths), (50, 86), 12, periodic=True))
    hkl = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-2, 1, 0], [3, 1, 0]])
    place = np.rint(hkl @ crystal.reciprocal_basis.T @ to_lab.T * lengths).astype(int)
    expected = u_g(crystal, hkl, KV, "lobato") * lengths[2]
    assert found[place[:, 0], place[:, 1]] == pytest.approx(expected, abs=1e-6 * np.abs(expected).max())
    with pytest.raises(InputError, match="right-angled"):
        slab_atoms(crystal, np.eye(3, dtype=int))


def test_vacuum_and_flux() -> None:
    beams = np.array([[0.0, 0.0], [1.1, -0.7]])
    empty = replace(ONE, occupancy=np.zeros(1))
    for wave in exit_spectra(empty, GRID, EXACT, beams):
        assert abs(wave[0, 0]) == pytest.approx(1, abs=1e-12)
        assert np.abs(wave).sum() == pytest.approx(1, abs=1e-9)
    for wave in exit_spectra(ONE, GRID, EXACT, beams):
        assert np.square(np.abs(wave)).sum() == pytest.approx(1, abs=2e-4)
        assert np.square(np.abs(wave)).sum() - abs(wave[0, 0]) ** 2 > 1e-4


def test_memory_and_precision_do_not_matter() -> None:
    beams = np.array([[0.0, 0.0], [1.1, -0.7], [0.3, 0.2]])
    whole = list(exit_spectra(ONE, GRID, EXACT, beams))
    single = list(exit_spectra(ONE, GRID, EXACT, beams, memory=1.0, workers=1))
    coarse = list(exit_spectra(ONE, GRID, replace(EXACT, dtype=np.complex64), beams))
    assert np.array(single) == pytest.approx(np.array(whole), abs=1e-14)
    assert np.array(coarse) == pytest.approx(np.array(whole), abs=1e-6)
    assert np.abs(whole[0] - whole[1]).max() > 1e-4


def test_a_tilted_beam_is_a_turned_specimen() -> None:
    """A kinematical spot keeps its area when beam and specimen turn together about z; not with one of them."""
    turn, tilt = rot_z(0.5 * np.pi), rot_x(0.02)
    beam = beam_frequencies(tilt[None], KV)
    assert beam[0] == pytest.approx(-wavenumber(KV) * tilt[2, :2])
    assert beam_frequencies((turn @ tilt @ turn.T)[None], KV)[0] == pytest.approx(beam[0] @ turn[:2, :2].T)


def test_frozen_phonons_average_to_smeared_atoms() -> None:
    rng = np.random.default_rng(3)
    mean = np.mean([projected(shaken(ONE, rng), GRID) for _ in range(300)], axis=0)
    expected = projected(ONE, GRID)
    error = np.abs(mean - expected).max() / np.abs(expected).max()
    assert error < 0.03
    still = projected(replace(ONE, species=(("Ti", isotropic(0.0)),)), GRID)
    assert np.abs(still - expected).max() / np.abs(expected).max() > 2 * error


def test_a_body_holds_its_share_of_atoms() -> None:
    crystal = shipped("anatase")
    axis = np.array([0.6, 0.0, 0.8])
    density = len(crystal.unit_cell_atoms()[0]) / crystal.volume
    volumes = {"cylinder": np.pi / 4 * 40**2 * 60, "ellipsoid": np.pi / 6 * 40**2 * 60}
    for shape, volume in volumes.items():
        body = Body(shape, 40.0, 60.0, axis)
        atoms = cut_atoms(crystal, body, rot_x(0.3))
        assert len(atoms.kind) == pytest.approx(density * volume, rel=0.03)
        assert inside(body, atoms.xyz @ rot_x(0.3)).all()
        assert not inside(body, atoms.xyz @ rot_x(0.8)).all()


def test_atoms_outside_the_box_are_refused() -> None:
    with pytest.raises(ValueError, match="above or below"):
        list(potential_slices(replace(ONE, xyz=ONE.xyz + np.array([0, 0, 9])), GRID, EXACT))
    with pytest.raises(ValueError, match="periodic"):
        list(exit_spectra(ONE, GRID, EXACT, np.zeros((1, 2)), repeats=2))


def test_spots_hold_all_that_is_scattered() -> None:
    """One spot as wide as the band: everything but nothing twice."""
    g = np.zeros((1, 3))
    turn, weight = np.eye(3)[None], np.ones(1)
    whole = spot_areas(ONE, GRID, EXACT, g, turn, weight, 5.0, 1.0)
    assert whole[0] == pytest.approx(90.0, rel=1e-3)
    twice = spot_areas(ONE, GRID, EXACT, np.zeros((2, 3)), turn, weight, 5.0, 1.0)
    assert twice.sum() == pytest.approx(whole[0])
    assert spot_areas(ONE, GRID, EXACT, g, turn, weight, 0.05, 1.0)[0] < whole[0]
