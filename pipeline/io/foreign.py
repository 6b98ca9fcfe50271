"""Users' own frames into a data set: SMV, TIFF with `.pts`, MRC and NXmx; what a format lacks is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from nanoed.pipeline.io.mrc import read_mrc
from nanoed.pipeline.io.smv import read_smv, smv_metadata
from nanoed.pipeline.io.tiff_pets import read_pts, read_tiff, voltage_of
from nanoed.sim.dataset import LARGEST_FRAME_PX, Nominal, open_dataset, write_dataset
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.hdf5 import damage, open_contained, stored, table

Image = NDArray[Any]
NOT_NXMX = ("not a complete NXmx file", "an NXmx file with its frames inside")
ASSUMED: dict[str, Any] = {"gain": 1.0, "saturation": 2**31 - 1, "semi_angle_deg": 0.0}


class ImportSpec(BaseModel):
    """What a user says of foreign frames; None: what the files say.

    tilt_min_deg : stage angle at the middle of the first frame.  tilt_step_deg : from frame to frame.
    axis_azimuth_deg : tilt axis from x (along rows) towards y (up).  The others as in Nominal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    voltage_kv: PositiveFloat | None = None
    a_per_px: PositiveFloat | None = None
    pixel_size_um: PositiveFloat | None = None
    centre_px: tuple[float, float] | None = None
    exposure_s: PositiveFloat | None = None
    tilt_min_deg: Annotated[float, Field(ge=-180, le=180)] | None = None
    tilt_step_deg: float | None = None
    axis_azimuth_deg: float | None = None
    protocol: Literal["precession", "continuous_rotation", "serial"] | None = None
    semi_angle_deg: Annotated[float, Field(ge=0, le=5)] | None = None
    rotation_deg: Annotated[float, Field(ge=0, le=90)] | None = None
    gain: PositiveFloat | None = None
    saturation: Annotated[int, Field(gt=0)] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What files hold: metadata by names of Nominal, the number of frames, a way to go through them, and a mask (ny,
    nx), True for pixels that do not count, where they have one."""

    metadata: dict[str, Any]
    n_frames: int
    images: Callable[[], Iterator[Image]]
    mask: NDArray[np.bool_] | None = None


def import_frames(
    source: Path, out: Path, spec: ImportSpec, progress: Callable[[str, int, int], None] | None = None
) -> Path:
    """Make a data set in `out` of foreign frames; returns the path of frames.h5.

    source : a .pts, .h5, .nxs or .mrc file, or a folder or one frame of a series of .img, .mrc files.
    Raises InputError for unreadable files, frames of unequal size, and metadata that neither they nor `spec` give.
    """
    return import_found(find_frames(source), source, out, spec, progress)


def frames_bytes(found: Found) -> int:
    """Space that the frames may take as a data set or in another format: 32 bits a pixel, without compression."""
    return 4 * found.n_frames * next(found.images()).size


def import_found(
    found: Found,
    source: Path,
    out: Path,
    spec: ImportSpec,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """As `import_frames`, of frames that have been found; `source` is for messages."""
    first = next(found.images())
    if first.ndim != 2 or first.dtype.kind not in "iuf":
        raise InputError("not frames of counts", file=source, value=f"{first.dtype} {first.shape}")
    shape = (int(first.shape[0]), int(first.shape[1]))
    _check_size(shape, source)
    nominal = complete(found, spec, shape, source)
    dtype = np.dtype(np.int32 if first.dtype.kind in "iu" else np.float32)
    return write_dataset(out, nominal, _counts(found, shape, dtype, source), progress, found.mask)


def find_frames(source: Path) -> Found:
    """Recognise what `source` is by its suffix."""
    if source.is_dir():
        for suffix in (".pts", ".img", ".mrc"):
            names = sorted(source.glob(f"*{suffix}"))
            if names:
                return find_frames(names[0])
        raise InputError("no frames here", file=source, allowed=".pts, .img or .mrc files")
    if not source.is_file():
        raise InputError("no such file", file=source)
    readers = {".pts": _pets, ".img": _smv, ".mrc": _mrc, ".h5": _nxmx, ".nxs": _nxmx}
    if source.suffix.lower() not in readers:
        raise InputError("unknown format", file=source, allowed=", ".join(readers))
    return readers[source.suffix.lower()](source)


def complete(found: Found, spec: ImportSpec, shape: tuple[int, int], source: Path) -> Nominal:
    """Nominal values from the files, overridden by `spec`; what is still missing is named."""
    said = {name: value for name, value in spec.model_dump().items() if value is not None}
    values = ASSUMED | found.metadata | said | {"shape": shape}
    if {"tilt_min_deg", "tilt_step_deg"} & set(said):
        step = said.get("tilt_step_deg", 0.0)
        values["alpha_deg"] = said.get("tilt_min_deg", 0.0) + step * np.arange(found.n_frames)
    if values.get("protocol") == "serial" and "alpha_deg" not in values:
        values["alpha_deg"] = np.zeros(found.n_frames)
    if values.get("protocol") in ("precession", "serial"):
        values.setdefault("rotation_deg", 0.0)
    for field in fields(Nominal):
        if field.name not in values:
            name = "tilt_min_deg" if field.name == "alpha_deg" else field.name
            raise InputError(
                "the frames do not say this", file=source, field=name, allowed=f"--set {name}=VALUE"
            )
    values["alpha_deg"] = np.asarray(values["alpha_deg"], float)
    if len(values["alpha_deg"]) != found.n_frames:
        raise InputError("as many angles as frames are needed", file=source, value=len(values["alpha_deg"]))
    try:
        return Nominal(**{field.name: values[field.name] for field in fields(Nominal)})
    except InputError as error:
        raise InputError(str(error), file=source) from error


def _series(path: Path) -> list[Path]:
    """All files named like `path` but for the last number in the name, in the order of that number."""
    match = re.match(r"(.*?)(\d+)(\D*)$", path.name)
    if match is None:
        return [path]
    pattern = re.compile(re.escape(match[1]) + r"(\d+)" + re.escape(match[3]) + "$")
    numbered = [(int(m[1]), p) for p in path.parent.iterdir() if (m := pattern.match(p.name))]
    return [p for _, p in sorted(numbered)]


def _smv(path: Path) -> Found:
    paths = _series(path)
    headers = [smv_metadata(read_smv(p)[1]) for p in paths]
    metadata = dict(headers[0])
    angles = [header.get("alpha_deg") for header in headers]
    metadata.pop("alpha_deg", None)
    if None not in angles:
        metadata["alpha_deg"] = angles
    return Found(metadata, len(paths), lambda: (read_smv(p)[0] for p in paths))


def _pets(path: Path) -> Found:
    metadata, paths = read_pts(path)
    return Found(metadata, len(paths), lambda: (read_tiff(p) for p in paths))


def _mrc(path: Path) -> Found:
    """A stack, or a series of single frames; an MRC file says nothing of the geometry."""
    paths = _series(path)
    counts = [read_mrc(p).shape[0] for p in paths]
    return Found({}, sum(counts), lambda: (frame for p in paths for frame in read_mrc(p)))


def _nxmx(path: Path) -> Found:
    """Ours, or what can be read from another program's NXmx file without following external links' metadata."""
    with damage(path, *NOT_NXMX), open_contained(path) as file:
        return _ours(path) if "entry/nanoed" in file else _foreign_nxmx(file, path)


def _ours(path: Path) -> Found:
    with open_dataset(path) as data:
        nominal, mask = data.nominal, data.pixel_mask()

    def images() -> Iterator[Image]:
        with open_dataset(path) as series:
            yield from series

    said = {f.name: getattr(nominal, f.name) for f in fields(Nominal)}
    return Found(said, nominal.n_frames, images, mask if mask.any() else None)


def _foreign_nxmx(file: h5py.File, path: Path) -> Found:
    detector, data = file["entry/instrument/detector"], file["entry/data"]

    def number(group: h5py.Group, name: str) -> float:
        return float(table(group, name).flat[0])

    metadata: dict[str, Any] = {"voltage_kv": voltage_of(number(file["entry/instrument/beam"], "incident_wavelength"))}
    pixel = number(detector, "x_pixel_size")
    metadata["pixel_size_um"] = pixel * 1e6
    if "distance" in detector:
        metadata["a_per_px"] = pixel / (wavelength_A(metadata["voltage_kv"]) * number(detector, "distance"))
    if "beam_center_x" in detector and "beam_center_y" in detector:
        metadata["centre_px"] = (number(detector, "beam_center_x"), number(detector, "beam_center_y"))
    if "count_time" in detector:
        metadata["exposure_s"] = number(detector, "count_time")
    if "saturation_value" in detector:
        metadata["saturation"] = int(number(detector, "saturation_value"))
    keys = [key for key in sorted(data) if getattr(data[key], "ndim", 0) == 3]
    count = sum(len(stored(data[key], f"/entry/data/{key}")) for key in keys)
    if not count:
        raise InputError(
            "no frames here", file=path, field="/entry/data", allowed="frames in three dimensions"
        )
    for key in keys:
        _check_size(data[key].shape[1:], path)

    def images() -> Iterator[Image]:
        with damage(path, *NOT_NXMX), open_contained(path) as again:
            for key in keys:
                yield from (frame for frame in again["entry/data"][key])

    return Found(metadata, count, images, _mask(detector))


def _mask(detector: h5py.Group) -> NDArray[np.bool_] | None:
    """The pixels that the detector's own mask marks; None without one."""
    if "pixel_mask" not in detector:
        return None
    return np.squeeze(table(detector, "pixel_mask", LARGEST_FRAME_PX)) != 0


def _check_size(shape: tuple[int, ...], source: Path) -> None:
    if not 0 < shape[0] * shape[1] <= LARGEST_FRAME_PX:
        raise InputError("impossible size", file=source, value=shape, allowed=f"at most {LARGEST_FRAME_PX} pixels")


def _counts(found: Found, shape: tuple[int, int], dtype: np.dtype[Any], source: Path) -> Iterator[Image]:
    """The frames as `dtype`; integers too large for it become its largest. Raises InputError where one does not fit."""
    whole, (ny, nx) = dtype.kind == "i", shape
    kind = "integers" if whole else "real numbers"
    for i, image in enumerate(found.images()):
        if image.shape != shape or image.dtype.kind not in ("iu" if whole else "f"):
            raise InputError("frames of unequal size or type", file=source, field="frame", value=i,
                             allowed=f"{nx} x {ny} pixels, {kind}")  # fmt: skip
        if whole:
            own, ours = np.iinfo(image.dtype), np.iinfo(dtype)
            yield np.clip(image, max(own.min, ours.min), min(own.max, ours.max)).astype(dtype)
            continue
        with np.errstate(over="ignore"):
            single = image.astype(dtype)
        if found.mask is not None:
            single[found.mask] = 0  # what a mask hides need not be a number
        if not np.isfinite(single).all():
            raise InputError("counts must be finite", file=source, field="frame", value=i)
        yield single
