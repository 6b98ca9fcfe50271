"""The figures of a reduction."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nanoed.pipeline.page.drawing import INK, MUTED, styled
from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.page.sections import PLANES, Section, levelled, plane_axes
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.rocking import RockingShape, rocking_profile

Array = NDArray[np.float64]
BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
WIDE = 6.4  # inches
ARROW = 0.4  # length of an axis' direction over the reach of a section
ASIDE = 0.5  # distance of a reflection from the tilt axis over |g| from which frames cross its curve quickly


def peak_map(
    peaks: Peaks,
    groups: list[tuple[str, NDArray[np.bool_]]],
    geometry: Geometry,
    shape: tuple[int, int],
) -> Figure:
    """All peaks of all frames about the pattern centre of their frame, y up; groups: names and masks (n,) of them."""
    offset = (peaks.pixels - geometry.centres[peaks.frame]) * [1, -1] * geometry.a_per_px
    with styled():
        figure = Figure(figsize=(3.4, 3.4 * shape[0] / shape[1]), layout="constrained")
        axes = figure.add_subplot()
        colours = {"explained": BLUE, "by the second lattice": GREEN, "not explained": VERMILION}
        for name, mask in groups:
            _dots(axes, offset[mask], colours[name], f"{name}: {int(mask.sum())}")
        azimuth, reach = np.median(geometry.omega), 0.55 * shape[1] * geometry.a_per_px
        x, y = reach * np.cos(azimuth), reach * np.sin(azimuth)
        axes.plot([-x, x], [-y, y], color=MUTED, linewidth=0.7, linestyle=(0, (4, 3)), label="tilt axis")
        half = 0.5 * np.array(shape[::-1]) * geometry.a_per_px
        axes.set(xlim=(-half[0], half[0]), ylim=(-half[1], half[1]), aspect="equal",
                 xlabel="x (1/Å)", ylabel="y (1/Å)")  # fmt: skip
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def _dots(axes: Axes, xy: Array, colour: str, label: str) -> None:
    """Many dots as one path of strokes without length and with round ends: a tenth of the size of as many markers."""
    ends = np.full((len(xy), 3, 2), np.nan)
    ends[:, :2] = xy[:, None]
    line = axes.plot(*ends.reshape(-1, 2).T, color=colour, linewidth=1.3, solid_capstyle="round")[0]
    line.get_path().should_simplify = False
    axes.plot([], [], "o", color=colour, markersize=4, label=label)


def axis_figure(table: Array, azimuth_deg: float) -> Figure:
    """Direction variance against the azimuth of the tilt axis; table (m, 2) rad and score."""
    degrees = (np.degrees(table[:, 0]) + 180) % 360 - 180
    chosen = (azimuth_deg + 180) % 360 - 180
    with styled():
        figure = Figure(figsize=(3.4, 2.2), layout="constrained")
        axes = figure.add_subplot()
        order = np.argsort(degrees, kind="stable")
        axes.plot(degrees[order], table[order, 1], color=BLUE, marker="o", markersize=2, linewidth=0.6)
        axes.axvline(chosen, color=VERMILION, linewidth=0.8)
        axes.text(chosen, 1.02, f"{chosen:.2f}°", color=VERMILION, transform=axes.get_xaxis_transform(),
                  ha="center", fontsize=7)  # fmt: skip
        axes.set(xlabel="azimuth of the tilt axis (°)", ylabel="variance of directions")
    return figure


def differences_figure(places: Array, numbers: Array, ub: Array) -> Figure:
    """Clusters of difference vectors in the planes of the lattice, with its nodes."""
    hkl = places @ np.linalg.inv(ub).T
    reach = 1.05 * float(np.linalg.norm(places, axis=1).max(initial=0.1))
    with styled():
        figure = Figure(figsize=(WIDE, 2.4), layout="constrained")
        for axes, (name, i, j, k) in zip(figure.subplots(1, 3), PLANES, strict=True):
            basis = plane_axes(ub, i, j)
            near = np.abs(hkl[:, k]) < 0.3
            xy = hkl[near][:, [i, j]] @ basis
            n = np.ceil(reach / np.linalg.norm(ub[:, [i, j]], axis=0)).astype(int) + 2
            nodes = np.stack(np.meshgrid(np.arange(-n[0], n[0] + 1), np.arange(-n[1], n[1] + 1)), -1).reshape(
                -1, 2
            )
            axes.scatter(*(nodes @ basis).T, s=9, marker="+", color=VERMILION, linewidths=0.5)
            size = 40 * np.sqrt(numbers[near] / max(float(numbers.max(initial=1.0)), 1.0))
            axes.scatter(*xy.T, s=size, color=BLUE, alpha=0.6, linewidths=0)
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=name)
            axes.set_xlabel("1/Å")
    return figure


def sections_figure(sections: list[Section]) -> Figure:
    """The planes, dark where there is more than at the same distance elsewhere, with the directions of their axes."""
    with styled():
        figure = Figure(figsize=(WIDE, 2.4), layout="constrained")
        for axes, section in zip(figure.subplots(1, 3), sections, strict=True):
            image = np.log(np.clip(levelled(section), 0.7, 60.0))
            r = section.reach
            axes.imshow(-image, cmap="gray", extent=(-r, r, -r, r), interpolation="none")
            for axis, name in zip(section.axes, section.name.replace("0", ""), strict=True):
                along = np.asarray(axis) * (ARROW * r / float(np.linalg.norm(axis)))
                axes.annotate(
                    "", along, (0, 0), arrowprops={"arrowstyle": "->", "color": VERMILION, "lw": 1.0}
                )
                axes.text(*(1.2 * along), f"{'abc'['hkl'.index(name)]}*", color=VERMILION, fontsize=8,
                          ha="center", va="center")  # fmt: skip
            axes.set(title=section.name, xlabel="1/Å", xlim=(-r, r), ylim=(-r, r))
    return figure


def rocking_figure(spots: pd.DataFrame, fitted: pd.DataFrame, scale: Array, shape: RockingShape,
                   axis_distance: Array) -> Figure:  # fmt: skip
    """Rocking curves of twelve strong reflections that many frames recorded, those near the tilt axis, whose S hardly
    changes, only where there are no others: measured on the scale of the fit, and fit.

    axis_distance : (n,) of every spot, 1/Å.
    """
    table = spots.assign(distance=axis_distance).merge(
        fitted[["h", "k", "l", "I"]], on=["h", "k", "l"], suffixes=("", "_full")
    )
    table["on_scale"] = table["I"] / scale[table["frame"]]
    table["on_scale_sigma"] = table["sigma"] / scale[table["frame"]]
    score = table.groupby(["h", "k", "l"])["on_scale"].agg(["sum", "count"])
    enough = score[score["count"] >= min(6, score["count"].max())]
    best = enough.sort_values("sum", ascending=False, kind="stable").index
    aside = (table["distance"] > ASIDE * table["g"]).groupby([table["h"], table["k"], table["l"]]).all()
    chosen = sorted(best, key=lambda hkl: not aside[hkl])[:12]
    with styled():
        figure = Figure(figsize=(WIDE, 4.2), layout="constrained")
        panels = figure.subplots(3, 4).ravel()
        for axes in panels[len(chosen) :]:
            axes.set_axis_off()
        for axes, hkl in zip(panels, chosen, strict=False):
            own = table[(table["h"] == hkl[0]) & (table["k"] == hkl[1]) & (table["l"] == hkl[2])].sort_values(
                "s", kind="stable"
            )
            _rocking_panel(axes, own, shape)
            axes.set_title(" ".join(str(x) for x in hkl))
        figure.supxlabel("excitation error S (1/Å)", fontsize=8)
        figure.supylabel("electrons", fontsize=8)
    return figure


def _rocking_panel(axes: Axes, own: pd.DataFrame, shape: RockingShape) -> None:
    s = own["s"].to_numpy(float)
    span = 1.15 * max(float(np.abs(s).max()), 1e-3)
    fine = np.linspace(-span, span, 121)
    g, distance = float(own["g"].mean()), float(own["distance"].mean())
    curve, _ = rocking_profile(fine, np.full(121, g), np.full(121, distance), shape)
    axes.plot(fine, float(own["I_full"].iloc[0]) * curve, color=VERMILION, linewidth=0.8)
    axes.errorbar(
        s, own["on_scale"], own["on_scale_sigma"], fmt="o", color=BLUE, markersize=2, elinewidth=0.5
    )
    axes.tick_params(labelsize=6)
    axes.locator_params(axis="x", nbins=3)
    axes.locator_params(axis="y", nbins=3)


def frames_figure(frames: pd.DataFrame, nominal_centre: tuple[float, float]) -> Figure:
    """Orientation, centre, scale and numbers of peaks of every frame; blank frames as grey lines."""
    n, blank = frames["frame"].to_numpy(), frames["blank"].to_numpy(bool)
    good = ~blank
    alpha = frames["alpha_deg"] - frames["alpha_nominal_deg"]
    omega = frames["omega_deg"] - frames["omega_deg"].median()
    with styled():
        figure = Figure(figsize=(WIDE, 5.6), layout="constrained")
        panels = figure.subplots(4, 1, sharex=True)
        for series, colour, label in ((alpha, BLUE, "alpha - stage angle"), (frames["beta_deg"], VERMILION, "beta"),
                                      (omega, GREEN, "azimuth - median")):  # fmt: skip
            panels[0].plot(
                n[good], series[good], color=colour, marker=".", markersize=3, linewidth=0.7, label=label
            )
        panels[0].fill_between(n[good], (alpha - frames["tilt_su_deg"])[good], (alpha + frames["tilt_su_deg"])[good],
                               color=BLUE, alpha=0.2, linewidth=0)  # fmt: skip
        panels[0].set_ylabel("degrees")
        for axis, colour, start in (("x", BLUE, nominal_centre[0]), ("y", VERMILION, nominal_centre[1])):
            panels[1].plot(n[good], frames[f"centre_{axis}_px"][good] - start, color=colour, marker=".", markersize=3,
                           linewidth=0.7, label=f"centre {axis} - nominal")  # fmt: skip
        panels[1].set_ylabel("pixels")
        panels[2].plot(n[good], frames["scale"][good], color=BLUE, marker=".", markersize=3, linewidth=0.7,
                       label="scale")  # fmt: skip
        panels[2].set_ylabel("scale")
        panels[3].plot(n, frames["n_peaks"], color=MUTED, linewidth=0.8, label="peaks")
        panels[3].plot(n, frames["n_indexed"], color=GREEN, linewidth=0.8, label="explained by the lattice")
        panels[3].set(ylabel="peaks", xlabel="frame", ylim=(0, None))
        for panel in panels:
            for i in n[blank]:
                panel.axvline(i, color=MUTED, alpha=0.25, linewidth=1.5)
            panel.legend(loc="upper right", ncols=3)
            panel.margins(y=0.25)
    return figure


def distortion_figure(geometry: Geometry, shape: tuple[int, int]) -> Figure:
    """Where the lenses move spots, enlarged; shape (ny, nx) pixels."""
    half = 0.5 * np.array(shape[::-1])
    x, y = np.meshgrid(np.linspace(-half[0], half[0], 15), np.linspace(-half[1], half[1], 15))
    w = x + 1j * y
    moved = geometry.distortion(w.ravel()).reshape(w.shape) - w
    largest = float(np.abs(moved).max())
    times = 0.12 * half[0] / max(largest, 1e-9)
    with styled():
        figure = Figure(figsize=(3.0, 3.0 * shape[0] / shape[1]), layout="constrained")
        axes = figure.add_subplot()
        if largest > 1e-6:
            axes.quiver(x, y, times * moved.real, times * moved.imag, angles="xy", scale_units="xy", scale=1,
                        color=BLUE, width=0.004)  # fmt: skip
        limit = 1.15 * half
        axes.set(xlim=(-limit[0], limit[0]), ylim=(-limit[1], limit[1]), aspect="equal", xlabel="x (pixels)",
                 ylabel="y (pixels)", title=f"at most {largest:.2f} pixels")  # fmt: skip
    return figure


def shells_figure(table: pd.DataFrame) -> Figure:
    """CC1/2 and completeness, I/sigma and R_int against 1/d."""
    at = 1 / table["d_min"]
    with styled():
        figure = Figure(figsize=(WIDE, 2.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(at, table["cc_half"], color=BLUE, marker="o", label="CC1/2")
        left.plot(at, table["completeness"], color=GREEN, marker="s", label="completeness")
        left.plot(at, table["r_int"], color=ORANGE, marker="D", label="R_int")
        left.set(ylim=(0, 1.05), xlabel="1/d (1/Å)")
        figure.legend(loc="outside upper left", ncols=3)
        right.plot(at, table["i_over_sigma"], color=VERMILION, marker="^")
        right.set(ylim=(0, None), xlabel="1/d (1/Å)", ylabel="mean I/sigma")
    return figure


def noise_figure(noise: Array, gain: float, offset: float) -> Figure:
    """Variance of the counts against their mean, and the line of the gain that was estimated."""
    with styled():
        figure = Figure(figsize=(3.4, 2.4), layout="constrained")
        axes = figure.add_subplot()
        if len(noise):
            ends = np.array([noise[:, 0].min() * 0.8, noise[:, 0].max() * 1.2])
            label = f"variance = {gain:.3f} x mean" + (f" + {offset:.3g}" if offset else "")
            fine = np.geomspace(ends[0], ends[1], 50)
            axes.plot(fine, gain * fine + offset, color=VERMILION, label=label)
            axes.loglog(noise[:, 0], noise[:, 1], "o", color=BLUE, label="pixels without spots")
            axes.legend(loc="upper left")
        axes.set(xlabel="mean counts of a pixel", ylabel="variance")
        axes.tick_params(colors=INK)
    return figure
