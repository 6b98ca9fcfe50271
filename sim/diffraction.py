"""What leaves the particles of a frame: beams, where they go and how many electrons each carries."""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nanoed.sim import microscope
from nanoed.sim.engines import Aim, engine_shares, strain_of
from nanoed.sim.particle import Body, mounting
from nanoed.sim.physics import geometry, sampling
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.thickness import chord_distribution
from nanoed.sim.setup import Setup
from nanoed.sim.streams import stream

Array = NDArray[np.float64]
PIVOT_AZIMUTHS = 36
"""At which the flux on a particle is known where the precessing beam wanders over it; linear between."""
EDGE_ON = 0.01
"""A layer is no longer along the beam than its thickness over this: 0.3 µm of a film of 3 nm, about what it spans."""
B_PER_FLUENCE = 1e-6  # damage is quoted per 10⁶ e/Å²


@dataclass(frozen=True, slots=True, eq=False)
class Grain:
    """One crystal in the beam.

    to_lab : (3, 3) from its Cartesian frame.  share : flux on its projected area over the nominal flux.
    lit : (m,) relative flux at the azimuths 2πk/m of precession, mean 1.
    """

    body: Body
    to_lab: Array
    share: float
    lit: Array


@dataclass(frozen=True, slots=True, eq=False)
class Diffraction:
    """The beams that leave one grain in one frame, 000 first.

    hkl : (n, 3).  s_g : (n,) 1/Å, at the centre of the frame.  x, y : (n,) px on the detector.
    electrons : (n,) expected.  lost : electrons scattered out of the beams by the crystal's "thermal" motion and by the
    "film", where the engine takes them from the beams.  partiality : (n,), see Truth.
    area : Å², projected.  thickness_mean, thickness_max : Å, along the beam, over the projected area.
    """

    grain: Grain
    hkl: NDArray[np.int64]
    s_g: Array
    x: Array
    y: Array
    electrons: Array
    lost: dict[str, float]
    partiality: Array
    area: float
    thickness_mean: float
    thickness_max: float


def grains(setup: Setup, i: int) -> list[Grain]:
    """The crystals in the beam of frame i, that of the truth first; none in a blank frame.

    Twin and second particle add intensities, not amplitudes (PHYSICS H9); shares are weights of flux, over the azimuths
    as the first particle's.
    """
    seen = setup.population
    if seen.particle[i] < 0:
        return []
    body, to_lab = setup.body.scaled(float(seen.scale[i])), rotation_of(setup, i) @ setup.mount
    flux = float(setup.true.flux[i])
    lit = microscope.flux_share(body, to_lab, setup.experiment.instrument, _places(setup, i))
    mean = float(lit.mean())
    share, lit = flux * mean, lit / mean if mean > 0 else np.ones(1)
    twin, second = 0.01 * setup.size["twin_pct"], 0.01 * setup.size["second_particle_pct"]
    found = [Grain(body, to_lab, share * (1 - min(twin, 1)), lit)]
    if twin > 0:
        found.append(Grain(body, to_lab @ half_turn(setup), share * min(twin, 1), lit))
    if second > 0:
        other = mounting(
            setup.experiment.particle, body, int(stream(setup.experiment.seed, "second").integers(2**62))
        )
        found.append(Grain(body, rotation_of(setup, i) @ other, share * second, lit))
    if seen.companion_turn is not None and seen.companion_scale[i] > 0:
        other_body = setup.body.scaled(float(seen.companion_scale[i]))
        found.append(Grain(other_body, seen.companion_turn[i], flux, np.ones(1)))
    return found


def _places(setup: Setup, i: int) -> Array:
    """Where the particle lies in the beam of frame i at azimuths 2πk/m of precession, (m, 2) x, y in Å; m = 1 without
    precession or with the pivot point on the specimen."""
    place, pivot = setup.true.place[i], setup.true.pivot
    if pivot == 0:
        return place[None]
    beam = pivot * np.exp(2j * np.pi * np.arange(PIVOT_AZIMUTHS) / PIVOT_AZIMUTHS)
    return place - np.column_stack([beam.real, beam.imag])


def unevenly_lit(lit: Array, rotations: Array, shares: Array) -> Array:
    """Weights of the rotations of a precession cone, (m,), where the flux follows `lit` (see Grain); sum 1.

    The azimuth of a rotation is that from which the beam comes, as the crystal sees it: of the rotation's third row.
    """
    azimuth = np.arctan2(rotations[:, 2, 1], rotations[:, 2, 0])
    k = np.arange(len(lit)) * (2 * np.pi / len(lit))
    lit_there = np.interp(azimuth, k, lit, period=2 * np.pi)
    weighted = shares * lit_there
    total = weighted.sum()
    return weighted / total if total > 0 else shares


def layer_A(setup: Setup, i: int, flaw: str) -> float:
    """Å of a flat layer along the beam in frame i; the stage of serial frames stands at zero tilt.

    flaw : the one that names the layer's thickness, nm.
    """
    cosine = 1.0 if setup.population.turn is not None else abs(np.cos(setup.true.alpha[i]))
    return float(10 * setup.size[flaw] / max(cosine, EDGE_ON))


def rotation_of(setup: Setup, i: int) -> Array:
    """Rotation from the lab frame at zero tilt to that of frame i, (3, 3)."""
    if setup.population.turn is not None:
        return setup.population.turn[i] @ setup.mount.T
    return geometry.frame_matrix(setup.true.alpha[i], setup.true.beta[i], setup.true.omega[i])


def half_turn(setup: Setup) -> Array:
    """The twin's rotation in the crystal's Cartesian frame, (3, 3): 180° about the normal of the twin plane."""
    plane = setup.experiment.particle.twin_plane_hkl
    assert plane is not None
    n = setup.crystal.reciprocal_basis @ np.array(plane, float)
    n /= np.linalg.norm(n)
    return 2 * np.outer(n, n) - np.eye(3)


def diffraction(setup: Setup, i: int, grain: Grain | None = None) -> Diffraction:
    """The beams of a grain (default: the first) of frame i behind the particle, before film, optics and detector."""
    instrument, true = setup.experiment.instrument, setup.true
    grain = grain or grains(setup, i)[0]
    strained = np.linalg.inv(strain_of(setup.experiment.particle).lattice).T
    ub_lab = grain.to_lab @ strained @ setup.crystal.reciprocal_basis
    thickness, weights, area = chord_distribution(grain.body, grain.to_lab.T @ np.array([0.0, 0.0, 1.0]))
    rotations, shares = orientations(setup, i, float(np.max(thickness)))
    if len(grain.lit) > 1:
        shares = unevenly_lit(grain.lit, rotations, shares)
    hkl, s_g = excited(setup, ub_lab)
    aim = Aim(
        grain.body,
        grain.to_lab,
        ub_lab,
        rotations,
        shares,
        thickness,
        weights,
        hkl,
        area,
        layer_A(setup, i, "support_film_nm"),
    )
    share, lost = engine_shares(setup, aim, stream(setup.experiment.seed, "atoms", i))
    share = damaged(setup, i, share, np.linalg.norm(hkl @ ub_lab.T, axis=1))
    x, y = geometry.g_to_pixel(true.distortion((hkl @ ub_lab.T)[:, :2]), true.centre_px[i], true.a_per_px)
    dose = instrument.flux_e_A2_s * setup.experiment.protocol.exposure_s
    voltage = instrument.voltage_kv
    return Diffraction(
        grain=grain,
        hkl=hkl,
        s_g=s_g,
        x=x,
        y=y,
        electrons=dose * area * grain.share * share,
        lost={name: dose * area * grain.share * part for name, part in lost.items()},
        partiality=partialities(ub_lab, hkl, rotations, shares, thickness, weights, voltage),
        area=area,
        thickness_mean=float(thickness @ weights),
        thickness_max=float(np.max(thickness)),
    )


def damaged(setup: Setup, i: int, share: Array, g: Array) -> Array:
    """Shares after exp(-D/D_e) exp(-ΔB g²/2), ΔB = b D (PHYSICS H8); what the spots lose stays in the beam.

    share, g : (n,), 000 first; 1/Å.
    """
    growth, fading = setup.size["damage_b_A2_per_Me"], setup.size["fading_per_Me"]
    fluence = B_PER_FLUENCE * setup.fluence[i]
    left = share * np.exp(-fluence * (fading + 0.5 * growth * g * g))
    left[0] = share[0] + (share[1:] - left[1:]).sum()
    return left


def orientations(setup: Setup, i: int, longest: float) -> tuple[Array, Array]:
    """Rotations relative to the centre of frame i that the crystal goes through, (m, 3, 3), and weights, sum
    1.

    Precession azimuths or the sweep of the stage, smeared by the mosaic spread and the beam's convergence,
    which act as one Gaussian of tilts. longest : longest chord, Å, for the number of samples (PHYSICS A5,
    times azimuths_factor).
    """
    true, factor = setup.true, setup.experiment.azimuths_factor
    convergence = 1e-3 * setup.experiment.instrument.convergence_mrad
    spread = float(np.hypot(np.radians(setup.size["mosaicity_deg"]), 0.5 * convergence))
    if setup.nominal.protocol == "precession":
        n = factor * sampling.precession_steps(setup.g_max, true.semi_angle, longest)
        return smeared_precession(true.semi_angle, spread, int(np.ceil(n)))
    half = np.radians(0.5 * setup.nominal.rotation_deg)
    n = factor * sampling.precession_steps(setup.g_max, half / np.pi, longest)
    return smeared_sweep(true.omega[i], half, spread, int(np.ceil(n)))


def smeared_precession(semi_angle: float, spread: float, n: int) -> tuple[Array, Array]:
    """About n rotations of a precession cone smeared by Gaussian tilts of rms `spread` per axis; rad.

    A ring smeared by a round Gaussian is a set of rings: three with Gauss-Hermite radii about
    semi_angle + spread² / 2 semi_angle, their azimuths interleaved.
    """
    if spread == 0:
        return sampling.precession_rotations(semi_angle, n), np.full(n, 1 / n)
    each = -(-n // 3)
    centre = semi_angle + spread**2 / (2 * semi_angle)
    rings = []
    for j, offset in enumerate((-np.sqrt(3.0), 0.0, np.sqrt(3.0))):
        turn = geometry.rot_z(2 * np.pi * j / (3 * each))
        rings.append(turn @ sampling.precession_rotations(centre + spread * offset, each) @ turn.T)
    return np.concatenate(rings), np.repeat([1 / 6, 2 / 3, 1 / 6], each) / each


def smeared_sweep(axis_azimuth: float, half_width: float, spread: float, n: int) -> tuple[Array, Array]:
    """About n rotations of a sweep about the tilt axis smeared by Gaussian tilts of rms `spread` per axis;
    rad.

    The four tilts (±spread, ±spread) hold the Gaussian's moments up to the third; their sweeps are
    interleaved.
    """
    each = 1 if half_width == 0 else -(-n // 4)
    steps = (np.arange(4 * each, dtype=np.float64) + 0.5) / (4 * each) * 2 * half_width - half_width
    axis = np.array([np.cos(axis_azimuth), np.sin(axis_azimuth), 0.0])
    signs = np.array([[1, 1, 0], [-1, -1, 0], [1, -1, 0], [-1, 1, 0]])
    vectors = steps[:, None] * axis + spread * np.tile(signs, (each, 1))
    return Rotation.from_rotvec(vectors).as_matrix(), np.full(4 * each, 1 / (4 * each))


def excited(setup: Setup, ub_lab: Array) -> tuple[NDArray[np.int64], Array]:
    """Reflections that come near the Ewald sphere during the frame, 000 first, and their S at its centre.

    All with |S| < s_max + |g| (semi-angle + half the sweep + mosaic spread and convergence), systematic
    absences included since dynamical scattering excites them.
    """
    g = setup.candidates @ ub_lab.T
    s_g = geometry.excitation_errors(g, wavelength_A(setup.experiment.instrument.voltage_kv))
    spread = setup.true.semi_angle + np.radians(
        0.5 * setup.nominal.rotation_deg + 4 * setup.size["mosaicity_deg"]
    )
    reach = spread + 1e-3 * setup.experiment.instrument.convergence_mrad
    near = np.abs(s_g) < setup.s_max + np.linalg.norm(g, axis=1) * reach
    near[0] = True
    return setup.candidates[near], s_g[near]


def partialities(
    ub_lab: Array,
    hkl: NDArray[np.int64],
    rotations: Array,
    shares: Array,
    thickness: Array,
    weights: Array,
    voltage_kv: float,
) -> Array:
    """Mean over a frame of <t² sinc²(π t S)> / <t²>, the kinematical rocking curve, per reflection; (n,).

    shares : weights of the rotations.  weights : of the thicknesses (Å).
    """
    out = np.zeros(len(hkl))
    rows = np.ascontiguousarray(rotations[:, 2])
    _add_partialities(hkl @ ub_lab.T, rows, shares, thickness, weights, wavelength_A(voltage_kv), out)
    return out / (weights @ thickness**2)


@nb.njit(cache=True, nogil=True)
def _add_partialities(
    g: NDArray[np.float64],
    rows: NDArray[np.float64],
    shares: NDArray[np.float64],
    thickness: NDArray[np.float64],
    weights: NDArray[np.float64],
    wavelength: float,
    out: NDArray[np.float64],
) -> None:
    """rows : (m, 3) third row of every rotation, which gives g_z."""
    for i in range(g.shape[0]):
        half_g2 = 0.5 * wavelength * (g[i, 0] ** 2 + g[i, 1] ** 2 + g[i, 2] ** 2)
        for m in range(rows.shape[0]):
            s = np.pi * (rows[m, 0] * g[i, 0] + rows[m, 1] * g[i, 1] + rows[m, 2] * g[i, 2] - half_g2)
            for k in range(thickness.shape[0]):
                t = thickness[k]
                amplitude = np.sin(s * t) / s if abs(s * t) > 1e-6 else t
                out[i] += shares[m] * weights[k] * amplitude * amplitude
