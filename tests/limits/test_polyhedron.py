"""Faceted particles: closed forms of the cube, the octahedron's volume, and rays against the exact distribution."""

import numpy as np
import pytest
from simulations import crystal, experiment

from nanoed.sim.particle import Body, body_of, chord_map, inside
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.polyhedron import vertices, volume
from nanoed.sim.physics.thickness import chord_distribution

SIDES = np.vstack([np.eye(3), -np.eye(3)])
CUBE = Body("polyhedron", 124.0, 124.0, np.array([0.0, 0.0, 1.0]), SIDES, np.full(6, 50.0))
ANATASE = {"shape": "polyhedron", "diameter_nm": 15.0, "faces": [[1, 0, 1, 1.0], [0, 0, 1, 1.4]]}


def faceted(**changes):
    return body_of(experiment(structure="anatase", particle=ANATASE | changes).particle, crystal("anatase"))


def test_a_cube_has_its_corners_and_volume():
    assert len(vertices(CUBE.normals, CUBE.distances)) == 8
    assert volume(CUBE.normals, CUBE.distances) == pytest.approx(1e6)
    assert CUBE.extent == pytest.approx(100 * np.sqrt(3))


def test_a_cube_along_a_face_and_along_its_diagonal():
    t, w, area = chord_distribution(CUBE, np.array([0.0, 0.0, 1.0]))
    assert area == pytest.approx(1e4)
    assert np.allclose(t, 100)
    t, w, area = chord_distribution(CUBE, np.ones(3))
    assert area == pytest.approx(np.sqrt(3) * 1e4)
    # along [111] the chord falls linearly from sqrt(3) a to 0 over a hexagon: <t> = T/3, <t²> = T²/6
    longest = 100 * np.sqrt(3)
    assert [w @ t, w @ t**2] == pytest.approx([longest / 3, longest**2 / 6], rel=1e-6)


def test_faces_are_completed_by_the_laue_group_and_the_size_is_that_of_a_sphere():
    body = faceted()
    assert len(body.distances) == 10
    assert volume(body.normals, body.distances) == pytest.approx(np.pi / 6 * 150**3)
    assert np.allclose(body.distances[:8], body.distances[0])
    assert body.distances[-1] == pytest.approx(1.4 * body.distances[0])


@pytest.mark.parametrize("direction", [(0.1, 0.2, 1.0), (1.0, 0.3, 0.2), (1.0, 0.0, 0.0)])
def test_chords_agree_with_rays(direction):
    body, z = faceted(), np.array(direction) / np.linalg.norm(direction)
    u = np.linalg.svd(z[None])[2][1]
    to_lab = np.array([u, np.cross(z, u), z])
    grid = np.linspace(-150, 150, 901)
    rays = chord_map(body, to_lab, *np.meshgrid(grid, grid))
    t, w, area = chord_distribution(body, z)
    assert w @ t * area == pytest.approx(volume(body.normals, body.distances), rel=1e-9)
    assert np.count_nonzero(rays) * (grid[1] - grid[0]) ** 2 == pytest.approx(area, rel=5e-3)
    for power in (1, 2, 4):
        assert np.mean(rays[rays > 0] ** power) == pytest.approx(w @ t**power, rel=1e-2)


def test_inside_is_the_volume_and_a_stretched_body_is_told_apart():
    points = np.random.default_rng(1).uniform(-120, 120, (200_000, 3))
    share = inside(CUBE, points).mean() * 240**3
    assert share == pytest.approx(1e6, rel=0.02)
    assert inside(CUBE.scaled(1.1), points).mean() * 240**3 == pytest.approx(1.331e6, rel=0.02)


def test_an_open_form_is_refused():
    with pytest.raises(InputError, match=r"particle\.faces"):
        faceted(faces=[[0, 0, 1, 1.0]])
