"""Comparison of a refined structure with a reference: the four measures of COMPSTRU, atom by atom.

The refined structure is first brought to the description (axes, origin, hand) most similar to the reference.
Distances are taken in the cell of the reference. Definitions: de la Flor et al., J. Appl. Cryst. 49 (2016)
653, as reproduced by that program's printed output.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nanoed.sim.physics.crystal import Crystal
from nanoed.sim.physics.errors import InputError
from nanoed.studies.matching import Match, Sites, Target, best_match
from nanoed.studies.normaliser import Group, mappings

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MatchLimits:
    """What counts as the same lattice and as the same site.

    max_strain : largest strain of one cell against the other (norm of the Lagrangian strain tensor).
    cell_tolerance : axes are exchanged only where the cell then fits within this of the best fit.
    mixed_site_A : atoms nearer than this share one site (Å).
    tie_A2 : a less simple mapping must be better by this mean square distance (Å^2).
    """

    max_strain: float = 0.3
    cell_tolerance: float = 0.03
    mixed_site_A: float = 0.01
    tie_A2: float = 1e-10


@dataclass(frozen=True, slots=True)
class Similarity:
    """COMPSTRU's measures: S (no unit), d_max and d_av in Å, Delta (no unit)."""

    degree_of_lattice_distortion: float
    d_max_A: float
    d_av_A: float
    delta: float


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A refined structure against its reference.

    atoms : one row per site of the reference: label, reference_label, element, multiplicity, distance_A and
    dx_A, dy_A, dz_A (refined - reference along a, b, c of the reference cell; Å).
    transform : (P (3, 3), p (3,)), the refined axes times P and the origin moved by p; x' = P^-1 (x - p).
    inverted : the refined structure has the other hand; distances are those of its inverted image.
    matched : the refined structure in the reference's description, rows in the order of the reference's.
    rows : (n,) row of the refined structure that stands on each row of the reference.
    rotations : (n, 3, 3) linear part of the whole coordinate change of each row, for covariances.
    """

    degree_of_lattice_distortion: float
    d_max_A: float
    d_av_A: float
    delta: float
    atoms: pd.DataFrame
    transform: tuple[Array, Array]
    inverted: bool
    matched: Crystal
    rows: NDArray[np.int64]
    rotations: Array

    def transformed_su(self, su_xyz: Array) -> Array:
        """Standard uncertainties (n, 3) of the refined coordinates, carried into the reference's description.

        Rows in the order of the reference; s'_i^2 = sum_j R_ij^2 s_j^2, correlations within a site neglected.
        """
        return np.sqrt(np.einsum("nij,nj->ni", self.rotations**2, np.asarray(su_xyz)[self.rows] ** 2))

    def to_dict(self) -> dict:
        """Plain numbers, strings and lists, for JSON."""
        return {
            "degree_of_lattice_distortion": self.degree_of_lattice_distortion,
            "d_max_A": self.d_max_A,
            "d_av_A": self.d_av_A,
            "delta": self.delta,
            "inverted": self.inverted,
            "transform": {"P": self.transform[0].tolist(), "p": self.transform[1].tolist()},
            "atoms": self.atoms.to_dict(orient="records"),
        }


def similarity(
    reference_cell: tuple[float, ...],
    matched_cell: tuple[float, ...],
    displacements: Array,
    multiplicity: Array,
) -> Similarity:
    """COMPSTRU's four measures of two structures in the same description.

    Cells in Å and degrees.  displacements : (n, 3) fractional.  multiplicity : (n,), m.
    With A the matrices of the cell edges: u_i = |A_ref dx_i|; d_max = max u; d_av = sum m u / sum m;
    S = sqrt(sum eta^2) / 3, eta the eigenvalues of (J^T J - 1) / 2, J = A_ref A^-1;
    Delta = (1 + sqrt(2) Delta_c) Delta_d - 1, with Delta_c = sum m |dx| / sum m and Delta_d the ratio (>= 1)
    of the two cells' (b/a)(c/a).
    """
    edges, matched_edges = _edges(reference_cell), _edges(matched_cell)
    jacobian = edges @ np.linalg.inv(matched_edges)
    eta = np.linalg.eigvalsh((jacobian.T @ jacobian - np.eye(3)) / 2)
    distance = np.linalg.norm(displacements @ edges.T, axis=1)
    coordinates = np.average(np.linalg.norm(displacements, axis=1), weights=multiplicity)
    shape = (reference_cell[1] * reference_cell[2] / reference_cell[0] ** 2) / (
        matched_cell[1] * matched_cell[2] / matched_cell[0] ** 2
    )
    return Similarity(
        degree_of_lattice_distortion=float(np.sqrt((eta**2).sum()) / 3),
        d_max_A=float(distance.max()),
        d_av_A=float(np.average(distance, weights=multiplicity)),
        delta=float((1 + np.sqrt(2) * coordinates) * max(shape, 1 / shape) - 1),
    )


def compare(
    refined: Crystal,
    reference: Crystal,
    *,
    allow_inversion: bool = True,
    limits: MatchLimits = MatchLimits(),
) -> Comparison:
    """Bring `refined` to the description most similar to `reference` and measure what remains.

    The smallest sum of m u^2 over all mappings of the refined space group onto the reference's and all
    pairings of sites of equal elements and multiplicity is taken. With `allow_inversion` false, a chiral
    structure of the other hand is measured as it is. Raises InputError where the structures have different
    numbers of sites or different compositions, or where no mapping of cell and space group exists.
    """
    sites, reference_sites = Sites.of(refined, limits.mixed_site_A), Sites.of(reference, limits.mixed_site_A)
    _require_same_content(refined, sites, reference, reference_sites)
    target = Target.of(reference, reference_sites)
    candidates = mappings(
        _metric(refined.cell),
        Group.of(refined.rotations, refined.translations),
        _metric(reference.cell),
        target.group,
        limits.cell_tolerance,
        limits.max_strain,
    )
    chiral = bool((np.linalg.det(target.group.rotations) > 0).all())
    if chiral and not allow_inversion:
        candidates = [m for m in candidates if not m.improper]
    if not candidates:
        raise InputError(
            "cell and space group cannot be brought onto those of the reference",
            field="structure",
            value=_description(refined),
            allowed=_description(reference),
        )
    match = best_match(candidates, sites, target, limits.tie_A2)
    if match is None:
        raise InputError(
            "no pairing of sites of equal element and multiplicity",
            field="sites",
            value=_content(sites),
            allowed=_content(reference_sites),
        )
    return _comparison(match, refined, sites, reference, target, inverted=chiral and match.mapping.improper)


def format_comparison(comparison: Comparison) -> str:
    """The four measures, the change of description and a line per site, as text."""
    lines = [
        f"degree of lattice distortion S   {comparison.degree_of_lattice_distortion:.4f}",
        f"largest distance d_max           {comparison.d_max_A:.4f} Å",
        f"average distance d_av            {comparison.d_av_A:.4f} Å",
        f"measure of similarity Delta      {comparison.delta:.4f}",
        f"change of axes and origin        {_transform_text(*comparison.transform)}",
    ]
    if comparison.inverted:
        lines.append("hand                             opposite: compared with the inverted structure")
    heads = ("u/Å", "dx/Å", "dy/Å", "dz/Å")
    lines += [
        "",
        f"{'site':<10} {'reference':<10} {'element':<8} {'m':>4}" + "".join(f" {h:>8}" for h in heads),
    ]
    for row in comparison.atoms.itertuples():
        name = f"{row.label:<10} {row.reference_label:<10} {row.element:<8} {row.multiplicity:>4d}"
        lines.append(f"{name} {row.distance_A:>8.4f} {row.dx_A:>8.4f} {row.dy_A:>8.4f} {row.dz_A:>8.4f}")
    return "\n".join(lines)


def _transform_text(p_matrix: Array, origin: Array) -> str:
    """(P, p) in the manner of International Tables, for example "a,-c,b; 0 0.25 0"."""
    axes = []
    for column in p_matrix.T:
        signs = ["-" if value < 0 else "+" for value in column]
        terms = [sign + axis for sign, axis, value in zip(signs, "abc", column, strict=True) if value]
        axes.append("".join(terms).removeprefix("+"))
    return f"{','.join(axes)}; " + " ".join(f"{value:.4f}".rstrip("0").rstrip(".") for value in origin)


def _edges(cell: tuple[float, ...]) -> Array:
    """Columns: the cell edges (Å) in a Cartesian frame with a along x and b in the x-y plane."""
    return np.array(gemmi.UnitCell(*cell).orth.mat.tolist())


def _metric(cell: tuple[float, ...]) -> Array:
    edges = _edges(cell)
    return edges.T @ edges


def _description(crystal: Crystal) -> str:
    return f"{crystal.spacegroup}, " + " ".join(f"{value:.6g}" for value in crystal.cell)


def _content(sites: Sites) -> str:
    counts = Counter((key, int(m)) for key, m in zip(sites.keys, sites.multiplicity, strict=True))
    return ", ".join(f"{n} x {key}({m})" for (key, m), n in sorted(counts.items()))


def _require_same_content(refined: Crystal, sites: Sites, reference: Crystal, other: Sites) -> None:
    if len(sites.rows) != len(other.rows):
        raise InputError(
            f"{refined.name} and {reference.name} have different numbers of sites",
            field="sites",
            value=f"{len(sites.rows)} ({_content(sites)})",
            allowed=f"{len(other.rows)} ({_content(other)})",
        )
    if sorted(sites.keys) != sorted(other.keys):
        raise InputError(
            f"{refined.name} and {reference.name} have different compositions",
            field="elements",
            value=_content(sites),
            allowed=_content(other),
        )


def _comparison(
    match: Match, refined: Crystal, sites: Sites, reference: Crystal, target: Target, *, inverted: bool
) -> Comparison:
    rows = np.empty(len(reference.labels), dtype=np.int64)
    site_of = np.empty(len(reference.labels), dtype=np.int64)
    for j, i in enumerate(match.pairing):
        rows[list(target.sites.rows[j])] = sites.rows[i]
        site_of[list(target.sites.rows[j])] = j
    rotations = (target.group.rotations[match.operation] @ match.mapping.linear)[site_of].astype(float)
    p_matrix = np.rint(np.linalg.inv(match.mapping.linear))
    xyz = (target.sites.xyz + match.delta)[site_of]
    matched = _matched_crystal(refined, reference.spacegroup, rows, xyz, rotations, p_matrix)
    measures = similarity(reference.cell, matched.cell, match.delta, target.sites.multiplicity)
    origin = -p_matrix @ match.shift
    return Comparison(
        degree_of_lattice_distortion=measures.degree_of_lattice_distortion,
        d_max_A=measures.d_max_A,
        d_av_A=measures.d_av_A,
        delta=measures.delta,
        atoms=_atoms(match, refined, sites, reference, target),
        transform=(p_matrix, origin - np.floor(origin + 1e-9)),
        inverted=inverted,
        matched=matched,
        rows=rows,
        rotations=rotations,
    )


def _atoms(match: Match, refined: Crystal, sites: Sites, reference: Crystal, target: Target) -> pd.DataFrame:
    along = match.delta * np.asarray(reference.cell[:3])
    return pd.DataFrame(
        {
            "label": ["/".join(refined.labels[k] for k in sites.rows[i]) for i in match.pairing],
            "reference_label": ["/".join(reference.labels[k] for k in site) for site in target.sites.rows],
            "element": list(target.sites.keys),
            "multiplicity": target.sites.multiplicity.astype(int),
            "distance_A": np.linalg.norm(match.delta @ target.edges.T, axis=1),
            "dx_A": along[:, 0],
            "dy_A": along[:, 1],
            "dz_A": along[:, 2],
        }
    )


def _matched_crystal(
    refined: Crystal,
    spacegroup: str,
    rows: NDArray[np.int64],
    xyz: Array,
    rotations: Array,
    p_matrix: Array,
) -> Crystal:
    """The refined structure with the axes, origin, symmetry and order of rows of the reference."""
    metric = _metric(refined.cell)
    new_metric = p_matrix.T @ metric @ p_matrix
    return Crystal(
        name=refined.name,
        cell=_cell_of(new_metric),
        spacegroup=spacegroup,
        labels=tuple(refined.labels[i] for i in rows),
        elements=tuple(refined.elements[i] for i in rows),
        xyz=xyz,
        occupancy=np.asarray(refined.occupancy)[rows],
        u_iso=np.asarray(refined.u_iso)[rows],
        u_ij=turned_u(np.asarray(refined.u_ij)[rows], rotations, metric, new_metric),
    )


def _cell_of(metric: Array) -> tuple[float, float, float, float, float, float]:
    a, b, c = np.sqrt(np.diag(metric))
    cosines = np.array([metric[1, 2] / (b * c), metric[0, 2] / (a * c), metric[0, 1] / (a * b)])
    alpha, beta, gamma = np.degrees(np.arccos(cosines))
    return float(a), float(b), float(c), float(alpha), float(beta), float(gamma)


def turned_u(u_ij: Array, rotations: Array, metric: Array, new_metric: Array) -> Array:
    """Displacement tensors (n, 6), CIF order and convention, under x' = R x + t; NaN rows stay NaN.

    rotations : (n, 3, 3).  metric, new_metric : (3, 3) Å^2 of the cell before and after. The components
    U*_ij = a*_i a*_j U_ij change like products of coordinates.
    """
    i, j = np.array([0, 1, 2, 0, 0, 1]), np.array([0, 1, 2, 1, 2, 2])
    lengths = np.sqrt(np.diag(np.linalg.inv(metric)))
    new_lengths = np.sqrt(np.diag(np.linalg.inv(new_metric)))
    tensor = np.empty((len(u_ij), 3, 3))
    tensor[:, i, j] = tensor[:, j, i] = u_ij * lengths[i] * lengths[j]
    turned = rotations @ tensor @ np.swapaxes(rotations, 1, 2)
    return turned[:, i, j] / (new_lengths[i] * new_lengths[j])
