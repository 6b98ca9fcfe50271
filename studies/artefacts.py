"""Gathers the tables and pictures of a report while frames, reduced data and truth are at hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imsave
from numpy.typing import NDArray

from nanoed.pipeline.reduce.reduce import Reduction
from nanoed.pipeline.reduce.rocking import rocking_profile
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.serial.index import Indexed
from nanoed.sim.dataset import DataSet, open_dataset
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.truth import Truth
from nanoed.studies.analysis import Analysis
from nanoed.studies.case import HERE, Case, shipped_cases
from nanoed.studies.compare import Comparison
from nanoed.studies.conditions import condition_table
from nanoed.studies.figure_tables import FOLDER, TABLES, write_table
from nanoed.studies.measures import orientation_errors_deg
from nanoed.studies.rows import frame_orientations, over_members, true_frames, with_refined_tilts
from nanoed.studies.sections import write_sections
from nanoed.studies.structure_view import structure_table

Array = NDArray[np.float64]
FRAMES_SHOWN = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the series
SILENT: dict[str, Any] = {"metadata": {"Software": None}}  # no program's name inside a picture
RECORDED_FRAMES = 6  # a rocking curve is shown if so many frames saw it


def collect_artefacts(
    run_dir: Path, case: Case, analysis: Analysis, comparisons: dict[str, Comparison], truth: Truth
) -> None:
    """Write `figures/*.csv` and `figures/frame_*.png` of figure_tables.TABLES into the folder of a run.

    Reads `data` in `run_dir`; needs the truth, so it is called after every
    refinement is done.
    """
    toml = HERE / "cases" / f"{case.name}.toml" if case.name in shipped_cases() else None
    write_table(run_dir, "conditions", condition_table(case, toml.read_text("utf-8") if toml else ""))
    refinements = {o.method: o.refinement for o in analysis.outcomes if o.refinement is not None}
    if comparisons:
        parts = [
            distance_table(method, comparison, case.crystal, refinements[method].su["xyz"])
            for method, comparison in comparisons.items()
        ]
        write_table(run_dir, "distances", pd.concat(parts))
        write_table(run_dir, "structure", structure_table(case.crystal, comparisons))
    if refinements:
        amplitudes = [amplitude_table(method, refinement) for method, refinement in refinements.items()]
        write_table(run_dir, "fobs_fcalc", pd.concat(amplitudes))
    if analysis.reduction is None:
        return
    if isinstance(analysis.reduction, Reduction):
        points, fit = rocking_tables(analysis.reduction)
        if len(points):
            write_table(run_dir, "rocking_curve", points)
            write_table(run_dir, "rocking_fit", fit)
    frames = frame_orientations(analysis.reduction.virtual.zones, truth, case.crystal)
    with open_dataset(run_dir / "data") as data:
        table = frame_table(frames, refinements.get("dynamical"), truth, data.nominal.alpha_deg)
        if isinstance(analysis.reduction, Indexed) and "dynamical" not in refinements:
            table = with_particles(table, analysis.reduction.frames)
        write_table(run_dir, "frame_parameters", table)
        _write_frames(run_dir, data, analysis.reduction, case.reduce.d_star_max)
        used = np.unique(analysis.reduction.spots["frame"].to_numpy(np.int64))
        bad = np.zeros(data.nominal.shape, bool)
        if isinstance(analysis.reduction, Reduction):
            bad = analysis.reduction.detector.pixels.bad
        write_sections(run_dir, data, analysis.reduction.geometry, bad, used, case.reduce.d_star_max)


def distance_table(method: str, comparison: Comparison, reference: Crystal, su_xyz: Array) -> pd.DataFrame:
    """Distances of the sites from the truth with their standard uncertainty along the displacement, Å.

    su_xyz : (n, 3) fractional, rows of the refined structure. Correlations between coordinates are neglected.
    """
    atoms = comparison.atoms
    site = [reference.labels.index(label.split("/")[0]) for label in atoms["reference_label"]]
    su = comparison.transformed_su(np.nan_to_num(np.asarray(su_xyz, float)))[site]
    delta = atoms[["dx_A", "dy_A", "dz_A"]].to_numpy(float) / np.asarray(reference.cell[:3])
    edges = reference.frac_to_cart
    distance = np.linalg.norm(delta @ edges.T, axis=1)
    gradient = delta @ (edges.T @ edges) / np.maximum(distance, 1e-12)[:, None]
    along = np.sqrt((gradient**2 * su**2).sum(axis=1))
    return atoms.assign(
        method=method, label=atoms["reference_label"], su_A=np.where(along > 0, along, np.nan)
    )


def amplitude_table(method: str, refinement: Refinement) -> pd.DataFrame:
    """Observed and calculated amplitudes on the scale of the calculated ones; negative intensities give 0."""
    found = refinement.reflections
    return found.assign(
        method=method,
        frame=found.get("frame", np.nan),
        f_obs=np.sqrt(np.maximum(found["I_obs"], 0.0)),
        f_calc=np.sqrt(np.maximum(found["I_calc"], 0.0)),
        observed=found["I_obs"] > 3 * found["sigma"],
    )


def frame_table(
    frames: pd.DataFrame, refinement: Refinement | None, truth: Truth, alpha_nominal_deg: Array
) -> pd.DataFrame:
    """Orientation error before and after refinement, refined tilts, scale and thickness of every frame.

    frames : rows.frame_orientations.
    """
    stage = pd.DataFrame({"alpha_deg": np.asarray(alpha_nominal_deg, float)})
    table = frames[["frame"]].assign(
        alpha_deg=over_members(stage, frames)["alpha_deg"],
        error_reduced_deg=orientation_errors_deg(frames, true_frames(frames, truth)),
        thickness_true_A=true_frames(frames, truth)["thickness_mean_A"].to_numpy(),
    )
    columns = ["frame", "scale", "tilt_x_deg", "tilt_y_deg", "thickness_A"]
    if refinement is None:
        return table.assign(error_refined_deg=np.nan, **dict.fromkeys(columns[1:], np.nan))
    refined = with_refined_tilts(frames, refinement)
    errors = orientation_errors_deg(refined, true_frames(refined, truth))
    after = refined[["frame"]].assign(error_refined_deg=errors)
    found = refinement.frames.reindex(columns=columns)
    return table.merge(after, on="frame", how="left").merge(found, on="frame", how="left")


def with_particles(table: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """The table of frames with scale and mean chord of the particle as indexing found them: 2/3 of its diameter (A7).

    frames : columns of serial.output.frame_table.
    """
    own = frames.set_index("frame").loc[table["frame"]]
    return table.assign(scale=own["scale"].to_numpy(), thickness_A=2 / 3 * own["diameter_A"].to_numpy())


def rocking_tables(reduction: Reduction, n_points: int = 161) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measured intensities per frame on the common scale, and the fitted profile, of a few reflections.

    Of the reflections seen on RECORDED_FRAMES and more, the one of the highest I / sigma in each third of the
    range of |g|.
    """
    spots, shape = reduction.spots, reduction.oriented.model.shape
    fitted = reduction.fitted[reduction.fitted["n_frames"] >= RECORDED_FRAMES]
    length = np.linalg.norm(fitted[["h", "k", "l"]].to_numpy(float) @ reduction.geometry.ub.T, axis=1)
    third = np.digitize(length, np.linspace(0, length.max(initial=0), 4)[1:3])
    points, curves = [], []
    for i in range(3):
        some = fitted[third == i]
        if some.empty:
            continue
        best = some.loc[(some["I"] / some["sigma"]).idxmax()]
        hkl = {axis: int(best[axis]) for axis in ("h", "k", "l")}
        mine = spots[(spots[["h", "k", "l"]] == list(hkl.values())).all(axis=1)]
        k = np.exp(reduction.oriented.model.log_scale)[mine["frame"]]
        points.append(mine.assign(s_g=mine["s"], I=mine["I"] / k, sigma_I=mine["sigma"] / k))
        reach = 1.15 * float(mine["s"].abs().max())
        s = np.linspace(-reach, reach, n_points)
        g = np.full(n_points, float(mine["g"].iloc[0]))
        profile, _ = rocking_profile(s, g, np.full(n_points, _axis_distance(reduction, mine)), shape)
        curves.append(pd.DataFrame(hkl | {"s_g": s, "I": float(best["I"]) * profile}))
    if not points:
        return pd.DataFrame(), pd.DataFrame()
    return pd.concat(points), pd.concat(curves)


def _axis_distance(reduction: Reduction, spots: pd.DataFrame) -> float:
    """Mean distance of a reflection from the tilt axis over its frames, 1/Å."""
    geometry, frame = reduction.geometry, spots["frame"].to_numpy()
    g_lab = np.einsum("mij,mj->mi", geometry.rotations()[frame], spots[["h", "k", "l"]] @ geometry.ub.T)
    omega = geometry.omega[frame]
    axis = np.column_stack([np.cos(omega), np.sin(omega), np.zeros(len(omega))])
    return float(np.linalg.norm(np.cross(g_lab, axis), axis=1).mean())


def _write_frames(run_dir: Path, data: DataSet, reduction: Reduction | Indexed, ring: float) -> None:
    """Pictures of a few frames, their geometry, and the reflections integrated on them; ring : 1/Å."""
    (run_dir / FOLDER).mkdir(exist_ok=True)
    geometry, shown, spots = reduction.geometry, [], []
    for i in dict.fromkeys(round(part * (len(data) - 1)) for part in FRAMES_SHOWN):
        name = f"frame_{i:04d}.png"
        grey, white = grey_levels(data.frame(i))
        imsave(run_dir / FOLDER / name, grey, cmap="gray", vmin=0, vmax=255, **SILENT)
        x, y = geometry.centres[i]
        row = (i, name, data.nominal.alpha_deg[i], x, y, geometry.a_per_px, ring, 0.0, white)
        shown.append(dict(zip(TABLES["frames"], row, strict=True)))
        spots.append(reduction.spots[reduction.spots["frame"] == i])
    write_table(run_dir, "frames", pd.DataFrame(shown))
    named = {"x": "x_px", "y": "y_px", "sigma": "sigma_I"}
    write_table(run_dir, "frame_spots", pd.concat(spots).rename(columns=named))


def grey_levels(counts: NDArray[np.generic]) -> tuple[NDArray[np.uint8], float]:
    """A frame as (ny, nx) grey levels, logarithmic from 0 to `white` counts, exceeded by 1 pixel in 5000."""
    values = np.maximum(np.asarray(counts, float), 0.0)
    white = max(float(np.quantile(values, 0.9998)), 1.0)
    grey = 255 * np.log1p(np.minimum(values, white)) / np.log1p(white)
    return np.rint(grey).astype(np.uint8), white
