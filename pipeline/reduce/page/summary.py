"""The numbers of a reduction that matter, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

LIKELY = 5.0  # groups less likely than the best by more than e^5 are not named
FAR_PX, FAR_DEG = 5.0, 5.0  # centre and azimuth drift by less (H7)
MANY = 0.1  # part of the frames


def summary(numbers: Mapping[str, Any], frames: pd.DataFrame) -> list[tuple[str, str]]:
    """Name and value, in the order of the work. numbers : statistics of a reduction; frames : of
    output.frame_table."""
    lines = [
        ("frames", _frames(frames)),
        ("detector", f"gain {numbers['gain']:.3f}, offset {numbers['noise_offset']:.3g}; "
                     f"{_bad(numbers['bad_pixels'])}; spots {numbers['spot_sigma_px']:.2f} px wide"),
        ("errors beside counting", f"{_dead_time(numbers)}; {100 * numbers['relative_error']:.2f} % of an intensity by "
                                   "the shapes of spots"),
        ("tilt axis", f"azimuth {numbers['axis_azimuth_deg']:.2f}°{_sense(numbers)}"),
        ("peaks", f"{numbers['n_peaks']}, of those at low angles {100 * numbers['indexed_fraction']:.1f} % indexed; "
                  f"scatter {numbers['peak_scatter_px']:.3f} px"),
        ("cell", _cell(numbers["cell"]) + _calibration(numbers["camera_length_ratio"])),
        ("lattice", _lattice(numbers)),
        *_second(numbers),
        ("distortion", _distortion(numbers["distortion"])),
        ("rocking curve", _rocking(numbers["rocking_curve"])),
        ("orientations", _orientations(frames["tilt_su_deg"])),
        ("frame scales", f"{frames['scale'].min():.3f} to {frames['scale'].max():.3f}; of the fitted ones "
                         f"{100 * numbers['scale_part']:.0f} % by the agreement of equivalents"),
        ("Laue class", _laue(numbers)),
        ("space groups", _groups(numbers["space_groups"])),
        ("merged in", f"{numbers['laue']}, {numbers['spacegroup'] or 'no absences'}"
                      + _as_stated(numbers["merged_as_stated"])),
        ("reflections", f"{numbers['n_all']} unique, {numbers['n_obs']} observed, redundancy "
                        f"{numbers['redundancy']:.2f}, coverage {100 * numbers['coverage']:.1f} % to sin θ/λ = "
                        f"{numbers['coverage_s_max']:g} 1/Å"),
        ("agreement", f"R_int {100 * numbers['r_int']:.2f} %, CC1/2 {numbers['cc_half']:.4f}, "
                      f"{numbers['n_outliers']} outliers"),
    ]  # fmt: skip
    return lines


def alarms(numbers: Mapping[str, Any], frames: pd.DataFrame) -> list[str]:
    """What a user should not miss, one sentence each."""
    found = []
    if numbers["rotation_reversed"]:
        one, other = (100 * x for x in numbers["indexed_by_sense"])
        found.append(
            "The frames turn against the sense that the data set states: its tilt angles have the wrong sign, or its "
            f"axis points the other way. The sense that fits is used ({other:.0f} % of the peaks indexed, {one:.0f} % "
            "in the stated one), so the hand of the lattice is right."
        )
    off = (numbers["axis_azimuth_deg"] - numbers["axis_stated_deg"] + 90) % 180 - 90
    if abs(off) > FAR_DEG:
        found.append(
            f"The tilt axis lies {abs(off):.1f}° from the azimuth that the data set states, "
            f"{numbers['axis_stated_deg']:.1f}°; the one found in the frames is used."
        )
    if numbers["centre_offset_px"] > FAR_PX:
        found.append(
            f"The direct beam lies {numbers['centre_offset_px']:.0f} pixels from the centre that the data set states; "
            "the centres found in the frames are used."
        )
    tests = numbers["laue_tests"]
    if not any(t["accepted"] for t in tests):
        found.append(
            f"Equivalents in {tests[0]['laue']} disagree like unrelated reflections: R_int "
            f"{100 * tests[0]['r_int']:.0f} % against {100 * numbers['r_int_unrelated']:.0f} %."
        )
    accepted = {t["laue"] for t in tests if t["accepted"]}
    tried = {t["laue"] for t in tests}
    if numbers["laue"] in tried - accepted and accepted:
        found.append(f"The intensities do not have the symmetry {numbers['laue']} in which they were merged.")
    found += _blank(frames)
    if second := numbers.get("second_lattice"):
        found.append(f"A second lattice explains {100 * second['fraction']:.0f} % of the peaks.")
    return found


def _blank(frames: pd.DataFrame) -> list[str]:
    """Sentences on frames without the crystal: many of them, and all from one frame on or up to one."""
    blank, found = frames["blank"].to_numpy(bool), []
    if blank.mean() > MANY:
        found.append(
            f"{int(blank.sum())} of {len(frames)} frames show too little of the lattice and are left out."
        )
    seen, number = np.nonzero(~blank)[0], frames["frame"].to_numpy()
    if len(seen) and len(frames) - 1 - seen[-1] > MANY * len(frames):
        found.append(
            f"The crystal is lost after frame {number[seen[-1]]}: did it leave the beam or the eucentric height?"
        )
    if len(seen) and seen[0] > MANY * len(frames):
        found.append(f"The crystal is not seen before frame {number[seen[0]]}.")
    return found


def _orientations(tilt_su_deg: pd.Series) -> str:
    median = tilt_su_deg.median()
    return "kept at the stage's angles" if np.isnan(median) else f"s.u. of a tilt {median:.3f}° (median)"


def _frames(frames: pd.DataFrame) -> str:
    blank = int(frames["blank"].sum())
    angles = frames["alpha_nominal_deg"]
    return f"{len(frames)}, {angles.min():.1f}° to {angles.max():.1f}°" + (
        f"; {blank} left out" if blank else ""
    )


def _bad(pixels: Mapping[str, int]) -> str:
    named = ", ".join(f"{n} {name}" for name, n in pixels.items() if n and name != "all")
    return f"bad pixels: {named}" if named else "no bad pixels"


def _dead_time(numbers: Mapping[str, Any]) -> str:
    error = numbers["dead_time_error_us"]
    value = f"{numbers['dead_time_us']:.2f}" + (f" ± {error:.2f}" if error else "")
    return f"dead time {value} µs ({numbers['dead_time_is']})"


def _sense(numbers: Mapping[str, Any]) -> str:
    one, other = (100 * x for x in numbers["indexed_by_sense"])
    how = "against" if numbers["rotation_reversed"] else "in"
    return f", turning {how} the stated sense ({one:.1f} % of the peaks indexed, {other:.1f} % the other way round)"


def _cell(cell: list[float]) -> str:
    return " ".join(f"{x:.4f}" for x in cell[:3]) + " Å, " + " ".join(f"{x:.2f}" for x in cell[3:]) + "°"


def _calibration(ratio: float) -> str:
    return "" if ratio == 1 else f"; 1/Å per pixel {ratio:.5f} times the nominal by the reference cell"


def _lattice(numbers: Mapping[str, Any]) -> str:
    tried = numbers["bravais_lattices"]
    figures = ", ".join(f"{t['symbol']} {t['strain_pct']:.2f} % {t['scatter_px']:.3f} px" for t in tried[:5])
    name = numbers["bravais"] or "as given"
    return f"{name} ({figures})" if figures else name


def _second(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    second = numbers.get("second_lattice")
    if not second:
        return []
    text = f"{100 * second['fraction']:.1f} % of the peaks, turned {second['angle_deg']:.1f}° about the axis "
    text += " ".join(f"{x:.2f}" for x in second["axis"])
    return [("second lattice", f"{text}; {second['n_excluded']} spots that it covers excluded")]


def _distortion(lens: Mapping[str, Any]) -> str:
    parabolic = (lens["parabolic"][0] ** 2 + lens["parabolic"][1] ** 2) ** 0.5
    ellipse = f"elliptic {100 * lens['amplitude']:.2f} % at {lens['azimuth_deg']:.0f}°"
    others = f"barrel {100 * lens['barrel']:.2f} %, spiral {100 * lens['spiral']:.2f} %"
    return f"{ellipse}, {others}, parabolic {100 * parabolic:.2f} %"


def _as_stated(curve: dict[str, float] | None) -> str:
    return "" if curve is None else f", at the tilts of the stage with one scale; {_rocking(curve)}"


def _rocking(curve: Mapping[str, float]) -> str:
    text = f"width {curve['width_1_A']:.5f} 1/Å, mosaicity {curve['mosaicity_deg']:.3f}°"
    semi = curve["semi_angle_deg"]
    return text + (f", precession {semi:.3f}°" if semi else "")


def _laue(numbers: Mapping[str, Any]) -> str:
    parts = [
        f"{t['laue']} {100 * t['r_int']:.1f} %{'' if t['accepted'] else ' (refused)'}"
        for t in numbers["laue_tests"]
    ]
    return f"R_int {', '.join(parts)}; unrelated reflections {100 * numbers['r_int_unrelated']:.0f} %"


def _groups(ranking: list[Mapping[str, Any]]) -> str:
    near = [r for r in ranking if r["log_odds"] > -LIKELY]
    return "; ".join(_group(r) for r in near[:4]) or "-"


def _group(row: Mapping[str, Any]) -> str:
    names = " = ".join(row["groups"][:4]) + (" ..." if len(row["groups"]) > 4 else "")
    if not row["n_absent"]:
        return f"{names} (no absences)"
    return f"{names} ({row['n_absent']} absences at {round(100 * row['mean_ratio'])} % of the mean)"
