"""One engine on one reader, in a process of its own: child.py ENGINE READER INPUTS SEED SCRATCH."""

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"
sys.path[0] = str(Path(__file__).resolve().parents[1])
LED = ("nanoed.pipeline.io", "nanoed.sim.dataset", "nanoed.sim.truth", "nanoed.sim.physics.crystal",
       "nanoed.studies.settings", "nanoed.studies.case", "tomllib", "fabio.TiffIO", "fabio.tifimage")  # fmt: skip
SECONDS = 10


def main() -> None:
    engine, reader, inputs, seed, scratch = sys.argv[1:]
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=list(LED), enable_loader_override=False):
            from fuzz import targets
    else:
        from fuzz import targets
    trial = Trial(targets.TARGETS[reader], targets.check, Path(scratch))
    run = {"hypothesis": by_hypothesis, "atheris": by_atheris}[engine]
    run(trial, int(inputs), int(seed))


class Trial:
    """Counts inputs, keeps the last one where a crash leaves it, and stops one that takes too long."""

    def __init__(self, target: Any, check: Any, scratch: Path) -> None:
        self.target, self.check, self.scratch = target, check, scratch
        self.inputs = self.accepted = 0
        signal.signal(signal.SIGALRM, self._too_long)

    def __call__(self, raw: bytes) -> None:
        folder = self.scratch / "files"
        for left in folder.iterdir() if folder.exists() else ():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        folder.mkdir(exist_ok=True)
        (self.scratch / "broken").write_bytes(raw)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        with contextlib.redirect_stdout(None):
            self.accepted += self.check(self.target, raw, folder)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.inputs += 1
        if self.inputs % 100 == 0:
            self.record()

    def record(self) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        text = json.dumps({"inputs": self.inputs, "accepted": self.accepted, "mb": peak})
        (self.scratch / "record.json").write_text(text)

    @staticmethod
    def _too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")


def by_hypothesis(trial: Trial, inputs: int, seed: int) -> None:
    import hypothesis
    from fuzz.mutations import damaged

    words = [word.encode("latin-1") for word in trial.target.words]
    part = 0
    while trial.inputs < inputs:  # in parts, for hypothesis remembers every example

        @hypothesis.seed(1000 * seed + part)
        @hypothesis.settings(
            max_examples=min(1000, inputs - trial.inputs),
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        )
        @hypothesis.given(damaged(trial.target.seeds(), words))
        def held(raw: bytes) -> None:
            trial(raw)

        try:
            held()
        except BaseException as error:
            error.__notes__ = []  # the input is kept as a file, not printed
            raise
        part += 1
    trial.record()


def by_atheris(trial: Trial, inputs: int, seed: int) -> None:
    import atheris

    corpus = trial.scratch / "corpus"
    corpus.mkdir()
    for i, raw in enumerate(trial.target.seeds()):
        (corpus / str(i)).write_bytes(raw)
    words = trial.scratch / "words"
    spelt = ["".join(f"\\x{byte:02x}" for byte in word.encode("latin-1")) for word in trial.target.words]
    words.write_text("".join(f'"{word}"\n' for word in spelt))
    largest = max(len(raw) for raw in trial.target.seeds()) + 200
    options = [
        f"-runs={inputs}",
        f"-seed={seed}",
        f"-timeout={SECONDS}",
        "-rss_limit_mb=1024",
        f"-dict={words}",
    ]
    options += [f"-max_len={largest}", f"-artifact_prefix={trial.scratch}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], trial)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
