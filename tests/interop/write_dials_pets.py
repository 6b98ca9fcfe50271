"""Run by an interpreter that has DIALS: its exporter writes PREFIX.cif_pets of a sweep that saw all reflections."""

import math
import sys
from types import SimpleNamespace

import numpy as np
from dials.array_family import flex
from dials.util.export_pets import PETSOutput
from dxtbx.model import Beam, Crystal, Experiment, ExperimentList, Goniometer, Scan
from dxtbx.model.detector import DetectorFactory
from scitbx import matrix

turn = matrix.col((0.3, 0.5, 0.8)).normalize().axis_and_angle_as_r3_rotation_matrix(40, deg=True)
axes = [(turn * matrix.col(v)).elems for v in ((4.9, 0, 0), (-2.45, 4.2435, 0), (0, 0, 5.4))]
experiment = Experiment(
    beam=Beam((0, 0, -1 / 0.0251)),
    detector=DetectorFactory.simple(
        "PAD", 500.0, (40.0, 40.0), "+x", "-y", (0.1, 0.1), (800, 800), (0, 1e6), []
    ),
    goniometer=Goniometer((math.cos(0.3), math.sin(0.3), 0.0)),
    scan=Scan((1, 40), (-20.0, 1.0), deg=True),
    crystal=Crystal(*axes, space_group_symbol="P 32 2 1"),
)
experiments = ExperimentList([experiment])
indices = np.stack(np.meshgrid(*[np.arange(-7, 8)] * 3, indexing="ij"), -1).reshape(-1, 3)
length = np.linalg.norm(indices @ np.array(experiment.crystal.get_B()).reshape(3, 3).T, axis=1)
hkl = indices[(length > 0) & (length < 1.4)].tolist()
table, size, draw = flex.reflection_table(), len(hkl), np.random.default_rng(1)
table["miller_index"] = flex.miller_index([tuple(h) for h in hkl])
table["id"], table["panel"] = flex.int(size, 0), flex.size_t(size, 0)
table["xyzcal.px"] = flex.vec3_double([(400.0, 400.0, 20.0)] * size)
table["xyzcal.mm"] = flex.vec3_double([(40.0, 40.0, 0.0)] * size)
table.map_centroids_to_reciprocal_space(experiments, calculated=True)
table["intensity.sum.value"] = flex.double(draw.uniform(10, 1000, size))
table["intensity.sum.variance"] = flex.double(draw.uniform(10, 100, size))
table["partiality"] = flex.double(size, 1.0)
frames = SimpleNamespace(excitation_error_cutoff=0.04, n_merged=5, step=3)
pets = SimpleNamespace(
    filename_prefix=sys.argv[1], id=None, partiality_cutoff=0.99, flag_filtering=False, virtual_frame=frames
)
PETSOutput(
    experiments, [table], SimpleNamespace(pets=pets, intensity=["sum"], **vars(pets))
).write_dyn_cif_pets()
