"""What a run will cost before it is run: operations of each stage times seconds per operation.

The operations are those of the kernels that `nanoed bench` times: beams² times Chebyshev terms per orientation, pixels,
transforms. Seconds per operation were fitted to the stages of finished runs (`nanoed bench --fit RUNS`) and are scaled
by how fast this machine multiplies matrices.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from nanoed.sim.physics import sampling
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError
from nanoed.sim.protocol import nominal_alpha_deg, sweep_deg
from nanoed.sim.setup import G_MAX_DEFAULT
from nanoed.sim.spec import Experiment
from nanoed.studies.bench import matrix_product_seconds
from nanoed.studies.case import Case, structure_file
from nanoed.studies.settings import validated
from nanoed.studies.tables import read_columns

STAGES: Mapping[str, tuple[str, ...]] = {
    "simulate": ("frame", "pixel", "bloch", "multislice"),
    "reduce": ("run", "series", "series spot", "serial"),
    "kinematical": ("run",),
    "kinematical-frames": ("run", "frame", "spot", "wave", "slope"),
    "frames": ("run", "frame", "spot", "wave", "slope"),
}
"""Operations that the seconds of a stage are made of; `frames` is a dynamical refinement."""
KEPT_MB: Mapping[str, float] = {"run": 0.006, "kinematical": 0.02, "kinematical-frames": 0.09, "frames": 0.09}
"""What a run leaves: table and record, and the model with its reflections by every method."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds, megabytes kept, and megabytes of scratch while the run lasts."""

    core_seconds: float
    kept_MB: float
    scratch_MB: float


def estimate(case: Case, seconds: Mapping[str, Mapping[str, float]], speed: float = 1.0) -> Cost:
    """The cost of a run.

    seconds : per stage and operation, as SECONDS.  speed : of this machine over that of the fit.
    """
    counts = operations(case, case.crystal)
    total = 0.0
    for stage in ["simulate", "reduce", *(_stage(method) for method in case.methods)]:
        total += sum(seconds[stage].get(name, 0.0) * counts[name] for name in STAGES[stage])
    if case.refine.both_hands and "dynamical" in case.methods:
        total += sum(seconds["frames"].get(name, 0.0) * counts[name] for name in STAGES["frames"])
    nx, ny = case.experiment.instrument.detector_px
    kept = KEPT_MB["run"] + sum(KEPT_MB[_stage(method)] for method in case.methods)
    return Cost(total / speed, kept, 2e-6 * nx * ny * counts["frame"])


def operations(case: Case, crystal: Crystal) -> dict[str, float]:
    """How often each operation of STAGES is done, in units of 10⁹ for those of the kernels and pixels, 10³ for spots.

    series, serial : frames of a tilt series, still frames; the others' count is 0.
    """
    experiment = case.experiment
    frames = float(len(nominal_alpha_deg(experiment.protocol)))
    nx, ny = experiment.instrument.detector_px
    counts = dict.fromkeys({name for names in STAGES.values() for name in names}, 0.0)
    counts |= {"run": 1.0, "frame": frames, "pixel": 1e-9 * frames * nx * ny}
    serial = experiment.protocol.kind == "serial"
    counts["spot"] = 1e-3 * frames * _spots(case, crystal)
    counts |= {"serial": frames} if serial else {"series": frames, "series spot": counts["spot"]}
    kernel = 1e-9 * frames * _simulated(experiment, crystal)
    if experiment.engine != "kinematical":
        counts[experiment.engine] = kernel
    waves = 1e-9 * frames * _refined(case, crystal)
    counts |= {"wave": waves, "slope": waves * (4 * len(crystal.labels) + 3)}
    return counts


def machine_speed() -> float:
    """Speed of multiplying matrices on one core, over that of the machine of the fit."""
    return MATRIX_PRODUCT_S / matrix_product_seconds()


def fit(runs: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Seconds per stage and operation, non-negative, that fit the stages of finished runs with least relative error.

    Raises InputError for a folder that holds no run.
    """
    found: dict[str, list[tuple[dict[str, float], float]]] = {stage: [] for stage in STAGES}
    for run in runs:
        case = _case_of(run / "run.json")
        counts = operations(case, case.crystal)
        took = read_columns(run / "timings.csv", ("stage", "core_seconds"), {"stage"}, "not the timings of a run")
        for row in took.to_dict("records"):
            stage = _stage(row["stage"].removeprefix("refine "))
            if stage in found and math.isfinite(row["core_seconds"]):
                found[stage].append((counts, float(row["core_seconds"])))
    return {stage: _fitted(STAGES[stage], rows) for stage, rows in found.items() if rows}


def _case_of(path: Path) -> Case:
    """The case in the record of a run."""
    wrong = "not the record of a run"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{wrong} ({reason})", file=path, field="--fit", allowed=_RUNS) from error
    if not isinstance(record, dict) or not isinstance(record.get("case"), dict):
        raise InputError(wrong, file=path, field="case", value="missing", allowed=_RUNS)
    case = validated(Case, record["case"], path)
    structure_file(case.structure, file=path)
    return case


_RUNS = "a folder of runs of this version, as studies leave"


def _fitted(names: tuple[str, ...], rows: list[tuple[dict[str, float], float]]) -> dict[str, float]:
    """Least relative error of the single stages, then one factor that makes the sum over all of them right."""
    took = np.array([max(seconds, 0.05) for _, seconds in rows])
    counts = np.array([[counts[name] for name in names] for counts, _ in rows])
    each = nnls(counts / took[:, None], np.ones(len(rows)))[0]
    each *= took.sum() / max(float((counts @ each).sum()), 1e-9)
    return {name: float(f"{x:.3g}") for name, x in zip(names, each, strict=True) if x > 0}


def _stage(name: str) -> str:
    """The stage of STAGES that a method, or a stage of a run, is."""
    alike = {"dynamical": "frames", "kinematical-unit": "kinematical", "kinematical-nonaveraged": "kinematical"}
    return alike.get(name, name)


def _beams(crystal: Crystal, g_max: float, s_max: float) -> float:
    """Reciprocal-lattice points within s_max of the Ewald sphere, up to g_max."""
    lattice_points = int((crystal.rotations == np.eye(3)).all(axis=(1, 2)).sum())
    return 1 + crystal.volume / lattice_points * math.pi * g_max**2 * 2 * s_max


def _wave(crystal: Crystal, g_max: float, s_max: float, thickness: float, wavelength: float) -> float:
    """Multiplications for one orientation: N² per Chebyshev term, or the eigenvectors of a thick crystal."""
    n = _beams(crystal, g_max, s_max)
    phase = 2 * math.pi * thickness * (s_max + 0.5 * wavelength * 0.1)  # 0.1: sum of |U| in 1/Å², roughly
    terms = min(phase + 9 * phase ** (1 / 3) + 12, 6 * n)
    return (1 if crystal.inversion_centre is not None else 4) * n * n * terms


def _thickness(experiment: Experiment) -> float:
    """Longest path of the beam through a particle that lies flat, Å: its shortest dimension."""
    particle = experiment.particle
    return 10 * min(particle.diameter_nm, particle.length_nm or particle.diameter_nm)


def _width(experiment: Experiment) -> float:
    """The longest dimension of a particle, Å, which its box must hold."""
    particle = experiment.particle
    return 10 * max(particle.diameter_nm, particle.length_nm or particle.diameter_nm)


def _simulated(experiment: Experiment, crystal: Crystal) -> float:
    """Multiplications of the engine for one frame."""
    instrument = experiment.instrument
    corner = 0.5 * math.hypot(*instrument.detector_px) * instrument.a_per_px
    g_max = experiment.g_max or min(corner, G_MAX_DEFAULT)
    thickness = _thickness(experiment)
    s_max = experiment.s_max or 1.5 * min(max(0.02, 2 / thickness), 0.04)
    orientations = experiment.azimuths_factor * _steps(experiment, g_max, thickness)
    if experiment.engine == "multislice":
        margins, pixel = 20 * experiment.multislice.margin_nm, 1 / (4.4 * g_max)
        depth, width = thickness + margins, _width(experiment) + margins
        points = (depth / pixel) * (width / pixel)
        return orientations * depth / experiment.multislice.slice_A * 10 * points * math.log2(points)
    wavelength = wavelength_A(instrument.voltage_kv)
    return orientations * _wave(crystal, g_max, s_max, thickness, wavelength)


def _steps(experiment: Experiment, g_max: float, thickness: float) -> float:
    protocol = experiment.protocol
    if protocol.kind == "serial":
        return 4 / experiment.azimuths_factor
    if protocol.kind == "precession":
        return sampling.precession_steps(g_max, math.radians(protocol.semi_angle_deg), thickness)
    return max(
        4.0, sampling.precession_steps(g_max, math.radians(0.5 * sweep_deg(protocol)) / math.pi, thickness)
    )


def _refined(case: Case, crystal: Crystal) -> float:
    """Multiplications for one frame in a frame-based refinement, without derivatives."""
    spec = case.refine
    g_max, thickness = spec.d_star_max + spec.g_margin, _thickness(case.experiment)
    steps = spec.n_azimuth or (1 if spec.protocol == "still" else _steps(case.experiment, g_max, thickness))
    return steps * _wave(
        crystal, g_max, spec.s_g_max, thickness, wavelength_A(case.experiment.instrument.voltage_kv)
    )


def _spots(case: Case, crystal: Crystal) -> float:
    """Reflections of a frame that the reduction integrates."""
    protocol = case.experiment.protocol
    angle = math.radians(protocol.semi_angle_deg or 0.5 * sweep_deg(protocol))
    return _beams(crystal, case.reduce.d_star_max, 0.01 + 0.5 * case.reduce.d_star_max * angle)


MATRIX_PRODUCT_S = 0.0053
SECONDS: dict[str, dict[str, float]] = {
    "simulate": {"frame": 0.0634, "bloch": 0.221, "multislice": 0.048},
    "reduce": {"run": 9.29, "series": 0.0681, "series spot": 1.17, "serial": 0.0308},
    "kinematical": {"run": 0.312},
    "kinematical-frames": {"run": 13.2, "slope": 0.189},
    "frames": {"run": 10.2, "slope": 0.427},
}
