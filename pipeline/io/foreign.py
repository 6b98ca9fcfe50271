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
from nanoed.sim.dataset import Nominal, open_dataset, write_dataset
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError

Image = NDArray[Any]
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
    found = find_frames(source)
    first = next(found.images())
    nominal = complete(found, spec, (int(first.shape[0]), int(first.shape[1])), source)
    whole = first.dtype.kind in "iu"
    dtype = np.dtype(np.int32 if whole else np.float32)
    images = (image.astype(dtype) for image in found.images())
    return write_dataset(out, nominal, images, progress, found.mask)


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
    return Nominal(**{field.name: values[field.name] for field in fields(Nominal)})


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
    try:
        with h5py.File(path, "r") as file:
            if "entry/nanoed" in file:
                return _ours(path)
            return _foreign_nxmx(file, path)
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("not a complete NXmx file", file=path, value=str(error)[:60]) from error


def _ours(path: Path) -> Found:
    with open_dataset(path) as data:
        nominal, mask = data.nominal, data.pixel_mask()

    def images() -> Iterator[Image]:
        with open_dataset(path) as series:
            yield from series

    said = {f.name: getattr(nominal, f.name) for f in fields(Nominal)}
    return Found(said, nominal.n_frames, images, mask if mask.any() else None)


def _foreign_nxmx(file: h5py.File, path: Path) -> Found:
    detector, beam = file["entry/instrument/detector"], file["entry/instrument/beam"]
    wavelength = float(np.ravel(beam["incident_wavelength"][()])[0])
    metadata: dict[str, Any] = {"voltage_kv": voltage_of(wavelength)}
    pixel = float(np.ravel(detector["x_pixel_size"][()])[0])
    metadata["pixel_size_um"] = pixel * 1e6
    if "distance" in detector:
        distance = float(np.ravel(detector["distance"][()])[0])
        metadata["a_per_px"] = pixel / (wavelength_A(metadata["voltage_kv"]) * distance)
    if "beam_center_x" in detector and "beam_center_y" in detector:
        metadata["centre_px"] = tuple(float(np.ravel(detector[f"beam_center_{a}"][()])[0]) for a in "xy")
    if "count_time" in detector:
        metadata["exposure_s"] = float(np.ravel(detector["count_time"][()])[0])
    if "saturation_value" in detector:
        metadata["saturation"] = int(np.ravel(detector["saturation_value"][()])[0])
    keys = [k for k in sorted(file["entry/data"]) if getattr(file["entry/data"][k], "ndim", 0) == 3]
    count = sum(len(file["entry/data"][k]) for k in keys)
    if not count:
        raise InputError(
            "no frames here", file=path, field="/entry/data", allowed="frames in three dimensions"
        )

    def images() -> Iterator[Image]:
        with h5py.File(path, "r") as again:
            for key in keys:
                yield from (frame for frame in again["entry/data"][key])

    mask = np.squeeze(detector["pixel_mask"][()]) != 0 if "pixel_mask" in detector else None
    return Found(metadata, count, images, mask)
