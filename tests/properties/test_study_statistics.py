"""Statistics of the studies on numbers whose answers are known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nanoed.studies.statistics import paired_change, reach_below, share, spearman, summarise

RNG = np.random.default_rng(5)


def test_summary_of_known_numbers():
    found = summarise([1.0, 2.0, 3.0, math.nan])
    assert (found["n"], found["mean"], found["sd"]) == (3, 2.0, 1.0)
    assert found["mean_high"] - found["mean"] == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3))
    assert summarise([])["n"] == 0
    assert math.isnan(summarise([4.0])["sd"])


def test_interval_of_the_mean_holds_it_as_often_as_it_says():
    inside = 0
    for _ in range(2000):
        found = summarise(RNG.normal(1.0, 0.3, 5))
        inside += found["mean_low"] <= 1.0 <= found["mean_high"]
    assert 0.935 < inside / 2000 < 0.965


def test_spearman_is_that_of_scipy_and_sees_only_ranks():
    x, y = RNG.normal(size=30), RNG.normal(size=30)
    rho, low, high, n = spearman(x, y)
    assert n == 30
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert low < rho < high
    assert spearman(np.exp(x), y) == (rho, low, high, n)
    assert spearman(-x, y)[0] == pytest.approx(-rho)


def test_spearman_within_groups_does_not_see_what_groups_differ_by():
    groups = np.repeat(np.arange(6), 20)
    apart = 5.0 * groups
    x, y = (RNG.normal(size=120) for _ in range(2))
    assert spearman(x + apart, y + apart)[0] > 0.9
    rho, low, high, n = spearman(x + apart, y + apart, groups)
    assert abs(rho) < 0.25
    assert low < rho < high
    assert n == 120
    same = spearman(x + apart, x - apart, groups)
    assert same[0] == pytest.approx(1.0)
    assert spearman(x, y, np.zeros(120)) == spearman(x, y)


def test_spearman_interval_leaves_out_zero_by_chance_as_often_as_it_says():
    wrong = 0
    for _ in range(1000):
        _, low, high, _ = spearman(RNG.normal(size=20), RNG.normal(size=20))
        wrong += low > 0 or high < 0
    assert 0.03 < wrong / 1000 < 0.075


def test_spearman_of_too_little_or_of_constants_is_unknown():
    assert math.isnan(spearman([1, 2, 3], [1, 2, 3])[0])
    assert math.isnan(spearman([1, 1, 1, 1, 1], [1, 2, 3, 4, 5])[0])
    assert spearman([1, 2, math.nan, 4, 5, 6], [1, 2, 3, math.nan, 5, 6])[3] == 4


def power_law(sizes, at_10, exponent, spread=0.0, n=5):
    return {s: at_10 * (s / 10) ** exponent * np.exp(RNG.normal(0, spread, n)) for s in sizes}


def test_smallest_size_of_a_power_law_is_met_exactly():
    found = reach_below(power_law((2, 5, 10, 20, 50), 0.01, -1.5), 0.02, np.random.default_rng(1))
    assert found.lowest == pytest.approx(10 * 0.5 ** (1 / 1.5), rel=1e-9)
    assert not found.open_low
    assert (found.highest, found.open_high) == (50, True)


def test_smallest_size_has_an_interval_that_holds_it_and_narrows_with_replicates():
    truth, widths, held = 10 * 0.5 ** (1 / 1.5), [], 0
    for n in (4, 4, 4, 4, 4, 40, 40, 40, 40, 40):
        found = reach_below(power_law((2, 5, 10, 20), 0.01, -1.5, 0.3, n), 0.02, np.random.default_rng(1))
        low, high = found.lowest_interval
        held += n == 40 and low < truth < high
        widths.append(high - low)
    assert held >= 4
    assert np.mean(widths[5:]) < 0.6 * np.mean(widths[:5])


def test_interval_of_the_smallest_size_holds_it_as_often_as_it_says_with_three_replicates_only():
    truth, held = 10 * 0.5 ** (1 / 1.5), 0
    for _ in range(80):
        found = reach_below(power_law((2, 3, 5, 8, 12, 20), 0.01, -1.5, 0.3, 3), 0.02, RNG)
        low, high = found.lowest_interval
        held += low < truth < high
    assert held >= 71  # 76 are expected, less 2.5 standard deviations; a plain bootstrap over the seeds holds it in 66


def test_sizes_below_a_limit_may_end_on_both_sides():
    values = {5.0: [0.05] * 3, 10.0: [0.01] * 3, 20.0: [0.012] * 3, 40.0: [0.06] * 3}
    found = reach_below(values, 0.02, np.random.default_rng(1))
    assert 5 < found.lowest < 10
    assert 20 < found.highest < 40
    assert not found.open_low
    assert not found.open_high


def test_grid_that_ends_too_early_and_one_that_never_gets_there_say_so():
    good = reach_below({5.0: [0.001] * 3, 10.0: [0.001] * 3}, 0.02, np.random.default_rng(1))
    assert (good.lowest, good.open_low, good.highest, good.open_high) == (5, True, 10, True)
    bad = reach_below({5.0: [0.3] * 3, 10.0: [0.1] * 3}, 0.02, np.random.default_rng(1))
    assert math.isnan(bad.lowest)
    assert not bad.open_low


def test_draws_without_any_size_below_the_limit_lie_beyond_the_grid():
    """Left out, a size that may well be too little had a closed interval that was the narrower the worse it was."""
    values = {5.0: [0.05, 0.06], 10.0: [0.02, 0.03], 20.0: [0.008, 0.012]}
    found = reach_below(values, 0.01, np.random.default_rng(1))
    assert 10 < found.lowest <= 20
    low, high = found.lowest_interval
    assert 5 < low < 20
    assert high == math.inf
    assert found.highest_interval[0] == -math.inf
    sure = reach_below({s: [x / 3 for x in v] for s, v in values.items()}, 0.01, np.random.default_rng(1))
    assert math.isfinite(sure.lowest_interval[1])


def test_failed_run_counts_as_above_every_limit():
    values = {5.0: [math.nan, 0.001, 0.001], 10.0: [0.01] * 3, 20.0: [0.005] * 3, 40.0: [math.nan, 0.005, 0.005]}
    found = reach_below(values, 0.02, np.random.default_rng(1))
    assert (found.lowest, found.highest) == (10, 20)
    assert (found.lowest_interval, found.highest_interval) == ((5, 10), (20, 40))


def test_paired_change_cancels_what_the_seeds_share():
    seeds = np.arange(6)
    common = RNG.normal(0, 5, 6)
    a = pd.DataFrame({"seed": seeds, "r": common})
    b = pd.DataFrame({"seed": seeds[::-1], "r": common[::-1] + 0.5})
    found = paired_change(a, b, ["seed"], "r")
    assert (found["n"], found["mean"]) == (6, pytest.approx(0.5))
    assert found["sd"] == pytest.approx(0, abs=1e-12)


def test_share_has_the_exact_interval_of_a_proportion_and_one_value_none():
    found = share([1.0, 1.0, 1.0, 1.0, 1.0])
    assert (found["mean"], found["mean_high"]) == (1.0, 1.0)
    assert found["mean_low"] == pytest.approx(0.025 ** (1 / 5))  # all right: p^n = 2.5 %
    assert share([1.0, 0.0, 0.0])["mean_high"] == pytest.approx(0.9057, abs=1e-4)  # tables of Clopper & Pearson
    assert math.isnan(share([1.0])["mean_low"])


def test_geometric_mean_and_its_interval_are_those_of_the_logarithms():
    values = [0.001, 0.01, 0.1]
    found, logs = summarise(values, geometric=True), summarise(np.log(values))
    assert found["mean"] == pytest.approx(0.01)
    assert found["mean_low"] == pytest.approx(math.exp(logs["mean_low"]))
    assert found["mean_low"] > 0 > summarise(values)["mean_low"]
