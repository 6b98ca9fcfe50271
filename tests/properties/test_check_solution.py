"""The study check-solution: what counts as solved, and what counts as an atom that came out."""

from dataclasses import replace

import numpy as np
import pytest
from goldens import shipped

from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError
from nanoed.studies.check_solution import atoms_found, distance, findings


def organic(xyz, elements, spacegroup="P 21 21 21"):
    n = len(elements)
    labels = tuple(f"{name}{i}" for i, name in enumerate(elements))
    return Crystal("organic", (6.0, 7.0, 21.7, 90, 90, 90), spacegroup, labels, tuple(elements), np.array(xyz),
                   np.ones(n), np.full(n, 0.01), np.full((n, 6), np.nan))  # fmt: skip


XYZ = np.array([[0.11, 0.23, 0.31], [0.37, 0.05, 0.42], [0.61, 0.71, 0.13], [0.2, 0.2, 0.2]])
MODEL = organic(XYZ, ["O", "N", "C", "H"])


def test_solved_means_right_group_and_right_places():
    truth = shipped("brookite")
    assert distance(truth, truth) == pytest.approx(0, abs=1e-9)
    moved = replace(truth, xyz=truth.xyz + np.array([0.05, 0, 0]) * (np.arange(3) == 1)[:, None])
    assert 0.3 < distance(moved, truth) < 1.0
    assert distance(shipped("anatase"), truth) == np.inf
    assert distance(replace(truth, spacegroup="P n m a"), truth) == np.inf


def test_atoms_come_out_wherever_origin_and_hand_are():
    for hand in (1, -1):
        found = organic(hand * XYZ[:3] + np.array([0.5, 0.0, 0.5]), ["O", "N", "C"])
        assert atoms_found(found, MODEL) == (1.0, 1.0)
    swapped = organic(XYZ[:3], ["O", "C", "N"])
    assert atoms_found(swapped, MODEL) == pytest.approx((1.0, 1 / 3))
    off = organic(XYZ[:3] + np.array([[0.1, 0, 0], [0, 0, 0], [0, 0, 0]]), ["O", "N", "C"])
    assert atoms_found(off, MODEL) == pytest.approx((2 / 3, 2 / 3))
    assert atoms_found(organic(XYZ[:3], ["O", "N", "C"], "P 2 2 2"), MODEL) == (0.0, 0.0)


def test_unknown_case_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such part"):
        findings(tmp_path, tmp_path, ["rutile"], 1, None)
