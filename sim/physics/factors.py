"""Electron scattering factors of neutral atoms from three published parametrisations."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import Literal

import gemmi
import numpy as np
from numpy.typing import ArrayLike, NDArray

from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
Table = Literal["peng", "lobato", "kirkland"]
TABLES = ("peng", "lobato", "kirkland")


def electron_factor(element: str, s: ArrayLike, table: str = "peng") -> Array:
    """First-Born scattering factor of an atom at rest, Å, at s = sinθ/λ (1/Å; any shape).

    peng : five Gaussians, International Tables C, table 4.3.2.2, fitted to s = 2 (Peng et al. 1996).
    lobato : Lobato & Van Dyck 2014, eq. 16, with the correct asymptote.  kirkland : Kirkland 2010, appendix C.
    Raises InputError for an element or a table that is not tabulated.
    """
    s2 = np.square(np.asarray(s, float))
    if table == "peng":
        a, b = _peng(element)
        return np.exp(-np.multiply.outer(s2, b)) @ a
    g2 = 4 * s2[..., None]
    if table == "lobato":
        c = _coefficients("lobato", element).reshape(2, 5)
        return (c[0] * (2 + c[1] * g2) / (1 + c[1] * g2) ** 2).sum(-1)
    if table == "kirkland":
        c = _coefficients("kirkland", element).reshape(4, 3)
        return (c[0] / (g2 + c[1]) + c[2] * np.exp(-c[3] * g2)).sum(-1)
    raise InputError("unknown table of scattering factors", value=table, allowed=", ".join(TABLES))


@cache
def _peng(element: str) -> tuple[Array, Array]:
    entry = gemmi.Element(element)
    if entry.atomic_number == 0 or entry.c4322 is None:
        raise InputError("no electron scattering factors for this element", field="element", value=element)
    return np.array(entry.c4322.a), np.array(entry.c4322.b)


def _coefficients(table: str, element: str) -> Array:
    rows = _read(table)
    if element not in rows:
        raise InputError(f"no {table} scattering factors for this element", field="element", value=element)
    return rows[element]


@cache
def _read(table: str) -> dict[str, Array]:
    text = (resources.files("nanoed.sim.physics") / "data" / f"{table}.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {row[0]: np.array([float(x) for x in row[1:]]) for row in list(csv.reader(lines))[1:]}
