"""Planes hk0, h0l and 0kl of reciprocal space put together from the pixels of all frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.geometry import Geometry
from nanoed.pipeline.reduce.series import Progress, over_frames, read_frame, valid_pixels
from nanoed.sim.dataset import DataSet

Array = NDArray[np.float64]
PLANES = (("hk0", 0, 1, 2), ("h0l", 0, 2, 1), ("0kl", 1, 2, 0))
"""Name, the two indices that run, the one that is 0."""
HALF = 0.12  # half thickness of a plane in units of the index that is 0


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A plane of reciprocal space.

    image : (n, n) mean counts, nan where no pixel came; row 0 at the top, the first axis to the right.  reach : of
    the image from its centre, 1/Å.  axes : (2, 2) 1/Å, rows are the plane's two reciprocal axes in the image, y up.
    """

    name: str
    image: Array
    reach: float
    axes: Array


def plane_axes(ub: Array, i: int, j: int) -> Array:
    """(2, 2) the reciprocal axes i and j of ub in their own plane, the first along x."""
    first, second = ub[:, i], ub[:, j]
    x = first / np.linalg.norm(first)
    along = float(second @ x)
    return np.array(
        [[np.linalg.norm(first), 0.0], [along, np.sqrt(max(float(second @ second) - along**2, 0.0))]]
    )


def sections(
    dataset: DataSet,
    geometry: Geometry,
    bad: NDArray[np.bool_],
    frames: Sequence[int],
    reach: float,
    workers: int = 1,
    progress: Progress | None = None,
    side: int = 320,
) -> list[Section]:
    """The three planes through the origin, to `reach` 1/Å, from the pixels of these frames.

    bad : (ny, nx) pixels left out.
    """
    axes = np.array([plane_axes(geometry.ub, i, j) for _, i, j, _ in PLANES])
    index = np.array([(i, j, k) for _, i, j, k in PLANES], np.int64)
    inverse, rotations = np.linalg.inv(geometry.ub), geometry.rotations()
    lens = geometry.distortion
    shape = np.array([lens.ellipse, lens.parabolic, lens.cubic], np.complex128)
    sums, count = np.zeros((3, side, side)), np.zeros((3, side, side))

    def one(i: int) -> tuple[Array, Array]:
        frame = read_frame(dataset, i)
        valid = valid_pixels(frame, geometry.centres[i], 0.0, dataset.nominal.saturation, bad)
        part, hits = np.zeros((3, side, side)), np.zeros((3, side, side))
        place(frame, valid, geometry.centres[i], geometry.a_per_px, 1 / geometry.wavelength, shape, lens.edge,
              inverse @ rotations[i].T, index, axes, HALF, reach, part, hits)  # fmt: skip
        return part, hits

    for part, hits in over_frames(one, list(frames), workers, "sections", progress):
        sums += part
        count += hits
    image = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return [Section(PLANES[p][0], image[p], reach, axes[p]) for p in range(3)]


@nb.njit(cache=True, nogil=True)
def place(
    frame: Array,
    valid: NDArray[np.bool_],
    centre: Array,
    a_per_px: float,
    k: float,
    lens: NDArray[np.complex128],
    edge: float,
    to_hkl: Array,
    index: NDArray[np.int64],
    axes: Array,
    half: float,
    reach: float,
    sums: Array,
    count: Array,
) -> None:
    """Add the pixels of a frame to the sums and counts (3, n, n) of the planes whose third index is within `half`
    of 0.

    lens : ellipse, parabolic and cubic term of Distortion, undone by three rounds of substitution.
    to_hkl : (3, 3), hkl = to_hkl q_lab.  index : (3, 3) of every plane: first, second, vanishing index.
    axes : (3, 2, 2) plane_axes.
    """
    ny, nx = frame.shape
    n = sums.shape[1]
    scale = n / (2 * reach)
    hkl = np.empty(3)
    for row in range(ny):
        for column in range(nx):
            if not valid[row, column]:
                continue
            seen = complex(column + 0.5 - centre[0], centre[1] - row - 0.5)
            w = seen
            for _ in range(3):
                u = w / edge
                e = u.conjugate()
                bent = lens[1] * u * e + 0.5 * lens[1].conjugate() * u * u + lens[2] * u * u * e
                w = seen - lens[0] * w.conjugate() - edge * bent
            x, y = a_per_px * w.real, a_per_px * w.imag
            r2 = x * x + y * y
            if r2 > 2 * reach * reach or r2 >= k * k:
                continue
            z = k - np.sqrt(k * k - r2)
            for m in range(3):
                hkl[m] = to_hkl[m, 0] * x + to_hkl[m, 1] * y + to_hkl[m, 2] * z
            for p in range(3):
                if abs(hkl[index[p, 2]]) > half:
                    continue
                first, second = hkl[index[p, 0]], hkl[index[p, 1]]
                px = int(np.floor((first * axes[p, 0, 0] + second * axes[p, 1, 0] + reach) * scale))
                py = int(np.floor((reach - second * axes[p, 1, 1]) * scale))
                if 0 <= px < n and 0 <= py < n:
                    sums[p, py, px] += frame[row, column]
                    count[p, py, px] += 1.0


def levelled(section: Section) -> Array:
    """The image (n, n) over the median at the same distance from the centre: spots stand out of the falling
    background."""
    n = len(section.image)
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    ring = np.hypot(x, y).astype(np.int64)
    out = np.full((n, n), np.nan)
    seen = np.isfinite(section.image)
    order = np.argsort(ring[seen], kind="stable")
    values, rings = section.image[seen][order], ring[seen][order]
    parts = np.split(values, np.nonzero(np.diff(rings))[0] + 1)
    level = np.concatenate([np.full(len(p), max(float(np.median(p)), 1e-3 * values.mean())) for p in parts])
    flat = np.empty(len(values))
    flat[order] = values / level
    out[seen] = flat
    return out
