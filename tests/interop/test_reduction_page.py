"""The page of a reduction: complete, self-contained, the same bytes every time, hostile text harmless; opened by a
browser. And the figures' numbers: sections, clusters of difference vectors, shells."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spot_frames import CELL, true_geometry, write_series

from nanoed.pipeline.page.html import render
from nanoed.pipeline.reduce.geometry import candidates, reciprocal_basis
from nanoed.pipeline.reduce.page.differences import clustered
from nanoed.pipeline.reduce.page.page import page_of, write_page
from nanoed.pipeline.reduce.page.sections import Section, levelled, sections
from nanoed.pipeline.reduce.page.summary import alarms, summary
from nanoed.pipeline.reduce.reduce import Reduction, reduce
from nanoed.pipeline.reduce.shells import shells
from nanoed.pipeline.reduce.symmetry import laue_rotations, possible
from nanoed.pipeline.spec import ReduceSpec
from nanoed.sim.dataset import DataSet, open_dataset

SPEC = ReduceSpec.model_validate(
    {"cell": CELL, "laue": "mmm", "d_star_max": 1.0, "coverage_s_max": 0.5, "orientation": {"refine": False}}
)
PICTURES = (
    "peak-map",
    "axis-search",
    "differences",
    "sections",
    "rocking",
    "frames",
    "distortion",
    "noise",
    "shells",
)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, true_geometry(), blank=[7])
    with open_dataset(folder) as dataset:
        yield dataset


@pytest.fixture(scope="module")
def result(series: DataSet) -> Reduction:
    return reduce(series.path, SPEC)


@pytest.fixture(scope="module")
def page(series: DataSet, result: Reduction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page"), result, series)


def test_every_figure_is_there_and_nothing_is_loaded(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in PICTURES:
        assert f'id="{name}-' in text, name
    assert len(re.findall(r"<svg role=", text)) == len(PICTURES)
    loaded = re.findall(r"""(?:src|href)=["'](?!#|data:)([^"']*)""", text)
    assert loaded == []
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 3_000_000


def test_the_same_bytes_every_time_and_with_two_workers(
    page: Path, series: DataSet, result: Reduction, tmp_path: Path
) -> None:
    again = write_page(tmp_path, result, series, workers=2)
    assert again.read_bytes() == page.read_bytes()


def test_text_of_a_file_is_only_text(series: DataSet, result: Reduction) -> None:
    hostile = result.statistics | {"bravais": "<script>alert(1)</script>"}
    text = render(page_of(replace(result, statistics=hostile), series))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_browser_shows_it(page: Path, chromium: str) -> None:
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.count("<svg ") >= len(PICTURES)
    assert "R<sub>" in done.stdout or "<i>R</i>" in done.stdout
    assert "Refused to" not in done.stderr


def test_summary_and_alarms(result: Reduction) -> None:
    lines = dict(summary(result.statistics, result.frames))
    assert lines["frames"].endswith("1 left out")
    assert re.match(r"azimuth 13\d\.\d\d°, turning in the stated sense", lines["tilt axis"])
    assert lines["merged in"].startswith("mmm")
    assert max(len(text) for text in lines.values()) < 300
    assert alarms(result.statistics, result.frames) == []
    absent = {"groups": ["P b c a"], "n_absent": 3, "mean_ratio": -0.002, "log_odds": 0.0}
    named = dict(summary(result.statistics | {"space_groups": [absent]}, result.frames))["space groups"]
    assert named == "P b c a (3 absences at 0 % of the mean)"
    assert re.search(r"dead time \d\.\d\d ± \d\.\d\d µs \((assumed|measured)\);", lines["errors beside counting"])
    counted = {"dead_time_us": 0.0, "dead_time_error_us": 0.0, "dead_time_is": "given"}
    told = dict(summary(result.statistics | counted, result.frames))["errors beside counting"]
    assert told.startswith("dead time 0.00 µs (given);")
    upset = result.statistics | {"rotation_reversed": True}
    assert "tilt angles have the wrong sign" in alarms(upset, result.frames)[0]
    turned = result.statistics | {"axis_stated_deg": result.statistics["axis_azimuth_deg"] + 173}
    assert "lies 7.0° from" in alarms(turned, result.frames)[0]
    assert "lies 20 pixels" in alarms(result.statistics | {"centre_offset_px": 20.2}, result.frames)[0]
    lost = result.frames.assign(blank=result.frames["frame"] > result.frames["frame"].max() // 2)
    assert "lost after frame" in alarms(result.statistics, lost)[1]
    late = result.frames.assign(blank=result.frames["frame"] < 5)
    assert "not seen before frame 5" in alarms(result.statistics, late)[-1]
    refused = [t | {"accepted": False} for t in result.statistics["laue_tests"]]
    assert "unrelated" in alarms(result.statistics | {"laue_tests": refused}, result.frames)[0]


def test_sections_show_spots_at_nodes_and_nothing_between(series: DataSet, result: Reduction) -> None:
    """Brightness of the h0l plane at whole h, l against that at halves; less with a wrong orientation."""
    good = np.nonzero(~result.frames["blank"].to_numpy())[0].tolist()
    bad = result.detector.pixels.bad
    plane = sections(series, result.geometry, bad, good, 1.0)[1]
    assert plane.name == "h0l"
    assert contrast(plane) > 3
    turned = replace(result.geometry, omega=result.geometry.omega + 0.1)
    assert contrast(sections(series, turned, bad, good, 1.0)[1]) < 0.5 * contrast(plane)


def contrast(plane: Section) -> float:
    image = levelled(plane)
    n = len(image)
    values = []
    for shift in (0.0, 0.5):
        hl = np.stack(np.meshgrid(np.arange(-6, 7), np.arange(-6, 7)), -1).reshape(-1, 2) + shift
        xy = hl @ plane.axes
        xy = xy[(np.linalg.norm(xy, axis=1) > 0.15) & (np.abs(xy).max(axis=1) < 0.6)]
        column = np.floor((xy[:, 0] + plane.reach) * n / (2 * plane.reach)).astype(int)
        row = np.floor((plane.reach - xy[:, 1]) * n / (2 * plane.reach)).astype(int)
        found = image[row, column]
        values.append(np.nanmean(found))
    return float(values[0] / values[1])


def test_clusters_of_differences_are_the_lattice() -> None:
    rng = np.random.default_rng(2)
    ub = reciprocal_basis(CELL)
    nodes = candidates(ub, 0.6)
    x = nodes[rng.random(len(nodes)) < 0.6] @ ub.T
    x = x + 0.001 * rng.standard_normal(x.shape)
    places, numbers = clustered(x, 0.4)
    hkl = places @ np.linalg.inv(ub).T
    strong = numbers > 0.2 * numbers.max()
    assert strong.sum() > 20
    assert np.abs(hkl - np.round(hkl))[strong].max() < 0.1
    scattered, _ = clustered(rng.uniform(-0.5, 0.5, x.shape), 0.4)
    assert len(scattered) < 0.1 * len(places)


def test_shells_add_up(result: Reduction) -> None:
    rotations = laue_rotations("mmm", None)
    table = shells(result.merged, result.geometry.ub, rotations, None, 1.0)
    assert table["n"].sum() == len(result.merged.reflections)
    assert (table["n"] <= table["possible"]).all()
    assert table["possible"].sum() == possible(result.geometry.ub, 1.0, rotations, None)
    assert table["cc_half"].dropna().max() <= 1
    assert table["completeness"].iloc[0] <= 1
