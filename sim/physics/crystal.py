"""A crystal: cell, space group and sites, from a CIF and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from numpy.typing import NDArray

from nanoed.sim.physics.errors import InputError
from nanoed.sim.physics.files import write_whole

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
SAME_SITE_A = 0.02
"""Two images of a site closer than this (Å) are one atom."""
PAIRS = ("11", "22", "33", "12", "13", "23")
"""Of the indices of U_ij, in the order in which tensors are kept."""
EIGHT_PI2 = 8 * math.pi**2
"""B over U."""
SOUND_CELL = "lengths to 10⁴ Å but not a = 1, angles from 1 to below 180° that close a cell"


@dataclass(frozen=True, slots=True, eq=False)
class Crystal:
    """A periodic structure by its asymmetric unit of n sites.

    cell : a, b, c (Å), alpha, beta, gamma (degrees).  spacegroup : Hermann-Mauguin symbol, any setting.
    xyz : (n, 3) fractional.  occupancy : (n,).  u_iso : (n,) Å², U_eq of anisotropic sites.
    u_ij : (n, 6) Å², U11 U22 U33 U12 U13 U23 as in a CIF; NaN rows mark isotropic sites.
    Sites of mixed occupation are listed once per element. Raises InputError.
    """

    name: str
    cell: tuple[float, float, float, float, float, float]
    spacegroup: str
    labels: tuple[str, ...]
    elements: tuple[str, ...]
    xyz: Array
    occupancy: Array
    u_iso: Array
    u_ij: Array

    def __post_init__(self) -> None:
        n = len(self.labels)
        shapes = {"xyz": (n, 3), "occupancy": (n,), "u_iso": (n,), "u_ij": (n, 6)}
        for field, shape in shapes.items():
            if np.shape(getattr(self, field)) != shape:
                raise InputError(
                    "wrong shape", field=field, value=np.shape(getattr(self, field)), allowed=str(shape)
                )
        if not (
            np.isfinite(self.xyz).all()
            and np.isfinite(self.occupancy).all()
            and np.isfinite(self.u_iso).all()
        ):
            raise InputError("coordinates, occupancies and U must be finite", field="xyz, occupancy, u_iso")
        if not sound_cell(self.cell):
            raise InputError("not a cell", field="cell", value=self.cell, allowed=SOUND_CELL)
        _operations(self.spacegroup)

    @property
    def volume(self) -> float:
        """Volume of the cell, Å³."""
        return float(_unit_cell(self.cell).volume)

    @property
    def frac_to_cart(self) -> Array:
        """(3, 3) with columns a, b, c in the Cartesian crystal frame, Å: a along x, b in the x-y plane."""
        return np.array(_unit_cell(self.cell).orth.mat.tolist())

    @property
    def reciprocal_basis(self) -> Array:
        """(3, 3) with columns a*, b*, c* in the Cartesian crystal frame, 1/Å: g = B h."""
        return np.asarray(np.linalg.inv(self.frac_to_cart).T, np.float64)

    @property
    def rotations(self) -> IntArray:
        """(m, 3, 3) matrices of the space group's operations on fractional coordinates, centring included."""
        return _operations(self.spacegroup)[0]

    @property
    def translations(self) -> Array:
        """(m, 3) translations that go with `rotations`."""
        return _operations(self.spacegroup)[1]

    @property
    def laue_rotations(self) -> IntArray:
        """(k, 3, 3) distinct matrices of the Laue group; equivalents of h are h @ R."""
        both = np.concatenate([self.rotations, -self.rotations])
        return np.unique(both.reshape(-1, 9), axis=0).reshape(-1, 3, 3)

    @property
    def inversion_centre(self) -> Array | None:
        """A centre of inversion, fractional; the origin where it is one, None without any."""
        centres = [
            np.array(op.tran, float) / gemmi.Op.DEN / 2
            for op in gemmi.find_spacegroup_by_name(self.spacegroup).operations()
            if op.rot == gemmi.Op("-x,-y,-z").rot
        ]
        return min(centres, key=lambda c: float(c @ c), default=None)

    @property
    def multiplicities(self) -> IntArray:
        """(n,) atoms of each site in the cell."""
        return np.array([self.multiplicity(i) for i in range(len(self.xyz))])

    def unit_cell_atoms(self) -> tuple[IntArray, Array]:
        """Site index (N,) and fractional coordinates in [0, 1) (N, 3) of all atoms in the cell."""
        index, _, xyz = self.unit_cell_images()
        return index, xyz

    def unit_cell_images(self) -> tuple[IntArray, IntArray, Array]:
        """As `unit_cell_atoms`, with the operation (N,) that carries the site to the atom in between."""
        orbits = [self._orbit(x) for x in self.xyz]
        index = np.repeat(np.arange(len(orbits)), [len(o) for o, _ in orbits])
        return index, np.concatenate([o for o, _ in orbits]), np.concatenate([x for _, x in orbits])

    def multiplicity(self, site: int) -> int:
        """Atoms of one site in the cell."""
        return len(self._orbit(self.xyz[site])[0])

    def _orbit(self, x: Array) -> tuple[IntArray, Array]:
        """Operations (N,) that carry x to different places, and these: images on an earlier one are left out."""
        images = self.rotations @ x + self.translations
        images -= np.floor(images)
        d = images[:, None] - images
        square = np.square((d - np.rint(d)) @ self.frac_to_cart.T).sum(axis=2)
        by = np.flatnonzero((square < SAME_SITE_A**2).argmax(axis=1) == np.arange(len(images)))
        return by, images[by]


def sound_cell(cell: Sequence[float]) -> bool:
    """Whether a, b, c (Å) and alpha, beta, gamma (degrees) are those of a cell: SOUND_CELL (a = 1 is none in CIF)."""
    lengths, angles = cell[:3], cell[3:]
    inside = 0 < min(lengths) <= max(lengths) <= 1e4 and 1 <= min(angles) <= max(angles) < 180
    if not (inside and np.isfinite(cell).all()):
        return False
    found = gemmi.UnitCell(*cell)
    return bool(found.is_crystal() and found.volume > 1e-3 * math.prod(lengths))


@lru_cache(maxsize=64)
def _unit_cell(cell: tuple[float, ...]) -> gemmi.UnitCell:
    return gemmi.UnitCell(*cell)


@lru_cache(maxsize=64)
def _operations(spacegroup: str) -> tuple[IntArray, Array]:
    group = gemmi.find_spacegroup_by_name(spacegroup)
    if group is None:
        raise InputError(
            "unknown space group", field="spacegroup", value=spacegroup, allowed="Hermann-Mauguin symbols"
        )
    ops = list(group.operations())
    rotations = np.array([op.rot for op in ops], dtype=np.int64) // gemmi.Op.DEN
    return rotations, np.array([op.tran for op in ops], dtype=np.float64) / gemmi.Op.DEN


def read_cif(path: str | Path) -> Crystal:
    """The first block with atom sites of a core CIF. Raises InputError, naming what is missing."""
    try:
        document = read_document(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", file=path) from None
    except (ValueError, RuntimeError) as error:
        raise InputError(f"not a readable CIF: {error}", file=path) from None
    for block in document:
        if block.find_loop("_atom_site_label"):
            return from_block(block, path)
    raise InputError("no atom sites", file=path, field="_atom_site_label")


def read_document(path: str | Path) -> gemmi.cif.Document:
    """A CIF, bytes that are not UTF-8 replaced. Raises OSError, and what gemmi raises for text that is no CIF."""
    return gemmi.cif.read_string(Path(path).read_bytes().decode("utf-8", errors="replace"))


def from_block(block: gemmi.cif.Block, path: str | Path) -> Crystal:
    """The crystal of one CIF block, B as U = B / 8π²; `path` is for messages. Raises InputError, also for beta_ij."""
    try:
        small = gemmi.make_small_structure_from_block(block)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"not a readable structure: {error}", file=path) from None
    if not small.cell.is_crystal():
        raise InputError("no unit cell", file=path, field="_cell_length_a")
    spacegroup = _spacegroup(block, small, path)
    sites = small.sites
    unknown = [s.label for s in sites if s.element.atomic_number == 0]
    if unknown:
        raise InputError("unknown element", file=path, field="_atom_site_type_symbol", value=unknown[0])
    tensors = _tensors_of_b(block, path)
    u_ij = np.array([u if any(u := _aniso(s)) else tensors.get(s.label, [np.nan] * 6) for s in sites])
    try:
        crystal = Crystal(
            name=block.name or Path(path).stem,
            cell=tuple(small.cell.parameters),
            spacegroup=spacegroup,
            labels=tuple(s.label for s in sites),
            elements=tuple(s.element.name for s in sites),
            xyz=np.array([s.fract.tolist() for s in sites]),
            occupancy=np.array([s.occ for s in sites]),
            u_iso=np.array([s.u_iso for s in sites]),
            u_ij=u_ij,
        )
    except InputError as error:
        raise InputError(str(error), file=path) from None
    return _with_equivalent_u(crystal)


def _spacegroup(block: gemmi.cif.Block, small: gemmi.SmallStructure, path: str | Path) -> str:
    """Symbol of the space group that the CIF's operations, or failing them its symbol or number, define."""
    small.determine_and_set_spacegroup("s.h2n")
    group = small.spacegroup
    if group is None:
        raise InputError(
            "no symmetry, or one that is not a space group",
            file=path,
            field="_space_group_symop_operation_xyz",
            allowed="operations or a Hermann-Mauguin symbol",
        )
    return str(group.xhm())


def _aniso(site: gemmi.SmallStructure.Site) -> list[float]:
    return [site.aniso.u11, site.aniso.u22, site.aniso.u33, site.aniso.u12, site.aniso.u13, site.aniso.u23]


def _tensors_of_b(block: gemmi.cif.Block, path: str | Path) -> dict[str, list[float]]:
    """U_ij (6), Å², by label of the sites whose B_ij a block lists. Raises InputError where it lists beta_ij."""
    tags = [tag for item in block if item.loop is not None for tag in item.loop.tags]
    pairs: list[Any] = [item.pair for item in block if item.pair is not None]
    tags += [name for name, _ in pairs]
    beta = next((tag for tag in tags if tag.lower().startswith("_atom_site_aniso_beta")), None)
    if beta is not None:
        raise InputError("beta_ij are not read", file=path, field=beta, allowed="U_ij or B_ij")
    rows = block.find("_atom_site_aniso_", ["label", *(f"B_{ij}" for ij in PAIRS)])
    return {row.str(0): [gemmi.cif.as_number(row[k], 0.0) / EIGHT_PI2 for k in range(1, 7)] for row in rows}


def _with_equivalent_u(crystal: Crystal) -> Crystal:
    """Fill in a missing U_iso of anisotropic sites: U_eq = trace / 3 of the Cartesian tensor."""
    u_iso = crystal.u_iso.copy()
    lengths = np.linalg.norm(crystal.reciprocal_basis, axis=0)
    for i in np.flatnonzero(~np.isnan(crystal.u_ij).any(1) & (crystal.u_iso == 0)):
        star = u_matrix(crystal.u_ij[i]) * np.outer(lengths, lengths)
        u_iso[i] = np.trace(crystal.frac_to_cart @ star @ crystal.frac_to_cart.T) / 3
    return Crystal(
        crystal.name,
        crystal.cell,
        crystal.spacegroup,
        crystal.labels,
        crystal.elements,
        crystal.xyz,
        crystal.occupancy,
        u_iso,
        crystal.u_ij,
    )


def u_matrix(u6: Array) -> Array:
    """(3, 3) symmetric matrix of U11 U22 U33 U12 U13 U23."""
    return np.array([[u6[0], u6[3], u6[4]], [u6[3], u6[1], u6[5]], [u6[4], u6[5], u6[2]]])


def write_cif(crystal: Crystal, path: str | Path) -> None:
    """Write a core CIF that `read_cif` reads back to the last digit."""
    write_whole(path, structure_block(crystal).as_string())


def structure_block(crystal: Crystal) -> gemmi.cif.Document:
    """The crystal as a CIF document of one block."""
    document = gemmi.cif.Document()
    block = document.add_new_block(crystal.name.replace(" ", "_"))
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    for name, value in zip(names, crystal.cell, strict=True):
        block.set_pair(f"_cell_{name}", repr(float(value)))
    group = gemmi.find_spacegroup_by_name(crystal.spacegroup)
    block.set_pair("_space_group_name_H-M_alt", gemmi.cif.quote(group.xhm()))
    block.set_pair("_space_group_IT_number", str(group.number))
    ops = block.init_loop("_space_group_symop_", ["operation_xyz"])
    for op in group.operations():
        ops.add_row([gemmi.cif.quote(op.triplet())])
    aniso = [bool(np.isfinite(row).all()) for row in crystal.u_ij]
    tags = [
        "label",
        "type_symbol",
        "fract_x",
        "fract_y",
        "fract_z",
        "occupancy",
        "adp_type",
        "U_iso_or_equiv",
    ]
    loop = block.init_loop("_atom_site_", tags)
    for i, label in enumerate(crystal.labels):
        numbers = [repr(float(v)) for v in (*crystal.xyz[i], crystal.occupancy[i])]
        kind = "Uani" if aniso[i] else "Uiso"
        loop.add_row(
            [gemmi.cif.quote(label), crystal.elements[i], *numbers, kind, repr(float(crystal.u_iso[i]))]
        )
    if any(aniso):
        tags = ["label", *(f"U_{ij}" for ij in PAIRS)]
        loop = block.init_loop("_atom_site_aniso_", tags)
        for j in (i for i, found in enumerate(aniso) if found):
            loop.add_row([gemmi.cif.quote(crystal.labels[j]), *(repr(float(v)) for v in crystal.u_ij[j])])
    return document
