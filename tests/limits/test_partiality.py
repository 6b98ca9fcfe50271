"""Partiality of a still frame: the sphere's profile, its widths, and what mosaicity does to it."""

import numpy as np
import pytest

from nanoed.pipeline.serial.partiality import partialities, partiality, search_tilt, sphere_profile

D = 100.0


def at(s, mosaicity=0.0, g=1.0, diameter=D):
    s = np.atleast_1d(np.asarray(s, float))
    p = np.empty(len(s))
    partialities(s, np.full(len(s), g), np.full(len(s), diameter), mosaicity, p)
    return p


def test_sphere_profile_is_the_shape_transform_over_the_detector_plane():
    """By Parseval it is the mean over the columns of chord² sinc²(S chord)."""
    r = np.linspace(0, D / 2, 4001)
    chord = 2 * np.sqrt(np.maximum((D / 2) ** 2 - r**2, 0))
    for s in (0.0, 0.002, 0.005, 0.0107, 0.016, 0.03):
        columns = (np.sinc(s * chord) * chord) ** 2
        assert sphere_profile(s * D) == pytest.approx((columns * r).sum() / (chord**2 * r).sum(), abs=1e-4)


def test_widths_of_the_sphere():
    s = np.linspace(-0.6, 0.6, 120001)
    p = sphere_profile(s * D)
    assert np.trapezoid(p, s) == pytest.approx(1.330 / D, rel=2e-3)
    high = s[p >= 0.5]
    assert high.max() - high.min() == pytest.approx(1.107 / D, rel=2e-3)


def test_table_is_the_profile_and_the_blurred_profile():
    s = np.linspace(-0.05, 0.05, 997)
    assert np.abs(at(s) - sphere_profile(s * D)).max() < 2e-4
    width = np.radians(0.1)
    node, weight = np.polynomial.hermite_e.hermegauss(41)
    blurred = sphere_profile((s[:, None] + width * node) * D) @ (weight / weight.sum())
    assert np.abs(at(s, width) - blurred).max() < 1e-3
    assert np.abs(at(s) - blurred).max() > 0.02


def test_tail_goes_on_beyond_the_table():
    assert 0 < partiality(0.2, 1.0, D, 0.0) < partiality(0.06, 1.0, D, 0.0)


def test_tilt_is_found_and_its_sign_matters():
    rng = np.random.default_rng(3)
    n, true = 150, np.radians([0.21, -0.33])
    xy = rng.uniform(-1, 1, (n, 2))
    s, g, full = rng.uniform(-0.02, 0.02, n), np.hypot(*xy.T), rng.exponential(1.0, n)
    root = np.sqrt(full * at(s + xy[:, 1] * true[0] - xy[:, 0] * true[1], 0.001, 1.0))
    root_full, known = np.sqrt(full), np.ones(n, bool)
    x, y, cost, ratio = search_tilt(s, xy, g, 2 * root, root_full, known, D, 0.001, np.radians(0.5), 5, 2)
    assert np.degrees([x, y]) == pytest.approx(np.degrees(true), abs=0.03)
    assert ratio == pytest.approx(2, rel=0.02)
    assert cost < 0.01
    mirrored = search_tilt(s, -xy, g, root, root_full, known, D, 0.001, np.radians(0.5), 5, 2)
    assert np.degrees(mirrored[:2]) == pytest.approx(-np.degrees(true), abs=0.03)
