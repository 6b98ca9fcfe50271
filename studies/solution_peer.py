"""Charge flipping of cctbx on the same list of intensities, where NANOED_ORACLE_PYTHON has it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd

from nanoed.pipeline.refine.kinematical import refine_kinematical
from nanoed.pipeline.refine.spec import RefineSpec
from nanoed.pipeline.solve.atoms import assign, crystal_of, density, find_peaks, formula_units, kinds
from nanoed.pipeline.solve.data import Intensities
from nanoed.pipeline.solve.spec import SolveSpec
from nanoed.pipeline.solve.symmetry import candidates
from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import ConvergenceError, InputError

PEER = """
import json, sys
import smtbx.ab_initio.charge_flipping as flipping
from cctbx import crystal, miller
from cctbx.array_family import flex
work = json.load(open(sys.argv[1]))
symmetry = crystal.symmetry(unit_cell=work["cell"], space_group_symbol="Hall: " + work["hall"])
indices = flex.miller_index([tuple(h) for h in work["hkl"]])
f_obs = miller.set(symmetry, indices, anomalous_flag=False).array(flex.double(work["amplitude"]))
f_obs.set_observation_type_xray_amplitude()
flex.set_random_seed(work["seed"])
solving = flipping.solving_iterator(
    flipping.weak_reflection_improved_iterator(delta=None), f_obs, max_attempts_to_get_phase_transition=2)
flipping.loop(solving, verbose=False)
found = []
if solving.f_calc_solutions:
    f = max(solving.f_calc_solutions, key=lambda s: s[2])[0].expand_to_p1().generate_bijvoet_mates()
    found = [[*h, z.real, z.imag] for h, z in zip(f.indices(), f.data())]
json.dump(found, open(sys.argv[2], "w"))
"""
"""Run by NANOED_ORACLE_PYTHON, with nothing of ours; the space group is told."""
SECONDS = 60.0


def peer_available() -> str | None:
    """The interpreter NANOED_ORACLE_PYTHON if it has smtbx, else None."""
    python = shutil.which(os.environ.get("NANOED_ORACLE_PYTHON", ""))
    if python is None:
        return None
    asked = subprocess.run([python, "-c", "import smtbx.ab_initio"], capture_output=True, check=False)
    return python if asked.returncode == 0 else None


def peer_solution(
    python: str, data: Intensities, spec: SolveSpec, spacegroup: str, seed: int
) -> Crystal | None:
    """The structure that our atoms and refinement make of cctbx's phases, told the space group; None without one.

    A run that takes more than SECONDS, ends in an error or finds no phase transition has none.
    """
    unique = data.reflections[["h", "k", "l"]].to_numpy(np.int64)
    near = np.linalg.norm(unique @ data.reciprocal_basis.T, axis=1) <= spec.d_star_max
    amplitude = np.sqrt(np.maximum(data.reflections["I"].to_numpy(float), 0.0))
    hall = gemmi.find_spacegroup_by_name(spacegroup).hall
    work = {"cell": data.cell, "hall": hall, "hkl": unique[near].tolist(), "seed": seed,
            "amplitude": amplitude[near].tolist()}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.json", Path(folder) / "made.json"
        given.write_text(json.dumps(work), encoding="utf-8")
        command = [python, "-c", PEER, str(given), str(made)]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=SECONDS)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
        table = pd.DataFrame(json.loads(made.read_text(encoding="utf-8")))
    return None if table.empty else _structure(table.to_numpy(), data, spec, spacegroup)


def _structure(table: np.ndarray, data: Intensities, spec: SolveSpec, spacegroup: str) -> Crystal | None:
    """Peaks, atoms and refinement of F (columns h, k, l, re, im), the other sign of phases turned into ours."""
    laue = tuple(tuple(int(x) for x in r.ravel()) for r in data.rotations)
    group = next(c for c in candidates(laue) if c.spacegroup == spacegroup)
    wanted = kinds(spec)
    rho = density(
        table[:, :3].astype(np.int64), table[:, 3] - 1j * table[:, 4], data.cell, spec.atoms.spacing_A
    )
    choices = formula_units(wanted, data.cell, spec.atoms)
    peaks = find_peaks(
        rho, group, data.cell, spec.atoms, int(1.25 * max(choices) * sum(k.count for k in wanted))
    )
    for units in choices:
        chosen = assign(peaks, wanted, units)
        if chosen is not None:
            model = crystal_of(peaks, chosen, spacegroup, data.cell, spec.atoms.u_iso_A2)
            settings = RefineSpec(factors=spec.factors, d_star_max=spec.d_star_max)
            try:
                return refine_kinematical(data.reflections, model, settings).crystal
            except (ConvergenceError, InputError, np.linalg.LinAlgError):
                return None
    return None
