"""One small run from beginning to end, shared by the tests that look at it."""

import pytest

from nanoed.studies.case import load_case
from nanoed.studies.run import run_case


@pytest.fixture(scope="session")
def small_case():
    return load_case("brookite-small")


@pytest.fixture(scope="session")
def small_run(small_case, tmp_path_factory):
    """The finished run; its folder is read-only by agreement."""
    return run_case(small_case, tmp_path_factory.mktemp("run") / "small", workers=2)
