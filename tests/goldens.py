"""What other programs computed: the committed tables, and their generators run anew."""

import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd

from nanoed.sim.physics.crystal import Crystal, read_cif

TESTS = Path(__file__).resolve().parent
STRUCTURES = TESTS.parent / "studies" / "structures"


def golden(name: str) -> pd.DataFrame:
    """The committed table tests/golden/NAME.csv."""
    return pd.read_csv(TESTS / "golden" / f"{name}.csv", comment="#")


def regenerated(python: str, script: str) -> pd.DataFrame:
    """The table that tests/oracles/SCRIPT prints when run now by another interpreter."""
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [python, str(TESTS / "oracles" / script), str(STRUCTURES)]
    done = subprocess.run(command, capture_output=True, text=True, env=alone, check=False)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(io.StringIO(done.stdout), comment="#")


def assert_same_table(found: pd.DataFrame, committed: pd.DataFrame, rtol: float) -> None:
    """Equal labels and indices; numbers equal to `rtol` of the largest of their column."""
    assert list(found.columns) == list(committed.columns)
    for column in committed.columns:
        if committed[column].dtype.kind == "f":
            largest = float(committed[column].abs().max())
            np.testing.assert_allclose(found[column], committed[column], rtol=0, atol=rtol * largest)
        else:
            assert (found[column] == committed[column]).all(), column


def shipped(name: str) -> Crystal:
    """A structure that comes with the package."""
    return read_cif(STRUCTURES / f"{name}.cif")
