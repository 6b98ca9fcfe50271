"""Experiment: every choice that makes data; degrees, nanometres and kilovolts live here, never inside."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    model_validator,
)

from nanoed.sim.microscope import PRESETS

Engine = Literal["bloch", "kinematical", "multislice"]
Table = Literal["lobato", "peng", "kirkland"]
MOST_FRAMES = 100_000
Magnitude = Literal["off", "default"] | NonNegativeFloat
Strain = Annotated[float, Field(ge=-10, le=10)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Particle(_Part):
    """Shape, size and mounting of the crystal.

    `diameter_nm` lies across `axis_uvw`, `length_nm` along it (ellipsoid: full axis; plate: thickness; a
    sphere has none). The axis is within `inclination_max_deg` of the film plane at zero tilt; its azimuth in
    the plane and the roll of the crystal about it come from the seed. A polyhedron has the volume of a sphere
    of `diameter_nm`.

    strain_pct : uniform strain xx, yy, zz, yz, xz, xy in the crystal's Cartesian frame; surface_strain_pct : radial
    strain at the surface, positive outwards, decaying over surface_depth_nm. Both move atoms: multislice alone.
    faces : (h, k, l, d) of a polyhedron, completed by the Laue group; d relative distances from the centre.
    twin_plane_hkl : normal of the half turn that makes the twin of flaws.twin_pct.
    """

    shape: Literal["cylinder", "sphere", "ellipsoid", "plate", "polyhedron"]
    diameter_nm: Annotated[float, Field(gt=0, le=10_000)]
    length_nm: Annotated[float, Field(gt=0, le=10_000)] | None = None
    axis_uvw: tuple[int, int, int] = (0, 0, 1)
    inclination_max_deg: Annotated[float, Field(ge=0, le=90)] = 90.0
    faces: tuple[tuple[int, int, int, PositiveFloat], ...] = ()
    twin_plane_hkl: tuple[int, int, int] | None = None
    strain_pct: tuple[Strain, Strain, Strain, Strain, Strain, Strain] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    surface_strain_pct: Strain = 0.0
    surface_depth_nm: Annotated[float, Field(gt=0, le=10)] = 0.5

    @property
    def strained(self) -> bool:
        return any(self.strain_pct) or self.surface_strain_pct != 0

    @model_validator(mode="after")
    def _consistent(self) -> Particle:
        without = self.shape in ("sphere", "polyhedron")
        if (self.length_nm is None) != without:
            raise ValueError(f"a {self.shape} takes {'no length_nm' if without else 'length_nm'}")
        if (self.shape == "polyhedron") != bool(self.faces):
            raise ValueError("a polyhedron takes faces, other shapes take none")
        if self.axis_uvw == (0, 0, 0) or self.twin_plane_hkl == (0, 0, 0):
            raise ValueError("axis_uvw and twin_plane_hkl must not be 0 0 0")
        if any(face[:3] == (0, 0, 0) for face in self.faces):
            raise ValueError("a face must not be 0 0 0")
        return self


class Instrument(_Part):
    """Beam and detector; fields not given are those of `preset` (sources: microscope.PRESETS).

    flux_e_A2_s : mean over the disc of `beam_diameter_nm`, which is the full width at half maximum of a Gaussian.
    cluster_px : mean number of pixels that count one electron (charge sharing).
    counter_max : largest count of a pixel.
    """

    preset: Literal["jeol-f200", "fei-f20", "zeiss-libra120"]
    voltage_kv: Annotated[float, Field(ge=20, le=3000)]
    detector_px: tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]]
    pixel_size_um: PositiveFloat
    a_per_px: Annotated[float, Field(gt=0, le=0.1)]
    beam_diameter_nm: PositiveFloat
    flux_e_A2_s: PositiveFloat
    beam_profile: Literal["top-hat", "gaussian"]
    convergence_mrad: NonNegativeFloat
    psf_sigma_px: Annotated[float, Field(ge=0.3, le=5)]
    gain: PositiveFloat
    cluster_px: Annotated[float, Field(ge=1, le=5)]
    dead_time_us: NonNegativeFloat
    counter_max: Annotated[int, Field(ge=255, lt=2**32)]
    axis_azimuth_deg: Annotated[float, Field(ge=-360, le=360)]

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        preset = given.get("preset")
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is unknown, allowed: {', '.join(PRESETS)}")
        return PRESETS[preset] | given


class Series(_Part):
    """A tilt series: goniometer angles, exposure and beam precession (`semi_angle_deg`: half-angle of the cone).

    precession: frames at tilt_min, tilt_min + step, ..., tilt_max.
    continuous_rotation: each frame sweeps one step, the first starts at tilt_min, the last ends at tilt_max;
    during `readout_gap_s` after each exposure the stage turns on unseen.
    """

    kind: Literal["precession", "continuous_rotation"]
    tilt_min_deg: Annotated[float, Field(ge=-90, le=90)]
    tilt_max_deg: Annotated[float, Field(ge=-90, le=90)]
    tilt_step_deg: PositiveFloat
    exposure_s: PositiveFloat
    semi_angle_deg: Annotated[float, Field(ge=0, le=5)] = 0.0
    readout_gap_s: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Series:
        if self.tilt_max_deg < self.tilt_min_deg:
            raise ValueError("tilt_max_deg must not be below tilt_min_deg")
        if (self.kind == "precession") != (self.semi_angle_deg > 0):
            raise ValueError("semi_angle_deg must be above 0 for precession and 0 otherwise")
        frames = (self.tilt_max_deg - self.tilt_min_deg) / self.tilt_step_deg
        if frames > MOST_FRAMES:
            raise ValueError(f"tilt_step_deg makes {frames:.3g} frames, more than {MOST_FRAMES}")
        if self.kind == "precession" and self.readout_gap_s > 0:
            raise ValueError("readout_gap_s must be 0 for precession: the stage stands still")
        return self


class Serial(_Part):
    """Still frames of many particles in unknown orientations, a run of frames of each.

    n_particles : share the frames in runs of random length.
    turn_deg : the particle turns by this between frames of a run, about an axis of its own.
    size_spread_pct : standard deviation of ln(size) over the particles, in percent.
    blank_pct, double_pct : chance of a frame without particle, with two.
    """

    kind: Literal["serial"]
    n_frames: Annotated[int, Field(ge=1, le=MOST_FRAMES)]
    n_particles: Annotated[int, Field(ge=1, le=MOST_FRAMES)]
    exposure_s: PositiveFloat
    turn_deg: Annotated[float, Field(ge=0, le=90)] = 0.3
    size_spread_pct: Annotated[float, Field(ge=0, le=100)] = 10.0
    blank_pct: Annotated[float, Field(ge=0, le=100)] = 2.0
    double_pct: Annotated[float, Field(ge=0, le=100)] = 3.0

    @property
    def semi_angle_deg(self) -> float:
        return 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Serial:
        if self.n_particles > self.n_frames:
            raise ValueError("n_particles must not exceed n_frames")
        if self.blank_pct + self.double_pct > 100:
            raise ValueError("blank_pct and double_pct must not exceed 100 together")
        return self


Protocol = Annotated[Series | Serial, Field(discriminator="kind")]


class Flaws(_Part):
    """Imperfections, each "off", "default" (value and source in flaws.FLAWS) or a magnitude."""

    alpha_jitter_deg: Magnitude = "off"
    alpha_drift_deg: Magnitude = "off"
    beta_drift_deg: Magnitude = "off"
    omega_drift_deg: Magnitude = "off"
    axis_azimuth_error_deg: Magnitude = "off"
    centre_offset_px: Magnitude = "off"
    centre_jitter_px: Magnitude = "off"
    elliptic_pct: Magnitude = "off"
    camera_length_error_pct: Magnitude = "off"
    precession_angle_error_pct: Magnitude = "off"
    mosaicity_deg: Magnitude = "off"
    support_film_nm: Magnitude = "off"
    inelastic: Literal["off", "default"] | Annotated[float, Field(ge=0, le=10)] = "off"
    barrel_pct: Magnitude = "off"
    spiral_pct: Magnitude = "off"
    parabolic_pct: Magnitude = "off"
    descan_px: Magnitude = "off"
    ice_nm: Magnitude = "off"
    frame_scale_pct: Magnitude = "off"
    tracking_error_nm: Magnitude = "off"
    particle_drift_nm: Magnitude = "off"
    rotation_step_deg: Magnitude = "off"
    pivot_cs_mm: Magnitude = "off"
    second_particle_pct: Magnitude = "off"
    twin_pct: Magnitude = "off"
    damage_b_A2_per_Me: Magnitude = "off"
    fading_per_Me: Magnitude = "off"
    gap_cross_px: Magnitude = "off"
    dead_pixel_ppm: Magnitude = "off"
    hot_pixel_ppm: Magnitude = "off"


class Multislice(_Part):
    """How the multislice engine makes a frame of the particle's atoms.

    slice_A : thickness of a slice.  band_over_g_max : highest frequency of the waves over Experiment.g_max.
    margin_nm : vacuum around the particle.  spot_radius : 1/Å about a reciprocal-lattice point that counts as its spot.
    frozen_phonons : configurations of displaced atoms that a frame's orientations share, at most one for each;
        0 = smeared atoms.
    film_atoms : the support film (flaws.support_film_nm) as carbon atoms behind the particle.
    """

    slice_A: Annotated[float, Field(gt=0, le=10)] = 2.0
    band_over_g_max: Annotated[float, Field(ge=1, le=4)] = 1.1
    margin_nm: Annotated[float, Field(gt=0, le=100)] = 1.2
    spot_radius: Annotated[float, Field(gt=0, le=1)] = 0.05
    frozen_phonons: Annotated[int, Field(ge=0, le=10_000)] = 0
    film_atoms: bool = False


class Experiment(_Part):
    """One simulated experiment, complete: the same Experiment and Crystal give the same bytes.

    structure : shipped name or path of a CIF, resolved by the caller.
    g_max : largest |g| that scatters, 1/Å; None = the corner of the detector, at most 2.2.
    s_max : excitation error up to which a beam enters the structure matrix, 1/Å; None = rule of PHYSICS A4
        for this particle, which the refinement uses as well, times 1.5.
    absorption : of the Bloch engine; U'/U (Hashimoto), or "thermal", computed thermal diffuse scattering. What the
        beams lose is spread over the frame as thermal diffuse scattering.
    azimuths_factor : samples of precession or rotation over those of PHYSICS A5.
    noise : Poisson counting; without it frames hold the expected counts themselves.
    """

    structure: str
    seed: Annotated[int, Field(ge=0)]
    engine: Engine = "bloch"
    factors: Table = "lobato"
    g_max: Annotated[float, Field(gt=0, le=4)] | None = None
    s_max: Annotated[float, Field(gt=0, le=0.5)] | None = None
    absorption: Literal["thermal"] | Annotated[float, Field(ge=0, le=1)] = 0.0
    azimuths_factor: Annotated[float, Field(ge=0.1, le=20)] = 1.5
    noise: bool = True
    particle: Particle
    instrument: Instrument
    protocol: Protocol
    flaws: Flaws = Flaws()
    multislice: Multislice = Multislice()

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.absorption != 0 and self.engine != "bloch":
            raise ValueError(f'absorption needs engine "bloch", not "{self.engine}"')
        if self.engine != "multislice" and (self.particle.strained or self.multislice != Multislice()):
            raise ValueError(f'strain and [multislice] need engine "multislice", not "{self.engine}"')
        if self.multislice.film_atoms and self.flaws.support_film_nm in ("off", 0):
            raise ValueError("multislice.film_atoms needs flaws.support_film_nm")
        if self.flaws.twin_pct not in ("off", 0) and self.particle.twin_plane_hkl is None:
            raise ValueError("flaws.twin_pct needs particle.twin_plane_hkl")
        return self
