"""The guides say what is true: commands, options and settings exist, and the pages build without warnings."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import typer.main

from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.errors import InputError
from nanoed.studies.case import load_case, shipped_cases
from nanoed.studies.cli import app

REPO = Path(__file__).resolve().parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]


def commands(text: str) -> list[list[str]]:
    """Every command of ours in a page, in a block or between backticks, split into words."""
    fence = re.compile(r"```[a-z]*\n(.*?)```", re.DOTALL)
    blocks, rest = "\n".join(fence.findall(text)), fence.sub("", text)
    found = re.findall(r"(?m)(?:^|/bin/)nanoed ([^\n&]*)", blocks) + re.findall(r"`nanoed ([^`\n]*)`", rest)
    return [shlex.split(words, comments=True) for words in found]


def wrong(words: list[str]) -> str | None:
    """What the program would say of a command that it does not have."""
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if words[0].startswith("-") or words[0].isupper():
        return None
    if words[0] not in known:
        return f"no command {words[0]}"
    options = {
        name for parameter in known[words[0]].params for name in parameter.opts + parameter.secondary_opts
    }
    unknown = [
        word for word in words[1:] if re.match(r"--[a-z]", word) and word.partition("=")[0] not in options
    ]
    if unknown:
        return f"{words[0]} has no {unknown[0]}"
    if words[0] in ("run", "simulate", "show") and words[1:2] and words[1] in shipped_cases():
        changes = [after for before, after in pairwise(words) if before == "--set"]
        try:
            load_case(words[1], changes)
        except InputError as error:
            return str(error)
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_in_the_pages_exists(page: Path) -> None:
    found = commands(page.read_text("utf-8"))
    assert found or page.name.startswith(("api", "index", "security"))
    assert [f"{words}: {said}" for words in found if (said := wrong(words))] == []


@pytest.mark.parametrize(
    "line",
    [
        "nanoed runn brookite-small",
        "nanoed run brookite-small --outt x",
        "nanoed run brookite-small --set experiment.flaws.film=off",
    ],
)
def test_a_wrong_command_would_be_seen(line: str) -> None:
    assert wrong(commands(f"```\n{line}\n```")[0])


def between(row: dict[str, float | str]) -> str:
    """The sizes below a limit as the guides tell them."""
    if row["smallest_is"] == "none":
        return f"at no size ({row['smallest_low']:.2g} or more)"
    first = f"from {row['smallest_nm']:.2g} nm ({row['smallest_low']:.2g}-{row['smallest_high']:.2g})"
    if row["largest_is"] == "at least":
        return first
    return f"{first} to {row['largest_nm']:.2g} nm ({row['largest_low']:.2g}-{row['largest_high']:.2g})"


def test_the_smallest_sizes_in_the_guides_are_those_of_the_study() -> None:
    limits = pd.read_csv(
        REPO / "reports" / "size-limit" / "limits.csv", comment="#", dtype={"fluence": str}
    ).fillna({"smallest_is": "", "largest_is": ""})
    of_table = limits[(limits["scan"] == "precession") & (limits["limit_A"] == 0.01)]
    text = (REPO / "docs" / "results.md").read_text("utf-8")
    names = {"brookite": "brookite", "ito": "ITO"}
    for (structure, method), rows in of_table.groupby(["structure", "method"]):
        told = [between(row) for row in rows.sort_values("fluence").to_dict("records")]
        assert f"| {names[structure]}, {method} | {' | '.join(told)} |\n" in text


def test_the_settings_of_a_refinement_in_the_guides_are_taken() -> None:
    text = (REPO / "docs" / "model.md").read_text("utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        RefineSpec.model_validate(tomllib.loads(block))
    with pytest.raises(ValueError, match="extra"):
        RefineSpec.model_validate(tomllib.loads(blocks[0].replace("frame_spread", "frame_spreads")))


def test_the_case_files_in_the_guides_are_taken(tmp_path: Path) -> None:
    blocks = [
        block
        for page in PAGES
        if page.name != "model.md"
        for block in re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    assert len(blocks) == 2
    (tmp_path / "rutile.cif").write_bytes((REPO / "studies" / "structures" / "anatase.cif").read_bytes())
    for block in blocks:
        path = tmp_path / re.findall(r"# (\S+\.toml)", block)[0]
        path.write_text(block)
        assert load_case(str(path)).name == path.stem


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    missing = [name for name in ("sphinx", "myst_parser") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"docs: {', '.join(missing)} is not installed")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        "docs",
        str(tmp_path / "html"),
    ]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "api-sim.html").read_text("utf-8")
    for name in ("excitation_errors", "open_dataset", "Crystal", "Experiment"):
        assert re.search(rf'id="nanoed\.[a-z_.]*{name}"', page), name
