"""Parts of check-refinement that need no noise: derivatives of every kind of parameter, return from a wrong start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.frames import Engine, Frame
from nanoed.pipeline.refine.parameters import free_parameters, parameters_of
from nanoed.pipeline.refine.problem import Problem, State
from nanoed.pipeline.spec import RefineSpec, ThicknessSpec
from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.scattering import reflections_within
from nanoed.studies.case import structure_file
from nanoed.studies.findings import Finding
from nanoed.studies.synthetic_frames import Series, expected_frames

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
KV = 200.0
STEP, TILT_STEP = 2e-4, 1e-5
PROBLEMS: dict[str, dict[str, Any]] = {
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
        "mosaic_tilts": 3,
        "refine_mosaicity": True,
        "absorption": 0.05,
        "refine_absorption": True,
        "twin": {"law": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)), "fraction": 0.3},
        "thickness": {"model": "wedge", "nodes": 3, "angle_terms": 1, "frame_spread": 0.2},
    },
    "mgti2o5": {
        "protocol": "still",
        "mosaicity_deg": 0.2,
        "refine_mosaicity": True,
        "occupancies": "composition",
        "thickness": {"model": "rod", "nodes": 3},
    },
}
"""Settings with every kind of parameter that a shipped structure allows."""
SHIFT_A, TILT_DEG, SIZE_A = 0.1, 0.2, 200.0
PLATE = ThicknessSpec(model="plate", scan_A=(100.0, 300.0))


def one_frame(name: str) -> tuple[Problem, State]:
    """The least squares of one frame of a shipped structure at the settings of PROBLEMS."""
    crystal = read_cif(structure_file(name))
    spec = RefineSpec.model_validate({"n_azimuth": 5} | PROBLEMS[name])
    parameters, ub = parameters_of(crystal, spec), crystal.reciprocal_basis
    orientation = frame_matrix(0.2, 0.3, 0.5)
    hkl = reflections_within(crystal, 0.9)
    near = np.abs(excitation_errors(hkl @ (orientation @ ub).T, wavelength_A(KV))) < 0.01
    terms = spec.thickness.angle_terms
    own = 0 if spec.thickness.frame_spread is None else 1 + terms
    empty = np.ones(int(near.sum()))
    frame = Frame(1, orientation, 0.02, 0.4, hkl[near], empty, empty, empty, 0, 0.3, own)
    limits = (1.0, 0.015, spec.n_azimuth, 0.0, spec.mosaic_tilts)
    engine = Engine(ub, spec.thickness, spec.protocol or "precession", *limits)
    sizes = np.array([np.log(150.0), *[0.1] * (terms + bool(own))])
    state = State(parameters.start, sizes, np.array([[0.02, -0.03]]))
    return Problem([frame], parameters, engine, spec, KV, state, 1, lambda done, total: None), state


def intensities(problem: Problem, state: State) -> Array:
    """Intensities of the frame, without derivatives."""
    return problem.frame(0, state, state.tilts[0], problem.potential(state.values, False), False)[0]


def moved(state: State, column: int, change: float) -> State:
    """The state with one parameter changed, counted as the columns of the Jacobian are."""
    p, k = len(state.values), len(state.sizes)
    values, sizes, tilts = state.values.copy(), state.sizes.copy(), state.tilts.copy()
    if column < p:
        values[column] += change
    elif column < p + k:
        sizes[column - p] += change
    else:
        tilts[0, column - p - k] += change
    return State(values, sizes, tilts)


def columns(problem: Problem, state: State) -> list[str]:
    """Names of the columns of a frame's Jacobian."""
    return [*problem.parameters.names, *["size"] * len(state.sizes), "tilt x", "tilt y"]


def difference(problem: Problem, state: State, column: int) -> Array:
    """Extrapolated (fourth-order) central difference of the intensities by one parameter."""
    step = TILT_STEP if columns(problem, state)[column].startswith("tilt") else STEP
    f = {s: intensities(problem, moved(state, column, s * step)) for s in (-2, -1, 1, 2)}
    return np.asarray((8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * step), np.float64)


def derivatives(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """Largest error of the derivative by every kind of parameter, relative to the largest derivative by it."""
    del reference, workers
    worst: dict[str, float] = {}
    for number, name in enumerate(PROBLEMS, 1):
        problem, state = one_frame(name)
        _, slope = problem.frame(0, state, state.tilts[0], problem.potential(state.values, True), True)
        for column, of in enumerate(columns(problem, state)):
            expected = difference(problem, state, column)
            off = float(np.abs(slope[:, column] - expected).max() / np.abs(expected).max())
            kind = _kind(of)
            worst[kind] = max(worst.get(kind, 0.0), off)
        if progress is not None:
            progress("derivatives", number, len(PROBLEMS))
    for kind, off in sorted(worst.items()):
        yield Finding("derivatives", f"relative error of the derivative by {kind}", off, "<=", 1e-6)


def _kind(name: str) -> str:
    last = name.rpartition(".")[2]
    if last in "xyz":
        return "coordinates"
    if last[0] == "U":
        return "U_iso" if last == "U_iso" else "U_ij"
    return {"tilt x": "tilts", "tilt y": "tilts"}.get(last, last)


def noise_free(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """Coordinates from 0.1 Å off, tilts of 0.2° per axis and thickness, returned from frames of our own engine."""
    del reference
    crystal = read_cif(structure_file("brookite"))
    series = Series(
        (5.0, 16.0, 27.0, 38.0, 49.0, 60.0), PLATE, SIZE_A, 1e6, 1.0, TILT_DEG, d_star_max=1.2, g_max=1.4
    )
    data = expected_frames(crystal, series, np.random.default_rng(1))
    put_in = TILT_DEG * np.random.default_rng(1).standard_normal((len(series.alpha_deg), 2))
    spec = RefineSpec(d_star_max=1.2, settled=1e-3, tilt_prior_deg=10.0, instability=0.0, thickness=PLATE)
    found = refine_dynamical(data, displaced(crystal, SHIFT_A), spec, workers, progress)
    off = np.linalg.norm((found.crystal.xyz - crystal.xyz) @ crystal.frac_to_cart.T, axis=1)
    tilts = found.frames[["tilt_x_deg", "tilt_y_deg"]].to_numpy()
    yield Finding(
        "noise-free", "largest distance from the truth, started 0.1 Å off, Å", float(off.max()), "<=", 1e-5
    )
    lost = float(np.abs(tilts - put_in).max())
    yield Finding("noise-free", "largest error of tilts of 0.2° (rms) per axis, °", lost, "<=", 0.01)
    yield Finding("noise-free", "error of the thickness, Å", abs(found.statistics["thickness_A"] - SIZE_A))


def displaced(crystal: Crystal, distance_A: float) -> Crystal:
    """Every free coordinate off by distance_A / sqrt(3) one way or the other, U_iso by 0.002 Å²."""
    parameters = free_parameters(crystal)
    lengths = dict(zip("xyz", crystal.cell[:3], strict=True))
    step = [0.002 if n.endswith("U_iso") else distance_A / lengths[n[-1]] / 3**0.5 for n in parameters.names]
    signs = np.random.default_rng(3).choice([-1.0, 1.0], len(step))
    return parameters.apply(parameters.start + np.array(step) * signs)
