"""Dynamical amplitudes of atoms in a box: the finite particle, or a slab that goes on for ever.

Independent of the Bloch-wave engine: atoms instead of a lattice, real space instead of beams, no excitation errors.
The wave steps through slices of the projected potential (Cowley & Moodie 1957) from the source downwards, along -z.
Lateral frequencies are counted from those of the incident wave, so that a tilted beam stays periodic in the box and
spots stay where the lattice puts them. Of the physics it shares only the scattering factors and the electron.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from nanoed.sim.physics.electron import relativistic_gamma, wavenumber
from nanoed.sim.physics.factors import electron_factor

if TYPE_CHECKING:
    from nanoed.sim.atoms import Atoms

Array = NDArray[np.float64]
Complex = NDArray[np.complexfloating[Any, Any]]
BAND = 2 / 3
"""Share of the grid's highest frequency up to which waves and potentials live, so that products do not alias."""
KERNEL_WIDTH = 8
"""Grid points over which an atom is spread; with BAND the aliased part is below 1e-6 (Barnett et al. 2019)."""
KERNEL_BETA = 0.976 * np.pi * KERNEL_WIDTH * (1 - BAND / 2)
DEPTH_NODES = 6
"""Slices over which an atom's depth is interpolated (Lagrange, fifth degree)."""
DEPTH_STEP = 0.1
"""1/Å; frequency along the beam at which slope and curvature of a scattering factor are taken."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A box sampled for multislice.

    lengths : x, y, z, Å; the box spans [0, x) by [0, y), and z from 0 down to -z.  shape : points along x and y.
    slices : their number.  periodic : the box goes on below itself, else vacuum lies above and below.
    """

    lengths: tuple[float, float, float]
    shape: tuple[int, int]
    slices: int
    periodic: bool = False

    @property
    def slice_thickness(self) -> float:
        """Å."""
        return self.lengths[2] / self.slices

    @property
    def band_limit(self) -> float:
        """Largest lateral frequency that waves and potentials have, 1/Å."""
        return BAND * min(n / (2 * length) for n, length in zip(self.shape, self.lengths, strict=False))

    def frequencies(self) -> tuple[Array, Array]:
        """Lateral frequencies x (nx, 1) and y (1, ny), 1/Å, in the order of an FFT."""
        (nx, ny), (x, y, _) = self.shape, self.lengths
        return fft.fftfreq(nx, x / nx)[:, None], fft.fftfreq(ny, y / ny)[None]


def grid_around(extent: Array, sampling: float, slice_thickness: float, margin: float) -> Grid:
    """A box of vacuum around something of size `extent` (3,) Å, `margin` Å on every side.

    sampling, slice_thickness : Å, both at most what is asked for; the numbers of points suit the FFT.
    """
    x, y, z = (float(e) + 2 * margin for e in extent)
    shape = tuple(fft.next_fast_len(int(np.ceil(length / sampling)), real=True) for length in (x, y))
    return Grid((x, y, z), (shape[0], shape[1]), int(np.ceil(z / slice_thickness)))


@dataclass(frozen=True, slots=True)
class Optics:
    """The electrons, the table of their scattering, and how they propagate.

    propagator : "exact", k_z = sqrt(K² - q²), or "paraxial", its first two terms about the incident wave.
    strength : factor on the potential, 1 in nature.  dtype : of the waves.
    """

    voltage_kv: float
    factors: str = "peng"
    propagator: Literal["exact", "paraxial"] = "exact"
    strength: float = 1.0
    dtype: type[np.complexfloating[Any, Any]] = np.complex64


def potential_slices(atoms: Atoms, grid: Grid, optics: Optics) -> Iterator[Array]:
    """∫U dz of every slice from the top down, (nx, ny) 1/Å each.

    U = (γ / π) Σ_j occ_j ∫ f_j(q) T_j(q) exp(2πi q·(r - r_j)) d³q: its Fourier sum is taken laterally without
    approximation up to the band limit, from atoms at their true x, y; along the beam the atom's depth is interpolated
    between slices and f T is kept to second order in q_z. Raises ValueError for atoms above or below the box.
    """
    (nx, ny), (x, y, _) = grid.shape, grid.lengths
    flat, sloped, bent = _atomic_transforms(atoms, grid, optics)
    slope = 1j / (4 * np.pi * grid.slice_thickness)
    scale = relativistic_gamma(optics.voltage_kv) / (np.pi * x * y) * nx * ny * optics.strength
    curvature = -1 / (2 * np.pi * grid.slice_thickness) ** 2
    deposits = _deposits(atoms, grid, flat.dtype.type)
    above, here = next(deposits), next(deposits)
    for below in deposits:
        spectrum = (flat * here).sum(0)
        spectrum += (bent * (above - 2 * here + below)).sum(0) * flat.dtype.type(curvature)
        if sloped is not None:
            spectrum += (sloped * (below - above)).sum(0) * spectrum.dtype.type(slope)
        yield fft.irfft2(spectrum, s=(nx, ny), overwrite_x=True) * flat.dtype.type(scale)
        above, here = here, below


def _atomic_transforms(
    atoms: Atoms, grid: Grid, optics: Optics
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]:
    """f T (Å) of every species at q_z = 0, half its slope and half its curvature along q_z; (species, nx, ny // 2 + 1).

    On the half-plane of frequencies, divided by the transform of the spreading kernel, zero beyond the band limit.
    There is no slope where all displacement tensors are even in q_z.
    """
    (nx, ny), (_, y, _) = grid.shape, grid.lengths
    qx, qy = np.broadcast_arrays(grid.frequencies()[0], fft.rfftfreq(ny, y / ny)[None])
    inside = qx**2 + qy**2 <= grid.band_limit**2
    kernel = _kernel_transform(fft.fftfreq(nx))[:, None] * _kernel_transform(fft.rfftfreq(ny))[None]
    qx, qy, kernel = qx[inside], qy[inside], kernel[inside]
    real = np.float32 if optics.dtype == np.complex64 else np.float64
    odd = any(u13 or u23 for _, (*_, u13, u23) in atoms.species)
    shape = (len(atoms.species), *inside.shape)
    flat, bent, sloped = np.zeros(shape, real), np.zeros(shape, real), np.zeros(shape if odd else (0,), real)
    for i, (element, tensor) in enumerate(atoms.species):
        below, at, above = (
            _smeared(element, tensor, qx, qy, qz, optics) / kernel for qz in (-DEPTH_STEP, 0, DEPTH_STEP)
        )
        flat[i][inside] = at
        bent[i][inside] = (above - 2 * at + below) / (2 * DEPTH_STEP**2)
        if odd:
            sloped[i][inside] = (above - below) / (2 * DEPTH_STEP)
    return flat, sloped if odd else None, bent


def _smeared(
    element: str, tensor: tuple[float, ...], qx: Array, qy: Array, qz: float, optics: Optics
) -> Array:
    """f exp(-2π² qᵀ U q), Å, at q = (qx, qy, qz), 1/Å."""
    u11, u22, u33, u12, u13, u23 = tensor
    f = electron_factor(element, 0.5 * np.sqrt(qx**2 + qy**2 + qz**2), optics.factors)
    even = u11 * qx**2 + u22 * qy**2 + u33 * qz**2
    return np.asarray(
        f * np.exp(-2 * np.pi**2 * (even + 2 * (u12 * qx * qy + u13 * qx * qz + u23 * qy * qz)))
    )


def _kernel_transform(frequency: Array) -> Array:
    """Fourier transform of the spreading kernel; frequency in cycles per grid point."""
    node, weight = np.polynomial.legendre.leggauss(48)
    values = weight * np.exp(KERNEL_BETA * (np.sqrt(1 - node**2) - 1))
    return 0.5 * KERNEL_WIDTH * np.cos(np.pi * KERNEL_WIDTH * np.multiply.outer(frequency, node)) @ values


def _deposits(atoms: Atoms, grid: Grid, real: type[np.floating[Any]]) -> Iterator[Complex]:
    """Spectra of the spread atoms of slices -1, 0, ..., n (one beyond either end), (species, nx, ny // 2 + 1)."""
    (nx, ny), (x, y, _), n = grid.shape, grid.lengths, grid.slices
    place = -atoms.xyz[:, 2] / grid.slice_thickness - 0.5
    if not grid.periodic and (place.min() < -1 or place.max() > n):
        raise ValueError("atoms lie above or below the box")
    across = [atoms.xyz[:, 0] * nx / x, atoms.xyz[:, 1] * ny / y]
    if grid.periodic:
        place = np.concatenate([(place % n) + shift for shift in (-n, 0, n)])
    order = np.argsort(place, kind="stable")
    place, atom = place[order], order % len(atoms.kind)
    reach = DEPTH_NODES // 2
    for s in range(-1, n + 1):
        near = slice(*np.searchsorted(place, (s - reach, s + reach)))
        who = atom[near]
        weight = atoms.occupancy[who] * _interpolation_weight(place[near] - s)
        density = np.zeros((len(atoms.species), nx, ny), real)
        _spread(across[0][who], across[1][who], atoms.kind[who], weight, KERNEL_BETA, density)
        yield fft.rfft2(density, overwrite_x=True)


def _interpolation_weight(distance: Array) -> Array:
    """Weight of a node at `distance` (in nodes) from a point, Lagrange interpolation from DEPTH_NODES nodes around it.

    Law: the weights of all nodes sum to 1 and reproduce polynomials of degree DEPTH_NODES - 1.
    """
    base = np.floor(distance)
    weight = np.ones_like(distance)
    for offset in range(1 - DEPTH_NODES // 2, DEPTH_NODES // 2 + 1):
        node = base + offset
        weight *= np.where(node == 0, 1.0, (distance - node) / np.where(node == 0, 1.0, -node))
    return np.where((base >= -DEPTH_NODES // 2) & (base < DEPTH_NODES // 2), weight, 0.0)


@nb.njit(cache=True, nogil=True)
def _spread(
    x: Array, y: Array, kind: NDArray[np.int64], weight: Array, beta: float, out: NDArray[Any]
) -> None:
    """Add atoms at (x, y), in grid points, to the periodic grids out (species, nx, ny).

    Kernel exp(β (sqrt(1 - (2u / w)²) - 1)), u in grid points, of width w.
    """
    width = KERNEL_WIDTH
    nx, ny = out.shape[1], out.shape[2]
    along_x, along_y = np.empty(width), np.empty(width)
    for j in range(x.size):
        left, low = int(np.ceil(x[j] - width / 2)), int(np.ceil(y[j] - width / 2))
        for a in range(width):
            u, v = 2 * (left + a - x[j]) / width, 2 * (low + a - y[j]) / width
            along_x[a] = np.exp(beta * (np.sqrt(max(1 - u * u, 0.0)) - 1))
            along_y[a] = np.exp(beta * (np.sqrt(max(1 - v * v, 0.0)) - 1))
        for a in range(width):
            share = weight[j] * along_x[a]
            for b in range(width):
                out[kind[j], (left + a) % nx, (low + b) % ny] += share * along_y[b]


def beam_frequencies(rotations: Array, voltage_kv: float) -> Array:
    """Lateral frequencies of the incident wave that stand for rotations of the specimen; (m, 2) 1/Å.

    rotations : (m, 3, 3) that left-multiply the specimen's orientation. Seen from the specimen at rest
    the untilted beam (0, 0, -K) comes from R^T (0, 0, -K).
    """
    return -wavenumber(voltage_kv) * np.asarray(rotations)[:, 2, :2]


def exit_spectra(
    atoms: Atoms,
    grid: Grid,
    optics: Optics,
    beams: Array,
    repeats: int = 1,
    workers: int = 2,
    memory: float = 1e9,
) -> Iterator[Complex]:
    """Amplitudes behind the box of one incident wave after another, (nx, ny), in the order of an FFT.

    beams : (m, 2) lateral frequencies of the incident waves, 1/Å. Amplitude [i, j] belongs to the lateral frequency
    g = (q_x[i], q_y[j]) beyond the incident one, for an incident amplitude 1; Σ|ψ|² is at most 1, the rest having left
    the band limit. The phase is that on the last slice.  repeats : boxes one below the other, of a periodic grid.
    workers : threads of the FFT.  memory : bytes that the waves may take; more beams go through one after another.
    Raises ValueError for a repeated box that is not periodic.
    """
    if repeats > 1 and not grid.periodic:
        raise ValueError("only a periodic box can be repeated")
    nx, ny = grid.shape
    batch = max(1, int(memory // (2 * nx * ny * np.dtype(optics.dtype).itemsize)))
    beams = np.atleast_2d(np.asarray(beams, float))
    stored = list(potential_slices(atoms, grid, optics)) if repeats > 1 else None
    for start in range(0, len(beams), batch):
        some = beams[start : start + batch]
        waves = [np.ones((nx, ny), optics.dtype) for _ in some]
        steps = [_propagator(grid, optics, beam) for beam in some]
        for _ in range(repeats):
            for projected in stored or potential_slices(atoms, grid, optics):
                _step(waves, steps, projected, some, optics, workers)
        for wave, step in zip(waves, steps, strict=True):
            yield fft.fft2(wave, workers=workers) / (nx * ny) * (step != 0)


def _step(
    waves: list[Complex],
    steps: list[Complex],
    projected: NDArray[Any],
    beams: Array,
    optics: Optics,
    workers: int,
) -> None:
    """Carry all waves through a slice, ∫U dz = `projected`, and down to the next."""
    normal = np.round(np.sqrt(wavenumber(optics.voltage_kv) ** 2 - np.square(beams).sum(1)), 6)
    for k_n in np.unique(normal):
        phase = projected * projected.dtype.type(np.pi / k_n)
        through = np.empty(phase.shape, optics.dtype)
        np.cos(phase, out=through.real)
        np.sin(phase, out=through.imag)
        spectrum = fft.fft2(through, overwrite_x=True, workers=workers)
        spectrum *= steps[0] != 0
        through = fft.ifft2(spectrum, overwrite_x=True, workers=workers)
        for i in np.flatnonzero(normal == k_n):
            waves[i] *= through
            spectrum = fft.fft2(waves[i], overwrite_x=True, workers=workers)
            spectrum *= steps[i]
            waves[i] = fft.ifft2(spectrum, overwrite_x=True, workers=workers)


def _propagator(grid: Grid, optics: Optics, beam: Array) -> Complex:
    """exp(2πi Δz (k_z(q + q_0) - k_z(q_0))) inside the band limit, 0 outside; (nx, ny)."""
    qx, qy = grid.frequencies()
    k = wavenumber(optics.voltage_kv)
    at_rest = np.sqrt(k**2 - beam @ beam)
    p2 = (qx + beam[0]) ** 2 + (qy + beam[1]) ** 2
    if optics.propagator == "exact":
        k_z = np.sqrt(np.maximum(k**2 - p2, 0)) - at_rest
    else:
        k_z = -(p2 - beam @ beam) / (2 * k)
    inside = qx**2 + qy**2 <= grid.band_limit**2
    return np.where(inside, np.exp(2j * np.pi * grid.slice_thickness * k_z), 0).astype(optics.dtype)


def spot_areas(
    atoms: Atoms,
    grid: Grid,
    optics: Optics,
    g: Array,
    rotations: Array,
    weights: Array,
    radius: float,
    s_max: float,
    workers: int = 2,
) -> Array:
    """Electrons in the spots of a frame per incident electron and Å²; (n,) Å².

    Over the projected area of the particle they are the intensities of the column approximation.
    g : (n, 3) 1/Å, reciprocal-lattice points in the lab, 000 first.  rotations (m, 3, 3), weights (m,) : of the frame,
    left-multiplying the orientation of atoms and g. A frequency within `radius` of a point belongs to the nearest one,
    its excitation error counted as a third coordinate, of those with |S| <= s_max (1/Å).
    """
    beams = beam_frequencies(rotations, optics.voltage_kv)
    k = wavenumber(optics.voltage_kv)
    out = np.zeros(len(g))
    qx, qy = (q.ravel() for q in grid.frequencies())
    spectra = exit_spectra(atoms, grid, optics, beams, workers=workers)
    for beam, weight, spectrum in zip(beams, weights, spectra, strict=True):
        below = np.sqrt(np.maximum(k**2 - np.square(g[:, :2] + beam).sum(1), 0))
        s = below - np.sqrt(k**2 - beam @ beam) + g[:, 2]
        intensity = np.square(spectrum.real) + np.square(spectrum.imag)
        _add_spots(intensity, qx, qy, g, s, radius, s_max, weight * grid.lengths[0] * grid.lengths[1], out)
    return out


@nb.njit(cache=True, nogil=True)
def _add_spots(
    intensity: NDArray[Any],
    qx: Array,
    qy: Array,
    g: Array,
    s: Array,
    radius: float,
    s_max: float,
    weight: float,
    out: Array,
) -> None:
    """Give every frequency to the nearest point (g_x, g_y, S) and add its intensity times `weight` to out (n,)."""
    nx, ny = intensity.shape
    best = np.full((nx, ny), np.inf)
    owner = np.full((nx, ny), -1)
    dx, dy = qx[1], qy[1]
    for n in range(g.shape[0]):
        if abs(s[n]) > s_max:
            continue
        for i in range(int(np.ceil((g[n, 0] - radius) / dx)), int(np.floor((g[n, 0] + radius) / dx)) + 1):
            for j in range(int(np.ceil((g[n, 1] - radius) / dy)), int(np.floor((g[n, 1] + radius) / dy)) + 1):
                off2 = (i * dx - g[n, 0]) ** 2 + (j * dy - g[n, 1]) ** 2
                if off2 <= radius**2 and off2 + s[n] ** 2 < best[i % nx, j % ny]:
                    best[i % nx, j % ny] = off2 + s[n] ** 2
                    owner[i % nx, j % ny] = n
    for i in range(nx):
        for j in range(ny):
            if owner[i, j] >= 0:
                out[owner[i, j]] += weight * intensity[i, j]
