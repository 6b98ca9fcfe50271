"""A refinement on disk: refined.cif, refinement.json, its tables, its difference map and its scan over thickness."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from nanoed.pipeline.refine.cif import CIF_HEADER, refined_document
from nanoed.pipeline.refine.difference import DifferenceMap, difference_map
from nanoed.pipeline.refine.result import Refinement
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.files import whole, write_whole


def write_refinement(refinement: Refinement, out_dir: str | Path) -> None:
    """Write a refinement into a folder, each file whole or not at all.

    refined.cif, refinement.json, difference.csv (peaks of the map) and difference.ccp4; frame-based, frames.csv; after
    a scan over thickness, thickness_scan.csv and .png.
    """
    out = Path(out_dir)
    residual = difference_map(refinement.reflections, refinement.crystal, refinement.settings["factors"])
    write_whole(out / "refined.cif", CIF_HEADER + refined_document(refinement, residual).as_string())
    write_whole(out / "difference.csv", residual.peaks.to_csv(index=False, float_format="%.5f"))
    _write_map(residual, refinement.crystal, out / "difference.ccp4")
    if not refinement.scan.empty:
        write_whole(out / "thickness_scan.csv", refinement.scan.to_csv(index=False, float_format="%.6g"))
        _draw_scan(refinement, out / "thickness_scan.png")
    write_whole(out / "refinement.json", json.dumps(_record(refinement), indent=1, allow_nan=False) + "\n")
    if not refinement.frames.empty:
        write_whole(out / "frames.csv", refinement.frames.to_csv(index=False, float_format="%.6g"))


def _write_map(residual: DifferenceMap, crystal: Crystal, path: Path) -> None:
    """The map over the whole cell in the CCP4 format."""
    grid = gemmi.FloatGrid(
        residual.density.astype(np.float32), gemmi.UnitCell(*crystal.cell), gemmi.SpaceGroup(1)
    )
    ccp4 = gemmi.Ccp4Map()
    ccp4.grid = grid
    ccp4.update_ccp4_header()
    with whole(path) as part:
        ccp4.write_ccp4_map(str(part))


def _draw_scan(refinement: Refinement, path: Path) -> None:
    """wR against the mean thickness of the scan, and where the refinement ended."""
    from matplotlib.figure import Figure

    scan, end = refinement.scan, refinement.statistics["thickness_A"]
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(scan["thickness_A"], scan["wr_all_pct"], "o-", markersize=4, label="start model")
    axes.axvline(end, color="C1", label=f"refined: {end:.1f} Å")
    axes.set(xscale="log", xlabel="mean thickness along the beam (Å)", ylabel="wR (%)")
    ticks = [
        t
        for t in (10, 20, 50, 100, 200, 500, 1000, 2000)
        if scan["thickness_A"].min() <= t <= scan["thickness_A"].max()
    ]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.legend()
    with whole(path) as part:
        figure.savefig(part, dpi=150, format="png", metadata={"Software": None})


def _record(refinement: Refinement) -> dict[str, Any]:
    """What refinement.json holds."""
    return {
        "schema_version": 1,
        "method": refinement.method,
        "message": refinement.message,
        "settings": refinement.settings,
        "statistics": {name: _plain(value) for name, value in refinement.statistics.items()},
        "parameters": _rows(refinement.parameters),
        "history": _rows(refinement.history),
    }


def _rows(table: Any) -> list[dict[str, Any]]:
    return [{k: _plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    """A JSON value; numbers that are not finite become null."""
    if isinstance(value, (bool, str)) or value is None:
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if isinstance(value, (int, np.integer)) else float(f"{number:.10g}")
