"""adapters/codec/wire.py: whether a text is UTF-8, however long it is."""

import pytest
from support.limits import DEFAULT

from adapters.codec.wire import is_utf8
from collector.ingest.validate import LimitRules

SLICE = 256 << 10
CHARACTERS = ["a", "\u00e9", "\u20ac", "\U0001f600"]


def counting(rests: list[None]) -> LimitRules:
    """Rules that take down their rests."""
    return LimitRules(DEFAULT, 0, pause=lambda: rests.append(None))


@pytest.mark.parametrize("character", CHARACTERS)
@pytest.mark.parametrize("shift", range(5))
def test_a_long_text_is_looked_at_slice_by_slice(character: str, shift: int) -> None:
    """It may be cut within a character. Each slice is followed by a rest, also where what is around it is none."""
    text = b"b" * shift + character.encode() * (2 * SLICE // len(character.encode()) + 10)
    rests: list[None] = []
    assert is_utf8(b"\xff" + text + b"\xff", 1, 1 + len(text), counting(rests))
    assert len(rests) >= 2


@pytest.mark.parametrize("bad", [b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\x80" * 10])
@pytest.mark.parametrize("at", [0, SLICE - 2, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE, -1])
def test_a_fault_is_found_wherever_it_is(bad: bytes, at: int) -> None:
    """It is found at the beginning, at the end, and where the text is cut."""
    text = b"a" * (2 * SLICE + 10)
    at = at if at >= 0 else len(text)
    assert not is_utf8(text[:at] + bad + text[at:], 0, len(text) + len(bad), counting([]))
