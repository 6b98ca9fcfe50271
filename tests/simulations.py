"""Small experiments that several tests simulate."""

from pathlib import Path
from typing import Any

from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.spec import Experiment, Flaws

STRUCTURES = Path(__file__).resolve().parents[1] / "studies" / "structures"


def crystal(name: str = "brookite") -> Crystal:
    return read_cif(STRUCTURES / f"{name}.cif")


def experiment(**changes: Any) -> Experiment:
    """A rod of brookite on a small detector, four frames, no flaws; `a__b=value` changes a part's field."""
    document: dict[str, Any] = {
        "structure": "brookite",
        "seed": 7,
        "particle": {
            "shape": "cylinder",
            "diameter_nm": 12.0,
            "length_nm": 30.0,
            "inclination_max_deg": 10.0,
        },
        "instrument": {
            "preset": "jeol-f200",
            "detector_px": (160, 160),
            "a_per_px": 0.016,
            "dead_time_us": 0.0,
        },
        "protocol": {
            "kind": "precession",
            "tilt_min_deg": -10.0,
            "tilt_max_deg": 20.0,
            "tilt_step_deg": 10.0,
            "exposure_s": 1.0,
            "semi_angle_deg": 1.2,
        },
        "flaws": {},
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            document[part] = document[part] | {name: value}
        else:
            document[part] = value
    return Experiment.model_validate(document)


ALL_FLAWS = dict.fromkeys((name for name in Flaws.model_fields if name != "twin_pct"), "default")
