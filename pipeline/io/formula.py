"""Chemical formulas."""

from __future__ import annotations

import re

import gemmi

from nanoed.sim.physics.errors import InputError


def parse_formula(text: str) -> dict[str, float]:
    """ "TiO2" -> {"Ti": 1, "O": 2}; raises InputError for anything that is not a formula."""
    parts = re.findall(r"([A-Z][a-z]?)(\d+\.?\d*|\.\d+|)", text.replace(" ", ""))
    if "".join(a + b for a, b in parts) != text.replace(" ", ""):
        raise InputError("not a chemical formula", field="composition", value=text, allowed="such as TiO2")
    formula: dict[str, float] = {}
    for element, count in parts:
        if gemmi.Element(element).atomic_number == 0:
            raise InputError("unknown element", field="composition", value=element, allowed="a symbol")
        formula[element] = formula.get(element, 0.0) + float(count or 1)
    return formula
