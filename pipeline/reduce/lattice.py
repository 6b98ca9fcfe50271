"""From peaks to the geometry of the series: axis, sense of rotation, lattice, centres, distortion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.axis import find_axis
from nanoed.pipeline.reduce.bravais import Bravais, bravais_lattices, group_of, symbol_of
from nanoed.pipeline.reduce.cellsearch import find_cell
from nanoed.pipeline.reduce.distortion import Distortion
from nanoed.pipeline.reduce.geometry import Geometry, to_reciprocal, to_sample
from nanoed.pipeline.reduce.index import Indexed, index_peaks, refined
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.positions import match, refine_positions
from nanoed.pipeline.reduce.symmetry import absent, metric_class
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import Nominal
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]
LARGEST_STRETCH = 1.2
"""Of an axis in one joint refinement on peak positions: what is indexed is right to some percent."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A Bravais lattice tried: symbol, metric strain in %, cell, scatter of the peaks in pixels with that metric."""

    symbol: str
    strain_pct: float
    cell: tuple[float, ...]
    scatter_px: float


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """geometry; fraction of low-angle peaks indexed; scatter: rms of peak positions per axis in pixels; matched:
    (n,) number of peaks of every frame that the lattice explains; laue, spacegroup: those of the settings or,
    with nothing given, the least symmetric ones of the lattice found; bravais: its name, "" where neither it nor
    a space group was asked for; tried: Bravais lattices with their figures; reversed: the stage turns against the
    nominal sense; senses: fraction of peaks indexed by the nominal sense of rotation and by the other one;
    axis_search: (m, 2) azimuths in rad and the direction variance at them."""

    geometry: Geometry
    fraction: float
    scatter: float
    matched: NDArray[np.int64]
    laue: str
    spacegroup: str | None
    bravais: str
    tried: tuple[Candidate, ...]
    reversed: bool
    senses: tuple[float, float]
    axis_search: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Sense:
    """A sense of rotation: azimuth in rad, the lattice from low-angle peaks, fraction of all peaks it indexes."""

    azimuth: float
    indexed: Indexed
    fraction: float
    residual: float


def find_lattice(nominal: Nominal, peaks: Peaks, centres: Array, spec: ReduceSpec) -> Lattice:
    """Tilt axis near its nominal azimuth or anywhere, sense of rotation, lattice of the given cell or of any.

    Raises InputError where no lattice explains the peaks.
    """
    n = nominal.n_frames
    start = Geometry(
        ub=np.eye(3),
        alpha=np.radians(nominal.alpha_deg),
        beta=np.zeros(n),
        omega=np.full(n, np.radians(nominal.axis_azimuth_deg)),
        centres=centres,
        a_per_px=nominal.a_per_px,
        wavelength=wavelength_A(nominal.voltage_kv),
        semi_angle=np.radians(nominal.semi_angle_deg),
        half_sweep=np.radians(nominal.rotation_deg) / 2,
        distortion=Distortion(edge=0.5 * min(nominal.shape)),
    )
    found, senses, table = _sense(start, peaks, spec)
    geometry = replace(start, ub=found.indexed.ub, omega=np.full(n, found.azimuth))
    laue, group = spec.laue_class, spec.spacegroup
    tried: tuple[Candidate, ...] = ()
    symbol = symbol_of(group) if group else ""
    if spec.cell is None:
        chosen, tried = _bravais(geometry, peaks, spec)
        laue, group = _symmetry(chosen, spec)
        symbol = chosen.symbol
        geometry = replace(geometry, ub=_axes(chosen, geometry, peaks, spec))
    geometry, scatter, matched = _refined(geometry, peaks, metric_class(laue, group), spec)
    turned = np.cos(found.azimuth - np.radians(nominal.axis_azimuth_deg)) < 0
    return Lattice(
        geometry,
        found.indexed.fraction,
        scatter,
        matched,
        laue,
        group,
        symbol,
        tried,
        bool(turned),
        senses,
        table,
    )


def _refined(
    geometry: Geometry, peaks: Peaks, laue: str, spec: ReduceSpec, rounds: int | None = None
) -> tuple[Geometry, float, NDArray[np.int64]]:
    """Joint refinement on peak positions in rounds of matching; geometry, scatter, matched peaks of every frame."""
    ellipse = spec.distortion != "none"
    scatter, matched = np.nan, np.zeros(len(geometry), np.int64)
    steps = list(zip(spec.positions.reach_px, spec.positions.d_star_max, strict=True))
    for number, (reach, d_star_max) in enumerate(steps[:rounds]):
        higher = spec.distortion == "full" and number > 0
        found = match(geometry, peaks, min(d_star_max, spec.d_star_max), reach, spec.integration.tail)
        if len(found.frame) < spec.positions.min_peaks:
            raise InputError("the indexed lattice explains hardly any peak", field="cell", value=spec.cell)
        before = geometry.ub
        geometry, scatter = refine_positions(geometry, found, laue, ellipse, higher, spec.positions)
        if not _similar(geometry.ub, before):
            raise InputError("the lattice ran away from the few peaks that it indexed", field="cell", value=spec.cell)
        matched = np.bincount(found.frame, minlength=len(geometry))
    return geometry, scatter, matched


def _similar(ub: Array, other: Array) -> bool:
    """Whether no axis of one lattice is longer or shorter than the other's by more than LARGEST_STRETCH."""
    ratio = np.linalg.norm(np.linalg.inv(ub), axis=1) / np.linalg.norm(np.linalg.inv(other), axis=1)
    return bool(np.all(np.abs(np.log(ratio)) < np.log(LARGEST_STRETCH)))


def _sense(start: Geometry, peaks: Peaks, spec: ReduceSpec) -> tuple[_Sense, tuple[float, float], Array]:
    """`_sense_of` all peaks, or, where these leave doubt, of the strongest shares of them: those of another crystal in
    the beam are weaker; and then with the axis sought everywhere."""
    best: tuple[_Sense, tuple[float, float], Array] | None = None
    failure: InputError | None = None
    order = np.argsort(-peaks.significance, kind="stable")
    everywhere = spec.model_copy(update={"axis": spec.axis.model_copy(update={"search_deg": 180.0})})
    widths = (spec,) if spec.axis.search_deg == 180 else (spec, everywhere)
    for width, share in product(widths, spec.indexing.strongest):
        some = peaks.select(np.sort(order[: int(np.ceil(share * len(order)))]))
        try:
            found = _sense_of(start, some, width)
        except InputError as error:
            failure = failure or error
            continue
        if best is None or found[0].fraction > best[0].fraction:
            best = found
        if found[0].fraction >= spec.indexing.sure_fraction:
            break
    if best is None:
        assert failure is not None
        raise failure
    return best


def _sense_of(start: Geometry, peaks: Peaks, spec: ReduceSpec) -> tuple[_Sense, tuple[float, float], Array]:
    """The sense of rotation whose lattice indexes more of all peaks, those fractions, nominal sense first, and
    the table of the search for the axis.

    The Ewald sphere is nearly flat, so the mirror image of the lattice fits low angles with the wrong sense; at
    1.4 1/Å the sphere is 0.02 1/Å off the plane and on the other side.
    """
    q = to_reciprocal(start, peaks.frame, peaks.pixels)
    length = np.linalg.norm(q, axis=1)
    order = np.argsort(length, kind="stable")
    near = order[: spec.axis.n_peaks]
    nominal, width = float(start.omega[0]), np.radians(spec.axis.search_deg)
    azimuth, table = find_axis(q[near], start.alpha[peaks.frame[near]], nominal, width, spec.axis.d_star_max)
    if np.cos(azimuth - nominal) < 0:
        azimuth -= np.pi
    low = order[: spec.indexing.n_peaks]
    low = low[length[low] < spec.indexing.d_star_max]
    every = np.nonzero(length < spec.d_star_max)[0]
    found: list[_Sense | None] = []
    failure: InputError | None = None
    for omega in (azimuth, azimuth + np.pi):
        turned = replace(start, omega=np.full(len(start), omega))
        try:
            x = to_sample(turned, peaks.frame[low], q[low])
            if spec.cell is None:
                indexed = find_cell(x, spec.indexing)
            else:
                indexed = index_peaks(x, spec.cell, spec.indexing, spec.spacegroup)
            found.append(_judged(omega, indexed, to_sample(turned, peaks.frame[every], q[every]), spec))
        except InputError as error:
            failure = failure or error
            found.append(None)
    some = [f for f in found if f is not None]
    if not some:
        assert failure is not None
        raise failure
    nominal_sense, other = (0.0 if f is None else f.fraction for f in found)
    best = max(some, key=lambda f: (round(f.fraction, 2), -f.residual))
    return best, (nominal_sense, other), table


def _judged(omega: float, indexed: Indexed, x: Array, spec: ReduceSpec) -> _Sense:
    """How well the lattice, refined on all peaks x (n, 3), explains them."""
    longest = float(np.linalg.norm(np.linalg.inv(indexed.ub), axis=1).max())
    everywhere = refined(x, indexed.ub, spec.indexing.tolerance / longest)
    if everywhere is None:
        return _Sense(omega, indexed, 0.0, np.inf)
    return _Sense(omega, indexed, everywhere.fraction, everywhere.residual)


def _bravais(geometry: Geometry, peaks: Peaks, spec: ReduceSpec) -> tuple[Bravais, tuple[Candidate, ...]]:
    """The lattice of the settings, else the highest symmetry whose metric leaves no more scatter than none.

    An ellipse deforms the metric, so a lattice is judged by the scatter of the peaks about it with an ellipse
    refined, against that of the triclinic lattice without. Raises InputError where the one asked for does not fit.
    """
    free, scatter, _ = _refined(geometry, peaks, "-1", spec, rounds=2)
    options = bravais_lattices(free.ub, spec.indexing.most_strain_pct)
    wanted = spec.indexing.lattice or (symbol_of(spec.spacegroup) if spec.spacegroup else None)
    tried, best = [], None
    for option in options:
        try:
            fitted, own, _ = _refined(replace(free, ub=option.ub), peaks, option.holohedry, spec, rounds=2)
        except InputError:  # its metric explains hardly any peak
            continue
        tried.append(Candidate(option.symbol, option.strain_pct, fitted.cell, own))
        fits = own <= spec.indexing.scatter_ratio * scatter
        if best is None and (option.symbol == wanted if wanted else fits):
            best = replace(option, ub=fitted.ub)
    if best is None:
        raise InputError("the peaks do not have the Bravais lattice asked for", field="indexing.lattice",
                         value=wanted, allowed=", ".join(t.symbol for t in tried))  # fmt: skip
    return best, tuple(tried)


def _symmetry(chosen: Bravais, spec: ReduceSpec) -> tuple[str, str]:
    """Laue class and space group to go on with: those of the settings, else the least symmetric of the lattice."""
    laue = spec.laue or (spec.laue_class if spec.spacegroup else chosen.lowest)
    return laue, spec.spacegroup or group_of(laue, chosen.centring)


def _axes(chosen: Bravais, geometry: Geometry, peaks: Peaks, spec: ReduceSpec) -> Array:
    """UB (3, 3) of the lattice with the axes that the space group asks for.

    Of the choices of axes that keep the metric's symmetry, the one that puts the fewest peaks on nodes that the group
    extinguishes; of equal ones the first.
    """
    if spec.spacegroup is None:
        return chosen.ub
    options = _choices(chosen, metric_class(spec.laue_class, spec.spacegroup))
    if len(options) == 1:
        return options[0]
    q = to_reciprocal(geometry, peaks.frame, peaks.pixels)
    x = to_sample(geometry, peaks.frame, q)
    nodes = [np.round(x @ np.linalg.inv(ub).T).astype(np.int64) for ub in options]
    return options[int(np.argmin([int(absent(hkl, spec.spacegroup).sum()) for hkl in nodes]))]


def _choices(chosen: Bravais, metric: str) -> list[Array]:
    """UB (3, 3) of the choices of axes: orders of orthorhombic ones; of monoclinic ones the unique axis where the group
    has it, with the shortest pairs of the others, that of the lattice first; rhombohedral ones where it is on them."""
    if metric == "r" and chosen.symbol == "hR":
        obverse = np.array([[2.0, 1.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, -2.0, 1.0]]) / 3
        return [chosen.ub @ np.linalg.inv(obverse)]
    if chosen.symbol[0] == "o":
        permuted = [chosen.ub[:, order] for order in permutations(range(3))]
        return [np.asarray(ub * np.sign(np.linalg.det(ub)), np.float64) for ub in permuted]
    if chosen.symbol[0] != "m":
        return [chosen.ub]
    direct = np.linalg.inv(chosen.ub)
    unique = {"2/m a": 0, "2/m c": 2}.get(metric, 1)
    options = []
    for pair in permutations(np.array([[1, 0, 0], [0, 0, 1], [-1, 0, -1]]), 2):
        acute = (pair[0] @ direct) @ (pair[1] @ direct) > 0
        steps = np.insert([pair[0], -pair[1] if acute else pair[1]], unique, [0, 1, 0], axis=0)
        steps[unique] *= round(np.linalg.det(steps))
        options.append(chosen.ub @ np.rint(np.linalg.inv(steps)))
    return options
