"""Bloch waves against multislice for a crystal without an inversion centre, the beam tilted against the surface."""

import numpy as np
import pandas as pd
import pytest
from dense_bloch import slab_amplitudes
from goldens import assert_same_table, golden, regenerated
from quartz_slab import (
    FACTORS,
    KV,
    TILTS_DEG,
    Slab,
    inverted,
    multislice,
    quartz,
    r_factor,
    rotation,
    slab,
)

from nanoed.sim.physics.bloch import frame_intensities, potential_table
from nanoed.sim.physics.kinematical import kinematical_intensities
from nanoed.sim.physics.sampling import precession_rotations

LEAST_INTENSITY = 1e-4


def printed(tilt: tuple[float, float], hand: int) -> pd.DataFrame:
    table = golden("quartz_slab")
    return table[(table["hand"] == hand) & (table["tilt_x_deg"] == tilt[0]) & (table["tilt_y_deg"] == tilt[1])]


def amplitudes(table: pd.DataFrame, shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(shape)
    out[table["m"], table["n"]] = table["amplitude"]
    return out


def scored(wave: np.ndarray, least: float = LEAST_INTENSITY) -> np.ndarray:
    strong = np.abs(wave) ** 2 > least
    strong[0, 0] = False
    return strong


@pytest.mark.parametrize("tilt", TILTS_DEG)
def test_tilted_beam(tilt: tuple[float, float]) -> None:
    wave = multislice(quartz(), rotation(tilt)[None])[0]
    use = scored(wave)
    right, wrong = (
        r_factor(amplitudes(printed(tilt, hand), wave.shape)[use], wave[use]) for hand in (1, -1)
    )
    assert use.sum() >= 28
    assert right < 0.015
    assert wrong > 4 * right
    paraxial = multislice(quartz(), rotation(tilt)[None], propagator="paraxial")[0]
    assert r_factor(paraxial[use], wave[use]) > right
    reversed_tilt = multislice(quartz(), rotation((-tilt[0], -tilt[1]))[None])[0]
    assert r_factor(reversed_tilt[use], wave[use]) > 0.5


def test_slices_and_sampling_have_converged() -> None:
    turn = rotation(TILTS_DEG[0])[None]
    wave = multislice(quartz(), turn)[0]
    use = scored(wave)
    fine = multislice(quartz(), turn, (50, 86), 24)[0]
    assert r_factor(fine[use], wave[use]) < 3e-3
