"""What checks read of other programs' files: Jana's reflection lists and zones, SHELX models."""

from __future__ import annotations

import re
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.sim.physics.crystal import Crystal
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


def shelx_model(path: Path, spacegroup: str) -> Crystal:
    """The atoms of a SHELX .ins or .res, occupancies 1, in a space group given by its symbol.

    A negative U rides on the U_eq of the last atom that is not hydrogen. Anisotropic ones keep their U_ij (SHELX
    lists U11 U22 U33 U23 U13 U12).
    """
    text = re.sub(r"=\s*\n", " ", path.read_text(encoding="utf-8", errors="replace"))
    cell: list[float] = []
    elements, atoms = [""], []
    for line in text.splitlines():
        cells = line.split()
        command = cells[0].upper() if cells else ""
        if command == "CELL":
            cell = [float(v) for v in cells[2:8]]
        elif command == "SFAC":
            elements.append(cells[1])
        elif command == "HKLF":
            break
        elif len(cells) >= 7 and cells[1].isdigit() and 0 < int(cells[1]) < len(elements):
            atoms.append((cells[0], elements[int(cells[1])], [float(v) for v in cells[2:]]))
    u_iso, u_ij = _shelx_displacements(atoms)
    return Crystal(
        path.stem,
        (cell[0], cell[1], cell[2], cell[3], cell[4], cell[5]),
        spacegroup,
        tuple(a[0] for a in atoms),
        tuple(gemmi.Element(a[1]).name for a in atoms),
        np.array([a[2][:3] for a in atoms]),
        np.ones(len(atoms)),
        u_iso,
        u_ij,
    )


def _shelx_displacements(
    atoms: list[tuple[str, str, list[float]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    u_iso, u_ij, last = np.empty(len(atoms)), np.full((len(atoms), 6), np.nan), 0.0
    for i, (_, element, values) in enumerate(atoms):
        given = values[4:]
        if len(given) >= 6:
            u_ij[i] = [*given[:3], given[5], given[4], given[3]]
            u_iso[i] = np.mean(given[:3])
        else:
            u_iso[i] = -given[0] * last if given[0] < 0 else given[0]
        if element != "H":
            last = u_iso[i]
    return u_iso, u_ij
