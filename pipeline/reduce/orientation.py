"""Per-frame orientation from intensities: all frames at once, reflections' own intensities eliminated.

Model of a measurement on frame f: I = k_f I_h P(S_hf). A small tilt (a about the tilt axis, b about the
direction at right angles to it in the detector plane) changes S by g_y θ_x - g_x θ_y. Each reflection of the
list has its own I_h, so slow dynamical differences between equivalents do no harm; equivalents are tied
softly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.orientation_kernels import eliminate, normal_equations
from nanoed.pipeline.reduce.rocking import RockingShape, rocking_profile
from nanoed.pipeline.reduce.smoothing import Smoothing, without_strays
from nanoed.pipeline.spec import OrientationSpec
from nanoed.sim.physics.errors import ConvergenceError

Array = NDArray[np.floating[Any]]
Index = NDArray[np.int64]
NOISE_SETTLED = 0.02
"""Relative change at which a model error is found."""


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """Spots used for orientations, sorted by reflection: frame, reflection (n,) indices, family
    (n_reflections,)
    of Laue equivalents, intensity, sigma (n,), hkl (n, 3)."""

    frame: Index
    reflection: Index
    family: Index
    intensity: Array
    sigma: Array
    hkl: Index

    @property
    def n_reflections(self) -> int:
        return len(self.family)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """State: log_scale (n_frames,), shape of the rocking curve, noise: relative model error."""

    log_scale: Array
    shape: RockingShape
    noise: float


@dataclass(frozen=True, slots=True, eq=False)
class Oriented:
    """Result: geometry, model, sd (n, 2) rad expected error of each frame's two tilts (NaN: the stage's angles were
    kept), smoothing: variances chosen for each tilt, calculated: the last evaluation."""

    geometry: Geometry
    model: Model
    sd: Array
    smoothing: tuple[Smoothing, Smoothing]
    calculated: Calculated


@dataclass(frozen=True, slots=True, eq=False)
class Calculated:
    """Values at one state: P, dP/dS, dS/d(a, b) (n, 2), intensities of reflections and their ties to those of
    equivalents (orientation_kernels.eliminate), residual, weight."""

    p: Array
    slope: Array
    by_tilt: Array
    full: Array
    ridge: Array
    residual: Array
    weight: Array


def tilted(geometry: Geometry, a: Array, b: Array) -> Geometry:
    """Geometry with frame i turned by a[i] rad about its tilt axis and by b[i] about the in-plane normal to
    it.

    b v = b/cos(alpha) n - b tan(alpha) z with n the beta axis, so beta += b/cos(alpha), omega -= b
    tan(alpha).
    """
    return replace(
        geometry,
        alpha=geometry.alpha + a,
        beta=geometry.beta + b / np.cos(geometry.alpha),
        omega=geometry.omega - b * np.tan(geometry.alpha),
    )


def tilt_su_deg(sd: Array) -> Array:
    """Error expected of either tilt of a frame, (n,) degrees, of those of both.

    As the model of single scattering tells: dynamical diffraction counts as noise that spots do not share, so that the
    error of strong data is up to twice as large, and that by rotation smaller (study check-reduction, orientations).
    """
    return np.degrees(np.sqrt(0.5 * (sd**2).sum(axis=1)))


def without_common_rotation(geometry: Geometry, nominal: Array) -> Geometry:
    """The same orientations with the rotation that all frames share put into UB.

    nominal : (n,) rad stage angles.  Chosen is the rotation of the crystal at zero angles that leaves the least
    beta, alpha - nominal and omega - mean: what cannot be told from the lattice's orientation is not drift.
    """
    rotations = geometry.rotations()

    def angles(vector: Array) -> Array:
        """(n, 3) alpha, beta, omega of R_i exp(-vector); of the two ways to write them that of the smaller beta, and of
        the alphas whole turns apart the one nearest to nominal."""
        m = rotations @ Rotation.from_rotvec(-vector).as_matrix()
        sign = np.where(m[:, 2, 2] < 0, -1.0, 1.0)
        alpha = np.where(sign > 0, 0.0, np.pi) + sign * np.arcsin(m[:, 2, 1])
        alpha += 2 * np.pi * np.rint((nominal - alpha) / (2 * np.pi))
        beta = np.arctan2(-sign * m[:, 2, 0], sign * m[:, 2, 2])
        return np.column_stack([alpha, beta, np.arctan2(-sign * m[:, 0, 1], sign * m[:, 1, 1])])

    def drift(vector: Array) -> Array:
        a = angles(vector)
        turn = np.angle(np.exp(1j * (a[:, 2] - a[0, 2])))
        return np.concatenate([a[:, 0] - nominal, a[:, 1], turn - turn.mean()])

    vector = np.asarray(least_squares(drift, np.zeros(3)).x)
    alpha, beta, omega = angles(vector).T
    omega = geometry.omega + np.angle(np.exp(1j * (omega - geometry.omega)))
    ub = Rotation.from_rotvec(vector).as_matrix() @ geometry.ub
    return replace(geometry, ub=ub, alpha=alpha, beta=beta, omega=omega)


def evaluate(geometry: Geometry, data: Measurements, model: Model, spec: OrientationSpec) -> Calculated:
    """Profiles, intensities by weighted least squares, residuals I - k I_h P and weights.

    Variance = sigma² + noise² (k I_h)² P^(2-2p) P_0^(2p), P_0 the top of the profile: comparing I^p with a
    constant error is the same to first order (p = 0.5 in C2), and counting noise is kept for weak spots.
    """
    g_lab = np.einsum("mij,mj->mi", geometry.rotations()[data.frame], data.hkl @ geometry.ub.T)
    s = g_lab[:, 2] - 0.5 * geometry.wavelength * (g_lab**2).sum(axis=1)
    g = np.linalg.norm(g_lab, axis=1)
    u = np.column_stack([np.cos(geometry.omega), np.sin(geometry.omega)])[data.frame]
    along = g_lab[:, 0] * u[:, 0] + g_lab[:, 1] * u[:, 1]
    across = -g_lab[:, 0] * u[:, 1] + g_lab[:, 1] * u[:, 0]
    distance = np.hypot(across, g_lab[:, 2])
    p, slope = rocking_profile(s, g, distance, model.shape)
    top, _ = rocking_profile(np.zeros(len(s)), g, distance, model.shape)
    k = np.exp(model.log_scale)[data.frame]
    full, ridge = np.zeros(data.n_reflections), np.zeros(data.n_reflections)
    residual, weight = np.empty(len(s)), np.empty(len(s))
    eliminate(data.reflection, data.family, data.intensity, data.sigma, k * p, k * top, model.noise,
               spec.power, spec.equivalent_spread, full, ridge, residual, weight)  # fmt: skip
    return Calculated(p, slope, np.column_stack([across, -along]), full, ridge, residual, weight)


def refine_orientations(
    geometry: Geometry, data: Measurements, shape: RockingShape, spec: OrientationSpec
) -> Oriented:
    """Tilts of all frames, frame scales and the shape of the rocking curve.

    A grid search per frame, Gauss-Newton on all frames together, the shape of the curve, Gauss-Newton again;
    then each tilt's drift and jitter are estimated from the spread of the results (smoothing.py) and held
    as a prior in the last cycles: frames are smoothed as far as their own errors make it worth while, and
    strays come back to the others.
    Where scales or equivalents then contradict their priors, all is done again with the scales at 1 until
    those last cycles. Raises ConvergenceError where that does not help.
    """
    found = _refined(geometry, data, shape, spec, hold_scales=False)
    if contradictions(data, found, spec):
        found = _refined(geometry, data, shape, spec, hold_scales=True)
        if left := contradictions(data, found, spec):
            raise ConvergenceError(
                f"orientations and frame scales disagree with the equivalents: {'; '.join(left)}. Check the "
                "Laue class, the cell and the tilt axis; leave out frames without the crystal; or keep the stage "
                "angles with orientation.refine=false"
            )
    return found


def at_stated_angles(
    oriented: Oriented, geometry: Geometry, data: Measurements, spec: OrientationSpec
) -> Oriented:
    """`oriented` with the tilts of `geometry` and one scale for all frames, whatever contradicts them: the rocking
    curve and the model error are fitted to these; sd is NaN."""
    model = replace(oriented.model, log_scale=np.zeros(len(geometry)))
    for _ in range(spec.rounds):
        for _ in range(spec.cycles):
            before = model.noise
            model = replace(model, noise=_noise(data, evaluate(geometry, data, model, spec), model, 0, spec))
            if abs(model.noise - before) < NOISE_SETTLED * before:
                break
        model = fit_shape(geometry, data, model, spec)
    now = evaluate(geometry, data, model, spec)
    return replace(oriented, geometry=geometry, model=model, sd=np.full_like(oriented.sd, np.nan), calculated=now)


def _refined(
    geometry: Geometry, data: Measurements, shape: RockingShape, spec: OrientationSpec, hold_scales: bool
) -> Oriented:
    """One attempt of `refine_orientations`; hold_scales: scales stay at 1 until the last cycles."""
    model = Model(np.zeros(len(geometry)), shape, spec.model_error)
    loose = np.eye(len(geometry)) / np.radians(spec.prior_deg) ** 2
    start = geometry
    if spec.refine:
        for _ in range(2):
            geometry = _grid_search(geometry, data, model, spec)
    for _ in range(spec.rounds):
        geometry, model, normal = _cycles(start, geometry, data, model, (loose, loose), spec, hold_scales)
        model = fit_shape(geometry, data, model, spec)
    geometry, model, normal = _cycles(start, geometry, data, model, (loose, loose), spec, hold_scales)
    a, b = _tilts(start, geometry)
    loosely = np.repeat(np.diag(loose), 3) * np.tile([1.0, 1.0, 0.0], len(geometry))
    inverse = np.linalg.inv(normal + np.diag(loosely))
    cov_a, cov_b = inverse[0::3, 0::3], inverse[1::3, 1::3]
    of_a, near_a = without_strays(geometry.alpha, a, cov_a)
    of_b, near_b = without_strays(geometry.alpha, b, cov_b)
    priors = (np.linalg.inv(of_a.covariance), np.linalg.inv(of_b.covariance))
    if spec.refine:
        geometry = tilted(geometry, near_a - a, near_b - b)
    if spec.refine or hold_scales:
        geometry, model, normal = _cycles(start, geometry, data, model, priors, spec)
    sd = np.full((len(geometry), 2), np.nan)
    if spec.refine:
        geometry = without_common_rotation(geometry, start.alpha)
        for c, prior in enumerate(priors):
            normal[c::3, c::3] += prior
        sd = np.sqrt(np.diag(np.linalg.inv(normal)).reshape(-1, 3)[:, :2])
    return Oriented(geometry, model, sd, (of_a, of_b), evaluate(geometry, data, model, spec))


def contradictions(data: Measurements, found: Oriented, spec: OrientationSpec) -> list[str]:
    """What of a result contradicts its priors by more than `disagreement`, in words; none for a good one.

    Scales: rms of ln k over `scale_spread`. Equivalents: root of the reduced Σ (I_h - c)² / (var I_h + 1/ridge)
    of the untied intensities about their families' values. Model error: at its limit.
    """
    now, said = found.calculated, []
    scales = float(np.sqrt(np.mean(found.model.log_scale**2))) / spec.scale_spread
    if scales > spec.disagreement:
        said.append(f"spread of the frame scales {scales:.1f} times orientation.scale_spread")
    q = np.exp(found.model.log_scale)[data.frame] * now.p
    top = np.bincount(data.reflection, now.weight * q * data.intensity, data.n_reflections)
    bottom = np.bincount(data.reflection, now.weight * q * q, data.n_reflections)
    tied = (now.ridge > 0) & (bottom > 0)
    family, value = data.family[tied], top[tied] / bottom[tied]
    precision = 1 / (1 / bottom[tied] + 1 / now.ridge[tied])
    centre = np.bincount(family, precision * value) / np.maximum(np.bincount(family, precision), 1e-300)
    freedom = len(family) - len(np.unique(family))
    if freedom > 0:
        equivalents = float(np.sqrt((precision * (value - centre[family]) ** 2).sum() / freedom))
        if equivalents > spec.disagreement:
            said.append(f"spread of equivalents {equivalents:.1f} times orientation.equivalent_spread")
    if found.model.noise >= spec.largest_model_error:
        said.append(
            f"the error of the model reached orientation.largest_model_error={spec.largest_model_error:g}"
        )
    return said


def _tilts(start: Geometry, now: Geometry) -> tuple[Array, Array]:
    """(a, b) that lead from `start` to `now`, rad."""
    return now.alpha - start.alpha, (now.beta - start.beta) * np.cos(start.alpha)


def _cycles(
    start: Geometry,
    geometry: Geometry,
    data: Measurements,
    model: Model,
    priors: tuple[Array, Array],
    spec: OrientationSpec,
    hold_scales: bool = False,
) -> tuple[Geometry, Model, Array]:
    """Gauss-Newton on a, b and ln k of all frames until the tilts move less than `settled_deg`.

    priors : two (n, n) precision matrices of the tilts since `start`, rad^-2.  Returns the normal matrix
    without the priors of the tilts as third value.
    """
    n = len(geometry)
    normal: Array = np.zeros((3 * n, 3 * n))
    for _ in range(spec.cycles):
        now = evaluate(geometry, data, model, spec)
        normal, right = frame_equations(data, model, now, n)
        normal[2::3, 2::3] += np.eye(n) / spec.scale_spread**2
        right[2::3] -= model.log_scale / spec.scale_spread**2
        full = normal.copy()
        for c, (prior, tilt) in enumerate(zip(priors, _tilts(start, geometry), strict=True)):
            full[c::3, c::3] += prior
            right[c::3] -= prior @ tilt
        moving = np.tile([spec.refine, spec.refine, not hold_scales], n)
        step = np.zeros((n, 3))
        step.reshape(-1)[moving] = np.linalg.solve(full[np.ix_(moving, moving)], right[moving])
        limit = np.radians(spec.largest_step_deg)
        step[:, :2] = np.clip(step[:, :2], -limit, limit)
        geometry = tilted(geometry, step[:, 0], step[:, 1])
        scale = model.log_scale + step[:, 2]
        model = replace(model, log_scale=scale - scale.mean(), noise=_noise(data, now, model, 3 * n, spec))
        if np.sqrt(np.mean(step[:, :2] ** 2)) < np.radians(spec.settled_deg):
            break
    return geometry, model, normal


def _noise(data: Measurements, now: Calculated, model: Model, n_parameters: int, spec: OrientationSpec) -> float:
    """Model error by which the residuals scatter as they should, at most 1.4 times off the one that they have."""
    scatter = 1.4826 * float(np.median(np.abs(now.residual) * np.sqrt(now.weight)))
    change = np.clip(scatter * excess(data, now, model, n_parameters), 0.7, 1.4)
    return float(np.clip(model.noise * change, 0.01, spec.largest_model_error))


def excess(data: Measurements, now: Calculated, model: Model, n_parameters: int) -> float:
    """Root of measurements over degrees of freedom: by how much residuals of a fit with these parameters are too
    small.

    Fitted are n_parameters of the frames (tilts and scales), and of every reflection's intensity the part Σ w k²P² /
    (Σ w k²P² + ridge) that its own measurements and not its equivalents' determine; ridge is nought for those without.
    """
    q = np.exp(model.log_scale)[data.frame] * now.p
    own = np.bincount(data.reflection, now.weight * q**2, data.n_reflections)
    fitted = n_parameters + float((own / np.maximum(own + now.ridge, 1e-300)).sum())
    n = len(data.frame)
    return float(np.sqrt(n / max(n - fitted, 0.25 * n)))


def frame_equations(data: Measurements, model: Model, now: Calculated, n_frames: int) -> tuple[Array, Array]:
    """Normal matrix (3F, 3F) and right side of a, b, ln k with intensities and families projected out."""
    k = np.exp(model.log_scale)[data.frame]
    signal = now.full[data.reflection] * k
    jacobian = np.column_stack([(signal * now.slope)[:, None] * now.by_tilt, signal * now.p])
    normal, right = np.zeros((3 * n_frames, 3 * n_frames)), np.zeros(3 * n_frames)
    first = np.searchsorted(data.reflection, np.arange(data.n_reflections + 1)).astype(np.int64)
    families = int(data.family.max()) + 1
    shared, left_free = np.zeros((families, 3 * n_frames)), np.zeros(families)
    normal_equations(data.frame, first, k * now.p, jacobian, now.residual, now.weight, now.ridge, data.family,
                     normal, right, shared, left_free)  # fmt: skip
    tied = shared[left_free > 0] / np.sqrt(left_free[left_free > 0])[:, None]
    return normal - tied.T @ tied, right


def _grid_search(geometry: Geometry, data: Measurements, model: Model, spec: OrientationSpec) -> Geometry:
    """Each frame's best (a, b) on a grid of ±search_deg, intensities of the reflections held.

    Minimises Σ (sqrt(I) - κ sqrt(I_h P))² with κ fitted (C5, p = 0.5).
    """
    now = evaluate(geometry, data, model, spec)
    steps = np.radians(np.arange(-spec.search_deg, spec.search_deg + 1e-9, spec.search_step_deg))
    grid = np.array([(a, b) for a in steps for b in steps])
    g_lab = np.einsum("mij,mj->mi", geometry.rotations()[data.frame], data.hkl @ geometry.ub.T)
    g = np.linalg.norm(g_lab, axis=1)
    s = g_lab[:, 2] - 0.5 * geometry.wavelength * g**2
    root, full = np.sqrt(np.maximum(data.intensity, 0.0)), now.full[data.reflection]
    best = np.zeros((len(geometry), 2))
    for i in range(len(geometry)):
        own = np.nonzero((data.frame == i) & (full > 0))[0]
        if len(own) < spec.min_spots:
            continue
        shifted = s[own, None] + now.by_tilt[own] @ grid.T
        wide = np.repeat(g[own], len(grid))
        distance = np.hypot(*now.by_tilt[own].T)
        p, _ = rocking_profile(shifted.ravel(), wide, np.repeat(distance, len(grid)), model.shape)
        root_model = np.sqrt(full[own, None] * p.reshape(len(own), -1))
        kappa = (root[own] @ root_model) / (root_model**2).sum(axis=0)
        cost = ((root[own, None] - kappa * root_model) ** 2).sum(axis=0)
        best[i] = grid[int(np.argmin(cost))]
    return tilted(geometry, best[:, 0], best[:, 1])


def fit_shape(geometry: Geometry, data: Measurements, model: Model, spec: OrientationSpec) -> Model:
    """Width, mosaicity and (with precession) semi-angle of the rocking curve at fixed orientations.

    Least squares of the weighted residuals with the weights of the start; width and mosaicity are correlated,
    so their logarithms carry weak priors, and the semi-angle one of `semi_angle_error` about its nominal
    value.
    """
    weight = np.sqrt(evaluate(geometry, data, model, spec).weight)
    nominal = geometry.semi_angle
    start = np.array([np.log(model.shape.width), np.log(model.shape.mosaicity), 0.0])

    def shape_of(p: Array) -> RockingShape:
        semi = nominal * (1 + p[2]) if nominal > 0 else 0.0
        return RockingShape(float(np.exp(p[0])), float(np.exp(p[1])), semi, model.shape.half_sweep)

    def residual(p: Array) -> Array:
        found = evaluate(geometry, data, replace(model, shape=shape_of(p)), spec)
        prior = [(p[0] - np.log(spec.width)) / 1.0, (p[1] - np.log(np.radians(spec.mosaicity_deg))) / 1.0,
                 p[2] / spec.semi_angle_error]  # fmt: skip
        return np.concatenate([weight * found.residual, prior])

    if nominal > 0:
        start[2] = model.shape.semi_angle / nominal - 1
    room = np.array([1.5, 1.5, 0.1])
    fit = least_squares(
        residual,
        start,
        bounds=(start - room, start + room),
        diff_step=np.full(3, 1e-3),
        x_scale=np.array([0.3, 0.3, 0.01]),
        max_nfev=8,
    )
    return replace(model, shape=shape_of(fit.x))
