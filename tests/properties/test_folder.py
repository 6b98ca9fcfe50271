"""Output folders: one writer at a time, whole or not at all, on the disk before they are in their place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanoed.sim.physics.errors import InputError
from nanoed.studies import folder
from nanoed.studies.folder import placed

HOLD = """
import sys, time
from pathlib import Path
from nanoed.studies.folder import placed
with placed(Path(sys.argv[1]), False) as work:
    (work / "a").write_text("first")
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(out: Path) -> subprocess.Popen[str]:
    """Another process that is writing the folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("force", [False, True])
def test_two_commands_do_not_write_one_folder(force: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = holder(out)
    with pytest.raises(InputError, match="in use"), placed(out, force):
        pytest.fail("the folder was given twice")
    other.communicate("")
    assert (out / "a").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_a_killed_command_holds_nobody_up_and_its_remains_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = holder(out)
    other.kill()
    other.wait()
    assert len(os.listdir(tmp_path)) == 2  # lock and half-written folder
    with placed(out, False) as work:
        (work / "b").write_text("second")
    assert sorted(os.listdir(tmp_path)) == ["out"]
    assert os.listdir(out) == ["b"]


def test_everything_is_on_the_disk_before_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, order = tmp_path / "out", []
    flush, move = folder.flush, os.replace
    monkeypatch.setattr(folder, "flush", lambda path: (order.append(path.name), flush(path)))
    monkeypatch.setattr(folder.os, "replace", lambda *paths: (order.append("moved"), move(*paths)))
    with placed(out, False) as work:
        (work / "deep").mkdir()
        (work / "deep" / "a").write_text("x")
        (work / "b").write_text("y")
    before, after = order[: order.index("moved")], order[order.index("moved") + 1 :]
    assert {"a", "b", "deep", work.name} <= set(before)
    assert after == [tmp_path.name]


def test_a_disk_that_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "flush", full)
    with pytest.raises(InputError, match="No space left"), placed(tmp_path / "new" / "out", False) as work:
        (work / "a").write_text("x")
    assert os.listdir(tmp_path) == []
