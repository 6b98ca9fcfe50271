"""Statistics over the seeds of a study: means with intervals, rank correlation, ranges below a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
CONFIDENCE = 0.95
DRAWS = 2000
FLOOR = 1e-12
"""What counts as zero where logarithms are taken."""
AS_PUBLISHED = frozenset(("paper",))
"""Analyses whose means of distances are arithmetic too, as in the published tables that they are held against."""


def summarise(values: Sequence[float] | pd.Series, geometric: bool = False) -> dict[str, float]:
    """n, mean, sd, mean_low and mean_high (95 % by Student's t), p5 and p95 of the finite values; NaN where unknown.

    geometric : mean and interval are those of the logarithms, for values that scatter by factors (at least FLOOR); sd,
    p5 and p95 are of the values all the same.
    """
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    n = len(x)
    none = dict.fromkeys(("mean", "sd", "mean_low", "mean_high", "p5", "p95"), math.nan)
    if n == 0:
        return {"n": 0.0} | none
    y = np.log(np.maximum(x, FLOOR)) if geometric else x
    half = math.nan
    if n > 1:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * float(y.std(ddof=1)) / math.sqrt(n)
    mean = np.array([y.mean(), y.mean() - half, y.mean() + half])
    centre, low, high = (float(m) for m in (np.exp(mean) if geometric else mean))
    sd = float(x.std(ddof=1)) if n > 1 else math.nan
    p5, p95 = (float(p) for p in np.percentile(x, (5, 95)))
    return {"n": float(n)} | dict(zip(none, (centre, sd, low, high, p5, p95), strict=True))


def share(values: Sequence[float] | pd.Series) -> dict[str, float]:
    """`summarise` of values that are 0 or 1: the interval is the exact one of a proportion (Clopper & Pearson 1934).

    It is NaN for a single value, as all intervals here.
    """
    found = summarise(values)
    n, k = found["n"], round(found["n"] * found["mean"]) if found["n"] else 0
    if n < 2:
        return found
    tail = (1 - CONFIDENCE) / 2
    low = float(stats.beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high = float(stats.beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return found | {"mean_low": low, "mean_high": high}


def spearman(
    x: Sequence[float] | pd.Series, y: Sequence[float] | pd.Series, groups: Sequence[Any] | pd.Series | None = None
) -> tuple[float, float, float, int]:
    """Rank correlation of the finite pairs, its 95 % interval, and their number.

    groups : labels; ranks are taken within each group, about their mean there, so that what groups differ by does not
    count; every group but one takes one from the n of the interval.
    The interval is that of Fisher's z with variance (1 + rho²/2) / (n - 3) (Bonett & Wright, Psychometrika 65 (2000)
    23). NaN for fewer than four pairs (three and one for each group) or where one side is constant.
    """
    together = np.zeros(len(x)) if groups is None else np.asarray(groups)
    table = pd.DataFrame({"x": np.asarray(x, float), "y": np.asarray(y, float), "group": together})
    table = table.loc[np.isfinite(table["x"]) & np.isfinite(table["y"])]
    of_group = table.groupby("group")[["x", "y"]]
    a, b = (of_group.rank() - of_group.transform("count") / 2 - 0.5).to_numpy().T
    n, freedom = len(table), len(table) - table["group"].nunique() - 2
    if freedom < 1 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, math.nan, math.nan, n
    rho = float(np.corrcoef(a, b)[0, 1])
    z = math.atanh(min(max(rho, -1 + 1e-12), 1 - 1e-12))
    half = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt((1 + rho**2 / 2) / freedom)
    return rho, math.tanh(z - half), math.tanh(z + half), n


@dataclass(frozen=True, slots=True)
class Reach:
    """Sizes between which a quantity is below a limit, with 95 % intervals of both ends.

    lowest, highest : NaN where no size is below.  Intervals may reach to infinity, see `reach_below`.
    open_low, open_high : the smallest, the largest size of all is below, so that the true end lies beyond it.
    """

    lowest: float
    lowest_interval: tuple[float, float]
    open_low: bool
    highest: float
    highest_interval: tuple[float, float]
    open_high: bool


def reach_below(values: dict[float, Sequence[float]], limit: float, rng: np.random.Generator) -> Reach:
    """Where the geometric mean over replicates is below `limit`, around the size where it is least.

    values : size -> replicates; one that failed is NaN and counts as infinite. Ends are interpolated between the two
    sizes linearly in the logarithms, or stand at the size below where the other has a failure. Intervals: the ends for
    log means drawn from their t distribution about those found, the variance of the logarithms pooled over the sizes;
    a draw that ends beside a failure may end anywhere up to that size, and one in which no size is below the limit has
    its smallest beyond all sizes and its largest before them: where that is so in more than 2.5 % of the draws, that
    end of the interval is infinite. Intervals are NaN with fewer than two replicates, and where an end is open they
    tell only how often it would be found inside.
    """
    sizes = np.array(sorted(values))
    replicates = [np.nan_to_num(np.asarray(values[s], float), nan=math.inf) for s in sizes]
    log_means = np.array([_log_mean(v) for v in replicates])
    low, high, open_low, open_high = _ends(sizes, log_means, limit)
    if min(len(v) for v in replicates) < 2:
        return Reach(low, (math.nan, math.nan), open_low, high, (math.nan, math.nan), open_high)
    draws = _drawn_log_means(replicates, rng)
    near, far = (np.array([_ends(sizes, row, limit, reach)[:2] for row in draws]) for reach in (False, True))
    lowest = _percentile(far[:, 0], 0, math.inf), _percentile(near[:, 0], 1, math.inf)
    highest = _percentile(near[:, 1], 0, -math.inf), _percentile(far[:, 1], 1, -math.inf)
    return Reach(low, lowest, open_low, high, highest, open_high)


def _log_mean(values: Array) -> float:
    return float(np.log(np.maximum(values, FLOOR)).mean())


def _drawn_log_means(replicates: Sequence[Array], rng: np.random.Generator) -> Array:
    """(DRAWS, sizes) log means about those found, multivariate t; a size with a failure stays infinite."""
    logs = [np.log(np.maximum(values, FLOOR)) for values in replicates]
    sound = [x for x in logs if np.isfinite(x).all()]
    freedom = sum(len(x) - 1 for x in sound)
    spread = math.sqrt(sum(float(((x - x.mean()) ** 2).sum()) for x in sound) / freedom) if freedom else 0.0
    scale = spread / np.sqrt([len(x) for x in logs])
    heavy = np.sqrt(rng.chisquare(max(freedom, 1), DRAWS) / max(freedom, 1))
    drawn = rng.standard_normal((DRAWS, len(logs))) * scale / heavy[:, None]
    return np.asarray(np.array([x.mean() for x in logs]) + drawn)


def _ends(sizes: Array, log_means: Array, limit: float, reach: bool = False) -> tuple[float, float, bool, bool]:
    """Both ends and whether they are open; beside a failure the size inside, with `reach` the one that failed."""
    target = math.log(limit)
    best = int(np.argmin(log_means))
    if not log_means[best] < target:
        return math.nan, math.nan, False, False
    first = last = best
    while first > 0 and log_means[first - 1] < target:
        first -= 1
    while last < len(sizes) - 1 and log_means[last + 1] < target:
        last += 1
    low = _crossing(sizes, log_means, first, first - 1, target, reach) if first > 0 else float(sizes[0])
    open_high = last == len(sizes) - 1
    high = float(sizes[-1]) if open_high else _crossing(sizes, log_means, last, last + 1, target, reach)
    return low, high, first == 0, open_high


def _crossing(sizes: Array, log_means: Array, inside: int, outside: int, target: float, reach: bool) -> float:
    if not math.isfinite(log_means[outside]):
        return float(sizes[outside if reach else inside])
    part = (target - log_means[inside]) / (log_means[outside] - log_means[inside])
    x0, x1 = math.log(sizes[inside]), math.log(sizes[outside])
    return math.exp(x0 + part * (x1 - x0))


def _percentile(values: Array, end: int, missing: float) -> float:
    """The lower (0) or upper (1) end of the interval that holds CONFIDENCE of the values; NaN stands for `missing`."""
    share = 50 + 50 * CONFIDENCE * (2 * end - 1)
    return float(np.percentile(np.where(np.isnan(values), missing, values), share, method="inverted_cdf"))


def paired_change(
    reference: pd.DataFrame, other: pd.DataFrame, on: list[str], column: str
) -> dict[str, float]:
    """`summarise` of other - reference over the rows that have the same values of `on`, NaN pairs left out."""
    both = reference.merge(other, on=on, suffixes=("_a", "_b"))
    return summarise(both[f"{column}_b"] - both[f"{column}_a"])
