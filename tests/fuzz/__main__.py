"""Fuzz every reader: `python tests/fuzz --inputs 100000`.

Half of the inputs are valid files with random damage (hypothesis), half are led by the branches that they take in
the readers (atheris, that is libFuzzer; where it is installed). Each reader runs in a process of its own. What breaks
the law of targets.py, takes more than 10 s or needs more than 1 GB is kept in `fuzz-found/` with exit status 1.
"""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)
NAMES = (
    *("cif", "cif_pets", "hkl", "ins", "smv", "tiff", "pts", "mrc", "dataset", "nxmx", "toml"),
    *("model", "record", "study", "truth-json", "truth-h5"),
)
ENGINES = ("hypothesis", "atheris")
SECONDS = 10
MEGABYTES = 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--inputs", type=int, default=100_000, help="in all [%(default)s]")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="default: those installed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--found", type=Path, default=Path("fuzz-found"), help="folder for what breaks [%(default)s]"
    )
    asked = parser.parse_args()
    if set(asked.readers) - set(NAMES):
        parser.error(f"unknown reader {sorted(set(asked.readers) - set(NAMES))}, allowed: {', '.join(NAMES)}")
    engines = asked.engine or [name for name in ENGINES if importlib.util.find_spec(name)]
    readers = asked.readers or list(NAMES)
    share = -(-asked.inputs // (len(engines) * len(readers)))
    print(
        f"{'reader':12s} {'engine':11s} {'inputs':>8s} {'accepted':>9s} {'seconds':>8s} {'MB':>6s}  verdict"
    )
    total, broken = 0, 0
    for reader in readers:
        for engine in engines:
            result = one(reader, engine, share, asked.seed, asked.found)
            total, broken = total + result["inputs"], broken + (result["verdict"] != "held")
            print("{reader:12s} {engine:11s} {inputs:8d} {accepted:9d} {seconds:8.1f} {mb:6.0f}  {verdict}".format(
                reader=reader, engine=engine, **result), flush=True)  # fmt: skip
    print(f"{total} inputs, {broken} of {len(readers) * len(engines)} runs broke")
    return 1 if broken else 0


def one(reader: str, engine: str, inputs: int, seed: int, found: Path) -> dict:
    """Fuzz one reader in a process of its own."""
    began = time.perf_counter()
    memory = Path("/dev/shm")  # where there is one, the files of the inputs stay off the disk
    scratch = Path(tempfile.mkdtemp(prefix="nanoed-fuzz-", dir=memory if memory.is_dir() else None))
    command = [sys.executable, str(HERE / "child.py"), engine, reader, str(inputs), str(seed), str(scratch)]
    try:
        limit = 60 + inputs * 0.2 + SECONDS
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=limit, check=False
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        code, said = -1, f"{error.stdout} {error.stderr} a hang"
    record = scratch / "record.json"
    result = {"inputs": 0, "accepted": 0, "mb": 0.0} | (
        json.loads(record.read_text()) if record.exists() else {}
    )
    result |= {
        name: int(n)
        for name, n in re.findall(r"stat::(?:number_of_executed_)?(units|peak_rss_mb):\s+(\d+)", said)
    }
    result["inputs"], result["mb"] = (
        result.pop("units", result["inputs"]),
        result.pop("peak_rss_mb", result["mb"]),
    )
    result |= {"seconds": time.perf_counter() - began, "verdict": "held"}
    if code != 0 or result["mb"] > MEGABYTES:
        result["verdict"] = f"BROKEN, see {keep(scratch, reader, engine, said, found)}"
    shutil.rmtree(scratch, ignore_errors=True)
    return result


def keep(scratch: Path, reader: str, engine: str, said: str, found: Path) -> Path:
    """The last input and what was said of it, beside each other; returns the path of the latter."""
    found.mkdir(exist_ok=True)
    last = [path for path in (scratch / "broken", *scratch.glob("*-*")) if path.is_file()]
    if last:
        shutil.copy(last[0], found / f"{reader}-{engine}.input")
    report = found / f"{reader}-{engine}.txt"
    report.write_text(said[-20000:])
    return report


if __name__ == "__main__":
    sys.exit(main())
