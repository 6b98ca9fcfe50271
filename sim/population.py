"""Which particle each frame shows: one in a tilt series, many in unknown orientations in serial data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nanoed.sim.particle import Body, mounting
from nanoed.sim.streams import stream

if TYPE_CHECKING:
    from nanoed.sim.spec import Particle, Serial

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Per frame the particle in the beam and, in serial data, its orientation and a chance companion.

    particle : (n,) counted from 0, -1 for none.  scale : (n,) its size over that of the spec.
    turn : (n, 3, 3) crystal Cartesian frame to lab, or None where the goniometer says it.
    companion_scale : (n,), 0 for none.  companion_turn : (n, 3, 3), or None.
    """

    particle: NDArray[np.int64]
    scale: Array
    turn: Array | None
    companion_scale: Array
    companion_turn: Array | None


def one_particle(n: int) -> Population:
    """The same particle in all n frames."""
    return Population(np.zeros(n, np.int64), np.ones(n), None, np.zeros(n), None)


def serial_population(protocol: Serial, particle: Particle, body: Body, seed: int) -> Population:
    """Particles in runs of random length, each turning about an axis of its own between its frames.

    Sizes are log-normal; a frame's companion is a particle that no other frame shows.
    """
    n = protocol.n_frames
    owner, position = runs(n, protocol.n_particles, seed)
    turn, scale = np.empty((n, 3, 3)), np.empty(n)
    for p in range(protocol.n_particles):
        mine = owner == p
        start, axis, size = _drawn(protocol, particle, body, seed, "particle", p)
        steps = np.radians(protocol.turn_deg) * position[mine]
        turn[mine] = Rotation.from_rotvec(steps[:, None] * axis).as_matrix() @ start
        scale[mine] = size
    chance = np.array([100 * stream(seed, "company", i).random() for i in range(n)])
    double = (chance >= protocol.blank_pct) & (chance < protocol.blank_pct + protocol.double_pct)
    companion_turn, companion_scale = np.tile(np.eye(3), (n, 1, 1)), np.zeros(n)
    for i in np.flatnonzero(double):
        companion_turn[i], _, companion_scale[i] = _drawn(protocol, particle, body, seed, "companion", int(i))
    seen = np.where(chance < protocol.blank_pct, -1, owner)
    return Population(seen, scale, turn, companion_scale, companion_turn)


def runs(n_frames: int, n_particles: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Owner of every frame and its position in the owner's run, (n_frames,); every particle has a frame."""
    inner = stream(seed, "runs").permutation(n_frames - 1)[: n_particles - 1] + 1
    starts = np.concatenate([[0], np.sort(inner)])
    owner = np.searchsorted(starts, np.arange(n_frames), side="right") - 1
    return owner, np.arange(n_frames) - starts[owner]


def _drawn(
    protocol: Serial, particle: Particle, body: Body, seed: int, *key: str | int
) -> tuple[Array, Array, float]:
    """Orientation (3, 3), axis of its turning (3,) and size over that of the spec of one particle."""
    rng = stream(seed, *key)
    axis = rng.standard_normal(3)
    size = float(np.exp(0.01 * protocol.size_spread_pct * rng.standard_normal()))
    start = mounting(particle, body, int(rng.integers(2**62)))
    return start, axis / np.linalg.norm(axis), size


def angles_of(turn: Array) -> Array:
    """alpha, beta, omega (rad) of R_z(omega) R_x(alpha) R_y(beta) = turn; (n, 3) of (n, 3, 3)."""
    alpha = np.arcsin(np.clip(turn[:, 2, 1], -1, 1))
    beta = np.arctan2(-turn[:, 2, 0], turn[:, 2, 2])
    return np.column_stack([alpha, beta, np.arctan2(-turn[:, 0, 1], turn[:, 1, 1])])
