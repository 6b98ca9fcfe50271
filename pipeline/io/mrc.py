"""MRC frames and stacks (MRC2014): 1024 bytes of header, an extended header, then pixels, mapped, not loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.errors import InputError

HEADER = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2"}  # those of MRC2014 that counting detectors write


def read_mrc(path: Path) -> NDArray[Any]:
    """Frames (n, ny, nx); raises InputError for a truncated file, complex pixels or an impossible size."""
    try:
        head = np.fromfile(path, "<i4", HEADER // 4)
        if len(head) < HEADER // 4:
            raise ValueError(f"{path.stat().st_size} bytes, the header alone has {HEADER}")
        order = "<" if 0 <= head[3] < 256 else ">"
        nx, ny, nz, mode = (int(v) for v in head.view(f"{order}i4")[:4])
        start = HEADER + int(head.view(f"{order}i4")[23])
        if mode not in MODES or min(nx, ny, nz) < 1 or start < HEADER:
            raise ValueError(f"mode {mode}, {nx} x {ny} x {nz}")
        dtype = np.dtype(f"{order}{MODES[mode]}")
        if start + nx * ny * nz * dtype.itemsize > path.stat().st_size:
            raise ValueError(f"{nx} x {ny} x {nz} pixels are not all there")
        return np.memmap(path, dtype, "r", start, (nz, ny, nx))
    except (OSError, ValueError) as error:
        raise InputError(
            "not a complete MRC file", file=path, value=str(error)[:60], allowed=f"modes {list(MODES)}"
        ) from error
