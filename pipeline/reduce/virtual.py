"""Virtual frames: consecutive frames of a continuous rotation added up for dynamical refinement (A6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.orientation import Oriented, tilt_su_deg
from nanoed.pipeline.reduce.rocking import rocking_profile
from nanoed.pipeline.spec import VirtualSpec
from nanoed.sim.dataset import Nominal
from nanoed.sim.physics.geometry import excitation_errors

Array = NDArray[np.float64]
INDICES = ["h", "k", "l"]


@dataclass(frozen=True, slots=True, eq=False)
class VirtualFrames:
    """What dynamical refinement is given.

    zones : id (from 1), first, last (frames, counted from 0), semi_angle (of precession as fitted to the
        rocking curves: the nominal one is 2-5 % off, H7), alpha, beta, omega (degrees), scale, tilt_su (degrees,
        orientation.tilt_su_deg; NaN: not refined).
    reflections : h, k, l, I, sigma, zone.  merged, step : frames in a virtual frame and between their starts.
    """

    zones: pd.DataFrame
    reflections: pd.DataFrame
    merged: int
    step: int


def virtual_frames(
    oriented: Oriented, spots: pd.DataFrame, blank: NDArray[np.bool_], nominal: Nominal, spec: VirtualSpec
) -> VirtualFrames:
    """The frames themselves for precession; sums of neighbouring frames for continuous rotation.

    spots : columns of spots.integrate, frames that are `blank` (n,) left out.  Frames are put on one scale within a
    virtual frame before they are added, and a reflection is listed where at least `min_recorded` of its rocking
    curve inside the virtual frame was really measured.
    """
    if nominal.protocol != "continuous_rotation":
        semi_angle_deg = float(np.degrees(oriented.model.shape.semi_angle))
        zones = _zones(oriented, [np.array([i]) for i in np.nonzero(~blank)[0]], semi_angle_deg)
        reflections = spots[[*INDICES, "I", "sigma"]].assign(zone=spots["frame"].to_numpy() + 1)
        return VirtualFrames(zones, reflections, 1, 1)
    step_deg = _step_deg(nominal)
    merged, step = chosen(nominal.n_frames, step_deg, oriented, spec)
    starts = range(0, max(nominal.n_frames - merged, 0) + 1, step)
    members = [np.arange(start, min(start + merged, nominal.n_frames)) for start in starts]
    members = [m for m in members if not blank[m].all()]
    zones = _zones(oriented, members, 0.5 * step_deg * merged).assign(id=np.arange(1, len(members) + 1))
    tables = dict(iter(spots.groupby("frame", sort=True)))
    parts = [
        _summed(oriented, [tables[i] for i in m if i in tables], m, spec).assign(zone=number)
        for number, m in enumerate(members, 1)
    ]
    reflections = (
        pd.concat(parts, ignore_index=True) if parts else spots[[*INDICES, "I", "sigma"]].assign(zone=0)
    )
    found = zones["id"].isin(reflections["zone"])
    return VirtualFrames(zones[found].reset_index(drop=True), reflections, merged, step)


def chosen(n_frames: int, step_deg: float, oriented: Oriented, spec: VirtualSpec) -> tuple[int, int]:
    """Frames merged and step between virtual frames; those of the spec where given.

    A virtual frame is at least `width_deg` wide, and `curves` rocking curves of a reflection at `d_star`; its
    neighbour starts where the one is over but for a share of `overlap` or the next larger one that whole frames allow:
    of 0.3, 2 frames of 6 and 1 of 2 (PETS2's glycine: 7 and 5 frames, where this gives 4).
    """
    shape = oriented.model.shape
    curve = 2 * (shape.width + 1.18 * shape.mosaicity * spec.d_star) / spec.d_star
    width = max(spec.width_deg, float(np.degrees(spec.curves * curve)))
    merged = min(spec.frames or max(1, int(np.ceil(width / step_deg - 1e-6))), n_frames)
    return merged, spec.step or max(1, int((1 - spec.overlap) * merged))


def _step_deg(nominal: Nominal) -> float:
    """Rotation from one frame to the next, readout included, degrees."""
    if nominal.n_frames < 2:
        return nominal.rotation_deg
    return float(np.median(np.abs(np.diff(nominal.alpha_deg))))


def _zones(oriented: Oriented, members: list[NDArray[np.int64]], semi_angle_deg: float) -> pd.DataFrame:
    """One row per virtual frame: mean angles and scale of its members."""
    geometry, scale = oriented.geometry, np.exp(oriented.model.log_scale)
    angles = np.degrees(np.column_stack([geometry.alpha, geometry.beta, geometry.omega]))
    mean = np.array([angles[m].mean(axis=0) for m in members]).reshape(-1, 3)
    zones = pd.DataFrame(
        {
            "id": [int(m[0]) + 1 for m in members],
            "first": [int(m[0]) for m in members],
            "last": [int(m[-1]) for m in members],
            "semi_angle": np.full(len(members), semi_angle_deg),
            "alpha": mean[:, 0],
            "beta": mean[:, 1],
            "omega": mean[:, 2],
            "scale": [float(scale[m].mean()) for m in members],
        }
    )
    either = tilt_su_deg(oriented.sd)
    return zones.assign(tilt_su=[float(either[m].mean()) for m in members])


def _summed(
    oriented: Oriented, tables: list[pd.DataFrame], members: NDArray[np.int64], spec: VirtualSpec
) -> pd.DataFrame:
    """h, k, l, I, sigma of one virtual frame."""
    if not tables:
        return pd.DataFrame(columns=[*INDICES, "I", "sigma"])
    table = pd.concat(tables, ignore_index=True)
    hkl, which = np.unique(table[INDICES].to_numpy(np.int64), axis=0, return_inverse=True)
    scale = np.exp(oriented.model.log_scale)
    relative = scale[members].mean() / scale[table["frame"]]
    expected = _expected(oriented, hkl, members)
    column = table["frame"].to_numpy() - members[0]
    recorded = np.bincount(which, expected[which, column], len(hkl))
    keep = recorded >= spec.min_recorded * expected.sum(axis=1)
    intensity = np.bincount(which, table["I"] * relative, len(hkl))
    variance = np.bincount(which, (table["sigma"] * relative) ** 2, len(hkl))
    found = pd.DataFrame(hkl, columns=INDICES).assign(I=intensity, sigma=np.sqrt(variance))
    return found[keep]


def _expected(oriented: Oriented, hkl: NDArray[np.int64], members: NDArray[np.int64]) -> Array:
    """(n, m) rocking curve P of every reflection on every member frame, Å."""
    geometry = oriented.geometry
    out = np.empty((len(hkl), len(members)))
    rotations = geometry.rotations()
    for j, i in enumerate(members):
        g_lab = hkl @ (rotations[i] @ geometry.ub).T
        s = excitation_errors(g_lab, geometry.wavelength)
        axis = np.array([np.cos(geometry.omega[i]), np.sin(geometry.omega[i]), 0.0])
        distance = np.linalg.norm(np.cross(g_lab, axis), axis=1)
        out[:, j], _ = rocking_profile(s, np.linalg.norm(g_lab, axis=1), distance, oriented.model.shape)
    return out
