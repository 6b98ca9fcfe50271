"""Small valid files of every format that is read, written by our own writers, from which the fuzzers start."""

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from nanoed.pipeline.io.cif_pets import PetsData, write_cif_pets, zone_axes
from nanoed.pipeline.io.hkl import write_hkl, write_ins
from nanoed.pipeline.io.smv import write_smv
from nanoed.pipeline.io.tiff_pets import pts_text, write_tiff
from nanoed.sim.dataset import Nominal, write_dataset
from nanoed.sim.truth import FRAME_COLUMNS, REFLECTION_COLUMNS, Truth, write_truth
from nanoed.studies.case import HERE, load_case

CELL = (9.184, 5.447, 5.145, 90.0, 90.0, 90.0)


def written(write: Callable[[Path], Any], name: str) -> bytes:
    """What `write` leaves at a path that ends in `name`."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def nominal(n: int = 2, shape: tuple[int, int] = (6, 8), protocol: str = "continuous_rotation") -> Nominal:
    return Nominal(
        voltage_kv=200.0,
        shape=shape,
        a_per_px=0.01,
        pixel_size_um=55.0,
        centre_px=(3.5, 3.25),
        exposure_s=0.5,
        alpha_deg=np.arange(n) - 1.0,
        axis_azimuth_deg=38.0,
        protocol=protocol,
        semi_angle_deg=1.0 if protocol == "precession" else 0.0,
        rotation_deg=0.0 if protocol == "precession" else 1.0,
        gain=1.0,
        saturation=100_000,
    )


def images(n: int = 2, shape: tuple[int, int] = (6, 8), dtype: Any = np.int32) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 900, shape).astype(dtype) for i in range(n)]


def cifs() -> list[bytes]:
    return [(HERE / "structures" / f"{name}.cif").read_bytes() for name in ("brookite", "anatase", "ito")]


def cif_pets() -> list[bytes]:
    zones = pd.DataFrame({"id": [1, 2], "semi_angle": 1.2, "alpha": [-3.0, 2.0], "beta": 0.1, "omega": 38.0})
    zones["scale"] = 1.0
    ub = np.diag([1 / edge for edge in CELL[:3]])
    zones[["u", "v", "w"]] = zone_axes(ub, zones)
    reflections = pd.DataFrame({"h": [1, 2, -3], "k": [0, 1, 2], "l": [4, 0, 1], "I": [12.5, 1.0, -0.5]})
    reflections = reflections.assign(sigma=[0.5, 0.2, 0.4], zone=[1, 1, 2])
    data = PetsData(CELL, 0.0251, ub, zones, reflections, {"dstarmax": "1.4", "RC width": "0.001"})
    return [written(lambda path: write_cif_pets(path, data), "a.cif_pets")]


def hkls() -> list[bytes]:
    reflections = pd.DataFrame({"h": [1, 2, -3], "k": [0, 1, 2], "l": [4, 0, 1], "I": [12.5, 1.0, -0.5]})
    return [written(lambda path: write_hkl(path, reflections.assign(sigma=0.3)), "a.hkl")]


def inss() -> list[bytes]:
    groups = ("P b c a", "P 1", "I a -3")
    return [
        written(lambda path, g=group: write_ins(path, "t", 0.0251, CELL, g, "TiO2"), "a.ins")
        for group in groups
    ]


def models() -> list[bytes]:
    """Atoms in the manner of SHELX: free variables, isotropic, anisotropic and riding displacements."""
    atoms = (
        "Ti1 1 0.1289 0.0972 0.8628 11.0 0.005",
        "O1 2 0.0095 0.1491 0.1835 21.0 0.006 0.005 0.007 =\n  0.001 -0.001 0.0",
        "H1 3 0.3 0.4 0.5 -21.0 -1.2",
    )
    head = "TITL t\nCELL 0.0251 9.184 5.447 5.145 90 90 90\nLATT 1\n"
    symmetry = "SYMM 0.5-X,-Y,0.5+Z\nSYMM -X,0.5+Y,0.5-Z\nSYMM 0.5+X,0.5-Y,-Z\n"
    rest = "SFAC TI O H\nUNIT 8 16 1\nFVAR 1.0 0.5\n" + "\n".join(atoms) + "\nHKLF 4\nEND\n"
    return [(head + symmetry + rest).encode()]


def studies() -> list[bytes]:
    """Shipped grids."""
    return [(HERE / "sweeps" / "shipped" / f"{name}.toml").read_bytes() for name in ("cell", "engines")]


def smvs() -> list[bytes]:
    made = []
    for protocol in ("precession", "continuous_rotation"):
        log = nominal(protocol=protocol)
        made.append(written(lambda path, log=log: write_smv(path, images()[0], log, 0), "a.img"))
    return made


def tiffs() -> list[bytes]:
    large = images()[0] * 1000
    return [written(lambda path, i=image: write_tiff(path, i), "a.tif") for image in (images()[0], large)]


def ptss() -> list[bytes]:
    names = ["tiff\\00001.tif", "tiff\\00002.tif"]
    return [
        pts_text(nominal(protocol=kind), names).encode() for kind in ("precession", "continuous_rotation")
    ]


def mrcs() -> list[bytes]:
    made = []
    for mode, dtype in ((1, "<i2"), (2, "<f4"), (6, ">u2")):
        order = dtype[0]
        head = np.zeros(256, f"{order}i4")
        head[:4] = 8, 6, 2, mode
        made.append(head.tobytes() + b"".join(image.astype(dtype).tobytes() for image in images()))
    return made


@cache
def ours() -> list[bytes]:
    return [
        written(lambda path: write_dataset(path.parent, nominal(), images()), "frames.h5"),
        written(
            lambda path: write_dataset(path.parent, nominal(1), images(1, dtype=np.float32)), "frames.h5"
        ),
    ]


@cache
def nxmx() -> list[bytes]:
    """Files of other programs: without our group, and with pixels stored in one piece."""

    def strip(path: Path) -> None:
        write_dataset(path.parent, nominal(), images())
        (path.parent / "frames.h5").rename(path)
        with h5py.File(path, "a") as file:
            del file["entry/nanoed"]

    def contiguous(path: Path) -> None:
        strip(path)
        with h5py.File(path, "a") as file:
            pixels = file["entry/data/data"][()]
            del file["entry/data/data"]
            file["entry/data/data_000001"] = pixels.astype(np.uint16)

    return [written(strip, "foreign.h5"), written(contiguous, "contiguous.h5")]


def tomls() -> list[bytes]:
    names = ("brookite-small", "ito-03", "brookite-ua")
    shipped = [(HERE / "cases" / f"{name}.toml").read_bytes() for name in names]
    return [*shipped, load_case("brookite-small").toml().encode()]


def truth() -> Truth:
    frames = pd.DataFrame({name: [0.0, 1.0] for name in FRAME_COLUMNS})
    reflections = pd.DataFrame({name: np.array([0, 1, 1], kind) for name, kind in REFLECTION_COLUMNS.items()})
    summary = {"ub_true": np.diag([0.1, 0.2, 0.3]).tolist(), "structure": "brookite", "elliptic": 0.01}
    return Truth(summary, frames, reflections)


@cache
def truths(name: str) -> list[bytes]:
    """The file `name` of a truth folder."""
    return [written(lambda path: write_truth(path.parent, truth()), name)]


def records() -> list[bytes]:
    """reduction.json, as far as another command reads it."""
    record = {"settings": {"laue": "mmm", "spacegroup": "P b c a"}, "statistics": {"cell": list(CELL)}}
    return [json.dumps(record).encode()]
