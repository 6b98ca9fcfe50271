"""The tables a report is drawn from: `RUN/figures/NAME.csv`, their columns, writing and reading.

A report must be made again without frames, reduced data or truth (`--keep results`), so whatever it shows is
first written as one of these tables. A table whose source is missing (a method that failed) is not written.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from nanoed.sim.physics.files import write_whole
from nanoed.studies.tables import read_columns

FOLDER = "figures"
TABLES: Mapping[str, tuple[str, ...]] = {
    # every value the run was made with, where it comes from; value is text
    "conditions": ("field", "value", "meaning", "source"),
    # frames shown: picture in `file` (grey, logarithmic, 0 = fewest electrons, 255 = `white` counts)
    "frames": (
        "frame",
        "file",
        "alpha_deg",
        "centre_x_px",
        "centre_y_px",
        "a_per_px",
        "ring",
        "black",
        "white",
    ),
    # predicted and integrated spots on the frames shown
    "frame_spots": ("frame", "h", "k", "l", "x_px", "y_px", "I", "sigma_I"),
    # sections of reciprocal space (1/Å): what `section_NAME.csv` shows, its two reciprocal axes in u and v
    "sections": ("section", "reach", "first_u", "first_v", "second_u", "second_v"),
    # atoms of one cell in the truth, their displacement in every model (Cartesian, a along x), edges of the cell
    "structure": ("model", "label", "element", "x_A", "y_A", "z_A", "dx_A", "dy_A", "dz_A"),
    # one reflection after another: intensity per frame, and the profile that was fitted on a fine grid
    "rocking_curve": ("h", "k", "l", "frame", "s_g", "I", "sigma_I"),
    "rocking_fit": ("h", "k", "l", "s_g", "I"),
    # amplitudes on the scale of the calculated ones; observed means I > 3 sigma(I)
    "fobs_fcalc": ("method", "h", "k", "l", "frame", "f_obs", "f_calc", "observed"),
    # every site against the truth, in the cell of the truth
    "distances": ("method", "label", "element", "multiplicity", "distance_A", "su_A", "dx_A", "dy_A", "dz_A"),
    # every frame of the dynamical refinement; errors are out of plane, one common rotation removed
    "frame_parameters": (
        *(
            "frame",
            "alpha_deg",
            "scale",
            "tilt_x_deg",
            "tilt_y_deg",
            "error_reduced_deg",
            "error_refined_deg",
        ),
        *("thickness_A", "thickness_true_A"),
    ),
}
_TEXT = frozenset(
    (
        "field",
        "value",
        "meaning",
        "source",
        "file",
        "method",
        "label",
        "element",
        "model",
        "section",
    )
)


def write_table(run_dir: Path, name: str, table: pd.DataFrame) -> None:
    """Write `figures/NAME.csv` with the columns of TABLES[name], floats to six significant digits."""
    columns = table[list(TABLES[name])]
    flags = {column: int for column in columns.columns if columns[column].dtype == bool}
    text = columns.astype(flags).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_whole(run_dir / FOLDER / f"{name}.csv", text)


def read_table(run_dir: Path, name: str) -> pd.DataFrame | None:
    """Read `figures/NAME.csv`, None if the run did not write it.

    Raises InputError for a file that is not this table.
    """
    path = run_dir / FOLDER / f"{name}.csv"
    if not path.is_file():
        return None
    return read_columns(path, TABLES[name], _TEXT, "not a table of a run")
