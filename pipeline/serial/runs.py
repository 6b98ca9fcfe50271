"""Runs of frames of one particle: the chain of orientations that agrees with the frames and with one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.serial.lattice import angle_between
from nanoed.pipeline.serial.spec import RunSpec

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """choice : (n,) candidate of each frame.  confidence : (n,) its probability.  run : (n,) number of the run."""

    choice: Index
    confidence: Array
    run: Index


def link(
    frame: Index, orientations: list[Array], evidence: list[Array], turns: Array, spec: RunSpec
) -> Chain:
    """The most probable candidate of every frame in a hidden Markov chain, and the runs.

    frame : (n,) ascending numbers.  orientations : per frame (c, 3, 3).  evidence : per frame (c,) log likelihoods.
    The next frame shows the same particle with probability `stay`, turned by at most link_deg in any direction,
    or another in any orientation modulo the lattice's rotations `turns`. Probabilities by the forward-backward
    algorithm; a run is broken between choices that are further apart.
    """
    limit = np.radians(spec.link_deg)
    part = len(turns) * (limit - np.sin(limit)) / np.pi
    near, far = np.log(spec.stay / part), np.log1p(-spec.stay)
    n = len(frame)
    steps: list[Array] = []
    for i in range(n - 1):
        a, b = orientations[i], orientations[i + 1]
        angle = angle_between(np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1, 1)), turns)
        linked = (angle.reshape(len(a), len(b)) < limit) & (frame[i + 1] - frame[i] <= spec.gap)
        steps.append(np.where(linked, np.logaddexp(near, far), far))
    forward, backward = [evidence[0]], [np.zeros(len(evidence[-1]))]
    for i in range(n - 1):
        forward.append(evidence[i + 1] + _log_sum(forward[-1][:, None] + steps[i], 0))
    for i in range(n - 2, -1, -1):
        backward.append(_log_sum(steps[i] + (evidence[i + 1] + backward[-1])[None, :], 1))
    total = [f + b for f, b in zip(forward, backward[::-1], strict=True)]
    posterior = [np.exp(t - _log_sum(t, 0)) for t in total]
    choice = np.array([int(np.argmax(p)) for p in posterior])
    confidence = np.array([float(p.max()) for p in posterior])
    joined = [steps[i][choice[i], choice[i + 1]] > far for i in range(n - 1)]
    run = np.concatenate([[0], np.cumsum(~np.array(joined, bool))]).astype(np.int64)
    return Chain(choice, confidence, run)


def continued(orientation: Array, run: Index, turns: Array) -> Array:
    """Orientations (n, 3, 3) of which each is, of its equivalents, the nearest to the one before in its run."""
    out = orientation.copy()
    for i in range(1, len(out)):
        if run[i] == run[i - 1]:
            trace = np.einsum("ij,qjk,ik->q", out[i - 1], turns, out[i])
            out[i] = out[i] @ turns[int(np.argmax(trace))].T
    return out


def _log_sum(values: Array, axis: int) -> Array:
    """ln Σ exp along an axis."""
    return np.logaddexp.reduce(values, axis=axis)
