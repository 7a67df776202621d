"""A bitmap of the messages that are left out of a range's insert, and its form in an intent. Bit n is the message at offset
start + n: messages are left out only of a range without gaps in its offsets.

Invariants:
1. A bitmap is read from an intent as it was written (test_left_out.py, test_an_intent_keeps_which_messages_are_left_out).
2. A bitmap lengthens an intent's text by at most 344 characters: Kafka's limit for metadata is 4,096 bytes by default, and so
   is the space for four topics in the local log's witness (test_left_out.py, test_the_text_is_short).
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from typing import Final

# Messages at or beyond this index are never left out: the range is cut before them.
LEFT_OUT_INDEX_MAX: Final = 2048
_SEPARATOR: Final = "+"  # in no identity of a log: those are hexadecimal numbers, dots, and names that are percent-encoded


def bitmap(indexes: Iterable[int]) -> bytes:
    """Return a bitmap in which bit n % 8 of byte n // 8 is set for each index n, without trailing zeros."""
    bits = 0
    for index in indexes:
        if not 0 <= index < LEFT_OUT_INDEX_MAX:
            raise ValueError(f"message {index} of a range cannot be left out: at most the first {LEFT_OUT_INDEX_MAX} can")
        bits |= 1 << index
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def indexes(left_out: bytes) -> Iterator[int]:
    """Yield the indexes in a bitmap, in order."""
    for at, byte in enumerate(left_out):
        for bit in range(8):
            if byte >> bit & 1:
                yield 8 * at + bit


def before(left_out: bytes, count: int) -> bytes:
    """Return the bitmap of a range's first `count` messages."""
    return bitmap(index for index in indexes(left_out) if index < count)


def after(left_out: bytes, count: int) -> bytes:
    """Return the bitmap of the messages after a range's first `count`."""
    return bitmap(index - count for index in indexes(left_out) if index >= count)


def with_left_out(log: str, left_out: bytes) -> str:
    """Return an identity of a log together with a bitmap, as an intent keeps them."""
    return log + _SEPARATOR + urlsafe_b64encode(left_out).decode().rstrip("=") if left_out else log


def parse_log(text: str) -> tuple[str, bytes]:
    """Return the identity and the bitmap from which `with_left_out` made a text."""
    log, _, encoded = text.partition(_SEPARATOR)
    return log, urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
