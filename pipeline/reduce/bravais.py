"""Bravais lattices that a primitive cell may have, each with its figure of merit (C3.5)."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

ORDER = ("cF", "cI", "cP", "hR", "hP", "tI", "tP", "oF", "oI", "oC", "oP", "mC", "mP", "aP")
"""From the highest symmetry to the lowest; of equal symmetry the larger centring first."""
HOLOHEDRY = {"c": "m-3m", "t": "4/mmm", "o": "mmm", "m": "2/m", "a": "-1", "hP": "6/mmm", "hR": "-3m"}
LOWEST = {"c": "m-3", "t": "4/m", "o": "mmm", "m": "2/m", "a": "-1", "hP": "-3", "hR": "-3"}
"""Laue class of least symmetry that every crystal of the system has."""
_SPACED = {"mmm": "m m m", "4/mmm": "4/m m m", "6/mmm": "6/m m m", "m-3": "m -3", "m-3m": "m -3 m"}
_CENTRES = {
    "P": [],
    "A": [(0, 1, 1)],
    "B": [(1, 0, 1)],
    "C": [(1, 1, 0)],
    "I": [(1, 1, 1)],
    "F": [(0, 1, 1), (1, 0, 1), (1, 1, 0)],
}


@dataclass(frozen=True, slots=True, eq=False)
class Bravais:
    """A conventional cell of a lattice.

    symbol : one of ORDER.  centring : letter of the cell in `ub`.  ub : (3, 3) 1/Å, columns a*, b*, c*.
    strain_pct : how far the metric is from its ideal: unequal lengths in %, angles as 100 times their sine.
    """

    symbol: str
    centring: str
    ub: Array
    strain_pct: float

    @property
    def holohedry(self) -> str:
        """Laue class of the lattice."""
        return HOLOHEDRY.get(self.symbol, HOLOHEDRY.get(self.symbol[0], "-1"))

    @property
    def lowest(self) -> str:
        """The Laue class of least symmetry of this crystal system."""
        return LOWEST.get(self.symbol, LOWEST.get(self.symbol[0], "-1"))


def symbol_of(spacegroup: str) -> str:
    """Bravais lattice of a space group; a primitive hexagonal one is hP also where the group is trigonal."""
    group = gemmi.find_spacegroup_by_name(spacegroup)
    system, centring = group.crystal_system_str(), group.hm[0]
    if system in ("trigonal", "hexagonal"):
        return "hR" if centring == "R" else "hP"
    if system == "monoclinic":
        return "mP" if centring == "P" else "mC"
    return ("a" if system == "triclinic" else system[0]) + ("C" if centring in "AB" else centring)


def group_of(laue: str, centring: str) -> str:
    """The symmorphic space group of a Laue class and a centring letter, which extinguishes nothing else.

    Raises InputError where none has a name, as of "4/mmm" in F.
    """
    point = {"-3m": "-3 m 1", "2/m": "1 2/m 1"}.get(laue, laue)
    if centring == "R":
        point = {"-3m": "-3 m"}.get(laue, laue)
    for name in (
        f"{centring} {point}",
        f"{centring} {' '.join(point)}",
        f"{centring} {_SPACED.get(laue, point)}",
    ):
        if (group := gemmi.find_spacegroup_by_name(name)) is not None:
            return str(group.hm)
    raise InputError("no space group of this Laue class has this centring", field="laue", value=f"{laue}, {centring}")


def bravais_lattices(ub: Array, most_strain_pct: float) -> list[Bravais]:
    """The best conventional cell of every Bravais lattice within the limit, in the order of ORDER; aP comes last.

    ub : (3, 3) 1/Å of a reduced primitive cell. Cells are triples of short lattice vectors, so a higher symmetry
    is found through the vectors that it needs and not through the reduced form, which errors upset.
    """
    primitive = np.linalg.inv(ub)
    steps = np.array([(i, j, k) for i in range(-3, 4) for j in range(-3, 4) for k in range(-3, 4)])
    steps = steps[[tuple(s) > (0, 0, 0) and np.gcd.reduce(s) == 1 for s in steps]]
    vectors = steps @ primitive
    found: dict[str, list[Bravais]] = {symbol: [] for symbol in ORDER}
    found["aP"].append(Bravais("aP", "P", ub, 0.0))
    for rows in _triples(vectors, steps, most_strain_pct):
        for candidate in _named(steps[rows], vectors[rows], most_strain_pct):
            found[candidate.symbol].append(candidate)
    return [_best(cells) for cells in found.values() if cells]


def _best(cells: list[Bravais], slack_pct: float = 1.0) -> Bravais:
    """The cell of shortest axes among those hardly more strained than the least strained one."""
    limit = min(b.strain_pct for b in cells) + slack_pct
    near = [b for b in cells if b.strain_pct <= limit]
    return min(near, key=lambda b: round(float(np.linalg.norm(np.linalg.inv(b.ub), axis=1).sum()), 6))


def _triples(vectors: Array, steps: Ints, limit: float) -> list[list[int]]:
    """Rows (a, b, c) with b at right angles to a and c, volume at most four primitive cells."""
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    cosine = np.abs(unit @ unit.T)
    square = 100 * cosine < limit
    found = []
    for b in range(len(vectors)):
        others = np.nonzero(square[b])[0]
        for n, a in enumerate(others):
            for c in others[n + 1 :]:
                volume = abs(round(float(np.linalg.det(steps[[a, b, c]]))))
                if 1 <= volume <= 4 and cosine[a, c] < 0.71:
                    found.append([int(a), b, int(c)])
    return found


def _named(steps: Ints, vectors: Array, limit: float) -> list[Bravais]:
    """The Bravais lattices that a, b, c with b at right angles to the others make."""
    length = np.linalg.norm(vectors, axis=1)
    unit = vectors / length[:, None]
    ab, bc, ca = (100 * abs(float(unit[i] @ unit[j])) for i, j in ((0, 1), (1, 2), (2, 0)))
    centring = _centring(steps)
    found = []
    if centring in ("P", "A", "C", "I"):
        found += _monoclinic(vectors, centring, max(ab, bc))
    if ca < limit and centring:
        found += _orthogonal(vectors, length, centring, max(ab, bc, ca), limit)
    sixty = 100 * abs(abs(float(unit[0] @ unit[2])) - 0.5) / np.sqrt(0.75)
    even = 100 * abs(float(np.log(length[0] / length[2])))
    strain = max(ab, bc, sixty, even)
    if strain < limit:
        found += _hexagonal(steps, vectors, strain)
    return found


def _centring(steps: Ints) -> str:
    """Letter of the cell whose axes are rows of `steps` in the primitive basis; "" for others."""
    points = np.linalg.inv(steps)
    halves = np.round(2 * points)
    if np.abs(2 * points - halves).max() > 1e-6:
        return ""
    kinds = {tuple((row % 2).astype(int).tolist()) for row in halves} - {(0, 0, 0)}
    sums = kinds | {tuple(((np.array(p) + q) % 2).tolist()) for p in kinds for q in kinds} - {(0, 0, 0)}
    return next((letter for letter, centres in _CENTRES.items() if sums - {(0, 0, 0)} == set(centres)), "")


def _cell(symbol: str, centring: str, axes: Array, strain: float) -> Bravais:
    """Right-handed: c, else a, is turned round where need be."""
    if np.linalg.det(axes) < 0:
        axes = -axes
    return Bravais(symbol, centring, np.asarray(np.linalg.inv(axes), np.float64), strain)


def _monoclinic(v: Array, centring: str, strain: float) -> list[Bravais]:
    """b unique, beta obtuse; A and I become C."""
    a, b, c = v
    if centring == "A":
        a, c = c, a
    if centring == "I":
        options = [(p + s * q, q) for p, q in ((a, c), (c, a)) for s in (1, -1)]
        a, c = min(options, key=lambda o: float(np.linalg.norm(o[0])))
    if centring == "P" and np.linalg.norm(a) > np.linalg.norm(c):
        a, c = c, a
    if a @ c > 0:
        c = -c
    symbol = "mP" if centring == "P" else "mC"
    return [_cell(symbol, "P" if centring == "P" else "C", np.array([a, b, c]), strain)]


def _orthogonal(v: Array, length: Array, centring: str, skew: float, limit: float) -> list[Bravais]:
    """Orthorhombic, tetragonal and cubic cells of three axes at right angles, shortest axis first."""
    order = list(np.argsort(length, kind="stable"))
    if centring in "ABC":  # the centred face is C
        unique = "ABC".index(centring)
        order = [i for i in order if i != unique] + [unique]
        return [_cell("oC", "C", v[order], skew)]
    found = [_cell(f"o{centring}", centring, v[order], skew)]
    short, middle, long = np.log(length[order])
    spread = 100 * (long - short)
    if spread < limit:
        found.append(_cell(f"c{centring}", centring, v[order], max(skew, spread)))
    if centring == "F":
        return found
    pairs = ((100 * (middle - short), order), (100 * (long - middle), [order[1], order[2], order[0]]))
    for difference, axes in pairs:
        if difference < limit:
            found.append(_cell(f"t{centring}", centring, v[axes], max(skew, difference)))
    return found


def _hexagonal(steps: Ints, v: Array, strain: float) -> list[Bravais]:
    """a, a at 120°, c along the row at right angles to both; hR in the obverse setting."""
    a, c, b = v
    rows = steps[[0, 2, 1]].astype(float)
    if a @ b > 0:
        b, rows[1] = -b, -rows[1]
    axes = np.array([a, b, c])
    if np.linalg.det(axes) < 0:
        axes[2], rows[2] = -axes[2], -rows[2]
    volume = abs(round(float(np.linalg.det(rows))))
    if volume == 1:
        return [_cell("hP", "P", axes, strain)]
    if volume != 3:
        return []
    points = np.round(3 * np.linalg.inv(rows)) % 3
    kinds = {tuple(p.astype(int).tolist()) for p in points} - {(0, 0, 0)}
    if kinds & {(2, 1, 1), (1, 2, 2)}:
        return [_cell("hR", "R", axes, strain)]
    if kinds & {(1, 2, 1), (2, 1, 2)}:
        return [_cell("hR", "R", np.array([-axes[0], -axes[1], axes[2]]), strain)]
    return []
