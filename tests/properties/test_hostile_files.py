"""Damaged and hostile files: refused in one line, or what was read survives; a small part of `python tests/fuzz`."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz import seeds
from fuzz.mutations import damaged
from fuzz.targets import EVERYTHING, TARGETS, Target, check, finite
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded

from nanoed.pipeline.io.cif_pets import read_cif_pets, write_cif_pets
from nanoed.pipeline.io.foreign import find_frames, import_frames
from nanoed.pipeline.io.hkl import read_hkl
from nanoed.sim.dataset import Nominal, open_dataset, write_dataset
from nanoed.sim.physics.errors import InputError
from nanoed.sim.truth import read_truth, write_truth

REPO = Path(__file__).resolve().parents[2]
FEW = settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_refused_in_one_line_or_survives(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    for raw in target.seeds():
        assert check(target, raw, tmp_path), "a sound file is refused"

    @seeded(1)
    @FEW
    @given(damaged(target.seeds(), [word.encode("latin-1") for word in target.words]))
    def held(raw: bytes) -> None:
        check(target, raw, tmp_path)

    held()


SHELX = b"""TITL t
CELL 0.0251 9.184 5.447 5.145 90 90 90
LATT -1
SFAC TI
UNIT 8
Ti1 1 0.1289 0.0972 0.8628 11.0 0.02 -0.01 -0.01 0.001 0.002 0.003
END
"""
RECORD = b'{"settings": {"laue": "mmm"}, "statistics": {"cell": [9.2, 5.4, 5.1, 90.0, 90.0, 90.1e9990]}}'


@pytest.mark.parametrize(
    ("name", "raw"),
    [("model", SHELX), ("model", SHELX.replace(b"9.184", b"1")), ("record", RECORD)],
    ids=["U of trace 0", "cell of 1 angstrom", "infinite angle"],
)
def test_what_a_long_search_found_is_mended(name: str, raw: bytes, tmp_path: Path) -> None:
    check(TARGETS[name], raw, tmp_path)


def test_the_command_knows_every_target() -> None:
    text = (REPO / "tests" / "fuzz" / "__main__.py").read_text()
    assert all(f'"{name}"' in text for name in TARGETS)


@pytest.mark.parametrize(
    "reader",
    [
        lambda path: finite([float(word) for word in path.read_text("latin-1").split()[3:5]]),
        lambda path: json.loads(path.read_bytes()),
    ],
    ids=["numbers that are not finite get through", "a traceback gets through"],
)
def test_a_careless_reader_is_caught(reader, tmp_path: Path) -> None:
    careless = Target("a.hkl", seeds.hkls, reader, ("nan",))
    with pytest.raises((AssertionError, ValueError)):
        check(careless, b"1 2 3 nan 1.0", tmp_path)


def test_a_reader_that_changes_numbers_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The law is not only about refusals: indices shifted by one when read do not survive."""
    monkeypatch.setattr("fuzz.targets.read_hkl", lambda path: read_hkl(path).eval("h = h + 1"))
    with pytest.raises(AssertionError):
        check(TARGETS["hkl"], seeds.hkls()[0], tmp_path)


def _elsewhere(file: h5py.File, path: Path, how: str, name: str) -> None:
    """Put the data set `name` outside the file."""
    kept = file[name][()]
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["pixels"] = kept
    del file[name]
    if how == "link":
        file[name] = h5py.ExternalLink("other.h5", "pixels")
    elif how == "virtual":
        layout = h5py.VirtualLayout(kept.shape, kept.dtype)
        layout[...] = h5py.VirtualSource(path.with_name("other.h5"), "pixels", kept.shape)
        file.create_virtual_dataset(name, layout)
    else:
        raw = path.with_name("raw.bin")
        raw.write_bytes(kept.tobytes())
        file.create_dataset(name, kept.shape, kept.dtype, external=[(str(raw), 0, kept.nbytes)])


@pytest.mark.parametrize("how", ["link", "virtual", "external"])
@pytest.mark.parametrize("kind", ["ours", "ours, beside the frames", "foreign", "truth"])
def test_hdf5_files_that_point_elsewhere_are_refused(how: str, kind: str, tmp_path: Path) -> None:
    if kind == "truth":
        write_truth(tmp_path, seeds.truth())
        path, name = tmp_path / "truth.h5", "frames/particle"
    else:
        path, name = tmp_path / "frames.h5", "entry/data/data"
        path.write_bytes((seeds.nxmx() if kind == "foreign" else seeds.ours())[0])
        name = "entry/nanoed/alpha_deg" if kind.endswith("frames") else name
    readers = {"truth": read_truth, "foreign": lambda folder: find_frames(folder / "frames.h5")}
    read = readers.get(kind, open_dataset)
    read(tmp_path)
    with h5py.File(path, "a") as file:
        _elsewhere(file, path, how, name)
    with pytest.raises(InputError, match=r"refused|not inside the file"):
        read(tmp_path)


@pytest.mark.parametrize("what", ["frames", "chunks", "angles"])
def test_declared_sizes_are_checked_before_memory_is_claimed(what: str, tmp_path: Path) -> None:
    """A file of 30 kB that declares gigabytes is refused, in a process that may not have them."""
    path = tmp_path / "frames.h5"
    path.write_bytes(seeds.ours()[0])
    with h5py.File(path, "a") as file:
        name = "entry/nanoed/alpha_deg" if what == "angles" else "entry/data/data"
        del file[name]
        shape = {"frames": (100_000, 4096, 4096), "chunks": (4096, 4096, 64), "angles": (10**9,)}[what]
        chunks = {"frames": (1, 4096, 4096), "chunks": shape, "angles": (10**6,)}[what]
        file.create_dataset(name, shape, np.int32, chunks=chunks, compression="gzip")
    code = (
        "import sys; from nanoed.sim.dataset import open_dataset\n"
        "from nanoed.sim.physics.errors import InputError\n"
        "try: print(sum(1 for _ in open_dataset(sys.argv[1])))\n"
        "except InputError as error: print('refused', error)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    said, peak_kb = done.stdout.rsplit("\n", 2)[:2]
    assert said.startswith("refused"), done.stdout + done.stderr
    assert int(peak_kb) < 500_000


def test_whole_counts_too_large_for_the_data_set_stay_large(tmp_path: Path) -> None:
    """2³² - 1, with which detectors mark dead pixels, does not become a negative count."""
    path = tmp_path / "foreign.h5"
    path.write_bytes(seeds.nxmx()[0])
    with h5py.File(path, "a") as file:
        kept = file["entry/data/data"][()].astype(np.uint32)
        kept[0, 0, 0] = 2**32 - 1
        del file["entry/data/data"]
        file["entry/data/data"] = kept
    out = import_frames(path, tmp_path / "out", EVERYTHING)
    with open_dataset(out) as data:
        assert data.frame(0)[0, 0] == 2**31 - 1
        assert np.array_equal(data.frame(1), kept[1])


def test_frames_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    nominal: Nominal = seeds.nominal()
    frames = seeds.images(dtype=np.float32)
    frames[1][2, 3] = np.nan
    write_dataset(tmp_path, nominal, frames)
    with open_dataset(tmp_path) as data, pytest.raises(InputError, match=r"finite.*\(got 1\)"):
        list(data)


def test_indices_of_three_digits_do_not_run_into_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.cif_pets"
    path.write_bytes(seeds.cif_pets()[0])
    sound = read_cif_pets(path)
    wide = sound.reflections.assign(h=-120, k=-110, l=-105)
    write_cif_pets(path, replace(sound, reflections=wide))
    assert read_cif_pets(path).reflections[["h", "k", "l"]].to_numpy().tolist() == [[-120, -110, -105]] * 3


# what no source of the package may do
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
FORBIDDEN_ATTRIBUTES = {"system", "popen", "read_pickle", "to_pickle", "getoutput", "getstatusoutput"}


def crimes(source: str) -> list[str]:
    """Everything in a source that runs text as code, hands text to a shell, or stores objects as code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [name for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            found.append(node.func.id)
        if isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_ATTRIBUTES:
            found.append(node.func.attr)
        for keyword in node.keywords:
            value = getattr(keyword.value, "value", None)
            if (keyword.arg, value) in {("shell", True), ("allow_pickle", True), ("engine", "python")}:
                found.append(f"{keyword.arg}={value}")
    return found


def sources() -> list[Path]:
    return [
        Path(folder) / name
        for part in ("sim", "pipeline", "studies", "src")
        for folder, _, names in os.walk(REPO / part)
        for name in names
        if name.endswith(".py")
    ]


def test_no_eval_no_pickle_no_shell() -> None:
    files = sources()
    assert len(files) > 100
    assert {str(path): found for path in files if (found := crimes(path.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "from pickle import load",
        "import subprocess as s; s.run('ls', shell=True)",
        "import os; os.system('ls')",
        "import numpy; numpy.load('a', allow_pickle=True)",
        "table.eval('a', engine='python')",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert crimes(source)


@pytest.mark.parametrize("name", ["cif", "cif_pets"])
def test_text_in_another_encoding_is_no_obstacle(name: str, tmp_path: Path) -> None:
    """A degree sign of Latin-1 in a comment or text block, as older programs write it."""
    raw = TARGETS[name].seeds()[0]
    for at in (raw.find(b"\n") + 1, raw.find(b"dstarmax")):
        if at > 0:
            insert = b"# 90\xb0\n" if at == raw.find(b"\n") + 1 else b"\xb0 tilt: 3\n"
            assert check(TARGETS[name], raw[:at] + insert + raw[at:], tmp_path)
