"""An experiment made ready: everything that its frames share."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanoed.sim import imperfections, protocol, render
from nanoed.sim.background import Diffuse, diffuse_scattering
from nanoed.sim.dataset import Nominal
from nanoed.sim.flaws import magnitudes
from nanoed.sim.microscope import convergence_disc, flux_share
from nanoed.sim.particle import Body, body_of, mounting
from nanoed.sim.physics import bloch
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError
from nanoed.sim.population import Population, one_particle, serial_population
from nanoed.sim.spec import Experiment

Array = NDArray[np.float64]
G_MAX_DEFAULT = 2.2  # 1/Å, where the intensities of room-temperature oxides have vanished


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """An experiment made ready: everything that its frames share.

    mount : (3, 3) crystal Cartesian frame to lab at zero tilt.  ub : (3, 3) 1/Å, at zero tilt.
    beam_profile : spot profile of the direct beam.
    candidates : (n, 3) reflections that may scatter, 000 first.  size : magnitudes of the flaws.
    fluence : (n,) e/Å² that the particle has seen by the middle of each frame.
    """

    experiment: Experiment
    crystal: Crystal
    body: Body
    mount: Array
    ub: Array
    size: dict[str, float]
    true: imperfections.FrameGeometry
    population: Population
    nominal: Nominal
    potential: bloch.PotentialTable
    diffuse: Diffuse
    beam_profile: Array
    candidates: NDArray[np.int64]
    fluence: Array
    g_max: float
    s_max: float


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
        gain=instrument.gain * instrument.cluster_px,
        saturation=instrument.counter_max,
    )


def prepare(experiment: Experiment, crystal: Crystal) -> Setup:
    """Resolve an experiment into what its frames share; warns of a dark part of the particle and of an idle g_max."""
    instrument, size = experiment.instrument, magnitudes(experiment.flaws)
    nominal = nominal_values(experiment, size)
    azimuth = np.radians(instrument.axis_azimuth_deg)
    true = imperfections.true_geometry(experiment.seed, size, nominal, azimuth)
    body = body_of(experiment.particle, crystal)
    mount = mounting(experiment.particle, body, experiment.seed)
    if experiment.protocol.kind == "serial":
        population = serial_population(experiment.protocol, experiment.particle, body, experiment.seed)
    else:
        population = one_particle(nominal.n_frames)
    ny, nx = nominal.shape
    a, voltage = true.a_per_px, instrument.voltage_kv
    g_max = experiment.g_max or min(0.5 * float(np.hypot(nx, ny)) * a, G_MAX_DEFAULT)
    if experiment.absorption != 0 and not (crystal.u_iso > 0).any():
        raise InputError(
            "absorption needs atoms that move", field="structure", value=crystal.name, allowed="U above 0"
        )
    _warn(experiment, body, mount, g_max, 0.5 * float(np.hypot(nx, ny)) * a)
    potential = bloch.potential_table(
        crystal, voltage, g_max, experiment.factors, absorption=experiment.absorption
    )
    disc, psf = convergence_disc(instrument), instrument.psf_sigma_px
    return Setup(
        experiment=experiment,
        crystal=crystal,
        body=body,
        mount=mount,
        ub=mount @ crystal.reciprocal_basis,
        size=size,
        true=true,
        population=population,
        nominal=nominal,
        potential=potential,
        diffuse=diffuse_scattering((2 * ny, 2 * nx), a, voltage, size["inelastic"], crystal),
        beam_profile=render.spot_profile(a, disc, psf, None, mount, descan_px(nominal, size)),
        candidates=potential.hkl,
        fluence=protocol.fluence_before(experiment.protocol, instrument.flux_e_A2_s),
        g_max=g_max,
        s_max=experiment.s_max or 1.5 * min(max(0.02, 2 / min(body.diameter, body.length)), 0.04),
    )


def descan_px(nominal: Nominal, size: dict[str, float]) -> float:
    """Radius of the ring that every spot is drawn to: only precession has one."""
    return size["descan_px"] if nominal.semi_angle_deg > 0 else 0.0


def _warn(experiment: Experiment, body: Body, mount: Array, g_max: float, corner: float) -> None:
    """Say what an experimenter would want to know before waiting for the frames."""
    if g_max > 1.1 * corner:
        warnings.warn(f"g_max {g_max:g} is beyond the detector's corner at {corner:.3g} 1/Å", stacklevel=3)
    if experiment.instrument.beam_profile == "top-hat":
        lit = float(flux_share(body, mount, experiment.instrument, np.zeros((1, 2)))[0])
        if lit < 1:
            what = f"the particle is larger than the beam: {100 * (1 - lit):.1f} % is dark"
            warnings.warn(what, stacklevel=3)
