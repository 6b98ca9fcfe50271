"""Part of check-refinement: frames of a 5 nm ITO sphere made atom by atom, refined dynamically and kinematically.

The same atoms with so weak a potential that they scatter kinematically tell what of an error of the thickness is the
particle's (its rough surface, spots that reach into each other), and the slope of the dynamical effects what is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.pipeline.io.cif_pets import PetsData
from nanoed.pipeline.refine.dynamical import refine_dynamical
from nanoed.pipeline.refine.parameters import free_parameters
from nanoed.pipeline.spec import RefineSpec, ThicknessSpec
from nanoed.sim.multislice import Grid, Optics, spot_areas
from nanoed.sim.particle import Body
from nanoed.sim.physics.bloch import frame_intensities, potential_table
from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.kinematical import kinematical_intensities
from nanoed.sim.physics.sampling import precession_rotations, precession_steps
from nanoed.sim.physics.scattering import of_the_lattice, reflections_within
from nanoed.sim.physics.thickness import chord_distribution
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
WEAK = 0.02
"""Of the potential, at which atoms scatter kinematically."""
STRONG = 0.1
"""Of the strongest kinematical intensity, above which dynamical effects are compared."""
G_MAX, S_MAX = 2.0, 0.1
"""Beams of the columns that the finite sphere is compared with, 1/Å."""
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
    made = multislice_frames(crystal, progress)
    data = noisy(made, np.random.default_rng(1))
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
        yield Finding(
            "ito sphere", f"s.u. of the mean thickness, {theory}, Å", refined.statistics["thickness_su_A"]
        )
    dynamical, kinematical = found["dynamical"], found["kinematical, by frames"]
    source = "multislice frames of atoms, Lobato factors; refined with Peng's"
    yield Finding(
        "ito sphere", "R_obs of dynamical over kinematical", dynamical[0] / kinematical[0], "<=", 1.0, source
    )
    yield from _of_the_thickness(crystal, made, workers, progress)


def _of_the_thickness(
    crystal: Crystal, made: PetsData, workers: int, progress: Progress | None
) -> Iterator[Finding]:
    """What the thickness is where the same atoms scatter kinematically, and how strong dynamical effects are."""
    weak = multislice_frames(crystal, progress, WEAK)
    spec = SPEC.model_copy(update={"potential_scale": 0.01})
    refined = refine_dynamical(noisy(weak, np.random.default_rng(1)), crystal, spec, workers, progress)
    name = f"kinematical, atoms at {WEAK:g} of their potential, Å"
    yield Finding("ito sphere", f"mean thickness, {name}", refined.statistics["thickness_A"])
    yield Finding("ito sphere", f"s.u. of the mean thickness, {name}", refined.statistics["thickness_su_A"])
    engines = frame_intensities, kinematical_intensities
    columns, kinematical = (columns_of(crystal, made, engine) for engine in engines)
    strong = kinematical > STRONG * kinematical.max()
    expected = np.log(columns[strong] / kinematical[strong])
    found = np.log((made.reflections["I"] / weak.reflections["I"]).to_numpy()[strong])
    slope = float(np.polyfit(expected, found, 1)[0])
    source = f"slope of ln(I / I_kin) over {int(strong.sum())} strongest spots, multislice against columns"
    yield Finding("ito sphere", "dynamical effect of the sphere over that of columns", slope, source=source)


def columns_of(crystal: Crystal, data: PetsData, engine: Callable[..., Array]) -> Array:
    """Expected electrons in the spots of the frames (n,) by the column approximation, no beam left out."""
    potential = potential_table(crystal, sphere.KV, G_MAX, sphere.FACTORS)
    axis, semi = np.array([0.0, 0.0, 1.0]), float(np.radians(sphere.SEMI_ANGLE_DEG))
    body = Body("sphere", sphere.DIAMETER_A, sphere.DIAMETER_A, axis)
    t, w, area = chord_distribution(body, axis)
    steps = precession_steps(D_STAR_MAX, semi, sphere.DIAMETER_A)
    cone, share = precession_rotations(semi, steps), np.full(steps, 1 / steps)
    parts = []
    for zone, alpha, beta, omega in data.zones[["id", "alpha", "beta", "omega"]].to_numpy(float):
        ub = frame_matrix(*np.radians([alpha, beta, omega])) @ data.ub
        table = data.reflections
        hkl = table.loc[table["zone"] == int(zone), ["h", "k", "l"]].to_numpy()
        parts.append(FLUENCE * area * engine(potential, ub, cone, share, t, w, hkl, sphere.KV, G_MAX, S_MAX))
    return np.concatenate(parts)


def multislice_frames(crystal: Crystal, progress: Progress | None, strength: float = 1.0) -> PetsData:
    """Expected electrons of every listed reflection over a precessed tilt series of one sphere of atoms.

    strength : of the potential; the intensities are divided by its square.
    """
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
        atoms = replace(atoms, occupancy=strength * atoms.occupancy)
        area = spot_areas(atoms, grid, optics, g[near], cone, share, sphere.SPOT_RADIUS, 0.06, 1)
        table = pd.DataFrame(everything[near], columns=["h", "k", "l"])
        parts.append(table.assign(I=FLUENCE * area / strength**2, zone=number)[1:])
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
