"""What a refinement from the command line takes from the files: the data's cell, and no file of another method."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.io.hkl import write_hkl, write_ins
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.crystal import read_cif, write_cif
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.scattering import structure_factors, unique_reflections
from nanoed.studies import analysis, cli

CELL = (9.25, 5.48, 5.17, 90.0, 90.0, 90.0)


@pytest.fixture
def folder(tmp_path):
    """Kinematical data of brookite in the cell CELL, a start model in another one."""
    crystal = shipped("brookite")
    hkl = unique_reflections(crystal, 1.0)
    intensity = np.abs(structure_factors(crystal, hkl, "peng")) ** 2
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=intensity, sigma=0.01 * intensity.mean())
    write_hkl(tmp_path / "merged.hkl", table)
    write_cif(crystal, tmp_path / "start.cif")
    return tmp_path


def refined_cell(folder, given):
    out = folder / "out"
    args = ["refine", given, "--model", folder / "start.cif", "--method", "kinematical", "--out", out]
    assert cli.status([str(arg) for arg in (*args, "--force")]) == 0
    return read_cif(out / "refined.cif").cell


def test_refined_cif_has_the_cell_of_the_reduction(folder):
    (folder / "reduction.json").write_text(json.dumps({"statistics": {"cell": CELL}}))
    assert refined_cell(folder, folder) == pytest.approx(CELL, abs=1e-5)


def test_refined_cif_has_the_cell_of_the_ins_beside_the_list(folder):
    assert refined_cell(folder, folder / "merged.hkl") == pytest.approx(shipped("brookite").cell, abs=1e-5)
    write_ins(folder / "merged.ins", "brookite", 0.025, CELL, "P b c a", "TiO2")
    assert refined_cell(folder, folder / "merged.hkl") == pytest.approx(CELL, abs=1e-4)


def test_dynamical_refinement_is_given_the_cell_of_the_frames(folder, monkeypatch):
    class Data:
        cell = CELL

    @dataclass
    class Refined:
        cell: tuple[float, ...]
        method: str = ""

    monkeypatch.setattr(analysis, "read_cif_pets", lambda path: Data)
    monkeypatch.setattr(analysis, "refine_dynamical", lambda data, model, *rest: Refined(model.cell))
    assert analysis.refine("dynamical", folder, shipped("brookite"), RefineSpec()).cell == CELL
    far = replace(shipped("brookite"), cell=(10.0, *CELL[1:]))
    with pytest.raises(InputError, match="5 %"):
        analysis.refine("dynamical", folder, far, RefineSpec())


@pytest.mark.parametrize(
    ("method", "name", "needed"),
    [("dynamical", "a.hkl", ".cif_pets"), ("kinematical", "a.cif_pets", ".hkl")],
)
def test_the_file_that_a_method_needs_is_named(folder, method, name, needed, capsys):
    (folder / name).write_text("")
    args = [
        "refine",
        folder / name,
        "--model",
        folder / "start.cif",
        "--method",
        method,
        "--out",
        folder / "o",
    ]
    assert cli.status([str(arg) for arg in args]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert f"allowed: a {needed} file" in said
