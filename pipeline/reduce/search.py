"""First pass over the frames: noise, spot size, peaks and pattern centres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.badpixels import BadPixels, filled, find_bad_pixels
from nanoed.pipeline.reduce.centre import direct_beam, friedel_centre, mostly_bad
from nanoed.pipeline.reduce.noise import (
    add_noise,
    gain_and_offset,
    gain_of,
    noise_covariance,
    noise_sums,
    noise_table,
    uncorrelated,
)
from nanoed.pipeline.reduce.peaks import Cleaned, Peaks, clean, find_peaks, join, spot_sigma, spot_stack
from nanoed.pipeline.reduce.series import Progress, over_frames, read_frame, spread_out, valid_pixels
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import DataSet
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """What the frames say of the detector: covariance (3, 3) over mean of the counts of pixels (dy, dx) apart
    (noise.noise_covariance); Gaussian sigma of spots in pixels; pixels that do not count; noise (m, 2) of
    noise.noise_table; dead time in 1 / counts of a pixel in one exposure (deadtime.restored), its error, and whether it
    is "given" by the settings, "measured" or "assumed"; offset in counts, of noise.gain_and_offset; whether the direct
    beam is hidden, so that it is where it is stated to be."""

    covariance: Array
    spot_sigma: float
    pixels: BadPixels
    noise: Array
    dead_time: float = 0.0
    dead_time_error: float = 0.0
    dead_time_is: str = "assumed"
    offset: float = 0.0
    beam_hidden: bool = False

    @property
    def gain(self) -> float:
        """Variance over mean of the counts of an area."""
        return gain_of(self.covariance)


def detector_of(
    dataset: DataSet, spec: ReduceSpec, workers: int = 1, progress: Progress | None = None
) -> Detector:
    """Bad pixels, gain and spot width from a sample of frames; values given in the spec are kept."""
    sigma, covariance, offset = spec.peaks.spot_sigma_px or 1.2, uncorrelated(spec.noise.gain or 1.0), 0.0
    pixels = find_bad_pixels(dataset, spec.mask, workers, progress)
    hidden, sums = beam_is_hidden(dataset, pixels.bad, 2 * sigma, spec), noise_sums()
    for _ in range(2):
        stacked, sums = np.zeros((1, 1)), noise_sums()
        for i in spread_out(len(dataset), spec.noise.sample_frames):
            table = noise_table(noise_sums())
            known = Detector(covariance, sigma, pixels, table, offset=offset, beam_hidden=hidden)
            frame, cleaned, _, peaks = _looked_at(dataset, i, known, spec)
            net = cleaned.frame - cleaned.background
            add_noise(net, cleaned.background, cleaned.n_background, cleaned.usable, sums)
            stacked = stacked + spot_stack(frame, cleaned, peaks)
        if spec.noise.gain is None:
            covariance = noise_covariance(sums)
            gain, offset = gain_and_offset(noise_table(sums), gain_of(covariance))
            covariance[0, 0] += gain - gain_of(covariance)
        if spec.peaks.spot_sigma_px is None and stacked.any():
            sigma = spot_sigma(stacked)
    given = (spec.noise.dead_time_us or 0.0) * 1e-6
    dead_time = given / (dataset.nominal.gain * dataset.nominal.exposure_s)
    how = "assumed" if spec.noise.dead_time_us is None else "given"
    return Detector(covariance, sigma, pixels, noise_table(sums), dead_time, 0.0, how, offset, hidden)


def beam_is_hidden(dataset: DataSet, bad: NDArray[np.bool_], sigma_px: float, spec: ReduceSpec) -> bool:
    """Whether no frame shows the direct beam: bad pixels lie where it is stated to be, and the brightest spots of the
    frames lie here and there, as reflections do, not all in the same place."""
    stated, radius = np.array(dataset.nominal.centre_px), spec.peaks.d_star_min / dataset.nominal.a_per_px
    if not mostly_bad(bad, stated, sigma_px):
        return False
    frames = spread_out(len(dataset), spec.noise.sample_frames)
    places = np.array([direct_beam(filled(read_frame(dataset, i), bad), sigma_px, radius) for i in frames])
    return bool(np.median(np.hypot(*(places - np.median(places, axis=0)).T)) > radius)


def search(
    dataset: DataSet, detector: Detector, spec: ReduceSpec, workers: int, progress: Progress | None
) -> tuple[Peaks, Array]:
    """Peaks of all frames and pattern centres (n, 2); raises InputError where hardly any peak is found."""

    def one(i: int) -> tuple[Peaks, Array]:
        _, _, centre, peaks = _looked_at(dataset, i, detector, spec)
        return peaks, friedel_centre(peaks.pixels, centre, spec.peaks.friedel_reach_px)

    results = list(over_frames(one, range(len(dataset)), workers, "peaks", progress))
    peaks = join([p for p, _ in results])
    if len(peaks) < spec.positions.min_peaks:
        raise InputError(
            f"no peaks found in {len(dataset)} frames", file=dataset.path, field="peaks.i_over_sigma",
            value=spec.peaks.i_over_sigma, allowed="a threshold that leaves at least 4 peaks",
        )  # fmt: skip
    return peaks, np.array([c for _, c in results])


def _looked_at(
    dataset: DataSet, i: int, detector: Detector, spec: ReduceSpec
) -> tuple[Array, Cleaned, Array, Peaks]:
    """Frame i with its background, direct-beam centre and peaks."""
    nominal = dataset.nominal
    bad = detector.pixels.bad
    frame = filled(read_frame(dataset, i), bad)
    radius = spec.peaks.d_star_min / nominal.a_per_px
    centre = np.array(nominal.centre_px)
    if not detector.beam_hidden:
        centre = direct_beam(frame, 2 * detector.spot_sigma, radius)
    valid = valid_pixels(frame, centre, radius, nominal.saturation, bad)
    cleaned = clean(frame, valid, centre, detector.spot_sigma, detector.gain, spec.peaks, detector.offset)
    whole = valid & ~detector.pixels.beside
    return frame, cleaned, centre, find_peaks(i, cleaned, whole, detector.spot_sigma, spec.peaks)
