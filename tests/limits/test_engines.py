"""The simulator's frames by atoms and by columns agree."""

import numpy as np
import pytest
from simulations import crystal, experiment

from nanoed.sim.diffraction import diffraction
from nanoed.sim.setup import prepare


@pytest.mark.slow
def test_a_frame_of_atoms_is_the_frame_of_columns() -> None:
    small = {"shape": "sphere", "diameter_nm": 4.0}
    found = {}
    for engine in ("bloch", "multislice"):
        chosen = experiment(particle=small, engine=engine, g_max=1.2, azimuths_factor=1.0)
        found[engine] = diffraction(prepare(chosen, crystal()), 1).electrons
    columns, atoms = (np.sqrt(found[engine][1:]) for engine in ("bloch", "multislice"))
    strong = columns**2 > 0.02 * columns.max() ** 2
    assert strong.sum() > 15
    assert np.abs(columns - atoms)[strong].sum() < 0.08 * atoms[strong].sum()
    assert np.abs(columns - atoms[::-1])[strong].sum() > 0.3 * atoms[strong].sum()
    assert found["multislice"].sum() == pytest.approx(found["bloch"].sum(), rel=0.02)
