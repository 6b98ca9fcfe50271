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
from nanoed.sim.physics.scattering import reflections_within
from nanoed.sim.physics.thickness import chord_distribution
from nanoed.sim.spec import Experiment
from nanoed.sim.streams import stream
from nanoed.sim.truth import FRAME_COLUMNS

Array = NDArray[np.float64]
G_MAX_DEFAULT = 2.2  # 1/Å, where the intensities of room-temperature oxides have vanished


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """An experiment made ready: everything that its frames share.

    mount : (3, 3) crystal Cartesian frame to lab at zero tilt.  ub : (3, 3) 1/Å, at zero tilt.
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
    candidates: NDArray[np.int64]
    g_max: float
    s_max: float


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One simulated exposure: pixels, its rows of the reflection table and its row of the frame table."""

    image: NDArray[Any]
    reflections: dict[str, NDArray[Any]]
    summary: dict[str, float]


def prepare(experiment: Experiment, crystal: Crystal) -> Setup:
    """Resolve an experiment into what its frames share."""
    instrument, size = experiment.instrument, imperfections.magnitudes(experiment.flaws)
    ny, nx = instrument.detector_px[1], instrument.detector_px[0]
    nominal = Nominal(
        voltage_kv=instrument.voltage_kv,
        shape=(ny, nx),
        a_per_px=instrument.a_per_px,
        pixel_size_um=instrument.pixel_size_um,
        centre_px=(0.5 * nx, 0.5 * ny),
        exposure_s=experiment.protocol.exposure_s,
        alpha_deg=protocol.nominal_alpha_deg(experiment.protocol),
        axis_azimuth_deg=imperfections.nominal_axis_azimuth_deg(
            experiment.seed, instrument.axis_azimuth_deg, size["axis_azimuth_error_deg"]
        ),
        protocol=experiment.protocol.kind,
        semi_angle_deg=experiment.protocol.semi_angle_deg,
        rotation_deg=protocol.sweep_deg(experiment.protocol),
        gain=instrument.gain,
        saturation=microscope.saturation_counts(instrument),
    )
    true = imperfections.true_geometry(
        experiment.seed,
        size,
        np.radians(nominal.alpha_deg),
        np.radians(instrument.axis_azimuth_deg),
        np.radians(nominal.semi_angle_deg),
        nominal.a_per_px,
        nominal.centre_px,
    )
    body = body_of(experiment.particle, crystal)
    mount = mounting(experiment.particle, body, experiment.seed)
    corner = 0.5 * np.hypot(nx, ny) * true.a_per_px
    g_max = experiment.g_max or min(corner, G_MAX_DEFAULT)
    if g_max > 1.1 * corner:
        warnings.warn(
            f"g_max {g_max:g} 1/Å lies beyond the detector's corner at {corner:.3g} 1/Å", stacklevel=2
        )
    s_max = experiment.s_max or 1.5 * min(max(0.02, 2 / min(body.diameter, body.length)), 0.04)
    potential = bloch.potential_table(crystal, instrument.voltage_kv, g_max, experiment.factors)
    canvas = (2 * ny, 2 * nx)
    return Setup(
        experiment,
        crystal,
        body,
        mount,
        mount @ crystal.reciprocal_basis,
        size,
        true,
        nominal,
        potential,
        diffuse_scattering(canvas, true.a_per_px, instrument.voltage_kv, size["inelastic"]),
        np.vstack([np.zeros((1, 3), np.int64), reflections_within(crystal, g_max)]),
        g_max,
        s_max,
    )


def simulated_frame(setup: Setup, i: int) -> Frame:
    """Frame i, whatever other frames exist."""
    experiment, instrument, true = setup.experiment, setup.experiment.instrument, setup.true
    rotation = geometry.frame_matrix(true.alpha[i], true.beta[i], true.omega[i])
    to_lab = rotation @ setup.mount
    thickness, weights, area = chord_distribution(setup.body, to_lab.T @ np.array([0.0, 0.0, 1.0]))
    lit = area * lit_fraction(setup.body, to_lab, 10 * instrument.beam_diameter_nm)
    dose = instrument.flux_e_A2_s * experiment.protocol.exposure_s
    rotations = orientations(setup, i, float(np.max(thickness)))
    hkl, s_g = excited(setup, rotation @ setup.ub)
    ub_lab = rotation @ setup.ub
    engine = bloch.frame_intensities if experiment.engine == "bloch" else kinematical.kinematical_intensities
    equal = np.full(len(rotations), 1 / len(rotations))
    intensity = engine(
        setup.potential,
        ub_lab,
        rotations,
        equal,
        thickness,
        weights,
        hkl,
        instrument.voltage_kv,
        setup.g_max,
        setup.s_max,
    )
    if experiment.engine == "kinematical":
        intensity[0] = max(0.0, 1 - intensity[1:].sum())
    electrons = dose * lit * intensity
    bare = dose * (microscope.beam_area_A2(instrument) - lit)
    g_xy = imperfections.distorted((hkl @ ub_lab.T)[:, :2], true.elliptic)
    x, y = geometry.g_to_pixel(g_xy, true.centre_px[i], true.a_per_px)
    mean_thickness = float(thickness @ weights)
    expected, missed = _expected_image(setup, i, to_lab, x, y, electrons, bare, mean_thickness)
    recorded = microscope.recorded_electrons(expected, instrument, experiment.protocol.exposure_s)
    noise = stream(experiment.seed, "counts", i) if experiment.noise else None
    keep = slice(1, None)
    table = {
        "frame": np.full(len(hkl) - 1, i),
        "h": hkl[keep, 0],
        "k": hkl[keep, 1],
        "l": hkl[keep, 2],
        "i_true": electrons[keep],
        "s_g": s_g[keep],
        "x_px": x[keep],
        "y_px": y[keep],
        "partiality": partialities(ub_lab, hkl[keep], rotations, thickness, weights, instrument.voltage_kv),
    }
    summary = dict(
        zip(
            FRAME_COLUMNS,
            (
                *np.degrees([true.alpha[i], true.beta[i], true.omega[i]]),
                *true.centre_px[i],
                mean_thickness,
                float(np.max(thickness)),
                area,
                dose * microscope.beam_area_A2(instrument),
                float(expected.sum()),
                missed,
            ),
            strict=True,
        )
    )
    return Frame(microscope.read_out(recorded, instrument, noise), table, summary)


def orientations(setup: Setup, i: int, longest: float) -> Array:
    """Rotations that the crystal goes through in frame i relative to its centre, (m, 3, 3), equally weighted.

    Precession azimuths or the sweep of the stage, each with one member of the mosaic spread and of the beam's
    convergence. longest : longest chord, Å, for the number of samples (PHYSICS A5, times azimuths_factor).
    """
    true, factor = setup.true, setup.experiment.azimuths_factor
    half_sweep = np.radians(0.5 * setup.nominal.rotation_deg)
    if setup.nominal.protocol == "precession":
        n = int(np.ceil(factor * sampling.precession_steps(setup.g_max, true.semi_angle, longest)))
        steps = sampling.precession_rotations(true.semi_angle, n)
    else:
        n = int(np.ceil(factor * sampling.precession_steps(setup.g_max, half_sweep / np.pi, longest)))
        steps = sampling.rotation_sweep(true.omega[i], half_sweep, n)
    tilts = imperfections.mosaic_tilts(
        n, np.radians(setup.size["mosaicity_deg"]), 1e-3 * setup.experiment.instrument.convergence_mrad
    )
    return _rotations(tilts) @ steps


def _rotations(vectors: Array) -> Array:
    """Active rotations by small rotation vectors, (n, 3) rad to (n, 3, 3)."""
    return Rotation.from_rotvec(vectors).as_matrix()


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


def _expected_image(
    setup: Setup,
    i: int,
    to_lab: Array,
    x: Array,
    y: Array,
    electrons: Array,
    bare: float,
    mean_thickness: float,
) -> tuple[Array, float]:
    """Electrons expected in every pixel, (ny, nx), and those that miss the detector.

    x, y, electrons : spots, the direct beam first.  bare : electrons that pass beside the particle.
    """
    instrument, a = setup.experiment.instrument, setup.true.a_per_px
    ny, nx = setup.nominal.shape
    disc = 1e-3 * instrument.convergence_mrad / wavelength_A(instrument.voltage_kv)
    wide = render.spot_profile(a, disc, instrument.psf_sigma_px, None, to_lab)
    narrow = render.spot_profile(a, disc, instrument.psf_sigma_px, setup.body, to_lab)
    through, beside = np.zeros((2, 2 * ny, 2 * nx))
    x, y = x + nx // 2, y + ny // 2
    missed = render.add_spots(through, x[1:], y[1:], electrons[1:], narrow, render.OVERSAMPLING)
    missed += render.add_spots(through, x[:1], y[:1], electrons[:1], wide, render.OVERSAMPLING)
    missed += render.add_spots(beside, x[:1], y[:1], np.array([bare]), wide, render.OVERSAMPLING)
    film = 10 * setup.size["support_film_nm"] / np.cos(setup.true.alpha[i])
    kernels = [setup.diffuse.kernel(film, mean_thickness), setup.diffuse.kernel(film, 0.0)]
    image = render.spread([through, beside], kernels)[ny // 2 : ny // 2 + ny, nx // 2 : nx // 2 + nx]
    return image, missed + float(through.sum() + beside.sum() - image.sum())


def partialities(
    ub_lab: Array,
    hkl: NDArray[np.int64],
    rotations: Array,
    thickness: Array,
    weights: Array,
    voltage_kv: float,
) -> Array:
    """Mean over a frame of <t² sinc²(π t S)> / <t²>, the kinematical rocking curve, per reflection; (n,)."""
    out = np.zeros(len(hkl))
    _add_partialities(hkl @ ub_lab.T, rotations, thickness, weights, wavelength_A(voltage_kv), out)
    return out / (len(rotations) * (weights @ thickness**2))


@nb.njit(cache=True, nogil=True)
def _add_partialities(
    g: NDArray[np.float64],
    rotations: NDArray[np.float64],
    thickness: NDArray[np.float64],
    weights: NDArray[np.float64],
    wavelength: float,
    out: NDArray[np.float64],
) -> None:
    for i in range(g.shape[0]):
        half_g2 = 0.5 * wavelength * (g[i, 0] ** 2 + g[i, 1] ** 2 + g[i, 2] ** 2)
        for m in range(rotations.shape[0]):
            r = rotations[m]
            s = np.pi * (r[2, 0] * g[i, 0] + r[2, 1] * g[i, 1] + r[2, 2] * g[i, 2] - half_g2)
            for k in range(thickness.shape[0]):
                t = thickness[k]
                amplitude = np.sin(s * t) / s if abs(s * t) > 1e-6 else t
                out[i] += weights[k] * amplitude * amplitude
