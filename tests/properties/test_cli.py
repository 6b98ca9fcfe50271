"""The command line: instant help, one clear line for bad input, exit statuses, nothing half-written."""

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

from nanoed.sim.physics.errors import ConvergenceError, InputError
from nanoed.studies import cli
from nanoed.studies.case import structure_file
from nanoed.studies.child import spent_by
from nanoed.studies.commands import run as commands_of_a_run

COMMANDS = tuple(typer.main.get_command(cli.app).commands)
MAIN = "brookite-cnrs-01"


def nanoed(*args, **options):
    command = [sys.executable, "-m", "nanoed", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def refused(capsys, *args):
    """The one line on stderr of a command that ends with status 2."""
    assert cli.status([str(arg) for arg in args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, capsys):
    assert cli.status([command, "--help"]) == 0
    assert f"Example: nanoed {command}" in capsys.readouterr().out


@pytest.mark.parametrize("args", [(), *((command,) for command in COMMANDS)])
def test_help_is_instant(args):
    """Processor time, so that a busy machine does not count; the best of up to three, for a cold one would."""

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert nanoed(*args, "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert any(seconds() < 0.5 for _ in range(3))


def test_what_a_command_takes_is_its_own():
    """Not the memory of the process that starts it; and one that fails is told."""
    held = np.ones(40_000_000)
    spent = spent_by(["list"])
    assert 0 < spent.core_seconds < 2 * spent.seconds
    assert 10 < spent.peak_MB < held.nbytes / 1e6
    with pytest.raises(InputError, match=r"nanoed show failed: .*no-such-case"):
        spent_by(["show", "no-such-case"])


def test_a_warning_is_one_line_without_its_place_in_the_source(tmp_path):
    odd = ("--set", "experiment.particle.diameter_nm=45", "--set", "experiment.protocol.tilt_step_deg=70")
    done = nanoed("simulate", "ito-01", *odd, "--data", tmp_path / "data", "--truth", tmp_path / "truth")
    assert done.returncode == 0
    told = [line for line in done.stderr.splitlines() if "larger than the beam" in line]
    assert len(told) == 1
    assert told[0].startswith("nanoed: warning: ")
    assert ".py" not in done.stderr


def test_the_commands_are_all_here():
    assert {"list", "show", "run", "simulate", "reduce", "index", "solve", "refine", "compare"} <= set(COMMANDS)
    assert {"export", "import", "study", "regress", "report", "bench"} <= set(COMMANDS)


def test_help_imports_nothing_heavy():
    code = "from nanoed.studies import cli; cli.status(['run', '--help']); import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "numba", "pandas", "scipy", "matplotlib", "h5py"} & set(loaded.split())


def test_list_and_show(capsys):
    assert cli.status(["list"]) == 0
    assert MAIN in capsys.readouterr().out
    assert cli.status(["show", MAIN, "--set", "seed=9"]) == 0
    assert "seed = 9" in capsys.readouterr().out


def test_compare_of_a_structure_with_itself(capsys):
    path = str(structure_file("brookite"))
    assert cli.status(["compare", path, path]) == 0
    assert "d_max           0.0000" in capsys.readouterr().out


def test_compare_takes_shipped_names_on_both_sides(capsys, tmp_path):
    assert cli.status(["compare", "brookite", "brookite"]) == 0
    assert "d_max           0.0000" in capsys.readouterr().out
    path = tmp_path / "mine.CIF"
    shutil.copy(structure_file("brookite"), path)
    assert cli.status(["compare", "brookite", str(path)]) == 0
    assert "d_max           0.0000" in capsys.readouterr().out
    assert "did you mean quartz" in refused(capsys, "compare", "quarz", "brookite")


def test_unknown_case(capsys):
    assert f"did you mean {MAIN}" in refused(capsys, "run", "brookite-cnrs-1")


def test_unknown_field(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "{MAIN}"\nname = "mine"\n[experiment.particle]\ndiametre_nm = 3\n')
    line = refused(capsys, "run", path, "--out", tmp_path / "out")
    assert "mine.toml" in line
    assert "did you mean diameter_nm" in line
    assert not (tmp_path / "out").exists()


def test_negative_size(capsys, tmp_path):
    line = refused(
        capsys, "run", MAIN, "--set", "experiment.particle.diameter_nm=-30", "--out", tmp_path / "out"
    )
    for part in ("experiment.particle.diameter_nm", "-30", "greater than 0"):
        assert part in line
    assert os.listdir(tmp_path) == []


def test_cif_without_symmetry(capsys, tmp_path):
    text = structure_file("brookite").read_text()
    lines = [line for line in text.splitlines() if "symop" not in line and "space_group" not in line]
    path = tmp_path / "bare.cif"
    path.write_text(
        "\n".join(line for line in lines if not line.startswith("'")).replace("loop_\n\nloop_", "loop_")
    )
    line = refused(capsys, "run", MAIN, "--set", f"structure={path}", "--out", tmp_path / "out")
    assert "bare.cif" in line
    assert not (tmp_path / "out").exists()


def test_truncated_frames(capsys, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "frames.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    line = refused(
        capsys, "reduce", tmp_path / "data", "--cell", "9.2,5.4,5.1,90,90,90", "--out", tmp_path / "out"
    )
    assert "frames.h5" in line
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("cell", ["9.2,5.4,5.1", "9.2,5.4,5.1,90,90,ninety", "9.2,5.4,-5.1,90,90,90"])
def test_cell_that_is_none(capsys, tmp_path, cell):
    line = refused(capsys, "reduce", tmp_path, "--cell", cell, "--out", tmp_path / "out")
    assert line.endswith("allowed: six numbers: a,b,c in Å and alpha,beta,gamma in degrees")
    assert f"field '--cell': not a cell (got '{cell}')" in line


@pytest.mark.parametrize(
    ("given", "told"), [(("--cell", "9,5,5,10,10,170"), "--cell"), (("--set", "cell=[9,5,5,10,10,170]"), "--set")]
)
def test_a_wrong_setting_is_told_as_the_option_it_came_by(capsys, tmp_path, given, told):
    line = refused(capsys, "reduce", tmp_path, *given, "--out", tmp_path / "out")
    assert line.startswith(f"nanoed: {told}, field 'cell': not a cell")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("study", "size-limit", "--part", "film"), "field '--part': for check-… alone"),
        (("study", "size-limit", "--reference", "x"), "field '--reference': for check-… alone"),
        (("regress", "--reason", "better"), "field '--reason': for --update alone"),
        (("study", "check-reduction", "--quick"), "field '--quick': for a grid of cases alone"),
        (("study", "check-reduction", "--scheduler", "tcp://a:1"), "field '--scheduler': for a grid"),
        (("study", "check-reductions"), "did you mean check-reduction?"),
        (("show", "size-limits"), "did you mean size-limit?"),
        (("show", "brookit-ua"), "did you mean brookite-ua?"),
    ],
)
def test_what_a_study_does_not_know_is_refused(capsys, args, told):
    assert told in refused(capsys, *args)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("simulate anatase --data full --truth t", r"full, field '--data': .* something else"),
        ("simulate anatase --data d --truth full", r"full, field '--truth': .* something else"),
        ("refine full --model nosuch --out o", "field '--model': no such structure"),
        ("compare nosuch.cif anatase", "field 'REFINED': no such structure"),
        ("compare anatase afile", r"field 'REFERENCE': a file without an ending .*ending in \.cif"),
        ("reduce nosuch --out o", "field 'DATA': no data set here"),
        ("bench --kernels --case x", "field '--case': unknown case"),
        ("study hand --out afile/x", r"field '--out': cannot write: a file is in its way \(got '.*afile'\)"),
        ("study hand --estimate --runs afile", "afile, field '--runs': not a folder"),
        ("run anatase --out afile/sub", r"field '--out': cannot write: a file is in its way \(got '.*afile'\)"),
        ("show anatase --set experiment.protocol.kind=wobble", r"protocol\.kind': .*'wobble'.*: one of precession, "),
        ("show anatase --set methods=dynamical", "field 'methods': .*'dynamical'.*allowed: a list$"),
        ("run anatase --out o --set published=nix", "--set, field 'published'"),
        ("run anatase --out o --set structure=nix", "--set, field 'structure'"),
        ("study axis.toml --out o", r"axis.toml, field 'block\.0\.axes\.flux': .*got 5\); allowed: a list of "),
        ("study flaws.toml --out o", r"flaws.toml, field 'settings\.axis': .*allowed: none"),
        ("study published.toml --out o", "published.toml, block a, field 'published'"),
        ("study structure.toml --out o", "structure.toml, block a, field 'structure'"),
    ],
)
def test_what_is_wrong_is_told_where_it_was_given(capsys, tmp_path, monkeypatch, args, told):
    monkeypatch.chdir(tmp_path)
    block = '[[block]]\nname = "a"\ncases = ["anatase"]\nseeds = [1]\n'
    tables = {"axis": "", "flaws": 'analysis = "flaws"\n'}
    tables |= {name: f'set = {{ {name} = "nix" }}\n' for name in ("published", "structure")}
    for name, line in tables.items():
        Path(f"{name}.toml").write_text(f'name = "x"\n{line}{block}' + "axes = { flux = 5 }\n" * (name == "axis"))
    Path("afile").write_text("")
    Path("full").mkdir()
    Path("full/x").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert re.search(told, refused(capsys, *args.split()))
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_that_holds_something_else(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "--force" in refused(capsys, "run", MAIN, "--out", tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize(("data", "truth"), [("d", "d"), ("d", "d/t"), ("t/d", "t"), ("d", "link/t")])
def test_truth_beside_the_data_is_refused_before_anything_is_written(capsys, tmp_path, data, truth):
    (tmp_path / "link").symlink_to("d")
    line = refused(capsys, "simulate", MAIN, "--data", tmp_path / data, "--truth", tmp_path / truth)
    assert "unrelated folders" in line
    assert os.listdir(tmp_path) == ["link"]


def test_output_that_is_a_file(capsys, tmp_path):
    (tmp_path / "out").write_text("")
    assert "not a folder" in refused(capsys, "run", MAIN, "--out", tmp_path / "out")


def test_read_only_output_folder(capsys, tmp_path):
    """/proc is read-only even for root."""
    if os.geteuid() == 0:
        line = refused(capsys, "run", MAIN, "--out", "/proc/nanoed")
    else:
        tmp_path.chmod(0o555)
        line = refused(capsys, "run", MAIN, "--out", tmp_path / "out")
        tmp_path.chmod(0o755)
    assert "cannot write" in line


def test_full_disk_leaves_nothing_behind(tmp_path):
    """A file-size limit of 4 kB stands for the full disk: the system refuses the same write calls."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    overrides = ["experiment.protocol.tilt_min_deg=0", "experiment.protocol.tilt_max_deg=1"]
    options = [part for text in overrides for part in ("--set", text)]
    done = nanoed(
        "run",
        MAIN,
        "--out",
        tmp_path / "out",
        *options,
        preexec_fn=limit,
        env=dict(os.environ, NUMBA_CACHE_DIR="/dev/null/none"),
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot write" in done.stderr
    assert os.listdir(tmp_path) == []


def test_parents_made_for_the_output_go_with_it(capsys, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "frames.h5").write_bytes(bytes(200))
    out = tmp_path / "a" / "b" / "c"
    refused(capsys, "reduce", tmp_path / "data", "--cell", "9.2,5.4,5.1,90,90,90", "--out", out)
    assert os.listdir(tmp_path) == ["data"]


def test_a_reader_that_leaves_is_no_failure_of_ours():
    """The pipe has lost its reader before the program starts."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "nanoed", "list"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("args", [("run",), ("runn", MAIN), ("run", MAIN, "--fast"), ("list", "--json=3")])
def test_usage_errors(capsys, args):
    refused(capsys, *args)


def test_internal_error_is_one_line_and_a_saved_traceback(capsys, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(commands_of_a_run, "chosen_case", broken)
    assert cli.status(["show", MAIN]) == 3
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    path = Path(line.split("saved in ")[1].rstrip(")"))
    assert "ZeroDivisionError" in path.read_text()
    path.unlink()


def test_interrupt(capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands_of_a_run, "chosen_case", interrupted)
    assert cli.status(["show", MAIN]) == 130
    assert capsys.readouterr().err == "nanoed: interrupted\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cell", "1,2,3"), "--cell"),
        (("--cell", "10,10,10,90,90,90", "--laue", "m-4"), "laue"),
        (("--cell", "10,10,10,90,90,90", "--spacegroup", "I q -3"), "spacegroup"),
        (("--cell", "10,10,10,90,90,90", "--set", "templates.step=2"), "did you mean step_deg"),
        (("--cell", "10,10,10,90,90,90"), "nowhere"),
        ((), "cell"),
    ],
)
def test_bad_input_of_index_is_one_line(words, said, tmp_path, capsys):
    assert said in refused(capsys, "index", tmp_path / "nowhere", *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_does_not_converge_is_no_internal_error_and_is_told_whole(capsys):
    text = "frame scales disagree " * 30
    assert cli._failed(ConvergenceError(text)) == 1
    assert capsys.readouterr().err == f"nanoed: not converged: {text}\n"
