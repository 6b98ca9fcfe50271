"""Serial frames from beginning to end on a small detector: what went in comes out, whoever works on it."""

import json

import numpy as np
import pandas as pd
import pytest
from simulations import crystal, experiment

from nanoed.pipeline.io.cif_pets import read_cif_pets
from nanoed.pipeline.io.hkl import read_hkl
from nanoed.pipeline.reduce.symmetry import laue_rotations, representative
from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.serial.index import index
from nanoed.pipeline.serial.spec import IndexSpec
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.errors import InputError
from nanoed.sim.simulate import simulate
from nanoed.sim.truth import read_truth
from nanoed.studies.compare import compare
from nanoed.studies.serial import orientation_errors, usable_frames

SPEC = IndexSpec(cell=(10.2, 10.2, 10.2, 90, 90, 90), spacegroup="I a -3", composition="In2O3")


@pytest.fixture(scope="module")
def ito():
    return crystal("ito")


@pytest.fixture(scope="module")
def folder(ito, tmp_path_factory):
    made = experiment(
        structure="ito",
        engine="kinematical",
        seed=5,
        particle={"shape": "sphere", "diameter_nm": 10.0},
        instrument={
            "preset": "jeol-f200",
            "detector_px": (280, 280),
            "a_per_px": 0.0125,
            "beam_diameter_nm": 25.0,
            "flux_e_A2_s": 380.0,
        },
        protocol={
            "kind": "serial",
            "n_frames": 44,
            "n_particles": 6,
            "exposure_s": 0.5,
            "blank_pct": 6.0,
            "double_pct": 8.0,
        },
        flaws={"elliptic_pct": 0.5, "centre_jitter_px": 0.4, "mosaicity_deg": 0.1},
    )
    base = tmp_path_factory.mktemp("serial")
    simulate(made, ito, base / "data", base / "truth")
    return base


@pytest.fixture(scope="module")
def result(folder, ito):
    return index(folder / "data", SPEC, folder / "out", workers=1, model=ito)


def zones(folder):
    pets = read_cif_pets(folder / "out" / "frames.cif_pets")
    return pets.zones.assign(frame=pets.zones["id"] - 1)


def test_every_usable_frame_is_oriented_and_no_other(folder, result, ito):
    truth = read_truth(folder / "truth")
    usable = usable_frames(truth)
    assert 0 < (~usable).sum() < 12
    assert np.array_equal(result.frames["accepted"].to_numpy(), usable)
    errors = orientation_errors(zones(folder), truth, ito)
    assert errors.angle_deg.max() < 0.2
    assert np.median(errors.out_of_plane_deg) < 0.05
    assert errors.same.all()
    owner = truth.frames["particle"].to_numpy()[usable]
    assert result.statistics["n_runs"] == len(set(owner))


def test_mirrored_orientations_are_far_off(folder, result, ito):
    mirrored = zones(folder).assign(omega=lambda t: -t["omega"])
    assert np.median(orientation_errors(mirrored, read_truth(folder / "truth"), ito).angle_deg) > 5


def test_structure_refines_from_the_merged_list(folder, result, ito):
    refined = refine_kinematical(read_hkl(folder / "out" / "merged.hkl"), ito, RefineSpec(d_star_max=1.6))
    assert refined.statistics["r_obs_pct"] < 8
    assert compare(refined.crystal, ito).d_max_A < 0.035


def test_without_a_model_the_setting_is_one_of_two(folder, result, tmp_path):
    free = index(folder / "data", SPEC, tmp_path / "out", workers=2)
    assert free.frames["accepted"].equals(result.frames["accepted"])
    known, found = (dict(zip(zip(m.h, m.k, m.l, strict=True), m.I, strict=True))
                    for m in (result.merged.reflections, free.merged.reflections))  # fmt: skip
    group = laue_rotations("m-3", "I a -3")
    here, there = [], []
    for exchange in (False, True):
        hkl = np.array([(k, h, m) if exchange else (h, k, m) for h, k, m in found])
        names = [tuple(int(x) for x in row) for row in representative(hkl, group)]
        here.append([known.get(name, 0.0) for name in names])
        there.append(list(found.values()))
    agreement = [np.corrcoef(a, b)[0, 1] for a, b in zip(here, there, strict=True)]
    assert max(agreement) > 0.999
    assert min(agreement) < 0.99


def test_files_and_their_numbers(folder, result):
    out = folder / "out"
    record = json.loads((out / "reduction.json").read_text())["statistics"]
    table = pd.read_csv(out / "frames.csv")
    assert record["n_oriented"] == table["accepted"].sum() == len(zones(folder))
    assert (
        table["verdict"][~table["accepted"]].isin({"too few peaks", "peaks left over", "breaks a run"}).all()
    )
    assert record["by_frames"][-1]["coverage"] == record["coverage"]
    assert 0 < record["r_split"] < 0.3
    assert len(read_hkl(out / "merged.hkl")) == record["n_all"]


def test_bad_input_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="approximate cell"):
        index(folder / "data", IndexSpec())
    with pytest.raises(InputError, match=r"cell|oriented"):
        index(folder / "data", SPEC.model_copy(update={"cell": (7.3, 7.3, 7.3, 90, 90, 90)}))
    tilts = experiment(engine="kinematical")
    simulate(tilts, crystal(), tmp_path / "data", tmp_path / "truth")
    with pytest.raises(InputError, match="not serial data"):
        index(tmp_path / "data", SPEC)
