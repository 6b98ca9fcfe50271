"""What the results of a study say: pure functions of its table and settings."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from nanoed.studies.sweeps.analyses import curves, flaws, indicators, paper, size_limit
from nanoed.studies.sweeps.outcome import Outcome

ANALYSES: Mapping[str, Callable[[pd.DataFrame, Mapping[str, Any]], Outcome]] = {
    "curves": curves.analyse,
    "flaws": flaws.analyse,
    "indicators": indicators.analyse,
    "paper": paper.analyse,
    "size-limit": size_limit.analyse,
}
