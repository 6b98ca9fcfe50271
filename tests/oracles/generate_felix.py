"""U_g of SrTiO3 by the program Felix: a dozen reflections of its printed list, as CSV on standard output.

    python tests/oracles/generate_felix.py ../shared/reference/felix_srtio3/StructureFactors.txt \
        > tests/golden/felix_srtio3.csv

Felix (WarwickMicroscopy/Felix, 2017), 200 kV, Kirkland factors; the columns are h, k, l, two components of g
times 2 pi, U_g and the absorptive U'_g (1/Å^2).
"""

import sys
from pathlib import Path

import pandas as pd


def read_structure_factors(path: Path) -> pd.DataFrame:
    """Columns h, k, l, U_g and the absorptive U'_g (1/Å^2) of the reflections other than 000."""
    names = ["h", "k", "l", "gx", "gy", "U_g", "U_g_absorptive"]
    table = pd.read_csv(path, sep=r"\s+", names=names)
    names_kept = ["h", "k", "l", "U_g", "U_g_absorptive"]
    return table.loc[table[["h", "k", "l"]].any(axis=1), names_kept].reset_index(drop=True)


def main(path: Path) -> None:
    table = read_structure_factors(path)
    half = table[(table["h"] >= table["k"]) & (table["k"] >= 0)]
    print(
        "# Felix (WarwickMicroscopy), SrTiO3, 200 kV, Kirkland factors: U_g and thermal diffuse U'_g in 1/A^2"
    )
    print("# a = 3.8996 A, B(Sr) 0.4153, B(Ti) 1.1035, B(O) 0.8888 A^2; tests/oracles/generate_felix.py")
    print(half.drop_duplicates().head(16).to_csv(index=False), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
