"""Weights of whole frames: what a refinement minimises when frames count alike, and settings of measured data."""

from dataclasses import replace

import numpy as np
import pytest

from nanoed.pipeline.refine.frames import Frame
from nanoed.pipeline.refine.normal import balanced, cost_of, relative_misfits
from nanoed.pipeline.refine.statistics import weights
from nanoed.studies.measured import measured_settings


def frames(seed: int) -> tuple[list[Frame], list[np.ndarray]]:
    """Three frames that a model describes well, badly and very badly, and its intensities."""
    rng = np.random.default_rng(seed)
    made, calculated = [], []
    for zone, misfit in enumerate((0.01, 0.05, 0.2), 1):
        i_c = rng.uniform(1.0, 100.0, 30)
        i_o = i_c * (1 + misfit * rng.standard_normal(30))
        weight = 1 / (0.1 + 0.02 * i_o) ** 2 * rng.uniform(0.5, 2.0)
        made.append(Frame(zone, np.eye(3), 0.01, 0.0, np.zeros((30, 3), np.int64), i_o, np.ones(30), weight))
        calculated.append(i_c)
    return made, calculated


def slope(value, calculated: list[np.ndarray], direction: list[np.ndarray]) -> float:
    """Central difference of value(intensities) along a direction."""
    step = 1e-5
    ahead = value([c + step * d for c, d in zip(calculated, direction, strict=True)])
    behind = value([c - step * d for c, d in zip(calculated, direction, strict=True)])
    return float((ahead - behind) / (2 * step))


@pytest.mark.parametrize("seed", [1, 2])
def test_balanced_frames_minimise_the_mean_of_wr(seed: int) -> None:
    given, calculated = frames(seed)
    made = balanced(given, calculated)
    rng = np.random.default_rng(seed + 10)
    directions = [[rng.standard_normal(30) for _ in given] for _ in range(4)]

    def mean_wr(found: list[np.ndarray]) -> float:
        return float(relative_misfits(given, found).mean())

    def ratios(weighed: list[Frame]) -> np.ndarray:
        def total(found: list[np.ndarray]) -> float:
            return sum(cost_of(f, i) for f, i in zip(weighed, found, strict=True))

        return np.array([slope(total, calculated, d) / slope(mean_wr, calculated, d) for d in directions])

    assert np.ptp(ratios(made)) < 1e-4 * np.abs(ratios(made)).max()
    sums = [float(f.weight @ f.observed**2) for f in given]
    alike = [replace(f, weight=f.weight / s) for f, s in zip(given, sums, strict=True)]
    assert np.ptp(ratios(alike)) > 0.1 * np.abs(ratios(alike)).max()


def test_weights_of_f_on_intensities() -> None:
    """emphasis 1: w = 1 / (sigma_F² + (u F)²) but for a factor, sigma_F = 5 sqrt(sigma) where I < 0.01 sigma."""
    i = np.array([-3.0, 0.0, 0.005, 0.5, 4.0, 900.0])
    sigma = np.array([1.0, 0.5, 1.0, 1.0, 2.0, 10.0])
    f = np.sqrt(np.maximum(i, 0))
    sigma_f = np.where(i < 0.01 * sigma, 5 * np.sqrt(sigma), sigma / (2 * np.maximum(f, 1e-9)))
    expected = 0.25 / (sigma_f**2 + (0.01 * f) ** 2)
    assert weights(i, sigma, 0.01, 1.0) == pytest.approx(expected * [1 / 1.0036, 1, 1, 1, 1, 1], rel=1e-5)
    assert weights(i, sigma, 0.01) == pytest.approx(1 / (sigma**2 + (0.02 * i) ** 2))


@pytest.mark.parametrize("name", ["quartz", "mordenite"])
def test_settings_of_measured_data_are_valid_ones(name: str) -> None:
    assert measured_settings(name).protocol == "rotation"
