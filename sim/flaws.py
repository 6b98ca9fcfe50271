"""What real instruments and specimens add: every flaw with its default magnitude and source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanoed.sim.spec import Flaws


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
    "barrel_pct": FlawDefault(
        0.3, "radial distortion at the detector's edge, barrel or pincushion", "PHYSICS C4: 0.1-1"
    ),
    "spiral_pct": FlawDefault(0.2, "tangential distortion at the detector's edge", "PHYSICS C4: 0.1-0.5"),
    "parabolic_pct": FlawDefault(
        0.1, "distortion quadratic in g at the detector's edge, at a random azimuth", "PHYSICS C4: 0.05-0.3"
    ),
    "descan_px": FlawDefault(
        1.0, "radius of the ring that precession leaves of every spot", "PHYSICS H7: 0-2"
    ),
    "ice_nm": FlawDefault(5.0, "thickness of the vitreous ice on the film", "choice: a slight contamination"),
    "frame_scale_pct": FlawDefault(
        9.0, "rms of independent factors on the flux of the frames", "PHYSICS C1: the glycine set, sd 0.09"
    ),
    "tracking_error_nm": FlawDefault(
        5.0, "rms per axis of the particle's place in the beam from frame to frame", "choice: with tracking"
    ),
    "particle_drift_nm": FlawDefault(
        50.0, "amplitude per axis of a smooth walk of the particle through the beam", "choice: no tracking"
    ),
    "rotation_step_deg": FlawDefault(
        0.3,
        "angle by which the beam turns the particle, five times in a series at random, each time about another axis",
        "PHYSICS H7: steps of 0.1-0.5; how often: choice",
    ),
    "pivot_cs_mm": FlawDefault(
        1.0,
        "pivot error as spherical aberration: precession leads the beam over the specimen in a circle of radius Cs θ³",
        "PHYSICS H7: pivot error; choice: an objective's Cs without any correction, 9 nm at 1.2°, at a random azimuth",
    ),
    "second_particle_pct": FlawDefault(
        10.0, "flux on a second particle over that on the first, oriented at random", "PHYSICS H9: 0-30"
    ),
    "twin_pct": FlawDefault(
        10.0, "share of the particle that is twinned by particle.twin_plane_hkl", "PHYSICS H9: 0-30"
    ),
    "damage_b_A2_per_Me": FlawDefault(
        1.0, "growth of B (Å²) over 10⁶ e/Å², on intensities", "PHYSICS H8, its size: choice"
    ),
    "fading_per_Me": FlawDefault(
        1.0, "10⁶ e/Å² over the fluence that fades intensities to 1/e", "PHYSICS H8: 10⁶ for oxides"
    ),
    "gap_cross_px": FlawDefault(
        3.0, "width of the pixels at chip borders, read out as so many equal ones", "PHYSICS H4: 3"
    ),
    "dead_pixel_ppm": FlawDefault(50.0, "pixels that count nothing", "choice: a good detector"),
    "hot_pixel_ppm": FlawDefault(
        20.0, "pixels that count 10 electrons/s of their own", "choice: a good detector"
    ),
}


STANDARD = frozenset(list(FLAWS)[: list(FLAWS).index("barrel_pct")])
"""The one set that all shipped cases have on; the others are for stress tests."""


def magnitudes(flaws: Flaws) -> dict[str, float]:
    """Resolved magnitude of every flaw, in the unit of its name; 0 means off."""
    resolved = {}
    for name, default in FLAWS.items():
        value = getattr(flaws, name)
        resolved[name] = 0.0 if value == "off" else default.value if value == "default" else float(value)
    return resolved
