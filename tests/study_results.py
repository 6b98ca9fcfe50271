"""Made-up tables of results, as the runs of a study leave them."""

import math

import pandas as pd

from nanoed.studies.tables import RESULT_COLUMNS, TEXT_COLUMNS


def results(rows, axes=()):
    """A table of results of a study: what a row does not give is empty."""
    columns = ["block", *axes, *RESULT_COLUMNS]
    text = {"block", *axes, *TEXT_COLUMNS}
    plain = {
        "status": "ok",
        "case": "brookite-small",
        "structure": "brookite",
        "protocol": "precession",
        "seed": 1.0,
    }
    filled = [{c: (plain | row).get(c, "" if c in text else math.nan) for c in columns} for row in rows]
    return pd.DataFrame(filled)[columns]
