"""Distortion of the patterns: its inverse, its derivatives, its recovery from the places of peaks."""

from dataclasses import replace

import numpy as np
import pytest
from spot_frames import true_geometry

from nanoed.pipeline.reduce import positions
from nanoed.pipeline.reduce.distortion import Distortion
from nanoed.pipeline.reduce.geometry import Geometry, candidates, predict, to_pixels, to_reciprocal
from nanoed.pipeline.reduce.positions import Matched, refine_positions
from nanoed.pipeline.spec import PositionSpec

LENSES = Distortion(0.005 * np.exp(2j), 0.001 * np.exp(-1j), -0.006 + 0.002j, edge=144.0)


def places(n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(8)
    return rng.uniform(-140, 140, n) + 1j * rng.uniform(-140, 140, n)


def test_undone_is_the_inverse() -> None:
    w = places()
    assert np.abs(LENSES(w) - w).max() > 1.0
    assert np.abs(LENSES.undone(LENSES(w)) - w).max() < 1e-6


def test_derivatives_are_those_of_the_map() -> None:
    w, step = places(), 1e-5
    for direction in (1.0, 1j):
        numeric = (LENSES(w + step * direction) - LENSES(w - step * direction)) / (2 * step)
        assert np.abs(numeric - LENSES.along(w, np.full(len(w), direction + 0j))).max() < 1e-6
    changes = LENSES.by_parameters(w, higher=True, ellipse=True)
    assert len(changes) == 6
    for k, change in enumerate(changes):
        moved = [LENSES.moved(s * 1e-6 * np.eye(6)[k], higher=True, ellipse=True)(w) for s in (1, -1)]
        assert np.abs((moved[0] - moved[1]) / 2e-6 - change).max() < 1e-4


def test_the_way_to_the_detector_and_back() -> None:
    geometry = replace(true_geometry(5), distortion=LENSES)
    frame = np.zeros(50, np.int64)
    g = np.random.default_rng(1).uniform(-0.9, 0.9, (50, 3))
    back = to_reciprocal(geometry, frame, to_pixels(geometry, frame, g))
    assert np.abs(back[:, :2] - g[:, :2]).max() < 1e-7


def matched_peaks(geometry: Geometry, error_px: float, seed: int = 6) -> Matched:
    hkl, rng, parts = candidates(geometry.ub, 1.0), np.random.default_rng(seed), []
    for i in range(len(geometry)):
        seen = predict(geometry, i, hkl, tail=0.004)
        noise = error_px * rng.standard_normal(seen.pixels.shape)
        parts.append((np.full(len(seen.hkl), i), seen.hkl, seen.pixels + noise, np.full(len(seen.hkl), 0.05)))
    return Matched(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@pytest.mark.parametrize("sign", [1, -1])
def test_all_terms_are_found_beside_the_lattice(sign: int) -> None:
    """Amplitudes within 10 % or 0.05 % at the detector's edge, from peaks 0.06 px off their places."""
    lenses = Distortion(LENSES.ellipse, sign * LENSES.parabolic, sign * LENSES.cubic, LENSES.edge)
    true = replace(true_geometry(15), distortion=lenses)
    start = replace(true, distortion=Distortion(edge=lenses.edge))
    peaks = matched_peaks(true, 0.06)
    found, scatter = refine_positions(start, peaks, "mmm", True, True, PositionSpec())
    assert scatter < 0.08
    for name in ("ellipse", "parabolic", "cubic"):
        asked, got = getattr(lenses, name), getattr(found.distortion, name)
        assert abs(got - asked) < max(0.1 * abs(asked), 5e-4), name
    np.testing.assert_allclose(found.cell, true.cell, rtol=5e-4)
    left, more = refine_positions(start, peaks, "mmm", True, False, PositionSpec())
    assert left.distortion.cubic == 0
    assert more > 1.3 * scatter


def test_terms_within_their_errors_are_held_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lenses without higher terms and inexact peaks: what is found of them is half what it is without the prior."""
    plain = replace(true_geometry(9), distortion=Distortion(0.005 + 0j, edge=144.0))
    start = replace(plain, distortion=Distortion(edge=144.0))
    found: dict[str, list[float]] = {"held": [], "free": []}
    for name, terms in found.items():
        if name == "free":
            monkeypatch.setattr(positions, "_believed", lambda geometry, normal: np.zeros(4))
        for seed in range(6):
            peaks = matched_peaks(plain, 0.3, seed)
            lenses = refine_positions(start, peaks, "mmm", True, True, PositionSpec())[0].distortion
            terms += [abs(lenses.parabolic), abs(lenses.cubic)]
    held, free = (float(np.sqrt(np.mean(np.square(terms)))) for terms in found.values())
    assert free > 1e-4
    assert held < 0.6 * free
