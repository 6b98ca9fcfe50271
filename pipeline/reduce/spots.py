"""Second pass over the frames: average spot profile and intensities of all predicted spots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.geometry import Geometry, Predictions, candidates, predict
from nanoed.pipeline.reduce.integrate import Integrated, integrate_frame, overlapped
from nanoed.pipeline.reduce.profile import Profile, add_models, gaussian_profile, measured, stack
from nanoed.pipeline.reduce.search import Detector
from nanoed.pipeline.reduce.series import Progress, over_frames, read_frame, spread_out, valid_pixels
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


def spot_profile(
    dataset: DataSet,
    geometry: Geometry,
    detector: Detector,
    spec: ReduceSpec,
    frames: Sequence[int] | None = None,
    second: Geometry | None = None,
) -> Profile:
    """Radial profile in zones of |g| from strong, lonely spots on a sample of `frames` (None: of all), in two
    rounds.

    A zone without enough spots takes the profile of all zones together.  second : lattice whose spots are
    modelled too.
    """
    numbers = range(len(geometry)) if frames is None else frames
    settings = spec.integration
    edges = spec.d_star_max * np.arange(1, settings.profile_zones) / settings.profile_zones
    profile = gaussian_profile(detector.spot_sigma, settings.profile_reach_px, edges)
    nodes = lattice_nodes(dataset, geometry, spec)
    others = _others(dataset, geometry, second, spec)
    for _ in range(2):
        sums = np.zeros((3, *profile.shares.shape))
        count = np.zeros(settings.profile_zones)
        for i in [numbers[k] for k in spread_out(len(numbers), settings.profile_frames)]:
            expected, valid, found = _one(dataset, geometry, nodes, others, profile, detector, spec, 0.0, i)
            ny, nx = valid.shape
            edge = settings.profile_reach_px
            inside = (expected.pixels > edge) & (expected.pixels < np.array([nx, ny]) - edge)
            strong = found.intensity > settings.profile_i_over_sigma * found.sigma
            lonely = ~overlapped(expected.pixels, settings.profile_reach_px + profile.core)
            use = np.nonzero(
                found.good & inside.all(axis=1) & strong & lonely & (expected.g < spec.d_star_max)
            )[0]
            x, y = (np.ascontiguousarray(expected.pixels[use, k]) for k in (0, 1))
            zone, intensity = profile.zone(expected.g[use]), found.intensity[use]
            add_models(found.net, x, y, zone, intensity, profile.shares, profile.step)
            stack(found.net, valid, x, y, zone, intensity, profile.step, sums)
            count += np.bincount(zone, minlength=settings.profile_zones)
        if count.sum() == 0:
            return profile
        enough = count >= settings.profile_spots
        profile = measured(sums, profile.step, edges, enough, settings.profile_tail_sigma)
    return profile


def integrate(
    dataset: DataSet,
    geometry: Geometry,
    profile: Profile,
    detector: Detector,
    spec: ReduceSpec,
    margin: float,
    workers: int,
    progress: Progress | None,
    frames: Sequence[int] | None = None,
    second: Geometry | None = None,
) -> pd.DataFrame:
    """Good spots of `frames` (None: of all) up to d_star_max: frame, h, k, l, I, sigma (electrons), background,
    s, g, x, y.

    margin : rad, misorientation allowed for in the prediction.  second : another particle's lattice; its spots are
    fitted together with these and not listed, and those of these that they cover are not good.
    """
    numbers = range(len(geometry)) if frames is None else frames
    nodes = lattice_nodes(dataset, geometry, spec)
    others = _others(dataset, geometry, second, spec)
    electrons = 1.0 / dataset.nominal.gain

    def one(i: int) -> pd.DataFrame:
        expected, _, found = _one(dataset, geometry, nodes, others, profile, detector, spec, margin, i)
        keep = found.good & (expected.g <= spec.d_star_max)
        hkl, pixels = expected.hkl[keep], expected.pixels[keep]
        return pd.DataFrame(
            {
                "frame": np.full(len(hkl), i),
                "h": hkl[:, 0],
                "k": hkl[:, 1],
                "l": hkl[:, 2],
                "I": found.intensity[keep] * electrons,
                "sigma": found.sigma[keep] * electrons,
                "background": found.background[keep] * electrons,
                "s": expected.s[keep],
                "g": expected.g[keep],
                "x": pixels[:, 0],
                "y": pixels[:, 1],
            }
        )

    parts = list(over_frames(one, numbers, workers, "integration", progress))
    return pd.concat(parts, ignore_index=True)


def _others(
    dataset: DataSet, geometry: Geometry, second: Geometry | None, spec: ReduceSpec
) -> tuple[Geometry, NDArray[np.int64]] | None:
    """A second lattice with its nodes; the centring of the space group holds for it where it has the given cell."""
    if second is None:
        return None
    same = np.allclose(second.cell, geometry.cell, rtol=0.01)
    every = spec if same else spec.model_copy(update={"spacegroup": None})
    return second, lattice_nodes(dataset, second, every)


def _one(
    dataset: DataSet,
    geometry: Geometry,
    nodes: NDArray[np.int64],
    others: tuple[Geometry, NDArray[np.int64]] | None,
    profile: Profile,
    detector: Detector,
    spec: ReduceSpec,
    margin: float,
    i: int,
) -> tuple[Predictions, NDArray[np.bool_], Integrated]:
    frame = read_frame(dataset, i)
    centre = geometry.centres[i]
    radius = spec.peaks.d_star_min / geometry.a_per_px
    valid = valid_pixels(frame, centre, radius, dataset.nominal.saturation, detector.pixels.bad)
    expected = predict(geometry, i, nodes, spec.integration.tail, margin)
    pixels, zone = expected.pixels, profile.zone(expected.g)
    if others is not None:
        more = predict(others[0], i, others[1], spec.integration.tail, margin)
        pixels, zone = np.vstack([pixels, more.pixels]), np.concatenate([zone, profile.zone(more.g)])
    found = integrate_frame(frame, valid, centre, pixels, zone, profile, detector.gain, spec.integration)
    return expected, valid, found.head(len(expected.hkl))
