"""The study check-regress: errors put in on purpose, each of which `nanoed regress` must catch.

Every mutation is made in this process alone, before a run of the quick fixed cases; what then slips is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from nanoed.pipeline.io.cif_pets import PetsData, read_cif_pets
from nanoed.pipeline.io.hkl import read_hkl
from nanoed.pipeline.reduce import virtual
from nanoed.pipeline.serial.lattice import angles_of
from nanoed.sim.physics import factors
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import frame_matrix, rot_in_plane
from nanoed.studies import analysis
from nanoed.studies.findings import Finding, asked_parts
from nanoed.studies.regress import QUICK_CASES, regress

Progress = Callable[[str, int, int], None]
ERROR_PCT, BIAS_DEG, SIGMA_FACTOR = 1.0, 0.05, 1.2
SPEED = "speed: "


def findings(
    reference: Path, out: Path, parts: Sequence[str] | None, workers: int, progress: Progress | None
) -> list[Finding]:
    """What slips with no mutation (nothing) and with each (something). Raises InputError for an unknown part.

    reference : not needed.  out : its folder baseline holds the reference of `nanoed regress`.
    """
    del reference
    asked = asked_parts(parts, MUTATIONS)
    baseline = out / "baseline"
    if not (baseline / f"{QUICK_CASES[0]}.csv").is_file():
        raise InputError(
            "no reference tables", file=baseline, field="--out", allowed="a folder with baseline/"
        )
    found: list[Finding] = []
    for part in asked:
        with MUTATIONS[part]():
            verdicts = regress(baseline, True, None, workers, progress)
        slipped = [v for v in verdicts if v.slipped and not v.column.startswith(SPEED)]
        names = ", ".join(f"{v.method} {v.column}" for v in slipped[:6]) or "nothing"
        limit = ("==", 0.0) if part == "none" else (">=", 1.0)
        found.append(Finding(part, f"numbers that slip: {names}", float(len(slipped)), *limit, "a mutation"))
    return found


@contextmanager
def _factor() -> Iterator[None]:
    """The scattering factor of titanium 1 % too large in the table that the refinement uses."""
    original = factors._peng

    def wrong(element: str) -> tuple[np.ndarray, np.ndarray]:
        a, b = original(element)
        return (a * (1 + 0.01 * ERROR_PCT) if element == "Ti" else a), b

    with patch.object(factors, "_peng", wrong):
        yield


@contextmanager
def _orientation() -> Iterator[None]:
    """Every frame of the reduction turned by 0.05° about the lab's axis across the tilt axis, where it is written.

    A turn about an axis of the crystal would only be another choice of its orientation matrix.
    """
    original = virtual._zones

    def wrong(*args: Any) -> Any:
        zones = original(*args)
        angles = []
        for degrees in zones[["alpha", "beta", "omega"]].to_numpy(float):
            alpha, beta, omega = np.radians(degrees)
            across = rot_in_plane(omega + np.pi / 2, np.radians(BIAS_DEG))[0]
            angles.append(np.degrees(angles_of(across @ frame_matrix(alpha, beta, omega))))
        return zones.assign(**dict(zip(("alpha", "beta", "omega"), np.array(angles).T, strict=True)))

    with patch.object(virtual, "_zones", wrong):
        yield


@contextmanager
def _sigma() -> Iterator[None]:
    """Standard uncertainties 20 % too large, in both kinds of reduced data."""

    def hkl(path: str | Path) -> Any:
        table = read_hkl(path)
        return table.assign(sigma=SIGMA_FACTOR * table["sigma"])

    def pets(path: str | Path) -> PetsData:
        data = read_cif_pets(path)
        wrong = data.reflections.assign(sigma=SIGMA_FACTOR * data.reflections["sigma"])
        return replace(data, reflections=wrong)

    with ExitStack() as stack:
        stack.enter_context(patch.object(analysis, "read_hkl", hkl))
        stack.enter_context(patch.object(analysis, "read_cif_pets", pets))
        yield


MUTATIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "none": nullcontext,
    "scattering factor of Ti +1 %": _factor,
    "orientations 0.05°": _orientation,
    "sigma +20 %": _sigma,
}
