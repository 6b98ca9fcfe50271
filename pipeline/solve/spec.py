"""Choices of the structure solution. Tags of the sources: B and E1-E3 are sections of the physics notes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from nanoed.pipeline.part import Laue, Part


class FlippingSpec(Part):
    """Charge flipping (E1)."""

    cycles: PositiveInt = 300
    """Cycles of one start (E2: 300)."""
    polish_cycles: PositiveInt = 8
    """Last cycles, in which weak density is removed instead of flipped (E1: 5-10)."""
    thresholds: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.1, 0.8, 1.0, 0.7)
    """delta in standard deviations of the density; successive starts on |F| take one after the other. Heavy atoms
    want 1.0-1.3 (E1); pairs of equal atoms, false and stable, are seldom reached from below 1."""
    normalised_thresholds: tuple[PositiveFloat, ...] = (1.2, 1.1)
    """The same for starts on |F| over its mean of the resolution, every second start; none: all are on |F|. Light
    atoms want normalised amplitudes and 1.1-1.2 (Oszlanyi & Suto 2008, Acta Cryst. A64, 123)."""
    shell_reflections: PositiveInt = 200
    """Reflections of a shell in which the mean of |F|² is taken, at least; Friedel mates and equivalents count."""
    weak_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Part of the reflections treated as weak: modulus kept, phase turned by a quarter (E1: 0.2)."""
    missing_bound: NonNegativeFloat = 1.0
    """Largest |F| of a reflection that was not measured, in means of the measured ones; 0 leaves them out."""
    oversampling: Annotated[float, Field(ge=1)] = 1.0
    """Voxels along an axis over the fewest that hold all reflections (E1: 1)."""


class SymmetrySpec(Part):
    """Symmetry of the density (E1)."""

    centring_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """A lattice is centred where the mean of the intensities that this extinguishes is below this part of the
    others'."""
    min_agreement: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Smallest agreement of an operation of the group (E1: 0.87-0.98 in correct solutions)."""
    tried_groups: PositiveInt = 6
    """Groups whose origin is refined before none is said to agree."""
    grid_loss: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Part of an operation's agreement that is left at the nearest voxel of its map."""
    r_tolerance: Annotated[float, Field(ge=1)] = 1.25
    """The structure of highest symmetry among those with R(all) within this of the lowest is the solution."""


class AtomSpec(Part):
    """From density to atoms (E1)."""

    spacing_A: PositiveFloat = 0.15
    """Largest voxel of the map that is searched for peaks."""
    min_distance_A: PositiveFloat = 1.1
    """Peaks nearer to a higher one are not atoms (E1: 0.9-1.0; bonds of oxides are longer)."""
    special_A: PositiveFloat = 0.8
    """A peak this near to its own image stands on the symmetry element."""
    volume_per_atom_A3: PositiveFloat = 13.0
    """Volume of an atom other than hydrogen, from which the formula units per cell are guessed."""
    volume_ratio: Annotated[float, Field(gt=1)] = 1.7
    """Numbers of formula units are tried within this ratio of that guess."""
    formula_units: PositiveInt | None = None
    """Formula units per cell; None: from the volume and the peaks."""
    u_iso_A2: PositiveFloat = 0.008
    """Displacement parameter of all atoms before refinement."""
    rounds: PositiveInt = 3
    """Most rounds of atoms, refinement and a map with the refined phases."""
    gain_pct: NonNegativeFloat = 0.05
    """A further round must lower R(all) by this."""


class DirectSpec(Part):
    """Arrangements of the composition on the sites of a group, where these are few."""

    max_placements: NonNegativeInt = 20_000
    """Groups in which one kind of atoms has more placements than this are left to charge flipping; 0: all."""
    max_trials: PositiveInt = 500_000
    """Most arrangements of one group and number of formula units."""
    kept: PositiveInt = 1000
    """Best partial arrangements to which the next kind of atoms is added."""
    per_wyckoff: PositiveInt = 2
    """Arrangements kept of every choice of special positions."""
    refined: PositiveInt = 16
    """Best arrangements of all groups that are refined."""
    d_star_max: PositiveFloat = 1.0
    """Resolution of the trials, 1/Å: atoms of a grid of a 24th of an axis are up to 0.2 Å off."""


class SolveSpec(Part):
    """From merged intensities to a structure.

    composition : formula such as "TiO2"; hydrogen is not looked for.
    shared : elements that share sites in the ratio of the composition, for instance [["Mg", "Ti"]].
    laue : Laue class of the data; None: that in which they were merged.
    d_star_max : resolution limit, 1/Å.
    seed : random phases follow from it.  starts : most random starts.  solutions : starts that give the same structure,
        after which no more are made; they come in batches of twice as many, the most symmetric densities first.
    max_r_pct : R(all) of the kinematical refinement above which a structure is no solution; dynamical effects
        leave 10-30 (B), a wrong structure 45 and more.
    factors : table of scattering factors of the kinematical refinement.
    """

    composition: str = ""
    shared: tuple[tuple[str, ...], ...] = ()
    laue: Laue | None = None
    d_star_max: PositiveFloat = 1.4
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    starts: PositiveInt = 24
    solutions: PositiveInt = 4
    max_r_pct: PositiveFloat = 40.0
    flipping: FlippingSpec = FlippingSpec()
    symmetry: SymmetrySpec = SymmetrySpec()
    atoms: AtomSpec = AtomSpec()
    direct: DirectSpec = DirectSpec()
    factors: Literal["peng", "lobato", "kirkland"] = "peng"
