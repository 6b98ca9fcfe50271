"""Structure factors by cctbx, written as CSV to standard output.

Run with an interpreter that has cctbx-base (nothing of ours is imported; cctbx before anything else):
    python tests/oracles/generate_cctbx.py studies/structures > tests/golden/cctbx_structure_factors.csv
With further arguments NAME=D_MIN these are the structures, else D_MIN's.

Electron scattering factors of International Tables C, table 4.3.2.2. F in Å, as cctbx prints it: with
exp(+2 pi i h.x).
"""

# ruff: noqa: I001  (cctbx must be imported first)
from cctbx import miller  # noqa: F401
from cctbx.eltbx import e_scattering
import iotbx.cif
import libtbx.env_config  # noqa: F401

import sys
from importlib.metadata import version
from pathlib import Path

D_MIN = {"brookite": 0.72, "anatase": 0.5, "quartz": 0.62}


def main(structures: Path, chosen: dict[str, float]) -> None:
    print(f"# cctbx-base {version('cctbx-base')}; tests/oracles/generate_cctbx.py")
    print("# electron factors of International Tables C 4.3.2.2 (2011), F in A with exp(+2 pi i h.x)")
    print("structure,h,k,l,F_real,F_imag")
    for name, d_min in chosen.items():
        reader = iotbx.cif.reader(file_path=str(structures / f"{name}.cif"))
        (structure,) = reader.build_crystal_structures().values()
        table = e_scattering.ito_vol_c_2011_table_4_3_2_2_entry_as_gaussian
        elements = {scatterer.element_symbol() for scatterer in structure.scatterers()}
        structure.scattering_type_registry(
            custom_dict={element: table(label=element, exact=True) for element in elements}
        )
        indices = structure.build_miller_set(anomalous_flag=True, d_min=d_min).map_to_asu()
        found = indices.structure_factors_from_scatterers(structure, algorithm="direct").f_calc()
        for hkl, value in sorted(zip(found.indices(), found.data(), strict=True)):
            print(f"{name},{','.join(map(str, hkl))},{value.real:.8f},{value.imag:.8f}")


if __name__ == "__main__":
    asked = dict(argument.split("=") for argument in sys.argv[2:])
    main(Path(sys.argv[1]), {name: float(d_min) for name, d_min in asked.items()} or D_MIN)
