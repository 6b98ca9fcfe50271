"""Derivatives of a frame by every kind of refined parameter, against extrapolated differences to 1e-6."""

from dataclasses import replace

import numpy as np
import pytest
from goldens import shipped

from nanoed.pipeline.refine.frames import Engine, Frame
from nanoed.pipeline.refine.parameters import parameters_of
from nanoed.pipeline.refine.problem import Problem, State
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.scattering import reflections_within

KV = 200.0
SETTINGS = {
    "brookite": {
        "adp_model": "anisotropic",
        "mosaicity_deg": 0.1,
        "refine_mosaicity": True,
        "thickness": {
            "model": "ellipsoid",
            "aspect": 1.6,
            "axis_uvw": (1, 1, 0),
            "nodes": 3,
            "angle_terms": 1,
        },
    },
    "quartz": {
        "protocol": "rotation",
        "mosaicity_deg": 0.05,
        "refine_mosaicity": True,
        "absorption": 0.05,
        "refine_absorption": True,
        "twin": {"law": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)), "fraction": 0.3},
        "thickness": {"model": "wedge", "nodes": 3, "frame_spread": 0.2},
    },
    "mgti2o5": {
        "protocol": "still",
        "mosaicity_deg": 0.2,
        "refine_mosaicity": True,
        "occupancies": "composition",
        "thickness": {"model": "rod", "nodes": 3},
    },
}


def problem_of(name: str) -> tuple[Problem, State]:
    """One frame of a shipped structure at settings with every kind of parameter that they allow."""
    crystal = shipped(name)
    spec = RefineSpec.model_validate({"n_azimuth": 5} | SETTINGS[name])
    parameters, ub = parameters_of(crystal, spec), crystal.reciprocal_basis
    orientation = frame_matrix(0.2, 0.3, 0.5)
    hkl = reflections_within(crystal, 0.9)
    near = np.abs(excitation_errors(hkl @ (orientation @ ub).T, wavelength_A(KV))) < 0.01
    own = spec.thickness.frame_spread is not None
    empty = np.ones(int(near.sum()))
    frame = Frame(1, orientation, 0.02, 0.4, hkl[near], empty, empty, empty, 0, 0.3, own)
    engine = Engine(ub, spec.thickness, spec.protocol, 1.0, 0.015, spec.n_azimuth)
    sizes = np.array([np.log(150.0), *([0.1] if own or spec.thickness.angle_terms else [])])
    state = State(parameters.start, sizes, np.array([[0.0, -2e-3]]))
    return Problem([frame], parameters, engine, spec, KV, state, 1, lambda done, total: None), state


def moved(state: State, column: int, change: float) -> State:
    p, k = len(state.values), len(state.sizes)
    values, sizes, tilts = state.values.copy(), state.sizes.copy(), state.tilts.copy()
    if column < p:
        values[column] += change
    elif column < p + k:
        sizes[column - p] += change
    else:
        tilts[0, column - p - k] += change
    return State(values, sizes, tilts)


def intensities(problem: Problem, state: State) -> np.ndarray:
    return problem.frame(0, state, state.tilts[0], problem.potential(state.values, False), False)[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_column_of_the_jacobian(name: str) -> None:
    problem, state = problem_of(name)
    potential = problem.potential(state.values, True)
    found, slope = problem.frame(0, state, state.tilts[0], potential, True)
    assert found == pytest.approx(intensities(problem, state), rel=1e-9, abs=1e-15)
    assert len(found) >= 5
    names = [*problem.parameters.names, *["size"] * len(state.sizes), "tilt x", "tilt y"]
    for column, of in enumerate(names):
        step = 1e-5 if of.startswith("tilt") else 2e-4
        f = {s: intensities(problem, moved(state, column, s * step)) for s in (-2, -1, 1, 2)}
        expected = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * step)
        largest = np.abs(expected).max()
        assert largest > 0, of
        assert slope[:, column] == pytest.approx(expected, abs=1e-6 * largest), of


def test_a_derivative_of_another_parameter_is_seen() -> None:
    """The twin's derivative with the wrong sign, the mosaic's per radian instead of per degree."""
    problem, state = problem_of("quartz")
    _, slope = problem.frame(0, state, state.tilts[0], problem.potential(state.values, True), True)
    for name, factor in (("twin_fraction", -1.0), ("mosaicity_deg", 180 / np.pi)):
        column = problem.parameters.names.index(name)
        step = 1e-4
        up, down = (intensities(problem, moved(state, column, s * step)) for s in (1, -1))
        difference = (up - down) / (2 * step)
        largest = np.abs(difference).max()
        assert np.abs(factor * slope[:, column] - difference).max() > 0.5 * largest
        assert np.abs(slope[:, column] - difference).max() < 1e-3 * largest


def test_a_twin_of_one_domain_is_none() -> None:
    problem, state = problem_of("quartz")
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
