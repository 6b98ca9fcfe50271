"""Studies: a killed one goes on and repeats nothing, the table does not depend on the workers, failures are rows."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import urlopen

import dask
import psutil
import pytest
import sweep_tasks
from distributed import LocalCluster
from distributed.security import Security

from nanoed.sim.physics.errors import InputError
from nanoed.studies import folder
from nanoed.studies.case import load_case
from nanoed.studies.folder import alone
from nanoed.studies.sweeps.cluster import ONE_THREAD, connected, threads_of
from nanoed.studies.sweeps.grid import Study
from nanoed.studies.sweeps.store import claimed
from nanoed.studies.sweeps.study import run_study
from nanoed.studies.sweeps.sweep import held_seconds
from nanoed.studies.sweeps.task import _files, run_point

TESTS = Path(__file__).resolve().parents[1]


def study(seeds=(1, 2, 3, 4, 5, 6)):
    block = {"name": "tiny", "cases": ["brookite-small"], "seeds": seeds, "set": {"methods": ["kinematical"]}}
    return Study.model_validate({"name": "tiny", "block": [block]})


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.setenv(sweep_tasks.FOLDER, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return tmp_path / "notes"


def ran(chosen, out, workers, task=sweep_tasks.slow):
    return run_study(chosen, "default", out, workers, None, lambda text: None, task=task)


def table(out):
    return (out / "results.csv").read_bytes()


def test_number_of_workers_and_kills_of_one_and_of_the_client_leave_no_trace_in_the_table(tmp_path, notes):
    plain = ran(study(), tmp_path / "plain", 1)
    assert (len(plain.sweep.made), plain.sweep.lost) == (6, {})
    assert len(ran(study(), tmp_path / "deadly", 4, sweep_tasks.deadly).sweep.made) == 6
    assert (tmp_path / "died").exists()
    assert table(tmp_path / "deadly") == table(tmp_path / "plain")
    assert {line.split()[2] for line in notes.read_text().splitlines()} == {"1"}

    notes.unlink()
    out = tmp_path / "killed"
    kept = _killed_after(2, out)
    time.sleep(0.5)  # the workers notice that their client is gone
    began = len(notes.read_text().splitlines())
    done = ran(study(), out, 2)
    assert (done.sweep.reused, len(done.sweep.made)) == (len(kept), 6 - len(kept))
    again = [line.split()[0][:20] for line in notes.read_text().splitlines()[began:]]
    assert sorted(again) == sorted(set(again) - kept)
    assert table(out) == table(tmp_path / "plain")
    assert not list((out / "runs").glob(".*.partial-*"))
    record = (out / "sweep.json").read_bytes()
    assert ran(study(), out, 2).sweep.made == []
    assert (out / "sweep.json").read_bytes() == record


def test_record_of_a_sweep_tells_how_busy_its_cores_were_and_what_was_expected(tmp_path, notes):
    done = ran(study((1, 2, 3, 4)), tmp_path / "out", 2)
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert (record["runs"], record["made"], record["cores"]) == (4, 4, 2)
    assert record["used"]["core_seconds"] == pytest.approx(4 * 0.2)  # as the stand-in for a run says
    wall = record["used"]["wall_seconds"]
    assert record["busy_share"] == pytest.approx(0.8 / (2 * wall), rel=0.1)
    assert 0 < record["busy_share"] < 0.9  # cores that start or stand idle are not busy
    assert record["estimate"]["core_seconds"] == pytest.approx(done.estimate["core_seconds"])
    assert record["estimate"]["wall_seconds"] == pytest.approx(record["estimate"]["core_seconds"] / 2, abs=0.1)


def test_cores_that_join_and_leave_count_while_they_are_there():
    assert held_seconds([(1.0, 2), (5.0, 4), (6.0, 1)], 0.0, 8.0) == 2 * 5 + 4 * 1 + 1 * 2


CLIENT = """
import sys
from pathlib import Path
import sweep_tasks
from nanoed.studies.sweeps.grid import load_study
from nanoed.studies.sweeps.study import run_study
if __name__ == "__main__":
    study, out = load_study(sys.argv[1]), Path(sys.argv[2])
    run_study(study, "default", out, 2, None, print, task=sweep_tasks.slow)
"""


def _killed_after(n, out):
    """Start the study in a process of its own, kill it once n runs are stored; names of the runs stored."""
    script, grid = out.with_suffix(".py"), out.with_suffix(".toml")
    script.write_text(CLIENT, encoding="utf-8")
    grid.write_text(study().toml(), encoding="utf-8")
    client = subprocess.Popen([sys.executable, str(script), str(grid), str(out)], stdout=subprocess.DEVNULL)
    while len(list(out.glob("runs/[!.]*/results.csv"))) < n:
        assert client.poll() is None
        time.sleep(0.02)
    client.send_signal(signal.SIGKILL)
    client.wait()
    kept = {path.parent.name for path in out.glob("runs/[!.]*/results.csv")}
    assert n <= len(kept) < 6
    return kept


def test_run_that_kills_every_worker_is_a_row_and_is_tried_again(tmp_path, notes):
    done = ran(study((1, 2)), tmp_path / "out", 1, sweep_tasks.fatal)
    assert len(done.sweep.lost) == 1
    assert done.failed == 1
    row = done.results[done.results["seed"] == 2].iloc[0]
    assert row["status"] == "failed"
    assert "KilledWorker" in row["message"]
    assert len(ran(study((1, 2)), tmp_path / "out", 1).sweep.made) == 1


def test_what_a_task_hands_back_does_not_name_its_scratch_folder(tmp_path):
    tables = []
    for name in ("one", "other"):
        out = tmp_path / name / "run"
        out.mkdir(parents=True)
        text = f"{tmp_path / name}/.run.partial-{len(name)}/data/frames.h5: no peaks in {tmp_path / name}/run"
        (out / "results.csv").write_text(text, encoding="utf-8")
        tables.append(_files(out)["results.csv"])
    assert tables == 2 * [b"data/frames.h5: no peaks in "]


def test_a_full_disk_is_no_result(tmp_path, monkeypatch):
    def full(path, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder, "_reserve", full)
    case = load_case("brookite-small")
    with pytest.raises(folder.CannotWriteError, match="No space left"):
        run_point(case.document, case.run_key, str(tmp_path))


def test_folder_in_use_or_of_something_else_is_refused(tmp_path, notes):
    with claimed(tmp_path / "out"), pytest.raises(InputError, match="in use"):
        ran(study(), tmp_path / "out", 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="something else"):
        ran(study(), tmp_path / "mine", 1)
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".partial-study.toml").write_text("half of it")
    assert len(ran(study((1,)), tmp_path / "killed", 1).sweep.made) == 1


def test_local_cluster_listens_to_this_machine_alone_and_has_one_thread_each():
    with connected(1, None) as client:
        assert set(threads_of(client).values()) == {1}
        assert all(address.startswith("tls://127.0.0.1") for address in client.scheduler_info()["workers"])
        ours = psutil.Process()
        processes = [ours, *ours.children(recursive=True)]
        sockets = [c for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
        assert len(sockets) >= 3
        assert {c.laddr.ip for c in sockets} == {"127.0.0.1"}
        page = f"http://127.0.0.1:{client.scheduler_info()['services']['dashboard']}/status"
        with pytest.raises(HTTPError, match="404"):
            urlopen(page, timeout=10)


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_a_scheduler_that_runs_already_serves_and_may_go(tmp_path, notes, monkeypatch, protocol):
    secure, ours = None, {}
    if protocol == "tls":
        secure = Security.temporary()
        ours = {"ca-file": secure.tls_ca_file, "client.key": secure.tls_client_key}
        ours["client.cert"] = secure.tls_client_cert
    said: list[str] = []
    monkeypatch.setattr("nanoed.studies.sweeps.cluster.CONNECT_S", 2)
    with (
        dask.config.set({f"distributed.comm.tls.{name}": value for name, value in ours.items()}),
        dask.config.set({"distributed.nanny.pre-spawn-environ": ONE_THREAD}),
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            protocol=f"{protocol}://",
            security=secure,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
    ):
        address = cluster.scheduler_address
        assert address.startswith(protocol)
        done = run_study(study(), "default", tmp_path / "far", 9, address, said.append, task=sweep_tasks.slow)
        assert (len(done.sweep.made), done.sweep.cores) == (6, 1)
        assert [text for text in said if "threads" in text] == []
        if protocol == "tls":
            return

        def without_nanoed(client):
            raise Exception("ModuleNotFoundError(\"No module named 'nanoed'\")")  # as Dask hands it on

        with monkeypatch.context() as other:
            other.setattr("nanoed.studies.sweeps.cluster.threads_of", without_nanoed)
            with pytest.raises(InputError, match="its workers do not load nanoed"):
                run_study(study(), "default", tmp_path / "not", 9, address, said.append, task=sweep_tasks.slow)
        assert not (tmp_path / "not").exists()

        def stop_after_the_first(text):
            if text.startswith("1/"):
                cluster.close()

        long = study(range(20))
        with pytest.raises(InputError, match="the scheduler has gone"):
            run_study(long, "default", tmp_path / "gone", 9, address, stop_after_the_first, task=sweep_tasks.slow)
    assert ran(study(), tmp_path / "near", 2).sweep.lost == {}
    assert table(tmp_path / "far") == table(tmp_path / "near")
    assert 0 < len(list((tmp_path / "gone" / "runs").glob("*"))) < 20


def test_what_is_refused_makes_no_folder(tmp_path, notes, monkeypatch):
    monkeypatch.setattr("nanoed.studies.sweeps.cluster.CONNECT_S", 0.5)
    out, runs = tmp_path / "out", tmp_path / "runs"
    with pytest.raises(InputError, match="--scheduler"):
        run_study(study(), "default", out, 1, "tcp://127.0.0.1:1", print, runs)
    with alone(runs), pytest.raises(InputError, match="field '--runs': in use"):
        run_study(study(), "default", out, 1, None, print, runs)
    runs.write_text("")
    with pytest.raises(InputError, match="field '--runs': not a folder"):
        run_study(study(), "default", out, 1, None, print, runs)
    with pytest.raises(InputError, match="field '--runs': holds --out"):
        run_study(study(), "default", out, 1, None, print, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="something else"):
        run_study(study(), "default", tmp_path / "mine", 1, None, print, tmp_path / "deep" / "er")
    with claimed(tmp_path / "mine" / "out"), pytest.raises(InputError, match="field '--out': in use"):
        run_study(study(), "default", tmp_path / "mine" / "out", 1, None, print, tmp_path / "deep" / "er")
    assert sorted(os.listdir(tmp_path)) == ["mine", "runs"]


def test_runs_may_lie_within_the_folder_of_the_study(tmp_path, notes):
    out = tmp_path / "out"
    for made in (1, 0):
        done = run_study(study((1,)), "default", out, 1, None, print, out / "store", sweep_tasks.slow)
        assert len(done.sweep.made) == made


def test_what_lies_beside_or_in_a_folder_of_runs_is_not_ours(tmp_path, notes):
    """Two studies whose folders of runs lie side by side once removed each other's frames."""
    runs = tmp_path / "runs"
    strangers = [tmp_path / ".scratch", tmp_path / ".nanoed-scratch", runs / ".scratch", runs / ".notes.partial-old"]
    for folder_ in strangers:
        folder_.mkdir(parents=True)
        (folder_ / "mine").write_text("a stranger's")
    (runs / f".{'0a' * 10}.partial-1").mkdir()
    run_study(study((1,)), "default", tmp_path / "out", 1, None, print, runs, sweep_tasks.slow)
    assert all((folder_ / "mine").exists() for folder_ in strangers)
    assert sorted(path.name[:3] for path in runs.iterdir() if path.name.startswith(".")) == [".no", ".sc"]


def test_a_disk_without_room_for_a_study_is_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("nanoed.studies.sweeps.study.shutil.disk_usage", lambda path: SimpleNamespace(free=1e6))
    with pytest.raises(InputError, match="1 MB are free"):
        ran(study(), tmp_path / "out", 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "tcp://127.0.0.1:1"])
def test_scheduler_that_is_not_there_is_one_line(tmp_path, address, monkeypatch):
    monkeypatch.setattr("nanoed.studies.sweeps.cluster.CONNECT_S", 0.5)
    with pytest.raises(InputError, match="--scheduler"):
        run_study(study(), "default", tmp_path / "out", 1, address, lambda text: None)
