"""What the results of a study say: pure functions of its table and settings, one of its refined structures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from nanoed.studies.sweeps.analyses import curves, flaws, gaps, indicators, paper, sites, size_limit
from nanoed.studies.sweeps.analyses.settings import LevelNames, check_none
from nanoed.studies.sweeps.grid import Labelled, Point
from nanoed.studies.sweeps.outcome import Outcome

ANALYSES: Mapping[str, Callable[[pd.DataFrame, Mapping[str, Any]], Outcome]] = {
    "curves": curves.analyse,
    "flaws": flaws.analyse,
    "indicators": indicators.analyse,
    "paper": paper.analyse,
    "size-limit": size_limit.analyse,
}
OF_MODELS: Mapping[str, Callable[[pd.DataFrame, sites.Models], Outcome]] = {"paper": sites.analyse}
"""What is shown beside an analysis, of the structures that the runs left."""
CHECKS: Mapping[str, Callable[[Mapping[str, Any], LevelNames, Sequence[Labelled]], None]] = {
    "curves": curves.check,
    "flaws": flaws.check,
    "indicators": indicators.check,
    "paper": paper.check,
    "size-limit": size_limit.check,
    "summary": check_none,
}
"""What an analysis asks of settings, axes and labels of a study, before anything runs or is shown once more."""
OF_CASES: Mapping[str, Callable[[Mapping[str, Any], Sequence[Point]], None]] = {
    "indicators": indicators.check_methods,
    "paper": gaps.check_levels,
}
"""What an analysis asks of the cases of a study, before anything runs."""
