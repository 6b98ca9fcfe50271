"""The blind half of a run: what a start model that is to be solved becomes."""

from types import SimpleNamespace

import numpy as np
from goldens import shipped

from nanoed.pipeline.spec import ReduceSpec, RefineSpec, SolveSpec
from nanoed.sim.physics.errors import ConvergenceError
from nanoed.studies import analysis
from nanoed.studies.analysis import analyse
from nanoed.studies.case import load_case

CELL = (9.0, 5.4, 5.1, 90.0, 90.0, 90.0)


def reduced(*args):
    return SimpleNamespace(geometry=SimpleNamespace(cell=CELL))


def test_data_without_a_solution_are_a_row_per_method_that_says_what_to_try(tmp_path, monkeypatch):
    def unsolved(*args):
        raise ConvergenceError("no solution; try more starts")

    monkeypatch.setattr(analysis, "reduce", reduced)
    monkeypatch.setattr(analysis, "solve", unsolved)
    methods = ("kinematical", "dynamical")
    done = analyse(tmp_path, ReduceSpec(), SolveSpec(composition="TiO2"), RefineSpec(), methods, tmp_path)
    assert [outcome.status for outcome in done.outcomes] == ["not_converged"] * 2
    assert {outcome.message for outcome in done.outcomes} == {"solution: no solution; try more starts"}


def test_a_solution_is_refined_in_the_reduced_cell(tmp_path, monkeypatch):
    models = []
    monkeypatch.setattr(analysis, "reduce", reduced)
    monkeypatch.setattr(analysis, "solve", lambda *args: SimpleNamespace(crystal=shipped("brookite")))
    monkeypatch.setattr(analysis, "outcome", lambda method, folder, model, *rest: models.append(model))
    analyse(tmp_path, ReduceSpec(), SolveSpec(), RefineSpec(), ("kinematical",), tmp_path)
    assert models[0].cell == CELL
    assert np.array_equal(models[0].xyz, shipped("brookite").xyz)


def test_composition_to_solve_is_that_of_the_reduction_unless_given():
    case = load_case("brookite-cnrs-01", ["start.model=solve"])
    assert case.solving.composition == case.reduce.composition == "TiO2"
    assert load_case("brookite-cnrs-01", ["solve.composition=TiO"]).solving.composition == "TiO"
