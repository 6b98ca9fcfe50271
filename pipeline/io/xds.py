"""XDS.INP: what XDS needs to know about an exported series of SMV frames."""

from __future__ import annotations

import numpy as np

from nanoed.pipeline.io.smv import FULL, detector_distance_mm
from nanoed.sim.dataset import Nominal
from nanoed.sim.physics.electron import wavelength_A


def xds_input(nominal: Nominal, template: str) -> str:
    """Text of XDS.INP for frames whose names are `template` with question marks for the number.

    XDS axes: x along rows, y along columns (down), z along the beam: ours turned by 180° about x, so that the sense of
    rotation is kept. Its first pixel's centre is at (1, 1), ours at (0.5, 0.5).
    """
    azimuth, pixel = np.radians(nominal.axis_azimuth_deg), nominal.pixel_size_um * 1e-3
    ny, nx = nominal.shape
    start = float(nominal.alpha_deg[0]) - 0.5 * nominal.sweep_deg
    n, step = nominal.n_frames, nominal.sweep_deg
    if n > 1:
        step = float(nominal.alpha_deg[-1] - nominal.alpha_deg[0]) / (n - 1)
    lines = {
        "JOB": "XYCORR INIT COLSPOT IDXREF DEFPIX INTEGRATE CORRECT",
        "NAME_TEMPLATE_OF_DATA_FRAMES": template,
        "DATA_RANGE": f"1 {n}",
        "SPOT_RANGE": f"1 {n}",
        "BACKGROUND_RANGE": f"1 {min(n, 10)}",
        "DETECTOR": "ADSC",
        "MINIMUM_VALID_PIXEL_VALUE": "0",
        "OVERLOAD": f"{min(nominal.saturation, FULL)}",
        "NX": f"{nx}",
        "NY": f"{ny}",
        "QX": f"{pixel:.6f}",
        "QY": f"{pixel:.6f}",
        "ORGX": f"{nominal.centre_px[0] + 0.5:.3f}",
        "ORGY": f"{nominal.centre_px[1] + 0.5:.3f}",
        "DETECTOR_DISTANCE": f"{detector_distance_mm(nominal):.4f}",
        "DIRECTION_OF_DETECTOR_X-AXIS": "1 0 0",
        "DIRECTION_OF_DETECTOR_Y-AXIS": "0 1 0",
        "INCIDENT_BEAM_DIRECTION": f"0 0 {1 / wavelength_A(nominal.voltage_kv):.6f}",
        "X-RAY_WAVELENGTH": f"{wavelength_A(nominal.voltage_kv):.9f}",
        "ROTATION_AXIS": f"{np.cos(azimuth):.9f} {-np.sin(azimuth):.9f} 0",
        "STARTING_ANGLE": f"{start:.6f}",
        "STARTING_FRAME": "1",
        "OSCILLATION_RANGE": f"{step:.6f}",
        "INCLUDE_RESOLUTION_RANGE": "20 0.6",
        "TRUSTED_REGION": "0 1.5",
        "SPACE_GROUP_NUMBER": "0",
    }
    return "".join(f"{key}= {value}\n" for key, value in lines.items())
