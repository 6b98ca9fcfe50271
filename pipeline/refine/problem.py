"""A frame-based least-squares problem: its state, and intensities with derivatives of every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from nanoed.pipeline.refine.frames import Engine, Frame, Spread, tilted
from nanoed.pipeline.refine.parameters import ABSORPTION, MOSAICITY, OFF_LATTICE, TWIN, Parameters
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.bloch import PotentialTable, potential_table

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
T = TypeVar("T")
LOOSE_TILTS_DEG = 0.3
"""Spread of tilts of frames whose orientations have no stated error."""
SMALLEST_SPREAD, SPREAD_RANGE = 1e-5, 2.0
"""rad, below which a mosaic is none; and how far a spread may move before its sampling is made anew."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """values : (p,) of the structure.  tilts : (frames, 2) rad.

    sizes : (k,) coefficients of the Legendre polynomials in the stage angle that make the log of the body's
    diameter in Å; one of them: the same body in all frames. Of frames with sizes of their own behind them how far
    each (by its row in the data) is off.
    """

    values: Floats
    sizes: Floats
    tilts: Floats

    def size(self, frame: Frame) -> float:
        """Diameter of the body in a frame, Å."""
        return float(np.exp(basis(frame, len(self.sizes)) @ self.sizes))


def basis(frame: Frame, n: int) -> Array:
    """What the n sizes of a state contribute to the log of the frame's: Legendre polynomials, and its own; (n,)."""
    common = min(n, frame.own_from or n)
    out = np.zeros(n)
    out[:common] = legvander(np.array([frame.place]), common - 1)[0]
    if n > common:
        out[common + frame.number] = 1.0
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """Share of the normal equations that no frame has: normal (p + k, p + k), right (p + k,), sum of squares.

    restraints : their number.
    """

    normal: Array
    right: Array
    cost: float
    restraints: int


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What stays the same during one stage. at : the state that fixes beams and sampling.

    misfit : root of the reduced sum of squares that the errors stated for the orientations are weighed with.
    """

    frames: list[Frame]
    parameters: Parameters
    engine: Engine
    spec: RefineSpec
    voltage: float
    at: State
    workers: int
    report: Callable[[int, int], None]
    misfit: float = 1.0

    @property
    def working(self) -> NDArray[np.bool_]:
        """(frames,) whether a frame's intensities refine the structure; False: held out, tilts and scale only."""
        every = self.spec.heldout_every
        number = np.array([f.number for f in self.frames])
        return np.ones(len(number), bool) if every is None else number % every != every // 2

    @property
    def stated(self) -> bool:
        """Whether errors that the data state hold the orientations."""
        return self.spec.tilt_prior_deg is None and any(f.tilt_su is not None for f in self.frames)

    def prior(self, i: int) -> float:
        """Spread of either tilt of frame i at unit weight, rad.

        Errors that the data state are worth as much as intensities whose errors are the misfit times larger: residuals
        of a model that does not fit must not outweigh them.
        """
        if self.spec.tilt_prior_deg is not None:
            return float(np.radians(self.spec.tilt_prior_deg))
        su = self.frames[i].tilt_su
        return float(np.radians(LOOSE_TILTS_DEG)) if su is None else su / self.misfit

    @property
    def priors(self) -> Array:
        """(frames,) `prior` of each."""
        return np.array([self.prior(i) for i in range(len(self.frames))])

    def outside(self, state: State) -> Outside:
        """What restraints and the prior of the frames' own sizes add to the least squares.

        A size that is not refined, on which nothing depends, gets what keeps it in place.
        """
        residual, slope = self.parameters.restrained(state.values)
        common = 1 + self.spec.thickness.angle_terms
        own = len(state.sizes) - common if self.spec.thickness.frame_spread is not None else 0
        jacobian = np.zeros((len(residual) + own, len(state.values) + len(state.sizes)))
        jacobian[: len(residual), : len(state.values)] = slope
        if own:
            spread = float(self.spec.thickness.frame_spread or 1.0)
            jacobian[len(residual) :, -own:] = np.eye(own) / spread
            residual = np.concatenate([residual, -state.sizes[-own:] / spread])
        normal = jacobian.T @ jacobian
        if not self.spec.thickness.refine:
            normal[-1, -1] = 1.0
        return Outside(normal, jacobian.T @ residual, float(residual @ residual), len(slope))

    def potential(self, values: Floats, derivatives: bool) -> PotentialTable:
        """Potential coefficients of the structure; the derivatives' columns are those of the parameters."""
        crystal = self.parameters.apply(values)
        jacobian = self.parameters.jacobian if derivatives else None
        absorption = self._extra(values, ABSORPTION, self.spec.absorption)
        table = potential_table(
            crystal, self.voltage, self.engine.g_max, self.spec.factors, jacobian, absorption,
            self.spec.potential_scale,
        )  # fmt: skip
        place = self.parameters.place(ABSORPTION)
        if derivatives and place is not None:
            table.box[:, 1 + place] = 1j * table.box[:, 0] / (1 + 1j * absorption)
        return table

    def _extra(self, values: Floats, name: str, fixed: float) -> float:
        place = self.parameters.place(name)
        return fixed if place is None else float(values[place])

    def _spread(self, state: State) -> Spread | None:
        """Spread of orientations, rad, and the one that fixes the sampling; None: a perfect crystal.

        The sampling serves spreads within a factor SPREAD_RANGE of the one that it was made for.
        """
        place = self.parameters.place(MOSAICITY)
        if place is None and self.spec.mosaicity_deg == 0:
            return None
        fixed = float(np.log(max(self.spec.mosaicity_deg, 1e-300)))
        now, at = (np.radians(np.exp(self._extra(s.values, MOSAICITY, fixed))) for s in (state, self.at))
        at = max(float(at), SMALLEST_SPREAD)
        return float(np.clip(now, at / SPREAD_RANGE, at * SPREAD_RANGE)), at

    def _domains(self, state: State) -> list[tuple[float, Engine, NDArray[np.float64]]]:
        """Volume, engine and law of every domain of a twin; one without."""
        twin = self.spec.twin
        if twin is None:
            return [(1.0, self.engine, np.eye(3))]
        law, share = np.array(twin.law), self._extra(state.values, TWIN, twin.fraction)
        return [(1 - share, self.engine, np.eye(3)), (share, self.engine.twinned(law), law)]

    def each(self, work: Callable[[int], T], which: NDArray[np.integer[Any]] | None = None) -> list[T]:
        """work(i) of every frame (or of `which`), in order, over the workers; reports progress."""
        order = range(len(self.frames)) if which is None else [int(i) for i in which]

        def results(pool: ThreadPoolExecutor) -> Iterator[T]:
            for done, result in enumerate(pool.map(work, order), 1):
                self.report(done, len(order))
                yield result

        with ThreadPoolExecutor(self.workers) as pool:
            return list(results(pool))

    def evaluate(
        self, state: State, derivatives: bool, structure: bool = True
    ) -> list[tuple[Array, Array]]:
        """Intensities and derivatives of every frame; without `structure` those by sizes and tilts alone."""
        potential = self.potential(state.values, derivatives and structure)
        return self.each(lambda i: self.frame(i, state, state.tilts[i], potential, derivatives))

    def frame(
        self, i: int, state: State, tilt: Array, potential: PotentialTable, derivatives: bool
    ) -> tuple[Array, Array]:
        """Intensities (n,) of frame i and their derivatives (n, p + k + 2): structure, sizes, tilts.

        A potential without derivatives leaves out all p parameters, those of no site too.
        """
        found, slope = np.zeros(len(self.frames[i].hkl)), np.zeros(())
        twinned = self.parameters.place(TWIN) if potential.box.shape[1] > 1 else None
        for number, (share, engine, law) in enumerate(self._domains(state)):
            part, part_slope = self._domain(i, engine, law, state, tilt, potential, derivatives)
            found, slope = found + share * part, slope + share * part_slope
            if derivatives and twinned is not None:
                slope[:, twinned] += part if number else -part
        return found, slope

    def _domain(
        self, i: int, engine: Engine, law: Array, state: State, tilt: Array, potential: PotentialTable,
        derivatives: bool,
    ) -> tuple[Array, Array]:  # fmt: skip
        """As `frame`, of one domain of the crystal by itself."""
        frame, image = self.frames[i], self.frames[i].hkl @ law.T
        of_domain = replace(frame, hkl=np.rint(image).astype(np.int64))
        fixed = (self.at.tilts[i], self.at.size(frame))
        common = (of_domain, tilt, state.size(frame), fixed, potential)
        spread = self._spread(state)
        found, slope = engine.intensities(*common, derivatives, spread)
        elsewhere = np.abs(image - of_domain.hkl).max(axis=1) > OFF_LATTICE
        found[elsewhere] = 0.0
        if not derivatives:
            return found, slope
        slope[elsewhere] = 0.0
        place = self.parameters.place(MOSAICITY) if potential.box.shape[1] > 1 else None
        if place is not None and spread is not None:
            by_spread, _ = engine.intensities(*common, False, spread, by_spread=True)
            slope[:, place] = np.where(elsewhere, 0.0, spread[0] * by_spread)
        by_size = np.outer(slope[:, -1], basis(frame, len(state.sizes))) * self.spec.thickness.refine
        return found, np.hstack([slope[:, :-3], by_size, slope[:, -3:-1]])

    def coefficients(self, orientations: list[Array], mean_chord: float) -> Array:
        """Sizes (k,) of a body whose mean chord over these orientations is given, Å."""
        relative = float(np.mean([self.engine.mean_chord(o) for o in orientations]))
        return np.array([np.log(mean_chord / relative), *np.zeros(self.spec.thickness.angle_terms)])

    def orientation(self, i: int, state: State) -> Array:
        """Refined orientation of frame i, sample to lab."""
        return tilted(self.frames[i].orientation, state.tilts[i])
