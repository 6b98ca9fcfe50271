"""SHELX files: HKLF 4 reflection lists and the .ins with electron scattering factors."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from nanoed.pipeline.io.formula import parse_formula
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.factors import electron_factor
from nanoed.sim.physics.files import write_whole

LARGEST = 9999.99
LARGEST_INDEX = 999


def write_hkl(path: str | Path, reflections: pd.DataFrame) -> float:
    """Write h, k, l, I, sigma as HKLF 4 (3I4, 2F8.2), scaled so that the largest I is 9999.99.

    Returns the scale factor that was applied; sigma is at least 0.01 so that no weight becomes infinite.
    """
    if reflections.empty:
        raise InputError("no reflections to write", file=path)
    scale = _scale(reflections["I"].to_numpy(float))
    lines = []
    for h, k, m, i, s in reflections[["h", "k", "l", "I", "sigma"]].itertuples(index=False):
        lines.append(
            f"{h:4d}{k:4d}{m:4d}{max(i * scale, -999.99):8.2f}{np.clip(s * scale, 0.01, LARGEST):8.2f}"
        )
    lines.append(f"{0:4d}{0:4d}{0:4d}{0.0:8.2f}{0.0:8.2f}")
    write_whole(path, "\n".join(lines) + "\n")
    return scale


def _scale(intensities: np.ndarray) -> float:
    """What makes the largest intensity 9999.99, or the most negative -999.99 where none is positive."""
    top = float(intensities.max())
    if top > 0:
        return LARGEST / max(top, 1e-300)
    return 999.99 / max(-float(intensities.min()), 1e-300) if intensities.min() < 0 else 1.0


def read_hkl(path: str | Path) -> pd.DataFrame:
    """Read HKLF 4 into columns h, k, l (int), I, sigma; the line 0 0 0 ends the list.

    Raises InputError for a line of another form, indices beyond 999 and numbers that are not finite.
    """
    rows = []
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from error
    for number, line in enumerate(text, 1):
        if not line.strip():
            break
        try:
            hkl = tuple(int(line[i : i + 4]) for i in (0, 4, 8))
            values = float(line[12:20]), float(line[20:28])
            if max(map(abs, hkl)) > LARGEST_INDEX or not np.isfinite(values).all() or values[1] < 0:
                raise ValueError("out of range")
        except ValueError as error:
            raise InputError("not a line of HKLF 4 (3I4, 2F8.2; sigma not negative)", file=path, field=f"line {number}",
                             value=line[:28]) from error  # fmt: skip
        if hkl == (0, 0, 0):
            break
        rows.append((*hkl, *values))
    if not rows:
        raise InputError("no reflections", file=path)
    return pd.DataFrame(rows, columns=["h", "k", "l", "I", "sigma"])


def write_ins(
    path: str | Path,
    title: str,
    wavelength: float,
    cell: tuple[float, ...],
    spacegroup: str,
    composition: str,
    cell_su: tuple[float, ...] = (0.0,) * 6,
) -> None:
    """Write TITL, CELL with the wavelength, ZERR, LATT, SYMM, electron SFAC and UNIT.

    composition : formula such as "TiO2"; the formula units per cell are guessed from the volume.
    """
    group = gemmi.find_spacegroup_by_name(spacegroup)
    if group is None:
        raise InputError("unknown space group", field="spacegroup", value=spacegroup, allowed="an H-M symbol")
    formula = parse_formula(composition)
    heavy = sum(n for element, n in formula.items() if element != "H")
    units = _formula_units(gemmi.UnitCell(*cell).volume, heavy, len(group.operations()))
    lines = [f"TITL {title} in {spacegroup}", f"CELL {wavelength:.6f} " + " ".join(f"{x:.4f}" for x in cell)]
    lines.append(f"ZERR {units} " + " ".join(f"{x:.4f}" for x in cell_su))
    lines += _symmetry_lines(group)
    for element in formula:
        numbers = " ".join(f"{x:.4f}" for x in four_gaussians(element))
        atom = gemmi.Element(element)
        lines.append(f"SFAC {element:<2s} {numbers} 0 0 0 =")
        lines.append(f"     {atom.covalent_r:.2f} {atom.weight:.3f}")
    if formula:
        lines.append("UNIT " + " ".join(f"{units * n:g}" for n in formula.values()))
    lines += ["L.S. 10", "WGHT 0.1", "HKLF 4", "END"]
    write_whole(path, "\n".join(lines) + "\n")


@cache
def four_gaussians(element: str) -> tuple[float, ...]:
    """a1 b1 ... a4 b4 c of SHELX's SFAC, f(s) = sum a exp(-b s²) + c in Å with c = 0.

    Least-squares fit of Peng's five Gaussians on s = 0..1.5 1/Å, which SHELX has no room for.
    """
    s = np.linspace(0.0, 1.5, 151)
    f = np.asarray(electron_factor(element, s, "peng"))

    def residual(p: np.ndarray) -> np.ndarray:
        return np.exp(-np.outer(s**2, np.exp(p[4:]))) @ np.exp(p[:4]) - f

    start = np.log(np.concatenate([f[0] * np.array([0.3, 0.35, 0.25, 0.1]), [40.0, 12.0, 3.0, 0.6]]))
    fit = least_squares(residual, start, method="lm", max_nfev=5000)
    return (*(float(x) for x in np.exp(fit.x.reshape(2, 4).T).ravel()), 0.0)


def _formula_units(volume: float, heavy: float, order: int, volume_per_atom: float = 14.0) -> int:
    """Divisor or small multiple of the group's order that puts each non-hydrogen atom nearest to 14 Å³."""
    if heavy == 0:
        return 1
    choices = [order // d for d in range(1, order + 1) if order % d == 0] + [2 * order, 3 * order, 4 * order]
    return min(choices, key=lambda z: abs(np.log(volume / (z * heavy * volume_per_atom))))


def _symmetry_lines(group: gemmi.SpaceGroup) -> list[str]:
    """LATT (negative without a centre at the origin) and SYMM without identity, centring and that centre."""
    lattice = {"P": 1, "I": 2, "R": 3, "F": 4, "A": 5, "B": 6, "C": 7}[group.centring_type()]
    if group.ext == "R":
        lattice = 1
    operations = group.operations()
    inversion = gemmi.Op("-x,-y,-z")
    shifts = [gemmi.Op().translated(shift) for shift in operations.cen_ops]
    centred = any((shift * inversion).wrap() == op for shift in shifts for op in operations.sym_ops)
    seen: set[str] = {gemmi.Op().triplet()}
    lines = [f"LATT {lattice if centred else -lattice}"]
    for op in operations.sym_ops:
        images = [shift * op for shift in shifts]
        if centred:
            images += [inversion * image for image in images]
        if any(image.wrap().triplet() in seen for image in images):
            continue
        seen.add(op.triplet())
        lines.append(f"SYMM {op.triplet().upper()}")
    return lines
