"""What a refinement writes: a CIF that others read, a difference map that finds what is missing, the scan's plot."""

from dataclasses import replace

import gemmi
import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.cif import refined_document, with_su
from nanoed.pipeline.refine.difference import difference_map, distances_to
from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.geometry import bonds
from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.refine.output import write_refinement
from nanoed.pipeline.refine.parameters import free_parameters
from nanoed.pipeline.spec import RefineSpec, ThicknessSpec
from nanoed.sim.physics.bloch import frame_intensities, potential_table
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.sampling import precession_rotations
from nanoed.sim.physics.scattering import reflections_within, structure_factors, unique_reflections
from nanoed.studies.check_synthetic import SPHERE
from nanoed.studies.synthetic_frames import Series, expected_frames, noisy


def without(crystal: Crystal, label: str) -> Crystal:
    kept = [i for i, name in enumerate(crystal.labels) if name != label]
    return replace(
        crystal, labels=tuple(crystal.labels[i] for i in kept), elements=tuple(crystal.elements[i] for i in kept),
        xyz=crystal.xyz[kept], occupancy=crystal.occupancy[kept], u_iso=crystal.u_iso[kept], u_ij=crystal.u_ij[kept],
    )  # fmt: skip


def image_distance(crystal: Crystal, x: np.ndarray, site: np.ndarray) -> float:
    away = crystal.rotations @ site + crystal.translations - x
    return float(np.linalg.norm((away - np.rint(away)) @ crystal.frac_to_cart.T, axis=1).min())


@pytest.mark.parametrize("name", ["brookite", "quartz"])
def test_a_missing_oxygen_is_the_highest_peak_of_dynamical_frames(name: str) -> None:
    """Frames of the whole structure against those of one without an oxygen, 150 Å thick, 12 orientations."""
    whole = shipped(name)
    gone = whole.labels[-1] if name == "brookite" else "Si1"
    part, tables = without(whole, gone), []
    both = [potential_table(c, 200.0, 1.5) for c in (whole, part)]
    turns = precession_rotations(0.02, 16)
    at = (turns, np.full(16, 1 / 16), np.array([150.0]), np.ones(1))
    for number in range(12):
        ub = frame_matrix(0.25 * number - 1.4, 0.1 * number - 0.6, 0.3) @ whole.reciprocal_basis
        g = both[0].hkl[1:] @ ub.T
        near = np.abs(excitation_errors(g, 0.02508)) < 0.75 * 0.02 * np.linalg.norm(g, axis=1)
        hkl = both[0].hkl[1:][near & (np.linalg.norm(g, axis=1) < 1.3)]
        i_o, i_c = (frame_intensities(t, ub, *at, hkl, 200.0, 1.5, 0.02) for t in both)
        k = (i_o @ i_c) / (i_c @ i_c)
        sigma = np.sqrt(1e-4 * i_o.max() * i_o + 1e-8)
        table = pd.DataFrame(hkl, columns=["h", "k", "l"])
        tables.append(table.assign(I_obs=i_o / k, sigma=sigma / k, I_calc=i_c))
    table = pd.concat(tables, ignore_index=True)
    found = difference_map(table, part, "peng")
    top = found.peaks.iloc[0]
    site = whole.xyz[whole.labels.index(gone)]
    assert top["height_V"] > 1.2 * found.peaks.iloc[1]["height_V"]
    assert image_distance(whole, top[["x", "y", "z"]].to_numpy(float), site) < 0.25
    assert top["distance_A"] > 1.0
    nothing = difference_map(table.assign(I_obs=table["I_calc"]), part, "peng")
    assert nothing.sigma < 1e-9 * found.sigma


def test_the_map_is_the_potential_of_what_is_missing() -> None:
    """Kinematically, where what is missing turns no phase: the height is that of the tenth of an atom that is gone."""
    whole = shipped("anatase")
    half = replace(whole, occupancy=np.array([0.9, 1.0]))
    hkl = unique_reflections(whole, 2.0)
    i_o, i_c = (np.abs(structure_factors(c, hkl)) ** 2 for c in (whole, half))
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I_obs=i_o, sigma=1e-6 * i_c.max(), I_calc=i_c)
    found = difference_map(table, half, "peng")
    top = found.peaks.iloc[0]
    assert image_distance(whole, top[["x", "y", "z"]].to_numpy(float), whole.xyz[0]) < 0.05
    all_hkl = reflections_within(whole, 2.0 + 1e-6)
    difference = structure_factors(whole, all_hkl) - structure_factors(half, all_hkl)
    expected = 47.878 / whole.volume * (difference * np.exp(2j * np.pi * all_hkl @ whole.xyz[0])).sum().real
    assert top["height_V"] == pytest.approx(expected, rel=0.02)


def test_the_nearest_atom_of_a_peak_in_an_oblique_cell() -> None:
    """Fractional differences rounded off to the next cell are not the shortest where angles are far from 90°."""
    cell, rng = (6.0, 9.0, 7.0, 65.0, 110.0, 148.0), np.random.default_rng(4)
    crystal = replace(shipped("quartz"), cell=cell, spacegroup="P 1")
    others, x = rng.uniform(0, 1, (40, 3)), np.array([0.1, 0.7, 0.4])
    cells = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    every = (others - x)[:, None] + cells
    expected = np.linalg.norm(every @ crystal.frac_to_cart.T, axis=2).min(axis=1)
    assert distances_to(crystal, x, others) == pytest.approx(expected, abs=1e-12)
    rounded = (others - x - np.rint(others - x)) @ crystal.frac_to_cart.T
    assert (np.linalg.norm(rounded, axis=1) > expected + 0.1).any()


def measured() -> tuple[PetsData, RefineSpec]:
    crystal = shipped("brookite")
    series = Series(
        (-30.0, -18.0, -6.0, 6.0, 18.0, 30.0), SPHERE, 90.0, 1e6, 100.0, d_star_max=0.9, g_max=1.1
    )
    data = noisy(expected_frames(crystal, series, np.random.default_rng(1)), np.random.default_rng(2))
    sphere = ThicknessSpec(model="sphere", nodes=4, scan_A=(40.0, 100.0))
    spec = RefineSpec(d_star_max=0.9, thickness=sphere, heldout_folds=None, reselections=1, settled=0.1)
    return data, spec


@pytest.fixture(scope="module")
def refined():
    data, spec = measured()
    return refine_dynamical(data, shipped("brookite"), spec)


def test_files_of_a_dynamical_refinement(refined, tmp_path) -> None:
    write_refinement(refined, tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        "refined.cif", "refinement.json", "frames.csv", "difference.csv", "difference.ccp4", "thickness_scan.csv",
        "thickness_scan.png",
    }  # fmt: skip
    scan = pd.read_csv(tmp_path / "thickness_scan.csv")
    best = scan.loc[scan["wr_all_pct"].idxmin(), "thickness_A"]
    assert best == pytest.approx(refined.statistics["thickness_A"], rel=0.25)
    assert len(scan) >= 5
    ccp4 = gemmi.read_ccp4_map(str(tmp_path / "difference.ccp4"))
    residual = difference_map(refined.reflections, refined.crystal, "peng")
    assert np.array(ccp4.grid, copy=False) == pytest.approx(residual.density, abs=1e-5)
    assert ccp4.grid.unit_cell.a == pytest.approx(refined.crystal.cell[0], abs=1e-4)
    first = (tmp_path / "thickness_scan.png").read_bytes(), (tmp_path / "difference.ccp4").read_bytes()
    write_refinement(refined, tmp_path)
    assert first == (
        (tmp_path / "thickness_scan.png").read_bytes(),
        (tmp_path / "difference.ccp4").read_bytes(),
    )


def test_the_cif_says_what_checks_ask_for(refined, tmp_path) -> None:
    write_refinement(refined, tmp_path)
    block = gemmi.cif.read(str(tmp_path / "refined.cif")).sole_block()
    text = {tag: gemmi.cif.as_string(block.find_value(tag) or "") for tag in EXPECTED}
    missing = [tag for tag, value in text.items() if not value]
    assert missing == []
    assert text["_refine_diffraction_theory"] == "dynamical"
    assert text["_chemical_formula_sum"] == "O2 Ti"
    assert text["_cell_formula_units_Z"] == "8"
    assert float(text["_exptl_crystal_density_diffrn"]) == pytest.approx(4.12, abs=0.05)
    nm, su = (float(v) for v in text["_refine_ls_sample_thickness"].rstrip(")").split("("))
    assert 10 * nm == pytest.approx(refined.statistics["thickness_A"], rel=0.01)
    assert su > 0
    for tag in ("_atom_site_fract_x", "_atom_site_U_iso_or_equiv", "_geom_bond_distance", *FRAME_TAGS):
        column = block.find_loop(tag)
        assert len(column) > 0
        assert all("(" in value for value in column), tag
    groups = set(block.find_loop("_refln_scale_group_code"))
    assert groups == set(block.find_loop("_reflns_scale_group_code"))
    assert set(block.find_loop("_refln_include_status")) <= {"o", "<"}
    assert not [line for line in (tmp_path / "refined.cif").read_text().splitlines() if len(line) > 2048]


FRAME_TAGS = (
    "_reflns_scale_meas_F_squared",
    "_nanoed_frame_tilt_x_deg",
    "_nanoed_frame_tilt_y_deg",
    "_nanoed_frame_thickness_A",
)
EXPECTED = [
    "_chemical_formula_sum", "_chemical_formula_weight", "_cell_formula_units_Z", "_cell_length_a", "_cell_volume",
    "_space_group_crystal_system", "_space_group_name_H-M_alt", "_space_group_name_Hall", "_space_group_IT_number",
    "_diffrn_radiation_probe", "_diffrn_radiation_wavelength", "_diffrn_measurement_method_precession",
    "_diffrn_measurement_rotation_mode", "_diffrn_precession_semi_angle", "_diffrn_reflns_theta_max",
    "_diffrn_reflns_number", "_diffrn_reflns_limit_h_max", "_diffrn_reflns_limit_l_min", "_exptl_crystal_F_000",
    "_exptl_crystal_density_diffrn", "_reflns_number_total", "_reflns_number_gt", "_reflns_threshold_expression",
    "_refine_diffraction_theory", "_refine_diffraction_theory_details", "_refine_ls_structure_factor_coef",
    "_refine_ls_matrix_type", "_refine_ls_weighting_scheme", "_refine_ls_weighting_details",
    "_refine_ls_number_reflns", "_refine_ls_number_parameters", "_refine_ls_number_restraints",
    "_refine_ls_R_factor_gt", "_refine_ls_R_factor_all", "_refine_ls_wR_factor_ref", "_refine_ls_hydrogen_treatment",
    "_refine_ls_goodness_of_fit_ref", "_refine_ls_restrained_S_all", "_refine_ls_shift/su_max",
    "_refine_ls_sample_thickness", "_refine_ls_sample_shape_expression", "_refine_diff_potential_max",
    "_refine_diff_potential_min", "_refine_diff_potential_RMS",
]  # fmt: skip


def test_bonds_have_the_uncertainty_of_the_whole_covariance() -> None:
    """Against draws from the covariance; without correlations it would be another."""
    crystal = shipped("quartz")
    hkl = unique_reflections(crystal, 1.0)
    i = np.abs(structure_factors(crystal, hkl)) ** 2
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=i, sigma=0.05 * i + 0.02 * i.max())
    found = refine_kinematical(table, crystal, RefineSpec())
    parameters, rng = found.parametrised, np.random.default_rng(3)
    scaled = 1e-4 * found.covariance / found.covariance.max()
    refined = replace(found, covariance=scaled)
    draws = []
    start = found.parameters["value"].to_numpy()[:-1]
    for values in rng.multivariate_normal(start, 1e-4 * scaled, 400):
        moved = replace(found, crystal=parameters.apply(values), covariance=scaled)
        draws.append([b.length_A for b in bonds(moved)])
    assert 100 * np.std(draws, axis=0) == pytest.approx([b.su_A for b in bonds(refined)], rel=0.15)


def test_formula_of_shared_sites() -> None:
    crystal = free_parameters(shipped("mgti2o5")).crystal
    hkl = unique_reflections(crystal, 1.0)
    i = np.abs(structure_factors(crystal, hkl)) ** 2
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=i, sigma=0.05 * i.max())
    block = refined_document(refine_kinematical(table, crystal, RefineSpec())).sole_block()
    assert gemmi.cif.as_string(block.find_value("_chemical_formula_sum")) == "Mg1.001 O5 Ti1.999"
    assert block.find_value("_cell_formula_units_Z") == "4"
    assert block.find_value("_refine_diffraction_theory") == "kinematical"
    assert block.find_value("_diffrn_radiation_wavelength") is None


def test_large_uncertainties() -> None:
    assert with_su(2592757.0, 68304.0) == "2590000(70000)"
    assert with_su(1234.0, 240.0) == "1200(200)"


def test_an_r_of_no_reflections_is_not_known() -> None:
    """Nothing above 3 s.u.: CIF has the word ? for it, and no nan."""
    crystal = shipped("quartz")
    hkl = unique_reflections(crystal, 0.8)
    i = np.abs(structure_factors(crystal, hkl)) ** 2
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=i, sigma=0.5 * i.max())
    document = refined_document(refine_kinematical(table, crystal, RefineSpec()))
    block = document.sole_block()
    assert block.find_value("_reflns_number_gt") == "0"
    assert block.find_value("_refine_ls_R_factor_gt") == "?"
    assert float(block.find_value("_refine_ls_R_factor_all")) < 0.01
    assert "nan" not in document.as_string().lower().split()


def test_weights_are_told_as_they_were() -> None:
    crystal = shipped("quartz")
    hkl = unique_reflections(crystal, 1.0)
    i = np.abs(structure_factors(crystal, hkl)) ** 2
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=i, sigma=0.05 * i.max())
    found = refine_kinematical(table, crystal, RefineSpec(instability=0.02))

    def told(method: str, **settings: object) -> str:
        other = replace(found, method=method, settings=found.settings | settings)
        block = refined_document(other).sole_block()
        return str(gemmi.cif.as_string(block.find_value("_refine_ls_weighting_details")))

    plain = "w=1/(s^2^(I)+(0.04I)^2^)"
    assert told("dynamical") == told("kinematical", emphasis=1.0, frame_weights="equal") == plain
    assert told("dynamical", emphasis=1.0) == "w=max(I,0.01s(I))^1^/(s^2^(I)+(0.04I)^2^)"
    assert told("dynamical", frame_weights="equal").startswith(f"{plain}, times a factor of every frame")


def test_residuals_of_other_weights_are_those_of_the_least_squares(refined) -> None:
    """With emphasis, wR and S of the CIF have the weights that it states; wr_all_pct and gof stay comparable."""
    data, spec = measured()
    spec = spec.model_copy(update={"emphasis": 1.0, "optimise_orientations": False})
    found = refine_dynamical(data, shipped("brookite"), spec)
    table = found.reflections.merge(found.frames[["frame", "scale"]], on="frame")
    i_o, sigma, i_c = (table["scale"] * table[name] for name in ("I_obs", "sigma", "I_calc"))
    w = np.maximum(i_o, 0.01 * sigma) / (sigma**2 + (0.02 * i_o) ** 2)
    chi2, s = float((w * (i_o - i_c) ** 2).sum()), found.statistics
    expected = {
        "wr_refined_pct": 100 * np.sqrt(chi2 / (w * i_o**2).sum()),
        "gof_refined": np.sqrt(chi2 / (len(table) - s["n_par"])),
    }
    assert {name: s[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert s["wr_all_pct"] != pytest.approx(s["wr_refined_pct"], rel=1e-3)
    assert "wr_refined_pct" not in refined.statistics
    block = refined_document(found).sole_block()
    assert float(block.find_value("_refine_ls_wR_factor_ref")) == pytest.approx(s["wr_refined_pct"] / 100, abs=1e-4)
    assert float(block.find_value("_refine_ls_goodness_of_fit_ref")) == pytest.approx(s["gof_refined"], abs=1e-3)
