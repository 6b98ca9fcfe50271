"""A solution on disk: solution.cif, solution.inflip, solution.png, solve.json and the table of starts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.solve.data import Intensities
from nanoed.pipeline.solve.picture import draw
from nanoed.pipeline.solve.solve import Solution
from nanoed.pipeline.solve.spec import SolveSpec
from nanoed.pipeline.solve.structures import DIRECT, FLIPPING, Structure
from nanoed.sim.physics.crystal import write_cif
from nanoed.sim.physics.files import write_whole


def write_solution(solution: Solution, data: Intensities, spec: SolveSpec, out_dir: str | Path) -> None:
    """Write all files of a solution into a folder."""
    out = Path(out_dir)
    write_cif(solution.crystal, out / "solution.cif")
    write_whole(out / "solution.inflip", inflip(data, solution.crystal.spacegroup, spec))
    write_whole(out / "starts.csv", solution.starts.to_csv(index=False, float_format="%.6g"))
    record = json.dumps(document(solution, data, spec), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(out / "solve.json", record + "\n")
    draw(solution, out / "solution.png")


def summary(solution: Solution) -> dict[str, Any]:
    """The numbers that matter: space group, agreements, R, what was found; what a method does not have is left out."""
    best, starts = solution.best, solution.starts
    statistics, agreement = best.refinement.statistics, _agreement(best)
    numbers = {
        "spacegroup": solution.crystal.spacegroup,
        "formula_units": best.units,
        "n_sites": len(solution.crystal.labels),
        "method": best.method,
        "min_agreement": _plain(float(agreement.min())),
        "mean_agreement": _plain(float(agreement.mean())),
        "contrast": _plain(float(np.minimum(best.contrast, 999.0))),
        "r_obs_pct": round(statistics["r_obs_pct"], 3),
        "r_all_pct": round(statistics["r_all_pct"], 3),
        "n_all": int(statistics["n_all"]),
        "n_par": int(statistics["n_par"]),
        "start": best.number,
        "n_starts": int((starts["method"] == FLIPPING).sum()),
        "n_trials": int((starts["method"] == DIRECT).sum()),
        "n_structures": int(starts["r_all_pct"].notna().sum()),
    }
    return {name: value for name, value in numbers.items() if value is not None}


def document(solution: Solution, data: Intensities, spec: SolveSpec) -> dict[str, Any]:
    """What solve.json holds: summary, agreement of every operation, origin, sites, starts, resolved settings.

    Operations and origin are those of a density of charge flipping; in direct space they are given, not found.
    """
    symmetry, crystal = solution.best.symmetry, solution.crystal
    operations = zip(symmetry.names, symmetry.agreement, strict=True) if symmetry else ()
    sites = zip(crystal.labels, crystal.elements, crystal.xyz, crystal.occupancy, crystal.u_iso, strict=True)
    starts = solution.starts.to_dict(orient="records")
    return {
        "schema_version": 1,
        "statistics": summary(solution),
        "cell": list(data.cell),
        "operations": [{"operation": name, "agreement": round(float(x), 4)} for name, x in operations],
        "origin": [round(float(x), 4) for x in symmetry.origin] if symmetry else None,
        "sites": [
            {"label": label, "element": element, "xyz": [round(float(v), 5) for v in xyz],
             "occupancy": round(float(part), 4), "u_iso": round(float(u), 5)}
            for label, element, xyz, part, u in sites
        ],
        "starts": [{key: _plain(value) for key, value in row.items()} for row in starts],
        "settings": spec.model_dump(mode="json"),
    }  # fmt: skip


def _agreement(best: Structure) -> NDArray[np.float64]:
    """Of the operations with the density; NaN for a structure of direct space."""
    return best.symmetry.agreement if best.symmetry else np.array([np.nan])


def inflip(data: Intensities, spacegroup: str, spec: SolveSpec) -> str:
    """The input of the program Superflip for the same data, in the space group found.

    Intensities as they were merged, one line h k l I per unique reflection; the symmetry serves its averaging.
    """
    operations = gemmi.find_spacegroup_by_name(spacegroup).operations()
    lines = [
        "title nanoed",
        "perform CF",
        "outputfile solution.m81",
        "outputformat jana",
        "dimension 3",
        "cell " + " ".join(f"{x:.5f}" for x in data.cell),
        "voxel AUTO",
        "centers",
        *("  " + " ".join(f"{x / gemmi.Op.DEN:.6f}" for x in centre) for centre in operations.cen_ops),
        "endcenters",
        "symmetry",
        *(f"  {op.triplet()}" for op in operations.sym_ops),
        "endsymmetry",
        "derivesymmetry use",
        "searchsymmetry average",
        "delta AUTO",
        f"weakratio {spec.flipping.weak_fraction:.3f}",
        "biso 0.0",
        f"randomseed {spec.seed % 10**9}",
        "maxcycles 10000",
        "dataformat intensity",
        "fbegin",
    ]
    for h, k, m, i in data.reflections[["h", "k", "l", "I"]].itertuples(index=False):
        lines.append(f"{h:5d}{k:5d}{m:5d}{max(i, 0.0):14.4f}")
    return "\n".join([*lines, "endf"]) + "\n"


def _plain(value: Any) -> Any:
    """A JSON value; numbers that are not finite become null."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
