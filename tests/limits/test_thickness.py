"""Chord distributions against closed forms, Cauchy's law, and rays traced through the body."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoed.sim.physics.thickness import chord_distribution, gauss_nodes

DIAMETER, LENGTH = 300.0, 700.0
angle = st.floats(0, np.pi / 2)


@dataclass(frozen=True)
class Body:
    """A body of revolution; `volume` in Å³ and `shadow` (projected area, Å²) at an angle."""

    shape: str
    diameter: float = DIAMETER
    length: float = LENGTH
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)

    @property
    def volume(self) -> float:
        full = np.pi * self.diameter**2 * self.length
        return full / 6 if self.shape in ("sphere", "ellipsoid") else full / 4

    def shadow(self, theta: float) -> float:
        d, length, c, s = self.diameter, self.length, abs(np.cos(theta)), abs(np.sin(theta))
        if self.shape in ("sphere", "ellipsoid"):
            return np.pi * d / 4 * np.hypot(d * c, length * s)
        return np.pi * d**2 / 4 * c + d * length * s


SPHERE = Body("sphere", length=DIAMETER)
BODIES = (SPHERE, Body("ellipsoid"), Body("cylinder"), Body("plate", length=40.0))


def direction(theta: float, azimuth: float = 0.7) -> np.ndarray:
    return np.array([np.sin(theta) * np.cos(azimuth), np.sin(theta) * np.sin(azimuth), np.cos(theta)])


def moment(body: Body, theta: float, power: int) -> float:
    t, w, _ = chord_distribution(body, direction(theta))
    return float(w @ t**power)


@given(st.sampled_from(BODIES), angle)
def test_area_times_mean_chord_is_the_volume(body: Body, theta: float) -> None:
    t, w, area = chord_distribution(body, direction(theta))
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert (t > 0).all()
    assert (w > 0).all()
    assert area == pytest.approx(body.shadow(theta), rel=1e-7)
    assert area * (w @ t) == pytest.approx(body.volume, rel=1e-7)


@pytest.mark.parametrize("theta", [0.0, 0.4, np.pi / 2])
def test_a_sphere_has_chords_of_density_2t_over_d_squared(theta: float) -> None:
    for power in range(1, 12):
        expected = 2 * DIAMETER**power / (power + 2)
        assert moment(SPHERE, theta, power) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("theta", [0.0, 0.3, 1.1, np.pi / 2])
def test_an_ellipsoid_has_a_spheres_chords_scaled_to_its_longest(theta: float) -> None:
    longest = 1 / np.hypot(np.sin(theta) / DIAMETER, np.cos(theta) / LENGTH)
    for power in (1, 2, 5):
        expected = 2 * longest**power / (power + 2)
        assert moment(Body("ellipsoid"), theta, power) == pytest.approx(expected, rel=1e-11)


def test_a_cylinder_from_its_side() -> None:
    """P = t / (D sqrt(D² - t²)): <t> = π D / 4 = V / area, <t²> = 2 D² / 3, <t⁴> = 8 D⁴ / 15."""
    for power, expected in ((1, np.pi * DIAMETER / 4), (2, 2 * DIAMETER**2 / 3), (4, 8 * DIAMETER**4 / 15)):
        assert moment(Body("cylinder"), np.pi / 2, power) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("body", [Body("plate", length=40.0), Body("cylinder")])
def test_a_plate_face_on_has_one_thickness(body: Body) -> None:
    t, w, area = chord_distribution(body, direction(0.0))
    assert w @ t == pytest.approx(body.length, rel=1e-12)
    assert w @ (t - body.length) ** 2 == pytest.approx(0, abs=1e-6)
    assert area == pytest.approx(np.pi * DIAMETER**2 / 4, rel=1e-9)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.shape)
@pytest.mark.parametrize("theta", [0.2, 0.9, 1.45])
def test_rays_traced_through_the_body_meet_the_same_chords(body: Body, theta: float) -> None:
    chords = traced(body, direction(theta))
    t, w, _ = chord_distribution(body, direction(theta))
    for period in (700.0, 300.0, 150.0):
        wave = np.exp(2j * np.pi * chords / period).mean()
        assert w @ np.exp(2j * np.pi * t / period) == pytest.approx(wave, abs=3e-3)
    mistaken = Body(body.shape, body.length, body.diameter)
    if body.shape != "sphere":
        t, w, _ = chord_distribution(mistaken, direction(theta))
        assert abs(w @ t - chords.mean()) > 0.05 * chords.mean()


def traced(body: Body, beam: np.ndarray, n: int = 1200) -> np.ndarray:
    """Chords of a square grid of rays along `beam` that hit the body, each clipped at its surfaces."""
    u = np.cross(beam, [0.3, -0.8, 0.52])
    u /= np.linalg.norm(u)
    reach = 0.5 * np.hypot(body.diameter, body.length)
    x = (np.arange(n) + 0.5) / n * 2 * reach - reach
    start = x[:, None, None] * u + x[None, :, None] * np.cross(beam, u)
    scale = np.array([body.diameter, body.diameter, body.length]) / 2
    round_axes = [0, 1, 2] if body.shape in ("sphere", "ellipsoid") else [0, 1]
    p, d = (start / scale)[..., round_axes], (beam / scale)[round_axes]
    a, b, c = d @ d, p @ d, (p * p).sum(axis=-1) - 1
    root = np.sqrt(np.maximum(b * b - a * c, 0))
    low, high = (-b - root) / a, (-b + root) / a
    if len(round_axes) == 2:
        ends = (np.array([-1, 1]) * body.length / 2 - start[..., 2:]) / beam[2]
        low, high = np.maximum(low, ends.min(axis=-1)), np.minimum(high, ends.max(axis=-1))
    chords = (high - low)[(b * b > a * c) & (high > low)]
    return chords


@given(angle, st.integers(0, 2**31))
def test_turning_body_and_beam_together_changes_nothing(theta: float, seed: int) -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    first = chord_distribution(Body("cylinder"), direction(theta))
    axis = tuple(turn @ np.array([0.0, 0.0, 1.0]))
    second = chord_distribution(Body("cylinder", axis=axis), turn @ direction(theta))
    assert second[2] == pytest.approx(first[2], rel=1e-7)
    assert second[1] @ second[0] ** 3 == pytest.approx(first[1] @ first[0] ** 3, rel=1e-7)


def test_gauss_nodes_keep_the_moments_of_any_measure() -> None:
    rng = np.random.default_rng(3)
    t, w = rng.uniform(1, 9, 200), rng.uniform(0, 1, 200)
    nodes, weights = gauss_nodes(t, w, 6)
    for power in range(12):
        assert weights @ nodes**power == pytest.approx(w @ t**power, rel=1e-10)
    assert abs(weights @ nodes**12 / (w @ t**12) - 1) > 1e-10
