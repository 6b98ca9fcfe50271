"""The data set file: what is written is read, what is damaged or foreign is refused in one line."""

import errno

import h5py
import numpy as np
import pytest

from nanoed.sim.dataset import FILE_NAME, Nominal, open_dataset, write_dataset
from nanoed.sim.physics.errors import InputError

NOMINAL = Nominal(
    voltage_kv=200.0,
    shape=(40, 60),
    a_per_px=0.01,
    pixel_size_um=55.0,
    centre_px=(30.0, 20.0),
    exposure_s=0.5,
    alpha_deg=np.array([-1.0, 0.0, 1.0]),
    axis_azimuth_deg=38.0,
    protocol="precession",
    semi_angle_deg=1.2,
    rotation_deg=0.0,
    gain=1.0,
    saturation=2**24 - 1,
)


def frames(n: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.poisson(30.0, NOMINAL.shape).astype(np.uint32) for _ in range(n)]


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path, NOMINAL, frames())
    return tmp_path


def refused(folder, *words: str) -> None:
    with pytest.raises(InputError) as caught, open_dataset(folder) as data:
        list(data)
    line = str(caught.value)
    assert "\n" not in line
    for word in (FILE_NAME, *words):
        assert word in line


def test_frames_and_nominal_values_come_back(folder):
    with open_dataset(folder) as data:
        assert len(data) == 3
        for got, wanted in zip(data, frames(), strict=True):
            assert np.array_equal(got, wanted)
            assert got.dtype == wanted.dtype
        for name in Nominal.__dataclass_fields__:
            assert np.array_equal(getattr(data.nominal, name), getattr(NOMINAL, name)), name


def test_one_chunk_per_frame_gzip_and_shuffle(folder):
    with h5py.File(folder / FILE_NAME) as file:
        pixels = file["entry/data/data"]
        assert (pixels.chunks, pixels.compression, pixels.shuffle) == ((1, 40, 60), "gzip", True)


def test_the_same_frames_make_the_same_bytes(folder, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    write_dataset(again, NOMINAL, frames())
    assert (again / FILE_NAME).read_bytes() == (folder / FILE_NAME).read_bytes()


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_truncated(folder, kept):
    path = folder / FILE_NAME
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw))])
    refused(folder)


def test_missing(tmp_path):
    refused(tmp_path, "no data set")


def test_newer_schema(folder):
    with h5py.File(folder / FILE_NAME, "r+") as file:
        file["entry/nanoed"].attrs["schema_version"] = np.array([2, 0])
    refused(folder, "schema_version", "2.0")


def test_older_or_equal_minor_is_read(folder):
    with h5py.File(folder / FILE_NAME, "r+") as file:
        file["entry/nanoed"].attrs["schema_version"] = np.array([1, 9])
    with open_dataset(folder) as data:
        assert len(data) == 3


def test_external_link(folder):
    with h5py.File(folder / FILE_NAME, "r+") as file:
        del file["entry/data/data"]
        file["entry/data/data"] = h5py.ExternalLink("/etc/hostname", "/x")
    refused(folder, "links")


def test_virtual_and_external_storage(folder):
    with h5py.File(folder / FILE_NAME, "r+") as file:
        del file["entry/data/data"]
        layout = h5py.VirtualLayout((3, 40, 60), np.uint32)
        layout[:] = h5py.VirtualSource("/tmp/elsewhere.h5", "x", (3, 40, 60))
        file.create_virtual_dataset("entry/data/data", layout)
    refused(folder, "virtual")
    with h5py.File(folder / FILE_NAME, "r+") as file:
        del file["entry/data/data"]
        file.create_dataset("entry/data/data", (3, 40, 60), np.uint8, external=[("/etc/hostname", 0, 7200)])
    refused(folder, "external")


@pytest.mark.parametrize("shape", [(2, 40, 60), (3, 2400), (3, 40, 2**60)])
def test_declared_sizes_that_cannot_be(folder, shape):
    with h5py.File(folder / FILE_NAME, "r+") as file:
        del file["entry/data/data"]
        file.create_dataset("entry/data/data", shape, np.uint16, chunks=tuple(min(s, 64) for s in shape))
    refused(folder)


@pytest.mark.parametrize(
    ("name", "value"), [("voltage_kv", -1.0), ("a_per_px", np.nan), ("exposure_s", "long")]
)
def test_impossible_nominal_values(folder, name, value):
    with h5py.File(folder / FILE_NAME, "r+") as file:
        file["entry/nanoed"].attrs[name] = value
    refused(folder)


def test_a_foreign_file(tmp_path):
    (tmp_path / FILE_NAME).write_text("not HDF5")
    refused(tmp_path)
    with h5py.File(tmp_path / FILE_NAME, "w") as file:
        file["something"] = 1
    refused(tmp_path)


def test_a_failure_leaves_nothing_behind(tmp_path):
    def failing():
        yield frames()[0]
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        write_dataset(tmp_path / "new", NOMINAL, failing())
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("count", [2, 4])
def test_a_wrong_number_of_frames_is_refused_and_the_old_file_kept(folder, count):
    before = (folder / FILE_NAME).read_bytes()
    with pytest.raises(InputError):
        write_dataset(folder, NOMINAL, frames(count))
    assert [p.name for p in folder.iterdir()] == [FILE_NAME]
    assert (folder / FILE_NAME).read_bytes() == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable"):
        write_dataset(tmp_path / "file" / "data", NOMINAL, frames())
