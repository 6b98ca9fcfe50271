"""The layout holds: one top-level package, arrows point one way, no bare imports."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel built from a copy of the sources (symbolic links kept), without any network."""
    copy = tmp_path_factory.mktemp("wheel") / "src"
    skip = shutil.ignore_patterns(
        ".git", ".venv", "build", "*.egg-info", "__pycache__", "reports", ".*_cache"
    )
    shutil.copytree(REPO, copy, symlinks=True, ignore=skip)
    code = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    out = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True)
    return copy / out.stdout.split()[-1]


def installed_tree(folder: Path) -> Path:
    """The package as it is installed: no symbolic links, so that the import graph is complete."""
    shutil.copytree(REPO / "src" / "nanoed", folder / "nanoed", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", folder)
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    code = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"
    env = dict(os.environ, PYTHONPATH=str(folder), NO_COLOR="1")
    command = [sys.executable, "-c", code, "--no-cache", "--config", str(folder / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_wheel_has_one_top_level_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"nanoed"}


def test_wheel_carries_cases_structures_and_marker(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "nanoed/py.typed",
        "nanoed/studies/cases/brookite-cnrs-01.toml",
        "nanoed/studies/structures/brookite.cif",
        "nanoed/studies/sweeps/shipped/size-limit.toml",
        "nanoed/sim/physics/__init__.py",
        "nanoed/pipeline/page/vendor/3dmol/3Dmol-min.js",
        "nanoed/pipeline/page/vendor/3dmol/LICENSE",
    ):
        assert wanted in names


def test_arrows_point_one_way(tmp_path):
    result = lint_imports(installed_tree(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr


PLANTED = {  # file, line that must not be there -> the arrow that the linter names
    ("pipeline/refine/__init__.py", "from nanoed.studies import case"): "pipeline.refine -> nanoed.studies.case",
    ("pipeline/io/__init__.py", "import nanoed.sim.truth"): "pipeline.io -> nanoed.sim.truth",
    ("pipeline/reduce/__init__.py", "from nanoed.sim.spec import Experiment"): "pipeline.reduce -> nanoed.sim.spec",
    ("sim/__init__.py", "import nanoed.pipeline.spec"): "sim -> nanoed.pipeline.spec",
    ("sim/dataset.py", "import nanoed.sim.truth"): "sim.dataset -> nanoed.sim.truth",
    ("sim/physics/electron.py", "import nanoed.sim.spec"): "sim.physics.electron -> nanoed.sim.spec",
}


def test_planted_violations_are_detected(tmp_path):
    folder = installed_tree(tmp_path)
    for file, line in PLANTED:
        with (folder / "nanoed" / file).open("a") as f:
            f.write(f"\n{line}\n")
    result = lint_imports(folder)
    assert result.returncode == 1
    assert [arrow for arrow in PLANTED.values() if f"nanoed.{arrow}" not in result.stdout] == [], result.stdout


@pytest.mark.parametrize(
    "line", ["import sim", "from pipeline import spec", "import studies.case", "from .physics import crystal"]
)
def test_bare_and_relative_imports_are_banned(line):
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--select",
        "TID",
        "--config",
        str(REPO / "pyproject.toml"),
        "--stdin-filename",
        "sim/x.py",
        "-",
    ]
    result = subprocess.run(command, input=line + "\n", cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 1
    assert "TID25" in result.stdout


def test_sources_are_clean():
    command = [sys.executable, "-m", "ruff", "check", "."]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_types_hold():
    result = subprocess.run([sys.executable, "-m", "mypy"], cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
