"""The figures of the study check-serial, each drawn from the table that lies beside it as CSV."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nanoed.pipeline.page.drawing import INK, MUTED, styled, svg
from nanoed.sim.physics.files import write_whole

BLUE, ORANGE, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
LINES = ("-", "--", ":")


def frames_figure(table: pd.DataFrame, path: Path) -> None:
    """Accuracy against the number of frames: orientations, merged data, refined structure; seeds by dashes.

    table : columns of check_serial.accuracy and check_serial.refined, and seed.
    """
    with styled():
        figure = Figure(figsize=(7.2, 2.5))
        axes = figure.subplots(1, 3)
        _panel(
            axes[0],
            table,
            "orientation error (°)",
            {"error_median_deg": ("median", BLUE, "o"), "error_95_pct_deg": ("95 % below", ORANGE, "s")},
        )
        share = table.assign(**{name: 100 * table[name] for name in ("r_split", "r_int")})
        _panel(
            axes[1],
            share.assign(missing=100 * (1 - table["coverage"])),
            "%",
            {
                "r_split": ("R$_{split}$", BLUE, "o"),
                "r_int": ("R$_{int}$", ORANGE, "s"),
                "missing": ("reflections missing", VERMILION, "^"),
            },
        )
        _panel(
            axes[2],
            table,
            "distance from the truth (Å)",
            {"max_dist_A": ("max.", VERMILION, "s"), "av_dist_A": ("av.", GREEN, "o")},
        )
        axes[2].axhline(0.0351, color=MUTED, lw=0.8)
        axes[2].annotate(
            "published max.",
            (table["frames"].max(), 0.0351),
            ha="right",
            va="bottom",
            color=MUTED,
            fontsize=7,
        )
        axes[2].set_yscale("log")
        axes[0].set_ylim(0, None)
        named = [
            f"{line} seed {seed}"
            for line, seed in zip(("full:", "dashed:"), sorted(set(table["seed"])), strict=False)
        ]
        axes[1].set_title(", ".join(named))
        figure.tight_layout()
    _write(figure, path)


def convergence_figure(table: pd.DataFrame, path: Path) -> None:
    """Where dynamical refinement ends against where its orientations start; thickness at the start by colour.

    table : columns of serial_convergence.convergence_map.
    """
    with styled():
        figure = Figure(figsize=(7.2, 2.5))
        axes = figure.subplots(1, 3)
        series = _series(table)
        for one, column, label in (
            (axes[0], "max_dist_A", "max. distance from the truth (Å)"),
            (axes[1], "r_obs_pct", "R$_{obs}$ (%)"),
            (axes[2], "tilt_error_left_deg", "tilt error left, median (°)"),
        ):
            for name, own, colour, marker, line in series:
                one.plot(
                    own["orientation_error_deg"], own[column], line, color=colour, marker=marker, label=name
                )
            one.set_xlabel("tilt error at the start, rms (°)")
            one.set_ylabel(label)
        axes[0].set_yscale("log")
        figure.tight_layout(rect=(0, 0.16, 1, 1))
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncol=3)
    _write(figure, path)


def _series(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str, str, str]]:
    """Name, rows, colour, marker and line of every series of the map."""
    dynamical, kinematical = table[table["method"] == "dynamical"], table[table["method"] != "dynamical"]
    moving, held = dynamical[dynamical["tilts"]], dynamical[~dynamical["tilts"]]
    out = []
    for factor, colour, marker in zip((0.6, 1.0, 1.6), (ORANGE, BLUE, GREEN), "v^s", strict=True):
        own = moving[np.isclose(moving["thickness_factor"], factor)]
        marker = "o" if factor == 1.0 else marker
        out.append((f"tilts refined, thickness × {factor:g}", own, colour, marker, "-"))
    out.append(("tilts held", held, INK, "x", "--"))
    out.append(("kinematical, tilts refined", kinematical, VERMILION, "D", ":"))
    return out


def _panel(axes: Axes, table: pd.DataFrame, label: str, columns: dict[str, tuple[str, str, str]]) -> None:
    """Columns of the table against frames, a line per seed."""
    for column, (name, colour, marker) in columns.items():
        for line, (seed, own) in zip(LINES, table.groupby("seed"), strict=False):
            first = seed == table["seed"].min()
            axes.plot(
                own["frames"], own[column], line, color=colour, marker=marker, label=name if first else None
            )
    axes.set_xscale("log")
    sizes = sorted(table["frames"].unique())
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("frames")
    axes.set_ylabel(label)
    axes.legend()


def _write(figure: Figure, path: Path) -> None:
    write_whole(path, svg(figure))
