"""adapters/codec/snappy_block.py: the beginning of a block becomes the beginning of its content."""

import random

import cramjam
import pytest

from adapters.codec.snappy_block import first_elements

CHOICES = random.Random(7)
CONTENTS = {
    "repeated": b"\x0a\0" * 300_000,
    "random": CHOICES.randbytes(300_000),
    "words": b" ".join(CHOICES.choices([b"alpha", b"beta", b"gamma", b"d" * 70, b"e" * 3_000], k=2_000)),
}


def varint(number: int) -> bytes:
    return bytes([number & 127 | 128, number >> 7 & 127 | 128, number >> 14 & 127 | 128, number >> 21])


@pytest.mark.parametrize("wanted", [1, 1_000, 100_000, 299_999])
@pytest.mark.parametrize("name", CONTENTS)
def test_the_beginning_of_a_block_is_a_block(name: str, wanted: int) -> None:
    """It has a size of its own before it."""
    content = CONTENTS[name]
    block = bytes(cramjam.snappy.compress_raw(content))
    start = 3
    end, size_bytes = first_elements(block, start, wanted)
    assert wanted <= size_bytes <= wanted + 65_536
    assert content[:size_bytes] == bytes(cramjam.snappy.decompress_raw(varint(size_bytes) + block[start:end]))


@pytest.mark.parametrize(
    ("elements", "read"),
    [
        (b"\x08abc", (4, 3)),
        (b"\xf0\x05abcdef", (8, 6)),
        (b"\xf4\x05\0abcdef", (9, 6)),
        (b"\xf8\x05\0\0abcdef", (10, 6)),
        (b"\xfc\x05\0\0\0abcdef", (11, 6)),
        (b"\0a\x05\x01", (4, 6)),
        (b"\0a\x0a\x01\0", (5, 4)),
        (b"\0a\x0b\x01\0\0\0", (7, 4)),
    ],
)
def test_each_kind_of_element_is_passed_over(elements: bytes, read: tuple[int, int]) -> None:
    """Literals with sizes of zero to four bytes, copies with offsets of one, two and four."""
    assert read == first_elements(elements, 0, read[1])
    assert (0, 0) == first_elements(elements, 0, read[1] + 1)
    assert (0, 0) == first_elements(elements[:-1], 0, read[1])


def test_what_becomes_little_is_not_passed_over() -> None:
    """Literals of a byte each: there are more than are looked at."""
    assert (0, 0) == first_elements(b"\0a" * 600_000, 0, 600_000)
    assert (800_000, 400_000) == first_elements(b"\0a" * 600_000, 0, 400_000)
