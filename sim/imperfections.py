"""What real instruments add to the nominal geometry: frames as they were really taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.streams import stream

if TYPE_CHECKING:
    from nanoed.sim.dataset import Nominal

Array = NDArray[np.float64]
ANGSTROM_PER_MM = 1e7
TURNS = 5
"""How often a particle turns under the beam in a series (choice)."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameGeometry:
    """True geometry of every frame, (n,) unless said otherwise.

    alpha, beta, omega : rad; g_lab = R_z(omega) R_x(alpha) R_y(beta) UB h, omega contains the axis azimuth.
    centre_px : (n, 2) x, y.  a_per_px : 1/Å.  semi_angle : rad.
    flux : factor on the nominal one.  place : (n, 2) x, y of the particle in the beam, Å.
    pivot : x + i y of the beam at precession azimuth 0, Å, from the middle of the circle that it draws on the specimen;
    `place` is from that middle then.
    """

    alpha: Array
    beta: Array
    omega: Array
    centre_px: Array
    a_per_px: float
    semi_angle: float
    distortion: Distortion
    flux: Array
    place: Array
    pivot: complex


def true_geometry(seed: int, size: dict[str, float], nominal: Nominal, axis_azimuth: float) -> FrameGeometry:
    """Geometry of the frames as they were really taken: nominal values plus the flaws of `size`.

    axis_azimuth : the true one, rad. Drifts are functions of the tilt angle (serial data: of nothing) and jitters
    have a stream per frame, so a frame's geometry does not depend on the other frames, but for `rotation_step_deg`:
    when the particle turns is drawn over the whole series, see `turns`. Turns of the particle in its own frame are put
    into the three angles to first order.
    """
    alpha = np.radians(nominal.alpha_deg)
    names = ("alpha", "beta", "omega", "place x", "place y")
    drift = {name: smooth_drift(stream(seed, "drift", name), alpha) for name in names}
    fixed = stream(seed, "alignment")
    offset_azimuth, elliptic_azimuth = fixed.uniform(0, 2 * np.pi, 2)
    camera, precession = fixed.uniform(-1, 1, 2)
    offset = size["centre_offset_px"] * np.array([np.cos(offset_azimuth), np.sin(offset_azimuth)])
    semi_angle = np.radians(nominal.semi_angle_deg) * (1 + 0.01 * size["precession_angle_error_pct"] * precession)
    circle = ANGSTROM_PER_MM * size["pivot_cs_mm"] * semi_angle**3
    turned = turns(seed, np.radians(size["rotation_step_deg"]), len(alpha))
    walk = 10 * size["particle_drift_nm"] * np.column_stack([drift["place x"], drift["place y"]])
    return FrameGeometry(
        alpha=alpha
        + np.radians(size["alpha_jitter_deg"] * jitter(seed, "alpha_jitter", len(alpha), 1)[:, 0])
        + np.radians(size["alpha_drift_deg"] * drift["alpha"])
        + turned[:, 0],
        beta=np.radians(size["beta_drift_deg"] * drift["beta"]) + turned[:, 1] - turned[:, 2] * np.tan(alpha),
        omega=axis_azimuth + np.radians(size["omega_drift_deg"] * drift["omega"]) + turned[:, 2] / np.cos(alpha),
        centre_px=np.array(nominal.centre_px)
        + offset
        + size["centre_jitter_px"] * jitter(seed, "centre_jitter", len(alpha), 2),
        a_per_px=nominal.a_per_px * (1 + 0.01 * size["camera_length_error_pct"] * camera),
        semi_angle=semi_angle,
        distortion=distortion_of(seed, size, elliptic_azimuth, nominal),
        flux=np.exp(0.01 * size["frame_scale_pct"] * jitter(seed, "flux", len(alpha), 1)[:, 0]),
        place=walk + 10 * size["tracking_error_nm"] * jitter(seed, "place", len(alpha), 2),
        pivot=complex(circle * np.exp(2j * np.pi * stream(seed, "pivot").uniform())),
    )


def jitter(seed: int, name: str, n: int, columns: int) -> Array:
    """Standard normal numbers of a named stream per frame, (n, columns)."""
    return np.array([stream(seed, name, i).standard_normal(columns) for i in range(n)])


def turns(seed: int, step: float, n: int) -> Array:
    """Rotation vectors (n, 3), rad, of a particle that turns by `step` TURNS times in a series of n frames, each time
    about another axis, in its own frame at zero angles; the times are uniform over the series."""
    if step == 0:
        return np.zeros((n, 3))
    rng = stream(seed, "turns")
    when, axes = rng.uniform(0, n, TURNS), rng.standard_normal((TURNS, 3))
    axes /= np.linalg.norm(axes, axis=1)[:, None]
    return step * (np.arange(n)[:, None] >= when).astype(float) @ axes


def smooth_drift(rng: np.random.Generator, alpha: Array) -> Array:
    """A slowly varying function of the tilt angle with largest magnitude 1 over -70° to 70°, shape (n,).

    alpha : (n,) rad.  Four harmonics of half period 140°/k with amplitudes falling as 1/k.
    """
    k = np.arange(1, 5)
    weight, phase = rng.standard_normal(4) / k, rng.uniform(0, 2 * np.pi, 4)

    def raw(a: Array) -> Array:
        u = np.clip(np.degrees(a) / 140 + 0.5, 0, 1)
        return (weight * np.cos(np.pi * k * u[:, None] + phase)).sum(axis=1)

    return raw(alpha) / np.abs(raw(np.radians(np.linspace(-70, 70, 281)))).max()


def nominal_axis_azimuth_deg(seed: int, true_deg: float, error_deg: float) -> float:
    """The tilt-axis azimuth an experimenter would quote, degrees in [-180, 180)."""
    if error_deg == 0:
        return true_deg
    quoted = round(true_deg + error_deg * stream(seed, "axis_azimuth").standard_normal())
    return (quoted + 180.0) % 360.0 - 180.0


@dataclass(frozen=True, slots=True)
class Distortion:
    """w' = w + E w* + P1 w w* + P2 w² + C w² w*, w = g_x + i g_y in units of `edge` (PHYSICS C4).

    elliptic : E.  parabolic : P1; P2 = P1* / 2, as of a cubic term about another centre.  cubic : C, its real part
    barrel (-) or pincushion (+), its imaginary part spiral.  edge : |g| at the middle of the detector's edge, 1/Å.
    """

    elliptic: complex
    parabolic: complex
    cubic: complex
    edge: float

    def __call__(self, g_xy: Array) -> Array:
        """Where the lenses put the in-plane part of g, (n, 2) 1/Å."""
        w = (g_xy[:, 0] + 1j * g_xy[:, 1]) / self.edge
        away = w + self.elliptic * w.conj() + self.cubic * w * w * w.conj()
        away += self.parabolic * w * w.conj() + 0.5 * np.conj(self.parabolic) * w * w
        return self.edge * np.column_stack([away.real, away.imag])


def distortion_of(seed: int, size: dict[str, float], elliptic_azimuth: float, nominal: Nominal) -> Distortion:
    """The lenses' distortion; azimuths and signs from the seed."""
    rng = stream(seed, "distortion")
    azimuth, (barrel, spiral) = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0], 2)
    return Distortion(
        elliptic=complex(0.01 * size["elliptic_pct"] * np.exp(1j * elliptic_azimuth)),
        parabolic=complex(0.01 * size["parabolic_pct"] * np.exp(1j * azimuth)),
        cubic=complex(0.01 * (barrel * size["barrel_pct"] + 1j * spiral * size["spiral_pct"])),
        edge=0.5 * min(nominal.shape) * nominal.a_per_px,
    )
