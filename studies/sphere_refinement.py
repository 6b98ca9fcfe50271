"""Part of check-refinement: frames of a 5 nm ITO sphere made atom by atom, refined dynamically and kinematically."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.parameters import free_parameters
from nanoed.pipeline.spec import RefineSpec, ThicknessSpec
from nanoed.sim.multislice import Grid, Optics, spot_areas
from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.sampling import precession_rotations, precession_steps
from nanoed.sim.physics.scattering import of_the_lattice, reflections_within
from nanoed.studies import sphere
from nanoed.studies.case import structure_file
from nanoed.studies.compare import compare
from nanoed.studies.findings import Finding
from nanoed.studies.synthetic_frames import noisy

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
ALPHA_DEG = tuple(range(-40, 41, 10))
BETA_DEG, OMEGA_DEG = 7.0, 25.0
D_STAR_MAX = 1.2
SAMPLING, SLICE_A = 0.2, 2.5
FLUENCE = 380.0 * 4.0
"""Electrons per Å² and frame (PHYSICS H1: 380 e/Å²/s for 4 s)."""
BACKGROUND = 100.0
"""Electrons under a spot."""
SHIFT_A = 0.05
"""How far the start model's atoms are off."""
SPEC = RefineSpec(
    d_star_max=D_STAR_MAX,
    s_g_max=0.04,
    heldout_folds=None,
    thickness=ThicknessSpec(model="sphere", nodes=4, scan_A=(20.0, 80.0)),
)


def sphere_refined(reference: Path, workers: int, progress: Progress | None) -> Iterator[Finding]:
    """R and distances from the truth of both theories on the same frames; other factors than those that made them."""
    del reference
    crystal = read_cif(structure_file("ito"))
    data = noisy(multislice_frames(crystal, progress), np.random.default_rng(1))
    true = free_parameters(crystal)
    start = _moved(crystal)
    found: dict[str, tuple[float, float]] = {}
    for theory, scale in (("dynamical", 1.0), ("kinematical, by frames", 0.01)):
        spec = SPEC.model_copy(update={"potential_scale": scale})
        refined = refine_dynamical(data, start, spec, workers, progress)
        off = compare(refined.crystal, crystal)
        found[theory] = (refined.statistics["r_obs_pct"], off.d_av_A)
        pull = (refined.crystal.xyz - true.crystal.xyz)[refined.su["xyz"] > 0] / refined.su["xyz"][
            refined.su["xyz"] > 0
        ]
        yield Finding("ito sphere", f"R_obs, {theory}, %", refined.statistics["r_obs_pct"])
        yield Finding("ito sphere", f"mean distance from the truth, {theory}, Å", off.d_av_A)
        yield Finding("ito sphere", f"largest distance from the truth, {theory}, Å", off.d_max_A)
        yield Finding(
            "ito sphere", f"rms of pulls of coordinates, {theory}", float(np.sqrt(np.mean(pull**2)))
        )
        thickness = refined.statistics["thickness_A"]
        yield Finding("ito sphere", f"mean thickness, {theory}, Å", thickness, source="made with 33.3 Å")
    dynamical, kinematical = found["dynamical"], found["kinematical, by frames"]
    source = "multislice frames of atoms, Lobato factors; refined with Peng's"
    yield Finding(
        "ito sphere", "R_obs of dynamical over kinematical", dynamical[0] / kinematical[0], "<=", 1.0, source
    )


def multislice_frames(crystal: Crystal, progress: Progress | None) -> PetsData:
    """Expected electrons of every listed reflection over a precessed tilt series of one sphere of atoms."""
    ub, wavelength = crystal.reciprocal_basis, wavelength_A(sphere.KV)
    semi = float(np.radians(sphere.SEMI_ANGLE_DEG))
    steps = precession_steps(D_STAR_MAX, semi, sphere.DIAMETER_A)
    cone, share = precession_rotations(semi, steps), np.full(steps, 1 / steps)
    points = int(sphere.BOX_A / SAMPLING)
    box = (sphere.BOX_A, sphere.BOX_A, sphere.BOX_A)
    grid, optics = Grid(box, (points, points), int(sphere.BOX_A / SLICE_A)), Optics(sphere.KV, sphere.FACTORS)
    listed = reflections_within(crystal, D_STAR_MAX + 0.1)
    everything = np.vstack([np.zeros((1, 3), np.int64), listed[of_the_lattice(crystal, listed)]])
    zones, parts = [], []
    for number, alpha in enumerate(ALPHA_DEG, 1):
        angles = (float(alpha), BETA_DEG, OMEGA_DEG)
        orientation = frame_matrix(*np.radians(angles))
        g = everything @ (orientation @ ub).T
        near = np.abs(excitation_errors(g, wavelength)) < semi * np.linalg.norm(g, axis=1) + 0.06
        atoms = sphere.sphere_atoms(crystal, orientation, sphere.CENTRES[0])
        area = spot_areas(atoms, grid, optics, g[near], cone, share, sphere.SPOT_RADIUS, 0.06, 1)
        table = pd.DataFrame(everything[near], columns=["h", "k", "l"])
        parts.append(table.assign(I=FLUENCE * area, zone=number)[1:])
        zones.append([number, 0.0, 0.0, 1.0, sphere.SEMI_ANGLE_DEG, *angles, 1.0])
        if progress is not None:
            progress("multislice", number, len(ALPHA_DEG))
    names = ["id", "u", "v", "w", "semi_angle", "alpha", "beta", "omega", "scale"]
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(sigma=np.sqrt(table["I"] + BACKGROUND))
    return PetsData(crystal.cell, wavelength, ub, pd.DataFrame(zones, columns=names), table)


def _moved(crystal: Crystal) -> Crystal:
    """The crystal with free coordinates off by SHIFT_A in all."""
    parameters = free_parameters(crystal)
    coordinates = np.array([name[-2:] in (".x", ".y", ".z") for name in parameters.names])
    step = np.where(coordinates, SHIFT_A / crystal.cell[0] / np.sqrt(3), 0.002)
    return parameters.apply(parameters.start + step)
