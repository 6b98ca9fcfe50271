"""Bloch waves against multislice for a crystal without an inversion centre, the beam tilted against the surface."""

import sys
from dataclasses import replace

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
    return table[
        (table["hand"] == hand) & (table["tilt_x_deg"] == tilt[0]) & (table["tilt_y_deg"] == tilt[1])
    ]


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
    right, wrong = (r_factor(amplitudes(printed(tilt, hand), wave.shape)[use], wave[use]) for hand in (1, -1))
    assert use.sum() >= 28
    assert right < 0.015
    assert wrong > 4 * right
    paraxial = multislice(quartz(), rotation(tilt)[None], propagator="paraxial")[0]
    assert r_factor(paraxial[use], wave[use]) > 0.002
    reversed_tilt = multislice(quartz(), rotation((-tilt[0], -tilt[1]))[None])[0]
    assert r_factor(reversed_tilt[use], wave[use]) > 0.5


def test_slices_and_sampling_have_converged() -> None:
    turn = rotation(TILTS_DEG[0])[None]
    wave = multislice(quartz(), turn)[0]
    use = scored(wave)
    fine = multislice(quartz(), turn, (50, 86), 24)[0]
    assert r_factor(fine[use], wave[use]) < 3e-3


class Precessed:
    """The slab's intensities over a precession, by every engine on the same 16 azimuths."""

    azimuths = 16

    def __init__(self, strength: float) -> None:
        self.made, self.strength = slab(quartz()), strength
        self.base = rotation(TILTS_DEG[0])
        self.cone = precession_rotations(np.radians(1.2), self.azimuths)
        waves = multislice(self.made.crystal, self.cone @ self.base, (40, 68), 8, strength=strength)
        self.found = np.square(np.abs(waves)).mean(0)

    def r(self, engine, made: Slab, least: float) -> float:
        """R on |ψ| of an engine of column intensities against multislice; the path is t / cos(tilt)."""
        potential = potential_table(made.crystal, KV, 2.0, FACTORS)
        potential = replace(potential, box=potential.box * self.strength)
        path, weight = np.array([made.thickness / self.base[2, 2]]), np.ones(1)
        share = np.full(self.azimuths, 1 / self.azimuths)
        ub, hkl = self.base @ made.ub, potential.hkl
        each = engine(potential, ub, self.cone, share, path, weight, hkl, KV, potential.g_max, 0.15)
        total = np.zeros_like(self.found)
        np.add.at(total, tuple(made.place(hkl).T), each)
        strong = scored(np.sqrt(self.found), least)
        assert strong.sum() >= 8
        return r_factor(np.sqrt(total[strong]), np.sqrt(self.found[strong]))


def test_precession() -> None:
    frame = Precessed(1.0)
    right = frame.r(frame_intensities, frame.made, LEAST_INTENSITY)
    assert right < 0.015
    assert frame.r(frame_intensities, slab(inverted(quartz())), LEAST_INTENSITY) > 4 * right
    assert frame.r(kinematical_intensities, frame.made, LEAST_INTENSITY) > 4 * right


def test_all_engines_coincide_for_a_weak_object() -> None:
    """Reflections below 5 % of the strongest are left out: tails of beams that share their lateral frequency."""
    frame = Precessed(0.01)
    least = 0.05 * float(np.sort(frame.found.ravel())[-2])
    for engine in (frame_intensities, kinematical_intensities):
        assert frame.r(engine, frame.made, least) < 0.003
    strong = Precessed(1.0)
    frame.found = strong.found * 1e-4
    assert frame.r(kinematical_intensities, frame.made, least) > 0.03


def test_the_kernel_is_its_dense_twin() -> None:
    made, turn = slab(quartz()), rotation(TILTS_DEG[1])
    potential = potential_table(made.crystal, KV, 1.4, FACTORS)
    beam = turn.T @ np.array([0.0, 0.0, -1.0])
    hkl, psi = slab_amplitudes(potential, made.ub, turn, beam, 180.0, 0.05)
    t, w = np.array([180.0]), np.ones(1)
    ub = turn @ made.ub
    kernel = frame_intensities(potential, ub, np.eye(3)[None], w, t, w, hkl, KV, 1.4, 0.05)
    assert kernel == pytest.approx(np.abs(psi) ** 2, abs=1e-10)
    slanted = slab_amplitudes(potential, made.ub, turn, np.array([0.0, 0.0, -1.0]), 180.0, 0.05)[1]
    assert np.abs(np.abs(slanted) ** 2 - kernel).max() > 1e-5


@pytest.mark.slow
def test_bloch_waves_now() -> None:
    found = regenerated(sys.executable, "generate_quartz_slab.py")
    assert_same_table(found, golden("quartz_slab"), 1e-6)
