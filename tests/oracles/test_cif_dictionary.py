"""refined.cif against the core dictionary, by another program: only what is newer than its dictionary is unknown."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from goldens import shipped

from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.output import write_refinement
from nanoed.pipeline.refine.spec import ConstraintSpec
from nanoed.pipeline.spec import RefineSpec
from nanoed.studies.check_synthetic import SPHERE
from nanoed.studies.synthetic_frames import Series, expected_frames, noisy

NEWER = {
    "_diffrn_measurement_method_precession",
    "_diffrn_measurement_rotation_mode",
    "_diffrn_precession_semi_angle",
    "_refine_diffraction_theory",
    "_refine_diffraction_theory_details",
    "_refine_ls_sample_thickness",
    "_refine_ls_sample_shape_expression",
    "_refine_ls_sample_shape_details",
    "_refine_diff_potential_max",
    "_refine_diff_potential_min",
    "_refine_diff_potential_RMS",
    "_atom_site_site_symmetry_multiplicity",
}
"""Items of the dictionary's versions 2.4 and 3 (the latter spelt as in CIF1)."""


def complaints(python: str, path: Path) -> list[str]:
    command = [python, str(Path(__file__).with_name("validate_cif.py")), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    crystal = shipped("brookite")
    series = Series((-20.0, 0.0, 20.0), SPHERE, 60.0, 1e6, 100.0, d_star_max=0.8, g_max=1.0)
    data = noisy(expected_frames(crystal, series, np.random.default_rng(1)), np.random.default_rng(2))
    held = ConstraintSpec(fixed=("*.U_iso",))
    spec = RefineSpec(d_star_max=0.8, g_margin=0.0, thickness=SPHERE, settled=1.0, constraints=held)
    folder = tmp_path_factory.mktemp("cif")
    write_refinement(refine_dynamical(data, crystal, spec), folder)
    return folder / "refined.cif"


def test_core_dictionary(written: Path, oracle_python: Callable[[str], str]) -> None:
    python = oracle_python("cctbx")
    found = complaints(python, written)
    unknown = {m[1] for line in found if (m := re.match(r"Unknown data item: '(\S+)'", line))}
    assert {tag for tag in unknown if not tag.startswith("_nanoed_")} <= NEWER
    assert [line for line in found if not line.startswith("Unknown data item")] == []
    wrong = written.with_name("wrong.cif")
    text = written.read_text().replace("_refine_ls_matrix_type full", "_refine_ls_matrix_type large")
    wrong.write_text(text.replace("_cell_length_a", "_cell_length_q"))
    said = "\n".join(complaints(python, wrong))
    assert "_cell_length_q" in said
    assert "large" in said
