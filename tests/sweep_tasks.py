"""Stand-ins for runs, light enough that a test can start many workers: nothing of nanoed is imported."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

FOLDER = "NANOED_TEST_FOLDER"


def slow(document, key, scratch):
    """A fifth of a second, a result that depends on the case alone, a note that it was made."""
    time.sleep(0.2)
    with (Path(os.environ[FOLDER]) / "notes").open("a", encoding="utf-8") as notes:
        notes.write(f"{key} {os.getpid()} {os.environ.get('OPENBLAS_NUM_THREADS')}\n")
    # the columns that a study needs of a row; it fills up the others
    row = {"case": document["name"], "seed": document["seed"], "method": "kinematical", "status": "ok"}
    row |= {"r_obs_pct": 10 + 1 / (1 + document["seed"])}
    text = ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n"
    record = json.dumps({"run_key": key, "core_seconds": 0.2})
    return SimpleNamespace(key=key, files={"results.csv": text.encode(), "run.json": record.encode()})


def deadly(document, key, scratch):
    """A run that takes its worker with it the first time, for one seed."""
    mark = Path(os.environ[FOLDER]) / "died"
    if document["seed"] == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return slow(document, key, scratch)


def fatal(document, key, scratch):
    """A run that takes its worker with it every time, for one seed."""
    if document["seed"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return slow(document, key, scratch)
