"""Where the column approximation stands: a 5 nm sphere of ITO, atom by atom, against columns of Bloch waves.

    python -m nanoed.studies.sphere reports/ito-sphere

writes spots.csv (areas of spots, Å², by multislice, Bloch and kinematical) and difference.png in some minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.sim.atoms import Atoms, cut_atoms
from nanoed.sim.multislice import Grid, Optics, spot_areas
from nanoed.sim.particle import Body
from nanoed.sim.physics.bloch import PotentialTable, frame_intensities, potential_table
from nanoed.sim.physics.crystal import Crystal, read_cif
from nanoed.sim.physics.electron import wavelength_A
from nanoed.sim.physics.files import whole, write_whole
from nanoed.sim.physics.geometry import excitation_errors, frame_matrix
from nanoed.sim.physics.kinematical import kinematical_intensities
from nanoed.sim.physics.sampling import precession_rotations, precession_steps
from nanoed.sim.physics.thickness import chord_distribution

Array = NDArray[np.float64]
KV, FACTORS, DIAMETER_A, SEMI_ANGLE_DEG = 200.0, "lobato", 50.0, 1.2
G_MAX, S_MAX, G_SCORED = 2.0, 0.1, 1.5
ORIENTATIONS_RAD = {"general": (0.31, -0.12, 1.1), "[001]": (0.0, 0.0, 0.0)}
"""alpha, beta, omega."""
CENTRES = ((0.13, 0.27, 0.41), (0.61, 0.35, 0.79), (0.87, 0.73, 0.59), (0.39, 0.65, 0.21))
"""Fractional coordinates of the sphere's centre: where the surface cuts the crystal is left to chance, so a few are
averaged (one alone moves R by 1 %)."""
BOX_A, SAMPLING, SLICE_A = 80.0, 0.17, 2.0
SPOT_RADIUS = 0.05
"""1/Å; spots are 0.023 wide and at least 0.10 apart."""
LEAST = 0.01
"""Intensity over the strongest above which a spot is scored: weaker ones are lost in the tails of their neighbours,
those of 000 reach far."""


def sphere_atoms(crystal: Crystal, orientation: Array, centre: tuple[float, float, float]) -> Atoms:
    """Atoms of the sphere in the middle of its box, lab frame."""
    shift = crystal.frac_to_cart @ np.asarray(centre)
    axis = np.array([0.0, 0.0, 1.0])
    room = DIAMETER_A + 2 * float(np.linalg.norm(shift))
    larger = cut_atoms(crystal, Body("sphere", room, room, axis), np.eye(3))
    xyz = larger.xyz - shift
    kept = np.linalg.norm(xyz, axis=1) <= DIAMETER_A / 2
    middle = np.array([BOX_A / 2, BOX_A / 2, -BOX_A / 2])
    return Atoms(
        larger.species, larger.kind[kept], xyz[kept] @ orientation.T + middle, larger.occupancy[kept]
    )


def spots(
    crystal: Crystal, potential: PotentialTable, orientation: Array, with_atoms: bool = True
) -> pd.DataFrame:
    """h, k, l, g (1/Å) and the spot's area (Å²) by every engine, precessed, |g| <= G_SCORED."""
    ub = orientation @ crystal.reciprocal_basis
    n = precession_steps(G_SCORED, np.radians(SEMI_ANGLE_DEG), DIAMETER_A)
    cone, share = precession_rotations(np.radians(SEMI_ANGLE_DEG), n), np.full(n, 1 / n)
    g = potential.hkl @ ub.T
    length = np.linalg.norm(g, axis=1)
    reach = np.radians(SEMI_ANGLE_DEG) * length + 0.06
    near = (np.abs(excitation_errors(g, wavelength_A(KV))) < reach) & (length <= G_SCORED)
    hkl = potential.hkl[near]
    body = Body("sphere", DIAMETER_A, DIAMETER_A, np.array([0.0, 0.0, 1.0]))
    t, w, area = chord_distribution(body, np.array([0.0, 0.0, 1.0]))
    columns = {"h": hkl[:, 0], "k": hkl[:, 1], "l": hkl[:, 2], "g": length[near]}
    for name, engine in (("bloch_A2", frame_intensities), ("kinematical_A2", kinematical_intensities)):
        columns[name] = area * engine(potential, ub, cone, share, t, w, hkl, KV, G_MAX, S_MAX)
    if with_atoms:
        points = int(BOX_A / SAMPLING)
        grid = Grid((BOX_A, BOX_A, BOX_A), (points, points), int(BOX_A / SLICE_A))
        optics, each = Optics(KV, FACTORS), []
        for centre in CENTRES:
            atoms = sphere_atoms(crystal, orientation, centre)
            each.append(spot_areas(atoms, grid, optics, g[near], cone, share, SPOT_RADIUS, 0.06))
        columns["multislice_A2"] = np.mean(each, axis=0)
    return pd.DataFrame(columns)


def scored(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the spots that the column approximation expects to be strong, and so not the tails of others."""
    diffracted = table[table["g"] > 0]
    return diffracted[diffracted["bloch_A2"] > LEAST * diffracted["bloch_A2"].max()]


def r_factor(table: pd.DataFrame, engine: str) -> float:
    """R on |F| of an engine's column against multislice over the scored spots."""
    some = scored(table)
    found, expected = np.sqrt(some[engine]), np.sqrt(some["multislice_A2"])
    return float((found - expected).abs().sum() / expected.sum())


def draw(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Difference of the column approximation from multislice against g, one panel per orientation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (name, table) in zip(figure.subplots(1, 2, sharey=True), tables.items(), strict=True):
        some = scored(table)
        root = np.sqrt(some["multislice_A2"])
        for engine, marker in (("kinematical_A2", "x"), ("bloch_A2", "o")):
            label = f"{engine.removesuffix('_A2')}, R = {100 * r_factor(table, engine):.1f} %"
            ratio = 100 * (np.sqrt(some[engine]) / root - 1)
            axes.scatter(some["g"], ratio, 60 * root / root.max(), marker=marker, alpha=0.6, label=label)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(title=f"ITO sphere 5 nm, {name}", xlabel="|g| (1/Å)", ylim=(-40, 40))
        axes.legend()
    figure.axes[0].set_ylabel("|F| over multislice - 1 (%)")
    with whole(path) as part:
        figure.savefig(part, dpi=150, format="png", metadata={"Software": None})


def main(folder: Path) -> None:
    """Compute, write and draw; the R factors go to standard output."""
    crystal = read_cif(Path(__file__).parent / "structures" / "ito.cif")
    potential = potential_table(crystal, KV, G_MAX, FACTORS)
    tables = {}
    for name, angles in ORIENTATIONS_RAD.items():
        tables[name] = spots(crystal, potential, frame_matrix(*angles))
        each = ", ".join(f"{e.removesuffix('_A2')} {100 * r_factor(tables[name], e):.2f} %" for e in
                         ("bloch_A2", "kinematical_A2"))  # fmt: skip
        print(f"{name}: R against multislice: {each}")
    every = pd.concat([table.assign(orientation=name) for name, table in tables.items()])
    every = every[every["multislice_A2"] > 1e-4 * scored(every)["multislice_A2"].max()]
    head = (
        f"# python -m nanoed.studies.sphere: ITO sphere {DIAMETER_A:g} A, {KV:g} kV, {FACTORS} factors, precession"
        f" {SEMI_ANGLE_DEG:g} deg; electrons in a spot per incident electron and A^2\n"
    )
    write_whole(folder / "spots.csv", head + every.to_csv(index=False, float_format="%.5g"))
    draw(tables, folder / "difference.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
