"""What a refinement says about cells that do not fit, and which reflections it takes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from goldens import shipped

from nanoed.pipeline.io.cif_pets import GEOMETRY_KEY, PetsData
from nanoed.pipeline.reduce.geometry import cell_of
from nanoed.pipeline.refine.cells import cell_warning, check_cells
from nanoed.pipeline.refine.frames import Engine, frames_of, protocol_of
from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.refine.problem import basis
from nanoed.pipeline.refine.spec import TwinSpec
from nanoed.pipeline.spec import RefineSpec, ThicknessSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.scattering import reflections_within, structure_factors

SEMI_ANGLE_DEG = 1.0


def zones_of(crystal: Crystal) -> PetsData:
    """Two frames that list every reflection, all of intensity 100."""
    hkl = reflections_within(crystal, 1.2)
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=100.0, sigma=1.0)
    reflections = pd.concat([table.assign(zone=1), table.assign(zone=2)], ignore_index=True)
    zones = pd.DataFrame({"id": [1, 2], "alpha": [5.0, 25.0], "beta": 3.0, "omega": 0.0})
    zones = zones.assign(u=0.0, v=0.0, w=1.0, semi_angle=SEMI_ANGLE_DEG, scale=1.0)
    return PetsData(crystal.cell, wavelength_A(200.0), crystal.reciprocal_basis, zones, reflections)


def stretched(crystal: Crystal, factor: float) -> Crystal:
    a, b, c, alpha, beta, gamma = crystal.cell
    return replace(crystal, cell=(factor * a, b, c, alpha, beta, gamma))


def test_cells() -> None:
    crystal = shipped("brookite")
    data = zones_of(crystal)
    check_cells(data.cell, stretched(crystal, 1.03))
    with pytest.raises(InputError, match="more than 5 %"):
        check_cells(data.cell, stretched(crystal, 1.06))
    sheared = replace(crystal, cell=(*crystal.cell[:3], 90.0, 96.0, 90.0))
    with pytest.raises(InputError, match="more than 5 %"):
        check_cells(data.cell, sheared)
    assert cell_warning(data, stretched(crystal, 1.005)) == ""
    assert "model's cell is 3.0 %" in cell_warning(data, stretched(crystal, 1.03))
    turned = replace(data, ub=1.02 * data.ub)
    assert "orientation matrix is 2.0 %" in cell_warning(turned, crystal)
    assert cell_of(shipped("quartz").reciprocal_basis) == pytest.approx(shipped("quartz").cell)


def test_selection_of_a_rotation() -> None:
    """RS_g and DS_g of PHYSICS A4, with the distance from the tilt axis as lever; the axis is x here."""
    crystal = shipped("brookite")
    data = zones_of(crystal)
    spec = RefineSpec(protocol="rotation", rs_g_max=0.66, d_star_max=1.2)
    limited = spec.model_copy(update={"ds_g_min": 0.003})
    counts = []
    for settings in (spec, limited):
        frame = frames_of(data, settings)[0]
        g = frame.hkl @ (frame.orientation @ data.ub).T
        reach = np.hypot(g[:, 1], g[:, 2]) * np.radians(SEMI_ANGLE_DEG)
        distance = np.abs(excitation_errors(g, data.wavelength))
        assert (distance <= 0.66 * reach).all()
        assert (reach - distance >= (settings.ds_g_min or 0)).all()
        counts.append(len(frame.hkl))
    assert 0 < counts[1] < counts[0]
    precession = frames_of(data, spec.model_copy(update={"protocol": "precession"}))[0]
    assert len(precession.hkl) > counts[0]


def test_the_data_say_how_they_were_recorded() -> None:
    """A rotation that is integrated as a precession takes many times the reflections, and refines without a word."""
    data = replace(zones_of(shipped("brookite")), extra={GEOMETRY_KEY: "continuous rotation"})
    spec = RefineSpec(d_star_max=1.2)
    assert protocol_of(data, spec) == "rotation"
    assert protocol_of(replace(data, extra={GEOMETRY_KEY: "serial"}), spec) == "still"
    assert protocol_of(replace(data, extra={}), spec) == "precession"
    of_rotation = frames_of(replace(data, extra={}), spec.model_copy(update={"protocol": "rotation"}))
    for found, wanted in zip(frames_of(data, spec), of_rotation, strict=True):
        assert (found.hkl == wanted.hkl).all()
    with pytest.raises(InputError, match=r"protocol.*precession.*rotation or still"):
        frames_of(data, spec.model_copy(update={"protocol": "precession"}))
    assert protocol_of(data, spec.model_copy(update={"protocol": "still"})) == "still"


def test_sizes_over_the_stage_angle() -> None:
    first, last = frames_of(zones_of(shipped("brookite")), RefineSpec(d_star_max=1.2))
    assert basis(first, 3) == pytest.approx([1, -1, 1])
    assert basis(last, 3) == pytest.approx([1, 1, 1])


def test_thickness_along_the_beam_follows_from_the_orientation() -> None:
    """A lamella is thicker by 1 / cos, a rod by 1 / sin; plate and sphere stay; an ellipsoid turns its long axis."""
    ub = shipped("brookite").reciprocal_basis
    mean = {}
    for model in ("plate", "lamella", "rod", "sphere", "ellipsoid"):
        thickness = ThicknessSpec(model=model, axis_uvw=(0, 0, 1), aspect=2.0)
        engine = Engine(ub, thickness, "precession", 1.0, 0.01, None)
        mean[model] = [engine.mean_chord(frame_matrix(np.radians(a), 0, 0)) for a in (0.0, 30.0, 90.0)]
    assert mean["plate"] == pytest.approx([1, 1, 1])
    assert mean["sphere"] == pytest.approx([2 / 3] * 3)
    assert mean["lamella"][:2] == pytest.approx([1, 2 / np.sqrt(3)])
    assert mean["rod"][1:] == pytest.approx([np.pi / 4 / np.sin(np.radians(30)), np.pi / 4], rel=1e-3)
    assert mean["ellipsoid"] == pytest.approx([4 / 3, 2 / 3 / np.sqrt(0.25 + 0.75 / 4), 2 / 3], rel=1e-6)


def test_too_little_for_a_kinematical_refinement() -> None:
    """A perfect fit with more parameters than reflections, or with a parameter that changes nothing, is no result."""
    crystal = shipped("brookite")
    hkl = reflections_within(crystal, 1.2)
    intensity = np.abs(structure_factors(crystal, hkl)) ** 2
    table = pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(I=intensity, sigma=0.01 * intensity.max())
    refine_kinematical(table, crystal, RefineSpec(d_star_max=1.2))
    with pytest.raises(InputError, match="too few reflections"):
        refine_kinematical(table, crystal, RefineSpec(d_star_max=0.25))
    law = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))  # what the crystal has itself
    with pytest.raises(ConvergenceError, match="do not determine"):
        refine_kinematical(table, crystal, RefineSpec(d_star_max=1.2, twin=TwinSpec(law=law)))
