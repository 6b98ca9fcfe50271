"""Experiment -> data set and truth, in two unrelated folders."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nanoed.sim.dataset import write_dataset
from nanoed.sim.exposure import Frame, simulated_frame
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError
from nanoed.sim.setup import Setup, prepare
from nanoed.sim.spec import Experiment
from nanoed.sim.truth import FRAME_COLUMNS, Truth, write_truth

Progress = Callable[[str, int, int], None]


def simulate(
    experiment: Experiment,
    crystal: Crystal,
    data_dir: str | os.PathLike[str],
    truth_dir: str | os.PathLike[str],
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Make the data set and its truth; the bytes do not depend on `workers`. Returns the path of frames.h5.

    Memory is that of a few frames plus the truth tables. Raises InputError for folders that cannot be used.
    """
    unrelated(data_dir, truth_dir)
    return record(prepare(experiment, crystal), data_dir, truth_dir, workers, progress)


def record(
    setup: Setup,
    data_dir: str | os.PathLike[str],
    truth_dir: str | os.PathLike[str],
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """The frames and the truth of an experiment that is ready, as `simulate`."""
    data, truth = unrelated(data_dir, truth_dir)
    reflections: list[dict[str, NDArray[Any]]] = []
    summaries: list[dict[str, float]] = []

    def images() -> Iterator[NDArray[Any]]:
        for frame in simulated_frames(setup, workers):
            reflections.append(frame.reflections)
            summaries.append(frame.summary)
            yield frame.image

    with threadpool_limits(1):
        path = write_dataset(data, setup.nominal, images(), progress)
    frames = pd.DataFrame(summaries, columns=list(FRAME_COLUMNS))
    table = pd.DataFrame(
        {name: np.concatenate([part[name] for part in reflections]) for name in reflections[0]}
    )
    write_truth(truth, Truth(_summary(setup, frames), frames, table))
    return path


def unrelated(data_dir: str | os.PathLike[str], truth_dir: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Both folders with symbolic links followed; raises InputError where one is, or lies in, the other."""
    data, truth = Path(data_dir).resolve(), Path(truth_dir).resolve()
    if data == truth or data in truth.parents or truth in data.parents:
        raise InputError(
            "data and truth must be unrelated folders",
            field="truth",
            value=os.fspath(truth_dir),
            allowed="a folder neither inside nor around the data folder",
        )
    return data, truth


def simulated_frames(setup: Setup, workers: int = 1) -> Iterator[Frame]:
    """All frames in order, at most a few of them in memory, computed by `workers` threads."""
    n = setup.nominal.n_frames
    if workers <= 1:
        yield from (simulated_frame(setup, i) for i in range(n))
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Frame]] = deque()
        for i in range(n):
            waiting.append(pool.submit(simulated_frame, setup, i))
            if len(waiting) > workers + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _summary(setup: Setup, frames: pd.DataFrame) -> dict[str, Any]:
    """What truth.json holds."""
    crystal, true = setup.crystal, setup.true
    thickness = float(frames["thickness_mean_A"].mean())
    return {
        "experiment": setup.experiment.model_dump(mode="json"),
        "flaws": setup.size,
        "structure": {
            "name": crystal.name,
            "cell": [float(c) for c in crystal.cell],
            "spacegroup": crystal.spacegroup,
            "labels": list(crystal.labels),
            "elements": list(crystal.elements),
            "xyz": crystal.xyz.tolist(),
            "occupancy": crystal.occupancy.tolist(),
            "u_iso": crystal.u_iso.tolist(),
            "u_ij": [None if np.isnan(u).any() else u.tolist() for u in crystal.u_ij],
        },
        "ub_true": setup.ub.tolist(),
        "axis_azimuth_true_deg": setup.experiment.instrument.axis_azimuth_deg,
        "a_per_px_true": true.a_per_px,
        "semi_angle_true_deg": float(np.degrees(true.semi_angle)),
        "elliptic": [true.distortion.elliptic.real, true.distortion.elliptic.imag],
        "distortion": {
            "parabolic": [true.distortion.parabolic.real, true.distortion.parabolic.imag],
            "cubic": [true.distortion.cubic.real, true.distortion.cubic.imag],
            "edge": true.distortion.edge,
        },
        "thickness_mean_A": None if np.isnan(thickness) else thickness,
        "g_max": setup.g_max,
        "s_max": setup.s_max,
    }
