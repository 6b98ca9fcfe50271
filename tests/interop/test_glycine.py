"""Measured peaks of a PETS2 project: our lattice, orientation and indices are PETS2's; wrong signs are noticed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nanoed.pipeline.io.cif_pets import read_cif_pets
from nanoed.studies.glycine import (
    FOLDER,
    figures,
    indexed,
    read_peaks,
    reduce_peaks,
    same_basis,
    zone_angles_deg,
)


@pytest.fixture(scope="module")
def found(shared: Path):
    return {f.quantity: f for f in figures(shared / FOLDER)}


def test_every_figure_that_is_asked_for_is_met(found) -> None:
    missed = [f.cells() for f in found.values() if f.met is False]
    assert not missed
    assert sum(f.met is not None for f in found.values()) == 7


def test_as_well_as_pets2_does(found) -> None:
    ours = found["peaks of glycine.xyz indexed within 0.2 / %"].value
    assert ours >= found["the same by PETS2's UB / %"].value - 0.5


def test_a_stage_that_turns_the_other_way_is_noticed(shared: Path) -> None:
    nominal, peaks = read_peaks(shared / FOLDER)
    lattice = reduce_peaks(replace(nominal, alpha_deg=-nominal.alpha_deg), peaks).lattice
    assert lattice.reversed
    assert lattice.senses[1] > lattice.senses[0] + 0.2


def test_wrong_lattices_do_not_agree(shared: Path) -> None:
    theirs = read_cif_pets(shared / FOLDER / "glycine.cif_pets")
    xyz = np.loadtxt(shared / FOLDER / "glycine.xyz", usecols=(0, 1, 2))
    assert indexed(xyz, theirs.ub * 1.03, 0.2) < 0.9
    mirror = np.diag([1.0, -1.0, 1.0]) @ theirs.ub
    assert indexed(xyz, mirror, 0.2) < 0.5
    assert np.median(zone_angles_deg(mirror, theirs.ub, theirs.zones)) > 10
    swapped = theirs.ub[:, [2, 0, 1]] @ np.diag([1, -1, -1])
    np.testing.assert_allclose(same_basis(swapped, theirs.ub), theirs.ub, atol=1e-12)
