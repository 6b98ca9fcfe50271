"""What a command of nanoed takes in a process of its own: seconds, processor time, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from nanoed.sim.physics.errors import InputError

CODE = """
import resource
import sys
from pathlib import Path
from nanoed.studies.cli import main
try:
    main()
finally:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    peak = spent.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(1024 * int(line.split()[1]) for line in status.open() if line.startswith("VmHWM"))
    print("MEASURED", spent.ru_utime + spent.ru_stime, peak, file=sys.stderr)
"""
"""ru_maxrss, where there is nothing better, starts with the peak of the process that started this one."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds by the clock on the wall and of processor time, and the largest memory in use, MB."""

    seconds: float
    core_seconds: float
    peak_MB: float


def spent_by(command: Sequence[str]) -> Spent:
    """What a command (without the word nanoed) takes, imports included. Raises InputError if it fails."""
    began = perf_counter()
    done = subprocess.run([sys.executable, "-c", CODE, *command], capture_output=True, text=True, check=False)
    seconds = perf_counter() - began
    if done.returncode != 0:
        raise InputError(f"nanoed {command[0]} failed: {done.stderr.strip()[-300:]}", value=" ".join(command))
    _, busy, peak = done.stderr.strip().splitlines()[-1].split()
    return Spent(seconds, float(busy), float(peak) / 1e6)
