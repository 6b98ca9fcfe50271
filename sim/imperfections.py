"""What real instruments add to the nominal geometry, each with its default magnitude and source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.streams import stream

if TYPE_CHECKING:
    from nanoed.sim.dataset import Nominal
    from nanoed.sim.spec import Flaws

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FlawDefault:
    """Default magnitude of a flaw (unit in the flaw's name), what it means and where the value comes from."""

    value: float
    meaning: str
    source: str


FLAWS: dict[str, FlawDefault] = {
    "alpha_jitter_deg": FlawDefault(
        0.06, "rms of independent errors of the tilt angle", "PHYSICS H7: 0.05-0.08"
    ),
    "alpha_drift_deg": FlawDefault(
        0.2, "amplitude of a smooth error of the tilt angle", "PHYSICS H7: 0.1-0.3"
    ),
    "beta_drift_deg": FlawDefault(0.35, "amplitude of a smooth second tilt", "PHYSICS H7: 0.3-0.4"),
    "omega_drift_deg": FlawDefault(0.2, "amplitude of a smooth in-plane rotation", "PHYSICS H7: 0.2"),
    "axis_azimuth_error_deg": FlawDefault(
        1.0,
        "standard deviation of the nominal tilt-axis azimuth, which is also rounded to 1 degree",
        "choice: an axis calibrated at another camera length",
    ),
    "centre_offset_px": FlawDefault(
        2.0,
        "distance of the mean pattern centre from the nominal one, at a random azimuth",
        "PHYSICS C1: centres of the glycine set range over 2.1 px",
    ),
    "centre_jitter_px": FlawDefault(
        0.4, "rms per axis of the centre from frame to frame", "PHYSICS H7: 0.2-0.6"
    ),
    "elliptic_pct": FlawDefault(
        0.5, "amplitude |E| of w' = w + E w*, at a random azimuth", "PHYSICS C4: 0.2-2, 0.5"
    ),
    "camera_length_error_pct": FlawDefault(
        1.0,
        "half-width of the uniform relative error of the nominal 1/Å per pixel",
        "PHYSICS H7: up to 1",
    ),
    "precession_angle_error_pct": FlawDefault(
        3.0,
        "half-width of the uniform relative error of the nominal semi-angle",
        "PHYSICS H7: 2-5",
    ),
    "mosaicity_deg": FlawDefault(
        0.1, "rms per axis of a Gaussian spread of orientations", "PHYSICS H7: 0-0.2"
    ),
    "support_film_nm": FlawDefault(
        10.0, "thickness of the amorphous carbon film under the beam", "PHYSICS H5: 10"
    ),
    "inelastic": FlawDefault(1.0, "factor on the inelastic cross-sections of film and crystal", "PHYSICS H5"),
}


def magnitudes(flaws: Flaws) -> dict[str, float]:
    """Resolved magnitude of every flaw, in the unit of its name; 0 means off."""
    resolved = {}
    for name, default in FLAWS.items():
        value = getattr(flaws, name)
        resolved[name] = 0.0 if value == "off" else default.value if value == "default" else float(value)
    return resolved


@dataclass(frozen=True, slots=True, eq=False)
class FrameGeometry:
    """True geometry of every frame, (n,) unless said otherwise.

    alpha, beta, omega : rad; g_lab = R_z(omega) R_x(alpha) R_y(beta) UB h, omega contains the axis azimuth.
    centre_px : (n, 2) x, y.  a_per_px : 1/Å.  semi_angle : rad.
    elliptic : complex E of w' = w + E conj(w), w = g_x + i g_y (PHYSICS C4).
    """

    alpha: Array
    beta: Array
    omega: Array
    centre_px: Array
    a_per_px: float
    semi_angle: float
    elliptic: complex


def true_geometry(seed: int, size: dict[str, float], nominal: Nominal, axis_azimuth: float) -> FrameGeometry:
    """Geometry of the frames as they were really taken: nominal values plus the flaws of `size`.

    axis_azimuth : the true one, rad. Drifts are functions of the tilt angle and jitters have a stream per
    frame, so a frame's geometry does not depend on the other frames.
    """
    n, alpha = nominal.n_frames, np.radians(nominal.alpha_deg)
    jitter = np.array([stream(seed, "alpha_jitter", i).standard_normal() for i in range(n)])
    wander = np.array([stream(seed, "centre_jitter", i).standard_normal(2) for i in range(n)])
    drift = {name: smooth_drift(stream(seed, "drift", name), alpha) for name in ("alpha", "beta", "omega")}
    fixed = stream(seed, "alignment")
    offset_azimuth, elliptic_azimuth = fixed.uniform(0, 2 * np.pi, 2)
    camera, precession = fixed.uniform(-1, 1, 2)
    offset = size["centre_offset_px"] * np.array([np.cos(offset_azimuth), np.sin(offset_azimuth)])
    return FrameGeometry(
        alpha=alpha
        + np.radians(size["alpha_jitter_deg"] * jitter + size["alpha_drift_deg"] * drift["alpha"]),
        beta=np.radians(size["beta_drift_deg"] * drift["beta"]),
        omega=axis_azimuth + np.radians(size["omega_drift_deg"] * drift["omega"]),
        centre_px=np.array(nominal.centre_px) + offset + size["centre_jitter_px"] * wander,
        a_per_px=nominal.a_per_px * (1 + 0.01 * size["camera_length_error_pct"] * camera),
        semi_angle=np.radians(nominal.semi_angle_deg)
        * (1 + 0.01 * size["precession_angle_error_pct"] * precession),
        elliptic=0.01 * size["elliptic_pct"] * np.exp(1j * elliptic_azimuth),
    )


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


def distorted(g_xy: Array, elliptic: complex) -> Array:
    """Where an elliptic lens error puts the in-plane part of g: w' = w + E conj(w) (PHYSICS C4); (n, 2)."""
    w = g_xy[:, 0] + 1j * g_xy[:, 1]
    w = w + elliptic * w.conj()
    return np.column_stack([w.real, w.imag])
