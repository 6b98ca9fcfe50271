"""Intensities of predicted spots on one frame: background, optimal extraction, overlaps."""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from nanoed.pipeline.reduce.background import local_background
from nanoed.pipeline.reduce.halo import halo_image
from nanoed.pipeline.reduce.neighbours import nearest
from nanoed.pipeline.reduce.noise import LAG, gain_of
from nanoed.pipeline.reduce.profile import Profile, share_at
from nanoed.pipeline.spec import IntegrationSpec

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Integrated:
    """Spots of one frame: pixels (n, 2); intensity, sigma (n,) in counts; shot (n,): variance per count of intensity;
    background (n,) counts per pixel; good (n,): on the detector, unsaturated and not overlapped; net (ny, nx): frame
    minus background minus all spots; smooth (ny, nx): the background, halos included; usable (ny, nx): the pixels that
    it is taken from."""

    pixels: Array
    intensity: Array
    sigma: Array
    shot: Array
    background: Array
    good: NDArray[np.bool_]
    net: Array
    smooth: Array
    usable: NDArray[np.bool_]


def integrate_frame(
    frame: Array,
    valid: NDArray[np.bool_],
    centre: Array,
    pixels: Array,
    zone: NDArray[np.int64],
    profile: Profile,
    noise: Array,
    spec: IntegrationSpec,
    offset: float = 0.0,
) -> Integrated:
    """Fit background and intensities of all spots of a frame in turn until they settle.

    frame : (ny, nx) counts.  valid : False on bad, saturated and direct-beam pixels.  pixels : (n, 2).
    noise : (3, 3) of noise.noise_covariance.  offset : of noise.gain_and_offset, counts.
    I = Σ w (D - B) / Σ w P with w = P / V, V = B + offset + I P inside the aperture (Horne 1986): a plain sum
    with aperture correction for strong spots, the profile fit for weak ones. D has the models of all other
    spots taken off, B holds the halos of all spots. sigma² = Σ w w' sqrt(V V') c / (Σ w P)² + (Σ w / Σ w P)² gain
    (B + offset) / n_B, c the covariance of two pixels' counts; the last term is the background's. Negative
    estimates stay.
    """
    x, y = np.ascontiguousarray(pixels[:, 0]), np.ascontiguousarray(pixels[:, 1])
    aperture = aperture_of(profile, spec)
    usable = valid.copy()
    mask_discs(usable, x, y, min(profile.reach, spec.mask_cores * profile.core))
    intensity, sigma, level = np.zeros(len(x)), np.zeros(len(x)), np.zeros(len(x))
    shot, covered = np.zeros(len(x)), np.zeros(len(x))
    gain = gain_of(noise)
    rest = frame.copy()  # frame minus the models of all spots
    halo = np.zeros(1)
    for sweep in range(spec.sweeps):
        if sweep > 0 and any(profile.halo):
            halo = halo_image(frame.shape, x, y, intensity, profile.halo_radii, profile.halo)
        background, n_background = local_background(rest - halo, usable, centre, spec.background_window_px)
        background += halo
        net = rest - background
        extract(net, background, n_background, valid, x, y, zone, profile.shares, profile.step, aperture,
                noise, gain, offset, intensity, sigma, shot, level, covered)  # fmt: skip
        rest = net + background
    good = (covered > spec.min_covered) & ~overlapped(pixels, spec.min_separation * profile.core)
    return Integrated(pixels, intensity, sigma, shot, level, good, net, background, usable)


def aperture_of(profile: Profile, spec: IntegrationSpec) -> float:
    """Radius of the integration aperture in pixels."""
    return spec.aperture_px or profile.core * spec.aperture_cores


def overlapped(pixels: Array, distance: float) -> NDArray[np.bool_]:
    """(n,) True for spots with another one nearer than `distance` pixels."""
    if len(pixels) < 2:
        return np.zeros(len(pixels), bool)
    return nearest(pixels, pixels, 2)[0][:, 1] < distance


@nb.njit(cache=True, nogil=True)
def mask_discs(usable: NDArray[np.bool_], x: Array, y: Array, radius: float) -> None:
    """Set usable (ny, nx) to False within `radius` pixels of every (x, y)."""
    ny, nx = usable.shape
    for s in range(x.shape[0]):
        for row in range(max(0, int(y[s] - radius)), min(ny, int(y[s] + radius) + 2)):
            for column in range(max(0, int(x[s] - radius)), min(nx, int(x[s] + radius) + 2)):
                if (column + 0.5 - x[s]) ** 2 + (row + 0.5 - y[s]) ** 2 <= radius * radius:
                    usable[row, column] = False


@nb.njit(cache=True, nogil=True)
def extract(
    net: Array,
    background: Array,
    n_background: Array,
    valid: NDArray[np.bool_],
    x: Array,
    y: Array,
    zone: NDArray[np.int64],
    shares: Array,
    step: float,
    aperture: float,
    noise: Array,
    gain: float,
    offset: float,
    intensity: Array,
    sigma: Array,
    shot: Array,
    level: Array,
    covered: Array,
) -> None:
    """One sweep over the spots: update intensity, sigma, shot noise, background and the part of P on valid pixels.

    net : (ny, nx) frame minus background minus the models of all spots; changed in place with the
    intensities.
    """
    ny, nx = net.shape
    reach = (shares.shape[1] - 1) * step
    side = 2 * int(aperture) + 4 + 2 * LAG
    both, own = np.zeros((side, side)), np.zeros((side, side))  # w sqrt(V) of all counts and of the spot's
    for s in range(x.shape[0]):
        old = intensity[s]
        positive = max(old, 0.0)
        wd, wp, w1, inside, b_sum, bn_sum, n = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0
        both[:, :], own[:, :] = 0.0, 0.0
        top, left = max(0, int(y[s] - aperture)), max(0, int(x[s] - aperture))
        for row in range(top, min(ny, int(y[s] + aperture) + 2)):
            for column in range(left, min(nx, int(x[s] + aperture) + 2)):
                r = np.sqrt((column + 0.5 - x[s]) ** 2 + (row + 0.5 - y[s]) ** 2)
                if r > aperture or not valid[row, column]:
                    continue
                p = share_at(shares, zone[s], r, step)
                b = background[row, column]
                variance = max(b + offset + positive * p, 1.0 / n_background[row, column])
                w = p / variance
                wd += w * (net[row, column] + old * p)
                wp += w * p
                w1 += w
                both[row - top + LAG, column - left + LAG] = w * np.sqrt(variance)
                own[row - top + LAG, column - left + LAG] = w * np.sqrt(p)
                inside += p
                b_sum += b
                bn_sum += max(b + offset, 1.0 / n_background[row, column]) / n_background[row, column]
                n += 1
        if n == 0 or wp <= 0.0:
            covered[s] = 0.0
            continue
        new = wd / wp
        sigma[s] = np.sqrt(correlated(both, noise) / wp**2 + (w1 / wp) ** 2 * gain * bn_sum / n)
        shot[s] = correlated(own, noise) / wp**2
        level[s] = b_sum / n
        full = np.pi * step * step / 4 * shares[zone[s], 0]
        for k in range(1, min(int(aperture / step), shares.shape[1] - 1) + 1):
            full += 2 * np.pi * k * step * step * shares[zone[s], k]
        covered[s] = inside / full
        for row in range(max(0, int(y[s] - reach)), min(ny, int(y[s] + reach) + 2)):
            for column in range(max(0, int(x[s] - reach)), min(nx, int(x[s] + reach) + 2)):
                r = np.sqrt((column + 0.5 - x[s]) ** 2 + (row + 0.5 - y[s]) ** 2)
                net[row, column] -= (new - old) * share_at(shares, zone[s], r, step)
        intensity[s] = new


@nb.njit(cache=True, nogil=True)
def correlated(u: Array, noise: Array) -> float:
    """Σ c(|dy|, |dx|) u u' over all pairs of pixels of u (m, m), whose border of LAG is zero; noise : (3, 3), c."""
    m = u.shape[0]
    total = 0.0
    for dy in range(-LAG, LAG + 1):
        for dx in range(-LAG, LAG + 1):
            c = noise[abs(dy), abs(dx)]
            if c == 0.0:
                continue
            for i in range(LAG, m - LAG):
                for j in range(LAG, m - LAG):
                    total += c * u[i, j] * u[i + dy, j + dx]
    return total
