"""Refinement of one trial orientation on the peaks of its frame, and how likely the peaks are then."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@nb.njit(cache=True, nogil=True)
def turned(vector: Array, orientation: Array) -> Array:
    """exp(vector ×) orientation, (3, 3): a rotation about lab axes by |vector| rad after the orientation."""
    angle = np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    out = orientation.copy()
    if angle < 1e-14:
        return out
    n = vector / angle
    s, c = np.sin(angle), np.cos(angle)
    for j in range(3):
        v = orientation[:, j]
        dot = n[0] * v[0] + n[1] * v[1] + n[2] * v[2]
        out[0, j] = c * v[0] + s * (n[1] * v[2] - n[2] * v[1]) + (1 - c) * dot * n[0]
        out[1, j] = c * v[1] + s * (n[2] * v[0] - n[0] * v[2]) + (1 - c) * dot * n[1]
        out[2, j] = c * v[2] + s * (n[0] * v[1] - n[1] * v[0]) + (1 - c) * dot * n[2]
    return out


@nb.njit(cache=True, nogil=True)
def refine_locally(
    orientation: Array,
    shift: Array,
    nodes: Array,
    peaks: Array,
    wavelength: float,
    reach: Array,
    s_max: Array,
    s_sigma: float,
) -> int:
    """Change orientation (3, 3) and shift (2,) of the centre, 1/Å, in place; returns the number of matched peaks.

    nodes : (m, 3) 1/Å, crystal frame.  peaks : (p, 2) 1/Å, lab.  In every round each peak takes the node that is
    nearest in d²/reach² + S²/s_max²; least squares then make positions agree (turn about the beam, shift) and
    S vanish (two tilts; dS = g_y θ_x - g_x θ_y).
    """
    matched = 0
    for k in range(reach.shape[0]):
        normal, right = np.zeros((3, 3)), np.zeros(3)
        flat, down = np.zeros((2, 2)), np.zeros(2)
        x, y, s, n = near_sphere(orientation, nodes, wavelength, s_max[k])
        matched = 0
        for p in range(peaks.shape[0]):
            px, py = peaks[p, 0] - shift[0], peaks[p, 1] - shift[1]
            best, chosen = 1e30, -1
            for t in range(n):
                dx, dy = px - x[t], py - y[t]
                d2 = (dx * dx + dy * dy) / reach[k] ** 2
                if d2 < 1.0:
                    cost = d2 + (s[t] / s_max[k]) ** 2
                    if cost < best:
                        best, chosen = cost, t
            if chosen < 0:
                continue
            matched += 1
            gx, gy = x[chosen], y[chosen]
            row_x, row_y = np.array([1.0, 0.0, -gy]), np.array([0.0, 1.0, gx])
            dx, dy = px - gx, py - gy
            for i in range(3):
                right[i] += row_x[i] * dx + row_y[i] * dy
                for j in range(3):
                    normal[i, j] += row_x[i] * row_x[j] + row_y[i] * row_y[j]
            w = 1.0 / (1.0 + (s[chosen] / s_sigma) ** 2)
            flat[0, 0] += w * gy * gy
            flat[0, 1] -= w * gx * gy
            flat[1, 1] += w * gx * gx
            down[0] -= w * gy * s[chosen]
            down[1] += w * gx * s[chosen]
        if matched < 4:
            return matched
        for i in range(2):
            normal[i, i] += 1.0
        step = np.linalg.solve(normal, right)
        flat[1, 0] = flat[0, 1]
        flat[0, 0] += 1e-2
        flat[1, 1] += 1e-2
        tilt = np.linalg.solve(flat, down)
        shift += step[:2]
        orientation[:, :] = turned(np.array([tilt[0], tilt[1], step[2]]), orientation)
    return matched


@nb.njit(cache=True, nogil=True)
def near_sphere(
    orientation: Array, nodes: Array, wavelength: float, s_max: float
) -> tuple[Array, Array, Array, int]:
    """x, y, S of the n nodes within s_max of the Ewald sphere (arrays of the length of nodes), and n."""
    m = nodes.shape[0]
    x, y, s = np.empty(m), np.empty(m), np.empty(m)
    n = 0
    for t in range(m):
        a, b, c = nodes[t, 0], nodes[t, 1], nodes[t, 2]
        length2 = a * a + b * b + c * c
        z = orientation[2, 0] * a + orientation[2, 1] * b + orientation[2, 2] * c
        error = z - 0.5 * wavelength * length2
        if abs(error) < s_max:
            x[n] = orientation[0, 0] * a + orientation[0, 1] * b + orientation[0, 2] * c
            y[n] = orientation[1, 0] * a + orientation[1, 1] * b + orientation[1, 2] * c
            s[n] = error
            n += 1
    return x, y, s, n


@nb.njit(cache=True, nogil=True)
def log_likelihood(
    orientation: Array,
    shift: Array,
    nodes: Array,
    peaks: Array,
    wavelength: float,
    area: float,
    position_sigma: float,
    s_sigma: float,
    stray: float,
) -> float:
    """Mean over the peaks of ln of their density over that of peaks anywhere; 0 for no lattice at all.

    Peaks are drawn from nodes with probability ∝ exp(-S² / 2 s_sigma²), placed with a Gaussian scatter of
    position_sigma, or, a part `stray` of them, anywhere in `area` (1/Å²): p/p_0 = stray + (1 - stray) area
    Σ_t w_t N(x - x_t) / Σ_t w_t. Lattices that predict many spots pay for it in Σ w.
    """
    x, y, s, n = near_sphere(orientation, nodes, wavelength, 3 * s_sigma)
    total = 1e-300
    for t in range(n):
        s[t] = np.exp(-0.5 * (s[t] / s_sigma) ** 2)
        total += s[t]
    reach2 = (4 * position_sigma) ** 2
    norm = (1 - stray) * area / (2 * np.pi * position_sigma**2 * total)
    value = 0.0
    for p in range(peaks.shape[0]):
        px, py = peaks[p, 0] - shift[0], peaks[p, 1] - shift[1]
        near = 0.0
        for t in range(n):
            d2 = (px - x[t]) ** 2 + (py - y[t]) ** 2
            if d2 < reach2:
                near += s[t] * np.exp(-0.5 * d2 / position_sigma**2)
        value += np.log(stray + norm * near)
    return value / max(peaks.shape[0], 1)


@nb.njit(cache=True, nogil=True)
def matched_nodes(
    orientation: Array,
    shift: Array,
    nodes: Array,
    peaks: Array,
    wavelength: float,
    reach: float,
    s_max: float,
) -> NDArray[np.int64]:
    """(p,) the node of each peak, nearest in d²/reach² + S²/s_max², or -1 for none within `reach`, 1/Å."""
    chosen = np.full(peaks.shape[0], -1)
    cost = np.full(peaks.shape[0], 1e30)
    for t in range(nodes.shape[0]):
        a, b, c = nodes[t, 0], nodes[t, 1], nodes[t, 2]
        z = orientation[2, 0] * a + orientation[2, 1] * b + orientation[2, 2] * c
        s = z - 0.5 * wavelength * (a * a + b * b + c * c)
        if abs(s) >= s_max:
            continue
        x = orientation[0, 0] * a + orientation[0, 1] * b + orientation[0, 2] * c + shift[0]
        y = orientation[1, 0] * a + orientation[1, 1] * b + orientation[1, 2] * c + shift[1]
        for p in range(peaks.shape[0]):
            d2 = ((peaks[p, 0] - x) ** 2 + (peaks[p, 1] - y) ** 2) / (reach * reach)
            if d2 < 1.0 and d2 + (s / s_max) ** 2 < cost[p]:
                cost[p], chosen[p] = d2 + (s / s_max) ** 2, t
    return chosen
