"""adapters/codec/json_integers: what is read, and what is left to the reader of single values."""

import pytest
from librt.strings import BytesWriter
from support.limits import DEFAULT

from adapters.codec.json_integers import put_short_integers
from adapters.codec.json_scanner import JsonScanner
from collector.ingest.validate import LimitRules


def read(text: bytes, most: int = 2**63 - 1, *, is_varint: bool = True) -> tuple[bytes, bytes]:
    """Return what is written, and the rest of the text."""
    packed = BytesWriter()
    position = put_short_integers(packed, JsonScanner(text, LimitRules(DEFAULT, 0)), 0, most, is_varint)
    return packed.getvalue(), text[position:]


@pytest.mark.parametrize(
    ("text", "written", "left"),
    [
        (b'1,"2",30,"400",5]', b"\x01\x02\x1e\x90\x03", b"5]"),
        (b'0,"0",0]', b"\x00\x00", b"0]"),
        (b'1,"00",2]', b"\x01", b'"00",2]'),
        (b"1,01,2]", b"\x01", b"01,2]"),
        (b"1,-1,2]", b"\x01", b"-1,2]"),
        (b"1, 2,3]", b"\x01", b" 2,3]"),
        (b"1,2 ,3]", b"\x01", b"2 ,3]"),
        (b"1,2.0,3]", b"\x01", b"2.0,3]"),
        (b"1,2e1,3]", b"\x01", b"2e1,3]"),
        (b'1,"2,3]', b"\x01", b'"2,3]'),
        (b'1,2",3]', b"\x01", b'2",3]'),
        (b'1,"",3]', b"\x01", b'"",3]'),
        (b"1,null,3]", b"\x01", b"null,3]"),
        (b"1,1000,1001,1]", b"\x01\xe8\x07", b"1001,1]"),
        (b"]", b"", b"]"),
    ],
)
def test_what_is_left(text: bytes, written: bytes, left: bytes) -> None:
    """The first value that is not a short integer with a comma behind it, and all behind it."""
    assert (written, left) == read(text, 1000)


def test_eight_bytes_each() -> None:
    """As the counts of a histogram with bounds."""
    assert ((7).to_bytes(8, "little") + (10**15 - 1).to_bytes(8, "little"), b"1]") == read(
        b'"7","999999999999999",1]', is_varint=False
    )


def test_many_digits_are_left() -> None:
    """They might not fit."""
    for digits in (16, 19, 20, 400):
        text = b"9" * digits + b",1]"
        assert (b"", text) == read(text)
