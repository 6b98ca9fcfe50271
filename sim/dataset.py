"""The on-disk data set: frames and what an experimenter knows about them, in one NXmx file."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import whole
from nanoed.sim.physics.hdf5 import damage, open_contained, stored, table

Array = NDArray[np.float64]

FILE_NAME = "frames.h5"
SCHEMA_VERSION = (1, 0)  # major, minor; a newer major is refused
LARGEST_FRAME_PX = 2**26
LARGEST_COUNT = 10**6
TO_NEXUS = np.array([-1.0, 1.0, -1.0])  # our lab axes to those of NeXus (McStas)
SENSOR_THICKNESS_M = 300e-6
PROTOCOLS = ("precession", "continuous_rotation", "serial")
LIMITS = {  # what no microscope exceeds; beyond it a file is damaged or in other units
    "voltage_kv": (1.0, 1e4),
    "a_per_px": (1e-7, 10.0),
    "pixel_size_um": (1e-3, 1e5),
    "exposure_s": (1e-12, 1e6),
    "gain": (1e-9, 1e9),
    "centre_px": (-1e6, 1e6),
    "alpha_deg": (-1e4, 1e4),
    "axis_azimuth_deg": (-1e4, 1e4),
    "semi_angle_deg": (0.0, 90.0),
    "rotation_deg": (-360.0, 360.0),
    "saturation": (1, 2**62),
}


@dataclass(frozen=True, slots=True, eq=False)
class Nominal:
    """What the microscope's log says about a data set; nothing here is corrected for any flaw.

    shape : (ny, nx).  a_per_px : 1/Å.  centre_px : x, y; the first pixel's centre is (0.5, 0.5).
    exposure_s : per frame.  alpha_deg : (n,) stage angle in the middle of each frame.
    axis_azimuth_deg : tilt axis from x towards y.  protocol : "precession", "continuous_rotation", "serial".
    semi_angle_deg : precession.  rotation_deg : stage rotation during a frame, without its sense.
    gain : counts per electron.  saturation : largest count.  Raises InputError beyond LIMITS.
    """

    voltage_kv: float
    shape: tuple[int, int]
    a_per_px: float
    pixel_size_um: float
    centre_px: tuple[float, float]
    exposure_s: float
    alpha_deg: Array
    axis_azimuth_deg: float
    protocol: str
    semi_angle_deg: float
    rotation_deg: float
    gain: float
    saturation: int

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = np.asarray(getattr(self, name))
            if not (value.dtype.kind in "iuf" and ((value >= low) & (value <= high)).all()):
                shown = value.item() if value.ndim == 0 else f"{value.ravel()[:3]}"
                raise InputError("not allowed", field=name, value=shown, allowed=f"{low:g} to {high:g}")
        if self.protocol not in PROTOCOLS:
            raise InputError("not allowed", field="protocol", value=self.protocol, allowed=", ".join(PROTOCOLS))

    @property
    def n_frames(self) -> int:
        return len(self.alpha_deg)

    @property
    def sweep_deg(self) -> float:
        """Change of alpha_deg during a frame: rotation_deg, negative where the angles of the series fall."""
        falls = self.n_frames > 1 and self.alpha_deg[-1] < self.alpha_deg[0]
        return 0.0 - abs(self.rotation_deg) if falls else self.rotation_deg


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """An open data set: `nominal`, `frame(i)`, `pixel_mask()`, `len()`, iteration in frame order; a context manager."""

    nominal: Nominal
    path: Path
    _file: h5py.File

    def __len__(self) -> int:
        return self.nominal.n_frames

    def frame(self, i: int) -> NDArray[Any]:
        """Counts of frame i, (ny, nx); raises InputError when they cannot be read or are not finite."""
        with damage(self.path, f"frame {i} cannot be read", "a complete file"):
            image = self._file["entry/data/data"][i]
            if image.dtype.kind == "f" and not np.isfinite(image).all():
                raise InputError("counts must be finite", file=self.path, field="frame", value=i)
            return np.asarray(image)

    def pixel_mask(self) -> NDArray[np.bool_]:
        """(ny, nx) True for pixels that the file's own NXmx mask marks for any reason; all False without one.

        Raises InputError where its size is not that of the frames or it cannot be read.
        """
        name = "entry/instrument/detector/pixel_mask"
        with damage(self.path, "the mask cannot be read", "a complete file"):
            if name not in self._file:
                return np.zeros(self.nominal.shape, bool)
            mask = table(self._file, name, LARGEST_FRAME_PX)
        mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
        if mask.shape != self.nominal.shape or mask.dtype.kind not in "iub":
            raise InputError(
                "not a mask of these frames",
                file=self.path,
                field=name,
                value=f"{mask.shape} {mask.dtype}",
                allowed=f"whole numbers of shape {self.nominal.shape}",
            )
        return mask != 0

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self.frame(i) for i in range(len(self)))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> DataSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_dataset(folder: str | os.PathLike[str]) -> DataSet:
    """Open folder/frames.h5 for reading (a path to the file itself will do too).

    Raises InputError for a missing, truncated or foreign file, a newer schema, links out of the file, and
    sizes that do not agree with each other.
    """
    path = Path(folder)
    path = path / FILE_NAME if path.is_dir() or path.suffix != ".h5" else path
    if not path.is_file():
        raise InputError(
            "no data set here", file=path, field="DATA", value=folder, allowed=f"a folder with {FILE_NAME}"
        )
    with damage(path, "not a complete data set", "a complete data set written by nanoed"):
        file = open_contained(path)
        try:
            return DataSet(_read_nominal(file, path), path, file)
        except BaseException:
            file.close()
            raise


def _read_nominal(file: h5py.File, path: Path) -> Nominal:
    log, pixels = file["entry/nanoed"], file["entry/data/data"]
    version = tuple(int(v) for v in log.attrs["schema_version"])
    if version[0] > SCHEMA_VERSION[0]:
        raise InputError(
            "written by a newer version",
            file=path,
            field="schema_version",
            value=".".join(map(str, version)),
            allowed=f"up to {SCHEMA_VERSION[0]}.x",
        )
    if (
        pixels.ndim != 3
        or not 0 < len(pixels) <= LARGEST_COUNT
        or not 0 < pixels.shape[1] * pixels.shape[2] <= LARGEST_FRAME_PX
    ):
        raise InputError(
            "impossible size",
            file=path,
            field="/entry/data/data",
            value=pixels.shape,
            allowed=f"frames of at most {LARGEST_FRAME_PX} pixels, at most {LARGEST_COUNT} of them",
        )
    stored(pixels, "/entry/data/data")
    alpha = table(log, "alpha_deg")
    if alpha.shape != pixels.shape[:1]:
        raise InputError(
            "sizes disagree",
            file=path,
            field="alpha_deg",
            value=alpha.shape,
            allowed=f"{pixels.shape[:1]} numbers",
        )
    number = {
        name: float(log.attrs[name])
        for name in (
            "voltage_kv",
            "a_per_px",
            "pixel_size_um",
            "exposure_s",
            "axis_azimuth_deg",
            "semi_angle_deg",
            "rotation_deg",
            "gain",
        )
    }
    x, y = (float(v) for v in log.attrs["centre_px"])
    return Nominal(
        shape=pixels.shape[1:],
        centre_px=(x, y),
        alpha_deg=alpha.astype(float),
        protocol=str(log.attrs["protocol"]),
        saturation=int(log.attrs["saturation"]),
        **number,
    )


def write_dataset(
    folder: str | os.PathLike[str],
    nominal: Nominal,
    frames: Iterable[NDArray[Any]],
    progress: Callable[[str, int, int], None] | None = None,
    pixel_mask: NDArray[np.bool_] | None = None,
) -> Path:
    """Write folder/frames.h5, complete or not at all; frames are consumed one at a time.

    frames : n_frames arrays (ny, nx) of one dtype.  pixel_mask : (ny, nx) True for pixels that do not count.
    Raises InputError when the folder cannot be written, is full, or the frames do not match `nominal`.
    """
    if pixel_mask is not None and pixel_mask.shape != nominal.shape:
        raise InputError(
            "not a mask of these frames",
            field="pixel_mask",
            value=pixel_mask.shape,
            allowed=str(nominal.shape),
        )
    target = Path(folder) / FILE_NAME
    with whole(target) as partial, h5py.File(partial, "w", libver=("earliest", "v110")) as file:
        data = None
        done = 0
        for i, frame in enumerate(frames):
            if data is None:
                data = _lay_out(file, nominal, frame.dtype)
                if pixel_mask is not None:
                    file["entry/instrument/detector/pixel_mask"] = pixel_mask.astype(np.uint32)
            if frame.shape != nominal.shape or frame.dtype != data.dtype or i >= nominal.n_frames:
                raise InputError(
                    "a frame does not fit the data set",
                    field="frame",
                    value=f"{i} {frame.shape}",
                    allowed=f"{nominal.n_frames} frames of {nominal.shape}",
                )
            _write_chunk(data, i, frame)
            done = i + 1
            if progress:
                progress("frames", done, nominal.n_frames)
        if done != nominal.n_frames:
            raise InputError(
                "frames are missing", field="n_frames", value=done, allowed=str(nominal.n_frames)
            )
    return target


def _write_chunk(data: h5py.Dataset, i: int, frame: NDArray[Any]) -> None:
    """One frame through the shuffle and deflate filters; here because zlib, unlike HDF5, drops the GIL."""
    raw = np.ascontiguousarray(frame).view(np.uint8).reshape(-1, frame.dtype.itemsize).T.tobytes()
    data.id.write_direct_chunk((i, 0, 0), zlib.compress(raw, 4))


def _lay_out(file: h5py.File, nominal: Nominal, dtype: np.dtype[Any]) -> h5py.Dataset:
    """Everything except pixels; returns the pixel dataset, one chunk per frame."""
    file.attrs["file_name"] = FILE_NAME
    entry = _group(file, "entry", "NXentry")
    entry["definition"] = "NXmx"
    file.attrs["default"] = "entry"
    data = _group(entry, "data", "NXdata")
    data.attrs["signal"] = "data"
    pixels = data.create_dataset(
        "data",
        (nominal.n_frames, *nominal.shape),
        dtype,
        chunks=(1, *nominal.shape),
        compression="gzip",
        compression_opts=4,
        shuffle=True,
    )
    source = _group(entry, "source", "NXsource")
    source["name"], source["type"], source["probe"] = (
        "transmission electron microscope",
        "Electron Source",
        "electron",
    )
    _sample(entry, nominal)
    instrument = _group(entry, "instrument", "NXinstrument")
    instrument["name"] = "transmission electron microscope"
    beam = _group(instrument, "beam", "NXbeam")
    _value(beam, "incident_wavelength", wavelength_A(nominal.voltage_kv), "angstrom")
    _detector(instrument, nominal)
    log = _group(entry, "nanoed", "NXcollection")
    log.attrs["schema_version"] = np.array(SCHEMA_VERSION, np.int64)
    for name in (
        "voltage_kv",
        "a_per_px",
        "pixel_size_um",
        "centre_px",
        "exposure_s",
        "axis_azimuth_deg",
        "protocol",
        "semi_angle_deg",
        "rotation_deg",
        "gain",
        "saturation",
    ):
        log.attrs[name] = getattr(nominal, name)
    log["alpha_deg"] = nominal.alpha_deg
    return pixels


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _value(parent: h5py.Group, name: str, value: Any, unit: str) -> h5py.Dataset:
    parent[name] = value
    parent[name].attrs["units"] = unit
    return parent[name]


def _axis(
    parent: h5py.Group, name: str, value: Any, unit: str, kind: str, vector: Any, depends_on: str
) -> None:
    """A NeXus transformation; vector in our lab frame, depends_on an absolute path or "."."""
    axis = _value(parent, name, value, unit)
    axis.attrs["transformation_type"] = kind
    axis.attrs["vector"] = TO_NEXUS * np.asarray(vector, float) + 0.0
    axis.attrs["offset"] = np.zeros(3)
    axis.attrs["offset_units"] = "m"
    axis.attrs["depends_on"] = depends_on


def _sample(entry: h5py.Group, nominal: Nominal) -> None:
    sample = _group(entry, "sample", "NXsample")
    sample["name"] = "sample"
    sample["depends_on"] = "/entry/sample/transformations/alpha"
    moves = _group(sample, "transformations", "NXtransformations")
    azimuth = np.radians(nominal.axis_azimuth_deg)
    start = nominal.alpha_deg - 0.5 * nominal.sweep_deg
    _axis(moves, "alpha", start, "deg", "rotation", (np.cos(azimuth), np.sin(azimuth), 0), ".")
    _value(moves, "alpha_end", start + nominal.sweep_deg, "deg")


def _detector(instrument: h5py.Group, nominal: Nominal) -> None:
    """Detector whose distance gives the nominal 1/Å per pixel at the centre: L = pixel / (λ a)."""
    pixel = nominal.pixel_size_um * 1e-6
    distance = pixel / (wavelength_A(nominal.voltage_kv) * nominal.a_per_px)
    base = "/entry/instrument/detector/transformations/"
    detector = _group(instrument, "detector", "NXdetector")
    detector["depends_on"] = base + "distance"
    detector["description"], detector["type"] = "hybrid pixel detector", "HPC"
    detector["sensor_material"] = "Si"
    _value(detector, "sensor_thickness", SENSOR_THICKNESS_M, "m")
    detector["saturation_value"] = nominal.saturation
    detector["underload_value"] = 0
    for name in ("x_pixel_size", "y_pixel_size"):
        _value(detector, name, pixel, "m")
    _value(detector, "distance", distance, "m")
    _value(detector, "beam_center_x", nominal.centre_px[0], "pixel")
    _value(detector, "beam_center_y", nominal.centre_px[1], "pixel")
    for name in ("count_time", "frame_time"):
        _value(detector, name, nominal.exposure_s, "s")
    moves = _group(detector, "transformations", "NXtransformations")
    _axis(moves, "distance", distance, "m", "translation", (0, 0, -1), ".")
    module = _group(detector, "module", "NXdetector_module")
    module["data_origin"] = np.zeros(2, np.int64)
    module["data_size"] = np.array(nominal.shape, np.int64)
    corner = np.array([-nominal.centre_px[0], nominal.centre_px[1], 0.0]) * pixel
    length = float(np.linalg.norm(corner)) or 1.0
    _axis(module, "module_offset", length, "m", "translation", corner / length, base + "distance")
    offset = "/entry/instrument/detector/module/module_offset"
    _axis(module, "fast_pixel_direction", pixel, "m", "translation", (1, 0, 0), offset)
    _axis(module, "slow_pixel_direction", pixel, "m", "translation", (0, -1, 0), offset)
