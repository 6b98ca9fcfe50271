"""The cost model of `--estimate`: what it counts, and that it finds known costs in finished runs again."""

import json

import pytest

from nanoed.sim.physics.errors import InputError
from nanoed.studies import cli
from nanoed.studies.case import load_case
from nanoed.studies.sweeps.cost import STAGES, estimate, fit, operations

KNOWN = {
    "simulate": {"frame": 0.05, "bloch": 0.4},
    "reduce": {"series": 0.1, "series spot": 0.7},
    "kinematical": {"run": 0.2},
    "kinematical-frames": {"frame": 0.2},
    "frames": {"slope": 1.5},
}
CASES = {
    "a": ["brookite-small"],
    "b": ["brookite-small", "experiment.particle.diameter_nm=8", "experiment.protocol.tilt_step_deg=1"],
    "c": ["ito-01"],
    "d": ["brookite-cnrs-01"],
    "e": ["brookite-ua"],
    "f": ["brookite-small", "experiment.s_max=0.05"],
}


@pytest.fixture
def runs(tmp_path):
    """Finished runs whose stages took exactly what KNOWN says."""
    for name, (base, *overrides) in CASES.items():
        case = load_case(base, [*overrides, 'methods=["kinematical", "kinematical-frames", "dynamical"]'])
        counts = operations(case, case.crystal)
        stages = {"simulate": "simulate", "reduce": "reduce", "refine kinematical": "kinematical"}
        stages |= {"refine kinematical-frames": "kinematical-frames", "refine dynamical": "frames"}
        lines = ["stage,seconds,core_seconds"]
        for stage, kind in stages.items():
            seconds = sum(value * counts[operation] for operation, value in KNOWN[kind].items())
            lines.append(f"{stage},{3 * seconds:.6f},{seconds:.6f}")
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "timings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "run.json").write_text(json.dumps({"case": case.document}), encoding="utf-8")
    return tmp_path / "runs"


def test_known_costs_are_found_again(runs):
    found = fit(sorted(runs.iterdir()))
    for stage, operation_seconds in KNOWN.items():
        for operation, seconds in operation_seconds.items():
            assert found[stage][operation] == pytest.approx(seconds, rel=0.02)


def test_bench_fits_runs_and_refuses_a_folder_without_any(runs, tmp_path, capsys):
    assert cli.status(["bench", "--fit", str(runs)]) == 0
    assert json.loads(capsys.readouterr().out)["frames"]["slope"] == pytest.approx(1.5, rel=0.02)
    assert cli.status(["bench", "--fit", str(tmp_path / "nowhere")]) == 2


@pytest.mark.parametrize(
    ("record", "told"),
    [(None, "not the record"), ("{", "not the record"), ("{}", "'case'"), ('{"case": {"x": 1}}', "missing field")],
)
def test_bench_fits_no_folder_of_others(record, told, tmp_path, capsys):
    (tmp_path / "timings.csv").write_text("stage,core_seconds\nreduce,1\n")
    if record is not None:
        (tmp_path / "run.json").write_text(record)
    assert cli.status(["bench", "--fit", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert "run.json" in line
    assert told in line


def seconds_of(*overrides):
    return estimate(load_case("brookite-small", overrides), KNOWN).core_seconds


def test_cost_grows_as_the_work_does():
    plain = seconds_of()
    assert seconds_of("experiment.protocol.tilt_step_deg=1") == pytest.approx(2 * plain, rel=0.1)
    assert seconds_of("experiment.s_max=0.08") > 1.5 * plain  # beams², if simulated alone
    assert seconds_of('methods=["kinematical"]') < plain
    assert seconds_of('methods=["kinematical", "kinematical-frames", "dynamical"]') > plain
    assert seconds_of("seed=9") == plain
    half = estimate(load_case("brookite-small"), KNOWN, speed=2.0)
    assert half.core_seconds == pytest.approx(plain / 2)


def test_scratch_is_that_of_the_frames():
    cost = estimate(load_case("brookite-cnrs-01"), KNOWN)
    assert 10 < cost.scratch_MB < 500
    assert set(operations(load_case("ito-03"), load_case("ito-03").crystal)) == {
        n for s in STAGES.values() for n in s
    }
    with pytest.raises(InputError):
        load_case("brookite-cnrs-1")


def test_the_box_of_multislice_holds_the_whole_particle():
    """A rod twice as long needs a box about twice as wide; the path of the beam through it stays."""

    def work(engine: str, length: float) -> float:
        case = load_case("brookite-cnrs-01", [f"experiment.engine={engine}", f"experiment.particle.length_nm={length}"])
        return operations(case, case.crystal)[engine]

    assert work("multislice", 140) == pytest.approx(2 * work("multislice", 70), rel=0.25)
    assert work("bloch", 140) == work("bloch", 70)
