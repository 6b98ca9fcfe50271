"""Beams that the lattice's centring forbids take no part, and leaving them out changes nothing."""

import numpy as np
from simulations import crystal

from nanoed.sim.physics import bloch
from nanoed.sim.physics.scattering import of_the_lattice, reflections_within, structure_factors


def test_a_primitive_lattice_keeps_all_and_a_centred_one_half():
    kept = {
        name: of_the_lattice(crystal(name), reflections_within(crystal(name), 1.5))
        for name in ("brookite", "ito")
    }
    assert kept["brookite"].all()
    assert 0.45 < kept["ito"].mean() < 0.55


def test_what_is_left_out_has_no_structure_factor():
    ito = crystal("ito")
    hkl = reflections_within(ito, 1.5)
    out = hkl[~of_the_lattice(ito, hkl)]
    assert (out.sum(axis=1) % 2 == 1).all()
    assert np.abs(structure_factors(ito, out, "peng")).max() < 1e-9
    assert len(bloch.potential_table(ito, 200.0, 1.5).hkl) == 1 + len(hkl) - len(out)
