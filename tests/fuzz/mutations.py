"""Damage to files: what bad disks, bad programs and bad people do, as a hypothesis strategy over valid files."""

from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = (
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"-inf",
    b"1e999",
    b"1e-320",
    b"4294967296",
    b"99999999999999999999",
    b"1_0",
    b"0x10",
)


@st.composite
def damaged(draw: st.DrawFn, valid: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A valid file after up to six changes, rarely anything at all."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=300))
    raw = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 2, 3, 6)))):
        raw = _change(draw, raw, words)
    return bytes(raw)


def _change(draw: st.DrawFn, raw: bytearray, words: Sequence[bytes]) -> bytearray:
    at = draw(st.integers(0, max(len(raw) - 1, 0)))
    match draw(st.integers(0, 8)):
        case 0 if raw:
            raw[at] ^= 1 << draw(st.integers(0, 7))
        case 1 if raw:
            raw[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x20, 0x27, 0x3B)))
        case 2:
            del raw[at : at + draw(st.integers(1, 64))]
        case 3:
            del raw[at:]
        case 4:
            raw[at:at] = draw(st.sampled_from((*words, *NUMBERS)))
        case 5:
            raw[at:at] = raw[at : at + draw(st.integers(1, 200))]
        case 6:
            value = draw(st.sampled_from((0, 1, 255, 2**15, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)))
            raw[at : at + 8] = value.to_bytes(8, draw(st.sampled_from(("little", "big"))))
        case 7:
            return _token(draw, raw, at, (*words, *NUMBERS))
        case 8:
            return _line(draw, raw, at)
    return raw


def _token(draw: st.DrawFn, raw: bytearray, at: int, words: Sequence[bytes]) -> bytearray:
    """The word at `at` is replaced."""
    start = max(raw.rfind(b" ", 0, at), raw.rfind(b"\n", 0, at), raw.rfind(b"=", 0, at)) + 1
    ends = [end for end in (raw.find(b" ", at), raw.find(b"\n", at), raw.find(b";", at)) if end >= 0]
    raw[start : min(ends, default=len(raw))] = draw(st.sampled_from(words))
    return raw


def _line(draw: st.DrawFn, raw: bytearray, at: int) -> bytearray:
    """The line at `at` is lost, doubled or moved to the end."""
    start = raw.rfind(b"\n", 0, at) + 1
    end = raw.find(b"\n", at) + 1 or len(raw)
    line = raw[start:end]
    match draw(st.integers(0, 2)):
        case 0:
            del raw[start:end]
        case 1:
            raw[end:end] = line
        case 2:
            del raw[start:end]
            raw += line
    return raw
