"""`nanoed refine` says in one line what cannot be refined, and leaves nothing behind."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from goldens import shipped

from nanoed.pipeline.io.cif_pets import write_cif_pets
from nanoed.sim.physics.crystal import write_cif
from nanoed.studies import cli
from nanoed.studies.check_synthetic import SPHERE
from nanoed.studies.synthetic_frames import Series, expected_frames


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small .cif_pets and a model that fit each other, as text."""
    folder = tmp_path_factory.mktemp("good")
    crystal = shipped("brookite")
    series = Series(
        (-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0), SPHERE, 60.0, 1e6, 100.0, d_star_max=0.8, g_max=1.0
    )
    write_cif_pets(folder / "frames.cif_pets", expected_frames(crystal, series, np.random.default_rng(1)))
    write_cif(crystal, folder / "model.cif")
    return folder


def stretched(text: str) -> str:
    return re.sub(r"(_cell_length_a\s+)\S+", r"\g<1>9.90", text)


BAD = {
    "cells 8 % apart": ("model.cif", stretched, ["5 %", "cell", "frames.cif_pets"]),
    "no orientation matrix": (
        "frames.cif_pets",
        lambda text: "\n".join(line for line in text.splitlines() if "_UB_" not in line),
        ["_diffrn_orient_matrix_UB_11", "frames.cif_pets"],
    ),
    "an orientation matrix of no volume": (
        "frames.cif_pets",
        lambda text: re.sub(r"(_UB_3\d)\s+\S+", r"\1 0.0", text),
        ["orientation matrix"],
    ),
    "an intensity that is no number": (
        "frames.cif_pets",
        lambda text: re.sub(r"(_refln_zone_axis_id\n\s*\S+\s+\S+\s+\S+\s+)\S+", r"\1nan", text),
        ["_refln_intensity_meas", "not a number"],
    ),
    "an element without factors": (
        "model.cif",
        lambda text: re.sub(r"(?m)^(\S*Ti\S*\s+)Ti\b", r"\1Lr", text),
        ["Lr"],
    ),
    "no atoms": (
        "model.cif",
        lambda text: re.sub(r"(?m)^(Ti|O)\d.*\n?", "", text),
        ["model.cif"],
    ),
    "fewer reflections than parameters": (
        "frames.cif_pets",
        lambda text: "\n".join(text.splitlines()[:-52]) + "\n",
        ["too few reflections"],
    ),
    "frames without a semi-angle": (
        "frames.cif_pets",
        lambda text: text.replace(" 1.20000 ", " 0.00000 "),
        ["_diffrn_zone_axis_precession_angle"],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_with_status_2(what: str, good: Path, tmp_path: Path, capsys) -> None:
    name, broken, told = BAD[what]
    for file in good.iterdir():
        text = file.read_text(encoding="utf-8")
        changed = broken(text) if file.name == name else text
        assert (changed != text) == (file.name == name)
        (tmp_path / file.name).write_text(changed, encoding="utf-8")
    out = tmp_path / "out"
    arguments = ["refine", tmp_path / "frames.cif_pets", "--model", tmp_path / "model.cif", "--out", out]
    assert cli.status([*map(str, arguments), "--set", "d_star_max=0.8"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    for part in told:
        assert part in lines[0]
    assert not out.exists()


def test_a_refinement_that_diverges_leaves_nothing(good: Path, tmp_path: Path, capsys) -> None:
    """One cycle is not enough: status 1, what to try, no folder."""
    text = (good / "frames.cif_pets").read_text(encoding="utf-8")
    (tmp_path / "frames.cif_pets").write_text(text, encoding="utf-8")
    model = replace(shipped("brookite"), u_iso=np.full(3, 0.05))
    write_cif(model, tmp_path / "model.cif")
    out = tmp_path / "out"
    arguments = ["refine", tmp_path / "frames.cif_pets", "--model", tmp_path / "model.cif", "--out", out]
    settings = ["--set", "d_star_max=0.8", "--set", "max_cycles=1", "--set", "settled=1e-9"]
    assert cli.status([*map(str, arguments), *settings]) == 1
    error = capsys.readouterr().err
    assert "try" in error
    assert not out.exists()


def refined(folder: Path, out: Path, *more: str) -> int:
    arguments = ["refine", folder / "frames.cif_pets", "--model", folder / "model.cif", "--out", out]
    return cli.status([*map(str, arguments), "--set", "d_star_max=0.8", *more])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ('constraints.fixed=["*"]', "no free parameters"),
        ('constraints.fixed=["Zr*"]', "constraints.fixed"),
        ('restraints.bonds=[{atoms=["Ti1","Xx"],length_A=2.0}]', "restraints.bonds"),
        ("refine_mosaicity=true", "mosaicity_deg"),
        ("twin.law=[[2,0,0],[0,1,0],[0,0,1]]", "determinant"),
        ("thickness.scan_A=[800,50]", "scan_A must rise"),
        ("thickness.refine=false", "start_A"),
        ("thickness.axis_uvw=[0,0,0]", "axis_uvw"),
    ],
)
def test_settings_that_cannot_be_kept(setting: str, told: str, good: Path, tmp_path: Path, capsys) -> None:
    assert refined(good, tmp_path / "out", "--set", setting) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert told in lines[0]
    assert not (tmp_path / "out").exists()


def test_both_hands_are_for_dynamical_intensities(good: Path, tmp_path: Path, capsys) -> None:
    """Kinematical intensities are those of either hand: the setting is refused, not ignored."""
    for method in ("kinematical", "kinematical-frames"):
        settings = ("--set", "both_hands=true", "--method", method)
        assert refined(good, tmp_path / "out", *settings) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert "both_hands" in lines[0]
        assert "dynamical" in lines[0]
        assert not (tmp_path / "out").exists()


def test_a_cell_a_little_off_is_told_and_what_was_there_survives_a_failure(
    good: Path, tmp_path: Path, capsys
) -> None:
    """2 % off: a warning, status 0. Then a refinement that fails, with --force: the earlier one is still there."""
    text = (good / "model.cif").read_text(encoding="utf-8")
    cell = float(re.search(r"_cell_length_a\s+(\S+)", text)[1])
    for name in ("frames.cif_pets", "model.cif"):
        (tmp_path / name).write_text((good / name).read_text(encoding="utf-8"), encoding="utf-8")
    off = re.sub(r"(_cell_length_a\s+)\S+", rf"\g<1>{1.02 * cell:.5f}", text)
    (tmp_path / "model.cif").write_text(off, encoding="utf-8")
    out = tmp_path / "out"
    assert refined(tmp_path, out, "--set", "settled=1") == 0
    assert "warning: the model's cell is 2.0 % off" in capsys.readouterr().err
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert len(before) == 7
    assert refined(tmp_path, out, "--force", "--set", "max_cycles=1", "--set", "settled=1e-9") == 1
    assert "not converged" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
