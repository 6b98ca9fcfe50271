"""The list of conditions: every value of a case, with the source that its own file or spec states."""

import pytest
from pydantic import BaseModel

from nanoed.sim.flaws import FLAWS
from nanoed.sim.spec import Experiment
from nanoed.studies.conditions import condition_table

TOML = """
seed = 1                # [choice] any number
[experiment.particle]
diameter_nm = 30.0      # rods 30 nm wide [S]
[experiment.flaws]
alpha_jitter_deg = "default"  # nothing said here
[threshold]
limit = 3.0             # [PHYSICS C7]
"""


class Threshold(BaseModel):
    """A spec as the pipeline writes them."""

    limit: float = 4.0
    """Rejected beyond this (C7)."""
    other: int = 1


class Whole(BaseModel):
    """Something like a case.

    seed : the only one.
    """

    seed: int
    experiment: Experiment
    threshold: Threshold = Threshold()


def _table(flaws: dict[str, object] | None = None, diameter_nm: float = 30.0, limit: float = 3.0):
    experiment = {
        "structure": "brookite",
        "seed": 1,
        "particle": {"shape": "sphere", "diameter_nm": diameter_nm, "twin_plane_hkl": (1, 1, 0)},
        "instrument": {"preset": "jeol-f200"},
        "protocol": {"kind": "precession", "tilt_min_deg": -1, "tilt_max_deg": 1, "tilt_step_deg": 1}
        | {"exposure_s": 1, "semi_angle_deg": 1},
        "flaws": flaws or {},
    }
    whole = Whole.model_validate({"seed": 1, "experiment": experiment, "threshold": {"limit": limit}})
    return condition_table(whole, TOML).set_index("field")


def test_every_flaw_is_listed_with_its_resolved_magnitude_and_source() -> None:
    table = _table(dict.fromkeys(FLAWS, "default"))
    for name, default in FLAWS.items():
        row = table.loc[f"experiment.flaws.{name}"]
        assert float(row["value"]) == default.value
        assert row["source"] == default.source
    off = _table({"mosaicity_deg": "off"}).loc["experiment.flaws.mosaicity_deg"]
    assert list(off[["value", "source"]]) == ["0", "off"]
    own = _table({"mosaicity_deg": 0.37}).loc["experiment.flaws.mosaicity_deg"]
    assert list(own[["value", "source"]]) == ["0.37", "case"]


def test_a_comment_is_a_source_only_while_the_value_stands() -> None:
    field = "experiment.particle.diameter_nm"
    assert _table().at[field, "source"] == "rods 30 nm wide (Cordero Oyonarte et al. 2025)"
    assert _table(diameter_nm=20.0).at[field, "source"] == "case"
    assert _table().at["threshold.limit", "source"] == "PHYSICS C7"


def test_meanings_come_from_the_specs() -> None:
    table = _table(limit=4.0)
    assert table.at["seed", "meaning"] == "the only one."
    assert table.at["threshold.limit", "meaning"] == "Rejected beyond this (C7)."
    assert table.at["threshold.limit", "source"] == "PHYSICS C7"
    assert table.at["threshold.other", "source"] == "default"
    assert table.at["seed", "source"] == "choice: any number"


@pytest.mark.parametrize("name", ["voltage_kv", "psf_sigma_px", "a_per_px", "dead_time_us"])
def test_the_preset_states_its_sources(name: str) -> None:
    assert _table().at[f"experiment.instrument.{name}", "source"] not in ("", "case", "default")
