"""The four measures against a printed result of the program COMPSTRU (CdWO4 and MnWO4, Bilbao server)."""

from typing import NamedTuple

import numpy as np
import pytest

from nanoed.studies.compare import Similarity, similarity


class Example(NamedTuple):
    """Cells (Å, degrees), fractional displacements and multiplicities as printed."""

    cell: tuple[float, ...] = (7.6269, 5.0780, 5.8670, 90.0, 138.79, 90.0)
    other_cell: tuple[float, ...] = (7.014259, 5.755200, 5.001900, 90.0, 136.561447, 90.0)
    displacements: tuple = (
        (0.0, -0.1171, 0.0),
        (-0.0613, -0.0266, 0.0909),
        (0.0, 0.1418, 0.0),
        (0.0395, 0.0376, 0.2053),
    )
    multiplicity: tuple[int, ...] = (2, 4, 2, 4)

    def measured(self) -> Similarity:
        return similarity(
            self.cell, self.other_cell, np.array(self.displacements), np.array(self.multiplicity, dtype=float)
        )


def test_measures_are_those_printed():
    found = Example().measured()
    assert round(found.degree_of_lattice_distortion, 4) == 0.0754
    assert round(found.d_max_A, 4) == 1.0159
    assert round(found.d_av_A, 4) == 0.8733
    assert round(found.delta, 3) == 0.387


def test_multiplicities_weight_the_average():
    plain = Example(multiplicity=(1, 1, 1, 1)).measured()
    assert plain.d_av_A == pytest.approx(0.819, abs=5e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        Example(cell=Example().other_cell, other_cell=Example().cell),
        Example(displacements=tuple((z, y, x) for x, y, z in Example().displacements)),
        Example(displacements=tuple((-x, y, z) for x, y, z in Example().displacements)),
    ],
    ids=["cells exchanged", "axes exchanged", "one sign flipped"],
)
def test_wrong_input_is_seen(wrong: Example):
    right, found = Example().measured(), wrong.measured()
    differs = [
        abs(found.degree_of_lattice_distortion - right.degree_of_lattice_distortion) > 1e-3,
        abs(found.d_av_A - right.d_av_A) > 1e-2,
    ]
    assert any(differs)
