"""Direct space: sites of a group, arrangements on them, and a structure without its strongest reflections."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.solve.atoms import kinds
from nanoed.pipeline.solve.data import Intensities, lattice_centring
from nanoed.pipeline.solve.direct import POINTS, _placements, _sites, direct_trials, residuals
from nanoed.pipeline.solve.solve import solve
from nanoed.pipeline.solve.spec import DirectSpec, SolveSpec
from nanoed.pipeline.solve.structures import DIRECT
from nanoed.pipeline.solve.symmetry import candidates
from nanoed.sim.physics.errors import ConvergenceError
from nanoed.sim.physics.scattering import structure_factors, unique_reflections
from nanoed.studies.compare import compare


def group_of(crystal):
    laue = tuple(tuple(int(x) for x in r.ravel()) for r in crystal.laue_rotations)
    return next(c for c in candidates(laue) if c.spacegroup == crystal.spacegroup)


def incomplete(crystal):
    """Kinematical intensities with 10 % noise, without the two strongest and a third of the others."""
    rng = np.random.default_rng(0)
    hkl = unique_reflections(crystal, 1.4)
    true = np.abs(structure_factors(crystal, hkl, "lobato")) ** 2
    kept = (true < np.sort(true)[-2]) & (rng.uniform(size=len(hkl)) < 2 / 3)
    hkl, true = hkl[kept], true[kept]
    table = pd.DataFrame(hkl, columns=["h", "k", "l"])
    table["I"], table["sigma"] = (
        true * (1 + 0.1 * rng.standard_normal(len(hkl))),
        0.1 * true + 0.01 * true.mean(),
    )
    return Intensities(crystal.cell, 0.0250793, crystal.laue_rotations, table, lattice_centring(table, 0.01))


@pytest.mark.parametrize("name", ["anatase", "ito"])
def test_sites_are_all_orbits_and_their_sums_those_of_the_structure_factors(name):
    crystal = shipped(name)
    group = group_of(crystal)
    hkl = unique_reflections(crystal, 0.8)
    sites = _sites(group, crystal.frac_to_cart, hkl, 0.0)
    assert sites.multiplicity.sum() == POINTS**3
    assert set(sites.multiplicity) == {"anatase": {4, 8, 16, 32}, "ito": {8, 16, 24, 48}}[name]
    for place, m, f in zip(sites.place[::37], sites.multiplicity[::37], sites.sums[::37], strict=True):
        images = (group.rotations @ (place / POINTS) + group.translations)[:, None] + group.centring
        waves = np.exp(-2j * np.pi * images.reshape(-1, 3) @ hkl.T)
        assert f == pytest.approx(waves.mean(axis=0) * m, abs=1e-9)
    assert len(_sites(group, crystal.frac_to_cart, hkl, 1.1).place) < len(sites.place)


def test_placements_fill_the_cell_exactly_or_are_none():
    multiplicity = np.array([2, 2, 4, 8])
    found = {tuple(sorted(rows)) for rows in _placements(multiplicity, 8, 10)}
    assert found == {(3,), (0, 1, 2)}
    assert _placements(multiplicity, 3, 10) == []
    assert _placements(multiplicity, 2.5, 10) == []
    assert _placements(multiplicity, 8, 1) == []


def test_residual_is_zero_for_proportional_amplitudes_alone():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 3, 20)) + 1j * rng.standard_normal((2, 3, 20))
    r = residuals(a, b, 7 * np.abs(a[1] + b[2]))
    assert np.unravel_index(r.argmin(), r.shape) == (1, 2)
    assert r[1, 2] == pytest.approx(0, abs=1e-12)
    assert np.sort(r, axis=None)[1] > 0.1


def test_anatase_without_its_strongest_reflections_comes_out_of_direct_space():
    truth = shipped("anatase")
    data = incomplete(truth)
    wanted = kinds(SolveSpec(composition="TiO2"))
    best = direct_trials(data, wanted, SolveSpec(composition="TiO2"))[0]
    assert best.group.spacegroup.startswith("I 41/a m d")
    assert compare(best.crystal, truth).d_max_A < 0.2
    solution = solve(data, SolveSpec(composition="TiO2", starts=1, solutions=1))
    assert solution.best.method == DIRECT
    assert compare(solution.crystal, truth).d_max_A < 0.01


def test_shuffled_amplitudes_have_no_arrangement():
    data = incomplete(shipped("anatase"))
    shuffled = np.random.default_rng(3).permutation(data.reflections["I"].to_numpy())
    wrong = replace(data, reflections=data.reflections.assign(I=shuffled))
    with pytest.raises(ConvergenceError, match="no solution"):
        solve(wrong, SolveSpec(composition="TiO2", starts=2))


def test_direct_space_is_left_out_where_there_are_too_many_placements():
    data = incomplete(shipped("anatase"))
    spec = SolveSpec(composition="TiO2", direct=DirectSpec(max_placements=0))
    assert direct_trials(data, kinds(spec), spec) == []
