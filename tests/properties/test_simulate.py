"""Laws of whole simulated data sets."""

import h5py
import numpy as np
import pytest
from simulations import ALL_FLAWS, crystal, experiment

from nanoed.sim.dataset import open_dataset
from nanoed.sim.diffraction import diffraction, orientations, smeared_precession, smeared_sweep
from nanoed.sim.exposure import simulated_frame
from nanoed.sim.flaws import FLAWS, STANDARD
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import frame_matrix, g_to_pixel
from nanoed.sim.setup import prepare
from nanoed.sim.simulate import simulate
from nanoed.sim.spec import Experiment, Flaws
from nanoed.sim.streams import stream
from nanoed.sim.truth import read_truth


def small(**changes) -> Experiment:
    return experiment(**({"engine": "kinematical", "flaws": ALL_FLAWS} | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    simulate(small(), crystal(), folder / "data", folder / "truth", workers=1)
    return folder


@pytest.mark.parametrize("workers", [2, 4])
def test_more_workers_make_the_same_bytes(workers, made, tmp_path):
    simulate(small(), crystal(), tmp_path / "data", tmp_path / "truth", workers=workers)
    for name in ("data/frames.h5", "truth/truth.json", "truth/truth.h5"):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes(), name


def test_another_seed_makes_other_frames(made, tmp_path):
    simulate(small(seed=8), crystal(), tmp_path / "data", tmp_path / "truth")
    with open_dataset(made / "data") as one, open_dataset(tmp_path / "data") as two:
        assert not np.array_equal(one.frame(0), two.frame(0))


def test_a_frame_does_not_depend_on_the_others(made):
    shorter = prepare(small(protocol__tilt_max_deg=0.0), crystal())
    with open_dataset(made / "data") as data:
        assert len(data) == 4
        assert np.array_equal(data.frame(1), simulated_frame(shorter, 1).image)


def test_streams_are_named():
    assert stream(1, "a", 2).random() == stream(1, "a", 2).random()
    keys = [(1, "a", 2), (1, "a", 3), (2, "a", 2), (1, "b", 2), (1, "a2"), (12, "a")]
    assert len({stream(*key).random() for key in keys}) == len(keys)


def test_spots_are_where_the_true_angles_put_them_and_signs_matter(made):
    truth = read_truth(made / "truth")
    table, a = truth.reflections, truth.summary["a_per_px_true"]
    table = table[table["crystal"] == 0]
    e, lens = complex(*truth.summary["elliptic"]), truth.summary["distortion"]
    p1, c, edge = complex(*lens["parabolic"]), complex(*lens["cubic"]), lens["edge"]

    def misfit(sign_omega: float, sign_beta: float, sign_cubic: float = 1) -> float:
        rms = []
        for i, row in truth.frames.iterrows():
            alpha, beta, omega = np.radians(
                [row.alpha_true_deg, sign_beta * row.beta_true_deg, sign_omega * row.omega_true_deg]
            )
            part = table[table["frame"] == i]
            g = part[["h", "k", "l"]].to_numpy() @ (frame_matrix(alpha, beta, omega) @ truth.ub_true).T
            w = g[:, 0] + 1j * g[:, 1]
            w = w / edge
            quadratic = p1 * w * w.conj() + 0.5 * np.conj(p1) * w * w
            w = edge * (w + e * w.conj() + quadratic + sign_cubic * c * w * w * w.conj())
            x, y = g_to_pixel(np.column_stack([w.real, w.imag]), (row.centre_x_px, row.centre_y_px), a)
            rms.append(np.mean((x - part["x_px"]) ** 2 + (y - part["y_px"]) ** 2))
        return float(np.sqrt(np.mean(rms)))

    assert misfit(1, 1) < 1e-6
    assert misfit(-1, 1) > 10
    assert misfit(1, -1) > 1e-3
    assert misfit(1, 1, -1) > 0.1


def test_bright_pixels_are_at_the_strong_reflections(tmp_path):
    flaws = dict.fromkeys(STANDARD, "default")
    simulate(small(flaws=flaws), crystal(), tmp_path / "data", tmp_path / "truth")
    truth = read_truth(tmp_path / "truth")
    part = truth.reflections[truth.reflections["frame"] == 1]
    strong = part[part["x_px"].between(4, 156) & part["y_px"].between(4, 156)].nlargest(5, "i_true")
    with open_dataset(tmp_path / "data") as data:
        image = data.frame(1).astype(float)
        for row in strong.itertuples():
            here = image[int(row.y_px) - 1 : int(row.y_px) + 2, int(row.x_px) - 1 : int(row.x_px) + 2].mean()
            flipped = image[int(160 - row.y_px), int(row.x_px)]
            assert here > 3 * np.median(image)
            assert here > flipped


def test_the_data_set_does_not_tell_the_truth(made):
    """Nominal values are round ones, whatever the flaws; no seed, no true value is in the file."""
    truth = read_truth(made / "truth")
    with open_dataset(made / "data") as data:
        nominal = data.nominal
    assert nominal.centre_px == (80.0, 80.0)
    assert nominal.a_per_px == 0.016 != truth.summary["a_per_px_true"]
    assert np.array_equal(nominal.alpha_deg, [-10, 0, 10, 20])
    assert nominal.axis_azimuth_deg == round(nominal.axis_azimuth_deg)
    assert np.abs(truth.frames["alpha_true_deg"] - nominal.alpha_deg).max() > 0.01
    names: list[str] = []
    with h5py.File(made / "data" / "frames.h5") as file:
        file.visititems(lambda name, item: names.extend([name, *item.attrs]))
    assert not any(word in name for name in names for word in ("seed", "true", "mosaic", "thickness_mean"))


def test_unrelated_folders_only(tmp_path):
    for truth in ("data", "data/inside", "."):
        with pytest.raises(InputError, match="unrelated folders"):
            simulate(small(), crystal(), tmp_path / "data", tmp_path / truth)


def test_every_flaw_has_a_default_and_a_field():
    assert set(FLAWS) == set(Flaws.model_fields)
    assert all(default.value > 0 and default.source for default in FLAWS.values())


def test_a_smeared_cone_has_the_gaussians_moments():
    """Direction of the beam in the crystal: mean square semi-angle² + 2 spread², round about the cone."""
    rotations, shares = smeared_precession(0.02, 0.002, 90)
    xy = rotations[:, 2, :2]
    assert shares.sum() == pytest.approx(1)
    assert np.allclose(shares @ xy, 0, atol=1e-12)
    square = (shares[:, None] * xy).T @ xy
    assert np.allclose(square, np.eye(2) * (0.02**2 + 2 * 0.002**2) / 2, rtol=1e-3, atol=1e-12)


def test_a_smeared_sweep_has_the_gaussians_moments():
    rotations, shares = smeared_sweep(0.7, 0.01, 0.002, 400)
    xy = rotations[:, 2, :2]
    assert np.allclose(shares @ xy, 0, atol=1e-9)
    across = np.array([-np.sin(0.7), np.cos(0.7)])  # g_z changes with g across the axis
    moments = [shares @ (xy @ direction) ** 2 for direction in (across, [across[1], -across[0]])]
    assert moments == pytest.approx([0.01**2 / 3 + 0.002**2, 0.002**2], rel=5e-3)


@pytest.mark.parametrize("mosaicity", ["off", "default", 0.2])
def test_precession_is_sampled_finely_enough(mosaicity):
    """Four times the samples change intensities by less than 0.5 % in sum."""
    flaws = {"mosaicity_deg": mosaicity}
    coarse, fine = (prepare(small(flaws=flaws, azimuths_factor=f), crystal()) for f in (2.0, 8.0))
    assert len(orientations(fine, 0, 150.0)[0]) > 3 * len(orientations(coarse, 0, 150.0)[0])
    few, many = (diffraction(setup, 0).electrons[1:] for setup in (coarse, fine))
    assert np.abs(few - many).sum() < 0.005 * many.sum()


def test_continuous_rotation_sweeps_the_step():
    setup = prepare(
        small(
            protocol={
                "kind": "continuous_rotation",
                "tilt_min_deg": -1.0,
                "tilt_max_deg": 1.0,
                "tilt_step_deg": 0.5,
                "exposure_s": 0.5,
            }
        ),
        crystal(),
    )
    assert np.allclose(setup.nominal.alpha_deg, [-0.75, -0.25, 0.25, 0.75])
    assert setup.nominal.rotation_deg == 0.5
    assert simulated_frame(setup, 0).image.sum() > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"instrument__beam_diameter_nm": 25.0}, "larger than the beam: .* % is dark"),
        ({"g_max": 3.0}, "corner"),
    ],
)
def test_odd_choices_are_warned_of(changes, words):
    with pytest.warns(UserWarning, match=words):
        prepare(small(**changes), crystal())


def test_only_the_lit_part_scatters():
    with pytest.warns(UserWarning, match="beam"):
        narrow = prepare(small(flaws={}, instrument__beam_diameter_nm=25.0), crystal())
    wide = prepare(small(flaws={}), crystal())
    share = diffraction(narrow, 1).electrons.sum() / diffraction(wide, 1).electrons.sum()
    assert 0.7 < share < 1
