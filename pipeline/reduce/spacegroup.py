"""Laue class from the agreement of equivalents, space groups ranked by their systematic absences (C7).

Reflections that a space group extinguishes are excited dynamically all the same, so that no group is refused for
them: each reflection is held against two distributions of intensities, one of them a tenth as strong as the other.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.special import log_ndtr, logsumexp

from nanoed.pipeline.reduce.bravais import group_of
from nanoed.pipeline.reduce.merge import group_means, r_int
from nanoed.pipeline.reduce.positions import constrained_cell
from nanoed.pipeline.reduce.symmetry import Index, absent, laue_rotations, representative
from nanoed.pipeline.spec import SymmetryTestSpec
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
INDICES = ["h", "k", "l"]
CLASSES = {"m": ("2/m",), "o": ("mmm",), "t": ("4/m", "4/mmm"), "c": ("m-3", "m-3m"),
           "hP": ("-3", "-3m1", "-31m", "6/m", "6/mmm"), "hR": ("-3", "-3m")}  # fmt: skip
"""Laue classes that a crystal with a Bravais lattice may have, the least symmetric one first."""
_NAMED = {"-3m1": ("-3m", "P -3 m 1"), "-31m": ("-3m", "P -3 1 m")}


@dataclass(frozen=True, slots=True)
class LaueTest:
    """A Laue class tried: its name, the symmorphic group that fixes its setting, disagreement of the reflections that
    it makes equivalent beside the lowest class (of all equivalents for that one), groups of them, accepted or not."""

    laue: str
    spacegroup: str
    r_int: float
    n: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Extinctions:
    """Space groups with the same systematic absences among the measured reflections.

    groups : their symbols, centrosymmetric ones first, in the setting of the cell.  n_absent : unique reflections
    that they extinguish, centring apart.  mean_ratio, i_over_sigma : mean of these intensities over what is
    expected of them at their |g|, and over their errors; nan without any.  log_odds : natural logarithm of the
    likelihood over that of the best; 0 for the best.
    """

    groups: tuple[str, ...]
    n_absent: int
    mean_ratio: float
    i_over_sigma: float
    log_odds: float


@dataclass(frozen=True, slots=True)
class SymmetryFound:
    """laue, spacegroup : the accepted class of most equivalents and its symmorphic group.  tests : of the Laue
    classes. r_unrelated : disagreement of reflections that have nothing to do with each other.  ranking : of the
    groups in the class that was found, the likeliest first."""

    laue: str
    spacegroup: str
    tests: tuple[LaueTest, ...]
    r_unrelated: float
    ranking: tuple[Extinctions, ...]

    def record(self) -> dict[str, Any]:
        """What reduction.json holds of it."""
        names = ("laue", "r_int", "n", "accepted")
        ranks = ("groups", "n_absent", "mean_ratio", "i_over_sigma", "log_odds")
        return {
            "laue_tests": [{name: getattr(t, name) for name in names} for t in self.tests],
            "r_int_unrelated": self.r_unrelated,
            "space_groups": [
                {name: list(v) if isinstance(v := getattr(e, name), tuple) else v for name in ranks}
                for e in self.ranking
            ],
        }


def find_symmetry(
    measured: pd.DataFrame, ub: Array, bravais: str, centring: str, spec: SymmetryTestSpec
) -> SymmetryFound:
    """Laue class and ranked space groups of measured reflections.

    measured : h, k, l, I, sigma, one row per measured hkl, those that a space group may extinguish among them (all
    that the centring allows).  ub : (3, 3) 1/Å.  bravais : symbol of the lattice; centring : letter of its cell.
    """
    tests, unrelated = laue_tests(measured, ub, bravais, centring, spec)
    best = max(
        [t for t in tests if t.accepted] or tests[:1],
        key=lambda t: (len(laue_rotations(t.laue, t.spacegroup)), -t.r_int),
    )
    ranking = ranked(measured, ub, best.laue, best.spacegroup, spec)
    return SymmetryFound(best.laue, best.spacegroup, tests, unrelated, ranking)


def lattice_of_metric(cell: tuple[float, ...], slack: float = 0.005) -> str:
    """Primitive Bravais lattice whose axes have the lengths and angles of the cell (Å, degrees) within `slack`, in
    this order of the axes."""
    found = np.array(cell)
    for symbol, laue in (("cP", "m-3m"), ("hP", "6/mmm"), ("tP", "4/mmm"), ("oP", "mmm"), ("mP", "2/m")):
        ideal = constrained_cell(laue, found)
        lengths = np.abs(ideal[:3] / found[:3] - 1).max()
        if max(lengths, np.radians(np.abs(ideal[3:] - found[3:])).max()) < slack:
            return symbol
    return "aP"


def laue_tests(
    measured: pd.DataFrame, ub: Array, bravais: str, centring: str, spec: SymmetryTestSpec
) -> tuple[tuple[LaueTest, ...], float]:
    """The Laue classes of a Bravais lattice, and R of unrelated neighbours in |g|.

    The lowest class, which every crystal of the system has, is refused where its equivalents disagree like
    unrelated ones: the metric deceives, or the data are not worth much. A higher one is accepted where the
    reflections that it adds to the equivalents disagree less than halfway between those of the lowest class and
    unrelated ones, unless a class that it contains is refused.
    """
    hkl = measured[INDICES].to_numpy(np.int64)
    intensity = measured["I"].to_numpy(float)
    tests: list[LaueTest] = []
    keys, mean, unrelated, own = hkl, intensity, np.nan, np.nan
    for laue, group in _named_classes(bravais, centring):
        rotations = laue_rotations(laue, group)
        unique = representative(keys, rotations)
        equal, which = np.unique(unique, axis=0, return_inverse=True)
        pairs = int((np.bincount(which) > 1).sum())
        r = r_int(mean, which)
        if not tests:
            own = r
            keys, mean = equal, group_means(mean, np.ones_like(mean), which, np.ones(len(mean), bool))
            unrelated = _unrelated(keys, mean, ub)
            tests.append(LaueTest(laue, group, r, pairs, not r > spec.no_symmetry * unrelated))
            continue
        base = own if np.isfinite(own) else 0.0
        limit = base + spec.halfway * (unrelated - base)
        mine = {m.tobytes() for m in rotations}
        refused = [t for t in tests if not t.accepted]
        within = any({m.tobytes() for m in laue_rotations(t.laue, t.spacegroup)} <= mine for t in refused)
        good = pairs >= spec.min_pairs and bool(r <= limit) and not within
        tests.append(LaueTest(laue, group, r, pairs, good))
    return tuple(tests), unrelated


def _named_classes(bravais: str, centring: str) -> list[tuple[str, str]]:
    """Laue classes of a Bravais lattice with their symmorphic groups, where these have a name with this centring: 4/m
    with F and 2/m with B have none; "-1" where no class has."""
    found = []
    for name in CLASSES.get(bravais, CLASSES.get(bravais[:1], ("-1",))):
        laue, group = _NAMED.get(name, (name, ""))
        with suppress(InputError):
            found.append((laue, group or group_of(laue, centring)))
    return found or [("-1", group_of("-1", centring))]


def _unrelated(hkl: Index, intensity: Array, ub: Array) -> float:
    """Σ |I - I'| / Σ (I + I') of reflections next to each other in |g|."""
    order = np.argsort(np.linalg.norm(hkl @ ub.T, axis=1), kind="stable")
    first, second = intensity[order][:-1:2], intensity[order][1::2]
    total = (first + second).sum()
    return float(np.abs(first - second).sum() / total) if total > 0 else float("nan")


def ranked(
    measured: pd.DataFrame, ub: Array, laue: str, setting: str, spec: SymmetryTestSpec
) -> tuple[Extinctions, ...]:
    """Space groups of a Laue class in its setting by the likelihood of their absences, those of equal ones together.

    Intensities over the mean at the same |g| are exponential (Wilson 1949), with mean 1 where allowed, or the
    multiplicity of the special line or plane where the crystal has the mirrors for it; at most `dynamical_share` of
    that where absent; and they carry their measured error. What is not known of the crystal, mirrors and share, is
    averaged over.
    """
    unique, ratio, error, multiplicity = normalised(measured, ub, laue, setting, spec)
    shares = spec.dynamical_share / 2.0 ** np.arange(4)
    levels = (np.ones(len(ratio)), multiplicity)
    present = np.array([_log_density(ratio, error, level) for level in levels])
    gone = np.array([[_log_density(ratio, error, share * level) for share in shares] for level in levels])
    classes: dict[bytes, tuple[NDArray[np.bool_], list[str]]] = {}
    for name in groups_of(laue, setting):
        extinct = absent(unique, name)
        classes.setdefault(extinct.tobytes(), (extinct, []))[1].append(name)
    found = []
    for extinct, names in classes.values():
        whole = present[:, None, ~extinct].sum(axis=2) + gone[:, :, extinct].sum(axis=2)
        likelihood = float(logsumexp(whole) - np.log(whole.size))
        strength = ratio[extinct] / np.maximum(error[extinct], 1e-9)
        mean = float((ratio / multiplicity)[extinct].mean()) if extinct.any() else float("nan")
        noise = float(strength.mean()) if extinct.any() else float("nan")
        found.append(Extinctions(tuple(names), int(extinct.sum()), mean, noise, likelihood))
    best = max((e.log_odds for e in found), default=0.0)
    found.sort(key=lambda e: (-e.log_odds, e.groups))
    return tuple(
        Extinctions(e.groups, e.n_absent, e.mean_ratio, e.i_over_sigma, e.log_odds - best) for e in found
    )


def normalised(
    measured: pd.DataFrame, ub: Array, laue: str, setting: str, spec: SymmetryTestSpec
) -> tuple[Index, Array, Array, Array]:
    """Unique hkl (n, 3), I over <I> at the same |g|, its error, and the multiplicity of the line or plane, each (n,).

    <I> is a running mean over general reflections.  The error is at least the scatter of equivalents,
    `relative_error`.
    """
    rotations = laue_rotations(laue, setting)
    keys, which = np.unique(
        representative(measured[INDICES].to_numpy(np.int64), rotations), axis=0, return_inverse=True
    )
    intensity, sigma = measured["I"].to_numpy(float), measured["sigma"].to_numpy(float)
    weight = 1.0 / np.maximum(sigma, 1e-3 * np.abs(intensity).mean()) ** 2
    total = np.bincount(which, weight)
    mean, error = np.bincount(which, weight * intensity) / total, total**-0.5
    g = np.linalg.norm(keys @ ub.T, axis=1)
    multiplicity = _multiplicity(keys, rotations)
    general = multiplicity == 1
    if general.sum() < 10:
        general[:] = True
    order = np.argsort(g[general], kind="stable")
    shell = uniform_filter1d(mean[general][order], min(spec.shell, len(order)), mode="nearest")
    level = np.maximum(np.interp(g, g[general][order], shell), 1e-3 * np.abs(mean).mean())
    return keys, mean / level, np.hypot(error, spec.relative_error * np.abs(mean)) / level, multiplicity


def _multiplicity(hkl: Index, rotations: Index) -> Array:
    """(n,) operations of the centrosymmetric point group that leave a reflection where it is."""
    return np.array([(hkl @ r == hkl).all(axis=1) for r in rotations]).sum(axis=0).astype(float)


def _log_density(x: Array, sigma: Array, mean: Array) -> Array:
    """Logarithm of exponential densities of these means folded with Gaussians of width sigma, at x; all (n,)."""
    return -np.log(mean) + 0.5 * (sigma / mean) ** 2 - x / mean + log_ndtr(x / sigma - sigma / mean)


@lru_cache(maxsize=32)
def groups_of(laue: str, setting: str) -> tuple[str, ...]:
    """Symbols of all tabulated settings of space groups with the rotations and the centring of the symmorphic group
    `setting`, centrosymmetric ones first; every symbol once."""
    wanted = gemmi.find_spacegroup_by_name(setting)
    matrices = {m.tobytes() for m in laue_rotations(laue, setting)}
    centring = sorted(map(tuple, wanted.operations().cen_ops))
    found: dict[str, tuple[bool, int]] = {}
    for group in gemmi.spacegroup_table():
        operations = group.operations()
        if group.laue_str() != laue or sorted(map(tuple, operations.cen_ops)) != centring:
            continue
        own = np.array([op.rot for op in operations.sym_ops], np.int64) // gemmi.Op.DEN
        if {m.tobytes() for r in own for m in (r, -r)} == matrices:
            found.setdefault(str(group.hm), (not group.is_centrosymmetric(), group.number))
    return tuple(sorted(found, key=lambda name: found[name]))
