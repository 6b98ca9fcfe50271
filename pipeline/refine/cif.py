"""The core CIF of a refinement: structure, s.u., statistics, bonds, frames and reflections.

Names that version 3 of the dictionary introduced are spelt as in CIF1, with underscores for dots.
"""

from __future__ import annotations

import math
from typing import Any

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.refine.difference import DifferenceMap
from nanoed.pipeline.refine.geometry import bonds
from nanoed.pipeline.refine.parameters import ABSORPTION, MOSAICITY, TWIN
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.statistics import WEAK
from nanoed.sim.physics.crystal import PAIRS, Crystal
from nanoed.sim.physics.scattering import structure_factors

Array = NDArray[np.float64]
CIF_HEADER = (
    "# Core CIF dictionary 3.3.0 (COMCIFS)\n# names of version 3 spelt as in CIF1: underscores for dots\n"
)
THEORY = {
    "kinematical": "kinematical",
    "kinematical-unit": "kinematical",
    "kinematical-nonaveraged": "kinematical",
    "kinematical-frames": "kinematical",
    "dynamical": "dynamical",
}
MERGED = ("kinematical", "kinematical-unit", "kinematical-nonaveraged")
FRAME_WEIGHTS = {
    "errors": "",
    "equal": ", times a factor of every frame that makes its sum of wI^2^ that of the others",
    "mean_wr": ", times a factor of every frame for the mean of wR of frames to be minimised",
}
REFLECTIONS = ["h", "k", "l", "I_obs", "sigma", "I_calc"]
SHAPES = {"plate": "one thickness", "wedge": "F(t) = t", "sphere": "F(t) = t^2^", "ellipsoid": "F(t) = t^2^"}
"""Share of the area that is thinner than t, in parts of the greatest thickness."""
SOURCES = {
    "peng": "Peng et al. (1996), Acta Cryst. A52, 257",
    "lobato": "Lobato & Van Dyck (2014), Acta Cryst. A70, 636",
    "kirkland": "Kirkland (2010), Advanced Computing in Electron Microscopy",
}
VOLTS_PER_E_A = 14.39964
"""V of one electron charge at 1 Å."""


def with_su(value: float, su: float, decimals: int = 5) -> str:
    """A number with its standard uncertainty in the notation of crystallography, 0.12890(4); two digits up to 19."""
    if not (math.isfinite(su) and su > 0):
        return f"{value:.{decimals}f}"
    places = -math.floor(math.log10(su / 1.95))
    if places < -1:
        return f"{round(value, places):.0f}({round(su, places):.0f})"
    places = max(0, places)
    digits = round(su * 10**places)
    return f"{value:.{places}f}({digits})" if places < 12 else f"{value:.12f}"


def refined_document(refinement: Refinement, residual: DifferenceMap | None = None) -> gemmi.cif.Document:
    """The refined structure with s.u., the statistics and the reflections as a CIF document of one block."""
    crystal = refinement.crystal
    document = gemmi.cif.Document()
    block = document.add_new_block(f"{crystal.name}_{refinement.method}".replace(" ", "_"))
    block.set_pair("_audit_creation_method", "nanoed")
    _add_contents(block, crystal, refinement.settings["factors"])
    _add_cell(block, crystal)
    _add_experiment(block, refinement)
    _add_statistics(block, refinement)
    if residual is not None:
        for name, value in zip(("max", "min", "RMS"), _extremes(residual), strict=True):
            block.set_pair(f"_refine_diff_potential_{name}", f"{value / VOLTS_PER_E_A:.4f}")
    _add_types(block, refinement)
    _add_sites(block, refinement)
    _add_bonds(block, refinement)
    _add_twin(block, refinement)
    _add_frames(block, refinement)
    _add_reflections(block, refinement)
    return document


def _extremes(residual: DifferenceMap) -> tuple[float, float, float]:
    return float(residual.density.max()), float(residual.density.min()), residual.sigma


def _set(block: gemmi.cif.Block, pairs: dict[str, str]) -> None:
    for tag, value in pairs.items():
        block.set_pair(tag, value if value in (".", "?") else gemmi.cif.quote(value))


def _add_contents(block: gemmi.cif.Block, crystal: Crystal, factors: str) -> None:
    """Formula, formula units, weight, density and F(000)."""
    counts: dict[str, float] = {}
    for element, n in zip(crystal.elements, crystal.multiplicities * crystal.occupancy, strict=True):
        counts[element] = counts.get(element, 0.0) + float(n)
    units = _formula_units(list(counts.values()))
    weight = sum(gemmi.Element(e).weight * n for e, n in counts.items())
    f_000 = abs(structure_factors(crystal, np.zeros((1, 3), np.int64), factors)[0])
    _set(block, {
        "_chemical_formula_sum": _formula(counts, units),
        "_chemical_formula_weight": f"{weight / units:.2f}",
        "_cell_formula_units_Z": str(units),
        "_exptl_crystal_density_diffrn": f"{weight / crystal.volume / 0.602214:.3f}",
        "_exptl_crystal_F_000": f"{f_000:.3f}",
        "_exptl_crystal_description": "nanocrystal",
    })  # fmt: skip


def _formula(counts: dict[str, float], units: int) -> str:
    """Hill's order: with carbon C and H first, else by the alphabet."""
    order = sorted(counts, key=lambda e: ((e != "C", e != "H") if "C" in counts else (), e))
    numbers = {e: f"{counts[e] / units:.3f}".rstrip("0").rstrip(".") for e in order}
    return " ".join(e + ("" if n == "1" else n) for e, n in numbers.items())


def _formula_units(counts: list[float]) -> int:
    """The greatest common divisor of the numbers of atoms, where these are whole to 2 %; else 1."""
    whole = [round(n) for n in counts]
    if any(w == 0 or abs(n - w) > 0.02 * w for n, w in zip(counts, whole, strict=True)):
        return 1
    return math.gcd(*whole)


def _add_cell(block: gemmi.cif.Block, crystal: Crystal) -> None:
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    for name, value in zip(names, crystal.cell, strict=True):
        block.set_pair(f"_cell_{name}", f"{value:.5f}")
    block.set_pair("_cell_volume", f"{crystal.volume:.4f}")
    group = gemmi.find_spacegroup_by_name(crystal.spacegroup)
    block.set_pair("_space_group_crystal_system", group.crystal_system_str())
    block.set_pair("_space_group_name_H-M_alt", gemmi.cif.quote(group.xhm()))
    block.set_pair("_space_group_name_Hall", gemmi.cif.quote(group.hall))
    block.set_pair("_space_group_IT_number", str(group.number))
    ops = block.init_loop("_space_group_symop_", ["id", "operation_xyz"])
    for number, op in enumerate(group.operations(), 1):
        ops.add_row([str(number), gemmi.cif.quote(op.triplet())])


def _add_experiment(block: gemmi.cif.Block, refinement: Refinement) -> None:
    """Radiation, protocol and limits of the reflections."""
    settings, listed = refinement.settings, refinement.reflections
    pairs = {"_diffrn_radiation_probe": "electron"}
    hkl = listed[["h", "k", "l"]].to_numpy()
    g_max = float(np.linalg.norm(hkl @ refinement.crystal.reciprocal_basis.T, axis=1).max())
    if refinement.wavelength is not None:
        theta = np.degrees(np.arcsin(refinement.wavelength * g_max / 2))
        pairs["_diffrn_radiation_wavelength"] = f"{refinement.wavelength:.6f}"
        pairs["_diffrn_reflns_theta_max"] = f"{theta:.4f}"
    if "semi_angle_deg" in refinement.frames:
        precesses = settings["protocol"] == "precession"
        pairs["_diffrn_measurement_method_precession"] = "yes" if precesses else "no"
        pairs["_diffrn_measurement_rotation_mode"] = (
            "rotation" if settings["protocol"] == "rotation" else "stepwise"
        )
        if precesses:
            pairs["_diffrn_precession_semi_angle"] = f"{refinement.frames['semi_angle_deg'].mean():.3f}"
    pairs["_diffrn_reflns_number"] = str(len(listed))
    for axis, values in zip("hkl", hkl.T, strict=True):
        pairs[f"_diffrn_reflns_limit_{axis}_min"] = str(values.min())
        pairs[f"_diffrn_reflns_limit_{axis}_max"] = str(values.max())
    pairs["_reflns_d_resolution_high"] = f"{1 / g_max:.4f}"
    table = refinement.parameters
    found = table.loc[table["name"] == MOSAICITY, "value"]
    mosaicity = float(found.iloc[0]) if len(found) else settings["mosaicity_deg"]
    if mosaicity > 0:
        pairs["_exptl_crystal_mosaicity"] = f"{mosaicity:.4f}"
    _set(block, pairs)


def _add_statistics(block: gemmi.cif.Block, refinement: Refinement) -> None:
    s, settings = refinement.statistics, refinement.settings
    hydrogen = "H" in refinement.crystal.elements
    gof = s.get("gof_refined", s["gof"])
    scheme, details = _weighting(settings, refinement.method)
    treatment = {"riding": "constr", "fixed": "noref", "free": "refall"}[settings["constraints"]["hydrogens"]]
    pairs = {
        "_refine_diffraction_theory": THEORY[refinement.method],
        "_refine_ls_structure_factor_coef": "Fsqd",
        "_refine_ls_matrix_type": "full",
        "_refine_ls_weighting_scheme": scheme,
        "_refine_ls_weighting_details": details,
        "_refine_ls_hydrogen_treatment": treatment if hydrogen else "undef",
        "_refine_ls_extinction_method": "none",
        "_refine_ls_number_reflns": f"{s['n_all']:d}",
        "_refine_ls_number_parameters": f"{s['n_par']:d}",
        "_refine_ls_number_restraints": f"{s.get('n_restraints', 0):d}",
        "_refine_ls_R_factor_gt": _told(s["r_obs_pct"] / 100, ".4f"),
        "_refine_ls_R_factor_all": _told(s["r_all_pct"] / 100, ".4f"),
        "_refine_ls_wR_factor_ref": _told(s.get("wr_refined_pct", s["wr_all_pct"]) / 100, ".4f"),
        "_refine_ls_goodness_of_fit_ref": _told(gof, ".3f"),
        "_refine_ls_restrained_S_all": _told(s.get("gof_refined_restrained", s.get("gof_restrained", gof)), ".3f"),
        "_refine_ls_shift/su_max": f"{s['max_shift_su']:.4f}",
        "_reflns_number_total": f"{s['n_all']:d}",
        "_reflns_number_gt": f"{s['n_obs']:d}",
        "_reflns_threshold_expression": "I>3sigma(I)",
    }
    if "hand_z" in s:
        pairs["_refine_ls_abs_structure_z-score"] = f"{s['hand_z']:.2f}"
    others = refinement.parameters[refinement.parameters["name"].isin([MOSAICITY, TWIN, ABSORPTION])]
    if len(others):
        pairs["_refine_special_details"] = "refined too: " + ", ".join(
            f"{row['name']} {with_su(row['value'], row['su'])}" for _, row in others.iterrows()
        )
    _set(block, pairs)
    if "thickness_A" in s:
        _add_theory(block, s, settings)


def _told(value: float, form: str) -> str:
    """A number, or the CIF's word for one that is not known: R of no reflections."""
    return format(value, form) if np.isfinite(value) else "?"


def _weighting(settings: dict[str, Any], method: str) -> tuple[str, str]:
    """Scheme and formula: the weights of statistics.weights, of merged intensities or those of unit_weights, and what
    frames weigh beside."""
    if method in MERGED and settings["weights"] == "unit":
        return "unit", "w=1/<s^2^(I)>, the same for all reflections"
    of_errors = f"(s^2^(I)+({2 * settings['instability']:g}I)^2^)"
    if method in MERGED:
        return "sigma", f"w=1/{of_errors}"
    power = settings["emphasis"]
    numerator = f"max(I,{WEAK:g}s(I))^{power:g}^" if power else "1"
    return "sigma", f"w={numerator}/{of_errors}{FRAME_WEIGHTS[settings['frame_weights']]}"


def _add_theory(block: gemmi.cif.Block, s: dict[str, float], settings: dict[str, Any]) -> None:
    """How intensities of frames were calculated; the thickness in nm, as the dictionary has it."""
    shape = settings["thickness"]["model"]
    text = (
        f"Bloch waves, {settings['factors']} factors; {settings['protocol']} integration; thickness model {shape}, "
        f"mean thickness {s['thickness_A']:.1f} A; g_max {s['g_max']:.2f} 1/A, S_g(max) {s['s_g_max']:.3f} 1/A, "
        f"RS_g(max) {s['rs_g_max']:.2f}, {s['n_azimuth']} integration steps at most"
    )
    block.set_pair("_refine_diffraction_theory_details", gemmi.cif.quote(text))
    block.set_pair(
        "_refine_ls_sample_thickness", with_su(s["thickness_A"] / 10, s.get("thickness_su_A", 0.0) / 10, 3)
    )
    if shape in SHAPES:
        block.set_pair("_refine_ls_sample_shape_expression", gemmi.cif.quote(SHAPES[shape]))
    details = f"{shape}, thickness along the beam by its orientation, mean over area and frames given"
    block.set_pair("_refine_ls_sample_shape_details", gemmi.cif.quote(details))


def _add_types(block: gemmi.cif.Block, refinement: Refinement) -> None:
    loop = block.init_loop("_atom_type_", ["symbol", "description", "scat_source"])
    source = gemmi.cif.quote(SOURCES[refinement.settings["factors"]])
    for element in dict.fromkeys(refinement.crystal.elements):
        loop.add_row([element, element, source])


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
        loop.add_row([gemmi.cif.quote(label), crystal.elements[i], *xyz, occupancy, kind, u_iso, multiplicity])
    aniso = np.flatnonzero(~np.isnan(crystal.u_ij).any(axis=1))
    if len(aniso):
        tags = ["label", *(f"U_{ij}" for ij in PAIRS)]
        loop = block.init_loop("_atom_site_aniso_", tags)
        for site in aniso:
            values = zip(crystal.u_ij[site], su["u_ij"][site], strict=True)
            loop.add_row([gemmi.cif.quote(crystal.labels[site]), *(with_su(u, s) for u, s in values)])


def _add_twin(block: gemmi.cif.Block, refinement: Refinement) -> None:
    """Law and volumes of the domains; the first is the one that the indices are of."""
    twin = refinement.settings["twin"]
    if twin is None:
        return
    table = refinement.parameters[refinement.parameters["name"] == TWIN]
    share, su = (float(twin["fraction"]), 0.0) if table.empty else table[["value", "su"]].to_numpy(float)[0]
    places = [f"{i}{j}" for i in "123" for j in "123"]
    loop = block.init_loop(
        "_twin_individual_", ["id", "mass_fraction_refined", *(f"twin_matrix_{p}" for p in places)]
    )
    for number, (volume, law) in enumerate(((1 - share, np.eye(3)), (share, np.array(twin["law"]))), 1):
        loop.add_row([str(number), with_su(volume, su), *(f"{x:g}" for x in law.ravel())])


def _add_bonds(block: gemmi.cif.Block, refinement: Refinement) -> None:
    """Distances between bound atoms with the s.u. of the whole covariance."""
    tags = ["atom_site_label_1", "atom_site_label_2", "distance", "site_symmetry_2", "publ_flag"]
    found = bonds(refinement)
    if found:
        loop = block.init_loop("_geom_bond_", tags)
        for bond in found:
            names = (gemmi.cif.quote(name) for name in (bond.first, bond.second))
            loop.add_row([*names, with_su(bond.length_A, bond.su_A, 4), bond.symmetry, "?"])


def _add_frames(block: gemmi.cif.Block, refinement: Refinement) -> None:
    """The scale of every frame, and beside the dictionary its refined tilts and thickness."""
    frames = refinement.frames
    if "scale_su" not in frames:
        return
    tags = ["_reflns_scale_group_code", "_reflns_scale_meas_F_squared"]
    own = ["tilt_x_deg", "tilt_y_deg", "thickness_A"]
    loop = block.init_loop("", tags + [f"_nanoed_frame_{name}" for name in own])
    for _, row in frames.iterrows():
        values = [
            with_su(row[name], row[f"{name.rpartition('_')[0]}_su_{name.rpartition('_')[2]}"], 4)
            for name in own
        ]
        loop.add_row([f"{row['frame'] + 1:.0f}", with_su(row["scale"], row["scale_su"], 4), *values])


def _add_reflections(block: gemmi.cif.Block, refinement: Refinement) -> None:
    """The loop of reflections, on the scale of the calculated intensities; frame-based ones carry their frame."""
    table = refinement.reflections
    tags = [
        "index_h",
        "index_k",
        "index_l",
        "F_squared_meas",
        "F_squared_sigma",
        "F_squared_calc",
        "include_status",
    ]
    per_frame = "frame" in table
    if per_frame:
        tags.append("scale_group_code")
    peak = float(table["I_calc"].max())
    scale = 1e4 / peak if peak > 0 else 1.0
    block.set_pair("_nanoed_refln_F_squared_scale", f"{scale:.6g}")
    loop = block.init_loop("_refln_", tags)
    columns: list[list[str]] = [[str(v) for v in table[name]] for name in ("h", "k", "l")]
    for name in REFLECTIONS[3:]:
        columns.append([f"{v:.3f}" for v in table[name].to_numpy() * scale])
    seen = table["I_obs"].to_numpy() > 3 * table["sigma"].to_numpy()
    columns.append(["o" if s else "<" for s in seen])
    if per_frame:
        columns.append([str(v + 1) for v in table["frame"]])
    loop.set_all_values(columns)
