"""Foreign frame formats: what goes out comes back, what is missing is asked for, what is damaged is refused."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from nanoed.pipeline.io.export import export
from nanoed.pipeline.io.foreign import ImportSpec, import_frames
from nanoed.pipeline.io.smv import read_smv
from nanoed.pipeline.io.tiff_pets import read_pts, read_tiff, voltage_of, write_tiff
from nanoed.sim.dataset import Nominal, open_dataset, write_dataset
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError
from nanoed.studies.cli import status

SHAPE = (40, 60)
EVERYTHING = {
    "voltage_kv": 200.0,
    "a_per_px": 0.01,
    "pixel_size_um": 55.0,
    "centre_px": (31.25, 18.5),
    "exposure_s": 0.5,
    "tilt_min_deg": -1.0,
    "tilt_step_deg": 1.0,
    "axis_azimuth_deg": 38.0,
    "protocol": "continuous_rotation",
    "rotation_deg": 1.0,
}


def frames() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.integers(0, 70_000 if i == 2 else 900, SHAPE).astype(np.uint32) for i in range(4)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    nominal = Nominal(
        voltage_kv=200.0,
        shape=SHAPE,
        a_per_px=0.01,
        pixel_size_um=55.0,
        centre_px=(31.25, 18.5),
        exposure_s=0.5,
        alpha_deg=np.array([-1.0, 0.0, 1.0, 2.0]),
        axis_azimuth_deg=38.0,
        protocol="continuous_rotation",
        semi_angle_deg=0.0,
        rotation_deg=1.0,
        gain=1.0,
        saturation=100_000,
    )
    write_dataset(tmp_path / "data", nominal, frames())
    return tmp_path / "data"


def same(one: Path, two: Path, clipped: int = 2**31 - 1) -> bool:
    with open_dataset(one) as a, open_dataset(two) as b:
        for name in (
            "voltage_kv",
            "a_per_px",
            "pixel_size_um",
            "axis_azimuth_deg",
            "rotation_deg",
            "protocol",
        ):
            x, y = getattr(a.nominal, name), getattr(b.nominal, name)
            assert x == y if isinstance(x, str) else x == pytest.approx(y, rel=1e-6), name
        assert np.allclose(a.nominal.centre_px, b.nominal.centre_px, atol=1e-3)
        assert np.allclose(a.nominal.alpha_deg, b.nominal.alpha_deg, atol=1e-4)
        return all(np.array_equal(np.minimum(x, clipped), y) for x, y in zip(a, b, strict=True))


def test_smv_goes_out_and_comes_back_clipped_at_16_bits(data, tmp_path):
    export(data, "smv", tmp_path / "smv")
    import_frames(tmp_path / "smv", tmp_path / "again", ImportSpec())
    assert same(data, tmp_path / "again", clipped=65535)
    assert not same(data, tmp_path / "again", clipped=65536)
    raw = (tmp_path / "smv" / "frame_00001.img").read_bytes()
    assert len(raw) % 512 == 2 * SHAPE[0] * SHAPE[1] % 512
    pixels, header = read_smv(tmp_path / "smv" / "frame_00001.img")
    assert pixels.shape == SHAPE
    assert (header["OSC_START"], header["SIZE1"]) == ("-1.500000", "60")


def test_tiff_pets_goes_out_and_comes_back(data, tmp_path):
    export(data, "tiff-pets", tmp_path / "pets")
    import_frames(tmp_path / "pets", tmp_path / "again", ImportSpec(pixel_size_um=55.0, exposure_s=0.5))
    assert same(data, tmp_path / "again")
    text = (tmp_path / "pets" / "frames.pts").read_text()
    assert "center 31.750 19.000" in text  # the first pixel's centre is at (1, 1) there
    assert "phi 0.50000" in text


@pytest.mark.parametrize(
    ("counts", "written"),
    [
        (np.array([[-3.0, 65535.4], [2.6, 0.0]]), [[0, 65535], [3, 0]]),
        (np.array([[-3.0, 1e12], [65536.0, 7.0]], np.float32), [[0, 2**31 - 1], [65536, 7]]),
        (np.array([[-1, 5]], np.int16), [[0, 5]]),
    ],
)
def test_tiff_counts_are_clipped_and_do_not_wrap(tmp_path, counts, written):
    write_tiff(tmp_path / "a.tif", counts)
    assert read_tiff(tmp_path / "a.tif").tolist() == written


def test_pets_counts_pixels_from_one(shared):
    """Strong peaks of the glycine set's list lie one pixel beyond their centroids counted from zero."""
    image = read_tiff(shared / "glycine_pets" / "00001.tiff").astype(float)
    rows = [line.split() for line in (shared / "glycine_pets" / "glycine.rpl").read_text().splitlines()]
    peaks = np.array([[float(x) for x in row] for row in rows if len(row) == 12])
    peaks = peaks[(peaks[:, 9] == -11.0) & (peaks[:, 3] > 10)][:, 7:9]
    shifts = []
    for x, y in peaks:
        window = slice(int(y) - 4, int(y) + 4), slice(int(x) - 4, int(x) + 4)
        weight = image[window] - np.median(image[int(y) - 8 : int(y) + 9, int(x) - 8 : int(x) + 9])
        weight = np.where(weight > 0.3 * weight.max(), weight, 0)
        rows_, columns = np.mgrid[window]
        shifts.append(
            [(weight * columns).sum() / weight.sum() - x, (weight * rows_).sum() / weight.sum() - y]
        )
    assert np.allclose(np.median(shifts, axis=0), -1, atol=0.2)


def test_the_glycine_projects_own_file_is_read(shared):
    said, names = read_pts(shared / "glycine_pets" / "glycine.pts")
    assert said["voltage_kv"] == pytest.approx(200, abs=0.05)
    assert said["protocol"] == "continuous_rotation"
    assert said["rotation_deg"] == pytest.approx(0.36)
    assert said["axis_azimuth_deg"] == 230
    assert said["alpha_deg"][:2] == [-11.0, -10.6442]
    assert names[0].parts[-2:] == ("tiff", "00001.tiff")


def test_our_own_file_comes_back(data, tmp_path):
    import_frames(data / "frames.h5", tmp_path / "again", ImportSpec())
    assert same(data, tmp_path / "again")


def test_a_foreign_nxmx_file_says_beam_and_detector_and_the_rest_is_asked_for(data, tmp_path):
    path = tmp_path / "foreign.h5"
    path.write_bytes((data / "frames.h5").read_bytes())
    with h5py.File(path, "a") as file:
        del file["entry/nanoed"]
    with pytest.raises(InputError, match=r"alpha_deg|tilt_min_deg|axis_azimuth_deg|protocol"):
        import_frames(path, tmp_path / "again", ImportSpec())
    rest = {
        k: EVERYTHING[k]
        for k in ("tilt_min_deg", "tilt_step_deg", "axis_azimuth_deg", "protocol", "rotation_deg")
    }
    import_frames(path, tmp_path / "again", ImportSpec(**rest))
    assert same(data, tmp_path / "again")


@pytest.mark.parametrize("stack", [True, False])
def test_mrc_frames_come_in_with_what_the_user_says(data, tmp_path, stack):
    folder = tmp_path / "mrc"
    folder.mkdir()
    kept = [frame.astype(np.float32) for frame in frames()]
    if stack:
        write_mrc(folder / "stack.mrc", kept)
    else:
        for i, frame in enumerate(kept):
            write_mrc(folder / f"f{i + 1}.mrc", [frame])
    import_frames(folder, tmp_path / "again", ImportSpec.model_validate(EVERYTHING))
    assert same(data, tmp_path / "again")


def write_mrc(path: Path, images: list[np.ndarray]) -> None:
    """An MRC2014 file of 32-bit numbers (mode 2)."""
    head = np.zeros(256, "<i4")
    head[:4] = images[0].shape[1], images[0].shape[0], len(images), 2
    head[7:10] = head[:3]
    raw = bytearray(head.tobytes())
    raw[208:212], raw[212:216] = b"MAP ", b"DD\0\0"
    path.write_bytes(bytes(raw) + b"".join(image.astype("<f4").tobytes() for image in images))


def test_what_the_format_lacks_is_named_by_the_program(data, tmp_path, capsys):
    write_mrc(tmp_path / "one.mrc", [frame.astype(np.float32) for frame in frames()])
    assert status(["import", str(tmp_path / "one.mrc"), "--out", str(tmp_path / "x")]) == 2
    assert "--set voltage_kv=VALUE" in capsys.readouterr().err
    assert status(["export", str(data), "--format", "xds", "--out", str(tmp_path / "xds")]) == 0
    text = (tmp_path / "xds" / "XDS.INP").read_text()
    assert "ORGX= 31.750" in text
    assert f"ROTATION_AXIS= {np.cos(np.radians(38)):.9f} {-np.sin(np.radians(38)):.9f} 0" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.img", b"{\nHEADER_BYTES=  512;\nSIZE1=9;\n}"),
        ("a.img", b"\xff\xd8"),
        ("a.mrc", b"\0" * 50),
        ("a.h5", b"no"),
        ("a.pts", b"lambda x\n"),
        ("a.pts", b"omega 3\n"),
        ("a.jpg", b"\xff"),
    ],
)
def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        import_frames(tmp_path / name, tmp_path / "out", ImportSpec())
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert not re.search("unpack|list index|buffer size", str(caught.value))


def test_wavelength_and_voltage_belong_to_each_other():
    assert voltage_of(wavelength_A(200.0)) == pytest.approx(200.0, abs=2e-3)
    assert voltage_of(wavelength_A(120.0)) == pytest.approx(120.0, abs=2e-3)


def test_whether_there_is_room_is_asked_before_anything_is_written(data, tmp_path, capsys, monkeypatch):
    import nanoed.studies.folder as folder

    asked = []
    monkeypatch.setattr(folder, "_reserve", lambda path, size: asked.append(size))
    write_mrc(tmp_path / "stack.mrc", [frame.astype(np.float32) for frame in frames()])
    given = [f"--set={key}={str(value).replace('(', '[').replace(')', ']')}" for key, value in EVERYTHING.items()]
    assert status(["import", str(tmp_path / "stack.mrc"), "--out", str(tmp_path / "in"), *given]) == 0
    assert status(["export", str(data), "--out", str(tmp_path / "out")]) == 0
    assert asked == [4 * 4 * SHAPE[0] * SHAPE[1]] * 2
    monkeypatch.undo()
    monkeypatch.setattr(folder.os, "posix_fallocate", full)
    assert status(["export", str(data), "--out", str(tmp_path / "full")]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not (tmp_path / "full").exists()


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")
