"""Refinements return to the structure that made the data, and say so when they cannot."""

from dataclasses import replace

import gemmi
import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.cif import with_su
from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.frames import Engine, Frame, frames_of
from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.refine.output import write_refinement
from nanoed.pipeline.refine.parameters import free_parameters
from nanoed.pipeline.refine.statistics import r_factor
from nanoed.pipeline.spec import RefineSpec, ThicknessSpec
from nanoed.sim.physics.bloch import potential_table
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.kinematical import kinematical_intensities
from nanoed.sim.physics.scattering import (
    reflections_within,
    structure_factors,
    unique_reflections,
)

VOLTAGE_KV = 200.0
SPEC = RefineSpec(
    d_star_max=1.2,
    g_margin=0.2,
    s_g_max=0.02,
    rs_g_max=0.75,
    settled=1e-3,
    tilt_prior_deg=10.0,
    thickness=ThicknessSpec(model="plate", scan_A=(100.0, 300.0)),
)
SEMI_ANGLE_DEG = 1.0
THICKNESS_A = 200.0
TILTS_DEG = np.array([(0.2, -0.2), (-0.2, 0.1), (0.0, 0.2), (0.15, 0.0), (-0.1, -0.2), (0.2, 0.2)])


def moved(crystal: Crystal, distance_A: float, seed: int = 3) -> Crystal:
    """Every free coordinate off by about distance_A, U_iso by a half."""
    parameters = free_parameters(crystal)
    rng = np.random.default_rng(seed)
    lengths = dict(zip("xyz", crystal.cell[:3], strict=True))
    step = [0.002 if n.endswith("U_iso") else distance_A / lengths[n[-1]] / 3**0.5 for n in parameters.names]
    return parameters.apply(parameters.start + np.array(step) * rng.choice([-1.0, 1.0], len(step)))


def frames_of_its_own_engine(crystal: Crystal, tilts_deg: np.ndarray) -> PetsData:
    """Noise-free frames of a tilt series whose true orientation is off the listed one by the tilts."""
    ub, wavelength = crystal.reciprocal_basis, wavelength_A(VOLTAGE_KV)
    angles = [(5.0 + 11.0 * i, 3.0 - 2.0 * i, 40.0) for i in range(len(tilts_deg))]
    g_max = SPEC.d_star_max + SPEC.g_margin
    engine = Engine(ub, SPEC.thickness, "precession", g_max, SPEC.s_g_max, None, SPEC.s_g_taper)
    potential = potential_table(crystal, VOLTAGE_KV, engine.g_max, "peng")
    hkl = reflections_within(crystal, SPEC.d_star_max)
    rows = []
    for zone, (angle, tilt) in enumerate(zip(angles, tilts_deg, strict=True), 1):
        orientation = frame_matrix(*np.radians(angle))
        g = hkl @ (orientation @ ub).T
        near = np.abs(excitation_errors(g, wavelength)) < np.linalg.norm(g, axis=1) * np.radians(
            SEMI_ANGLE_DEG
        )
        some = hkl[near]
        empty = np.zeros(len(some))
        frame = Frame(zone, orientation, np.radians(SEMI_ANGLE_DEG), 0.0, some, empty, empty, empty)
        true = np.radians(tilt)
        intensities, _ = engine.intensities(
            frame, true, THICKNESS_A, (true, THICKNESS_A), potential, derivatives=False
        )
        table = pd.DataFrame(some, columns=["h", "k", "l"])
        rows.append(table.assign(I=1e6 * zone * intensities, sigma=1e6 * zone * 1e-6, zone=zone))
    zones = pd.DataFrame(angles, columns=["alpha", "beta", "omega"])
    zones = zones.assign(id=zones.index + 1, u=0.0, v=0.0, w=1.0, semi_angle=SEMI_ANGLE_DEG, scale=1.0)
    return PetsData(crystal.cell, wavelength, ub, zones, pd.concat(rows, ignore_index=True))


def distance_A(found: Crystal, true: Crystal) -> float:
    return float(np.linalg.norm((found.xyz - true.xyz) @ true.frac_to_cart.T, axis=1).max())


@pytest.fixture(scope="module")
def refined():
    data = frames_of_its_own_engine(shipped("brookite"), TILTS_DEG)
    return refine_dynamical(data, moved(shipped("brookite"), 0.1), SPEC)


def test_dynamical_refinement_returns_to_its_own_structure(refined):
    true = shipped("brookite")
    assert distance_A(refined.crystal, true) < 1e-5
    assert np.abs(refined.crystal.u_iso - true.u_iso).max() < 1e-6
    assert abs(refined.statistics["thickness_A"] / THICKNESS_A - 1) < 1e-3
    assert refined.statistics["r_all_pct"] < 0.1


def test_tilts_come_back(refined):
    assert np.abs(refined.frames[["tilt_x_deg", "tilt_y_deg"]].to_numpy() - TILTS_DEG).max() < 0.001


def test_stated_errors_of_orientations_hold_what_a_model_that_does_not_fit_would_move():
    """Orientations that are right, intensities 15 % wrong: tilts wander, unless the data tell how good they are."""
    data = frames_of_its_own_engine(shipped("brookite"), np.zeros((6, 2)))
    rng = np.random.default_rng(5)
    wrong = data.reflections["I"] * rng.lognormal(0, 0.15, len(data.reflections))
    data = replace(data, reflections=data.reflections.assign(I=wrong, sigma=0.01 * wrong + 1e-3))
    spec = SPEC.model_copy(update={"settled": 0.05, "tilt_prior_deg": None, "heldout_folds": None})

    def tilts(told: PetsData, spec: RefineSpec) -> float:
        frames = refine_dynamical(told, shipped("brookite"), spec).frames
        return float(np.sqrt(np.mean(frames[["tilt_x_deg", "tilt_y_deg"]].to_numpy() ** 2)))

    free = tilts(data, spec)
    stated = replace(data, zones=data.zones.assign(tilt_su=free / 2))
    held = tilts(stated, spec)
    assert held < 0.4 * free  # as if the intensities' errors had been stated too small by the misfit
    assert tilts(stated, spec.model_copy(update={"tilt_prior_deg": 10.0})) == pytest.approx(free, rel=0.05)


def test_scales_come_back(refined):
    np.testing.assert_allclose(refined.frames["scale"], 1e6 * np.arange(1, 7), rtol=1e-3)


def test_without_tilts_the_same_data_do_not_fit():
    data = frames_of_its_own_engine(shipped("brookite"), TILTS_DEG)
    spec = SPEC.model_copy(update={"optimise_orientations": False})
    held = refine_dynamical(data, shipped("brookite"), spec)
    assert held.statistics["r_all_pct"] > 3


def test_a_shuffled_list_does_not_fit():
    data = frames_of_its_own_engine(shipped("brookite"), np.zeros((6, 2)))
    rng = np.random.default_rng(0)
    mixed = data.reflections.assign(I=rng.permutation(data.reflections["I"].to_numpy()))
    shuffled = PetsData(data.cell, data.wavelength, data.ub, data.zones, mixed)
    spec = SPEC.model_copy(update={"max_cycles": 8})
    try:
        r_all = refine_dynamical(shuffled, shipped("brookite"), spec).statistics["r_all_pct"]
    except ConvergenceError:
        return
    assert r_all > 30


@pytest.mark.parametrize("name", ["brookite", "anatase", "ito", "mgti2o5", "quartz"])
def test_kinematical_refinement_returns(name: str):
    true = free_parameters(shipped(name)).crystal
    hkl = unique_reflections(true, 1.4)
    intensity = 7 * np.abs(structure_factors(true, hkl, "peng")) ** 2
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(
        I=intensity, sigma=0.01 * (intensity + intensity.mean())
    )
    found = refine_kinematical(table, moved(true, 0.05), RefineSpec())
    assert distance_A(found.crystal, true) < 1e-7
    assert found.statistics["r_all_pct"] < 1e-4
    fixed = found.su["xyz"] == 0
    np.testing.assert_allclose(found.crystal.xyz[fixed], true.xyz[fixed], atol=1e-12)


def test_kinematical_uncertainties_are_honest():
    """Pulls of 40 noisy replicates have unit variance within the 99 % interval of that many values, + 10 %."""
    true = free_parameters(shipped("brookite")).crystal
    hkl = unique_reflections(true, 1.4)
    intensity = np.abs(structure_factors(true, hkl, "peng")) ** 2
    sigma = 0.02 * intensity + 0.01 * intensity.max()
    spec, pulls = RefineSpec(instability=0.0), []
    for seed in range(40):
        noisy = intensity + sigma * np.random.default_rng(seed).standard_normal(len(sigma))
        table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=noisy, sigma=sigma)
        found = refine_kinematical(table, true, spec)
        pulls.append((found.crystal.xyz - true.xyz) / found.su["xyz"])
    assert 0.8 < np.std(pulls) < 1.2


def test_inputs_that_cannot_be_refined():
    data = frames_of_its_own_engine(shipped("brookite"), TILTS_DEG[:1])
    stretched = replace(shipped("brookite"), cell=(10.0, 5.449, 5.138, 90.0, 90.0, 90.0))
    with pytest.raises(InputError, match="5 %"):
        refine_dynamical(data, stretched, SPEC)
    broken = PetsData(data.cell, data.wavelength, data.ub, data.zones, data.reflections.assign(I=np.nan))
    with pytest.raises(InputError, match="finite"):
        refine_dynamical(broken, shipped("brookite"), SPEC)


def test_refined_cif_is_read_back(refined, tmp_path):
    write_refinement(refined, tmp_path)
    block = gemmi.cif.read(str(tmp_path / "refined.cif")).sole_block()
    small = gemmi.make_small_structure_from_block(block)
    assert np.abs([s.fract.tolist() for s in small.sites] - refined.crystal.xyz).max() < 1e-6
    assert block.find_value("_refine_diffraction_theory") == "dynamical"
    assert len(block.find_loop("_refln_index_h")) == refined.statistics["n_all"]
    assert not list(tmp_path.glob("*.part"))


def test_standard_uncertainties_are_printed_with_one_or_two_digits():
    assert with_su(0.12894, 0.00038) == "0.1289(4)"
    assert with_su(0.12894, 0.00013) == "0.12894(13)"
    assert with_su(9.5, 0.0) == "9.50000"
    assert with_su(123.4, 25.0) == "123(25)"


def test_a_weak_potential_is_kinematical():
    """Dynamical frames do not fit the refinement with a hundredth of the potential."""
    data = frames_of_its_own_engine(shipped("brookite"), np.zeros((6, 2)))
    held = SPEC.model_copy(update={"optimise_orientations": False})
    weak = held.model_copy(update={"potential_scale": 0.01})
    dynamical = refine_dynamical(data, shipped("brookite"), held)
    kinematical = refine_dynamical(data, shipped("brookite"), weak)
    assert dynamical.statistics["r_obs_pct"] < 0.1
    assert kinematical.statistics["r_obs_pct"] > 5


def test_kinematical_frames_are_the_closed_form():
    """A hundredth of the potential gives (π t U / K)² sinc²(π t S) to 0.3 % in R, the whole one does not."""
    data = frames_of_its_own_engine(shipped("brookite"), np.zeros((3, 2)))
    crystal, r = shipped("brookite"), {}
    spec = SPEC.thickness
    for strength in (0.01, 1.0):
        potential = potential_table(crystal, VOLTAGE_KV, 1.4, "peng", strength=strength)
        engine = Engine(data.ub, spec, "precession", 1.4, SPEC.s_g_max, None)
        wrong = 0.0
        for frame in frames_of(data, SPEC):
            found, _ = engine.intensities(frame, np.zeros(2), 200.0, (np.zeros(2), 200.0), potential, False)
            turns = engine.rotations(frame, 200.0)
            even, at = np.full(len(turns), 1 / len(turns)), (np.array([200.0]), np.ones(1))
            ub = frame.orientation @ data.ub
            closed = kinematical_intensities(
                potential, ub, turns, even, *at, frame.hkl, VOLTAGE_KV, 1.4, SPEC.s_g_max
            )
            wrong = max(wrong, r_factor(closed, found * closed.sum() / found.sum()))
        r[strength] = wrong
    assert r[0.01] < 0.003
    assert r[1.0] > 0.05


def test_frames_left_out_in_turn_are_predicted_like_frames_held_out(noisy_held):
    """One step from the structure of all frames tells what a refinement without every third frame does."""
    data, held = noisy_held
    spec = SPEC.model_copy(update={"heldout_folds": 3, "optimise_orientations": False, "settled": 0.05})
    found = refine_dynamical(data, shipped("brookite"), spec)
    assert found.statistics["r_heldout_pct"] == pytest.approx(held, rel=0.15)
    assert found.statistics["r_heldout_pct"] > found.statistics["r_obs_pct"]


@pytest.fixture(scope="module")
def noisy_held():
    """Noisy frames, and R of a third of them by a refinement of the others, meaned over the three thirds."""
    data = frames_of_its_own_engine(shipped("brookite"), np.zeros((6, 2)))
    i = data.reflections["I"].to_numpy()
    sigma = 0.1 * i + 2e-4 * i.max()
    noisy = i + sigma * np.random.default_rng(5).standard_normal(len(i))
    table = data.reflections.assign(I=noisy, sigma=sigma)
    data = replace(data, reflections=table)
    held = []
    for third in range(3):
        zones = data.zones.assign(id=(data.zones["id"] + third - 1) % 6 + 1)
        turned = replace(
            data,
            zones=zones.sort_values("id"),
            reflections=table.assign(zone=(table["zone"] + third - 1) % 6 + 1),
        )
        spec = SPEC.model_copy(update={"heldout_every": 3, "optimise_orientations": False, "settled": 0.05})
        held.append(refine_dynamical(turned, shipped("brookite"), spec).statistics["r_heldout_pct"])
    return data, float(np.mean(held))


def test_frames_held_out_are_predicted():
    """A third of the frames has no say in the structure and fits all the same; shuffled, it does not."""
    data = frames_of_its_own_engine(shipped("brookite"), np.zeros((6, 2)))
    spec = SPEC.model_copy(update={"heldout_every": 3, "optimise_orientations": False})
    found = refine_dynamical(data, shipped("brookite"), spec)
    assert found.statistics["r_heldout_pct"] < 0.1
    table = data.reflections.copy()
    held = table["zone"].isin([2, 5])
    table.loc[held, "I"] = np.random.default_rng(0).permutation(table.loc[held, "I"])
    mixed = PetsData(data.cell, data.wavelength, data.ub, data.zones, table)
    again = refine_dynamical(mixed, shipped("brookite"), spec)
    assert again.statistics["r_heldout_pct"] > 20
    assert distance_A(again.crystal, shipped("brookite")) < 1e-5
