"""The study check-simulation at small scale: a case's figures and its contact sheet."""

import numpy as np
import pytest
from matplotlib.image import imread
from simulations import crystal, experiment

from nanoed.sim.dataset import open_dataset
from nanoed.sim.physics.errors import InputError
from nanoed.sim.simulate import simulate
from nanoed.studies.check_simulation import contact_sheet, findings


def test_a_contact_sheet_shows_first_and_last_frame(tmp_path):
    simulate(experiment(engine="kinematical", g_max=0.8), crystal(), tmp_path / "data", tmp_path / "truth")
    with open_dataset(tmp_path / "data") as series:
        sheet = contact_sheet(series)
        first, last = series.frame(0), series.frame(3)
    tiles = sheet[2:162, 2:162], sheet[522:682, 782:942]
    for tile, frame in zip(tiles, (first, last), strict=True):
        assert np.corrcoef(tile.ravel(), np.log1p(frame.ravel()))[0, 1] > 0.99
    assert not np.array_equal(*tiles)


def test_unknown_parts_and_failing_cases_are_told(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no such part.*brookite-ua"):
        findings(tmp_path, tmp_path, ["brookite"], 1, None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="DIALS is not installed"):
        findings(tmp_path, tmp_path, ["dials"], 1, None)


@pytest.mark.slow
def test_a_case(tmp_path):
    table = {f.quantity: f for f in findings(tmp_path, tmp_path, ["mgti2o5"], 1, None)}
    assert table["frames"].value == 35
    assert table["largest share of electrons lost"].met
    assert table["peak memory / GB"].met
    assert imread(tmp_path / "check-simulation" / "mgti2o5.jpg").shape[:2] == (780, 1040)
