"""The files of a reduction: lists for SHELX, .cif_pets for dynamical refinement, statistics as JSON."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.cif_pets import GEOMETRY_KEY, PetsData, write_cif_pets, zone_axes
from nanoed.pipeline.io.hkl import write_hkl, write_ins
from nanoed.pipeline.reduce.axis import mean_axis
from nanoed.pipeline.reduce.integrate import aperture_of
from nanoed.pipeline.reduce.lattice import Lattice
from nanoed.pipeline.reduce.merge import Merged
from nanoed.pipeline.reduce.orientation import Oriented, tilt_su_deg
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.profile import Profile
from nanoed.pipeline.reduce.search import Detector
from nanoed.pipeline.reduce.symmetry import absent, laue_rotations, possible
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import Nominal
from nanoed.sim.physics.files import write_whole

if TYPE_CHECKING:
    from nanoed.pipeline.reduce.reduce import Reduction

OBSERVED = 3.0  # a reflection is observed when I > 3 sigma(I)


def frame_table(
    nominal: Nominal, peaks: Peaks, lattice: Lattice, oriented: Oriented, blank: NDArray[np.bool_]
) -> pd.DataFrame:
    """One row per frame: nominal and refined angles (degrees), centre (pixels), scale, peaks, tilt error."""
    geometry = oriented.geometry
    n = len(geometry)
    angles = np.degrees(np.column_stack([geometry.alpha, geometry.beta, geometry.omega]))
    return pd.DataFrame(
        {
            "frame": np.arange(n),
            "alpha_nominal_deg": nominal.alpha_deg,
            "alpha_deg": angles[:, 0],
            "beta_deg": angles[:, 1],
            "omega_deg": angles[:, 2],
            "centre_x_px": geometry.centres[:, 0],
            "centre_y_px": geometry.centres[:, 1],
            "scale": np.exp(oriented.model.log_scale),
            "n_peaks": np.bincount(peaks.frame, minlength=n),
            "n_indexed": lattice.matched,
            "tilt_su_deg": tilt_su_deg(oriented.sd),
            "blank": blank,
        }
    )


def rocking_record(oriented: Oriented) -> dict[str, float]:
    """Shape of the rocking curve and relative error of the kinematical model, as reduction.json has them."""
    shape = oriented.model.shape
    return {
        "width_1_A": shape.width,
        "mosaicity_deg": float(np.degrees(shape.mosaicity)),
        "semi_angle_deg": float(np.degrees(shape.semi_angle)),
        "model_error": oriented.model.noise,
    }


def statistics_of(
    nominal: Nominal,
    detector: Detector,
    peaks: Peaks,
    lattice: Lattice,
    oriented: Oriented,
    profile: Profile,
    spots: pd.DataFrame,
    merged: Merged,
    spec: ReduceSpec,
) -> dict[str, Any]:
    """The numbers that matter, for reduction.json, log and tables."""
    geometry = oriented.geometry
    azimuth = mean_axis(geometry.rotations(), np.radians(nominal.alpha_deg), float(np.median(geometry.omega)))
    rotations = laue_rotations(spec.laue_class, spec.spacegroup)
    unique = merged.reflections
    g = np.linalg.norm(unique[["h", "k", "l"]].to_numpy(float) @ geometry.ub.T, axis=1)
    limit = min(2 * spec.coverage_s_max, spec.d_star_max)
    allowed = possible(geometry.ub, 2 * spec.coverage_s_max, rotations, spec.spacegroup)
    lenses = geometry.distortion
    ellipse = lenses.ellipse
    forbidden = spots[absent(spots[["h", "k", "l"]].to_numpy(np.int64), spec.spacegroup)]
    return {
        "n_all": len(unique),
        "n_obs": int((unique["I"] > OBSERVED * unique["sigma"]).sum()),
        "n_measured": int(merged.unmerged["used"].sum()),
        "n_outliers": merged.n_outliers,
        "n_spots": len(spots),
        "r_int": merged.r_int,
        "cc_half": merged.cc_half,
        "redundancy": merged.redundancy,
        "coverage": float((g <= limit).sum() / allowed) if allowed else float("nan"),
        "coverage_s_max": spec.coverage_s_max,
        "n_possible": allowed,
        "error_model": {"s_fac": merged.errors.s_fac, "s_add": merged.errors.s_add},
        "su_of_means": spec.merging.errors,
        "cell": list(geometry.cell),
        "ub": geometry.ub.tolist(),
        "wavelength": geometry.wavelength,
        "axis_azimuth_deg": float(np.degrees(azimuth)),
        "axis_stated_deg": nominal.axis_azimuth_deg,
        "centre_offset_px": float(np.median(np.hypot(*(geometry.centres - nominal.centre_px).T))),
        "distortion": {"ellipse": [ellipse.real, ellipse.imag], "amplitude": abs(ellipse),
                       "azimuth_deg": float(np.degrees(np.angle(ellipse)) / 2),
                       "barrel": lenses.cubic.real, "spiral": lenses.cubic.imag,
                       "parabolic": [lenses.parabolic.real, lenses.parabolic.imag], "edge_px": lenses.edge},
        "rocking_curve": rocking_record(oriented),
        "smoothing": {name: {"drift_deg": s.drift_deg, "length_deg": s.length_deg, "jitter_deg": s.jitter_deg}
                      for name, s in zip(("alpha", "beta"), oriented.smoothing, strict=True)},
        "bad_pixels": detector.pixels.reasons,
        "gain": detector.gain,
        "dead_time_us": detector.dead_time * nominal.gain * nominal.exposure_s * 1e6,
        "dead_time_error_us": detector.dead_time_error * nominal.gain * nominal.exposure_s * 1e6,
        "dead_time_is": detector.dead_time_is,
        "relative_error": float(spots["relative"].min()),
        "noise_offset": detector.gain * detector.offset,
        "spot_sigma_px": detector.spot_sigma,
        "spot_core_px": profile.core,
        "n_peaks": len(peaks),
        "indexed_fraction": lattice.fraction,
        "bravais": lattice.bravais,
        "laue": spec.laue_class,
        "spacegroup": spec.spacegroup,
        "bravais_lattices": [{"symbol": t.symbol, "strain_pct": t.strain_pct, "scatter_px": t.scatter_px,
                              "cell": list(t.cell)} for t in lattice.tried],
        "rotation_reversed": lattice.reversed,
        "indexed_by_sense": list(lattice.senses),
        "peak_scatter_px": lattice.scatter,
        "forbidden_i_over_sigma": float((forbidden["I"] / forbidden["sigma"]).mean()) if len(forbidden) else
        None,
    }  # fmt: skip


def pets_data(result: Reduction, spec: ReduceSpec, nominal: Nominal) -> PetsData:
    """Intensities and orientations of the (virtual) frames in the terms of PETS2; they are numbered from 1."""
    shape, virtual = result.oriented.model.shape, result.virtual
    zones = virtual.zones.drop(columns=["first", "last"])
    u, v, w = zone_axes(result.geometry.ub, zones).T
    zones.insert(1, "u", u)
    zones.insert(2, "v", v)
    zones.insert(3, "w", w)
    kind = "precession" if nominal.protocol == "precession" else "continuous rotation"
    aperture = aperture_of(result.profile, spec.integration)
    extra = {
        GEOMETRY_KEY: kind,
        "dstarmax": f"{spec.d_star_max:.3f}",
        "RC width": f"{shape.width:.5f}",
        "mosaicity": f"{np.degrees(shape.mosaicity):.3f}",
        "rotation axis position": f"{np.degrees(np.median(result.geometry.omega)):.3f}",
        "reflection size": f"{2 * aperture:.3f}",
        "integration mode": "fit profile",
        "Virtual frame settings: number of merged frames": str(virtual.merged),
        "step between frames": str(virtual.step),
        "sum all intensities": str(int(virtual.merged > 1)),
    }
    return PetsData(
        result.geometry.cell,
        result.geometry.wavelength,
        result.geometry.ub,
        zones,
        virtual.reflections,
        extra,
    )


def write_record(record: Any, folder: Path) -> None:
    """Write `folder/reduction.json`, whole or not at all."""
    write_whole(folder / "reduction.json", json.dumps(record, indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """The value for JSON, which has no word for NaN and infinity: null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_reduction(
    out_dir: str | os.PathLike[str], result: Reduction, spec: ReduceSpec, nominal: Nominal
) -> None:
    """Write all files of a reduction into out_dir; raises InputError where it cannot be written."""
    folder = Path(out_dir)
    scale = write_hkl(folder / "merged.hkl", result.merged.reflections)
    unmerged = result.merged.unmerged
    write_hkl(folder / "unmerged.hkl", unmerged[unmerged["used"]])
    group = result.spec.spacegroup or "P 1"
    write_ins(folder / "merged.ins", "nanoed", result.geometry.wavelength, result.geometry.cell, group,
              spec.composition)  # fmt: skip
    write_cif_pets(folder / "frames.cif_pets", pets_data(result, spec, nominal))
    record = plain({
        "statistics": result.statistics | {"merged_hkl_scale": scale},
        "frames": result.frames.to_dict(orient="list"),
        "zones": result.virtual.zones.to_dict(orient="list"),
        "settings": spec.model_dump(mode="json"),
    })  # fmt: skip
    write_record(record, folder)
