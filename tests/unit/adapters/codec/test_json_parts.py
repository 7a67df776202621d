"""adapters/codec/json_parts.py: pieces of JSON have as many objects, arrays and commas as the whole has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.codec.json_parts import JsonPartsCount, count_json_parts
from adapters.errors import PAYLOAD_TOO_LARGE, RequestRefused

PARTS_MAX = 1_000
# What ends a string, hides its end, and counts; and enough else for strings that are read by the word.
PIECES = st.lists(st.sampled_from([b'"', b"\\", b'\\"', b",", b"{", b"[", b"a", b'"k":0,', b"long enough for words", b'\\\\"']))


@given(text=PIECES.map(b"".join), size=st.integers(1, 40))
def test_pieces_have_the_parts_of_the_whole(text: bytes, size: int) -> None:
    """They have them wherever they are cut: in a string, behind a backslash, before a quote."""
    parts = by_hand(text)
    assert parts == count_json_parts(text, PARTS_MAX)
    assert not is_refused(text, parts, size)
    if parts:
        assert is_refused(text, parts - 1, size)


def test_the_message_says_how_much_was_read() -> None:
    """The parts of what is not decompressed yet are not known."""
    count = JsonPartsCount(PARTS_MAX)
    count.take(b"[" + b"0," * 900)
    with pytest.raises(RequestRefused) as caught:
        count.take(b"0," * 900)
    assert PAYLOAD_TOO_LARGE == caught.value.reason
    assert (
        "the first 3601 bytes of the JSON hold more than 1000 elements (objects, arrays and commas):"
        " send smaller batches, or raise validation.request_elements_max"
    ) == caught.value.message
    assert b"[" + b"0," * 900 == count.beginning


def is_refused(text: bytes, parts_max: int, size: int) -> bool:
    """Return whether pieces of that size are."""
    count = JsonPartsCount(parts_max)
    try:
        for start in range(0, len(text), size):
            count.take(text[start : start + size])
    except RequestRefused:
        return True
    return False


def by_hand(text: bytes) -> int:
    """Return how many parts there are, byte by byte."""
    parts = 0
    is_in_string = is_escaped = False
    for byte in text:
        if is_escaped:
            is_escaped = False
        elif byte == ord('"'):
            is_in_string = not is_in_string
        elif is_in_string:
            is_escaped = byte == ord("\\")
        elif byte in b",{[":
            parts += 1
    return parts
