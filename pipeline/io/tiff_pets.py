"""TIFF frames with a `.pts` file: the input of PETS2, written and read.

PETS2 counts pixels so that the first one's centre is at (1, 1), by its own peak list of the glycine set against the
frame beside it; ours is at (0.5, 0.5).
"""

from __future__ import annotations

import logging
import math
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

import fabio.tifimage
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.dataset import LARGEST_FRAME_PX, Nominal
from nanoed.sim.physics.electron import voltage_kv, wavelength_A
from nanoed.sim.physics.errors import InputError

WIDTH, HEIGHT, BITS, COMPRESSION, SAMPLES = 256, 257, 258, 259, 277  # tags of TIFF 6.0
LONGEST_SIDE_PX = 2**16
DEFLATE_MOST = 1032  # bytes that one byte of a compressed image can stand for
logging.getLogger("fabio").setLevel(logging.CRITICAL + 1)  # what it finds wrong is raised as well
ORIGIN_PX = 0.5  # PETS2's pixel coordinates less ours
GEOMETRY = {"precession": "precession", "continuous_rotation": "continuous", "serial": "static"}


def write_tiff(path: Path, image: NDArray[Any]) -> None:
    """One frame, 16 bit where the counts allow it, else 32 bit; counts below 0 and beyond 2³¹ - 1 are clipped."""
    dtype = np.uint16 if image.max(initial=0) < 2**16 else np.int32
    counts = np.clip(np.rint(image.astype(np.float64)), 0, np.iinfo(dtype).max)
    fabio.tifimage.TifImage(data=counts.astype(dtype)).write(str(path))


def read_tiff(path: Path) -> NDArray[Any]:
    """Pixels (ny, nx); raises InputError for a file that is no TIFF frame or declares more than it can hold."""
    try:
        _check_declared(path.read_bytes())
        with warnings.catch_warnings(action="ignore"):  # what they warn of shows in the counts or is raised
            data = fabio.tifimage.TifImage().read(str(path)).data
    except Exception as error:  # fabio raises whatever its parsers do
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise InputError("not a TIFF frame", file=path, value=reason[:60]) from error
    if data is None or data.ndim != 2 or data.dtype.kind not in "iuf":
        raise InputError("not a TIFF frame", file=path, allowed="one plane of counts")
    return np.asarray(data)


def _check_declared(raw: bytes) -> None:
    """Raise ValueError or struct.error where the first image of a TIFF file cannot be in so few bytes."""
    order = {b"II": "<", b"MM": ">"}.get(raw[:2])
    if order is None or struct.unpack_from(f"{order}H", raw, 2)[0] != 42:
        raise ValueError("no TIFF header")
    start = struct.unpack_from(f"{order}I", raw, 4)[0]
    tags: dict[int, int] = {}
    for i in range(struct.unpack_from(f"{order}H", raw, start)[0]):
        tag, kind, count = struct.unpack_from(f"{order}HHI", raw, start + 2 + 12 * i)
        if kind in (3, 4) and count == 1:
            tags[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", raw, start + 10 + 12 * i)[0]
        elif tag in (WIDTH, HEIGHT, BITS, SAMPLES):
            raise ValueError(f"tag {tag} is not one whole number")
    pixels = tags.get(WIDTH, 0) * tags.get(HEIGHT, 0)
    if not 0 < pixels <= LARGEST_FRAME_PX or max(tags[WIDTH], tags[HEIGHT]) > LONGEST_SIDE_PX:
        raise ValueError(f"{tags.get(WIDTH)} x {tags.get(HEIGHT)} pixels")
    if tags.get(SAMPLES, 1) != 1 or tags.get(BITS, 1) not in (8, 16, 32, 64):
        raise ValueError(f"{tags.get(SAMPLES, 1)} samples of {tags.get(BITS, 1)} bits")
    most = len(raw) * (1 if tags.get(COMPRESSION, 1) == 1 else DEFLATE_MOST)
    if pixels * tags.get(BITS, 1) / 8 > most:
        raise ValueError(f"{tags[WIDTH]} x {tags[HEIGHT]} pixels are not all there")


def pts_text(nominal: Nominal, names: Iterable[str]) -> str:
    """The `.pts` file of a series. names : of the frames, relative to it."""
    half = nominal.semi_angle_deg if nominal.protocol == "precession" else 0.5 * nominal.rotation_deg
    x, y = (c + ORIGIN_PX for c in nominal.centre_px)
    head = [
        f"lambda {wavelength_A(nominal.voltage_kv):.10f}",
        f"geometry {GEOMETRY[nominal.protocol]}",
        f"omega {nominal.axis_azimuth_deg:.4f}",
        f"phi {half:.5f}",
        f"aperpixel {nominal.a_per_px:.8f}",
        f"noiseparameters {nominal.gain:.4f} 0.0000",
        f"center {x:.3f} {y:.3f}",
        "beamstop no",
        f"saturationlimit {nominal.saturation}",
        "imagelist",
    ]
    rows = [
        f"{name} {alpha:10.4f} 0.0 0.0 1.0 0 0 0 1"
        for name, alpha in zip(names, nominal.alpha_deg, strict=True)
    ]
    return "\n".join([*head, *rows, "endimagelist"]) + "\n"


def read_pts(path: Path) -> tuple[dict[str, Any], list[Path]]:
    """What a `.pts` file says, by names of Nominal, and the paths of its frames.

    Its wavelength becomes the voltage. Raises InputError where it lists no frames or a number cannot be read.
    """
    found: dict[str, Any] = {}
    frames: list[Path] = []
    alpha: list[float] = []
    listing = False
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0].lower() in ("imagelist", "endimagelist"):
                listing = words[0].lower() == "imagelist"
            elif listing:
                name = PureWindowsPath(" ".join(words[:-8]) if len(words) > 9 else words[0])
                frames.append(path.parent.joinpath(*name.parts))
                alpha.append(_number(words[1] if len(words) <= 9 else words[-8]))
            else:
                found |= _keyword(words)
    except (OSError, ValueError, IndexError) as error:
        raise InputError("not a .pts file", file=path, value=str(error)[:60]) from error
    if not frames:
        raise InputError("no frames are listed", file=path, field="imagelist")
    half = found.pop("phi", None)
    if half is not None and "protocol" in found:
        still = found["protocol"] != "continuous_rotation"
        found |= {"rotation_deg": 0.0 if still else 2 * half}
        found |= {"semi_angle_deg": half if found["protocol"] == "precession" else 0.0}
    return found | {"alpha_deg": alpha}, frames


def _keyword(words: list[str]) -> dict[str, Any]:
    """One line of the head."""
    match words[0].lower(), words[1:]:
        case "lambda", [value, *_]:
            return {"voltage_kv": voltage_of(_number(value))}
        case "omega", [value, *_]:
            return {"axis_azimuth_deg": _number(value)}
        case "phi", [value, *_]:
            return {"phi": _number(value)}
        case "aperpixel", [value, *_]:
            return {"a_per_px": _number(value)}
        case "saturationlimit", [value, *_]:
            return {"saturation": int(_number(value))}
        case "noiseparameters", [value, *_]:
            return {"gain": _number(value)}
        case "center", [x, y, *_] if x.upper() != "AUTO":
            return {"centre_px": (_number(x) - ORIGIN_PX, _number(y) - ORIGIN_PX)}
        case "geometry", [kind, *_]:
            names = {pets: ours for ours, pets in GEOMETRY.items()}
            return {"protocol": names[kind.lower()]} if kind.lower() in names else {}
    return {}


def _number(text: str) -> float:
    """The finite number that a word spells; raises ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def voltage_of(wavelength: float) -> float:
    """`voltage_kv` to 1 V; raises ValueError for what is no wavelength of electrons in Å."""
    if not 1e-3 < wavelength < 1:
        raise ValueError(f"wavelength {wavelength} Å")
    return round(voltage_kv(wavelength), 3)
