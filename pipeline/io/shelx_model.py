"""The atoms of a SHELX .ins or .res as a crystal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.io.ins import CELL_LINE
from nanoed.pipeline.refine.sites import equivalent_weights
from nanoed.sim.physics.crystal import Crystal, sound_cell
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
CENTRING = {1: "P", 2: "I", 3: "R", 4: "F", 5: "A", 6: "B", 7: "C"}
SHELXL = """
    ABIN ACTA AFIX ANIS ANSC ANSR BASF BIND BLOC BOND BUMP CELL CGLS CHIV CONF CONN DAMP DANG DEFS DELU DFIX DISP
    EADP END EQIV EXTI EXYZ FEND FLAT FMAP FRAG FREE FVAR GRID HFIX HKLF HTAB ISOR L.S. LATT LAUE LIST MERG MOLE
    MORE MOVE MPLA NCSY NEUT OMIT PART PLAN PRIG REM RESI RIGU RTAB SADI SAME SFAC SHEL SIMU SIZE SPEC STIR SUMP
    SWAT SYMM TEMP TITL TWIN TWST UNIT WGHT WIGL WPDB XNPD ZERR
"""
COMMANDS = frozenset(SHELXL.split())
"""Instructions of SHELXL, which no atom may be named like, whatever numbers stand behind them."""
MOST = 1e6
"""Size of a number in such a file."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")


@dataclass(slots=True)
class _Lines:
    """What has been read: the wavelength and cell, LATT, SYMM, elements, free variables, atoms."""

    cell: list[float] = field(default_factory=list)
    lattice: int = 1
    operations: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)
    variables: list[float] = field(default_factory=list)
    atoms: list[tuple[str, int, list[float]]] = field(default_factory=list)


def read_shelx_model(path: str | Path) -> Crystal:
    """The structure of a SHELX .ins or .res; free variables are put in.

    Occupancies are those of the site: SHELX's, times the order of its symmetry. A negative U rides on the U_eq of the
    last atom that is not hydrogen. Raises InputError for a file without cell, symmetry that is a group's, or atoms.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from error
    found, fragment = _Lines(), False
    for line in re.sub(r"=[^\S\n]*\n", " ", text).splitlines():
        cells = line.partition("!")[0].split()
        word = cells[0].upper() if cells else ""
        fragment = word == "FRAG" or (fragment and word != "FEND")
        if word == "HKLF":
            break
        if fragment:
            continue
        try:
            _take(found, cells)
        except (ValueError, IndexError) as error:
            raise InputError("cannot be understood", file=path, field=cells[0], value=line.strip()) from error
    return _crystal(found, Path(path))


def _take(found: _Lines, cells: list[str]) -> None:
    command = cells[0].upper()[:4] if cells else ""
    if command == "CELL":
        found.cell = [_number(v) for v in cells[1:8]]
    elif command == "LATT":
        found.lattice = int(cells[1])
    elif command == "SYMM":
        found.operations.append("".join(cells[1:]).lower())
    elif command == "SFAC":
        names = cells[1:] if all(c[0].isalpha() for c in cells[1:]) else cells[1:2]
        found.elements += [name.capitalize() for name in names]
    elif command == "FVAR":
        found.variables += [_number(v) for v in cells[1:]]
    elif command not in COMMANDS and len(cells) > 4 and cells[1].isdigit() and _numbers(cells[2:5]):
        if not (cells[0].isascii() and cells[0].isprintable()):
            raise ValueError("not a name")
        found.atoms.append((cells[0], int(cells[1]), [_number(v) for v in cells[2:13]]))


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) < MOST:
        raise ValueError(f"{text} is out of range")
    return value


def _numbers(cells: list[str]) -> bool:
    return all(NUMBER.fullmatch(cell) for cell in cells)


def _crystal(found: _Lines, path: Path) -> Crystal:
    cell = found.cell[1:]
    if len(cell) != 6 or not sound_cell(cell):
        raise InputError("no sound cell", file=path, field="CELL", value=found.cell, allowed=CELL_LINE)
    if not found.atoms:
        raise InputError("no atoms", file=path, field="SFAC", allowed="a .res, or an .ins with atoms")
    wrong = [name for name, number, _ in found.atoms if not 0 < number <= len(found.elements)]
    if wrong:
        raise InputError("no such scattering factor", file=path, field="SFAC", value=wrong[0])
    strange = [name for name in found.elements if gemmi.Element(name).name != name or name == "X"]
    if strange:
        raise InputError("unknown element", file=path, field="SFAC", value=strange[0])
    group = _space_group(found, path)
    values = [[_resolved(v, found.variables, path) for v in numbers] for _, _, numbers in found.atoms]
    elements = tuple(found.elements[number - 1] for _, number, _ in found.atoms)
    a, b, c, alpha, beta, gamma = found.cell[1:]
    none = np.zeros(len(values)), np.full((len(values), 6), np.nan)
    crystal = Crystal(
        path.stem, (a, b, c, alpha, beta, gamma), str(group.xhm()), _told_apart(name for name, _, _ in found.atoms),
        elements, np.array([v[:3] for v in values]), np.array([v[3] if len(v) > 3 else 1.0 for v in values]),
        *none,
    )  # fmt: skip
    u_iso, u_ij = _displacements(elements, values, equivalent_weights(crystal))
    whole = crystal.occupancy * len(crystal.rotations) / crystal.multiplicities
    return replace(crystal, occupancy=whole, u_iso=u_iso, u_ij=u_ij)


def _told_apart(names: Iterable[str]) -> tuple[str, ...]:
    """The names, those that came before (in another residue, say) with a number behind them."""
    labels: list[str] = []
    for name in names:
        label, number = name, 1
        while label in labels:
            number += 1
            label = f"{name}_{number}"
        labels.append(label)
    return tuple(labels)


def _space_group(found: _Lines, path: Path) -> gemmi.SpaceGroup:
    """The group of LATT and SYMM; its name is not in the file."""
    try:
        operations = [gemmi.Op(), *(gemmi.Op(text) for text in found.operations)]
        if found.lattice > 0:
            operations += [gemmi.Op("-x,-y,-z") * op for op in list(operations)]
        pure = gemmi.find_spacegroup_by_name("P 1").operations()
        centred = gemmi.find_spacegroup_by_name(f"{CENTRING[abs(found.lattice)]} 1")
        shifts = (centred.operations() if centred is not None else pure).cen_ops
        if abs(found.lattice) == 3:
            shifts = gemmi.find_spacegroup_by_name("R 3").operations().cen_ops
        every = [op.translated(shift).wrap() for op in operations for shift in shifts]
        group = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(every))
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError("not symmetry operations", file=path, field="SYMM", value=str(error)) from error
    if group is None:
        raise InputError("LATT and SYMM are not a space group's", file=path, field="SYMM")
    return group


def _resolved(value: float, variables: list[float], path: Path) -> float:
    """A number of SHELX: 10 + p is p held, 10 n + p is p times free variable n, -(10 n + p) is p times (1 - it)."""
    n = int((abs(value) + 5) // 10)
    if n == 0:
        return value
    part = abs(value) - 10 * n
    if n == 1:
        return float(np.sign(value)) * part
    if n > len(variables):
        raise InputError("no such free variable", file=path, field="FVAR", value=n)
    return part * (variables[n - 1] if value > 0 else 1 - variables[n - 1])


def _displacements(
    elements: tuple[str, ...], values: list[list[float]], weights: Array
) -> tuple[Array, Array]:
    """U_iso (n,) and U_ij (n, 6) in our order; SHELX lists U11 U22 U33 U23 U13 U12.  weights : (6,) of U_eq."""
    u_iso, u_ij, last = np.empty(len(values)), np.full((len(values), 6), np.nan), 0.05
    for i, numbers in enumerate(values):
        given = numbers[4:] or [0.05]
        if len(given) >= 6:
            u_ij[i] = [*given[:3], given[5], given[4], given[3]]
            u_iso[i] = weights @ u_ij[i]
        else:
            u_iso[i] = -given[0] * last if given[0] < 0 else given[0]
        if elements[i] not in ("H", "D"):
            last = u_iso[i]
    return u_iso, u_ij
