"""Parameters that no site has come back from noise-free frames, with s.u. that are those of the whole matrix."""

import re
from dataclasses import replace
from typing import Any

import gemmi
import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.io.cif_pets import PetsData, read_cif_pets, write_cif_pets
from nanoed.pipeline.refine.cif import refined_document
from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.frames import Engine, frames_of
from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.refine.minimise import gauss_newton
from nanoed.pipeline.refine.neighbours import bound_to
from nanoed.pipeline.refine.normal import blocks_of, cost_of, scale_of, solve
from nanoed.pipeline.refine.outcome import refinement_of
from nanoed.pipeline.refine.parameters import parameters_of
from nanoed.pipeline.refine.problem import Problem, State
from nanoed.pipeline.refine.uncertainties import frame_uncertainties
from nanoed.pipeline.spec import RefineSpec, ThicknessSpec
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import ConvergenceError, RunawayThicknessError
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.scattering import reflections_within, structure_factors, unique_reflections
from nanoed.studies.analysis import outcome, refine
from nanoed.studies.check_synthetic import SPHERE
from nanoed.studies.synthetic_frames import Series, expected_frames

KV, SEMI_DEG, SIZE_A = 200.0, 1.0, 160.0
DAUPHINE = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
SPEC = RefineSpec.model_validate(
    {
        "d_star_max": 1.2,
        "min_reflections": 1,
        "g_margin": 0.0,
        "start_s_ratio": 1.0,
        "n_azimuth": 12,
        "settled": 1e-3,
        "optimise_orientations": False,
        "heldout_folds": None,
        "reselections": 4,
        "thickness": {"start_A": 150.0, "frame_spread": 0.5},
        "twin": {"law": DAUPHINE, "fraction": 0.15},
        "mosaicity_deg": 0.15,
        "refine_mosaicity": True,
        "absorption": 0.02,
        "refine_absorption": True,
    }
)
TRUE = {"twin_fraction": 0.3, "mosaicity_deg": 0.25, "absorption": 0.06}
OFF = np.array([0.0, 0.1, -0.1, 0.05, -0.05])


def listed() -> PetsData:
    """Frames of quartz that list reflections, without intensities."""
    crystal = shipped("quartz")
    ub, wavelength, hkl = (
        crystal.reciprocal_basis,
        wavelength_A(KV),
        reflections_within(crystal, SPEC.d_star_max),
    )
    zones, parts = [], []
    for zone in range(1, len(OFF) + 1):
        angles = (7.0 + 13.0 * zone, 3.0 - 2.0 * zone, 40.0)
        g = hkl @ (frame_matrix(*np.radians(angles)) @ ub).T
        near = np.abs(excitation_errors(g, wavelength)) < np.radians(SEMI_DEG) * np.linalg.norm(g, axis=1)
        parts.append(pd.DataFrame(hkl[near], columns=["h", "k", "l"]).assign(I=1.0, sigma=1.0, zone=zone))
        zones.append([zone, 0.0, 0.0, 1.0, SEMI_DEG, *angles, 1.0])
    names = ["id", "u", "v", "w", "semi_angle", "alpha", "beta", "omega", "scale"]
    table = pd.concat(parts, ignore_index=True)
    return PetsData(crystal.cell, wavelength, ub, pd.DataFrame(zones, columns=names), table)


def problem_of(data: PetsData) -> tuple[Problem, State]:
    """The least squares, and the state with the true extra parameters and sizes."""
    parameters = parameters_of(shipped("quartz"), SPEC)
    values = parameters.start.copy()
    for name, value in TRUE.items():
        values[parameters.names.index(name)] = np.log(value) if name == "mosaicity_deg" else value
    state = State(values, np.array([np.log(SIZE_A), *OFF]), np.zeros((len(OFF), 2)))
    engine = Engine(
        data.ub, SPEC.thickness, "precession", SPEC.d_star_max, SPEC.s_g_max, SPEC.n_azimuth, SPEC.s_g_taper
    )
    frames = frames_of(data, SPEC)
    return Problem(frames, parameters, engine, SPEC, KV, state, 1, lambda done, total: None), state


@pytest.fixture(scope="module")
def made() -> PetsData:
    """The frames with the true state's intensities."""
    data = listed()
    problem, state = problem_of(data)
    parts = []
    for frame, (intensity, _) in zip(problem.frames, problem.evaluate(state, derivatives=False), strict=True):
        table = pd.DataFrame(frame.hkl, columns=["h", "k", "l"])
        parts.append(table.assign(I=1e6 * intensity, sigma=1.0, zone=frame.zone))
    return replace(data, reflections=pd.concat(parts, ignore_index=True))


def test_twin_mosaicity_absorption_and_own_sizes_come_back(made: PetsData) -> None:
    found = refine_dynamical(made, shipped("quartz"), SPEC)
    table = found.parameters.set_index("name")
    for name, value in TRUE.items():
        assert table.loc[name, "value"] == pytest.approx(value, abs=2e-3), name
        assert table.loc[name, "su"] > 0
    assert found.frames["thickness_A"].to_numpy() == pytest.approx(SIZE_A * np.exp(OFF), rel=3e-3)
    assert (found.frames[["scale_su", "thickness_su_A"]] > 0).all(axis=None)
    block = refined_document(found).sole_block()
    volumes = [gemmi.cif.as_number(v) for v in block.find_loop("_twin_individual_mass_fraction_refined")]
    assert volumes == pytest.approx([0.7, 0.3], abs=2e-3)
    assert list(block.find_loop("_twin_individual_twin_matrix_11")) == ["1", "-1"]
    assert "absorption 0.0" in block.find_value("_refine_special_details")
    alone = SPEC.model_copy(update={"twin": None, "settled": 0.1})
    assert refine_dynamical(made, shipped("quartz"), alone).statistics["r_all_pct"] > 5


def test_uncertainties_are_those_of_the_full_matrix(made: PetsData) -> None:
    """Structure, sizes, and per frame scale and tilts in one normal matrix, inverted whole."""
    problem, state = problem_of(made)
    problem = replace(problem, spec=SPEC.model_copy(update={"optimise_orientations": True}))
    calculated, slopes = map(list, zip(*problem.evaluate(state, derivatives=True), strict=True))
    p, n = slopes[0].shape[1] - 2, len(slopes)
    whole = np.zeros((p + 3 * n, p + 3 * n))
    outside = problem.outside(state)
    whole[:p, :p] = outside.normal
    for i, (frame, c, slope) in enumerate(zip(problem.frames, calculated, slopes, strict=True)):
        rows = np.zeros((len(c), p + 3 * n))
        rows[:, :p] = scale_of(frame, c) * slope[:, :p]
        rows[:, p + 3 * i : p + 3 * i + 2] = scale_of(frame, c) * slope[:, p:]
        rows[:, p + 3 * i + 2] = c
        whole += rows.T @ (frame.weight[:, None] * rows)
        for k in range(2):
            whole[p + 3 * i + k, p + 3 * i + k] += problem.priors[i] ** -2
    scale = 1 / np.sqrt(np.diag(whole))
    expected = scale * np.sqrt(np.diag(np.linalg.inv(whole * np.outer(scale, scale))))
    blocks = blocks_of(problem.frames, calculated, slopes, state.tilts, problem.priors)
    normal = solve(blocks, problem.working, True, 0.0, (outside.normal, outside.right))[2]
    covariance = np.linalg.inv(normal)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(expected[:p], rel=1e-5)
    su = frame_uncertainties(problem, state, calculated, slopes, covariance)
    of_frames = expected[p:].reshape(n, 3)
    assert su[:, 1:3] == pytest.approx(of_frames[:, :2], rel=1e-5)
    assert su[:, 0] == pytest.approx(of_frames[:, 2], rel=1e-5)
    held = replace(problem, spec=SPEC)
    without = frame_uncertainties(held, state, calculated, slopes, covariance)
    assert (without[:, 0] < 0.999 * su[:, 0]).any()


@pytest.mark.parametrize("tilts", [False, True])
def test_sizes_of_frames_count_as_parameters(made: PetsData, tilts: bool) -> None:
    """In n_par, in the degrees of freedom of the GoF and so in every s.u.; those of held-out frames do not."""
    problem, state = problem_of(made)
    away = replace(state, sizes=state.sizes + 0.02)
    weighed = SPEC.model_copy(update={"optimise_orientations": tilts})
    rigid = weighed.model_copy(update={"thickness": SPEC.thickness.model_copy(update={"frame_spread": None})})
    p, n = len(state.values), len(OFF)
    for spec, own in ((weighed, n), (rigid, 0), (weighed.model_copy(update={"heldout_every": 5}), n - 1)):
        held = int(spec.heldout_every is not None)
        asked = replace(problem, spec=spec, frames=frames_of(made, spec))
        fit = gauss_newton(asked, replace(away, sizes=away.sizes[: None if own else 1]), 1e-9, tilts, enough=1)
        found = refinement_of(asked, fit, made)
        s = found.statistics
        assert s["n_par"] == p + 1 + own + n - held
        assert s["n_tilts"] == 2 * tilts * (n - held)
        used = [(f, table) for f, (_, table), works in zip(
            asked.frames, found.reflections.groupby("frame"), asked.working, strict=True) if works]  # fmt: skip
        chi2 = sum(cost_of(f, table["I_calc"].to_numpy()) for f, table in used)
        free = s["n_all"] - s["n_par"] - s["n_tilts"]
        assert s["n_all"] == sum(len(table) for _, table in used)
        assert s["gof"] == pytest.approx(np.sqrt(chi2 / free), rel=1e-9)
        unit = np.sqrt(np.diag(fit.covariance))[p] * found.parameters.set_index("name").loc["diameter_A", "value"]
        su = found.parameters.set_index("name").loc["diameter_A", "su"]
        assert su == pytest.approx(unit * np.sqrt(chi2 / free), rel=1e-9)


def test_a_twin_of_merged_intensities() -> None:
    crystal = shipped("quartz")
    hkl = unique_reflections(crystal, 1.4)
    first = np.abs(structure_factors(crystal, hkl)) ** 2
    second = np.abs(structure_factors(crystal, hkl @ np.array(DAUPHINE, int))) ** 2
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=0.7 * first + 0.3 * second, sigma=0.1)
    spec = RefineSpec.model_validate({"twin": {"law": DAUPHINE}, "adp_model": "as_model"})
    found = refine_kinematical(table, crystal, spec)
    twin = found.parameters.set_index("name").loc["twin_fraction"]
    assert twin["value"] == pytest.approx(0.3, abs=1e-5)
    alone = refine_kinematical(table, crystal, spec.model_copy(update={"twin": None}))
    assert alone.statistics["r_all_pct"] > 1000 * found.statistics["r_all_pct"]


def test_restraints_count_as_observations() -> None:
    """A wrong bond length pulls, raises the restrained GoF by its own misfit, and lowers the s.u."""
    crystal = shipped("quartz")
    hkl = unique_reflections(crystal, 0.9)
    i = np.abs(structure_factors(crystal, hkl)) ** 2
    sigma = 0.05 * i + 0.02 * i.max()
    noisy = i + sigma * np.random.default_rng(2).standard_normal(len(i))
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=noisy, sigma=sigma)
    bonds = [{"atoms": ["Si1", "O1"], "length_A": 1.70, "su_A": 0.01}]
    spec = RefineSpec.model_validate({"instability": 0.0})
    free = refine_kinematical(table, crystal, spec)
    held = refine_kinematical(table, crystal, RefineSpec.model_validate(
        {"instability": 0.0, "restraints": {"bonds": bonds}}))  # fmt: skip
    s = held.statistics
    assert s["n_restraints"] == 2
    misfit = s["gof_restrained"] ** 2 * (s["n_all"] + 2 - s["n_par"]) - s["gof"] ** 2 * (
        s["n_all"] - s["n_par"]
    )
    residual = held.parametrised.restrained(held.parameters["value"].to_numpy()[:-1])[0]
    assert misfit == pytest.approx(float(residual @ residual), rel=1e-6)
    assert misfit > 4
    assert "gof_restrained" not in free.statistics
    assert np.linalg.norm(held.crystal.xyz - free.crystal.xyz) > 1e-3


def test_restraints_pull_a_dynamical_refinement(made: PetsData) -> None:
    """A bond that should be 1.63 Å to 0.0001 Å is longer than the frames alone make it, and both sides see it."""
    fixed = {"refine_mosaicity": False, "mosaicity_deg": 0.25, "refine_absorption": False, "absorption": 0.06}
    plain = SPEC.model_copy(update={"settled": 0.1} | fixed)
    bonds = {"bonds": [{"atoms": ["Si1", "O1"], "length_A": 1.63, "su_A": 1e-4}]}
    held = RefineSpec.model_validate(plain.model_dump() | {"restraints": bonds})
    free, pulled = (refine_dynamical(made, shipped("quartz"), spec) for spec in (plain, held))
    lengths = [np.mean([b.length for b in bound_to(r.crystal, 0)]) for r in (free, pulled)]
    assert lengths[0] == pytest.approx(np.mean([b.length for b in bound_to(shipped("quartz"), 0)]), abs=1e-3)
    assert lengths[1] > lengths[0] + 2e-3
    s = pulled.statistics
    assert s["n_restraints"] == 2
    assert s["gof_restrained"] > 1.1 * free.statistics["gof"]
    assert s["r_all_pct"] > free.statistics["r_all_pct"]


def test_parameters_that_nothing_depends_on_are_named(made: PetsData) -> None:
    empty = replace(shipped("quartz"), occupancy=np.array([1.0, 0.0]))
    with pytest.raises(
        ConvergenceError, match=r"do not determine O1\.x, O1\.y, O1\.z, O1\.U_iso as it stands"
    ):
        refine_dynamical(made, empty, SPEC)


def test_a_thickness_that_kinematical_intensities_leave_open_is_held(tmp_path) -> None:
    """An anatase sphere whose kinematical thickness is beyond the reach of the scan is refined at its dynamical one."""
    series = Series(
        (-40.0, -25.0, -10.0, 5.0, 20.0, 35.0), SPHERE, 140.0, 1e6, 100.0, d_star_max=1.3, g_max=1.5
    )
    crystal = shipped("anatase")
    write_cif_pets(tmp_path / "frames.cif_pets", expected_frames(crystal, series, np.random.default_rng(1)))
    body = ThicknessSpec(model="sphere", nodes=6, scan_A=(40.0, 50.0))
    spec = RefineSpec(d_star_max=1.3, heldout_folds=None, reselections=1, thickness=body)
    data = read_cif_pets(tmp_path / "frames.cif_pets")
    with pytest.raises(RunawayThicknessError, match="ran away"):
        refine_dynamical(data, crystal, spec.model_copy(update={"potential_scale": 0.01}))
    found = refine("kinematical-frames", tmp_path / "frames.cif_pets", crystal, spec)
    assert "held at" in found.message
    assert found.statistics["thickness_A"] == pytest.approx(2 / 3 * 140.0, rel=0.05)
    assert found.statistics["thickness_su_A"] == 0
    assert (found.frames["thickness_su_A"] == 0).all()
    assert found.parameters.set_index("name").loc["diameter_A", "su"] == 0
    free = refine_dynamical(data, crystal, spec)
    assert found.statistics["n_par"] == free.statistics["n_par"] - 1
    assert (found.parameters["su"][:-1] > 0).all()


def test_no_thickness_is_held_for_another_reason(made: PetsData, tmp_path, monkeypatch) -> None:
    """Frames that do not settle although no thickness ran away are told as they are, not refined in another way."""
    write_cif_pets(tmp_path / "frames.cif_pets", made)
    monkeypatch.setattr("nanoed.studies.analysis.dynamical_thickness", lambda *_: pytest.fail("a thickness was held"))
    hasty = SPEC.model_copy(update={"max_cycles": 1, "twin": None, "refine_mosaicity": False})
    with pytest.raises(ConvergenceError, match="did not settle"):
        refine("kinematical-frames", tmp_path / "frames.cif_pets", shipped("quartz"), hasty)
    found = outcome("kinematical-frames", tmp_path / "frames.cif_pets", shipped("quartz"), hasty, tmp_path / "out")
    assert (found.status, found.refinement) == ("not_converged", None)


def test_what_stopped_the_least_squares_is_named(made: PetsData, monkeypatch) -> None:
    """Too few cycles, or damping without end where derivatives point the wrong way."""
    problem, state = problem_of(made)
    away = replace(state, sizes=state.sizes + 0.02)
    few = replace(problem, spec=SPEC.model_copy(update={"max_cycles": 2, "settled": 1e-9}))
    with pytest.raises(ConvergenceError, match=r"did not settle in 2 cycles .*more \(max_cycles\)"):
        gauss_newton(few, away, 1e-9, tilts=False)
    frame = Problem.frame

    def wrong(self: Problem, *at: Any) -> tuple:
        intensities, slope = frame(self, *at)
        return intensities, -slope

    monkeypatch.setattr(Problem, "frame", wrong)
    with pytest.raises(ConvergenceError, match=r"damped to a halt after \d+ cycles .*derivatives") as told:
        gauss_newton(problem, away, 1e-9, tilts=False)
    assert int(re.search(r"after (\d+)", str(told.value))[1]) < SPEC.max_cycles
