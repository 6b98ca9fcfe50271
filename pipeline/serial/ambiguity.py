"""Which of the indexings that the lattice allows each run takes, by the agreement of its intensities with the rest.

Brehm & Diederichs (2014) for runs instead of crystals: the lattice's rotations that the Laue class lacks leave
every position as it is and exchange intensities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.serial.spec import AmbiguitySpec

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """choice : (runs,) class of each.  agreement : (runs, classes) correlation with all others in that class."""

    choice: Index
    agreement: Array

    @property
    def margin(self) -> Array:
        """(runs,) correlation in the class chosen less the best of the others."""
        own = np.take_along_axis(self.agreement, self.choice[:, None], 1)[:, 0]
        rest = self.agreement.copy()
        np.put_along_axis(rest, self.choice[:, None], -np.inf, 1)
        return own - rest.max(axis=1)


def contrast(top: Array, bottom: Array, mate: Index) -> tuple[Array, Array]:
    """Intensities over the mean of those that the lattice cannot tell apart, less 1, and their weights.

    top, bottom : (runs, classes, keys) Σ w p I and Σ w p².  mate : (keys,) family of keys exchanged by reindexing.
    Returns (runs, classes, keys) each; families of one key have no say.
    """
    pooled_top = np.bincount(mate, top[:, 0].sum(axis=0))
    pooled = pooled_top / np.maximum(np.bincount(mate, bottom[:, 0].sum(axis=0)), 1e-300)
    level = pooled[mate]
    useful = (np.bincount(mate)[mate] > 1) & (level > 0)
    weight = np.where(useful, bottom * level, 0.0)
    value = np.where(weight > 0, top / np.maximum(bottom, 1e-300) / np.maximum(level, 1e-300) - 1, 0.0)
    return np.clip(value, -1, 2), weight


def resolve(top: Array, bottom: Array, mate: Index, spec: AmbiguitySpec) -> Assigned:
    """Classes in which the runs agree best with one another; from random starts, that of the best agreement.

    top, bottom : (runs, classes, keys), see `contrast`.  In every pass each run in turn takes the class in which
    its contrast correlates best with that of all others as they stand. A common change of all classes only names them.
    """
    value, weight = contrast(top, bottom, mate)
    runs, classes, _ = value.shape
    rng = np.random.default_rng(spec.seed)
    best = Assigned(np.zeros(runs, np.int64), np.zeros((runs, classes)))
    if classes == 1 or runs == 1:
        return best
    highest = -np.inf
    for _ in range(spec.starts):
        choice = np.asarray(rng.integers(classes, size=runs), np.int64)
        for _ in range(spec.passes):
            before, agreement = choice.copy(), np.zeros((runs, classes))
            total, total_weight = _sums(value, weight, choice)
            for r in rng.permutation(runs):
                total -= (weight * value)[r, choice[r]]
                total_weight -= weight[r, choice[r]]
                mean = total / np.maximum(total_weight, 1e-300)
                agreement[r] = [_correlation(value[r, c], mean, weight[r, c] * (total_weight > 0))
                                for c in range(classes)]  # fmt: skip
                choice[r] = int(np.argmax(agreement[r]))
                total += (weight * value)[r, choice[r]]
                total_weight += weight[r, choice[r]]
            if np.array_equal(choice, before):
                break
        merit = float(np.take_along_axis(agreement, choice[:, None], 1).sum())
        if merit > highest:
            highest, best = merit, Assigned(choice.copy(), agreement)
    return best


def _sums(value: Array, weight: Array, choice: Index) -> tuple[Array, Array]:
    rows = np.arange(len(choice))
    chosen = weight[rows, choice]
    return (chosen * value[rows, choice]).sum(axis=0), chosen.sum(axis=0)


def _correlation(x: Array, y: Array, weight: Array) -> float:
    """Weighted cosine of x and y, both zero on average by construction; 0 without data."""
    norm = float((weight * x * x).sum() * (weight * y * y).sum())
    return float((weight * x * y).sum() / np.sqrt(norm)) if norm > 0 else 0.0
