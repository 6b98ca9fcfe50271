"""Made-up tables of results, as the runs of a study leave them."""

import math

import pandas as pd

from nanoed.studies.tables import RESULT_COLUMNS, TEXT_COLUMNS


def results(rows, axes=()):
    """A table of results of a study: what a row does not give is empty."""
    columns = ["block", *axes, *RESULT_COLUMNS]
    text = {"block", *axes, *TEXT_COLUMNS}
    plain = {
        "status": "ok",
        "case": "brookite-small",
        "structure": "brookite",
        "protocol": "precession",
        "seed": 1.0,
    }
    filled = [{c: (plain | row).get(c, "" if c in text else math.nan) for c in columns} for row in rows]
    return pd.DataFrame(filled)[columns]


def sized(av_dist, methods=("kinematical", "dynamical"), **more):
    return [
        {
            "block": "size", "size_nm": size, "fluence": "1e3", "scan": "precession", "method": method, "seed": seed,
            "av_dist_A": av_dist(float(size), method, seed), "r_obs_pct": 10.0, "n_obs": 20 * float(size), "n_par": 10,
            "digest": f"{size}-{seed}", "thickness_true_A": 6.7 * float(size), "equiv_diameter_nm": float(size),
            "fluence_e_A2": 1e3,
        } | more
        for size in ("2", "5", "10", "20") for seed in (1, 2, 3) for method in methods
    ]  # fmt: skip


AXES = ("size_nm", "fluence", "scan", "beam_ratio")


def published_rows():
    rows = []
    r_obs = {"kinematical": 8.2, "kinematical-nonaveraged": 10.4, "kinematical-frames": 9.0, "dynamical": 3.0}
    for seed in range(-3, 10):
        for method, r in r_obs.items():
            row = {
                "case": "ito-01",
                "structure": "ito",
                "method": method,
                "seed": seed,
                "r_obs_pct": r + 0.1 * seed,
            }
            rows.append(row | {"max_dist_A": 0.03 + 0.0005 * (seed - 3), "r_int_pct": 30.0})
    for off, shift in (("none", 0.0), ("mosaicity", -2.0), ("elliptic", 0.3)):
        for seed in (1, 2):
            row = {
                "case": "ito-01",
                "structure": "ito",
                "method": "kinematical",
                "flaw_off": off,
                "seed": seed,
            }
            rows.append(
                row | {"r_obs_pct": 8 + seed + shift, "r_int_pct": 9.0, "av_dist_A": 0.02, "max_dist_A": 0.03}
            )
    return rows
