"""A frame-based least-squares problem: its state, and intensities with derivatives of every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from nanoed.pipeline.refine.frames import Engine, Frame, tilted
from nanoed.pipeline.refine.parameters import Parameters
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.bloch import PotentialTable, potential_table

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """values : (p,) of the structure.  tilts : (frames, 2) rad.

    sizes : (k,) coefficients of the Legendre polynomials in the stage angle that make the log of the body's
    diameter in Å; one of them: the same body in all frames.
    """

    values: Floats
    sizes: Floats
    tilts: Floats

    def size(self, frame: Frame) -> float:
        """Diameter of the body in a frame, Å."""
        return float(np.exp(basis(frame, len(self.sizes)) @ self.sizes))


def basis(frame: Frame, n: int) -> Array:
    """The first n Legendre polynomials at the frame's place in the range of stage angles; (n,)."""
    return legvander(np.array([frame.place]), n - 1)[0]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What stays the same during one stage. at : the state that fixes beams and sampling."""

    frames: list[Frame]
    parameters: Parameters
    engine: Engine
    spec: RefineSpec
    voltage: float
    at: State
    workers: int
    report: Callable[[int, int], None]

    @property
    def working(self) -> NDArray[np.bool_]:
        """(frames,) whether a frame's intensities refine the structure; False: held out, tilts and scale only."""
        every = self.spec.heldout_every
        number = np.array([f.number for f in self.frames])
        return np.ones(len(number), bool) if every is None else number % every != every // 2

    @property
    def prior(self) -> float:
        """Spread of the tilts, rad."""
        return float(np.radians(self.spec.tilt_prior_deg))

    def potential(self, values: Floats, derivatives: bool) -> PotentialTable:
        crystal = self.parameters.apply(values)
        jacobian = self.parameters.jacobian if derivatives else None
        return potential_table(
            crystal,
            self.voltage,
            self.engine.g_max,
            self.spec.factors,
            jacobian,
            self.spec.absorption,
            self.spec.potential_scale,
        )

    def each(self, work: Callable[[int], T], which: NDArray[np.integer[Any]] | None = None) -> list[T]:
        """work(i) of every frame (or of `which`), in order, over the workers; reports progress."""
        order = range(len(self.frames)) if which is None else [int(i) for i in which]

        def results(pool: ThreadPoolExecutor) -> Iterator[T]:
            for done, result in enumerate(pool.map(work, order), 1):
                self.report(done, len(order))
                yield result

        with ThreadPoolExecutor(self.workers) as pool:
            return list(results(pool))

    def evaluate(self, state: State, derivatives: bool) -> list[tuple[Array, Array]]:
        """Intensities and derivatives of every frame."""
        potential = self.potential(state.values, derivatives)
        return self.each(lambda i: self.frame(i, state, state.tilts[i], potential, derivatives))

    def frame(
        self, i: int, state: State, tilt: Array, potential: PotentialTable, derivatives: bool
    ) -> tuple[Array, Array]:
        """Intensities (n,) of frame i and their derivatives (n, p + k + 2): structure, sizes, tilts."""
        frame = self.frames[i]
        fixed = (self.at.tilts[i], self.at.size(frame))
        found, slope = self.engine.intensities(frame, tilt, state.size(frame), fixed, potential, derivatives)
        if not derivatives:
            return found, slope
        by_size = np.outer(slope[:, -1], basis(frame, len(state.sizes)))
        return found, np.hstack([slope[:, :-3], by_size, slope[:, -3:-1]])

    def coefficients(self, orientations: list[Array], mean_chord: float) -> Array:
        """Sizes (k,) of a body whose mean chord over these orientations is given, Å."""
        relative = float(np.mean([self.engine.mean_chord(o) for o in orientations]))
        return np.array([np.log(mean_chord / relative), *np.zeros(self.spec.thickness.angle_terms)])

    def orientation(self, i: int, state: State) -> Array:
        """Refined orientation of frame i, sample to lab."""
        return tilted(self.frames[i].orientation, state.tilts[i])
