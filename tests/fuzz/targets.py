"""Every reader with its law: a file is refused in one line, or what was read survives writing and reading again."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pandas as pd
from fuzz import seeds

from nanoed.pipeline.io.cif_pets import read_cif_pets, write_cif_pets
from nanoed.pipeline.io.foreign import ImportSpec, find_frames, import_frames
from nanoed.pipeline.io.hkl import read_hkl, write_hkl
from nanoed.pipeline.io.ins import read_ins
from nanoed.pipeline.io.shelx_model import read_shelx_model
from nanoed.pipeline.io.tiff_pets import pts_text, read_pts, read_tiff
from nanoed.pipeline.solve.data import _laue_of_reduction
from nanoed.sim.dataset import open_dataset
from nanoed.sim.physics.crystal import Crystal, read_cif, write_cif
from nanoed.sim.physics.errors import InputError
from nanoed.sim.truth import read_truth, write_truth
from nanoed.studies.analysis import _cell_beside
from nanoed.studies.case import load_case
from nanoed.studies.sweeps.grid import load_study

EVERYTHING = ImportSpec(
    voltage_kv=200.0,
    a_per_px=0.01,
    pixel_size_um=55.0,
    centre_px=(3.0, 3.0),
    exposure_s=0.5,
    tilt_min_deg=-1.0,
    tilt_step_deg=1.0,
    axis_azimuth_deg=38.0,
    protocol="continuous_rotation",
    rotation_deg=1.0,
)


@dataclass(frozen=True, slots=True)
class Target:
    """name of the file in its folder; seeds: valid files; survives: raises AssertionError where the law is broken."""

    file: str
    seeds: Callable[[], list[bytes]]
    survives: Callable[[Path], None]
    words: tuple[str, ...] = ()


def check(target: Target, raw: bytes, folder: Path) -> bool:
    """Whether the file was accepted. Raises AssertionError, or what the reader let escape, where the law is broken."""
    path = folder / target.file
    path.write_bytes(raw)
    try:
        target.survives(path)
    except InputError as error:
        message = str(error)
        assert "\n" not in message, message
        assert str(folder) in message or "field" in message, message
        return False
    return True


def again(read: Callable[[Path], Any], path: Path) -> Any:
    """What our own writer wrote must be read: a refusal breaks the law."""
    try:
        return read(path)
    except InputError as error:
        raise AssertionError(f"what was written is refused: {error}") from error


def finite(*arrays: Any) -> None:
    for array in arrays:
        assert np.isfinite(np.asarray(array, float)).all(), "a number that is not finite was read"


def _cif(path: Path) -> None:
    _as_cif(read_cif(path), path)


def _as_cif(first: Crystal, path: Path) -> None:
    """A crystal survives as CIF, whatever it was read from."""
    copy = path.with_name("again.cif")
    write_cif(first, copy)
    second = again(read_cif, copy)
    finite(first.cell, first.xyz, first.occupancy, first.u_iso)
    for name in Crystal.__slots__:
        one, two = getattr(first, name), getattr(second, name)
        same = np.array_equal(one, two, equal_nan=True) if isinstance(one, np.ndarray) else one == two
        assert same or name == "name", f"{name}: {one} {two}"


def _cif_pets(path: Path) -> None:
    first = read_cif_pets(path)
    copy = path.with_name("again.cif_pets")
    write_cif_pets(copy, first)
    second = again(read_cif_pets, copy)
    close(first.cell, second.cell, 1e-5)
    close(first.wavelength, second.wavelength, 1e-7)
    close(first.ub, second.ub, 1e-8)
    assert first.extra == second.extra, f"{first.extra} {second.extra}"
    for name in ("semi_angle", "alpha", "beta", "omega", "scale"):
        close(first.zones[name], second.zones[name], 1e-5)
    for name in ("h", "k", "l", "zone"):
        assert (first.reflections[name].to_numpy() == second.reflections[name].to_numpy()).all(), name
    close(first.reflections[["I", "sigma"]], second.reflections[["I", "sigma"]], 1e-4)


def close(one: Any, two: Any, step: float) -> None:
    """Equal to within the last digit written, `step`."""
    one, two = np.asarray(one, float), np.asarray(two, float)
    finite(one)
    assert one.shape == two.shape
    assert (np.abs(one - two) <= 0.51 * step + 1e-12 * np.abs(one)).all(), f"{one} {two}"


def _hkl(path: Path) -> None:
    first = read_hkl(path)
    copy = path.with_name("again.hkl")
    scale = write_hkl(copy, first)
    finite(first[["I", "sigma"]], scale)
    second = again(read_hkl, copy)
    assert (first[["h", "k", "l"]].to_numpy() == second[["h", "k", "l"]].to_numpy()).all()
    expected = np.clip(first["I"] * scale, -999.99, None)
    close(expected, second["I"], 0.01)


def _ins(path: Path) -> None:
    first = read_ins(path)
    finite(first.cell, first.wavelength)
    cell = " ".join(repr(x) for x in (first.wavelength, *first.cell))
    lines = [f"CELL {cell}"]
    for matrix in first.rotations:
        op = gemmi.Op()
        op.rot = (gemmi.Op.DEN * matrix).tolist()
        lines.append(f"SYMM {op.triplet()}")
    copy = path.with_name("again.ins")
    copy.write_text("\n".join(lines) + "\n")
    second = again(read_ins, copy)
    assert (first.cell, first.wavelength) == (second.cell, second.wavelength)
    assert np.array_equal(first.rotations, second.rotations)


def _model(path: Path) -> None:
    _as_cif(read_shelx_model(path), path)


def _record(path: Path) -> None:
    """The parts of reduction.json that other commands read."""
    cell = _cell_beside(path.with_name("merged.hkl"))
    rotations = _laue_of_reduction(path)
    finite(cell)
    assert rotations is not None
    settings = json.loads(path.read_text("utf-8"))["settings"]
    document = {"settings": settings, "statistics": {"cell": cell}}
    path.write_text(json.dumps(document), encoding="utf-8")
    assert again(_cell_beside, path.with_name("merged.hkl")) == cell
    assert np.array_equal(again(_laue_of_reduction, path), rotations)


def _study(path: Path) -> None:
    study = load_study(str(path))
    copy = path.with_name("again.toml")
    copy.write_text(study.toml(), encoding="utf-8")
    assert again(lambda path: load_study(str(path)), copy).toml() == study.toml()


def _frames(path: Path, spec: ImportSpec = EVERYTHING) -> None:
    """Foreign frames become a data set of ours with the same counts."""
    found = find_frames(path)
    if "tilt_min_deg" not in spec.model_fields_set and "alpha_deg" not in found.metadata:
        spec = EVERYTHING
    out = import_frames(path, path.with_name("imported"), spec)
    with again(open_dataset, out) as data:
        finite(data.nominal.alpha_deg, data.nominal.centre_px, data.nominal.rotation_deg)
        counted = 0
        for one, two in zip(found.images(), data, strict=True):
            finite(one)
            limit = np.iinfo(np.int32).max if one.dtype.kind in "iu" else np.inf
            assert np.array_equal(
                np.minimum(one.astype(two.dtype if limit is np.inf else np.int64), limit), two
            )
            counted += 1
        assert counted == found.n_frames == len(data)


def _smv(path: Path) -> None:
    _frames(path, ImportSpec(tilt_min_deg=0.0))
    _frames(path)


def _tiff(path: Path) -> None:
    image = read_tiff(path)
    finite(image)
    (path.parent / "one.pts").write_text(f"imagelist\n{path.name} 0.0\nendimagelist\n")
    _frames(path.parent / "one.pts")


def _pts(path: Path) -> None:
    said, names = read_pts(path)
    finite(said["alpha_deg"], *(v for v in said.values() if isinstance(v, (float, int))))
    base = seeds.nominal(len(names))
    fields = {name: said.get(name, getattr(base, name)) for name in base.__slots__}
    fields["alpha_deg"] = np.array(said["alpha_deg"])
    text = pts_text(type(base)(**fields), (str(n.relative_to(path.parent)) for n in names))
    copy = path.with_name("again.pts")
    copy.write_text(text, encoding="utf-8")
    second, listed = again(read_pts, copy)
    assert [n.name for n in names] == [n.name for n in listed]
    steps = {"voltage_kv": 0.01, "a_per_px": 1e-8, "axis_azimuth_deg": 1e-4, "gain": 1e-4, "alpha_deg": 1e-4}
    for name, step in (steps | {"saturation": 0, "rotation_deg": 2e-5, "semi_angle_deg": 1e-5}).items():
        if name in said:
            close(said[name], second[name], step + 1e-6 * abs(np.max(said[name])))


def _dataset(path: Path) -> None:
    with open_dataset(path) as data:
        finite(data.nominal.alpha_deg, data.nominal.centre_px)
    _frames(path, ImportSpec())


def _toml(path: Path) -> None:
    case = load_case(str(path))
    copy = path.with_name("again.toml")
    copy.write_text(case.toml(), encoding="utf-8")
    assert again(lambda path: load_case(str(path)), copy).document == case.document


def _truth(path: Path) -> None:
    """The other file of the folder is sound."""
    other = next(name for name in ("truth.json", "truth.h5") if name != path.name)
    if not (path.parent / other).exists():
        (path.parent / other).write_bytes(seeds.truths(other)[0])
    first = read_truth(path.parent)
    write_truth(path.parent / "again", first)
    second = again(read_truth, path.parent / "again")
    assert first.summary == second.summary
    pd.testing.assert_frame_equal(first.frames, second.frames)
    pd.testing.assert_frame_equal(first.reflections, second.reflections)


TARGETS: dict[str, Target] = {
    "cif": Target(
        "a.cif", seeds.cifs, _cif, ("loop_", "data_", "_atom_site_label", "nan", "1e999", ".", "?", "(5)")
    ),
    "cif_pets": Target(
        "a.cif_pets", seeds.cif_pets, _cif_pets, ("loop_", "nan", "inf", "1e300", "?", "dstarmax:")
    ),
    "hkl": Target("a.hkl", seeds.hkls, _hkl, ("   0   0   0", " nan", " inf", "9999.99", "-999.99", "1e99")),
    "ins": Target(
        "a.ins", seeds.inss, _ins, ("CELL ", "SYMM ", "nan", "inf", "-x,y,z", "1/2+x", "1e300", "LATT")
    ),
    "smv": Target(
        "a.img", seeds.smvs, _smv, ("SIZE1=", "SIZE2=", "HEADER_BYTES=", "big_endian", "nan", "-1", "9" * 9)
    ),
    "tiff": Target("a.tif", seeds.tiffs, _tiff, ("II*\0", "MM\0*", "\x7f\xff")),
    "pts": Target(
        "a.pts", seeds.ptss, _pts, ("imagelist", "lambda ", "center ", "nan", "inf", "1e300", "#", "..\\")
    ),
    "mrc": Target("a.mrc", seeds.mrcs, _frames, ("MAP ", "\x7f\xff\xff\xff", "\xff\xff\xff\xff")),
    "dataset": Target("frames.h5", seeds.ours, _dataset, ("TREE", "SNOD", "HEAP", "OHDR", "\xff" * 8)),
    "nxmx": Target("foreign.h5", seeds.nxmx, _frames, ("TREE", "SNOD", "HEAP", "OHDR", "\xff" * 8)),
    "toml": Target(
        "a.toml", seeds.tomls, _toml, ("[experiment]", "nan", "inf", "1e999", "extends = ", "kind", '"off"')
    ),
    "model": Target(
        "a.res", seeds.models, _model, ("SFAC ", "FVAR ", "SYMM ", "LATT 7", "nan", "31.0", "-11.0", "=")
    ),
    "record": Target(
        "reduction.json", seeds.records, _record, ("NaN", "Infinity", "1e999", "null", "-3m", "[" * 99)
    ),
    "study": Target(
        "a.toml", seeds.studies, _study, ("[[block]]", "[block.axes.x]", "seeds = ", "skip", "nan", '"off"')
    ),
    "truth-json": Target(
        "truth.json", lambda: seeds.truths("truth.json"), _truth, ("NaN", "Infinity", "1e999", "[")
    ),
    "truth-h5": Target(
        "truth.h5", lambda: seeds.truths("truth.h5"), _truth, ("TREE", "SNOD", "OHDR", "\xff" * 8)
    ),
}
