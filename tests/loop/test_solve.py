"""Structures come out of intensities alone; what is no structure is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.io.hkl import write_hkl, write_ins
from nanoed.pipeline.io.shelx_model import read_shelx_model
from nanoed.pipeline.solve.data import Intensities, lattice_centring, read_intensities
from nanoed.pipeline.solve.output import write_solution
from nanoed.pipeline.solve.solve import solve
from nanoed.pipeline.solve.spec import FlippingSpec, SolveSpec
from nanoed.sim.physics.crystal import read_cif
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.physics.scattering import structure_factors, unique_reflections
from nanoed.studies.compare import compare

ALLOWED_A = 0.3


def intensities(crystal, noise, seed=0):
    """Kinematical intensities with a relative error, merged in the Laue class."""
    hkl = unique_reflections(crystal, 1.4)
    true = np.abs(structure_factors(crystal, hkl, "lobato")) ** 2
    measured = true * (1 + noise * np.random.default_rng(seed).standard_normal(len(hkl)))
    table = pd.DataFrame(hkl, columns=["h", "k", "l"])
    table["I"], table["sigma"] = measured, noise * true + 0.01 * true.mean()
    return Intensities(crystal.cell, 0.0250793, crystal.laue_rotations, table, lattice_centring(table, 0.01))


def spec(composition, **fields):
    return SolveSpec(composition=composition, starts=12, solutions=2).model_copy(update=fields)


@pytest.mark.parametrize(
    ("name", "composition", "shared"),
    [
        ("brookite", "TiO2", ()),
        ("anatase", "TiO2", ()),
        ("quartz", "SiO2", ()),
        ("mgti2o5", "MgTi2O5", (("Mg", "Ti"),)),
        pytest.param("ito", "In2O3", (), marks=pytest.mark.slow),
    ],
)
def test_shipped_structures_come_out_of_noisy_intensities(name, composition, shared):
    truth = shipped(name)
    starts = 6 if name == "ito" else 12
    solution = solve(intensities(truth, 0.2), spec(composition, shared=shared, starts=starts))
    difference = compare(solution.crystal, truth)
    assert difference.d_max_A < ALLOWED_A
    assert solution.crystal.spacegroup.split(":")[0] in {
        truth.spacegroup.split(":")[0],
        "P 31 2 1",
        "P 32 2 1",
    }


def test_light_atoms_come_out_of_measured_intensities_by_normalised_starts(shared):
    """Tyrosine, measured by others: all 13 atoms but hydrogen; without normalised amplitudes none."""
    folder = shared / "tyrosine"
    given = spec("C9H11NO3", starts=8, solutions=1)
    data = read_intensities(folder / "tyrosine.hkl", given)
    found = solve(data, given).crystal
    assert found.spacegroup == "P 21 21 21"
    true = read_shelx_model(folder / "tyrosine.ins")
    true = true.xyz[[name != "H" for name in true.elements]]
    _, atoms = found.unit_cell_atoms()
    halves = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3), axis=-1).reshape(-1, 3)
    near = []
    for origin in [*halves, *(halves + 0.25)]:
        for hand in (1, -1):
            d = (hand * true + origin)[:, None] - atoms
            distance = np.linalg.norm((d - np.rint(d)) @ found.frac_to_cart.T, axis=2).min(axis=1)
            near.append(int((distance < ALLOWED_A).sum()))
    assert max(near) == len(true) == 13
    plain = given.model_copy(update={"flipping": FlippingSpec(normalised_thresholds=())})
    with pytest.raises(ConvergenceError):
        solve(data, plain)


def test_same_seed_same_answer_whatever_the_workers():
    data = intensities(shipped("quartz"), 0.1)
    one, two = (solve(data, spec("SiO2", starts=6), workers) for workers in (1, 2))
    assert np.array_equal(one.crystal.xyz, two.crystal.xyz)
    pd.testing.assert_frame_equal(one.starts, two.starts)


def test_shuffled_intensities_are_no_structure():
    data = intensities(shipped("brookite"), 0.1)
    shuffled = data.reflections.assign(
        I=np.random.default_rng(3).permutation(data.reflections["I"].to_numpy())
    )
    with pytest.raises(ConvergenceError, match=r"no solution: .*try|check"):
        solve(replace(data, reflections=shuffled), spec("TiO2"))


def test_wrong_composition_is_no_structure():
    with pytest.raises(ConvergenceError, match="composition"):
        solve(intensities(shipped("quartz"), 0.1), spec("Si5O", starts=4))


@pytest.mark.parametrize(
    ("composition", "shared"), [("", ()), ("H2", ()), ("tio2", ()), ("TiO2", (("Ti", "Mg"),))]
)
def test_composition_that_cannot_be_looked_for_is_refused(composition, shared):
    with pytest.raises(InputError, match=r"composition|shared"):
        solve(intensities(shipped("quartz"), 0.1), spec(composition, shared=shared))


def test_files_of_a_solution_are_read_again(tmp_path):
    truth = shipped("quartz")
    data = intensities(truth, 0.1)
    write_hkl(tmp_path / "merged.hkl", data.reflections)
    write_ins(tmp_path / "merged.ins", "quartz", 0.0250793, truth.cell, truth.spacegroup, "SiO2")
    given = spec("SiO2", starts=6)
    read = read_intensities(tmp_path, given)
    assert np.array_equal(read.rotations, data.rotations)
    solution = solve(read, given)
    write_solution(solution, read, given, tmp_path / "out")
    again = read_cif(tmp_path / "out" / "solution.cif")
    assert compare(again, truth).d_max_A < ALLOWED_A
    text = (tmp_path / "out" / "solution.inflip").read_text(encoding="utf-8")
    assert text.count("\n") > len(read.reflections)
    assert text.endswith("endf\n")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "solution.cif", "solution.inflip", "solution.png", "solve.json", "starts.csv"
    }  # fmt: skip
