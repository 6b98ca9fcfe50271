"""The report of a run: the same bytes every time, hostile text harmless, opened by a real browser."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imsave

from nanoed.pipeline.page.html import typeset, vendored_viewer
from nanoed.sim.physics.errors import InputError
from nanoed.studies.figure_tables import TABLES, write_table
from nanoed.studies.report import report
from nanoed.studies.tables import published_beside, read_results, write_results

PUBLISHED = {
    "dataset": "made-up-01",
    "coverage_pct_at_0.7": 87.1,
    "redundancy": 4.46,
    "r_int_pct": 16.2,
    "kin_n_all": 328,
    "kin_n_obs": 312,
    "kin_n_par": 13,
    "kin_r_obs_pct": 17.03,
    "kin_r_all_pct": 17.8,
    "kin_av_dist_A": 0.0108,
    "kin_max_dist_A": 0.0162,
    "dyn_n_all": 3611,
    "dyn_n_obs": 3110,
    "dyn_n_par": 105,
    "dyn_r_obs_pct": 6.63,
    "dyn_r_all_pct": 7.07,
    "dyn_av_dist_A": 0.0079,
    "dyn_max_dist_A": 0.0127,
}
N_FRAMES = 99
N_FIGURES = 9
WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
FLAT = ("--disable-gpu", "--disable-3d-apis")


def _results() -> list[dict[str, object]]:
    shared = {
        "case": "made-up-01",
        "digest": "0123456789abcdef",
        "structure": "brookite",
        "engine": "bloch",
        "factors_sim": "lobato",
        "factors_refine": "peng",
        "seed": 1,
        "status": "ok",
        "n_frames": N_FRAMES,
    }
    kinematical = {
        "method": "kinematical",
        "coverage_pct": 88.0,
        "coverage_s_max": 0.7,
        "redundancy": 4.5,
        "r_int_pct": 14.2,
        "n_all": 320,
        "n_obs": 300,
        "n_par": 13,
        "r_obs_pct": 15.1,
        "r_all_pct": 16.0,
        "av_dist_A": 0.0123,
        "max_dist_A": 0.0211,
    }
    dynamical = {
        "method": "dynamical",
        "n_all": 900,
        "n_obs": 700,
        "n_par": 112,
        "r_obs_pct": 4.2,
        "r_all_pct": 5.1,
        "av_dist_A": 0.0031,
        "max_dist_A": 0.0049,
        "thickness_A": 210.0,
        "thickness_true_A": 214.0,
    }
    return [shared | kinematical, shared | dynamical]


def _pictures(run: Path, rng: np.random.Generator) -> None:
    """Two frames with a lattice of spots on a falling background."""
    at = np.arange(512) + 0.5
    g = 0.00622 * np.hypot(at[None, :] - 256, at[:, None] - 257)
    spots, frames = [], []
    for number in (0, 49):
        h, k = (index.ravel() for index in np.indices((27, 15)))
        px, py = 256 + (h - 13) * 17.5 + number / 20, 257 - (k - 7) * 31.3
        strength = rng.exponential(4000, len(h)) * np.exp(-(((px - 256) ** 2 + (py - 257) ** 2) / 130**2))
        columns, rows = (np.exp(-((at - centre[:, None]) ** 2) / 6) for centre in (px, py))
        counts = 300 * np.exp(-g / 0.25) + 0.5 + (rows.T * strength / 9) @ columns
        spots += list(
            zip(
                *np.broadcast_arrays(number, h - 13, k - 7, 0, px, py, strength, 5 + 0.05 * strength),
                strict=True,
            )
        )
        counts = rng.poisson(counts)
        grey = np.rint(255 * np.log1p(counts) / np.log1p(counts.max())).astype(np.uint8)
        imsave(run / "figures" / f"frame_{number:04d}.png", grey, cmap="gray", vmin=0, vmax=255)
        geometry = (number - 48.0, 256.0, 257.0, 0.00622, 1.4, 0, counts.max())
        frames.append((number, f"frame_{number:04d}.png", *geometry))
    write_table(run, "frames", pd.DataFrame(frames, columns=TABLES["frames"]))
    write_table(run, "frame_spots", pd.DataFrame(spots, columns=TABLES["frame_spots"]))


def _curves(run: Path, rng: np.random.Generator) -> None:
    """Camel-shaped rocking curves."""
    points, fit = [], []
    for hkl, phi, height in (((2, 1, 0), 0.006, 3e4), ((1, 2, 1), 0.009, 9e3), ((6, 1, -1), 0.021, 8e2)):
        fine = np.linspace(-2 * phi, 2 * phi, 101)
        azimuth = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        curve = np.exp(-0.5 * ((fine[:, None] + phi * np.cos(azimuth)) / 0.002) ** 2).mean(axis=1)
        fit += [(*hkl, s, height * i) for s, i in zip(fine, curve, strict=True)]
        for frame, s in enumerate(np.linspace(-1.6 * phi, 1.7 * phi, 9)):
            sigma = 0.04 * height
            points.append((*hkl, frame, s, height * np.interp(s, fine, curve) + sigma * rng.normal(), sigma))
    write_table(run, "rocking_curve", pd.DataFrame(points, columns=TABLES["rocking_curve"]))
    write_table(run, "rocking_fit", pd.DataFrame(fit, columns=TABLES["rocking_fit"]))


def _sections(run: Path, rng: np.random.Generator) -> None:
    """Three small grids, one of them hardly measured."""
    at = np.linspace(-1.35, 1.35, 10)
    rows = []
    for name in ("hk0", "h0l", "0kl"):
        values = rng.exponential(20, (10, 10))
        values[rng.uniform(size=(10, 10)) < (0.9 if name == "hk0" else 0.2)] = np.nan
        pd.DataFrame(values, index=at, columns=at).to_csv(run / "figures" / f"section_{name}.csv", index_label="v")
        rows.append((name, 1.4, 0.18, 0.0, 0.01, 0.19))
    write_table(run, "sections", pd.DataFrame(rows, columns=TABLES["sections"]))


def _structure(run: Path, label: str) -> None:
    """Two atoms in an oblique cell, two models; the second atom is unknown to one of them."""
    places = [("Ti", "Ti", 0.0, 0.0, 0.0), (label, "O", 1.2, 2.0, 0.9)]
    rows = [("truth", *place, 0.0, 0.0, 0.0) for place in places]
    rows += [("kinematical", *place, 0.01, -0.02, 0.005 * i) for i, place in enumerate(places)]
    rows += [("dynamical", *places[0], 0.001, 0.0, 0.0), ("dynamical", *places[1], np.nan, np.nan, np.nan)]
    edges = [("a", "", 5.0, 0.0, 0.0), ("b", "", 0.5, 4.0, 0.0), ("c", "", 0.0, 0.3, 3.0)]
    rows += [("cell edge", *edge, 0.0, 0.0, 0.0) for edge in edges]
    write_table(run, "structure", pd.DataFrame(rows, columns=TABLES["structure"]))


def _models(run: Path, rng: np.random.Generator, label: str) -> None:
    rows, distances = [], []
    for method, n, spread, away in (("kinematical", 320, 0.15, 0.012), ("dynamical", 1500, 0.04, 0.003)):
        f = 10 ** rng.uniform(-1.5, 1.5, n)
        observed = np.maximum(f * (1 + spread * rng.normal(size=n)) + 0.05 * rng.normal(size=n), 0)
        for i in range(n):
            rows.append((method, i % 13, i % 7, i % 11, i % N_FRAMES, observed[i], f[i], observed[i] > 0.15))
        for site, element, su in (("Ti", "Ti", 0.001), (label, "O", 0.003), ("O2", "O", np.nan)):
            d = away * rng.uniform(0.5, 1.5)
            distances.append((method, site, element, 8, d, su, d, 0.0, 0.0))
    write_table(run, "fobs_fcalc", pd.DataFrame(rows, columns=TABLES["fobs_fcalc"]))
    write_table(run, "distances", pd.DataFrame(distances, columns=TABLES["distances"]))


def _frame_parameters(run: Path, rng: np.random.Generator) -> None:
    i = np.arange(N_FRAMES)
    table = {
        "frame": i,
        "alpha_deg": i - 48.0,
        "scale": 1 + 0.1 * np.sin(i / 15),
        "thickness_A": 210.0,
        "tilt_x_deg": 0.08 * rng.normal(size=N_FRAMES),
        "tilt_y_deg": 0.05 * rng.normal(size=N_FRAMES),
        "error_reduced_deg": np.abs(0.09 * rng.normal(size=N_FRAMES)),
        "error_refined_deg": np.abs(0.02 * rng.normal(size=N_FRAMES)),
        "thickness_true_A": 214 + 6 * np.cos(i / 30),
    }
    write_table(run, "frame_parameters", pd.DataFrame(table))


def made_up_run(
    folder: Path, title: str = "Brookite, made up", label: str = "O1", source: str = "a page"
) -> Path:
    """A small and plausible folder of a run; `title`, `label` and `source` come from input files."""
    (folder / "figures").mkdir(parents=True)
    rng = np.random.default_rng(1)
    write_results(folder / "results.csv", _results())
    record = {"case": {"name": "made-up-01", "title": title}, "published": PUBLISHED, "seconds": 12.3}
    (folder / "run.json").write_text(json.dumps(record))
    conditions = [("experiment.flaws.alpha_jitter_deg", "0.06", "rms error of the tilt", source)]
    write_table(folder, "conditions", pd.DataFrame(conditions, columns=TABLES["conditions"]))
    _pictures(folder, rng)
    _curves(folder, rng)
    _models(folder, rng, label)
    _sections(folder, rng)
    _structure(folder, label)
    _frame_parameters(folder, rng)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(made_up_run(tmp_path_factory.mktemp("run") / "made-up"))


@pytest.fixture
def run(page: Path, tmp_path: Path) -> Path:
    """A folder of a run that the test may change, without a report yet."""
    return Path(
        shutil.copytree(page.parent, tmp_path / "run", ignore=shutil.ignore_patterns("*.html", "*.svg", "*.pdf"))
    )


def test_a_report_is_the_same_bytes_every_time_and_everywhere(page: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another name"
    shutil.copytree(page.parent, elsewhere)
    record = json.loads((elsewhere / "run.json").read_text())
    (elsewhere / "run.json").write_text(json.dumps(record | {"seconds": 99.9, "host": "other"}))
    first = page.read_bytes()
    assert report(elsewhere).read_bytes() == first
    drawings = sorted(page.parent.glob("figures/*.svg"))
    assert len(drawings) == N_FIGURES
    for drawing in drawings:
        assert (elsewhere / "figures" / drawing.name).read_bytes() == drawing.read_bytes()


def test_every_figure_has_its_numbers_beside_it_and_the_page_loads_nothing(page: Path) -> None:
    text = page.read_text()
    assert text.count(vendored_viewer()) == 1
    text = text.replace(vendored_viewer(), "")
    assert text.count("<svg") == len(list(page.parent.glob("figures/*.svg"))) == N_FIGURES
    for name in (*TABLES, "section_0kl", "section_h0l", "section_hk0"):
        assert (f'download="{name}.csv"' in text) == (name != "sections")
    loaded = re.findall(r'(?:src|href|action|data)="([^"]*)"', text)
    assert loaded
    assert all(address.startswith(("#", "data:")) for address in loaded)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"|base64,[^"]*', "", text).replace("http-equiv", "")


def test_a_figure_lies_on_white_as_a_file_and_on_the_page_in_the_page(page: Path) -> None:
    ground = re.compile(r'id="(?:[a-z_0-9-]+-)?patch_1">\s*<path [^>]*?style="fill: ([^";]+)')
    inside = ground.findall(page.read_text())
    assert len(inside) == N_FIGURES
    assert set(inside) == {"none"}
    for file in (page.parent / "figures").glob("*.svg"):
        assert ground.findall(file.read_text()) == ["#ffffff"]


def test_results_stand_beside_the_published_ones(page: Path) -> None:
    results = read_results(page.parent / "results.csv")
    beside = published_beside(results, PUBLISHED).set_index("column")
    assert beside.at["r_obs_pct", "kinematical published"] == 17.03
    assert beside.at["n_obs", "dynamical published"] == 3110
    assert beside.at["coverage_pct", "kinematical published"] == 87.1
    assert np.isnan(beside.at["redundancy", "dynamical published"])
    assert beside.at["max_dist_A", "dynamical"] == 0.0049
    assert published_beside(results, {}).filter(like="published").isna().all(axis=None)


def test_hostile_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    attack = "</title></svg><script>alert('x')</script><img src=x onerror=alert(1)>"
    attack += "\"'&{{ 7*7 }} $\\frac{ #0072b2 -->"
    text = report(made_up_run(tmp_path / "run", title=attack, label=attack, source=attack)).read_text()
    assert text.count("<script>") == 3  # ours, 3Dmol.js and the overlay
    text = text.replace(vendored_viewer(), "")
    assert text.count("<script") == 3
    assert html.unescape(re.findall('data-structure="(.*?)"', text)[0]).count("alert") == 2
    assert "<img" not in text
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", text)[0]
    assert "&lt;script&gt;alert(" in text


def test_failures_are_shown_first_and_what_is_missing_is_left_out(run: Path) -> None:
    rows = _results()
    rows[1] = {"method": "dynamical", "status": "failed", "message": "no frame has 5 reflections <b>\nagain"}
    write_results(run / "results.csv", rows)
    for name in ("frame_parameters", "rocking_curve", "frames"):
        (run / "figures" / f"{name}.csv").unlink()
    text = report(run).read_text()
    assert 'role="alert">dynamical: failed. no frame has 5 reflections &lt;b&gt; again<' in text
    assert 'id="orientations"' not in text
    assert 'id="amplitudes"' in text


@pytest.mark.parametrize(
    "name", ["results.csv", "run.json", "figures/distances.csv", "figures/frame_0000.png", "figures/section_h0l.csv"]
)
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"<html>,\n1", b"[1, 2]"])
def test_a_foreign_file_is_named_in_one_line(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        report(run)
    assert name.split("/")[-1] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def _browse(chromium: str, address: str, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    quiet = (
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
    )
    command = [chromium, "--headless", "--no-sandbox", "--disable-sync", *quiet]
    command += [f"--user-data-dir={profile}", "--enable-logging=stderr", "--virtual-time-budget=3000"]
    return subprocess.run(
        [*command, *options, address], capture_output=True, text=True, timeout=120, check=True
    )


def test_the_page_opens_in_a_browser_without_a_message(page: Path, chromium: str, tmp_path: Path) -> None:
    seen = _browse(chromium, page.as_uri(), tmp_path / "profile", "--dump-dom", *WEBGL)
    assert said(seen.stderr) == []
    assert seen.stdout.count("<svg") == N_FIGURES


def said(log: str) -> list[str]:
    """Messages on the browser's console, but for those of the software that stands in for a graphics card."""
    lines = [line for line in log.splitlines() if "CONSOLE" in line]
    return [line for line in lines if "GL Driver Message (OpenGL, Performance" not in line]


def test_the_browser_reports_a_page_that_is_wrong(page: Path, chromium: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    wrong.write_text(page.read_text().replace("</main>", "</main><script>alert(1)</script>"))
    assert said(_browse(chromium, wrong.as_uri(), tmp_path / "profile", "--dump-dom", *FLAT).stderr)


def test_tables_sort_by_value(page: Path, chromium: str, tmp_path: Path) -> None:
    clicks = """<script>
    const button = document.querySelectorAll("#distances th button")[4];
    const cells = () => [...document.querySelectorAll("#distances tbody td:nth-child(5)")];
    const column = () => cells().map((cell) => cell.textContent);
    button.click(); const up = column(); button.click();
    document.title = up.join() + ";" + column().join();
    </script></body>"""
    text = page.read_text()
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    test_page = tmp_path / "sorted.html"
    test_page.write_text(policy.sub("", text).replace("</body>", clicks))
    seen = _browse(chromium, test_page.as_uri(), tmp_path / "profile", "--dump-dom", *FLAT).stdout
    up, down = (
        [float(value) for value in half.split(",")]
        for half in re.findall("<title>(.*?)</title>", seen)[0].split(";")
    )
    assert len(up) == 6
    assert up == sorted(up)
    assert down == sorted(up, reverse=True)


def _after(page: Path, steps: str, chromium: str, folder: Path, *options: str) -> str:
    """The title that a script leaves, run at the end of the page without the policy that would forbid it."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    text = policy.sub("", page.read_text()).replace("</body>", f"<script>{steps}</script></body>")
    changed = folder / "changed.html"
    changed.write_text(text)
    seen = _browse(chromium, changed.as_uri(), folder / "profile", "--dump-dom", *options)
    assert said(seen.stderr) == []
    return re.findall("<title>(.*?)</title>", seen.stdout)[0]


def test_frames_are_turned_over_and_their_circles_taken_away(page: Path, chromium: str, tmp_path: Path) -> None:
    steps = """
    const display = (one) => getComputedStyle(one).display;
    const shown = () => [...document.querySelectorAll("#frames figure")].map((one) => display(one) !== "none");
    const [before, after] = document.querySelectorAll("#frames .controls button");
    const told = [shown()];
    before.click(); told.push(shown()); before.click(); told.push(shown()); after.click(); told.push(shown());
    const circles = () => display(document.querySelector('#frames figure.shown [id$="-spots"]'));
    told.push(circles());
    document.querySelector("#frames .controls input[type=checkbox]").click();
    told.push(circles());
    document.title = JSON.stringify(told);"""
    told = json.loads(_after(page, steps, chromium, tmp_path, *FLAT))
    assert told[:4] == [[False, True], [True, False], [True, False], [False, True]]
    assert told[4] != "none"
    assert told[5] == "none"


@pytest.mark.parametrize("webgl", [True, False])
def test_the_structure_turns_where_the_browser_can_and_is_drawn_where_not(
    webgl: bool, page: Path, chromium: str, tmp_path: Path
) -> None:
    steps = """
    const stage = document.querySelector(".overlay .stage canvas");
    const boxes = [...document.querySelectorAll(".overlay .controls input[type=checkbox]")];
    boxes.forEach((box) => box.click());
    document.title = [stage !== null, boxes.length, document.querySelectorAll("#structure svg").length].join();"""
    options = WEBGL if webgl else FLAT
    assert _after(page, steps, chromium, tmp_path, *options) == ("true,3,1" if webgl else "false,0,1")


def test_the_viewer_is_the_one_its_authors_published(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vendored_viewer()
    monkeypatch.setattr("nanoed.pipeline.page.html.VIEWER_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="not the file"):
        vendored_viewer()


def _many(folder: Path) -> Path:
    """A study: two sizes, two methods, three seeds each; one refinement failed, one message is hostile."""
    rows = []
    for size in (5.0, 20.0):
        for seed in (1, 2, 3):
            for row in _results():
                away = 0.04 / size * (1 + 0.1 * seed) * (3 if row["method"] == "kinematical" else 1)
                changes = {"equiv_diameter_nm": size, "seed": seed, "fluence_e_A2": 12.0, "protocol": "precession"}
                changes["digest"] = f"{size}-{seed}"
                rows.append(row | changes | {"av_dist_A": away})
    rows[3] |= {"status": "failed", "message": "<script>alert(1)</script>", "av_dist_A": None}
    folder.mkdir()
    write_results(folder / "results.csv", rows)
    text = (folder / "results.csv").read_text()
    (folder / "results.csv").write_text("# nanoed study made-up\n" + text)
    return folder


def test_a_study_is_shown_as_accuracy_against_size(chromium: str, tmp_path: Path) -> None:
    folder = _many(tmp_path / "study")
    seen = _browse(chromium, report(folder, pdf=True).as_uri(), tmp_path / "profile", "--dump-dom", *FLAT)
    paper = (folder / "figures" / "accuracy.pdf").read_bytes()
    assert paper.startswith(b"%PDF")
    assert b"/FontFile2" in paper  # its fonts are inside, as outlines that publishers take
    report(folder, pdf=True)
    assert (folder / "figures" / "accuracy.pdf").read_bytes() == paper
    assert said(seen.stderr) == []
    assert seen.stdout.count("<svg") == 1
    assert "1 × dynamical: failed. &lt;script&gt;" in seen.stdout
    table = pd.read_csv(folder / "figures" / "accuracy.csv").set_index(["method", "equiv_diameter_nm"])
    assert table.at[("dynamical", 5.0), "n"] == 2
    assert table.at[("dynamical", 5.0), "asked"] == 3
    best = table.loc[("kinematical", 20.0)]
    logs = np.log(0.006 * np.array([1.1, 1.2, 1.3]))
    assert best["av_dist_A"] == pytest.approx(np.exp(logs.mean()), rel=1e-5)
    assert best["low_A"] < best["av_dist_A"] < best["high_A"]
    assert np.log(best["high_A"] / best["av_dist_A"]) == pytest.approx(4.3027 * logs.std(ddof=1) / np.sqrt(3), rel=1e-4)


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"case,seed\na,1\n", b"# only a remark\n"])
def test_what_is_no_table_of_results_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"results\.csv") as caught:
        report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_symbols_are_set_and_text_is_escaped() -> None:
    assert typeset("MR_obs < wR_all") == "<i>MR</i><sub>obs</sub> &lt; <i>wR</i><sub>all</sub>"
    assert typeset("r_obs_pct") == "r_obs_pct"
