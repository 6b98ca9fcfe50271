"""What checks read of other programs' files: Jana's reflection lists, zones and models."""

from __future__ import annotations

import re
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.sim.physics.crystal import Crystal, from_block
from nanoed.sim.physics.errors import InputError

JANA_COLUMNS = ["h", "k", "l", "I_calc", "I_obs", "sigma", "zone", "seen"]


def jana_pairs(path: Path) -> pd.DataFrame:
    """h, k, l, I_calc, I_obs, sigma, zone, seen (bool: observed) of the first list by zones in a CIF of Jana.

    Read line by line, since strict parsers refuse some of these files. Raises InputError.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        start = next(i for i, line in enumerate(lines) if line.strip() == "_refln_scale_group_code")
    except StopIteration:
        raise InputError("no reflections by zone", file=path, field="_refln_scale_group_code") from None
    rows = []
    for line in lines[start + 2 :]:
        cells = line.split()
        if len(cells) != len(JANA_COLUMNS):
            break
        rows.append([*(float(cell) for cell in cells[:-1]), cells[-1] == "o"])
    table = pd.DataFrame(rows, columns=JANA_COLUMNS)
    return table.astype(dict.fromkeys(("h", "k", "l", "zone"), int))


def jana_model(path: Path, block: str) -> Crystal:
    """The structure of one block of a CIF of Jana, whose other lines strict parsers may refuse. Raises InputError."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = re.split(r"(?m)^data_", text.partition(f"data_{block}\n")[2])[0].splitlines()
    kept = [line for line in lines if re.match(r"_(cell_(length|angle)|symmetry_space_group_name_H-M)", line)]
    for i, line in enumerate(lines[:-1]):
        if line.strip() == "loop_" and lines[i + 1].strip() in ("_atom_site_label", "_atom_site_aniso_label"):
            end = next(j for j in range(i, len(lines)) if not lines[j].strip())
            kept += lines[i:end]
    document = gemmi.cif.read_string(f"data_{block}\n" + "\n".join(kept))
    return from_block(document[0], path)


def jana_zones(path: Path, cell: tuple[float, ...], wavelength: float) -> PetsData:
    """The orientation matrix and zones of the m42 file embedded in a CIF of Jana2020, without reflections."""
    text = path.read_text(encoding="utf-8", errors="replace").partition("_Jana_m42_file")[2]
    after = text.partition("ormat")[2].split()
    ub = np.array(after[:9], float).reshape(3, 3)
    rows = []
    number = r"[-+]?\d+\.\d+"
    for found in re.finditer(rf"# Zone (\d+) .*\n\s*((?:\s*{number}){{6}})", text):
        values = [float(v) for v in re.findall(number, found.group(2))]
        rows.append([int(found.group(1)), *values[:3], values[5], values[3], values[4], 0.0, 1.0])
    if not rows:
        raise InputError("no zones", file=path, field="_Jana_m42_file")
    names = ["id", "u", "v", "w", "semi_angle", "alpha", "beta", "omega", "scale"]
    none = pd.DataFrame(columns=["h", "k", "l", "I", "sigma", "zone"])
    a, b, c, alpha, beta, gamma = cell
    return PetsData((a, b, c, alpha, beta, gamma), wavelength, ub, pd.DataFrame(rows, columns=names), none)
