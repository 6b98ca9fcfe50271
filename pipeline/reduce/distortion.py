"""Distortion of the patterns by the lenses, to third order in the distance from the centre (C4; Brazda 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class Distortion:
    """u' = u + E u* + P u u* + (P*/2) u² + C u² u*, u = (x + iy) / edge from the centre, y up.

    ellipse : E; ratio of axes (1 + |E|) / (1 - |E|).  parabolic : P, tied as a cubic term about another centre ties it.
    cubic : C, its real part barrel (-) or pincushion (+), its imaginary part spiral.  edge : pixels.
    """

    ellipse: complex = 0j
    parabolic: complex = 0j
    cubic: complex = 0j
    edge: float = 256.0

    def __call__(self, w: Complex) -> Complex:
        """Where the lenses put w (n,) pixels from the centre."""
        u, e = w / self.edge, w.conj() / self.edge
        bent = self.parabolic * u * e + 0.5 * np.conj(self.parabolic) * u * u + self.cubic * u * u * e
        return w + self.ellipse * w.conj() + self.edge * bent

    def along(self, w: Complex, dw: Complex) -> Complex:
        """Change of the result where w changes by dw."""
        u, e, d = w / self.edge, w.conj() / self.edge, dw.conj()
        bent = self.parabolic * (u * d + e * dw) + np.conj(self.parabolic) * u * dw
        bent = bent + self.cubic * (2 * u * e * dw + u * u * d)
        return dw + self.ellipse * d + bent

    def by_parameters(self, w: Complex, higher: bool, ellipse: bool) -> list[Complex]:
        """Change of the result by real and imaginary part of E, and, for `higher`, of P and C; each (n,) pixels."""
        u, e = w / self.edge, w.conj() / self.edge
        changes = [w.conj(), 1j * w.conj()] if ellipse else []
        if higher:
            flat, square, third = self.edge * u * e, 0.5 * self.edge * u * u, self.edge * u * u * e
            changes += [flat + square, 1j * (flat - square), third, 1j * third]
        return changes

    def moved(self, step: Array, higher: bool, ellipse: bool) -> Distortion:
        """The distortion with its parameters changed, in the order of `by_parameters`."""
        values = [complex(*pair) for pair in np.asarray(step).reshape(-1, 2)]
        e = values.pop(0) if ellipse else 0j
        p, c = values if higher else (0j, 0j)
        return Distortion(self.ellipse + e, self.parabolic + p, self.cubic + c, self.edge)

    def undone(self, seen: Complex, rounds: int = 6) -> Complex:
        """The w (n,) that the lenses put at `seen`; each round leaves the square of the distortion of the last."""
        w = seen
        for _ in range(rounds):
            w = w + (seen - self(w))
        return w
