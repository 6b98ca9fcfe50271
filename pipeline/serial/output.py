"""The files of serial indexing: those of a reduction, and a table of all frames."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nanoed.pipeline.io.cif_pets import GEOMETRY_KEY, PetsData, write_cif_pets, zone_axes
from nanoed.pipeline.io.hkl import write_hkl, write_ins
from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.output import OBSERVED, plain, write_record
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.profile import Profile
from nanoed.pipeline.reduce.search import Detector
from nanoed.pipeline.reduce.virtual import VirtualFrames
from nanoed.pipeline.serial.ambiguity import Assigned
from nanoed.pipeline.serial.intensities import Oriented
from nanoed.pipeline.serial.spec import IndexSpec
from nanoed.sim.dataset import Nominal
from nanoed.sim.physics.files import write_whole

if TYPE_CHECKING:
    from nanoed.pipeline.serial.index import Found, Indexed


def frame_table(
    peaks: Peaks, geometry: Geometry, found: Found, oriented: Oriented, assigned: Assigned
) -> pd.DataFrame:
    """One row per frame: verdict, confidence, score, run, class, angles (degrees), centre, scale, diameter."""
    n = len(geometry)
    best = [c[0] if c else None for c in found.candidates]
    angles = np.degrees(np.column_stack([geometry.alpha, geometry.beta, geometry.omega]))
    accepted = np.zeros(n, bool)
    accepted[oriented.frame] = True

    def spread(values: Any, empty: float) -> Any:
        out = np.full(n, empty)
        out[oriented.frame] = values
        return out

    return pd.DataFrame(
        {
            "frame": np.arange(n),
            "accepted": accepted,
            "verdict": [why or "oriented" for why in found.verdict],
            "confidence": found.confidence,
            "score": [b.score if b else np.nan for b in best],
            "null_z": [found.null.z(b.score) if b else np.nan for b in best],
            "n_peaks": np.bincount(peaks.frame, minlength=n),
            "n_matched": [b.matched if b else 0 for b in best],
            "run": spread(found.run, -1).astype(int),
            "setting": spread(assigned.choice[found.run], -1).astype(int),
            "setting_margin": spread(assigned.margin[found.run], np.nan),
            "alpha_deg": np.where(accepted, angles[:, 0], np.nan),
            "beta_deg": np.where(accepted, angles[:, 1], np.nan),
            "omega_deg": np.where(accepted, angles[:, 2], np.nan),
            "centre_x_px": geometry.centres[:, 0],
            "centre_y_px": geometry.centres[:, 1],
            "scale": spread(np.exp(oriented.log_scale), np.nan),
            "diameter_A": spread(oriented.diameter, np.nan),
            "cost": spread(oriented.cost, np.nan),
        }
    )


def statistics_of(
    detector: Detector,
    peaks: Peaks,
    geometry: Geometry,
    found: Found,
    oriented: Oriented,
    assigned: Assigned,
    profile: Profile,
    spots: pd.DataFrame,
    spec: IndexSpec,
) -> dict[str, Any]:
    """The numbers of orientation and geometry, for reduction.json, log and tables."""
    reasons = pd.Series(found.verdict)
    margin = assigned.margin if found.lattice.n_classes > 1 else np.zeros(0)
    ellipse = geometry.distortion.ellipse
    return {
        "n_frames": len(geometry),
        "n_oriented": len(oriented),
        "rejected": {str(why): int(n) for why, n in reasons[reasons != ""].value_counts().sort_index().items()},
        "n_runs": int(found.run.max()) + 1,
        "n_indexings": found.lattice.n_classes,
        "least_setting_margin": float(margin.min()) if len(margin) else None,
        "null_score": {"mean": found.null.mean, "sd": found.null.sd},
        "cell": list(geometry.cell),
        "ub": geometry.ub.tolist(),
        "wavelength": geometry.wavelength,
        "distortion": {"ellipse": [ellipse.real, ellipse.imag], "amplitude": abs(ellipse),
                       "azimuth_deg": float(np.degrees(np.angle(ellipse)) / 2)},
        "diameter_A": float(np.median(oriented.diameter)),
        "mosaicity_deg": spec.partiality.mosaicity_deg,
        "gain": detector.gain,
        "spot_sigma_px": detector.spot_sigma,
        "spot_core_px": profile.core,
        "n_peaks": len(peaks),
        "n_spots": len(spots),
        "peak_scatter_px": found.scatter,
        "coverage_s_max": spec.coverage_s_max,
    }  # fmt: skip


def frame_list(frames: pd.DataFrame, spots: pd.DataFrame) -> VirtualFrames:
    """The oriented frames and their spots in the form of a reduction; no frame is precessed or turned.

    frames : columns of `frame_table`.  spots : of spots.integrate.
    """
    mine = frames[frames["accepted"]]
    number = mine["frame"].to_numpy()
    zones = pd.DataFrame(
        {"id": number + 1, "first": number, "last": number, "semi_angle": np.zeros(len(mine))}
    )
    for name, column in (
        ("alpha", "alpha_deg"),
        ("beta", "beta_deg"),
        ("omega", "omega_deg"),
        ("scale", "scale"),
    ):
        zones[name] = mine[column].to_numpy()
    return VirtualFrames(zones, spots[["h", "k", "l", "I", "sigma"]].assign(zone=spots["frame"] + 1), 1, 1)


def pets_data(result: Indexed, spec: IndexSpec) -> PetsData:
    """Per-frame intensities and orientations in the terms of PETS2; frames are numbered from 1."""
    zones = result.virtual.zones.drop(columns=["first", "last"])
    u, v, w = zone_axes(result.geometry.ub, zones).T
    zones.insert(1, "u", u)
    zones.insert(2, "v", v)
    zones.insert(3, "w", w)
    aperture = spec.integration.aperture_px or spec.integration.aperture_cores * result.profile.core
    extra = {
        GEOMETRY_KEY: "serial",
        "dstarmax": f"{spec.d_star_max:.3f}",
        "RC width": f"{0.55 / np.median(result.oriented.diameter):.5f}",
        "mosaicity": f"{spec.partiality.mosaicity_deg:.3f}",
        "rotation axis position": "0.000",
        "reflection size": f"{2 * aperture:.3f}",
        "integration mode": "fit profile",
        "Virtual frame settings: number of merged frames": "1",
        "step between frames": "1",
        "sum all intensities": "0",
    }
    geometry = result.geometry
    return PetsData(geometry.cell, geometry.wavelength, geometry.ub, zones, result.virtual.reflections, extra)


def write_index(out_dir: str | os.PathLike[str], result: Indexed, spec: IndexSpec, nominal: Nominal) -> None:
    """Write merged.hkl, merged.ins, unmerged.hkl, frames.cif_pets, frames.csv, reduction.json into out_dir.

    Raises InputError where it cannot be written.
    """
    folder = Path(out_dir)
    unique = result.merged.reflections
    scale = write_hkl(folder / "merged.hkl", unique)
    unmerged = result.merged.unmerged
    write_hkl(folder / "unmerged.hkl", unmerged[unmerged["used"]])
    write_ins(folder / "merged.ins", "nanoed", result.geometry.wavelength, result.geometry.cell,
              spec.spacegroup or "P 1", spec.composition)  # fmt: skip
    write_cif_pets(folder / "frames.cif_pets", pets_data(result, spec))
    write_whole(folder / "frames.csv", result.frames.to_csv(index=False, float_format="%.6g"))
    n_obs = int((unique["I"] > OBSERVED * unique["sigma"]).sum())
    record = plain({
        "statistics": result.statistics | {"n_obs": n_obs, "merged_hkl_scale": scale},
        "settings": spec.model_dump(mode="json"),
    })  # fmt: skip
    write_record(record, folder)
