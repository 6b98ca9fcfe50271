"""Specimens atom by atom: tensors, strain, film and thermal motion, each against its law."""

from dataclasses import replace

import numpy as np
import pytest
from quartz_slab import slab_atoms
from scipy.spatial import cKDTree
from simulations import crystal, experiment

from nanoed.sim.atoms import Strain, carbon_film, cut_atoms, isotropic, shaken, strained
from nanoed.sim.background import CARBON, thermal_diffuse
from nanoed.sim.diffraction import diffraction
from nanoed.sim.exposure import expected_image, incident_electrons
from nanoed.sim.multislice import Grid, Optics, exit_spectra, potential_slices
from nanoed.sim.particle import Body
from nanoed.sim.physics.absorption import absorptive_potential
from nanoed.sim.physics.electron import wavenumber
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.factors import electron_factor
from nanoed.sim.physics.scattering import u_g
from nanoed.sim.setup import prepare

KV = 200.0
BALL = Body("sphere", 40.0, 40.0, np.array([0.0, 0.0, 1.0]))


@pytest.mark.parametrize("tilted", [False, True])
def test_anisotropic_displacements_turn_with_their_atoms(tilted: bool) -> None:
    """U_g of quartz from its atoms, tensors and all, in two orientations; without the tensors it is another."""
    quartz = crystal("quartz")
    assert np.isfinite(quartz.u_ij).all()
    cell = np.array([[1, 1, 0], [0, 2, 0], [0, 0, 1]])
    cell = cell[:, [1, 2, 0]] if tilted else cell
    atoms, lengths, to_lab = slab_atoms(quartz, cell)
    nx, ny = (int(n) for n in np.ceil(lengths[:2] * 12))
    grid = Grid(tuple(lengths), (nx, ny), 16, periodic=True)
    total = np.sum(list(potential_slices(atoms, grid, Optics(KV, "lobato", dtype=np.complex128))), axis=0)
    found = np.fft.fft2(total) / total.size
    hkl = np.array([[2, -1, 0], [0, 1, 2], [0, 2, -1], [1, 1, 0], [0, 1, -3]])
    place = hkl @ quartz.reciprocal_basis.T @ to_lab.T * lengths
    flat = hkl[np.abs(place[:, 2]) < 1e-6]
    at = np.rint(place[np.abs(place[:, 2]) < 1e-6]).astype(int)
    expected = u_g(quartz, flat, KV, "lobato") * lengths[2]
    assert len(flat) >= 2
    assert found[at[:, 0], at[:, 1]] == pytest.approx(expected, abs=2e-5 * np.abs(expected).max())
    round_ = replace(quartz, u_ij=np.full_like(quartz.u_ij, np.nan))
    assert np.abs(u_g(round_, flat, KV, "lobato") * lengths[2] - expected).max() > 1e-4


def test_a_tensor_across_the_beam_shifts_nothing() -> None:
    """U13 ≠ 0: Σ_s v_s(q) exp(-2πi q_z z_s) is f exp(-2π² qᵀUq) with the cross term, for slow q_z."""
    ball = cut_atoms(crystal("anatase"), Body("sphere", 3.0, 3.0, BALL.axis), np.eye(3))
    one = replace(
        ball, species=(("Ti", (0.01, 0.02, 0.03, 0.0, 0.008, 0.0)),), kind=np.zeros(1, int),
        xyz=np.array([[3.1, 4.7, -8.29]]), occupancy=np.ones(1),
    )  # fmt: skip
    grid = Grid((9.0, 10.0, 16.0), (60, 72), 16)
    layers = np.array([np.fft.fft2(v) for v in potential_slices(one, grid, Optics(KV, dtype=np.complex128))])
    z, q_z, q_x = -(np.arange(16) + 0.5), 0.05, 6 / 9.0
    found = (layers[:, 6, 0] * np.exp(-2j * np.pi * q_z * (z + 8.29))).sum() / layers[:, 6, 0].sum()
    cross = -4 * np.pi**2 * 0.008 * q_x * q_z
    f = electron_factor("Ti", 0.5 * np.hypot(q_x, [0, q_z]), "peng")
    even = f[1] / f[0] * np.exp(-2 * np.pi**2 * 0.03 * q_z**2)
    assert found.real == pytest.approx(np.exp(cross) * even, abs=1e-3)
    assert abs(even - found.real) > 5e-3


def test_strain() -> None:
    xyz = np.random.default_rng(1).uniform(-11, 11, (500, 3))
    shear = Strain((1.0, 0.0, -0.5, 0.0, 0.0, 2.0))
    matrix = np.array([[1.01, 0.02, 0], [0.02, 1, 0], [0, 0, 0.995]])
    assert strained(xyz, BALL, shear) == pytest.approx(xyz @ matrix)
    bodies = [
        BALL,
        Body("ellipsoid", 40.0, 60.0, np.array([0.6, 0, 0.8])),
        Body("cylinder", 40.0, 50.0, np.array([0.0, 1, 0])),
        Body("polyhedron", 40.0, 40.0, BALL.axis, np.vstack([np.eye(3), -np.eye(3)]), np.full(6, 20.0)),
    ]
    for body in bodies:
        move = strained(xyz, body, Strain(surface_pct=2.0, depth=3.0)) - xyz
        assert np.cross(move, xyz) == pytest.approx(0, abs=1e-9)
        assert np.linalg.norm(move, axis=1).max() <= 0.02 * 3.0 + 1e-9
    radius = np.array([19.99, 20.0])[:, None] * np.array([0.0, 0.6, 0.8])
    moved = np.linalg.norm(strained(radius, BALL, Strain(surface_pct=2.0, depth=3.0)), axis=1)
    assert (moved[1] - moved[0]) / 0.01 - 1 == pytest.approx(0.02, rel=0.01)
    assert len(cut_atoms(crystal(), BALL, np.eye(3), shear).kind) == len(
        cut_atoms(crystal(), BALL, np.eye(3)).kind
    )


def test_a_strained_particle_moves_its_spots() -> None:
    """3 % wider in all directions: spots 3 % nearer to the centre, and as strong as before where they are now."""
    small = {"engine": "multislice", "g_max": 1.4, "particle": {"shape": "sphere", "diameter_nm": 2.5}}
    wider = small | {"particle": small["particle"] | {"strain_pct": [3.0, 3.0, 3.0, 0.0, 0.0, 0.0]}}
    plain, moved = (diffraction(prepare(experiment(**given), crystal()), 0) for given in (small, wider))
    places = [{tuple(h): i for i, h in enumerate(d.hkl.tolist())} for d in (plain, moved)]
    both = [h for h in places[0] if h in places[1] and h != (0, 0, 0)]
    a, b = (np.array([at[h] for h in both]) for at in places)
    assert (moved.x[b] - moved.x[0]) * 1.03 == pytest.approx(plain.x[a] - plain.x[0], abs=1e-6)
    far = np.hypot(plain.x[a] - 80, plain.y[a] - 80) * 0.016 > 0.9
    assert moved.electrons[b][far].sum() == pytest.approx(plain.electrons[a][far].sum(), rel=0.25)


def test_particles_without_atoms_are_refused() -> None:
    setup = prepare(
        experiment(engine="multislice", particle={"shape": "sphere", "diameter_nm": 0.02}), crystal("quartz")
    )
    with pytest.raises(InputError, match="no atom"):
        diffraction(setup, 0)


def test_carbon_film() -> None:
    """Density and excluded volume, and the beam's loss: below that of independent atoms, whose forward scattering
    the excluded volume damps."""
    film = carbon_film(np.array([0, 0, -80.0]), np.array([45.0, 45.0, 0]), np.random.default_rng(5))
    assert len(film.xyz) == round(45 * 45 * 80 * CARBON.units_per_A3)
    assert cKDTree(film.xyz).query(film.xyz, k=2)[0][:, 1].min() >= 1.35
    assert film.xyz.min(0) == pytest.approx([0, 0, -80], abs=0.5)
    assert np.histogram(film.xyz[:, 2], 4)[0] == pytest.approx(len(film.xyz) / 4, rel=0.05)
    grid = Grid((45.0, 45.0, 84.0), (150, 150), 42)
    lower = replace(film, xyz=film.xyz - np.array([0, 0, 2.0]))
    wave = next(exit_spectra(lower, grid, Optics(KV, "lobato"), np.zeros((1, 2)), workers=1))
    lost = 1 - float(np.abs(wave[0, 0]) ** 2)
    independent = 1 - np.exp(-80 * prepare(experiment(), crystal()).diffuse.per_A["film_elastic"])
    assert 0.4 * independent < lost < independent


def test_thermal_scattering_is_what_the_absorptive_potential_takes() -> None:
    for name in ("brookite", "ito"):
        structure = crystal(name)
        q = np.linspace(0, 60, 20001)
        rate = np.trapezoid(2 * np.pi * q * thermal_diffuse(structure, q, KV), q)
        mean = absorptive_potential(
            structure, np.zeros((1, 3), int), np.zeros(1, complex), KV, "lobato", "thermal"
        )
        assert rate == pytest.approx(2 * np.pi * mean[0].real / wavenumber(KV), rel=0.02)


@pytest.mark.parametrize("absorption", ["thermal", 0.03])
def test_absorbed_electrons_reach_the_frame_elsewhere(absorption: str | float) -> None:
    plain, lossy = (prepare(experiment(absorption=a), crystal()) for a in (0.0, absorption))
    before, after = (diffraction(setup, 0) for setup in (plain, lossy))
    share = after.lost["thermal"] / (after.lost["thermal"] + after.electrons.sum())
    assert not before.lost
    assert share == pytest.approx(1 - after.electrons.sum() / before.electrons.sum(), rel=1e-3)
    if absorption == "thermal":
        assert share == pytest.approx(lossy.diffuse.per_A["thermal"] * after.thickness_mean, rel=0.2)
    image, missed = expected_image(lossy, 0, [after])
    assert image.sum() + missed == pytest.approx(incident_electrons(lossy, 0), rel=1e-4)


def test_frames_of_atoms_shaken_and_on_a_film() -> None:
    """Beams of frozen phonons are those of smeared atoms; what they lose, and what a film of atoms takes, is lost."""
    small = {
        "engine": "multislice",
        "g_max": 1.0,
        "particle": {"shape": "sphere", "diameter_nm": 2.5},
        "flaws": {"support_film_nm": 3.0},
    }
    ways = {"still": {}, "shaken": {"frozen_phonons": 24}, "film": {"film_atoms": True}}
    seen = {}
    for name, options in ways.items():
        setup = prepare(experiment(**small, multislice=options), crystal())
        seen[name] = diffraction(setup, 1)
        image, missed = expected_image(setup, 1, [seen[name]])
        assert image.sum() + missed == pytest.approx(incident_electrons(setup, 1), rel=1e-4)
    still, moved, film = (seen[name].electrons for name in ways)
    bright = np.argsort(still[1:])[-20:] + 1
    assert moved[bright].sum() == pytest.approx(still[bright].sum(), rel=0.05)
    assert np.corrcoef(moved[bright], still[bright])[0, 1] > 0.99
    assert not seen["still"].lost
    on_grain = still.sum()
    rate = setup.diffuse.per_A["thermal"] * seen["shaken"].thickness_mean
    assert 0.3 * rate < seen["shaken"].lost["thermal"] / on_grain < 3 * rate
    assert film[bright].sum() == pytest.approx(still[bright].sum(), rel=0.1)
    assert np.corrcoef(film[bright], still[bright])[0, 1] > 0.97
    assert 0 < seen["film"].lost["film"] / on_grain < 0.05


def test_shaken_atoms_have_the_covariance_of_their_tensor() -> None:
    atoms, *_ = slab_atoms(crystal("quartz"), np.array([[1, 1, 0], [0, 2, 0], [0, 0, 1]]))
    rng = np.random.default_rng(2)
    moves = np.array([shaken(atoms, rng).xyz - atoms.xyz for _ in range(4000)])
    for i in (0, 7, 15):
        u11, u22, u33, u12, u13, u23 = atoms.species[atoms.kind[i]][1]
        expected = np.array([[u11, u12, u13], [u12, u22, u23], [u13, u23, u33]])
        assert np.cov(moves[:, i].T) == pytest.approx(expected, abs=0.08 * u11)
    assert shaken(atoms, rng).species[0][1] == isotropic(0.0)
