"""Per-frame data of a dynamical refinement: which reflections a frame is judged by and how it is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.cif_pets import GEOMETRY_KEY, PetsData
from nanoed.pipeline.refine.statistics import weights
from nanoed.pipeline.spec import Protocol, RefineSpec, ThicknessSpec
from nanoed.sim.physics import bloch, sampling
from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix, rot_x, rot_y
from nanoed.sim.physics.kinematical import kinematical_curves, kinematical_jacobian
from nanoed.sim.physics.thickness import chord_distribution

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Spread = tuple[float, float]
"""Standard deviation of a mosaic's orientations, rad, and the one that fixes the sampling during a search."""
LONG = 1e4
"""Aspect that stands for an endless rod."""
SMALLEST_COSINE = 0.1
"""A lamella seen more edge-on than this gets no thicker."""
GEOMETRIES: dict[str, Protocol] = {
    "precession": "precession",
    "continuous rotation": "rotation",
    "serial": "still",
    "static": "still",
}
"""What .cif_pets files call the ways of recording."""
SMALLEST_VOLUME = 1e-3
"""Of the reciprocal cell, times abc: an orientation matrix below it is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One (virtual) frame.

    zone : id in the data.  orientation : (3, 3) of the reduction, sample to lab.  semi_angle : rad.
    azimuth : of the tilt axis, rad.  hkl : (n, 3), observed, weight : (n,) of the reflections that are refined.
    sigma : (n,).  number : its row in the data.  place : in the range of stage angles, -1 to 1.
    own_from : where the frames' own sizes begin among those of a state; 0: there are none.
    tilt_su : rad, the error that the data state for either tilt of the orientation; None: they do not.
    """

    zone: int
    orientation: Array
    semi_angle: float
    azimuth: float
    hkl: IntArray
    observed: Array
    sigma: Array
    weight: Array
    number: int = 0
    place: float = 0.0
    own_from: int = 0
    tilt_su: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """Shape of the crystal with unit diameter, in the frame in which UB is written."""

    shape: str
    axis: Array
    length: float
    diameter: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """How frames are computed: UB, thickness model, limits. size : diameter of the body, Å.

    across : orientations of a mosaic across a rotation's axis.  alone : every beam by itself, in closed form, which
    a weak potential makes true.
    """

    ub: Array
    thickness: ThicknessSpec
    protocol: Protocol
    g_max: float
    s_max: float
    n_azimuth: int | None
    taper: float = 0.0
    across: int = 1
    alone: bool = False

    def twinned(self, law: Array) -> Engine:
        """The engine of a domain whose indices are law @ h; the body stays where it is."""
        axis = tuple(float(x) for x in np.linalg.inv(law).T @ np.array(self.thickness.axis_uvw))
        body = self.thickness.model_copy(update={"axis_uvw": axis})
        return replace(self, ub=self.ub @ np.linalg.inv(law), thickness=body)

    def chords(self, orientation: Array) -> tuple[Array, Array]:
        """Relative thickness nodes and weights (k,) of the body along the beam."""
        model = self.thickness.model
        if model == "plate":
            return np.ones(1), np.ones(1)
        if model == "wedge":
            x, w = np.polynomial.legendre.leggauss(self.thickness.nodes)
            return 0.5 * (x + 1), 0.5 * w
        direct = np.linalg.inv(self.ub).T @ np.array(self.thickness.axis_uvw)
        axis = direct / np.linalg.norm(direct)
        if model == "lamella":
            return np.array([1 / max(abs(float(orientation[2] @ axis)), SMALLEST_COSINE)]), np.ones(1)
        shape = {"sphere": "sphere", "ellipsoid": "ellipsoid"}.get(model, "cylinder")
        length = {"rod": LONG, "sphere": 1.0}.get(model, self.thickness.aspect)
        return _chords(shape, tuple(axis), length, tuple(orientation[2]), self.thickness.nodes)

    def mean_chord(self, orientation: Array) -> float:
        """Area-weighted mean of the relative chords."""
        nodes, w = self.chords(orientation)
        return float(nodes @ w)

    def rotations(self, frame: Frame, longest: float) -> Array:
        """Rotations that the frame averages over without any spread, (m, 3, 3); `longest` : chord, Å."""
        if self.protocol == "still":
            return np.eye(3)[None]
        n = self._steps(frame, longest)
        if self.protocol == "precession":
            return sampling.precession_rotations(frame.semi_angle, n)
        return sampling.rotation_sweep(frame.azimuth, frame.semi_angle, n)

    def sampled(self, frame: Frame, longest: float, spread: Spread | None) -> sampling.Sampling:
        """Rotations of the frame, their shares and the derivatives of these by the spread."""
        if spread is None:
            rotations = self.rotations(frame, longest)
            even = np.full(len(rotations), 1 / len(rotations))
            return rotations, even, np.zeros_like(even)
        n = self._steps(frame, longest)
        if self.protocol == "rotation":
            return sampling.spread_sweep(frame.azimuth, frame.semi_angle, n, *spread, self.across)
        return sampling.spread_rings(0.0 if self.protocol == "still" else frame.semi_angle, n, *spread)

    def _steps(self, frame: Frame, longest: float) -> int:
        reach = {"precession": frame.semi_angle, "rotation": frame.semi_angle / np.pi, "still": 0.0}
        return self.n_azimuth or sampling.precession_steps(self.g_max, reach[self.protocol], longest)

    def intensities(
        self,
        frame: Frame,
        tilt: Array,
        size: float,
        selected_at: tuple[Array, float],
        potential: bloch.PotentialTable,
        derivatives: bool,
        spread: Spread | None = None,
        by_spread: bool = False,
    ) -> tuple[Array, Array]:
        """Intensities (n,) and derivatives (n, p + 3: structure, two tilts in rad, log size) of a frame.

        tilt : (2,) rad.  selected_at : tilt and size that fix the beams and the sampling during a search.
        by_spread : the derivative by the spread of orientations (rad) in place of the intensities.
        """
        orientation = tilted(frame.orientation, tilt)
        at_tilt, at_size = selected_at
        at = tilted(frame.orientation, at_tilt)
        nodes, w = self.chords(at)
        rotations, shares, slope = self.sampled(frame, at_size * float(nodes.max()), spread)
        jacobian = kinematical_jacobian if self.alone else bloch.frame_jacobian
        return jacobian(
            potential, orientation @ self.ub, at @ self.ub, rotations, slope if by_spread else shares,
            size * nodes, w, frame.hkl, self.s_max, derivatives, self.taper, tilt_axes(tilt),
        )  # fmt: skip

    def windows(
        self, frame: Frame, tilt: Array, size: float, reach: float, potential: bloch.PotentialTable
    ) -> tuple[Array, Array]:
        """Shifts (m,) rad up to `reach` of a rotation's window about its axis, and the intensities of each (m, n)."""
        nodes, w = self.chords(frame.orientation)
        n = len(self.rotations(frame, size * float(nodes.max())))
        step = 2 * frame.semi_angle / n
        extra = int(np.ceil(reach / step))
        longer = sampling.rotation_sweep(frame.azimuth, frame.semi_angle + extra * step, n + 2 * extra)
        ub = tilted(frame.orientation, tilt) @ self.ub
        each = kinematical_curves if self.alone else bloch.rocking_curves
        curves = each(potential, ub, longer, size * nodes, w, frame.hkl, self.s_max, self.taper)
        sums = np.vstack([np.zeros((1, len(frame.hkl))), np.cumsum(curves, axis=0)])
        return step * np.arange(-extra, extra + 1, dtype=float), (sums[n:] - sums[:-n]) / n


@lru_cache(4096)
def _chords(
    shape: str, axis: tuple[float, ...], length: float, beam: tuple[float, ...], nodes: int
) -> tuple[Array, Array]:
    """Relative chords and weights of a body; the frames' directions come back in every cycle."""
    found, share, _ = chord_distribution(Body(shape, np.array(axis), length), np.array(beam), nodes)
    return found, share


def tilted(orientation: Array, tilt: Array) -> Array:
    """R_x(tilt_x) R_y(tilt_y) times the orientation; rad."""
    return rot_x(float(tilt[0])) @ rot_y(float(tilt[1])) @ orientation


def tilt_axes(tilt: Array) -> Array:
    """Axes (2, 3) of the lab about which a small change of either tilt turns the crystal: x, and y turned about x."""
    return np.array([[1.0, 0.0, 0.0], rot_x(float(tilt[0])) @ np.array([0.0, 1.0, 0.0])])


def protocol_of(data: PetsData, spec: RefineSpec) -> Protocol:
    """How a frame moves the crystal: as the settings say, or else as the data state it, precession where they do not.

    Raises InputError where the two differ; `still`, which integrates over nothing, is never refused.
    """
    said = data.extra.get(GEOMETRY_KEY, "").lower()
    stated = GEOMETRIES.get(said)
    wanted = spec.protocol or stated or "precession"
    if wanted != "still" and stated not in (None, wanted):
        allowed = f"{stated} or still: the data state {said}"
        raise InputError("not how the frames were recorded", field="protocol", value=wanted, allowed=allowed)
    return wanted


def as_recorded(data: PetsData, spec: RefineSpec) -> RefineSpec:
    """The settings with the protocol of `protocol_of`."""
    return spec.model_copy(update={"protocol": protocol_of(data, spec)})


def frames_of(data: PetsData, spec: RefineSpec, tilts: dict[int, Array] | None = None) -> list[Frame]:
    """The frames with their refined reflections: |g| <= d_star_max, RS_g and DS_g inside their limits (A4).

    tilts : by zone (rad), where the orientations are better known already.  Raises InputError for data that
    cannot be refined.
    """
    spec = as_recorded(data, spec)
    _check(data, spec)
    groups = dict(iter(data.reflections.groupby("zone", sort=True)))
    out = []
    low, high = data.zones["alpha"].min(), data.zones["alpha"].max()
    columns = data.zones[["id", "semi_angle", "alpha", "beta", "omega"]].to_numpy(float)
    stated = np.radians(data.zones.reindex(columns=["tilt_su"]).to_numpy(float)[:, 0])
    for number, (identifier, *degrees) in enumerate(columns):
        zone, (semi_angle, *angles) = int(identifier), np.radians(degrees)
        if zone not in groups:
            continue
        orientation = frame_matrix(*angles)
        at = orientation if tilts is None or zone not in tilts else tilted(orientation, tilts[zone])
        kept = _selected(groups[zone], at @ data.ub, semi_angle, angles[2], data.wavelength, spec)
        if len(kept) < spec.min_reflections:
            continue
        observed, sigma = kept["I"].to_numpy(float), kept["sigma"].to_numpy(float)
        hkl = kept[["h", "k", "l"]].to_numpy(np.int64)
        w = weights(observed, sigma, spec.instability, spec.emphasis)
        place = float((2 * degrees[1] - low - high) / max(high - low, 1e-9))
        own = 0 if spec.thickness.frame_spread is None else 1 + spec.thickness.angle_terms
        su = float(stated[number]) if stated[number] > 0 else None
        out.append(
            Frame(zone, orientation, semi_angle, angles[2], hkl, observed, sigma, w, number, place, own, su)
        )
    if not out:
        raise InputError("no frame has reflections inside the limits", field="rs_g_max", value=spec.rs_g_max)
    return out if spec.frame_weights == "errors" else _equalised(out)


def _equalised(frames: list[Frame]) -> list[Frame]:
    """The frames with weights that give each the same sum of w I², the mean of them all."""
    sums = np.array([float(f.weight @ f.observed**2) for f in frames])
    return [replace(f, weight=f.weight * (sums.mean() / s)) for f, s in zip(frames, sums, strict=True)]


def _selected(
    table: pd.DataFrame, ub_lab: Array, semi_angle: float, azimuth: float, wavelength: float, spec: RefineSpec
) -> pd.DataFrame:
    """Reflections with RS_g = |S| / (lever · semi-angle) and DS_g = lever · semi-angle - |S| inside the limits.

    The lever is |g| for precession and D_g, the distance from the tilt axis, for rotation.
    """
    g = table[["h", "k", "l"]].to_numpy() @ ub_lab.T
    length = np.linalg.norm(g, axis=1)
    lever = length
    if spec.protocol == "rotation":
        along = g @ np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
        lever = np.sqrt(np.maximum(length**2 - along**2, 0))
    reach = lever * semi_angle
    distance = np.abs(excitation_errors(g, wavelength))
    near = distance <= (spec.still_s_max if spec.protocol == "still" else spec.rs_g_max * reach)
    if spec.ds_g_min is not None:
        near &= reach - distance >= spec.ds_g_min
    return table[near & (length <= spec.d_star_max) & (length > 0)]


def _check(data: PetsData, spec: RefineSpec) -> None:
    values = data.reflections[["I", "sigma"]].to_numpy(float)
    if not np.isfinite(values).all() or (values[:, 1] <= 0).any():
        raise InputError("intensities must be finite and their s.u. positive", field="_refln_intensity_meas")
    if abs(np.linalg.det(data.ub)) < SMALLEST_VOLUME / np.prod(data.cell[:3]):
        raise InputError("the orientation matrix spans no volume", field="_diffrn_orient_matrix_UB_11")
    if spec.protocol != "still" and (data.zones["semi_angle"] <= 0).any():
        raise InputError(
            "a frame needs a semi-angle",
            field="_diffrn_zone_axis_precession_angle",
            allowed="> 0°, or protocol still",
        )
