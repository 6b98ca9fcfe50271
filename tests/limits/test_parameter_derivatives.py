"""Derivatives of a frame by every kind of refined parameter, against extrapolated differences to 1e-6."""

from dataclasses import replace

import numpy as np
import pytest

from nanoed.studies.check_derivatives import PROBLEMS, columns, difference, intensities, one_frame


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_column_of_the_jacobian(name: str) -> None:
    problem, state = one_frame(name)
    found, slope = problem.frame(0, state, state.tilts[0], problem.potential(state.values, True), True)
    assert found == pytest.approx(intensities(problem, state), rel=1e-9, abs=1e-15)
    assert len(found) >= 5
    for column, of in enumerate(columns(problem, state)):
        expected = difference(problem, state, column)
        largest = np.abs(expected).max()
        assert largest > 0, of
        assert slope[:, column] == pytest.approx(expected, abs=1e-6 * largest), of


def test_a_derivative_of_another_parameter_is_seen() -> None:
    """The twin's derivative with the wrong sign, the mosaic's per radian instead of per degree."""
    problem, state = one_frame("quartz")
    _, slope = problem.frame(0, state, state.tilts[0], problem.potential(state.values, True), True)
    for name, factor in (("twin_fraction", -1.0), ("mosaicity_deg", 180 / np.pi)):
        column = problem.parameters.names.index(name)
        expected = difference(problem, state, column)
        largest = np.abs(expected).max()
        assert np.abs(factor * slope[:, column] - expected).max() > 0.5 * largest
        assert np.abs(slope[:, column] - expected).max() < 1e-6 * largest


@pytest.mark.parametrize("name", PROBLEMS)
def test_tilts_are_searched_whatever_else_is_refined(name: str) -> None:
    """A search for tilts has no use for the structure's derivatives, nor for the twin's and the mosaic's."""
    problem, state = one_frame(name)
    whole = problem.frame(0, state, state.tilts[0], problem.potential(state.values, True), True)[1]
    held = problem.frame(0, state, state.tilts[0], problem.potential(state.values, False), True)[1]
    p = len(state.values)
    assert held == pytest.approx(whole[:, p:], rel=1e-9, abs=1e-12)
    assert held.shape[1] == len(state.sizes) + 2


def test_a_twin_of_one_domain_is_none() -> None:
    problem, state = one_frame("quartz")
    at = problem.parameters.names.index("twin_fraction")
    alone = replace(problem, spec=problem.spec.model_copy(update={"twin": None}))
    values = state.values.copy()
    values[at] = 0.0
    first = replace(state, values=values)
    assert intensities(problem, first) == pytest.approx(intensities(alone, first), rel=1e-12)
    values = values.copy()
    values[at] = 1.0
    second = intensities(problem, replace(state, values=values))
    assert np.abs(second - intensities(alone, first)).max() > 0.1 * second.max()
