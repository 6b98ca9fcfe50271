"""Indices that a lattice allows but a crystal does not, and the two hands: the model follows the data."""

import numpy as np
import pandas as pd
import pytest
from simulations import crystal

from nanoed.pipeline.refine import hand
from nanoed.pipeline.refine.hand import mirrored, z_of_difference
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.setting import alternatives, in_setting_of, turned_model
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.errors import InputError, RunawayThicknessError
from nanoed.sim.physics.scattering import structure_factors
from nanoed.studies.compare import compare

RNG = np.random.default_rng(2)
HKL = np.array([[h, k, m] for h in range(-5, 6) for k in range(-5, 6) for m in range(6)])


def merged(structure, matrix):
    """Intensities of a structure whose indices were named by `matrix`, with a little noise."""
    i = np.abs(structure_factors(structure, HKL @ matrix.T)) ** 2
    return pd.DataFrame(HKL, columns=["h", "k", "l"]).assign(I=i * RNG.normal(1, 0.1, len(i)))


@pytest.mark.parametrize(
    ("name", "n"), [("ito", 2), ("quartz", 2), ("brookite", 1), ("anatase", 1), ("mgti2o5", 1)]
)
def test_number_of_ways_to_index(name, n):
    found = alternatives(crystal(name))
    assert len(found) == n
    assert np.array_equal(found[0], np.eye(3))


@pytest.mark.parametrize("name", ["ito", "quartz"])
@pytest.mark.parametrize("which", [0, 1])
def test_model_takes_the_indices_of_the_data(name, which):
    model = crystal(name)
    matrix = alternatives(model)[which]
    found = in_setting_of(model, merged(model, matrix))
    f = [np.abs(structure_factors(c, h)) for c, h in ((found, HKL), (model, HKL @ matrix.T))]
    assert f[0] == pytest.approx(f[1], abs=1e-9 * f[1].max())
    wrong = np.abs(structure_factors(model, HKL @ alternatives(model)[1 - which].T))
    assert np.abs(f[0] - wrong).max() > 0.01 * f[0].max()
    assert (found is model) == (which == 0)
    assert found.spacegroup == model.spacegroup


def test_turned_model_is_the_same_structure():
    model = crystal("ito")
    turned = turned_model(model, alternatives(model)[1])
    assert compare(turned, model).d_max_A < 1e-9


def test_mirror_image_has_the_other_symbol_and_twice_is_the_same():
    quartz = crystal("quartz")
    other = mirrored(quartz)
    assert (quartz.spacegroup, other.spacegroup) == ("P 32 2 1", "P 31 2 1")
    assert mirrored(other).spacegroup == quartz.spacegroup
    f = [np.abs(structure_factors(c, HKL)) for c in (quartz, other)]
    assert f[0] == pytest.approx(f[1], abs=1e-9 * f[0].max())  # kinematically no difference
    assert compare(other, quartz).inverted
    with pytest.raises(InputError, match="no hand"):
        mirrored(crystal("brookite"))


@pytest.mark.parametrize("running", ["P 31 2 1", "P 32 2 1", "both"])
def test_a_hand_that_has_no_thickness_is_compared_at_that_of_the_other(monkeypatch, running):
    """The left hand fits worse by one point; whichever runs away is held at the 51 Å where the other settled."""
    asked = []

    def refine(data, model, spec, workers, progress):
        asked.append((model.spacegroup, spec.thickness.refine, spec.thickness.start_A))
        if spec.thickness.refine and running in (model.spacegroup, "both"):
            raise RunawayThicknessError("the thickness ran away to 11 Å")
        off = 1.02 if model.spacegroup == "P 32 2 1" else 1.03
        table = pd.DataFrame({"frame": np.repeat(np.arange(20), 9), "I_obs": 100.0, "sigma": 1.0})
        table["I_calc"] = 100.0 * (off + 0.001 * RNG.normal(size=len(table))) ** 2
        nothing = pd.DataFrame()
        return Refinement("dynamical", model, {}, {"thickness_A": 51.0}, nothing, table, nothing, nothing, {}, "done")

    monkeypatch.setattr(hand, "refine_dynamical", refine)
    spec = RefineSpec(both_hands=True)
    if running == "both":
        with pytest.raises(RunawayThicknessError, match="11 Å"):
            hand.refine_both_hands(None, crystal("quartz"), spec)
        return
    found = hand.refine_both_hands(None, crystal("quartz"), spec)
    assert found.crystal.spacegroup == "P 32 2 1"
    assert found.statistics["hand_z"] > 5
    assert asked[2] == (running, False, 51.0)
    assert "held at 51 Å" in found.message
    assert ("the other hand" in found.message) == (running == "P 31 2 1")


def test_z_grows_with_the_number_of_frames_and_changes_sign_with_the_hand():
    d = RNG.normal(0.5, 1.0, 400)
    assert z_of_difference(d) == pytest.approx(0.5 * 20, abs=3)
    assert z_of_difference(-d) == pytest.approx(-z_of_difference(d))
    assert z_of_difference(d[:1]) == 0
