"""A data set in the formats of other programs: SMV for DIALS and XDS, TIFF with `.pts` for PETS2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from nanoed.pipeline.io.smv import detector_distance_mm, write_smv
from nanoed.pipeline.io.tiff_pets import pts_text, write_tiff
from nanoed.pipeline.io.xds import xds_input
from nanoed.sim.dataset import Nominal, open_dataset
from nanoed.sim.physics.files import write_whole

Format = Literal["smv", "tiff-pets", "xds"]
Progress = Callable[[str, int, int], None]


def export(
    data: str | os.PathLike[str], form: Format, out: Path, progress: Progress | None = None
) -> list[Path]:
    """Write a data set's frames and what describes them into the folder `out`; returns the paths written.

    smv: frame_00001.img ... and dials_import.phil; xds: these and XDS.INP; tiff-pets: tiff/00001.tif ... and a .pts.
    """
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with open_dataset(data) as series:
        nominal = series.nominal
        for i, image in enumerate(series):
            if form == "tiff-pets":
                (out / "tiff").mkdir(exist_ok=True)
                path = out / "tiff" / f"{i + 1:05d}.tif"
                write_tiff(path, image)
            else:
                path = out / f"frame_{i + 1:05d}.img"
                write_smv(path, image, nominal, i)
            written.append(path)
            if progress:
                progress("frames", i + 1, nominal.n_frames)
    for name, text in _descriptions(form, nominal).items():
        write_whole(out / name, text)
        written.append(out / name)
    return written


def _descriptions(form: Format, nominal: Nominal) -> dict[str, str]:
    if form == "tiff-pets":
        names = [f"tiff\\{i + 1:05d}.tif" for i in range(nominal.n_frames)]
        return {"frames.pts": pts_text(nominal, names)}
    texts = {"dials_import.phil": dials_geometry(nominal)}
    if form == "xds":
        texts["XDS.INP"] = xds_input(nominal, "frame_?????.img")
    return texts


def dials_geometry(nominal: Nominal) -> str:
    """Parameters of dials.import for what the SMV header cannot say: tilt axis, detector and wavelength.

    DIALS's frame is ours: z to the source, x along rows, y up.
    """
    azimuth, pixel = np.radians(nominal.axis_azimuth_deg), nominal.pixel_size_um * 1e-3
    x, y = nominal.centre_px
    return f"""geometry {{
  goniometer {{
    axes = {np.cos(azimuth):.12f},{np.sin(azimuth):.12f},0
  }}
  detector {{
    panel {{
      id = 0
      fast_axis = 1,0,0
      slow_axis = 0,-1,0
      origin = {-x * pixel:.9f},{y * pixel:.9f},{-detector_distance_mm(nominal):.9f}
    }}
  }}
}}
"""
