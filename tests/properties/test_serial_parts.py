"""Parts of serial indexing: lattice symmetry, templates, local refinement, chains of frames, the ambiguity."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from nanoed.pipeline.reduce.symmetry import laue_rotations
from nanoed.pipeline.serial.ambiguity import resolve
from nanoed.pipeline.serial.lattice import angle_between, angles_of, known_lattice
from nanoed.pipeline.serial.nodes import keys_of_classes, lattice_nodes, with_keys
from nanoed.pipeline.serial.orient import rivals
from nanoed.pipeline.serial.patterns import Beam, Pattern, candidates_of, find_scale, scrambled
from nanoed.pipeline.serial.runs import continued, link
from nanoed.pipeline.serial.spec import AmbiguitySpec, IndexSpec, RunSpec
from nanoed.pipeline.serial.templates import make_templates, zone_axes
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import frame_matrix

ITO = (10.117, 10.117, 10.117, 90.0, 90.0, 90.0)
BEAM = Beam(0.0250793, 0.0069)
SPEC = IndexSpec(cell=ITO, spacegroup="I a -3")


@pytest.fixture(scope="module")
def lattice():
    return known_lattice(ITO, "m-3", "I a -3", 1.6, 0.01)


def pattern(lattice, orientation, seed=1, s_max=0.012, shift=(0.0, 0.0)):
    """Peaks at the nodes near the Ewald sphere, a fifth of them missing."""
    rng = np.random.default_rng(seed)
    g = lattice.hkl @ lattice.basis.T @ orientation.T
    s = g[:, 2] - 0.5 * BEAM.wavelength * (g**2).sum(axis=1)
    near = (np.abs(s) < s_max * rng.uniform(0.3, 1.0, len(s))) & (rng.random(len(s)) > 0.2)
    near &= np.hypot(g[:, 0], g[:, 1]) < 1.4
    return Pattern(g[near, :2] + np.asarray(shift), rng.exponential(1000, near.sum()))


@pytest.mark.parametrize(
    ("cell", "laue", "group", "turns", "classes"),
    [
        (ITO, "m-3", "I a -3", 24, 2),
        (ITO, "m-3m", None, 24, 1),
        ((3.78, 3.78, 9.5, 90, 90, 90), "4/mmm", None, 8, 1),
        ((3.78, 3.78, 9.5, 90, 90, 90), "4/m", None, 8, 2),
        ((9.2, 5.4, 5.1, 90, 90, 90), "mmm", "P b c a", 4, 1),
        ((5.0, 5.0, 5.5, 90, 90, 120), "-3", None, 12, 4),
        ((5.0, 6.0, 7.0, 90, 101, 90), "2/m", None, 2, 1),
        ((5.0, 6.0, 7.0, 83, 101, 95), "-1", None, 1, 1),
    ],
)
def test_rotations_of_the_lattice_and_what_the_laue_class_lacks(cell, laue, group, turns, classes):
    found = known_lattice(cell, laue, group, 0.6, 0.01)
    assert (len(found.turns), found.n_classes) == (turns, classes)
    assert np.allclose(found.turns @ found.basis, found.basis @ found.matrices, atol=1e-9)
    assert np.array_equal(found.matrices[0], np.eye(3))
    assert np.array_equal(np.bincount(found.classes), np.full(classes, turns // classes))


def test_a_cell_of_another_metric_is_refused():
    with pytest.raises(InputError, match="not that of the Laue class"):
        known_lattice((10.1, 9.2, 10.1, 90, 90, 90), "m-3", None, 0.6, 0.01)


def test_zone_axes_cover_the_sphere_once(lattice):
    step = np.radians(3.0)
    axes = zone_axes(lattice.turns, step)
    random = Rotation.random(300, random_state=1).as_matrix()[:, :, 2]
    nearest = np.arccos(np.clip((random @ lattice.turns @ axes.T).max(axis=(0, 2)), -1, 1))
    assert nearest.max() < 0.8 * step
    assert len(axes) < 1.25 * 4 * np.pi / (24 * 0.866 * step**2)


def test_orientation_and_centre_are_found_and_nothing_in_scrambled_peaks(lattice):
    templates = make_templates(lattice, BEAM.wavelength, SPEC.templates)
    scores = []
    for seed in range(6):
        true = Rotation.random(random_state=seed).as_matrix()
        shown = pattern(lattice, true, seed, shift=(0.003, -0.002))
        found = rivals(candidates_of(shown, templates, lattice, BEAM, SPEC), lattice.turns, SPEC)
        off = [np.degrees(angle_between(c.orientation[None], true[None], lattice.turns)[0]) for c in found]
        best = found[int(np.argmin(off))]
        assert min(off) < 0.5
        assert len(found) <= 2  # turned by half a turn about the beam, a zone can look the same
        assert best.shift == pytest.approx([0.003, -0.002], abs=0.0006)
        none = candidates_of(scrambled(shown, np.random.default_rng(seed)), templates, lattice, BEAM, SPEC)[0]
        scores.append((best.score, none.score))
    right, wrong = np.array(scores).T
    assert right.min() > 2 > 0 > wrong.max()


def test_scale_of_the_cell_is_found(lattice):
    patterns = [
        pattern(lattice, Rotation.random(random_state=k).as_matrix(), k)
        for k in range(SPEC.templates.scale_frames)
    ]
    wide = [Pattern(p.xy / 1.017, p.intensity) for p in patterns]
    assert find_scale(wide, lattice, BEAM, SPEC) == pytest.approx(1 / 1.017, abs=0.002)
    with pytest.raises(InputError, match="enough peaks"):
        find_scale([Pattern(np.zeros((0, 2)), np.zeros(0))], lattice, BEAM, SPEC)


def test_angles_of_an_orientation():
    for seed in range(5):
        matrix = Rotation.random(random_state=seed).as_matrix()
        assert np.allclose(frame_matrix(*angles_of(matrix)), matrix)
        assert not np.allclose(frame_matrix(*angles_of(matrix)[::-1]), matrix)


def chain_of_two_particles():
    """Five frames of each of two particles that turn by 0.4°; frame 3 has a rival it cannot be told from."""
    starts = Rotation.random(3, random_state=5).as_matrix()
    step = Rotation.from_rotvec(np.radians([0.4, 0, 0])).as_matrix()
    path = [np.linalg.matrix_power(step, k % 5) @ starts[k // 5] for k in range(10)]
    orientations = [p[None] for p in path]
    evidence = [np.zeros(1) for _ in path]
    orientations[3] = np.array([starts[2], path[3]])
    evidence[3] = np.zeros(2)
    return np.arange(10), orientations, evidence


def test_neighbours_decide_between_rivals_and_runs_end_with_the_particle(lattice):
    frame, orientations, evidence = chain_of_two_particles()
    chain = link(frame, orientations, evidence, lattice.turns, RunSpec())
    assert chain.choice[3] == 1
    assert chain.confidence.min() > 0.999
    assert chain.run.tolist() == [0] * 5 + [1] * 5
    alone = link(frame[:1], orientations[3:4], evidence[3:4], lattice.turns, RunSpec())
    assert alone.confidence[0] == pytest.approx(0.5)
    far = link(4 * frame, orientations, evidence, lattice.turns, RunSpec())
    assert far.confidence[3] == pytest.approx(0.5)
    strong = [e.copy() for e in evidence]
    strong[3] = np.array([60.0, 0.0])
    assert link(frame, orientations, strong, lattice.turns, RunSpec()).choice[3] == 0


def test_equivalents_in_a_run_become_neighbours(lattice):
    _, orientations, _ = chain_of_two_particles()
    path = np.array([o[-1] for o in orientations])
    rng = np.random.default_rng(2)
    mixed = path @ lattice.turns[rng.integers(24, size=10)].transpose(0, 2, 1)
    run = np.repeat([0, 1], 5)
    whole = continued(mixed, run, lattice.turns)
    steps = Rotation.from_matrix(whole[1:] @ whole[:-1].transpose(0, 2, 1)).magnitude()
    assert np.degrees(np.delete(steps, 4)).max() < 0.41


def simulated_runs(lattice, seed, contrast):
    """Σ w I and Σ w of 30 runs with classes drawn at random; equivalents under m-3m differ by `contrast`."""
    nodes = lattice_nodes(lattice, "I a -3")
    laue = with_keys(nodes, laue_rotations("m-3", "I a -3"))
    keys = keys_of_classes(lattice, laue)
    mate = np.zeros(laue.n_keys, np.int64)
    mate[laue.key] = nodes.key
    rng = np.random.default_rng(seed)
    true = rng.lognormal(0, contrast, laue.n_keys) * rng.exponential(1, nodes.n_keys)[mate]
    classes = rng.integers(2, size=30)
    top, bottom = np.zeros((2, 30, 2, laue.n_keys))
    for run, c in enumerate(classes):
        seen = rng.choice(len(nodes.hkl), 300, replace=False)
        shown = true[keys[c][seen]] * rng.lognormal(0, 0.3, 300)
        for d in range(2):
            top[run, d] = np.bincount(keys[d][seen], shown, laue.n_keys)
            bottom[run, d] = np.bincount(keys[d][seen], minlength=laue.n_keys)
    return top, bottom, mate, classes


def test_indexing_ambiguity_is_resolved_where_intensities_differ(lattice):
    for seed in range(3):
        top, bottom, mate, classes = simulated_runs(lattice, seed, 0.5)
        found = resolve(top, bottom, mate, AmbiguitySpec())
        assert np.array_equal(found.choice == found.choice[0], classes == classes[0])
        assert found.margin.min() > 0.2
    top, bottom, mate, classes = simulated_runs(lattice, 0, 0.0)
    assert resolve(top, bottom, mate, AmbiguitySpec()).margin.min() < 0.2


def test_spec_refuses_what_makes_no_sense():
    for bad in ({"local": {"reach": [0.1], "s_max": []}}, {"spacegroup": "Q 1"}, {"templates": {"step": 1}}):
        with pytest.raises(ValidationError):
            IndexSpec.model_validate(bad)
    with pytest.raises(ValidationError):
        IndexSpec(cell=(1, 1, 1, 170, 10, 10))


@pytest.mark.parametrize(("laue", "classes"), [("-1", 24), ("mmm", 6)])
def test_nodes_of_a_nearly_cubic_cell_have_their_equivalents_in_every_indexing(laue, classes):
    """At the limit one of two nearly equal lengths may lie inside and the other outside."""
    lattice = known_lattice((10.1, 10.15, 10.12, 90, 90, 90), laue, None, 1.2, 0.01)
    nodes = lattice_nodes(lattice, None)
    assert 0 < len(lattice.hkl) - len(nodes.hkl) < 30
    keys = keys_of_classes(lattice, nodes)
    assert keys.shape == (classes, len(nodes.hkl))
    first = {tuple(h): k for h, k in zip(nodes.hkl.tolist(), nodes.key.tolist(), strict=True)}
    for m, key in zip(lattice.reindexing, keys, strict=True):
        assert [first[tuple(h)] for h in (nodes.hkl @ m.T).tolist()] == key.tolist()
