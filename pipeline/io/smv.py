"""SMV frames (`.img`): a text header of 512-byte blocks, then 16-bit pixels; what ADSC-style readers open.

Keys that begin with NANOED_ carry what the format has no word for, so that an exported series is read back whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.dataset import Nominal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole

BLOCK = 512
FULL = 2**16 - 1  # larger counts are shown as this
LARGEST_HEADER = 64 * BLOCK


def detector_distance_mm(nominal: Nominal) -> float:
    """Distance at which a pixel at the centre spans the nominal 1/Å: L = pixel / (λ a)."""
    return nominal.pixel_size_um * 1e-3 / (wavelength_A(nominal.voltage_kv) * nominal.a_per_px)


def write_smv(path: Path, image: NDArray[Any], nominal: Nominal, i: int) -> None:
    """Write frame i of a series; counts above 65535 are clipped.

    image : (ny, nx).  The beam centre is given in mm from the corner of the first pixel, x along a row.
    """
    pixel = nominal.pixel_size_um * 1e-3
    start = float(nominal.alpha_deg[i]) - 0.5 * nominal.sweep_deg
    fields: dict[str, Any] = {
        "DIM": 2,
        "BYTE_ORDER": "little_endian",
        "TYPE": "unsigned_short",
        "SIZE1": nominal.shape[1],
        "SIZE2": nominal.shape[0],
        "PIXEL_SIZE": f"{pixel:.6f}",
        "BIN": "none",
        "TIME": f"{nominal.exposure_s:.6f}",
        "DISTANCE": f"{detector_distance_mm(nominal):.6f}",
        "PHI": f"{start:.6f}",
        "OSC_START": f"{start:.6f}",
        "OSC_RANGE": f"{nominal.sweep_deg:.6f}",
        "WAVELENGTH": f"{wavelength_A(nominal.voltage_kv):.9f}",
        "BEAM_CENTER_X": f"{nominal.centre_px[0] * pixel:.6f}",
        "BEAM_CENTER_Y": f"{nominal.centre_px[1] * pixel:.6f}",
        "CCD_IMAGE_SATURATION": min(nominal.saturation, FULL),
        "GAIN": nominal.gain,
        "NANOED_VOLTAGE_KV": nominal.voltage_kv,
        "NANOED_A_PER_PX": nominal.a_per_px,
        "NANOED_AXIS_AZIMUTH_DEG": nominal.axis_azimuth_deg,
        "NANOED_PROTOCOL": nominal.protocol,
        "NANOED_SEMI_ANGLE_DEG": nominal.semi_angle_deg,
    }
    text = "".join(f"{key}={value};\n" for key, value in fields.items())
    size = BLOCK * -(-(len(text) + 40) // BLOCK)
    head = f"{{\nHEADER_BYTES={size:5d};\n{text}}}\n".ljust(size).encode("ascii")
    counts = np.clip(np.rint(image), 0, FULL).astype("<u2")
    write_whole(path, head + counts.tobytes())


def read_smv(path: Path) -> tuple[NDArray[Any], dict[str, str]]:
    """Pixels (ny, nx) and header of one frame; raises InputError for anything but a complete SMV file."""
    try:
        raw = path.read_bytes()
        begun, _, rest = raw[:BLOCK].decode("latin-1").partition("HEADER_BYTES=")
        told = rest.partition(";")[0].strip()
        if not begun.startswith("{") or not told.isdecimal() or not 0 < int(told) <= LARGEST_HEADER:
            raise ValueError("no header with HEADER_BYTES")
        size = int(told)
        lines = raw[:size].decode("ascii").replace("\n", "").strip("{} \f").split(";")
        header = {k.strip(): v.strip() for k, _, v in (line.partition("=") for line in lines) if k.strip()}
        order = "<" if header.get("BYTE_ORDER", "little_endian") == "little_endian" else ">"
        shape = _size(header, "SIZE2"), _size(header, "SIZE1")
        end = size + 2 * shape[0] * shape[1]
        if len(raw) < end:
            raise ValueError(f"{shape[1]} x {shape[0]} pixels are not all there")
        pixels = np.frombuffer(raw[size:end], order + "u2").reshape(shape)
    except (OSError, ValueError) as error:
        raise InputError(
            "not a complete SMV frame", file=path, value=str(error)[:60], allowed="header and 16-bit pixels"
        ) from error
    return pixels, header


def _size(header: dict[str, str], key: str) -> int:
    text = header.get(key, "missing")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{key} is {text}")
    return int(text)


def smv_metadata(header: dict[str, str]) -> dict[str, Any]:
    """What a header says of a series, by names of Nominal; alpha_deg is that of this frame alone."""
    number = {key: float(value) for key, value in header.items() if _is_number(value)}
    found: dict[str, Any] = {}
    for name, key in (("exposure_s", "TIME"), ("gain", "GAIN")):
        if key in number:
            found[name] = number[key]
    if "OSC_RANGE" in number:
        found["rotation_deg"] = abs(number["OSC_RANGE"])
    if "OSC_START" in number and "OSC_RANGE" in number:
        found["alpha_deg"] = number["OSC_START"] + 0.5 * number["OSC_RANGE"]
    if number.get("PIXEL_SIZE", 0.0) > 0:
        found["pixel_size_um"] = 1e3 * number["PIXEL_SIZE"]
        if "BEAM_CENTER_X" in number and "BEAM_CENTER_Y" in number:
            found["centre_px"] = tuple(number[f"BEAM_CENTER_{axis}"] / number["PIXEL_SIZE"] for axis in "XY")
    if "CCD_IMAGE_SATURATION" in number:
        found["saturation"] = int(number["CCD_IMAGE_SATURATION"])
    for name in ("voltage_kv", "a_per_px", "axis_azimuth_deg", "semi_angle_deg"):
        if f"NANOED_{name.upper()}" in number:
            found[name] = number[f"NANOED_{name.upper()}"]
    if "NANOED_PROTOCOL" in header:
        found["protocol"] = header["NANOED_PROTOCOL"]
    return found


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False
