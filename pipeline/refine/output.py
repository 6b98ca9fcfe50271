"""A refinement on disk: refined.cif, refinement.json and its tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from nanoed.pipeline.refine.result import Refinement

CIF_HEADER = (
    "# Core CIF dictionary 3.2.0 (COMCIFS)\n# names of version 3 spelt as in CIF1: underscores for dots\n"
)
THEORY = {
    "kinematical": "kinematical",
    "kinematical-nonaveraged": "kinematical",
    "kinematical-frames": "kinematical",
    "dynamical": "dynamical",
}
REFLECTIONS = ["h", "k", "l", "I_obs", "sigma", "I_calc"]


def write_refinement(refinement: Refinement, out_dir: str | Path) -> None:
    """Write refined.cif, refinement.json and, frame-based, frames.csv into a folder; each whole or not at all."""
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "refined.cif", CIF_HEADER + refined_document(refinement).as_string())
    _write(out / "refinement.json", json.dumps(_record(refinement), indent=1, allow_nan=False) + "\n")
    if not refinement.frames.empty:
        _write(out / "frames.csv", refinement.frames.to_csv(index=False, float_format="%.6g"))


def with_su(value: float, su: float, decimals: int = 5) -> str:
    """A number with its standard uncertainty in the notation of crystallography, 0.12890(4); two digits up to 19."""
    if not (math.isfinite(su) and su > 0):
        return f"{value:.{decimals}f}"
    places = max(0, -math.floor(math.log10(su / 1.95)))
    digits = round(su * 10**places)
    return f"{value:.{places}f}({digits})" if places < 12 else f"{value:.12f}"


def refined_document(refinement: Refinement) -> gemmi.cif.Document:
    """The refined structure with s.u., the statistics and the reflections as a CIF document of one block."""
    crystal = refinement.crystal
    document = gemmi.cif.Document()
    block = document.add_new_block(f"{crystal.name}_{refinement.method}".replace(" ", "_"))
    block.set_pair("_audit_creation_method", "nanoed")
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    for name, value in zip(names, crystal.cell, strict=True):
        block.set_pair(f"_cell_{name}", f"{value:.5f}")
    block.set_pair("_cell_volume", f"{crystal.volume:.4f}")
    group = gemmi.find_spacegroup_by_name(crystal.spacegroup)
    block.set_pair("_space_group_name_H-M_alt", gemmi.cif.quote(group.xhm()))
    block.set_pair("_space_group_name_Hall", gemmi.cif.quote(group.hall))
    block.set_pair("_space_group_IT_number", str(group.number))
    ops = block.init_loop("_space_group_symop_", ["operation_xyz"])
    for op in group.operations():
        ops.add_row([gemmi.cif.quote(op.triplet())])
    _add_sites(block, refinement)
    _add_statistics(block, refinement)
    _add_reflections(block, refinement)
    return document


def _add_sites(block: gemmi.cif.Block, refinement: Refinement) -> None:
    crystal, su = refinement.crystal, refinement.su
    tags = ["label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy", "adp_type"]
    loop = block.init_loop("_atom_site_", [*tags, "U_iso_or_equiv", "site_symmetry_multiplicity"])
    for i, label in enumerate(crystal.labels):
        xyz = [with_su(x, s) for x, s in zip(crystal.xyz[i], su["xyz"][i], strict=True)]
        u_iso = with_su(crystal.u_iso[i], su["u_iso"][i])
        of_site, multiplicity = su["occupancy"][i], str(crystal.multiplicities[i])
        occupancy = with_su(crystal.occupancy[i], of_site) if of_site > 0 else f"{crystal.occupancy[i]:g}"
        kind = "Uiso" if np.isnan(crystal.u_ij[i]).any() else "Uani"
        loop.add_row([label, crystal.elements[i], *xyz, occupancy, kind, u_iso, multiplicity])
    aniso = np.flatnonzero(~np.isnan(crystal.u_ij).any(axis=1))
    if len(aniso):
        tags = ["label", *(f"U_{ij}" for ij in ("11", "22", "33", "12", "13", "23"))]
        loop = block.init_loop("_atom_site_aniso_", tags)
        for site in aniso:
            values = zip(crystal.u_ij[site], su["u_ij"][site], strict=True)
            loop.add_row([crystal.labels[site], *(with_su(u, s) for u, s in values)])


def _add_statistics(block: gemmi.cif.Block, refinement: Refinement) -> None:
    s, settings = refinement.statistics, refinement.settings
    u = settings["instability"]
    pairs = {
        "_diffrn_radiation_probe": "electron",
        "_refine_diffraction_theory": THEORY[refinement.method],
        "_refine_ls_structure_factor_coef": "Fsqd",
        "_refine_ls_matrix_type": "full",
        "_refine_ls_weighting_scheme": "sigma",
        "_refine_ls_weighting_details": f"w=1/(s^2^(I)+({2 * u:g}I)^2^)",
        "_refine_ls_number_reflns": f"{s['n_all']:d}",
        "_refine_ls_number_parameters": f"{s['n_par']:d}",
        "_refine_ls_R_factor_gt": f"{s['r_obs_pct'] / 100:.4f}",
        "_refine_ls_R_factor_all": f"{s['r_all_pct'] / 100:.4f}",
        "_refine_ls_wR_factor_ref": f"{s['wr_all_pct'] / 100:.4f}",
        "_refine_ls_goodness_of_fit_ref": f"{s['gof']:.3f}",
        "_refine_ls_shift/su_max": f"{s['max_shift_su']:.4f}",
        "_reflns_number_total": f"{s['n_all']:d}",
        "_reflns_number_gt": f"{s['n_obs']:d}",
        "_reflns_threshold_expression": "I>3sigma(I)",
    }
    for tag, value in pairs.items():
        block.set_pair(tag, gemmi.cif.quote(value))
    if "thickness_A" in s:
        shape = settings["thickness"]["model"]
        text = (
            f"Bloch waves, {settings['factors']} factors; {settings['protocol']} integration; thickness model {shape}, "
            f"mean thickness {s['thickness_A']:.1f} A; g_max {s['g_max']:.2f} 1/A, S_g(max) {s['s_g_max']:.3f} 1/A, "
            f"RS_g(max) {s['rs_g_max']:.2f}, {s['n_azimuth']} integration steps at most"
        )
        block.set_pair("_refine_special_details", gemmi.cif.quote(text))


def _add_reflections(block: gemmi.cif.Block, refinement: Refinement) -> None:
    """The loop of reflections, on the scale of the calculated intensities; frame-based ones carry their frame."""
    table = refinement.reflections
    tags = ["index_h", "index_k", "index_l", "F_squared_meas", "F_squared_sigma", "F_squared_calc"]
    per_frame = "frame" in table
    if per_frame:
        tags.append("diffrn_id")
    loop = block.init_loop("_refln_", tags)
    peak = float(table["I_calc"].max())
    scale = 1e4 / peak if peak > 0 else 1.0
    block.set_pair("_refln_F_squared_scale_nanoed", f"{scale:.6g}")
    columns: list[list[str]] = [[str(v) for v in table[name]] for name in ("h", "k", "l")]
    for name in REFLECTIONS[3:]:
        columns.append([f"{v:.3f}" for v in table[name].to_numpy() * scale])
    if per_frame:
        columns.append([str(v + 1) for v in table["frame"]])
    loop.set_all_values(columns)


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


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
