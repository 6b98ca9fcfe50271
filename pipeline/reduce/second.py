"""A second lattice, of another particle in the beam, from the peaks that the first one does not explain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from nanoed.pipeline.reduce.cellsearch import find_cell
from nanoed.pipeline.reduce.geometry import (
    Geometry,
    candidates,
    cell_of,
    predict,
    to_pixels,
    to_reciprocal,
    to_sample,
)
from nanoed.pipeline.reduce.index import index_peaks
from nanoed.pipeline.reduce.neighbours import nearest
from nanoed.pipeline.reduce.peaks import Peaks
from nanoed.pipeline.reduce.profile import Profile
from nanoed.pipeline.reduce.symmetry import laue_rotations
from nanoed.pipeline.reduce.unindexed import explained
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.physics.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SecondLattice:
    """in_first : (3, 3) indices in the first lattice of the second one's reciprocal axes: UB_2 = UB_1 @ in_first,
    however both are turned.  fraction, share : of all peaks and of their intensity that it alone explains.
    indexed : of the peaks that the first one leaves.  same_cell : it is the first one's cell.  cell : Å and
    degrees.  angle_deg, axis : smallest rotation that carries the first to the second, about a direction in the
    crystal's Cartesian frame (x along a, z along c*); angle nan where the cells differ."""

    in_first: Array
    fraction: float
    share: float
    indexed: float
    same_cell: bool
    cell: tuple[float, ...]
    angle_deg: float
    axis: tuple[float, ...]

    def geometry(self, first: Geometry) -> Geometry:
        """The same frames with the second lattice."""
        return replace(first, ub=first.ub @ self.in_first)

    def record(self, first: Geometry, profile: Profile, spec: ReduceSpec) -> dict[str, Any]:
        """What reduction.json holds of it; n_excluded : spots of the first lattice left out because it covers
        them."""
        other = self.geometry(first)
        nodes = tuple(candidates(g.ub, spec.d_star_max) for g in (first, other))
        distance = spec.integration.min_separation * profile.core
        excluded = count_covered(first, other, (nodes[0], nodes[1]), distance, spec.integration.tail)
        return {
            "fraction": self.fraction,
            "intensity_share": self.share,
            "indexed_of_the_rest": self.indexed,
            "same_cell": self.same_cell,
            "cell": list(self.cell),
            "angle_deg": self.angle_deg,
            "axis": list(self.axis),
            "n_excluded": excluded,
        }


def find_second(geometry: Geometry, peaks: Peaks, laue: str, spec: ReduceSpec) -> SecondLattice | None:
    """The lattice of most of the peaks that the first does not explain: its own cell turned, else any cell.

    geometry : refined.  laue : class whose rotations make orientations equivalent.  None where too few peaks are
    left, where no lattice explains `second.min_indexed` of them, or only one that is turned by less than
    `least_deg`.
    """
    settings = spec.second
    q = to_reciprocal(geometry, peaks.frame, peaks.pixels)
    length = np.linalg.norm(q, axis=1)
    reach, tail = spec.positions.reach_px[-1], spec.integration.tail
    planes = 1 / float(np.linalg.norm(np.linalg.inv(geometry.ub), axis=1).max())
    far = max(tail, min(settings.tails * tail, spec.indexing.tolerance * planes))
    known = explained(geometry, peaks, float(length.max(initial=0.1)), reach, far)
    left = np.nonzero(~known & (length < spec.indexing.d_star_max))[0]
    if not settings.find or len(left) < settings.min_peaks:
        return None
    left = left[np.argsort(length[left], kind="stable")[: spec.indexing.n_peaks]]
    x = to_sample(geometry, peaks.frame[left], q[left])
    loose = spec.indexing.model_copy(update={"min_fraction": settings.min_indexed})
    rest = peaks.select(left)
    try:
        ub, same = index_peaks(x, geometry.cell, loose).ub, True
    except InputError:
        try:
            strict = loose.model_copy(update={"min_fraction": settings.min_indexed_other})
            ub, same = find_cell(x, strict).ub, False
        except InputError:
            return None
    if same:
        ub = _turned_onto(geometry.ub, ub) @ geometry.ub
    second = _settled(replace(geometry, ub=ub), rest, spec)
    angle, axis = misorientation(geometry.ub, second.ub, laue, spec.spacegroup) if same else (np.nan, np.zeros(3))
    own = explained(second, peaks, spec.d_star_max, reach, tail) & ~known
    indexed = float(own[left].mean())
    if indexed < (settings.min_indexed if same else settings.min_indexed_other) or (
        same and angle < settings.least_deg
    ):
        return None
    share = float(peaks.intensity[own].sum() / peaks.intensity.sum())
    return SecondLattice(
        np.linalg.inv(geometry.ub) @ second.ub, float(own.mean()), share, indexed, same, cell_of(second.ub), angle,
        tuple(float(v) for v in axis),
    )  # fmt: skip


def _turned_onto(first: Array, second: Array) -> Array:
    """(3, 3) rotation that carries the first UB nearest to the second."""
    left, _, right = np.linalg.svd(second @ np.linalg.inv(first))
    return np.asarray(left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right, np.float64)


def _settled(second: Geometry, peaks: Peaks, spec: ReduceSpec) -> Geometry:
    """The second lattice turned to fit the pixels of its peaks, in rounds of matching."""
    for reach in spec.positions.reach_px:
        frame, hkl, seen = _matched(second, peaks, spec, reach)
        if len(frame) < 6:
            return second
        ub, rotations = second.ub, second.rotations()[frame]

        def miss(v: Array, ub: Array = ub, rotations: Array = rotations) -> Array:
            turned = Rotation.from_rotvec(v).as_matrix() @ ub
            g_lab = np.einsum("mij,mj->mi", rotations, hkl @ turned.T)  # noqa: B023
            return np.asarray((to_pixels(second, frame, g_lab) - seen).ravel())  # noqa: B023

        fit = least_squares(miss, np.zeros(3), loss="soft_l1", x_scale=1e-3)
        second = replace(second, ub=Rotation.from_rotvec(fit.x).as_matrix() @ ub)
    return second


def _matched(
    geometry: Geometry, peaks: Peaks, spec: ReduceSpec, reach: float
) -> tuple[NDArray[np.int64], Array, Array]:
    """Frame (m,), hkl (m, 3) and pixels (m, 2) of the peaks within `reach` of one predicted reflection."""
    nodes = candidates(geometry.ub, spec.indexing.d_star_max)
    frames, hkl, seen = [], [], []
    for i in np.unique(peaks.frame):
        own = peaks.pixels[peaks.frame == i]
        expected = predict(geometry, int(i), nodes, spec.integration.tail)
        if len(expected.hkl) == 0:
            continue
        distance, which = nearest(expected.pixels, own, 1, reach)
        good = np.isfinite(distance[:, 0])
        frames.append(np.full(int(good.sum()), i))
        hkl.append(expected.hkl[which[good, 0]].astype(np.float64))
        seen.append(own[good])
    if not frames:
        return np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 2))
    return np.concatenate(frames), np.concatenate(hkl), np.concatenate(seen)


def misorientation(
    first: Array, second: Array, laue: str, spacegroup: str | None = None
) -> tuple[float, Array]:
    """Smallest angle (degrees) and its axis (3,) of a rotation from one UB to another of the same cell,
    equivalents in the Laue class counting as one, in the setting of the space group. The axis is in the crystal's
    Cartesian frame, x along a, z along c*."""
    direct = np.linalg.inv(first)
    z = first[:, 2] / float(np.linalg.norm(first[:, 2]))
    x = direct[0] / float(np.linalg.norm(direct[0]))
    frame = np.array([x, np.cross(z, x), z])
    best = (np.inf, np.zeros(3))
    for operation in laue_rotations(laue, spacegroup):
        if np.linalg.det(operation) < 0:
            continue
        turn = Rotation.from_matrix(_turned_onto(first, second @ operation)).as_rotvec()
        angle = float(np.degrees(np.linalg.norm(turn)))
        if angle < best[0]:
            best = (angle, frame @ turn / max(float(np.linalg.norm(turn)), 1e-12))
    return best


def count_covered(
    first: Geometry, second: Geometry, nodes: tuple[NDArray[np.int64], NDArray[np.int64]], distance: float,
    tail: float,
) -> int:  # fmt: skip
    """Spots of the first lattice on all frames that lie within `distance` pixels of one of the second.

    nodes : hkl (m, 3) of either lattice.  tail : 1/Å, width of the rocking curve.
    """
    covered = 0
    for i in range(len(first)):
        mine, others = predict(first, i, nodes[0], tail), predict(second, i, nodes[1], tail)
        if len(mine.hkl) and len(others.hkl):
            covered += int(np.isfinite(nearest(others.pixels, mine.pixels, 1, distance)[0]).sum())
    return covered
