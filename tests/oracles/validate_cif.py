"""Print, one a line, what iotbx's validator says of a CIF against the core dictionary that it ships (2.3.1).

Run with an interpreter that has cctbx-base: python tests/oracles/validate_cif.py FILE
"""

import sys

import iotbx.cif
from iotbx.cif import validation

model = iotbx.cif.reader(file_path=sys.argv[1]).model()
model.validate(validation.smart_load_dictionary(name="cif_core.dic"), show_warnings=True, out=sys.stdout)
