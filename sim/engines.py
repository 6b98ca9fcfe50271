"""The three engines behind one door: what share of the electrons on a grain each beam carries away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nanoed.sim import multislice
from nanoed.sim.atoms import Atoms, Strain, carbon_film, cut_atoms, shaken, together
from nanoed.sim.physics import bloch, kinematical
from nanoed.sim.physics.errors import InputError

if TYPE_CHECKING:
    from nanoed.sim.particle import Body
    from nanoed.sim.setup import Setup
    from nanoed.sim.spec import Particle

Array = NDArray[np.float64]
FARTHEST_SHAKE = 8.0
"""Standard deviations of its displacement that an atom is given room for."""


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """A grain, and how the beam goes through it during a frame.

    to_lab : (3, 3) from the body's frame.  ub_lab : (3, 3) 1/Å of its lattice, strained or not.
    rotations : (m, 3, 3) that left-multiply it, of weights shares (m,), sum 1.
    thickness, weights : (k,) Å and shares of the projected `area` (Å²).  hkl : (n, 3) beams asked for, 000 first.
    film : Å of support film.
    """

    body: Body
    to_lab: Array
    ub_lab: Array
    rotations: Array
    shares: Array
    thickness: Array
    weights: Array
    hkl: NDArray[np.int64]
    area: float
    film: float


def engine_shares(setup: Setup, aim: Aim, rng: np.random.Generator) -> tuple[Array, dict[str, float]]:
    """Shares of the electrons on the grain in each beam, (n,), and those that left all beams, by cause; all sum to 1.

    By the engine of the experiment; rng : of the atoms' thermal motion and of the film.
    """
    if setup.experiment.engine == "multislice":
        return atom_shares(setup, aim, rng)
    voltage, ub_lab = setup.experiment.instrument.voltage_kv, aim.ub_lab
    given = (
        setup.potential, ub_lab, aim.rotations, aim.shares, aim.thickness, aim.weights, aim.hkl, voltage, setup.g_max
    )  # fmt: skip
    if setup.experiment.engine == "bloch":
        share = bloch.frame_intensities(*given, setup.s_max)
        if setup.experiment.absorption == 0:
            return share, {}
        return share, {"thermal": max(0.0, 1 - float(share.sum()))}
    share = kinematical.kinematical_intensities(*given, np.inf)
    share[0] = max(0.0, 1 - share[1:].sum())
    return share, {}


def atom_shares(setup: Setup, aim: Aim, rng: np.random.Generator) -> tuple[Array, dict[str, float]]:
    """As `engine_shares`, atom by atom.

    Smeared atoms in vacuum: what no spot holds stays in the beam. Frozen phonons and a film of atoms scatter between
    the spots; the causes share that as their mean numbers of events do, since both scatter alike. What the film alone
    puts where spots are is taken off them.
    """
    options, particle = setup.experiment.multislice, setup.experiment.particle
    cut = cut_atoms(setup.crystal, aim.body, aim.to_lab, strain_of(particle))
    if len(cut.kind) == 0:
        raise InputError(
            "no atom lies in the particle", field="particle.diameter_nm", value=particle.diameter_nm,
            allowed="at least a unit cell",
        )  # fmt: skip
    atoms, film, grid = _in_a_box(setup, cut, aim.film if options.film_atoms else 0.0, rng)
    g = aim.hkl @ aim.ub_lab.T
    spots = np.zeros(len(g))
    configurations = max(1, options.frozen_phonons)
    for k in range(min(configurations, len(aim.rotations))):
        some = slice(k, None, configurations)
        now = together(shaken(atoms, rng) if options.frozen_phonons else atoms, film)
        spots += _spots(setup, now, grid, g, aim.rotations[some], aim.shares[some])
    share, box = spots / aim.area, grid.lengths[0] * grid.lengths[1]
    events = {}
    if options.frozen_phonons:
        events["thermal"] = float(aim.thickness @ aim.weights) * setup.diffuse.per_A["thermal"]
    if len(film.kind) > 0:
        alone = _spots(setup, film, grid, g, aim.rotations, aim.shares)
        share[1:] = np.maximum(share[1:] - alone[1:] / aim.area, 0)
        events["film"] = -float(np.log(alone[0] / box))
    if not events:
        share[0] = max(0.0, 1 - share[1:].sum())
        return share, {}
    beside = (box - aim.area) * np.exp(-events.get("film", 0.0))
    share[0] = max(0.0, (spots[0] - beside) / aim.area)
    lost, total = max(0.0, 1 - float(share.sum())), sum(events.values())
    return share, {name: lost * n / total for name, n in events.items()}


def strain_of(particle: Particle) -> Strain:
    """The strain that the particle's spec asks for, Å."""
    return Strain(particle.strain_pct, particle.surface_strain_pct, 10 * particle.surface_depth_nm)


def _spots(
    setup: Setup, atoms: Atoms, grid: multislice.Grid, g: Array, rotations: Array, shares: Array
) -> Array:
    """`multislice.spot_areas` with the settings of the experiment; frames share the cores, so one thread."""
    experiment = setup.experiment
    optics = multislice.Optics(experiment.instrument.voltage_kv, experiment.factors)
    radius = experiment.multislice.spot_radius
    return multislice.spot_areas(atoms, grid, optics, g, rotations, shares, radius, setup.s_max, workers=1)


def _in_a_box(
    setup: Setup, atoms: Atoms, film: float, rng: np.random.Generator
) -> tuple[Atoms, Atoms, multislice.Grid]:
    """The particle's atoms and `film` Å of carbon behind them, in a box that holds beams up to g_max."""
    options = setup.experiment.multislice
    margin = 10 * options.margin_nm
    if options.frozen_phonons:
        margin += FARTHEST_SHAKE * float(np.sqrt(max(max(u[:3]) for _, u in atoms.species)))
    low, high = atoms.xyz.min(0) - np.array([0, 0, film]), atoms.xyz.max(0)
    sampling = multislice.BAND / (2 * options.band_over_g_max * setup.g_max)
    grid = multislice.grid_around(high - low, sampling, options.slice_A, margin)
    corner = np.array([low[0] - margin, low[1] - margin, high[2] + margin])
    below = low - corner
    carbon = carbon_film(np.array([0, 0, below[2]]), np.array([*grid.lengths[:2], below[2] + film]), rng)
    return replace(atoms, xyz=atoms.xyz - corner), carbon, grid
