"""One exposure: from the beams behind the particles to the pixels of a frame and its rows of the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.sim import detector, microscope, render
from nanoed.sim.diffraction import Diffraction, diffraction, grains, layer_A, rotation_of
from nanoed.sim.population import angles_of
from nanoed.sim.setup import Setup, descan_px
from nanoed.sim.streams import stream

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One simulated exposure: pixels, its rows of the reflection table and its row of the frame table."""

    image: NDArray[Any]
    reflections: dict[str, NDArray[Any]]
    summary: dict[str, float]


def simulated_frame(setup: Setup, i: int) -> Frame:
    """Frame i, whatever other frames exist."""
    experiment = setup.experiment
    patterns = [diffraction(setup, i, grain) for grain in grains(setup, i)]
    expected, missed = expected_image(setup, i, patterns)
    recorded = detector.recorded_electrons(expected, experiment.instrument, experiment.protocol.exposure_s)
    recorded = detector.with_faults(recorded, setup.size, experiment.seed, experiment.protocol.exposure_s)
    noise = stream(experiment.seed, "counts", i) if experiment.noise else None
    image = detector.read_out(recorded, experiment.instrument, noise, setup.size["gap_cross_px"])
    return Frame(image, _rows(i, patterns), _summary(setup, i, patterns, float(expected.sum()), missed))


def expected_image(setup: Setup, i: int, patterns: list[Diffraction]) -> tuple[Array, float]:
    """Electrons expected in every pixel, (ny, nx), and those that miss the detector."""
    instrument, wide = setup.experiment.instrument, setup.beam_profile
    ny, nx = setup.nominal.shape
    a, sigma, ring = setup.true.a_per_px, instrument.psf_sigma_px, descan_px(setup.nominal, setup.size)
    disc = microscope.convergence_disc(instrument)
    through, beside = np.zeros((2, 2 * ny, 2 * nx))
    missed = 0.0
    centre = (setup.true.centre_px[i, 0] + nx // 2, setup.true.centre_px[i, 1] + ny // 2)
    radial = {"thermal": setup.diffuse.thermal, "film": setup.diffuse.film}
    for p in patterns:
        for name, electrons in p.lost.items():
            diffuse = electrons * radial[name].pixels(centre, through.shape, a)
            through += diffuse
            missed += electrons - float(diffuse.sum())
        profile = render.spot_profile(a, disc, sigma, p.grain.body, p.grain.to_lab, ring)
        x, y, e = p.x + nx // 2, p.y + ny // 2, p.electrons
        missed += render.add_spots(through, x[1:], y[1:], e[1:], profile, render.OVERSAMPLING)
        missed += render.add_spots(through, x[:1], y[:1], e[:1], wide, render.OVERSAMPLING)
    x, y = setup.true.centre_px[i, :1] + nx // 2, setup.true.centre_px[i, 1:] + ny // 2
    rest = np.array([incident_electrons(setup, i) - sum(_on_grain(setup, p) for p in patterns)])
    missed += render.add_spots(beside, x, y, np.maximum(rest, 0), wide, render.OVERSAMPLING)
    film, ice = (layer_A(setup, i, flaw) for flaw in ("support_film_nm", "ice_nm"))
    thickness = patterns[0].thickness_mean if patterns else 0.0
    in_crystal, in_support = setup.diffuse.in_crystal(thickness), setup.diffuse.in_support(film, ice)
    if setup.experiment.multislice.film_atoms:
        in_crystal = in_crystal / setup.diffuse.in_film_elastic(film)
    image = render.spread(through, in_crystal, beside, in_support)[:, nx // 2 : nx // 2 + nx]
    return image, missed + float(through.sum() + beside.sum() - image.sum())


def incident_electrons(setup: Setup, i: int) -> float:
    """Electrons of the whole beam in frame i."""
    beam = microscope.beam_electrons(setup.experiment.instrument, setup.experiment.protocol.exposure_s)
    return beam * float(setup.true.flux[i])


def _on_grain(setup: Setup, pattern: Diffraction) -> float:
    """Electrons that hit a grain."""
    dose = setup.experiment.instrument.flux_e_A2_s * setup.experiment.protocol.exposure_s
    return dose * pattern.area * pattern.grain.share


def _rows(i: int, patterns: list[Diffraction]) -> dict[str, NDArray[Any]]:
    """The frame's rows of the reflection table; `crystal` counts the grains from 0."""

    def column(name: str) -> NDArray[Any]:
        parts = [getattr(p, name)[1:] for p in patterns]
        return np.concatenate(parts) if parts else np.empty(0)

    hkl = np.concatenate([p.hkl[1:] for p in patterns] or [np.empty((0, 3), np.int64)])
    grain = [np.full(len(p.hkl) - 1, n) for n, p in enumerate(patterns)]
    return {
        "frame": np.full(len(hkl), i),
        "crystal": np.concatenate(grain or [np.empty(0, np.int64)]),
        **dict(zip("hkl", hkl.T, strict=True)),
        "i_true": column("electrons"),
        "s_g": column("s_g"),
        "x_px": column("x"),
        "y_px": column("y"),
        "partiality": column("partiality"),
    }


def _summary(
    setup: Setup, i: int, patterns: list[Diffraction], on_detector: float, missed: float
) -> dict[str, float]:
    """The frame's row of the frame table."""
    alpha, beta, omega = np.degrees(angles_of(rotation_of(setup, i)[None])[0])
    first = patterns[0] if patterns else None
    return {
        "particle": float(setup.population.particle[i]),
        "size_scale": float(setup.population.scale[i]),
        "flux_share": first.grain.share if first else 0.0,
        "alpha_true_deg": float(alpha),
        "beta_true_deg": float(beta),
        "omega_true_deg": float(omega),
        "centre_x_px": float(setup.true.centre_px[i, 0]),
        "centre_y_px": float(setup.true.centre_px[i, 1]),
        "thickness_mean_A": first.thickness_mean if first else np.nan,
        "thickness_max_A": first.thickness_max if first else np.nan,
        "area_A2": first.area if first else 0.0,
        "incident_e": incident_electrons(setup, i),
        "on_detector_e": on_detector,
        "missed_e": missed,
    }
