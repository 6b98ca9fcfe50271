"""Fixtures shared by all tests; what is missing is skipped aloud, or fails where NANOED_REQUIRE names it."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared" / "reference"
OPTIONAL = ("abtem", "cctbx", "dials", "chromium", "shared")
REQUIRED = frozenset(filter(None, os.environ.get("NANOED_REQUIRE", "").replace(" ", "").split(",")))


def pytest_configure(config: pytest.Config) -> None:
    unknown = REQUIRED - set(OPTIONAL)
    if unknown:
        raise pytest.UsageError(f"NANOED_REQUIRE: {sorted(unknown)} unknown, allowed: {', '.join(OPTIONAL)}")


def need(what: str, found: bool, reason: str) -> None:
    """Skip the test with the reason, or fail it where NANOED_REQUIRE names what is missing."""
    if found:
        return
    if what in REQUIRED:
        pytest.fail(f"NANOED_REQUIRE={what}, but {reason}", pytrace=False)
    pytest.skip(f"{what}: {reason}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the reference data that others measured and computed; no part of the project."""
    need("shared", SHARED.is_dir(), "the reference data ../shared/reference is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a browser that renders the report."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    need("chromium", path is not None, "the program chromium is not installed")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def oracle_python() -> Callable[[str], str]:
    """Interpreter of NANOED_ORACLE_PYTHON that has the given package (abtem, cctbx); never this process."""

    def interpreter_with(package: str) -> str:
        path = shutil.which(os.environ.get("NANOED_ORACLE_PYTHON", ""))
        need(package, path is not None, "no other interpreter (set NANOED_ORACLE_PYTHON)")
        assert path is not None
        found = subprocess.run([path, "-c", f"import {package}"], capture_output=True, check=False)
        need(package, found.returncode == 0, f"{path} has no package {package}")
        return path

    return interpreter_with


@pytest.fixture(scope="session")
def dials() -> str:
    """Path of the program dials.import."""
    path = shutil.which("dials.import")
    need("dials", path is not None, "the program dials.import is not installed")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def small_case():
    """The case that `nanoed regress --quick` runs."""
    from nanoed.studies.case import load_case

    return load_case("brookite-small")


@pytest.fixture(scope="session")
def small_run(small_case, tmp_path_factory):
    """That case run from beginning to end, once for all tests that look at it; none may change its folder."""
    from nanoed.studies.run import run_case

    return run_case(small_case, tmp_path_factory.mktemp("run") / "small", workers=2)


def pytest_terminal_summary(terminalreporter) -> None:
    """End the run with what was skipped, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    terminalreporter.section("what was skipped")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count:4d} x {reason}")
    if not reasons:
        terminalreporter.write_line("nothing")
