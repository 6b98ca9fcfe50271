"""Difference Fourier map of what a refinement leaves unexplained, dynamical intensities brought to kinematical ones.

F_o,kin = F_c,kin sqrt(I_o / I_c), with I_o / I_c the least-squares ratio over all equivalents and frames; where
reflections are weak the difference fades out with the uncertainty of that ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import fft, ndimage

from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.scattering import reflections_within, structure_factors, to_unique

Array = NDArray[np.float64]
VOLT_PER_FACTOR = 47.878
"""V Å² that make a potential of sum F (Å) / V (Å³): h² / (2π m e)."""
POINTS = 3.0
"""Grid points over the shortest period in the map."""
SAME_PEAK_A = 0.3
PEAKS = ["x", "y", "z", "height_V", "height_sigma", "nearest", "distance_A"]


@dataclass(frozen=True, slots=True, eq=False)
class DifferenceMap:
    """density : (nx, ny, nz) V over the cell.  peaks : PEAKS, strongest first, holes negative."""

    density: Array
    peaks: pd.DataFrame

    @property
    def sigma(self) -> float:
        """Root mean square of the map, V."""
        return float(self.density.std())


def difference_map(
    reflections: pd.DataFrame, crystal: Crystal, factors: str, n_peaks: int = 20
) -> DifferenceMap:
    """The map and its strongest peaks, one of every set of equivalents.

    reflections : h, k, l, I_obs, sigma, I_calc on the scale of I_calc, equivalents and frames as they are.
    """
    shares = _unexplained(reflections, crystal)
    length = np.linalg.norm(reflections[["h", "k", "l"]].to_numpy() @ crystal.reciprocal_basis.T, axis=1)
    g_max = float(length.max()) + 1e-6
    hkl = reflections_within(crystal, g_max)
    unique = [tuple(h) for h in to_unique(crystal, hkl).tolist()]
    share = np.array([shares.get(h, 0.0) for h in unique])
    hkl, share = hkl[share != 0], share[share != 0]
    shape = [fft.next_fast_len(int(np.ceil(POINTS * g_max * x))) for x in crystal.cell[:3]]
    spectrum = np.zeros(shape, np.complex128)
    spectrum[tuple((hkl % shape).T)] = share * structure_factors(crystal, hkl, factors)
    density = fft.ifftn(spectrum).real * np.prod(shape) * VOLT_PER_FACTOR / crystal.volume
    return DifferenceMap(density, _peaks(density, crystal, n_peaks))


def _unexplained(reflections: pd.DataFrame, crystal: Crystal) -> dict[tuple[int, ...], float]:
    """(F_o,kin - F_c,kin) / F_c,kin of every unique reflection, faded out by its uncertainty."""
    i_o, sigma, i_c = (reflections[name].to_numpy(float) for name in ("I_obs", "sigma", "I_calc"))
    unique = to_unique(crystal, reflections[["h", "k", "l"]].to_numpy())
    w = 1 / sigma**2
    table = pd.DataFrame({"oc": w * i_o * i_c, "cc": w * i_c**2})
    sums = table.groupby([unique[:, 0], unique[:, 1], unique[:, 2]]).sum()
    sums = sums[sums["cc"] > 0]
    ratio = np.sqrt(np.maximum(sums["oc"] / sums["cc"], 0.0))
    share = (ratio - 1) / (1 + 1 / sums["cc"])
    return {tuple(int(x) for x in h): float(s) for h, s in share.items()}


def _peaks(density: Array, crystal: Crystal, n_peaks: int) -> pd.DataFrame:
    """Extrema of the map by height, equivalents left out, with the nearest atom of each."""
    size = np.abs(density)
    top = (size == ndimage.maximum_filter(size, size=3, mode="wrap")) & (size > 0)
    places = np.argwhere(top)
    order = np.argsort(-size[top], kind="stable")
    sigma = max(float(density.std()), 1e-300)
    kept: list[list[object]] = []
    known = np.empty((0, 3))
    for at in places[order]:
        x = _refined(density, at)
        if len(known) and distances_to(crystal, x, known).min() < SAME_PEAK_A:
            continue
        images = crystal.rotations @ x + crystal.translations
        known = np.concatenate([known, images])
        height = float(density[tuple(at)])
        kept.append([*(x - np.floor(x)), height, height / sigma, *_nearest(crystal, x)])
        if len(kept) == n_peaks:
            break
    return pd.DataFrame(kept, columns=PEAKS)


def _refined(density: Array, at: NDArray[np.int64]) -> Array:
    """Fractional coordinates of an extremum by a parabola along every axis."""
    shape = np.array(density.shape)
    out = at.astype(float)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        below, here, above = (float(density[tuple((at + k * step) % shape)]) for k in (-1, 0, 1))
        bend = below - 2 * here + above
        out[axis] += np.clip(0.5 * (below - above) / bend, -0.5, 0.5) if bend != 0 else 0.0
    return np.asarray(out / shape, np.float64)


def distances_to(crystal: Crystal, x: Array, others: Array) -> Array:
    """Å from x (3,) to the nearest lattice translate of every one of the others (n, 3)."""
    away = others - x
    away -= np.rint(away)
    farthest = float(np.linalg.norm(away @ crystal.frac_to_cart.T, axis=1).max())
    reach = np.floor(0.5 + farthest * np.linalg.norm(crystal.reciprocal_basis, axis=0)).astype(int)
    cells = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm((away[:, None] + cells) @ crystal.frac_to_cart.T, axis=2)
    return np.asarray(length.min(axis=1), np.float64)


def _nearest(crystal: Crystal, x: Array) -> tuple[str, float]:
    site, xyz = crystal.unit_cell_atoms()
    distance = distances_to(crystal, x, xyz)
    k = int(distance.argmin())
    return crystal.labels[int(site[k])], float(distance[k])
