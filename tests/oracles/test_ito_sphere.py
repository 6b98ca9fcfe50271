"""Columns of Bloch waves against a sphere of atoms: the committed study, its Bloch column computed anew."""

import numpy as np
import pandas as pd
import pytest
from goldens import TESTS, shipped

from nanoed.sim.physics.bloch import potential_table
from nanoed.sim.physics.geometry import frame_matrix
from nanoed.studies import sphere

TABLE = TESTS.parent / "reports" / "ito-sphere" / "spots.csv"
HKL = ["h", "k", "l"]


def printed(name: str) -> pd.DataFrame:
    table = pd.read_csv(TABLE, comment="#")
    return table[table["orientation"] == name].reset_index(drop=True)


@pytest.mark.parametrize("name", list(sphere.ORIENTATIONS_RAD))
def test_columns(name: str) -> None:
    table = printed(name)
    assert len(sphere.scored(table)) > 100
    right = sphere.r_factor(table, "bloch_A2")
    assert right < 0.05
    assert sphere.r_factor(table, "kinematical_A2") > 1.5 * right
    swapped = table.assign(bloch_A2=table["bloch_A2"].to_numpy()[::-1])
    assert sphere.r_factor(swapped, "bloch_A2") > 0.3


def test_columns_now() -> None:
    crystal = shipped("ito")
    potential = potential_table(crystal, sphere.KV, sphere.G_MAX, sphere.FACTORS)
    angles = sphere.ORIENTATIONS_RAD["general"]
    now = sphere.spots(crystal, potential, frame_matrix(*angles), with_atoms=False)
    both = printed("general").merge(now, on=HKL, suffixes=("", "_now"))
    assert len(both) > 300
    largest = both["bloch_A2"].max()
    np.testing.assert_allclose(both["bloch_A2_now"], both["bloch_A2"], rtol=1e-4, atol=1e-6 * largest)
    tilted = sphere.spots(crystal, potential, frame_matrix(0.31, -0.11, 1.1), with_atoms=False)
    other = printed("general").merge(tilted, on=HKL, suffixes=("", "_now"))
    change = np.abs(other["bloch_A2_now"] - other["bloch_A2"])[other["g"] > 0]
    assert change.max() > 0.05 * other.loc[other["g"] > 0, "bloch_A2"].max()
