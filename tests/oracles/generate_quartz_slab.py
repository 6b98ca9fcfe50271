"""Bloch-wave amplitudes behind a tilted slab of quartz, both hands, written as CSV to standard output.

    python tests/oracles/generate_quartz_slab.py > tests/golden/quartz_slab.csv

The dense twin of the Bloch-wave kernels with n = c, beams of equal lateral frequency summed. Tails of beams far from
the Ewald sphere carry 1-2 % of the weaker amplitudes, so that many are needed: |S| up to 1 where |g| < 1.2.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from dense_bloch import slab_amplitudes
from quartz_slab import FACTORS, KV, TILTS_DEG, inverted, quartz, rotation, slab

from nanoed.sim.physics.bloch import potential_table

G_MAX = 2.4
REACH = ((1.2, 1.0), (2.0, 0.3), (np.inf, 0.1))
"""|g| below which, 1/Å, and up to which |S|, 1/Å, a beam takes part."""
LEAST = 1e-6
"""Intensity below which a row is left out."""


def main() -> None:
    print(
        "# Bloch waves, dense: quartz P 32 2 1 (hand 1) and inverted (-1), orthohexagonal (001) slab, n = c,"
    )
    print(
        f"# 200.0 A, {FACTORS} factors, {KV:g} kV, |g| <= {G_MAX:g} 1/A, isotropic U; crystal turned by tilt_x,"
    )
    print("# then tilt_y; m, n: lateral frequency times cell edge; tests/oracles/generate_quartz_slab.py")
    print("hand,tilt_x_deg,tilt_y_deg,m,n,amplitude")
    for hand, crystal in ((1, quartz()), (-1, inverted(quartz()))):
        made = slab(crystal)
        potential = potential_table(crystal, KV, G_MAX, FACTORS)
        g = np.linalg.norm(potential.hkl @ made.ub.T, axis=1)
        s_max = np.select([g < limit for limit, _ in REACH], [s for _, s in REACH])
        for tilt in TILTS_DEG:
            hkl, psi = slab_amplitudes(
                potential, made.ub, rotation(tilt), np.array([0, 0, -1.0]), made.thickness, s_max, exact=True
            )
            places, index = np.unique(made.place(hkl), axis=0, return_inverse=True)
            total = np.zeros(len(places), complex)
            np.add.at(total, index, psi)
            for (m, n), value in zip(places.tolist(), np.abs(total), strict=True):
                if value**2 > LEAST:
                    print(f"{hand},{tilt[0]:g},{tilt[1]:g},{m},{n},{value:.8f}")


if __name__ == "__main__":
    main()
