"""Which of the two hands of a chiral structure the frames prefer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import gemmi
import numpy as np
import pandas as pd

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.dynamical import refine_dynamical, with_thickness_held
from nanoed.pipeline.refine.result import Refinement
from nanoed.pipeline.refine.statistics import r_obs_pct
from nanoed.pipeline.spec import RefineSpec
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError, RunawayThicknessError

Progress = Callable[[str, int, int], None]


def refine_both_hands(
    data: PetsData, model: Crystal, spec: RefineSpec, workers: int = 1, progress: Progress | None = None
) -> Refinement:
    """Refine the model and its mirror image alike; the one of the lower mean R_obs of frames, with statistics hand_z.

    hand_z : mean over the frames of the paired difference of R_obs, other hand less this one, over its standard error.
    The wrong hand of a small crystal fits the better the less dynamical it is, and its thickness may run away; it is
    then held where that of the other hand settles, and the message says so: hand_z compares them at that thickness.
    Raises InputError for a structure that has no hand, otherwise as `refine_dynamical`.
    """
    hands = (model, mirrored(model))
    tried = [_or_runaway(data, hand, spec, workers, progress) for hand in hands]
    settled = [r for r in tried if isinstance(r, Refinement)]
    if not settled:
        raise RunawayThicknessError(str(tried[0]))
    either, held = [], None
    for hand, found in zip(hands, tried, strict=True):
        if not isinstance(found, Refinement):
            held = float(settled[0].statistics["thickness_A"])
            found = refine_dynamical(data, hand, with_thickness_held(spec, held), workers, progress)
        either.append(found)
    both = pd.concat([frame_r_obs_pct(refinement) for refinement in either], axis=1).dropna().to_numpy()
    z = z_of_difference(both[:, 1] - both[:, 0])
    better = either[0] if z >= 0 else either[1]
    if held is not None:
        whose = "the other hand has no thickness of its own and was" if better is settled[0] else "the thickness is"
        better = replace(better, message=f"{better.message}; {whose} held at {held:.0f} Å, where one hand settles")
    return replace(better, statistics=better.statistics | {"hand_z": abs(z)})


def _or_runaway(
    data: PetsData, model: Crystal, spec: RefineSpec, workers: int, progress: Progress | None
) -> Refinement | RunawayThicknessError:
    try:
        return refine_dynamical(data, model, spec, workers, progress)
    except RunawayThicknessError as error:
        return error


def mirrored(crystal: Crystal) -> Crystal:
    """The structure inverted through the origin: x becomes -x, P 31 2 1 becomes P 32 2 1 and its like.

    Raises InputError for a space group with improper operations, and for one whose inverted operations have no
    symbol of their own at this origin.
    """
    if (np.linalg.det(crystal.rotations) < 0).any():
        raise InputError(
            "the space group has no hand",
            field="refine.both_hands",
            value=crystal.spacegroup,
            allowed="false",
        )
    operations = []
    for op in gemmi.find_spacegroup_by_name(crystal.spacegroup).operations():
        op.tran = [-t % gemmi.Op.DEN for t in op.tran]
        operations.append(op)
    other = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(operations))
    if other is None:
        raise InputError(
            "the mirror image has another origin", field="refine.both_hands", value=crystal.spacegroup,
            allowed="a group whose inverted operations have a symbol",
        )  # fmt: skip
    return replace(crystal, spacegroup=other.xhm(), xyz=-crystal.xyz)


def frame_r_obs_pct(refinement: Refinement) -> pd.Series:
    """R_obs of every frame, percent, by frame."""
    groups = refinement.reflections.groupby("frame")
    return pd.Series({frame: r_obs_pct(table) for frame, table in groups}, dtype=float)


def z_of_difference(differences: np.ndarray) -> float:
    """Mean over standard error of paired differences (n,); 0 for fewer than two."""
    if len(differences) < 2:
        return 0.0
    return float(differences.mean() / max(differences.std(ddof=1) / np.sqrt(len(differences)), 1e-12))
