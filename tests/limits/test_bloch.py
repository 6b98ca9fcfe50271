"""The many-beam engine against exact limits: two beams, conserved flux, weak objects, and its symmetries."""

from dataclasses import replace

import numpy as np
import pytest

from nanoed.sim.physics.bloch import PotentialTable, _real, frame_intensities, potential_table
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A, wavenumber
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix, rot_y, rot_z
from nanoed.sim.physics.kinematical import kinematical_intensities
from nanoed.sim.physics.sampling import precession_rotations, precession_steps

KV = 200.0
K, WAVELENGTH = wavenumber(KV), wavelength_A(KV)
STILL = (np.eye(3)[None], np.ones(1))


def crystal(spacegroup: str, cell: tuple[float, ...], **sites: tuple[float, float, float]) -> Crystal:
    """A crystal of sites named after their element, U_iso 0.005 Å²."""
    n = len(sites)
    return Crystal(
        name="made up",
        cell=cell,
        spacegroup=spacegroup,
        labels=tuple(sites),
        elements=tuple(label.rstrip("0123456789") for label in sites),
        xyz=np.array(list(sites.values())),
        occupancy=np.ones(n),
        u_iso=np.full(n, 0.005),
        u_ij=np.full((n, 6), np.nan),
    )


ROW = crystal("P 1", (3.0, 2.0, 2.0, 90.0, 90.0, 90.0), Au=(0.1, 0.2, 0.3), O=(0.45, 0.6, 0.7))
ROW_CENTRIC = crystal("P -1", (3.0, 2.0, 2.0, 90.0, 90.0, 90.0), Au=(0.1, 0.2, 0.3))
CHIRAL = crystal("P 21 21 21", (5.1, 6.3, 4.4, 90.0, 90.0, 90.0), Ti=(0.11, 0.27, 0.06), O=(0.31, 0.62, 0.41))
BROOKITE = crystal(
    "P b c a", (9.174, 5.449, 5.138, 90.0, 90.0, 90.0),
    Ti=(0.1289, 0.0972, 0.8628), O1=(0.0095, 0.1491, 0.1835), O2=(0.2314, 0.1110, 0.5366),
)  # fmt: skip
CRYSTALS = pytest.mark.parametrize("made", [CHIRAL, BROOKITE], ids=["complex", "real"])


def oriented(made: Crystal, alpha: float = 0.31, beta: float = -0.12, omega: float = 1.1) -> np.ndarray:
    """A general orientation, UB in the lab, 1/Å."""
    return frame_matrix(alpha, beta, omega) @ made.reciprocal_basis


def intensities(
    potential: PotentialTable, ub: np.ndarray, thickness: float, hkl: np.ndarray, s_max: float = 0.02,
    sampling: tuple[np.ndarray, np.ndarray] = STILL, engine=frame_intensities,
) -> np.ndarray:  # fmt: skip
    t, w = np.array([thickness]), np.ones(1)
    return engine(potential, ub, *sampling, t, w, hkl, KV, potential.g_max, s_max)


def obliquity(ub: np.ndarray, hkl: np.ndarray) -> np.ndarray:
    """M² = 1 / (1 + g_n / K) with the surface normal along the untilted beam; (n,)."""
    return 1 / (1 - (hkl @ ub.T)[:, 2] / K)


@pytest.mark.parametrize("made", [ROW, ROW_CENTRIC], ids=["complex", "real"])
@pytest.mark.parametrize("s", [0.0, 4e-4, -9e-4, 2e-3])
@pytest.mark.parametrize("thickness", [3.0, 80.0, 450.0])
def test_two_beams_are_solved_exactly(made: Crystal, s: float, thickness: float) -> None:
    """I = M² (U M / Q)² sin²(π t Q / K), Q² = (U M)² + (K S M²)²; to order g_z / K the textbook's form."""
    potential = potential_table(made, KV, 0.4)
    hkl = np.array([[0, 0, 0], [1, 0, 0]])
    g = 1 / made.cell[0]
    lift = np.arcsin((s + 0.5 * g**2 / K) / g)
    ub = rot_y(-lift) @ made.reciprocal_basis
    assert excitation_errors(ub[:, 0], WAVELENGTH) == pytest.approx(s, abs=1e-15)
    found = intensities(potential, ub, thickness, hkl, s_max=abs(s) + 1e-9)
    u = abs(potential.box[potential.centre + potential.flat[(potential.hkl == hkl[1]).all(1)][0], 0])
    m2 = obliquity(ub, hkl)[1]
    q = np.hypot(u * np.sqrt(m2), K * s * m2)
    expected = m2 * (u * np.sqrt(m2) / q) ** 2 * np.sin(np.pi * thickness * q / K) ** 2
    assert found[1] == pytest.approx(expected, abs=1e-10)
    assert found[0] == pytest.approx(1 - expected / m2, abs=1e-10)
    textbook = (u / np.hypot(u, K * s)) ** 2 * np.sin(np.pi * thickness * np.hypot(u, K * s) / K) ** 2
    assert found[1] == pytest.approx(textbook, abs=2e-3)


def test_the_other_side_of_the_ewald_sphere_is_another_experiment() -> None:
    """With the tilt reversed, g leaves the sphere and -g comes to it."""
    potential = potential_table(ROW, KV, 0.4)
    hkl = np.array([[1, 0, 0], [-1, 0, 0]])
    lift = np.arcsin(0.5 / ROW.cell[0] / K)
    right, wrong = (
        intensities(potential, rot_y(a) @ ROW.reciprocal_basis, 200.0, hkl, 0.01) for a in (-lift, lift)
    )
    assert right[0] > 2 * right[1]
    assert wrong[1] > 2 * wrong[0]


@CRYSTALS
def test_the_flux_through_the_exit_face_is_conserved(made: Crystal) -> None:
    potential = potential_table(made, KV, 1.4)
    ub = oriented(made)
    for thickness in (1.0, 120.0, 900.0):
        found = intensities(potential, ub, thickness, potential.hkl)
        assert (found >= 0).all()
        assert (found > 0).sum() > 20
        assert (found / obliquity(ub, potential.hkl)).sum() == pytest.approx(1, abs=1e-10)
    assert found.sum() != pytest.approx(1, abs=1e-8)


def weakened(potential: PotentialTable, factor: float) -> PotentialTable:
    return replace(potential, box=potential.box * factor)


@CRYSTALS
def test_a_weak_object_scatters_once(made: Crystal) -> None:
    """As U -> ε U, I / ε² -> M⁴ (π t U / K)² sinc²(π t S M²), the deviation falling with ε."""
    potential = potential_table(made, KV, 1.4)
    ub, hkl = oriented(made), potential.hkl[1:]
    m2 = obliquity(ub, hkl)
    t = 200.0
    once = intensities(potential, ub, t, hkl, engine=kinematical_intensities)
    s = excitation_errors(hkl @ ub.T, WAVELENGTH)
    exact = once * m2**2 * np.where(s == 0, 1, np.sinc(t * s * m2) / np.sinc(t * s)) ** 2
    deviations = []
    for factor in (1.0, 1e-1, 1e-2, 1e-3):
        found = intensities(weakened(potential, factor), ub, t, hkl) / factor**2
        deviations.append(np.abs(found - exact).sum() / exact.sum())
    assert deviations[0] > 0.05
    assert deviations[3] < 1e-3
    assert deviations[1] > 5 * deviations[2] > 25 * deviations[3]
    assert np.abs(once - exact).sum() / exact.sum() < 2e-3


@CRYSTALS
def test_a_thin_crystal_scatters_once(made: Crystal) -> None:
    potential = potential_table(made, KV, 1.4)
    ub, hkl = oriented(made), potential.hkl[1:]
    error = []
    for t in (8.0, 2.0, 0.5):
        once = intensities(potential, ub, t, hkl, engine=kinematical_intensities)
        error.append(np.abs(intensities(potential, ub, t, hkl) - once).sum() / once.sum())
    assert error[2] < 2e-3
    assert error[0] > error[1] > error[2]


@CRYSTALS
def test_turning_everything_about_the_beam_changes_nothing(made: Crystal) -> None:
    potential = potential_table(made, KV, 1.2)
    turn = rot_z(0.83)
    rotations = precession_rotations(0.02, 7)[:5]
    weights = np.array([0.1, 0.3, 0.2, 0.15, 0.25])
    first = intensities(potential, oriented(made), 150.0, potential.hkl, 0.02, (rotations, weights))
    turned = turn @ rotations @ turn.T
    again = intensities(potential, turn @ oriented(made), 150.0, potential.hkl, 0.02, (turned, weights))
    assert again == pytest.approx(first, abs=1e-12)
    wrong = intensities(potential, turn @ oriented(made), 150.0, potential.hkl, 0.02, (rotations, weights))
    assert np.abs(wrong - first).max() > 1e-3


@CRYSTALS
def test_tilting_the_frame_is_one_of_its_rotations(made: Crystal) -> None:
    potential = potential_table(made, KV, 1.2)
    tilt = rot_z(0.4) @ rot_y(0.015)
    first = intensities(potential, tilt @ oriented(made), 150.0, potential.hkl)
    again = intensities(potential, oriented(made), 150.0, potential.hkl, 0.02, (tilt[None], np.ones(1)))
    assert again == pytest.approx(first, abs=1e-12)


@CRYSTALS
def test_symmetry_operations_move_intensities_with_the_crystal(made: Crystal) -> None:
    """UB Rᵀ turns the crystal into itself: the reflection h then stands where h R stood."""
    potential = potential_table(made, KV, 1.2)
    hkl = potential.hkl
    for rotation in made.rotations:
        first = intensities(potential, oriented(made), 150.0, hkl @ rotation)
        again = intensities(potential, oriented(made) @ rotation.T, 150.0, hkl)
        assert again == pytest.approx(first, abs=1e-12)


def test_the_other_hand_is_told_apart() -> None:
    """-x in the axes -a, -b, -c is the same crystal; in the same axes it is the other hand, and shows."""
    inverted = replace(CHIRAL, xyz=-CHIRAL.xyz)
    potential, mirror = potential_table(CHIRAL, KV, 1.2), potential_table(inverted, KV, 1.2)
    ub, hkl = oriented(CHIRAL, 0.2, 0.3), potential.hkl
    first = intensities(potential, ub, 300.0, hkl)
    assert intensities(mirror, -ub, 300.0, -hkl) == pytest.approx(first, abs=1e-12)
    wrong = intensities(mirror, ub, 300.0, hkl)
    assert np.abs(wrong - first).sum() > 0.05 * first[1:].sum()
    once = intensities(potential, ub, 300.0, hkl, engine=kinematical_intensities)
    other = intensities(mirror, ub, 300.0, hkl, engine=kinematical_intensities)
    assert other == pytest.approx(once, abs=1e-14)


def test_thicknesses_and_rotations_are_averaged_with_their_weights() -> None:
    potential = potential_table(CHIRAL, KV, 1.0)
    hkl, ub = potential.hkl, oriented(CHIRAL)
    rotations, weights = precession_rotations(0.02, 3), np.array([0.5, 0.2, 0.3])
    t, w = np.array([90.0, 260.0]), np.array([0.6, 0.4])
    found = frame_intensities(potential, ub, rotations, weights, t, w, hkl, KV, 1.0, 0.02)
    single = [
        a * b * intensities(potential, ub, c, hkl, 0.02, (turn[None], np.ones(1)))
        for a, turn in zip(weights, rotations, strict=True)
        for b, c in zip(w, t, strict=True)
    ]
    assert found == pytest.approx(np.sum(single, axis=0), abs=1e-12)


@pytest.mark.parametrize("engine", [frame_intensities, kinematical_intensities])
def test_the_rule_for_azimuths_converges_and_half_of_it_does_not(engine) -> None:
    """300 Å, 1.2°: below 0.2 % in R with the rule's number of azimuths, abruptly worse with half."""
    potential = potential_table(BROOKITE, KV, 1.4)
    semi_angle, ub = np.radians(1.2), oriented(BROOKITE)
    s = excitation_errors(potential.hkl @ ub.T, WAVELENGTH)
    g = np.linalg.norm(potential.hkl @ ub.T, axis=1)
    scored = potential.hkl[(np.abs(s) < 0.75 * g * semi_angle) & (g > 0)]

    def frame(n: int) -> np.ndarray:
        sampling = (precession_rotations(semi_angle, n), np.full(n, 1 / n))
        return np.sqrt(intensities(potential, ub, 300.0, scored, 0.02, sampling, engine))

    n = precession_steps(1.4, semi_angle, 300.0)
    best = frame(512)
    errors = [np.abs(frame(m) - best).sum() / best.sum() for m in (n, n // 2)]
    assert errors[0] < 2e-3
    assert errors[1] > 10 * errors[0]


@pytest.fixture
def shifted() -> Crystal:
    """Anatase in origin choice 1, whose inversion centre is not at the origin."""
    return Crystal(
        "anatase", (3.784, 3.784, 9.515, 90.0, 90.0, 90.0), "I 41/a m d:1", ("Ti", "O"), ("Ti", "O"),
        np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.2081]]), np.ones(2), np.array([0.004, 0.006]),
        np.full((2, 6), np.nan),
    )  # fmt: skip


def test_arithmetic_is_real_about_an_inversion_centre(shifted: Crystal) -> None:
    centre = shifted.inversion_centre
    assert centre is not None
    assert np.abs(centre).max() > 0.1
    table = potential_table(shifted, 200.0, 1.4)
    assert table.box.dtype == np.float64
    turned = np.exp(-2j * np.pi * (table.hkl @ centre))
    about_origin = replace(table, box=as_complex(table, turned))
    ub = oriented(shifted)
    hkl = table.hkl[1:][np.abs(excitation_errors(table.hkl[1:] @ ub.T, wavelength_A(200.0))) < 0.005]
    rest = (np.eye(3)[None], np.ones(1), np.array([180.0]), np.ones(1), hkl, 200.0, 1.4, 0.02)
    found = frame_intensities(table, ub, *rest)
    assert np.allclose(found, frame_intensities(about_origin, ub, *rest), rtol=1e-9, atol=1e-12)
    wrong = replace(about_origin, box=np.ascontiguousarray(about_origin.box.real))
    assert np.abs(frame_intensities(wrong, ub, *rest) / found - 1).max() > 0.1


def as_complex(table: PotentialTable, turned: np.ndarray) -> np.ndarray:
    """The box with its origin moved by the phases of the beams, which are those of every difference as well."""
    box = table.box.astype(complex)
    for g, phase in zip(table.flat, turned, strict=True):
        box[table.centre + table.flat - g, 0] = table.box[table.centre + table.flat - g, 0] * turned / phase
    return box


def test_real_arithmetic_is_refused_without_an_inversion_centre_at_the_origin(shifted: Crystal) -> None:
    turned = np.exp(-2j * np.pi * (potential_table(shifted, 200.0, 1.0).hkl @ shifted.inversion_centre))
    with pytest.raises(ValueError, match="inversion centre"):
        _real(turned)
    quartz = potential_table(replace(shifted, spacegroup="I 41 m d"), 200.0, 1.0)
    assert quartz.box.dtype == np.complex128
