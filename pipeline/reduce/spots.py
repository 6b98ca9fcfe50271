"""Second pass over the frames: average spot profile and intensities of all predicted spots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.deadtime import restored
from nanoed.pipeline.reduce.geometry import Geometry, Predictions, candidates, predict
from nanoed.pipeline.reduce.halo import halo_equations, halo_images, halo_shares
from nanoed.pipeline.reduce.integrate import Integrated, aperture_of, integrate_frame, overlapped
from nanoed.pipeline.reduce.neighbours import nearest
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.profile import Profile, add_models, gaussian_profile, measured, stack
from nanoed.pipeline.reduce.search import Detector
from nanoed.pipeline.reduce.series import Progress, over_frames, read_frame, spread_out, valid_pixels
from nanoed.pipeline.reduce.spotshape import aperture_error, spot_shapes
from nanoed.pipeline.reduce.symmetry import centring_absent
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import DataSet

Array = NDArray[np.float64]


def lattice_nodes(dataset: DataSet, geometry: Geometry, spec: ReduceSpec) -> NDArray[np.int64]:
    """(m, 3) all reflections that may fall on the detector, centring absences left out."""
    ny, nx = dataset.nominal.shape
    reach = np.abs(geometry.centres[:, None, :] - np.array([[0, 0], [nx, 0], [0, ny], [nx, ny]])[None])
    corner = float(np.hypot(reach[..., 0], reach[..., 1]).max()) * geometry.a_per_px
    hkl = candidates(geometry.ub, corner)
    return hkl[~centring_absent(hkl, spec.spacegroup)]


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """What is alike for all frames. nodes : of lattice_nodes.  others : a second lattice with its nodes, if there is
    one.  peaks : of the search."""

    dataset: DataSet
    geometry: Geometry
    nodes: NDArray[np.int64]
    others: tuple[Geometry, NDArray[np.int64]] | None
    profile: Profile
    detector: Detector
    spec: ReduceSpec
    peaks: Peaks


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """What a frame says in one round. Of its lonely spots, apart for every least I / sigma of the settings: count (k,
    zones) and the sums (k, 4, zones, m) of profile.stack. Of its pixels between the spots: halo, the normal matrix and
    right side of halo.halo_equations."""

    count: NDArray[np.int64]
    sums: Array
    halo: tuple[Array, Array]


def spot_profile(
    dataset: DataSet,
    geometry: Geometry,
    detector: Detector,
    spec: ReduceSpec,
    peaks: Peaks,
    frames: Sequence[int] | None = None,
    second: Geometry | None = None,
    start: Profile | None = None,
) -> Profile:
    """Radial profile in zones of |g| from strong, lonely spots, and halo from the pixels between all spots, on a sample
    of `frames` (None: of all), in two rounds, or in one from a profile to `start` from.

    The spots are those above the first I / sigma of the settings that leaves enough of them. A zone without enough
    spots takes the profile of all zones together.  second : lattice whose spots are modelled too.
    """
    numbers = range(len(geometry)) if frames is None else frames
    settings = spec.integration
    edges = spec.d_star_max * np.arange(1, settings.profile_zones) / settings.profile_zones
    profile = start or gaussian_profile(detector.spot_sigma, settings.profile_reach_px, edges)
    nodes, others = lattice_nodes(dataset, geometry, spec), _others(dataset, geometry, second, spec)
    chosen = [numbers[k] for k in spread_out(len(numbers), settings.profile_frames)]
    for _ in range(2 if start is None else 1):
        now = _Pass(dataset, geometry, nodes, others, profile, detector, spec, peaks)
        parts = [_sampled(now, i) for i in chosen]
        count, sums = (
            np.cumsum(sum(p), axis=0) for p in zip(*((p.count, p.sums) for p in parts), strict=True)
        )
        good = np.nonzero(count.sum(axis=1) >= settings.profile_spots)[0]
        if len(good):
            enough = count[good[0]] >= settings.profile_spots
            profile = measured(sums[good[0]], profile.step, edges, enough, settings.profile_tail_sigma)
        normal, right = (np.sum([p.halo[k] for p in parts], axis=0) for k in (0, 1))
        profile = replace(profile, halo_radii=settings.halo_px, halo=halo_shares(normal, right))
    return profile


def _sampled(now: _Pass, i: int) -> _Sample:
    geometry, profile, detector, spec = now.geometry, now.profile, now.detector, now.spec
    settings = spec.integration
    expected, valid, found = _one(now, 0.0, i)
    ny, nx = valid.shape
    every_x, every_y = found.pixels.T
    halos = halo_images((ny, nx), every_x, every_y, found.intensity, settings.halo_px)
    halo = halo_equations(found.net + found.smooth, found.usable, geometry.centres[i], halos, detector.gain)
    edge = settings.profile_reach_px
    inside = (expected.pixels > edge) & (expected.pixels < np.array([nx, ny]) - edge)
    lonely = found.good & ~overlapped(found.pixels, edge + profile.core)
    lonely = lonely[: len(inside)] & inside.all(axis=1) & (expected.g < spec.d_star_max)
    levels, zones = np.array([np.inf, *settings.profile_i_over_sigma]), len(profile.shares)
    count, sums = (
        np.zeros((len(levels) - 1, zones), np.int64),
        np.zeros((len(levels) - 1, 4, *profile.shares.shape)),
    )
    ratio = found.intensity[: len(lonely)] / np.maximum(found.sigma[: len(lonely)], 1e-300)
    for k in range(len(levels) - 1):
        use = np.nonzero(lonely & (ratio > levels[k + 1]) & (ratio <= levels[k]))[0]
        x, y = (np.ascontiguousarray(expected.pixels[use, j]) for j in (0, 1))
        zone, intensity = profile.zone(expected.g[use]), found.intensity[use]
        count[k] = np.bincount(zone, minlength=zones)
        add_models(found.net, x, y, zone, intensity, profile.shares, profile.step)
        stack(found.net, valid, x, y, zone, intensity, profile.step, sums[k])
    return _Sample(count, sums, halo)


def integrate(
    dataset: DataSet,
    geometry: Geometry,
    profile: Profile,
    detector: Detector,
    spec: ReduceSpec,
    margin: float,
    peaks: Peaks,
    workers: int,
    progress: Progress | None,
    frames: Sequence[int] | None = None,
    second: Geometry | None = None,
) -> pd.DataFrame:
    """Good spots of `frames` (None: of all) up to d_star_max: frame, h, k, l, I, sigma (electrons), relative (part
    of I in sigma), shot (variance of I per electron of I), background, s, g, x, y and, of spotshape.spot_shapes, flat,
    sigma_flat, peak, ring, sigma_ring, in this order.
    sigma² = that of integrate_frame + (relative I)², relative² = that of the settings or of spotshape.aperture_error,
    squared, + the relative error by the dead time's, alike in all frames.

    margin : rad, misorientation allowed for in the prediction.  peaks : of the search; those that nothing predicts
    (reflections far from the Ewald sphere, a third particle) are modelled and taken off too.  second : another
    particle's lattice; its spots are fitted together with these and not listed. Spots that others cover are not good.
    """
    numbers = range(len(geometry)) if frames is None else frames
    nodes, others = lattice_nodes(dataset, geometry, spec), _others(dataset, geometry, second, spec)
    now = _Pass(dataset, geometry, nodes, others, profile, detector, spec, peaks)
    electrons = 1.0 / dataset.nominal.gain
    aperture = aperture_of(profile, spec.integration)

    def one(i: int) -> pd.DataFrame:
        expected, valid, found = _one(now, margin, i)
        keep = np.nonzero(found.good[: len(expected.g)] & (expected.g <= spec.d_star_max))[0]
        hkl, pixels = expected.hkl[keep], expected.pixels[keep]
        shape = np.zeros((len(hkl), 5))
        x, y = (np.ascontiguousarray(pixels[:, k]) for k in (0, 1))
        spot_shapes(found.net, found.background[keep], valid, x, y, profile.zone(expected.g[keep]),
                    found.intensity[keep], profile.shares, profile.step, profile.core, aperture, detector.gain,
                    shape)  # fmt: skip
        return pd.DataFrame(
            {
                "frame": np.full(len(hkl), i),
                "h": hkl[:, 0],
                "k": hkl[:, 1],
                "l": hkl[:, 2],
                "I": found.intensity[keep] * electrons,
                "sigma": found.sigma[keep] * electrons,
                "shot": found.shot[keep] * electrons,
                "background": found.background[keep] * electrons,
                "s": expected.s[keep],
                "g": expected.g[keep],
                "x": x,
                "y": y,
                "flat": shape[:, 0] * electrons,
                "sigma_flat": np.sqrt(shape[:, 1]) * electrons,
                "peak": shape[:, 2],
                "ring": shape[:, 3] * electrons,
                "sigma_ring": np.sqrt(shape[:, 4]) * electrons,
            }
        )

    parts = list(over_frames(one, numbers, workers, "integration", progress))
    spots = pd.concat(parts, ignore_index=True)
    relative = spec.integration.relative_error
    if relative is None:
        relative = aperture_error(spots, profile, aperture, spec.integration.shape_sigma)
    counts = spots["I"].to_numpy(float) / electrons
    lost = detector.dead_time_error * np.abs(counts) * spots["peak"].to_numpy(float)
    spots.insert(6, "relative", np.hypot(relative, lost))
    spots["sigma"] = np.hypot(spots["sigma"], spots["relative"] * spots["I"])
    return spots


def _others(
    dataset: DataSet, geometry: Geometry, second: Geometry | None, spec: ReduceSpec
) -> tuple[Geometry, NDArray[np.int64]] | None:
    """A second lattice with its nodes; the centring of the space group holds for it where it has the given cell."""
    if second is None:
        return None
    same = np.allclose(second.cell, geometry.cell, rtol=0.01)
    every = spec if same else spec.model_copy(update={"spacegroup": None})
    return second, lattice_nodes(dataset, second, every)


def _one(now: _Pass, margin: float, i: int) -> tuple[Predictions, NDArray[np.bool_], Integrated]:
    """Reflections expected on frame i, its valid pixels, and its spots: the expected ones, then those of a second
    lattice, then the strays."""
    dataset, geometry, detector, spec = now.dataset, now.geometry, now.detector, now.spec
    frame = read_frame(dataset, i)
    centre = geometry.centres[i]
    radius = spec.peaks.d_star_min / geometry.a_per_px
    valid = valid_pixels(frame, centre, radius, dataset.nominal.saturation, detector.pixels.bad)
    expected = predict(geometry, i, now.nodes, spec.integration.tail, margin)
    pixels, g = expected.pixels, expected.g
    if now.others is not None:
        more = predict(now.others[0], i, now.others[1], spec.integration.tail, margin)
        pixels, g = np.vstack([pixels, more.pixels]), np.concatenate([g, more.g])
    astray = strays(now.peaks.pixels[now.peaks.frame == i], pixels, now.profile.core)
    g = np.concatenate([g, np.hypot(*(astray - centre).T) * geometry.a_per_px])
    counts = restored(frame, detector.dead_time)
    pixels, zone = np.vstack([pixels, astray]), now.profile.zone(g)
    found = integrate_frame(
        counts, valid, centre, pixels, zone, now.profile, detector.covariance, spec.integration, detector.offset
    )
    return expected, valid, found


def strays(pixels: Array, expected: Array, distance: float) -> Array:
    """(m, 2) the peaks (n, 2) that are farther than `distance` from every expected spot."""
    if len(pixels) == 0 or len(expected) == 0:
        return pixels
    return pixels[nearest(expected, pixels, 1)[0][:, 0] > distance]
