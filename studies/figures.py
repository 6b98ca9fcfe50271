"""The figures of a report, each drawn from the table that lies beside it as CSV.

Figures are deterministic: no dates, fixed ids, text as outlines. Colours are those of Okabe & Ito (2008),
told apart without colour vision, and every series has a marker of its own for prints in grey.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from nanoed.pipeline.page.drawing import MUTED, styled

SERIES: Mapping[str, tuple[str, str, str]] = {  # method -> label, colour, marker
    "kinematical": ("kinematical", "#d55e00", "s"),
    "kinematical-unit": ("kinematical, unit weights", "#cc79a7", "v"),
    "kinematical-nonaveraged": ("kinematical, non-averaged", "#e69f00", "D"),
    "kinematical-frames": ("kinematical, frame-based", "#009e73", "^"),
    "dynamical": ("dynamical", "#0072b2", "o"),
}


def frame_figure(
    image: NDArray[np.uint8], frame: Mapping[Any, Any], spots: pd.DataFrame, ring: float
) -> Figure:
    """One frame in reciprocal units, dark where many electrons arrived, with the indexed spots circled.

    image : (ny, nx) grey levels on a logarithmic scale, 0 = fewest electrons.  frame : centre_x_px,
    centre_y_px, a_per_px (1/Å), alpha_deg, white (counts drawn at 255).  spots : x_px, y_px.
    ring : resolution limit |g|, 1/Å.
    """
    ny, nx = image.shape
    cx, cy, a = frame["centre_x_px"], frame["centre_y_px"], frame["a_per_px"]
    with styled():
        figure = Figure(figsize=(2.7, 2.7 * ny / nx))
        axes = figure.add_axes((0.16, 0.15, 0.8, 0.8))
        axes.imshow(
            255 - image,
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="none",
            extent=(-cx * a, (nx - cx) * a, -(ny - cy) * a, cy * a),
        )
        x, y = (spots["x_px"] - cx) * a, (cy - spots["y_px"]) * a
        circles = axes.scatter(x, y, s=9, facecolors="none", edgecolors="#0072b2", linewidths=0.3, alpha=0.8)
        circles.set_gid("spots")
        axes.add_patch(
            Circle((0, 0), ring, fill=False, edgecolor="#d55e00", linewidth=0.7, linestyle=(0, (4, 3)))
        )
        axes.set(xlabel=r"$g_x$ (Å$^{-1}$)", ylabel=r"$g_y$ (Å$^{-1}$)")
        axes.set_xlim(-cx * a, (nx - cx) * a)
        axes.set_ylim(-(ny - cy) * a, cy * a)
        tilt = f"{frame['alpha_deg']:.1f}°".replace("-", "\N{MINUS SIGN}")
        axes.set_title(f"frame {int(frame['frame'])}, nominal tilt {tilt}")
        axes.spines[["top", "right"]].set_visible(True)
    return figure


def rocking_figure(points: pd.DataFrame, fit: pd.DataFrame) -> Figure:
    """Intensity of reflections in successive frames against excitation error, with the fitted profile.

    points : h, k, l, s_g (1/Å), I, sigma_I.  fit : h, k, l, s_g, I on a fine grid.
    """
    with styled():
        groups = list(points.groupby(["h", "k", "l"], sort=False))
        figure = Figure(figsize=(2.4 * len(groups) + 0.4, 2.4), layout="constrained")
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (hkl, part) in zip(panels, groups, strict=True):
            curve = fit[(fit[["h", "k", "l"]] == list(hkl)).all(axis=1)]
            axes.plot(1e3 * curve["s_g"], curve["I"], color=MUTED, label="fitted profile")
            axes.errorbar(
                1e3 * part["s_g"],
                part["I"],
                part["sigma_I"],
                fmt="o",
                color="#0072b2",
                elinewidth=0.7,
                label="observed, per frame",
            )
            axes.axhline(0, color=MUTED, linewidth=0.4)
            axes.set_title(" ".join(f"{i:.0f}" for i in np.asarray(hkl)).replace("-", "\N{MINUS SIGN}"))
            axes.set_xlabel(r"$S_g$ (10$^{-3}$ Å$^{-1}$)")
        panels[0].set_ylabel("intensity (electrons)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def fobs_fcalc_figure(reflections: pd.DataFrame) -> Figure:
    """Observed against calculated structure-factor amplitudes, one panel per method.

    reflections : method, f_obs, f_calc (same scale), observed (I > 3 sigma(I)).
    Amplitudes are drawn relative to the largest of their method; negative I_obs lie below the axes.
    """
    with styled():
        methods = [m for m in SERIES if (reflections["method"] == m).any()]
        figure = Figure(figsize=(3.5 * len(methods), 3.5), layout="constrained")
        for axes, method in zip(figure.subplots(1, len(methods), squeeze=False)[0], methods, strict=True):
            part = reflections[reflections["method"] == method]
            label, colour, _ = SERIES[method]
            top = max(part["f_obs"].max(), part["f_calc"].max(), 1e-30)
            size = 3 if len(part) > 1000 else 9
            for seen, face in ((False, "none"), (True, colour)):
                some = part[part["observed"].astype(bool) == seen]
                axes.scatter(
                    some["f_calc"] / top,
                    some["f_obs"] / top,
                    s=size,
                    facecolors=face,
                    edgecolors=colour,
                    linewidths=0.3 if seen else 0.4,
                    alpha=0.55,
                    label=("observed" if seen else "weak") + f", {len(some)}",
                )
            low = 10 ** np.floor(np.log10(max(np.percentile(part["f_calc"] / top, 1), 1e-4)))
            axes.plot([low, 1.5], [low, 1.5], color=MUTED, linewidth=0.7, zorder=0)
            axes.set(
                xscale="log", yscale="log", xlim=(low, 1.5), ylim=(low, 1.5), aspect="equal", title=label
            )
            axes.set_xlabel(r"$|F_\mathrm{calc}|$ / max")
            axes.set_ylabel(r"$|F_\mathrm{obs}|$ / max")
            axes.legend(loc="upper left", markerscale=2 if size < 5 else 1)
    return figure


def distance_figure(distances: pd.DataFrame, published: Mapping[str, float]) -> Figure:
    """Distance of every refined atom from its true place, with its standard uncertainty.

    distances : method, label, distance_A, su_A (NaN where not known).  published : method -> average
    distance of the published refinement (Å), drawn as a line.
    """
    with styled():
        labels = list(dict.fromkeys(distances["label"]))
        methods = [m for m in SERIES if (distances["method"] == m).any()]
        figure = Figure(figsize=(7.0, 0.9 + 0.34 * len(labels)), layout="constrained")
        axes = figure.add_subplot()
        for offset, method in zip(np.linspace(-0.15, 0.15, max(len(methods), 2)), methods, strict=False):
            part = distances[distances["method"] == method]
            text, colour, marker = SERIES[method]
            y = part["label"].map(labels.index) + offset
            bars: dict[str, Any] = {"xerr": part["su_A"].fillna(0.0), "elinewidth": 0.8, "markersize": 4.5}
            axes.errorbar(part["distance_A"], y, fmt=marker, color=colour, label=text, **bars)
            if np.isfinite(published.get(method, np.nan)):
                line: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 0}
                axes.axvline(published[method], color=colour, label=f"{text}, published average", **line)
        axes.set(xlabel="distance from the true site (Å)", ylim=(len(labels) - 0.5, -0.5))
        axes.set_xlim(left=0)
        axes.set_yticks(range(len(labels)))
        axes.set_yticklabels([label[:24] for label in labels], parse_math=False)
        axes.grid(axis="x", color=MUTED, alpha=0.25, linewidth=0.5)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def orientation_figure(frames: pd.DataFrame) -> Figure:
    """Out-of-plane orientation error per frame as reduced and as refined, and the tilts that were refined.

    frames : frame, alpha_deg, error_reduced_deg, error_refined_deg, tilt_x_deg, tilt_y_deg (NaN where not known).
    """
    with styled():
        figure = Figure(figsize=(7.0, 3.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        _series(upper, frames, "error_reduced_deg", "after reduction", MUTED, "s")
        _series(upper, frames, "error_refined_deg", "after dynamical refinement", "#0072b2", "o")
        upper.set_ylabel("error (°)")
        _from_zero(upper, frames[["error_reduced_deg", "error_refined_deg"]])
        _series(lower, frames, "tilt_x_deg", "about x", "#0072b2", "o")
        _series(lower, frames, "tilt_y_deg", "about y", "#d55e00", "s")
        lower.axhline(0, color=MUTED, linewidth=0.4)
        lower.set(xlabel=_against(frames)[1], ylabel="refined tilt (°)")
    return figure


def scale_figure(frames: pd.DataFrame) -> Figure:
    """Scale of every frame relative to their mean, and mean thickness along the beam.

    frames : frame, alpha_deg, scale, thickness_A, thickness_true_A (NaN where not known).
    """
    with styled():
        figure = Figure(figsize=(7.0, 3.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        relative = frames.assign(scale=frames["scale"] / frames["scale"].mean())
        _series(upper, relative, "scale", "", "#0072b2", "o")
        upper.set(ylabel="scale / mean scale")
        _from_zero(upper, relative[["scale"]])
        _series(lower, frames, "thickness_A", "refined", "#0072b2", "o")
        _series(lower, frames, "thickness_true_A", "true", MUTED, "s")
        lower.set(xlabel=_against(frames)[1], ylabel="mean thickness (Å)")
        _from_zero(lower, frames[["thickness_A", "thickness_true_A"]])
    return figure


def _against(frames: pd.DataFrame) -> tuple[str, str]:
    """Column and label of the horizontal axis: the nominal tilt, or the frame where the stage stood still."""
    if len(frames) > 1 and np.ptp(frames["alpha_deg"]) == 0:
        return "frame", "frame"
    return "alpha_deg", "nominal tilt α (°)"


def _series(axes: Axes, table: pd.DataFrame, column: str, label: str, colour: str, marker: str) -> None:
    """A thin line with markers against the nominal tilt or frame, and a legend once it has a label."""
    if table[column].notna().any():
        axes.plot(
            table[_against(table)[0]],
            table[column],
            marker=marker,
            color=colour,
            linewidth=0.7,
            label=label or None,
        )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, ncols=2)


def _from_zero(axes: Axes, values: pd.DataFrame) -> None:
    """Let the axis begin at zero and end above the largest value."""
    finite = values.to_numpy(float)[np.isfinite(values.to_numpy(float))]
    if finite.size and finite.max() > 0:
        axes.set_ylim(0, 1.1 * finite.max())
