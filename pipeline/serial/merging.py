"""One intensity per run and reflection, merged over the runs; how good they are, and with how many frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.merge import Merged, merge
from nanoed.pipeline.reduce.symmetry import absent, laue_rotations, possible, representative
from nanoed.pipeline.serial.intensities import Full, Oriented, Spots, recorded
from nanoed.pipeline.serial.nodes import Nodes
from nanoed.pipeline.serial.spec import IndexSpec

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def measurements(
    spots: Spots, oriented: Oriented, full: Full, nodes: Nodes, run: Index, spec: IndexSpec
) -> pd.DataFrame:
    """h, k, l, I, sigma, run: the full intensity of every reflection as each run measured it.

    I = Σ w k p I_f / Σ w k² p² over the frames of the run, w = 1 / (sigma² + (model_error k p I_h)²): neighbouring
    frames of one particle see a reflection pass through the Ewald sphere, which is one measurement. Reflections that
    no frame recorded to `min_partiality` and those that the space group extinguishes are left out.
    """
    settings, hkl, key = spec.partiality, nodes.hkl, nodes.key
    p = recorded(spots, oriented, settings)
    q = p * np.exp(oriented.log_scale)[spots.owner]
    expected = q * full.value[key[spots.node]]
    weight = 1 / np.maximum(spots.sigma**2 + (settings.model_error * expected) ** 2, 1e-300)
    place = run[spots.owner] * len(hkl) + spots.node
    which, group = np.unique(place, return_inverse=True)
    bottom = np.maximum(np.bincount(group, weight * q * q), 1e-300)
    largest = np.zeros(len(which))
    np.maximum.at(largest, group, p)
    index = hkl[which % len(hkl)]
    table = pd.DataFrame(index, columns=["h", "k", "l"])
    table["I"] = np.bincount(group, weight * q * spots.intensity) / bottom
    table["sigma"] = np.sqrt(np.bincount(group, (weight * q * spots.sigma) ** 2)) / bottom
    table["run"] = which // len(hkl)
    keep = (largest >= settings.min_partiality) & ~absent(index, spec.spacegroup)
    return table[keep & (table["sigma"] > 0).to_numpy()].reset_index(drop=True)


def merged(measured: pd.DataFrame, spec: IndexSpec) -> Merged:
    """The unique list in the Laue class (reduce.merge)."""
    shared = spec.reduction
    return merge(measured, laue_rotations(shared.laue_class, shared.spacegroup), spec.merging)


def halves(measured: pd.DataFrame, spec: IndexSpec, splits: int = 20) -> tuple[float, float]:
    """CC1/2 and R_split of the means of two halves of the runs, averaged over random splits.

    R_split = Σ|I_1 - I_2| / Σ(I_1 + I_2) · sqrt 2 (White et al. 2012). Whole particles go to either half, since
    frames of one share its errors. NaN below two runs and three reflections in both halves.
    """
    shared = spec.reduction
    hkl = measured[["h", "k", "l"]].to_numpy(np.int64)
    unique = representative(hkl, laue_rotations(shared.laue_class, shared.spacegroup))
    keys, group = np.unique(unique, axis=0, return_inverse=True)
    names, run = np.unique(measured["run"], return_inverse=True)
    rng, found = np.random.default_rng(0), []
    for _ in range(splits if len(names) > 1 else 0):
        side = np.zeros(len(names), bool)
        side[rng.permutation(len(names))[: len(names) // 2]] = True
        means = [_means(measured, group, mask, len(keys)) for mask in (side[run], ~side[run])]
        both = np.isfinite(means[0]) & np.isfinite(means[1])
        if both.sum() >= 3:
            a, b = means[0][both], means[1][both]
            found.append((np.corrcoef(a, b)[0, 1], np.sqrt(2) * np.abs(a - b).sum() / (a + b).sum()))
    if not found:
        return float("nan"), float("nan")
    cc, split = np.mean(found, axis=0)
    return float(cc), float(split)


def _means(measured: pd.DataFrame, group: Index, mask: NDArray[np.bool_], n: int) -> Array:
    """(n,) mean intensities of the groups among the masked rows, NaN for none."""
    count = np.bincount(group[mask], minlength=n)
    total = np.bincount(group[mask], measured["I"].to_numpy()[mask], n)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def completeness(unique: pd.DataFrame, basis: Array, spec: IndexSpec) -> tuple[float, int]:
    """Part of the possible reflections up to coverage_s_max that were measured, and their number."""
    shared = spec.reduction
    rotations = laue_rotations(shared.laue_class, shared.spacegroup)
    n = possible(basis, 2 * spec.coverage_s_max, rotations, spec.spacegroup)
    length = np.linalg.norm(unique[["h", "k", "l"]].to_numpy(float) @ basis.T, axis=1)
    return float((length <= 2 * spec.coverage_s_max).sum() / n) if n else float("nan"), n


def figures(measured: pd.DataFrame, found: Merged, basis: Array, spec: IndexSpec) -> dict[str, Any]:
    """Figures of merit of a merged list."""
    cc, split = halves(measured, spec)
    part, n = completeness(found.reflections, basis, spec)
    return {"coverage": part, "n_possible": n, "redundancy": found.redundancy, "r_int": found.r_int,
            "cc_half": cc, "r_split": split, "n_all": len(found.reflections)}  # fmt: skip


def by_number_of_frames(
    spots: Spots, oriented: Oriented, full: Full, nodes: Nodes, run: Index, basis: Array, spec: IndexSpec
) -> list[dict[str, Any]]:
    """The same figures with the first 25, 50, 100, ... oriented frames, and with all."""
    sizes = [25 * 2**k for k in range(20) if 25 * 2**k < len(oriented)] + [len(oriented)]
    rows = []
    for n in sizes:
        last = int(spots.first[n])
        some = Spots(spots.first[: n + 1], spots.node[:last], spots.s[:last], spots.g[:last], spots.xy[:last],
                     spots.intensity[:last], spots.sigma[:last])  # fmt: skip
        measured = measurements(some, oriented.select(np.arange(n)), full, nodes, run, spec)
        if len(measured):
            rows.append({"frames": n, "runs": len(np.unique(run[:n]))} | figures(measured, merged(measured, spec),
                        basis, spec))  # fmt: skip
    return rows
