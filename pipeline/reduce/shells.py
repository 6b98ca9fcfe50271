"""Quality by resolution: completeness, I/sigma, CC1/2 and R_int in shells of equal volume."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.reduce.geometry import candidates
from nanoed.pipeline.reduce.merge import Merged, cc_half, r_int
from nanoed.pipeline.reduce.symmetry import Index, absent, representative

Array = NDArray[np.float64]


def shells(
    merged: Merged, ub: Array, rotations: Index, spacegroup: str | None, d_star_max: float, n: int = 10
) -> pd.DataFrame:
    """One row per shell up to d_star_max (1/Å): d_max, d_min (Å), n, possible, completeness, redundancy,
    i_over_sigma (mean of the merged), cc_half, r_int."""
    possible = candidates(ub, d_star_max)
    possible = np.unique(representative(possible[~absent(possible, spacegroup)], rotations), axis=0)
    edges = d_star_max * (np.arange(n + 1) / n) ** (1 / 3)
    unique, every = merged.reflections, merged.unmerged[merged.unmerged["used"]]
    shell = _shell(unique[["h", "k", "l"]].to_numpy(float), ub, edges)
    expected = np.bincount(_shell(possible.astype(float), ub, edges), minlength=n + 2)
    member = shell[every["group"].to_numpy(np.int64)]
    rows = []
    for k in range(1, n + 1):
        own, mine = unique[shell == k], every[member == k]
        intensity, group = mine["I"].to_numpy(float), _renumbered(mine["group"].to_numpy(np.int64))
        rows.append(
            {
                "d_max": 1 / edges[k - 1] if k > 1 else np.inf,
                "d_min": 1 / edges[k],
                "n": len(own),
                "possible": int(expected[k]),
                "completeness": len(own) / expected[k] if expected[k] else np.nan,
                "redundancy": len(mine) / len(own) if len(own) else np.nan,
                "i_over_sigma": float((own["I"] / own["sigma"]).mean()) if len(own) else np.nan,
                "cc_half": cc_half(intensity, group) if len(mine) else np.nan,
                "r_int": r_int(intensity, group) if len(mine) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _shell(hkl: Array, ub: Array, edges: Array) -> Index:
    """(n,) number of the shell, from 1; beyond the last one more."""
    return np.searchsorted(edges, np.linalg.norm(hkl @ ub.T, axis=1), side="left").astype(np.int64)


def _renumbered(group: Index) -> Index:
    return np.unique(group, return_inverse=True)[1].astype(np.int64)
