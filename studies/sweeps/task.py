"""One task of a study: a case run in a scratch folder of the worker, its small files handed back."""

from __future__ import annotations

import json
import re
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

from nanoed.sim.physics.files import write_whole
from nanoed.sim.protocol import nominal_alpha_deg
from nanoed.studies.case import Case
from nanoed.studies.console import plain_warnings
from nanoed.studies.folder import CannotWriteError
from nanoed.studies.rows import asked_for
from nanoed.studies.run import run_case
from nanoed.studies.tables import write_results

KEPT = ("results.csv", "timings.csv", "run.json")


@dataclass(frozen=True, slots=True)
class Done:
    """What a task hands back: the run's key as the worker sees it, and its files by relative path."""

    key: str
    files: Mapping[str, bytes]


def run_point(document: Mapping[str, Any], key: str, scratch: str | None) -> Done:
    """Run the case of a document, one core; a case that cannot be run becomes rows that say why.

    key : of the run as the client has it; where the sources of the worker make another, that is handed back, no run.
    scratch : folder for the frames while the run lasts; None: the system's.  Only a full or forbidden disk and
    lack of memory are raised: they are no result, and a later sweep tries again.
    """
    plain_warnings()
    case = Case.model_validate(document)
    if case.run_key != key:
        return Done(case.run_key, {})
    if scratch is not None:
        Path(scratch).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nanoed-run-", dir=scratch) as folder:
        out = Path(folder) / "run"
        began = process_time()
        try:
            run_case(case, out, workers=1, keep="results", page=False)
        except (OSError, MemoryError, CannotWriteError):
            raise
        except Exception as error:
            _write_failure(case, out, error, process_time() - began)
        return Done(key, _files(out))


def failed_rows(case: Case, message: str) -> list[dict[str, Any]]:
    """A row per method of a case that could not be run."""
    n_frames = len(nominal_alpha_deg(case.experiment.protocol))
    asked = asked_for(case, case.crystal, n_frames)
    return [asked | {"method": m, "status": "failed", "message": message} for m in case.methods]


def _write_failure(case: Case, out: Path, error: Exception, seconds: float) -> None:
    write_results(out / "results.csv", failed_rows(case, f"{type(error).__name__}: {error}"))
    what = "".join(traceback.format_exception(error))
    record = {"schema_version": 1, "run_key": case.run_key, "digest": case.digest, "case": case.document}
    record |= {"failures": dict.fromkeys(case.methods, what), "core_seconds": round(seconds, 3)}
    write_whole(out / "run.json", json.dumps(record, indent=1) + "\n")


def _files(out: Path) -> dict[str, bytes]:
    """What is kept of a run, without the name of its scratch folder, which messages of failures may have."""
    here = re.compile(re.escape(str(out.parent)).encode() + rb"/(?:\.run\.partial-\d+|run)/?")
    models = sorted((out / "refined").glob("*/refined.cif"))
    paths = [out / name for name in KEPT if (out / name).is_file()] + models
    return {str(path.relative_to(out)): here.sub(b"", path.read_bytes()) for path in paths}
