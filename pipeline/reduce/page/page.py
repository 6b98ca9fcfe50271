"""reduction.html: everything that a reduction found, on one page that needs nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nanoed.pipeline.page.drawing import inline_svg, svg
from nanoed.pipeline.page.html import Cell, Page, Picture, Section, Table, render
from nanoed.pipeline.reduce.geometry import to_reciprocal, to_sample
from nanoed.pipeline.reduce.page import figures
from nanoed.pipeline.reduce.page.differences import clustered
from nanoed.pipeline.reduce.page.sections import sections
from nanoed.pipeline.reduce.page.summary import alarms, summary
from nanoed.pipeline.reduce.series import Progress
from nanoed.pipeline.reduce.shells import shells
from nanoed.pipeline.reduce.symmetry import laue_rotations
from nanoed.pipeline.reduce.unindexed import explained
from nanoed.sim.dataset import DataSet
from nanoed.sim.physics.files import write_whole
from nanoed.sim.physics.geometry import excitation_errors

if TYPE_CHECKING:
    from nanoed.pipeline.reduce.reduce import Reduction

Array = NDArray[np.float64]
NEAREST = 800  # peaks of lowest angle that difference vectors are made of


def write_page(
    out_dir: str | os.PathLike[str],
    result: Reduction,
    dataset: DataSet,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write out_dir/reduction.html, whole or not at all; raises InputError where it cannot be written.

    Goes once through the frames for the sections. The same bytes for the same result.
    """
    return write_whole(Path(out_dir) / "reduction.html", render(page_of(result, dataset, workers, progress)))


def page_of(result: Reduction, dataset: DataSet, workers: int = 1, progress: Progress | None = None) -> Page:
    """The page's contents."""
    nominal, numbers = dataset.nominal, result.statistics
    subtitle = (f"{nominal.n_frames} frames of {nominal.shape[1]} x {nominal.shape[0]} pixels, "
                f"{nominal.protocol.replace('_', ' ')}, {nominal.voltage_kv:g} kV")  # fmt: skip
    parts = (
        _overview(result),
        _peaks(result, nominal.shape),
        _lattice(result),
        _sections(result, dataset, workers, progress),
        _rocking(result),
        _frames(result, nominal.centre_px),
        _instrument(result, nominal.shape),
        _quality(result),
        _symmetry(numbers),
        _frame_table(result.frames),
    )
    return Page("Data reduction", subtitle, tuple(alarms(numbers, result.frames)), parts)


def _picture(figure: Figure, name: str, caption: str) -> Picture:
    return Picture(inline_svg(svg(figure), name, caption), caption)


def _number(value: float, pattern: str = ".4g") -> Cell:
    number = float(value)
    return Cell(format(number, pattern), number) if np.isfinite(number) else Cell("–")


def _overview(result: Reduction) -> Section:
    rows = tuple((Cell(name), Cell(text)) for name, text in summary(result.statistics, result.frames))
    return Section("summary", "Summary", tables=(Table(("quantity", "value"), rows),))


def _peaks(result: Reduction, shape: tuple[int, int]) -> Section:
    spec, peaks = result.spec, result.peaks
    corner = float(np.hypot(*(0.6 * np.array(shape)))) * result.geometry.a_per_px
    reach, tail = spec.positions.reach_px[-1], spec.integration.tail
    first = explained(
        result.geometry, peaks, corner, reach, 3 * tail
    )  # strong ones are seen far from Bragg's condition
    groups = [("explained", first)]
    if result.second is not None:
        other = explained(result.second.geometry(result.geometry), peaks, corner, reach, tail) & ~first
        groups.append(("by the second lattice", other))
    groups.append(("not explained", ~np.logical_or.reduce([mask for _, mask in groups])))
    search = figures.axis_figure(result.lattice.axis_search, float(result.statistics["axis_azimuth_deg"]))
    return Section(
        "peaks",
        "Peaks and tilt axis",
        pictures=(
            _picture(figures.peak_map(peaks, groups, result.geometry, shape), "peak-map",
                     "Peaks of all frames about their pattern centres, and the projection of the tilt axis."),
            _picture(search, "axis-search", "Search for the azimuth of the tilt axis; the line is the refined one."),
        ),
    )  # fmt: skip


def _lattice(result: Reduction) -> Section:
    geometry, peaks = result.geometry, result.peaks
    q = to_reciprocal(geometry, peaks.frame, peaks.pixels)
    near = np.argsort(np.linalg.norm(q, axis=1), kind="stable")[:NEAREST]
    x = to_sample(geometry, peaks.frame[near], q[near])
    longest = min(0.5, 3.2 * float(np.linalg.norm(geometry.ub, axis=0).max()))
    places, count = clustered(x, longest)
    drawing = figures.differences_figure(places, count, geometry.ub)
    tried = result.statistics["bravais_lattices"]
    rows = tuple(
        (Cell(t["symbol"]), _number(t["strain_pct"], ".3f"), _number(t["scatter_px"], ".4f"),
         *(_number(c, ".4f" if i < 3 else ".3f") for i, c in enumerate(t["cell"])))
        for t in tried
    )  # fmt: skip
    head = ("Bravais lattice", "strain (%)", "scatter (px)", "a", "b", "c", "alpha", "beta", "gamma")
    tables = (Table(head, rows, "Lattices tried, and the scatter of the peaks about each"),) if rows else ()
    caption = (
        "Clusters of difference vectors (area by number) within 0.3 of three planes, and the lattice's nodes."
    )
    return Section("lattice", "Lattice", tables=tables, pictures=(_picture(drawing, "differences", caption),))


def _sections(result: Reduction, dataset: DataSet, workers: int, progress: Progress | None) -> Section:
    used = np.nonzero(~result.frames["blank"].to_numpy(bool))[0].tolist()
    found = sections(dataset, result.geometry, result.detector.pixels.bad, used, result.spec.d_star_max, workers,
                     progress)  # fmt: skip
    caption = (
        "Pixels of all frames within 0.12 of the index 0, over the median at the same distance; logarithmic."
        " Blank: not measured."
    )
    return Section(
        "sections", "Sections", pictures=(_picture(figures.sections_figure(found), "sections", caption),)
    )


def _rocking(result: Reduction) -> Section:
    spots, geometry, model = result.spots, result.merged_as.geometry, result.merged_as.model
    hkl, frame = spots[["h", "k", "l"]].to_numpy(float), spots["frame"].to_numpy(np.int64)
    g_lab = np.einsum("mij,mj->mi", geometry.rotations()[frame], hkl @ geometry.ub.T)
    axis = np.column_stack([np.cos(geometry.omega), np.sin(geometry.omega), np.zeros(len(geometry))])[frame]
    distance = np.linalg.norm(np.cross(g_lab, axis), axis=1)
    spots = spots.assign(s=excitation_errors(g_lab, geometry.wavelength))
    drawing = figures.rocking_figure(spots, result.fitted, np.exp(model.log_scale), model.shape, distance)
    caption = "Strong reflections: electrons on every frame, on one scale, against S, and the fitted curve."
    return Section("rocking", "Rocking curves", pictures=(_picture(drawing, "rocking", caption),))


def _frames(result: Reduction, centre: tuple[float, float]) -> Section:
    caption = "Orientation, pattern centre, scale and peaks of every frame; grey: frames left out."
    drawing = figures.frames_figure(result.frames, centre)
    return Section("frames", "Frames", pictures=(_picture(drawing, "frames", caption),))


def _frame_table(frames: pd.DataFrame) -> Section:
    columns = [str(name) for name in frames if name != "blank"]
    whole = ("frame", "n_peaks", "n_indexed")
    rows = tuple(
        tuple(_number(row[c], ".0f" if c in whole else ".4f") for c in columns)
        for row in frames.to_dict("records")
    )
    table = Table(tuple(c.replace("_", " ") for c in columns), rows)
    return Section("frame-table", "Table of frames", tables=(table,), folded=True)


def _instrument(result: Reduction, shape: tuple[int, int]) -> Section:
    numbers = result.statistics
    lenses = figures.distortion_figure(result.geometry, shape)
    noise = figures.noise_figure(result.detector.noise, numbers["gain"], numbers["noise_offset"])
    note = f"Gain {numbers['gain']:.3f}, offset {numbers['noise_offset']:.3g} counts² per pixel; pixels left out: "
    note += ", ".join(f"{n} {name}" for name, n in numbers["bad_pixels"].items()) + "."
    return Section(
        "instrument",
        "Distortion and noise",
        notes=(note,),
        pictures=(
            _picture(lenses, "distortion", "Where the lenses move spots, enlarged."),
            _picture(noise, "noise", "Noise calibration: counts of blocks without spots, in ten bins."),
        ),
    )


def _quality(result: Reduction) -> Section:
    spec, ub = result.spec, result.geometry.ub
    rotations = laue_rotations(spec.laue_class, spec.spacegroup)
    table = shells(result.merged, ub, rotations, spec.spacegroup, spec.d_star_max)
    return Section(
        "quality",
        "Quality by resolution",
        tables=(_shell_table(table),),
        pictures=(
            _picture(figures.shells_figure(table), "shells",
                     "CC1/2, completeness, R_int and I/sigma of the merged list in shells of equal volume."),
        ),
    )  # fmt: skip


def _shell_table(table: pd.DataFrame) -> Table:
    head = (
        "d max (Å)",
        "d min (Å)",
        "unique",
        "possible",
        "completeness",
        "redundancy",
        "I/sigma",
        "CC1/2",
        "R_int",
    )
    patterns = (".2f", ".2f", ".0f", ".0f", ".3f", ".2f", ".1f", ".4f", ".3f")
    rows = tuple(
        tuple(_number(v, p) for v, p in zip(row, patterns, strict=True))
        for row in table.itertuples(index=False)
    )
    return Table(head, rows)


def _symmetry(numbers: dict[str, Any]) -> Section:
    tests = tuple(
        (Cell(t["laue"]), _number(100 * t["r_int"], ".2f"), _number(t["n"], ".0f"),
         Cell("accepted" if t["accepted"] else "refused"))
        for t in numbers["laue_tests"]
    )  # fmt: skip
    groups = tuple(
        (Cell(", ".join(g["groups"])), _number(g["n_absent"], ".0f"), _number(100 * g["mean_ratio"], ".1f"),
         _number(g["i_over_sigma"], ".1f"), _number(g["log_odds"], ".1f"))
        for g in numbers["space_groups"][:12]
    )  # fmt: skip
    note = f"Merged in {numbers['laue']}, {numbers['spacegroup'] or 'no absences'}. Unrelated reflections disagree by "
    note += f"{100 * numbers['r_int_unrelated']:.0f} %. Absent reflections may be excited dynamically; groups in one "
    note += "row extinguish the same measured reflections and cannot be told apart here."
    return Section(
        "symmetry",
        "Laue class and space groups",
        notes=(note,),
        tables=(
            Table(("Laue class", "R_int (%)", "groups", ""), tests),
            Table(("space groups", "absences", "of the mean (%)", "I/sigma", "ln odds"), groups),
        ),
    )
