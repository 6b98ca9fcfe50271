"""One exposure: from the true geometry of a frame to its pixels and its rows of the truth."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nanoed.sim import imperfections, microscope, protocol, render
from nanoed.sim.background import Diffuse, diffuse_scattering
from nanoed.sim.dataset import Nominal
from nanoed.sim.particle import Body, body_of, lit_fraction, mounting
from nanoed.sim.physics import bloch, geometry, kinematical, sampling
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.thickness import chord_distribution
from nanoed.sim.spec import Experiment, Instrument
from nanoed.sim.streams import stream

Array = NDArray[np.float64]
G_MAX_DEFAULT = 2.2  # 1/Å, where the intensities of room-temperature oxides have vanished


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """An experiment made ready: everything that its frames share.

    mount : (3, 3) crystal Cartesian frame to lab at zero tilt.  ub : (3, 3) 1/Å, at zero tilt.
    beam_profile : spot profile of the direct beam.
    candidates : (n, 3) reflections that may scatter, 000 first.  size : magnitudes of the flaws.
    """

    experiment: Experiment
    crystal: Crystal
    body: Body
    mount: Array
    ub: Array
    size: dict[str, float]
    true: imperfections.FrameGeometry
    nominal: Nominal
    potential: bloch.PotentialTable
    diffuse: Diffuse
    beam_profile: Array
    candidates: NDArray[np.int64]
    g_max: float
    s_max: float


@dataclass(frozen=True, slots=True, eq=False)
class Diffraction:
    """The beams that leave the particle in one frame, 000 first.

    to_lab : (3, 3) rotation from the crystal's Cartesian frame.  hkl : (n, 3).  s_g : (n,) 1/Å, at the
    centre of the frame.  x, y : (n,) px on the detector.  electrons : (n,) expected.  partiality : (n,), see
    Truth.
    incident, beside : electrons on the whole beam's area and on the part of it beside the particle.
    area : Å², projected.  thickness_mean, thickness_max : Å, along the beam, over the projected area.
    """

    to_lab: Array
    hkl: NDArray[np.int64]
    s_g: Array
    x: Array
    y: Array
    electrons: Array
    partiality: Array
    incident: float
    beside: float
    area: float
    thickness_mean: float
    thickness_max: float


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One simulated exposure: pixels, its rows of the reflection table and its row of the frame table."""

    image: NDArray[Any]
    reflections: dict[str, NDArray[Any]]
    summary: dict[str, float]


def nominal_values(experiment: Experiment, size: dict[str, float]) -> Nominal:
    """What the microscope's log will say. size : magnitudes of the flaws."""
    instrument, recipe = experiment.instrument, experiment.protocol
    nx, ny = instrument.detector_px
    return Nominal(
        voltage_kv=instrument.voltage_kv,
        shape=(ny, nx),
        a_per_px=instrument.a_per_px,
        pixel_size_um=instrument.pixel_size_um,
        centre_px=(0.5 * nx, 0.5 * ny),
        exposure_s=recipe.exposure_s,
        alpha_deg=protocol.nominal_alpha_deg(recipe),
        axis_azimuth_deg=imperfections.nominal_axis_azimuth_deg(
            experiment.seed, instrument.axis_azimuth_deg, size["axis_azimuth_error_deg"]
        ),
        protocol=recipe.kind,
        semi_angle_deg=recipe.semi_angle_deg,
        rotation_deg=protocol.sweep_deg(recipe),
        gain=instrument.gain,
        saturation=instrument.counter_max,
    )


def prepare(experiment: Experiment, crystal: Crystal) -> Setup:
    """Resolve an experiment into what its frames share."""
    instrument, size = experiment.instrument, imperfections.magnitudes(experiment.flaws)
    nominal = nominal_values(experiment, size)
    true = imperfections.true_geometry(
        experiment.seed, size, nominal, np.radians(instrument.axis_azimuth_deg)
    )
    body = body_of(experiment.particle, crystal)
    mount = mounting(experiment.particle, body, experiment.seed)
    ny, nx = nominal.shape
    a, voltage = true.a_per_px, instrument.voltage_kv
    corner = 0.5 * float(np.hypot(nx, ny)) * a
    g_max = experiment.g_max or min(corner, G_MAX_DEFAULT)
    if g_max > 1.1 * corner:
        warnings.warn(f"g_max {g_max:g} is beyond the detector's corner at {corner:.3g} 1/Å", stacklevel=2)
    lit = lit_fraction(body, mount, 10 * instrument.beam_diameter_nm)
    if lit < 1:
        warnings.warn(f"the particle is larger than the beam: {100 * (1 - lit):.1f} % is dark", stacklevel=2)
    potential = bloch.potential_table(crystal, voltage, g_max, experiment.factors)
    return Setup(
        experiment=experiment,
        crystal=crystal,
        body=body,
        mount=mount,
        ub=mount @ crystal.reciprocal_basis,
        size=size,
        true=true,
        nominal=nominal,
        potential=potential,
        diffuse=diffuse_scattering((2 * ny, 2 * nx), a, voltage, size["inelastic"]),
        beam_profile=render.spot_profile(a, _disc(instrument), instrument.psf_sigma_px, None, mount),
        candidates=potential.hkl,
        g_max=g_max,
        s_max=experiment.s_max or 1.5 * min(max(0.02, 2 / min(body.diameter, body.length)), 0.04),
    )


def simulated_frame(setup: Setup, i: int) -> Frame:
    """Frame i, whatever other frames exist."""
    experiment, true = setup.experiment, setup.true
    spots = diffraction(setup, i)
    expected, missed = expected_image(setup, i, spots)
    recorded = microscope.recorded_electrons(expected, experiment.instrument, experiment.protocol.exposure_s)
    noise = stream(experiment.seed, "counts", i) if experiment.noise else None
    indices = dict(zip("hkl", spots.hkl[1:].T, strict=True))
    table = {"frame": np.full(len(spots.hkl) - 1, i), **indices, "i_true": spots.electrons[1:]}
    table |= {
        "s_g": spots.s_g[1:],
        "x_px": spots.x[1:],
        "y_px": spots.y[1:],
        "partiality": spots.partiality[1:],
    }
    summary = {
        "alpha_true_deg": float(np.degrees(true.alpha[i])),
        "beta_true_deg": float(np.degrees(true.beta[i])),
        "omega_true_deg": float(np.degrees(true.omega[i])),
        "centre_x_px": float(true.centre_px[i, 0]),
        "centre_y_px": float(true.centre_px[i, 1]),
        "thickness_mean_A": spots.thickness_mean,
        "thickness_max_A": spots.thickness_max,
        "area_A2": spots.area,
        "incident_e": spots.incident,
        "on_detector_e": float(expected.sum()),
        "missed_e": missed,
    }
    return Frame(microscope.read_out(recorded, experiment.instrument, noise), table, summary)


def diffraction(setup: Setup, i: int) -> Diffraction:
    """The beams of frame i behind the particle, before film, optics and detector."""
    experiment, instrument, true = setup.experiment, setup.experiment.instrument, setup.true
    rotation = geometry.frame_matrix(true.alpha[i], true.beta[i], true.omega[i])
    to_lab, ub_lab = rotation @ setup.mount, rotation @ setup.ub
    thickness, weights, area = chord_distribution(setup.body, to_lab.T @ np.array([0.0, 0.0, 1.0]))
    lit = area * lit_fraction(setup.body, to_lab, 10 * instrument.beam_diameter_nm)
    dose = instrument.flux_e_A2_s * experiment.protocol.exposure_s
    rotations, shares = orientations(setup, i, float(np.max(thickness)))
    hkl, s_g = excited(setup, ub_lab)
    if experiment.engine == "bloch":
        engine, s_max = bloch.frame_intensities, setup.s_max
    else:
        engine, s_max = kinematical.kinematical_intensities, np.inf
    voltage, limits = instrument.voltage_kv, (setup.g_max, s_max)
    share = engine(setup.potential, ub_lab, rotations, shares, thickness, weights, hkl, voltage, *limits)
    if experiment.engine == "kinematical":
        share[0] = max(0.0, 1 - share[1:].sum())
    g_xy = imperfections.distorted((hkl @ ub_lab.T)[:, :2], true.elliptic)
    x, y = geometry.g_to_pixel(g_xy, true.centre_px[i], true.a_per_px)
    incident = dose * microscope.beam_area_A2(instrument)
    return Diffraction(
        to_lab=to_lab,
        hkl=hkl,
        s_g=s_g,
        x=x,
        y=y,
        electrons=dose * lit * share,
        partiality=partialities(ub_lab, hkl, rotations, shares, thickness, weights, voltage),
        incident=incident,
        beside=incident - dose * lit,
        area=area,
        thickness_mean=float(thickness @ weights),
        thickness_max=float(np.max(thickness)),
    )


def _disc(instrument: Instrument) -> float:
    """Radius of the convergence disc, 1/Å."""
    return 1e-3 * instrument.convergence_mrad / wavelength_A(instrument.voltage_kv)


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


def expected_image(setup: Setup, i: int, spots: Diffraction) -> tuple[Array, float]:
    """Electrons expected in every pixel, (ny, nx), and those that miss the detector."""
    instrument, wide = setup.experiment.instrument, setup.beam_profile
    ny, nx = setup.nominal.shape
    a, sigma = setup.true.a_per_px, instrument.psf_sigma_px
    profile = render.spot_profile(a, _disc(instrument), sigma, setup.body, spots.to_lab)
    through, beside = np.zeros((2, 2 * ny, 2 * nx))
    x, y, e = spots.x + nx // 2, spots.y + ny // 2, spots.electrons
    missed = render.add_spots(through, x[1:], y[1:], e[1:], profile, render.OVERSAMPLING)
    missed += render.add_spots(through, x[:1], y[:1], e[:1], wide, render.OVERSAMPLING)
    missed += render.add_spots(beside, x[:1], y[:1], np.array([spots.beside]), wide, render.OVERSAMPLING)
    film = 10 * setup.size["support_film_nm"] / np.cos(setup.true.alpha[i])
    kernels = [setup.diffuse.kernel(film, spots.thickness_mean), setup.diffuse.kernel(film, 0.0)]
    image = render.spread([through, beside], kernels)[ny // 2 : ny // 2 + ny, nx // 2 : nx // 2 + nx]
    return image, missed + float(through.sum() + beside.sum() - image.sum())


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
