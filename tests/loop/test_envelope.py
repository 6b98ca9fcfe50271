"""The pipeline is blind to the truth, and a run is a function of its key alone."""

import shutil

import pytest

from nanoed.studies.analysis import analyse
from nanoed.studies.run import given, run_case


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_pipeline_output_is_the_same_without_the_truth(small_case, small_run, tmp_path):
    """The data are copied elsewhere; the truth beside them is scrambled, then deleted and the data reduced again."""
    shutil.copytree(small_run.folder / "data", tmp_path / "data")
    shutil.copytree(small_run.folder / "truth", tmp_path / "truth")
    for path in (tmp_path / "truth").iterdir():
        path.write_bytes(path.read_bytes()[::-1])
    told = given(small_case.crystal, small_case.start, small_case.seed)
    spec = small_case.reduce.model_copy(update={"cell": told.cell})
    analyse(tmp_path / "data", spec, told.model, small_case.refine, small_case.methods, tmp_path, workers=1)
    shutil.rmtree(tmp_path / "truth")
    analyse(tmp_path / "data", spec, told.model, small_case.refine, (), tmp_path / "without", workers=1)
    for part, again in (("reduced", tmp_path), ("refined", tmp_path), ("reduced", tmp_path / "without")):
        expected, found = contents(small_run.folder / part), contents(again / part)
        assert sorted(found) == sorted(expected)
        assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.slow
def test_numbers_do_not_depend_on_workers_place_or_time(small_case, small_run, tmp_path):
    """Four workers make what two made; that one makes it too is seen above, and in the tests of the simulation."""
    again = run_case(small_case, tmp_path / "elsewhere", workers=4, keep="frames")
    expected, found = contents(small_run.folder), contents(again.folder)
    assert sorted(found) == sorted(expected)
    differ = {str(name) for name in expected if found[name] != expected[name]}
    assert differ <= {"run.json", "timings.csv"}
