"""What the pipeline is told of the truth on purpose."""

import numpy as np
import pytest

from nanoed.sim.streams import stream
from nanoed.studies.case import Start, load_case, shipped_structures
from nanoed.studies.run import approximate_cell, displaced, given

MAIN = "brookite-cnrs-01"


def crystal_of(name):
    return load_case(MAIN, [f"structure={name}"]).crystal


@pytest.mark.parametrize("name", shipped_structures())
def test_start_model_keeps_symmetry_and_moves_free_atoms_by_the_given_distance(name):
    crystal = crystal_of(name)
    moved = displaced(crystal, 0.1, stream(5, "start model"))
    assert np.array_equal(moved.multiplicities, crystal.multiplicities)
    distance = np.linalg.norm((moved.xyz - crystal.xyz) @ crystal.frac_to_cart.T, axis=1)
    assert np.all(np.isclose(distance, 0.1, atol=1e-9) | (distance < 1e-12))
    assert (distance > 0).any()


@pytest.mark.parametrize("name", shipped_structures())
def test_approximate_cell_is_off_by_one_percent_and_keeps_the_crystal_system(name):
    crystal = crystal_of(name)
    cell = approximate_cell(crystal, 1.0, stream(5, "approximate cell"))
    assert np.abs(np.array(cell[:3]) / np.array(crystal.cell[:3]) - 1) == pytest.approx([0.01] * 3)
    assert cell[3:] == crystal.cell[3:]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        if crystal.cell[i] == crystal.cell[j]:
            assert cell[i] == cell[j]


def test_start_is_a_function_of_the_seed_and_hides_the_displacement_parameters():
    crystal = crystal_of("quartz")
    first, again, other = given(crystal, Start(), 1), given(crystal, Start(), 1), given(crystal, Start(), 2)
    assert np.array_equal(first.model.xyz, again.model.xyz)
    assert first.cell == again.cell
    assert not np.array_equal(first.model.xyz, other.model.xyz)
    assert np.all(first.model.u_iso == 0.01)
    assert np.isnan(first.model.u_ij).all()
    assert first.model.cell == first.cell != crystal.cell
