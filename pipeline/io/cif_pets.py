""".cif_pets: per-frame intensities with orientations, the format between PETS2 and dynamical refinement.

Frame i: g_lab = R_z(omega) R_x(alpha) R_y(beta) UB h with active rotations, angles in degrees; omega already
contains the azimuth of the tilt axis. The columns of UB are a*, b*, c* in 1/Å; the file's cell may differ
from it. A zone axis u v w is the direct-lattice direction along lab +z, towards the electron source.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.sim.physics.crystal import read_document, sound_cell
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole
from nanoed.sim.physics.geometry import frame_matrix

ZONE_COLUMNS = ["id", "u", "v", "w", "semi_angle", "alpha", "beta", "omega", "scale"]
REFLECTION_COLUMNS = ["h", "k", "l", "I", "sigma", "zone"]
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_ZONE_TAGS = ("id", "u", "v", "w", "precession_angle", "alpha", "beta", "omega", "scale")
_REFLN_TAGS = ("index_h", "index_k", "index_l", "intensity_meas", "intensity_sigma", "zone_axis_id")
LARGEST_INDEX = 999
_ALSO = {"intensity_meas": "F_squared_meas", "intensity_sigma": "F_squared_sigma"}
"""Core-dictionary names that stand in for those of PETS2."""
GEOMETRY_KEY = "data collection geometry"
"""Line of the text block that says how the frames were recorded."""
_TEXT_TAG = "_diffrn_measurement_details"
_TILT_SU_TAGS = ("_nanoed_zone_axis_id", "_nanoed_zone_axis_tilt_su")


@dataclass(frozen=True, slots=True, eq=False)
class PetsData:
    """Contents of a .cif_pets file.

    cell : a, b, c in Å, angles in degrees, as the file states it.  wavelength : Å.
    ub : (3, 3) 1/Å, columns a*, b*, c*.
    zones : id (int), u, v, w, semi_angle (degrees: precession or half rotation), alpha, beta, omega
        (degrees), scale; in our own files tilt_su, degrees: the error expected of an orientation about either
        direction across the beam, which other programs do not state.
    reflections : h, k, l, zone (int), I, sigma.
    extra : lines "key: value" of the file's text block, in order.
    """

    cell: tuple[float, float, float, float, float, float]
    wavelength: float
    ub: NDArray[np.float64]
    zones: pd.DataFrame
    reflections: pd.DataFrame
    extra: dict[str, str] = field(default_factory=dict)


def zone_axes(ub: NDArray[np.float64], zones: pd.DataFrame) -> NDArray[np.float64]:
    """Direct-lattice directions along lab +z, largest component 1 in size; (n, 3).

    u = UBᵀ R_iᵀ z, since a direct-lattice vector r = UB⁻ᵀ u.
    """
    angles = np.radians(zones[["alpha", "beta", "omega"]].to_numpy(float))
    axes = np.array([ub.T @ frame_matrix(*row)[2] for row in angles]).reshape(-1, 3)
    return axes / np.abs(axes).max(axis=1, keepdims=True, initial=1e-300)


def read_cif_pets(path: str | Path) -> PetsData:
    """Read a file of any PETS2 build or of ours; raises InputError naming the item that is missing."""
    try:
        block = read_document(path)[0]
    except Exception as error:  # the parser's own kinds of errors differ between its versions
        reason = str(error).splitlines()[0] if str(error) else "empty"
        raise InputError(f"cannot be read as CIF ({reason})", file=path) from error
    a, b, c, alpha, beta, gamma = (_number(block, f"_cell_{name}", path) for name in _CELL)
    ub = [[_number(block, f"_diffrn_orient_matrix_UB_{i}{j}", path) for j in "123"] for i in "123"]
    zones = _loop(block, "_diffrn_zone_axis_", _ZONE_TAGS, ZONE_COLUMNS, path)
    reflections = _loop(block, "_refln_", _REFLN_TAGS, REFLECTION_COLUMNS, path)
    unknown = set(reflections["zone"].unique()) - set(zones["id"])
    if unknown:
        raise InputError("reflections of a zone that is not listed", file=path, field="_refln_zone_axis_id",
                         value=min(unknown), allowed="ids of _diffrn_zone_axis_id")  # fmt: skip
    if any(block.find_loop(tag) for tag in _TILT_SU_TAGS):
        zones = zones.assign(tilt_su=_tilt_errors(block, zones, path))
    wavelength = _number(block, "_diffrn_radiation_wavelength", path)
    _check_sound(path, (a, b, c, alpha, beta, gamma), wavelength, np.array(ub), zones, reflections)
    return PetsData(
        (a, b, c, alpha, beta, gamma), wavelength, np.array(ub), zones, reflections, _text_block(block)
    )


def write_cif_pets(path: str | Path, data: PetsData) -> None:
    """Write the file whole or not at all; zone axes are computed from UB and the angles."""
    lines = ["data_pets"]
    names = [f"_cell_{name}" for name in _CELL]
    lines += [f"{tag:<28s} {value:.5f}" for tag, value in zip(names, data.cell, strict=True)]
    lines.append(f"{'_cell_volume':<28s} {gemmi.UnitCell(*data.cell).volume:.5f}")
    lines.append(f"{'_diffrn_radiation_wavelength':<28s} {data.wavelength:.7f}")
    for i, row in enumerate(data.ub, 1):
        lines += [f"_diffrn_orient_matrix_UB_{i}{j} {value:11.8f}" for j, value in enumerate(row, 1)]
    lines += ["_diffrn_pets_omega  0.00000", "", _TEXT_TAG, ";"]
    said = [f"{key}: {value}" for key, value in data.extra.items()]
    lines += [f" {line}" if line.startswith(";") else line for line in said] + [";", "", "loop_"]
    lines += [f"_diffrn_zone_axis_{tag}" for tag in _ZONE_TAGS]
    uvw = zone_axes(data.ub, data.zones)
    columns = data.zones[["semi_angle", "alpha", "beta", "omega", "scale"]].to_numpy(float)
    for number, axis, row in zip(data.zones["id"], uvw, columns, strict=True):
        angles = " ".join(f"{x:10.5f}" for x in row)
        lines.append(f"{number:5d} {axis[0]:9.6f} {axis[1]:9.6f} {axis[2]:9.6f} {angles}")
    errors = data.zones.reindex(columns=["id", "tilt_su"]).dropna()
    if len(errors):
        lines += ["", "loop_", *_TILT_SU_TAGS]
        lines += [f"{z:5d} {e:.5f}" for z, e in zip(errors["id"], errors["tilt_su"], strict=True)]
    lines += ["", "loop_"] + [f"_refln_{tag}" for tag in _REFLN_TAGS]
    hkl = data.reflections[["h", "k", "l", "zone"]].to_numpy(int)
    values = data.reflections[["I", "sigma"]].to_numpy(float)
    lines += [f"{h:4d} {k:3d} {m:3d} {i:14.4f} {s:12.4f} {z:5d}"
              for (h, k, m, z), (i, s) in zip(hkl.tolist(), values.tolist(), strict=True)]  # fmt: skip
    write_whole(path, "\n".join(lines) + "\n")


def _check_sound(
    path: str | Path,
    cell: tuple[float, ...],
    wavelength: float,
    ub: NDArray[np.float64],
    zones: pd.DataFrame,
    reflections: pd.DataFrame,
) -> None:
    """Raise InputError for numbers that no measurement can have."""
    hkl, angles = reflections[["h", "k", "l"]].to_numpy(), zones[["alpha", "beta", "omega"]].to_numpy(float)
    sigma, semi_angle, scale = reflections["sigma"], zones["semi_angle"], zones["scale"]
    tilt_su = zones["tilt_su"].dropna() if "tilt_su" in zones else scale[:0]
    wrong = {
        "_cell_length_a": ("not a cell", not sound_cell(cell)),
        "_diffrn_radiation_wavelength": ("not a wavelength of electrons", not 1e-4 < wavelength < 10),
        "_diffrn_orient_matrix_UB_11": (
            "not the orientation matrix of a lattice",
            np.abs(ub).max() > 1e2 or abs(np.linalg.det(ub)) < 1e-12,
        ),
        "_diffrn_zone_axis_id": (
            "repeated or impossible",
            zones["id"].duplicated().any() or zones["id"].abs().max() > 1e6,
        ),
        "_diffrn_zone_axis_alpha": ("not angles", np.abs(angles).max(initial=0.0) > 1e4),
        _TILT_SU_TAGS[1]: ("not errors of angles", not ((tilt_su > 0) & (tilt_su < 90)).all()),
        "_diffrn_zone_axis_scale": ("not scales", scale.abs().max() > 1e12),
        "_diffrn_zone_axis_precession_angle": ("not angles", not semi_angle.between(0, 90).all()),
        "_refln_index_h": (f"indices beyond {LARGEST_INDEX}", np.abs(hkl).max(initial=0) > LARGEST_INDEX),
        "_refln_intensity_meas": ("impossible intensities", reflections["I"].abs().max() > 1e15),
        "_refln_intensity_sigma": ("negative or impossible", not sigma.between(0, 1e15).all()),
    }
    for tag, (what, found) in wrong.items():
        if found:
            raise InputError(what, file=path, field=tag)


def _number(block: gemmi.cif.Block, tag: str, path: str | Path) -> float:
    value = block.find_value(tag)
    number = gemmi.cif.as_number(value) if value is not None else np.nan
    if not np.isfinite(number):
        raise InputError("missing or not a number", file=path, field=tag, value=value, allowed="a number")
    return float(number)


def _loop(
    block: gemmi.cif.Block, prefix: str, tags: tuple[str, ...], names: list[str], path: str | Path
) -> pd.DataFrame:
    """The loop as a table; `id`, `zone`, h, k, l become int, the rest float."""
    if prefix == "_diffrn_zone_axis_" and not block.find_loop(prefix + "scale"):
        tags, names = tags[:-1], names[:-1]
    columns = {}
    for tag, name in zip(tags, names, strict=True):
        column = block.find_loop(prefix + tag) or block.find_loop(prefix + _ALSO.get(tag, tag))
        if not column or len(column) == 0:
            raise InputError("missing loop item", file=path, field=prefix + tag, allowed="a .cif_pets loop")
        try:
            values = np.array([gemmi.cif.as_number(x) for x in column])
        except ValueError as error:
            raise InputError("not a number", file=path, field=prefix + tag, value=str(error)) from error
        if not np.isfinite(values).all():
            raise InputError("not a number", file=path, field=prefix + tag, allowed="finite numbers")
        if name in ("id", "zone", "h", "k", "l"):
            if np.abs(values).max() > 1e9 or np.abs(values - values.round()).max() > 0.01:
                raise InputError("not a whole number", file=path, field=prefix + tag)
            values = values.round().astype(np.int64)
        columns[name] = values
    if len({len(values) for values in columns.values()}) > 1:
        raise InputError("items of unequal number", file=path, field=prefix + tags[0], allowed="one loop")
    table = pd.DataFrame(columns)
    if "scale" not in table and prefix == "_diffrn_zone_axis_":
        table["scale"] = 1.0
    return table


def _tilt_errors(block: gemmi.cif.Block, zones: pd.DataFrame, path: str | Path) -> pd.Series:
    """The errors stated for the zones' orientations, degrees; NaN where there is none."""
    stated = _loop(block, "_nanoed_zone_axis_", ("id", "tilt_su"), ["id", "tilt_su"], path)
    if stated["id"].duplicated().any() or not stated["id"].isin(zones["id"]).all():
        raise InputError("repeated or of no zone", file=path, field=_TILT_SU_TAGS[0])
    return zones["id"].map(stated.set_index("id")["tilt_su"])


def _text_block(block: gemmi.cif.Block) -> dict[str, str]:
    """Lines "key: value" of whichever text item holds "dstarmax" (its tag moves between PETS2 builds)."""
    for item in block:
        pair: Any = item.pair
        text = gemmi.cif.as_string(pair[1]) if pair is not None else ""
        lines = [line.rpartition(":") for line in text.splitlines() if ":" in line]
        if any("dstarmax" in key + value for key, _, value in lines):
            return {key.strip(): value.strip() for key, _, value in lines}
    return {}
