"""Analytic derivatives against central differences: structure factors and intensities of a frame."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from goldens import shipped

from nanoed.pipeline.refine.parameters import AdpModel, free_parameters
from nanoed.sim.physics.bloch import frame_jacobian, potential_table, rocking_curves
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix, rot_x, rot_y
from nanoed.sim.physics.kinematical import kinematical_curves, kinematical_jacobian
from nanoed.sim.physics.sampling import precession_rotations
from nanoed.sim.physics.scattering import structure_factor_derivatives, structure_factors

KV, G_MAX, S_MAX = 200.0, 1.2, 0.015
THICKNESS, WEIGHTS = np.array([60.0, 180.0, 290.0]), np.array([0.2, 0.5, 0.3])
ROTATIONS, SHARES = precession_rotations(0.02, 3), np.array([0.5, 0.2, 0.3])
STEP = 1e-4
Jacobian = Callable[..., tuple[np.ndarray, np.ndarray]]


def central(function: Callable[[float], np.ndarray], step: float = STEP) -> np.ndarray:
    """Fourth-order central difference at 0."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def moved(crystal: Crystal, site: int, quantity: int, change: float) -> Crystal:
    """The crystal with x, y, z (0-2), occupancy (3), U_iso (4) or U_ij (5-10) of a site changed."""
    name = ("xyz", "xyz", "xyz", "occupancy", "u_iso", *6 * ("u_ij",))[quantity]
    values = getattr(crystal, name).copy()
    if name in ("xyz", "u_ij"):
        values[site, quantity - 5 if name == "u_ij" else quantity] += change
    else:
        values[site] += change
    return replace(crystal, **{name: values})


def jacobian_of(crystal: Crystal, parameters: list[tuple[int, int]]) -> np.ndarray:
    """One parameter for each (site, quantity); (sites, 11, p)."""
    jacobian = np.zeros((len(crystal.labels), 11, len(parameters)))
    for column, (site, quantity) in enumerate(parameters):
        jacobian[site, quantity, column] = 1
    return jacobian


@pytest.mark.parametrize("name", ["brookite", "quartz"])
def test_structure_factors(name: str) -> None:
    crystal = shipped(name)
    crystal = replace(crystal, u_ij=np.full_like(crystal.u_ij, np.nan))
    hkl = np.array([[2, 1, 0], [1, 1, 1], [0, 2, 3], [-3, 1, 2], [4, 0, -2]])
    parameters = [(site, quantity) for site in range(2) for quantity in range(5)]
    value, slope = structure_factor_derivatives(crystal, hkl, "peng", jacobian_of(crystal, parameters))
    assert value == pytest.approx(structure_factors(crystal, hkl, "peng"))
    for column, (site, quantity) in enumerate(parameters):
        expected = central(
            lambda x, s=site, q=quantity: structure_factors(moved(crystal, s, q, x), hkl, "peng")
        )
        assert slope[:, column] == pytest.approx(expected, rel=1e-7, abs=1e-6)


@pytest.mark.parametrize("name", ["brookite", "quartz"])
def test_structure_factors_of_anisotropic_sites(name: str) -> None:
    crystal = free_parameters(shipped(name), "anisotropic").crystal
    hkl = np.array([[2, 1, 0], [1, 1, 1], [0, 2, 3], [-3, 1, 2], [4, 0, -2]])
    parameters = [(site, quantity) for site in range(2) for quantity in range(5, 11)]
    _, slope = structure_factor_derivatives(crystal, hkl, "peng", jacobian_of(crystal, parameters))
    for column, (site, quantity) in enumerate(parameters):
        expected = central(
            lambda x, s=site, q=quantity: structure_factors(moved(crystal, s, q, x), hkl, "peng")
        )
        assert slope[:, column] == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert np.abs(slope[:, column]).max() > 0


@pytest.mark.parametrize(
    ("engine", "absorption", "thick"),
    [
        (frame_jacobian, 0.0, 1.0),
        (frame_jacobian, 0.1, 1.0),
        (frame_jacobian, 0.0, 8.0),
        (kinematical_jacobian, 0.0, 1.0),
    ],
)
@pytest.mark.parametrize(("name", "adp_model"), [("brookite", "anisotropic"), ("quartz", "isotropic")])
def test_intensities_of_a_frame(
    name: str, adp_model: AdpModel, engine: Jacobian, absorption: float, thick: float
) -> None:
    """By the Chebyshev recursion where thin or absorbing, by eigenvectors where thick; in closed form."""
    crystal = free_parameters(shipped(name), adp_model).crystal
    parameters = [
        (0, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        *([(0, 4)] if adp_model == "isotropic" else [(0, 6), (1, 8)]),
    ]
    jacobian = jacobian_of(crystal, parameters)
    potential = potential_table(crystal, KV, G_MAX, "peng", jacobian, absorption)
    ub = frame_matrix(0.2, 0.3, 0.5) @ crystal.reciprocal_basis
    s = excitation_errors(potential.hkl @ ub.T, 0.0250793)
    hkl = potential.hkl[(np.abs(s) < 0.008) & potential.hkl.any(axis=1)]
    assert len(hkl) > 8

    def intensities(
        change: float = 0.0, part: int = -1, tilt: tuple[float, float] = (0, 0), scale: float = 1
    ):
        made = crystal if part < 0 else moved(crystal, *parameters[part], change)
        table = potential_table(made, KV, G_MAX, "peng", absorption=absorption)
        turned = rot_x(tilt[0]) @ rot_y(tilt[1]) @ ub
        sampling = (ROTATIONS, SHARES, scale * thick * THICKNESS, WEIGHTS)
        return engine(table, turned, ub, *sampling, hkl, S_MAX, derivatives=False)[0]

    sampling = (ROTATIONS, SHARES, thick * THICKNESS, WEIGHTS)
    found, slope = engine(potential, ub, ub, *sampling, hkl, S_MAX)
    assert found == pytest.approx(intensities(), rel=1e-10, abs=1e-15)
    expected = [central(lambda x, p=p: intensities(x, p)) for p in range(len(parameters))]
    small = 1e-5 / thick
    expected += [central(lambda x, q=q: intensities(tilt=(x * (1 - q), x * q)), small) for q in range(2)]
    expected += [central(lambda x: intensities(scale=float(np.exp(x))))]
    for column, difference in enumerate(expected):
        largest = np.abs(difference).max()
        assert largest > 0
        assert slope[:, column] == pytest.approx(difference, abs=1e-6 * largest), column
    wrong = -slope[:, len(parameters)]
    assert np.abs(wrong - expected[len(parameters)]).max() > 1e-2 * np.abs(wrong).max()


@pytest.mark.parametrize("angles", [(0.2, 0.3, 0.5), (0.0, 0.0, 0.0)])
@pytest.mark.parametrize("name", ["brookite", "quartz"])
def test_eigenvectors_and_recursion_agree(name: str, angles: tuple[float, float, float]) -> None:
    """An absorption of no account keeps to the recursion; along a zone axis eigenvalues coincide."""
    crystal = shipped(name)
    jacobian = jacobian_of(crystal, [(0, 4), (1, 0), (1, 3)])
    ub, at = frame_matrix(*angles) @ crystal.reciprocal_basis, (ROTATIONS, SHARES, 12 * THICKNESS, WEIGHTS)
    found = []
    for absorption in (0.0, 1e-14):
        table = potential_table(crystal, KV, G_MAX, "peng", jacobian, absorption)
        found.append(frame_jacobian(table, ub, ub, *at, table.hkl, S_MAX))
    for eigen, recursion in zip(*found, strict=True):
        assert eigen == pytest.approx(recursion, abs=2e-7 * np.abs(recursion).max())


def test_absorption_takes_electrons() -> None:
    """Without it a frame's beams share the incident flux; with it some is gone, more in a thicker crystal."""
    crystal = shipped("quartz")
    ub = frame_matrix(0.2, 0.3, 0.5) @ crystal.reciprocal_basis
    lost = []
    for absorption, thickness in ((0.0, 300.0), (0.1, 300.0), (0.1, 600.0)):
        table = potential_table(crystal, KV, G_MAX, "peng", absorption=absorption)
        at = (np.eye(3)[None], np.ones(1), np.array([thickness]), np.ones(1))
        found, _ = frame_jacobian(table, ub, ub, *at, table.hkl, S_MAX, derivatives=False)
        lost.append(abs(1 - found.sum()))
    assert lost[0] < 5e-3
    assert lost[2] > lost[1] > 5 * lost[0]


def test_a_hundredth_of_the_potential_is_kinematical() -> None:
    """Intensities fall with the square of a weak potential, and do not with the full one (PHYSICS B: R = 0.14 ε)."""
    crystal = shipped("brookite")
    ub = frame_matrix(0.2, 0.3, 0.5) @ crystal.reciprocal_basis

    def intensities(strength: float) -> np.ndarray:
        table = potential_table(crystal, KV, G_MAX, "peng", strength=strength)
        hkl = table.hkl[1:]
        at = (ROTATIONS, SHARES, THICKNESS, WEIGHTS)
        return frame_jacobian(table, ub, ub, *at, hkl, S_MAX, derivatives=False)[0] / strength**2

    weak, weaker, full = intensities(0.01), intensities(0.005), intensities(1.0)
    seen = weak > 1e-3 * weak.max()
    assert weaker[seen] == pytest.approx(weak[seen], rel=5e-3)
    assert np.abs(full[seen] / weak[seen] - 1).max() > 0.1


def test_the_closed_form_is_the_engine_of_a_weak_potential() -> None:
    """Values, slopes and rocking curves, beams that fade included; not those of the full potential (PHYSICS B)."""
    crystal = shipped("brookite")
    jacobian = jacobian_of(crystal, [(0, 4), (1, 0), (1, 3)])
    ub, away = (frame_matrix(a, 0.3, 0.5) @ crystal.reciprocal_basis for a in (0.2, 0.2005))
    at, misfit = (ROTATIONS, SHARES, THICKNESS, WEIGHTS), {}
    for strength in (1e-3, 1.0):
        table = potential_table(crystal, KV, G_MAX, "peng", jacobian, strength=strength)
        hkl = table.hkl[1:]
        several = [
            e(table, away, ub, *at, hkl, S_MAX, True, 0.5) for e in (frame_jacobian, kinematical_jacobian)
        ]
        curves = [
            c(table, ub, ROTATIONS, *at[2:], hkl, S_MAX, 0.5) for c in (rocking_curves, kinematical_curves)
        ]
        pairs = [*zip(*several, strict=True), curves]
        misfit[strength] = [np.abs(a - b).max() / np.abs(a).max() for a, b in pairs]
    assert max(misfit[1e-3]) < 1e-3
    assert min(misfit[1.0]) > 0.1
