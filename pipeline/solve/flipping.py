"""Charge flipping: phases of all reflections of P1 from their amplitudes alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, next_fast_len, rfftn

from nanoed.pipeline.solve.spec import FlippingSpec

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Complex = NDArray[np.complex128]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Amplitudes:
    """Amplitudes on the half grid of a real Fourier transform.

    shape : of the density, voxels.  modulus : half grid of |F|, 0 where nothing was measured.
    measured, weak, missing : masks of the half grid.  bound : largest |F| of a missing one.
    turn : i or -i, a quarter of a phase that keeps the density real.  hkl : (n, 3) all reflections.
    known : (n,) measured.  amplitude : (n,) |F|, 0 where nothing was measured.
    level : half grid; |F| of the mean at that resolution, 1 outside; normalised amplitudes are modulus / level.
    """

    shape: tuple[int, int, int]
    modulus: Array
    measured: Mask
    weak: Mask
    missing: Mask
    bound: float
    turn: Complex
    hkl: Index
    known: Mask
    amplitude: Array
    level: Array


@dataclass(frozen=True, slots=True, eq=False)
class Phased:
    """f : (n,) F of Amplitudes.hkl.  r : sum | |F| - |G| | / sum |F| of each cycle.  skewness : of the density."""

    f: Complex
    r: Array
    skewness: float


def amplitudes(hkl: Index, modulus: Array, d_star: Array, spec: FlippingSpec) -> Amplitudes:
    """Lay out all reflections (n, 3), Friedel mates included, with |F| (n,), NaN where nothing was measured.

    d_star : (n,) |h|, 1/Å.
    """
    shape = tuple(
        next_fast_len(int(np.ceil(spec.oversampling * (2 * m + 1)))) for m in np.abs(hkl).max(axis=0)
    )
    half = (shape[0], shape[1], shape[2] // 2 + 1)
    grid, measured, missing = np.zeros(half), np.zeros(half, bool), np.zeros(half, bool)
    known = np.isfinite(modulus)
    stored = known & (hkl[:, 2] >= 0)
    place = tuple(hkl[stored].T)
    grid[place], measured[place] = modulus[stored], True
    missing[tuple(hkl[~known & (hkl[:, 2] >= 0)].T)] = True
    limit = np.quantile(modulus[known], spec.weak_fraction)
    bound = spec.missing_bound * float(modulus[known].mean())
    h, k, m = np.meshgrid(*(np.fft.fftfreq(n) for n in shape[:2]), np.arange(half[2]), indexing="ij")
    positive = (m > 0) | (h > 0) | ((h == 0) & (k > 0))
    turn = np.where(positive, 1j, -1j)
    weak = measured & (grid <= limit)
    level = np.ones(half)
    stored = hkl[:, 2] >= 0
    level[tuple(hkl[stored].T)] = mean_amplitude(d_star, modulus, spec.shell_reflections)[stored]
    return Amplitudes((shape[0], shape[1], shape[2]), grid, measured, weak, missing, bound, turn, hkl, known,
                      np.where(known, modulus, 0.0), level)  # fmt: skip


def mean_amplitude(d_star: Array, modulus: Array, members: int) -> Array:
    """(n,) root mean square of the known |F| (n,) at each d* (n,): ln <|F|²> of shells, linear in d*² between them."""
    known = np.flatnonzero(np.isfinite(modulus))
    order = known[np.argsort(d_star[known], kind="stable")]
    shells = np.array_split(order, max(1, len(order) // members))
    squares = np.array([np.square(modulus[shell]).mean() for shell in shells])
    middle = np.array([np.square(d_star[shell]).mean() for shell in shells])
    return np.exp(0.5 * np.interp(d_star**2, middle, np.log(np.maximum(squares, 1e-12 * squares.max()))))


def normalised(data: Amplitudes, spec: FlippingSpec) -> Amplitudes:
    """The same with |F| over its mean of the resolution."""
    modulus = data.modulus / data.level
    present = modulus[data.measured]
    weak = data.measured & (modulus <= np.quantile(present, spec.weak_fraction))
    return replace(data, modulus=modulus, weak=weak, bound=spec.missing_bound * float(present.mean()))


def flip(
    data: Amplitudes,
    threshold: float,
    spec: FlippingSpec,
    rng: np.random.Generator,
    normalise: bool = False,
) -> Phased:
    """Phases from one random start (Oszlanyi & Suto 2004, 2005; weak reflections: 2005).

    threshold : delta in units of the density's standard deviation, which is taken anew in every cycle. Weak
    reflections keep their own modulus and turn by a quarter; missing ones are what the flipped density makes them, up
    to a bound; F(000) is free. The last cycles set what is below delta to zero instead of flipping it. With
    `normalise` all but these work on normalised amplitudes.
    """
    whole, data = data, normalised(data, spec) if normalise else data
    noise = rfftn(rng.standard_normal(data.shape), workers=1)
    f = data.modulus * noise / np.abs(noise)
    strong = data.measured & ~data.weak
    turn, total = data.turn[data.weak], data.modulus[strong].sum()
    history = np.empty(spec.cycles)
    for cycle in range(spec.cycles):
        density = irfftn(f, data.shape, workers=1)
        below = density < threshold * density.std()
        g = rfftn(np.where(below, -density, density), workers=1)
        size = np.abs(g)
        history[cycle] = np.abs(data.modulus - size)[strong].sum() / total
        f = np.where(strong, data.modulus * _phase(g, size), 0.0)
        f[data.weak] = turn * g[data.weak]
        f[data.missing] = _bounded(g[data.missing], data.bound)
        f[0, 0, 0] = g[0, 0, 0]
    if normalise:
        data, f = whole, f * whole.level
    for _ in range(spec.polish_cycles):
        density = irfftn(f, data.shape, workers=1)
        g = rfftn(np.where(density < threshold * density.std(), 0.0, density), workers=1)
        f = np.where(data.measured, data.modulus * _phase(g, np.abs(g)), 0.0)
        f[data.missing] = _bounded(g[data.missing], data.bound)
        f[0, 0, 0] = g[0, 0, 0]
    deviation = density - density.mean()
    skewness = float((deviation**3).mean() / (deviation**2).mean() ** 1.5)
    return Phased(_listed(f, data.hkl), history, skewness)


def _phase(g: Complex, size: Array) -> Complex:
    return g / np.maximum(size, 1e-300)


def _bounded(g: Complex, bound: float) -> Complex:
    return g * np.minimum(1.0, bound / np.maximum(np.abs(g), 1e-300))


def _listed(f: Complex, hkl: Index) -> Complex:
    """(n,) of the half grid at hkl; the other half by F(-h) = conj F(h)."""
    stored = hkl[:, 2] >= 0
    values = f[tuple(np.where(stored[:, None], hkl, -hkl).T)]
    return np.where(stored, values, values.conj())
