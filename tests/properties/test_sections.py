"""Sections of reciprocal space and the structure over the truth: things lie where they should, in the right hand."""

from pathlib import Path

import numpy as np
import pytest
from simulations import crystal

from nanoed.pipeline.reduce.geometry import Geometry, to_pixels
from nanoed.pipeline.reduce.page.sections import PLANES
from nanoed.sim.dataset import Nominal, open_dataset, write_dataset
from nanoed.studies.compare import compare
from nanoed.studies.figure_tables import read_table
from nanoed.studies.sections import read_sections, write_sections
from nanoed.studies.structure_view import EDGE, PLACE, SHIFT, magnification, structure_table

UB = np.array([[0.10, 0.02, 0.0], [0.0, 0.15, 0.01], [0.0, 0.0, 0.2]])
A_PER_PX, CENTRE = 0.01, np.array([60.3, 58.8])
SPOTS = {"hk0": (3, 2, 0), "h0l": (2, 0, 2), "0kl": (0, 2, 2)}


def looking(hkl: tuple[int, int, int]) -> tuple[float, float]:
    """Goniometer angles alpha, beta (rad) that bring g of the reflection into the plane of the detector, edge on."""
    g = UB @ hkl
    return 0.0, float(np.arctan2(g[2], g[0]))


def made_up(folder: Path) -> tuple[Geometry, np.ndarray]:
    """One frame per spot, each with that reflection in the detector's plane, and one unused frame full of light."""
    angles = np.array([looking(hkl) for hkl in SPOTS.values()] + [(0.0, 0.0)])
    n = len(angles)
    geometry = Geometry(
        UB, angles[:, 0], angles[:, 1], np.full(n, 0.4), np.tile(CENTRE, (n, 1)), A_PER_PX, 1e-4
    )
    rows, columns = np.mgrid[0:120, 0:120] + 0.5
    frames = []
    for i, hkl in enumerate(SPOTS.values()):
        x, y = to_pixels(geometry, np.array([i]), (geometry.rotations()[i] @ UB @ hkl)[None])[0]
        frames.append(10 + 5000 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2))
    frames.append(np.random.default_rng(0).uniform(0, 1e6, (120, 120)))
    nominal = Nominal(
        200.0,
        (120, 120),
        A_PER_PX,
        55.0,
        (60.3, 58.8),
        1.0,
        np.zeros(n),
        0.0,
        "precession",
        1.0,
        0.0,
        2.0,
        2**30,
    )
    write_dataset(folder, nominal, [frame.astype(np.float32) for frame in frames])
    return geometry, np.arange(n - 1)


def test_a_spot_lies_where_its_indices_say(tmp_path: Path) -> None:
    geometry, used = made_up(tmp_path)
    (tmp_path / "figures").mkdir()
    with open_dataset(tmp_path) as data:
        write_sections(tmp_path, data, geometry, np.zeros((120, 120), bool), used, 0.8)
    table = read_table(tmp_path, "sections")
    assert table is not None
    for plane, (name, i, j, _) in zip(read_sections(tmp_path, table), PLANES, strict=True):
        n = len(plane.image)
        row, column = np.unravel_index(np.nanargmax(plane.image), plane.image.shape)
        u = UB[:, i] / np.linalg.norm(UB[:, i])
        v = UB[:, j] - (UB[:, j] @ u) * u
        g = UB @ SPOTS[name]
        expected = np.array([g @ u, g @ v / np.linalg.norm(v)])
        found = (np.array([column, n - 1 - row]) + 0.5) * 2 * plane.reach / n - plane.reach
        assert np.abs(found - expected).max() < 0.012, name
        assert np.abs(found - expected * [1, -1]).max() > 0.1, "a mirror image would not be seen"
        assert 2505 < np.nanmax(plane.image) <= 5010  # a cell has at most two pixels of the spot
        indices = [SPOTS[name][i], SPOTS[name][j]]
        assert indices @ plane.axes == pytest.approx(expected, abs=1e-5)  # the axes drawn belong to the image


def test_the_models_are_displaced_from_the_truth_as_compare_says() -> None:
    truth = crystal()
    shift = np.array([[0.001, -0.002, 0.003]]) * np.arange(1, len(truth.labels) + 1)[:, None]
    moved = type(truth)(truth.name, truth.cell, truth.spacegroup, truth.labels, truth.elements, truth.xyz + shift,
                        truth.occupancy, truth.u_iso, truth.u_ij)  # fmt: skip
    comparison = compare(moved, truth)
    table = structure_table(truth, {"dynamical": comparison})
    mine = table[table["model"] == "dynamical"]
    assert (table["model"] == EDGE).sum() == 3
    for _, atom in comparison.atoms.iterrows():
        length = np.linalg.norm(
            mine[mine["label"] == atom["reference_label"]][list(SHIFT)].to_numpy(float), axis=1
        )
        assert len(length) >= atom["multiplicity"]
        assert np.allclose(length, atom["distance_A"], atol=1e-9)
    # each displaced atom is an atom of the moved structure
    images = moved.unit_cell_atoms()[1]
    places = mine[list(PLACE)].to_numpy(float) + mine[list(SHIFT)].to_numpy(float)
    fractions = np.linalg.solve(truth.frac_to_cart, places.T).T
    apart = fractions[:, None] - images[None]
    assert np.abs(apart - np.rint(apart)).max(axis=2).min(axis=1).max() < 1e-6
    wrong = np.linalg.solve(truth.frac_to_cart, (places - 2 * mine[list(SHIFT)].to_numpy(float)).T).T
    apart = wrong[:, None] - images[None]
    assert np.abs(apart - np.rint(apart)).max(axis=2).min(axis=1).max() > 1e-3
    times = magnification(table)
    assert 0.2 < times * comparison.d_max_A <= 0.5
