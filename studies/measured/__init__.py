"""Settings with which the study check-refinement refines measured data; for `nanoed refine --config` as they are."""

from __future__ import annotations

from pathlib import Path

from nanoed.pipeline.spec import RefineSpec
from nanoed.studies.settings import settings


def measured_settings(name: str) -> RefineSpec:
    """The settings of a data set, such as "quartz"."""
    return settings(RefineSpec, Path(__file__).parent / f"{name}.toml", [])
