"""The normal forms of attributes that were met before: senders repeat the same few in every request.

Each form has one place in a table, which what was sent determines. A form that is put there replaces what was there before. So
the table never grows, and a sender whose attributes are all different costs what it would cost without a table.

Invariants (tests in tests/unit/adapters/otlp/test_normal_forms.py):
1. `find` returns only what `keep` was given for the very same bytes. test_a_form_is_found_for_its_own_bytes_only
2. The table has the same size, whatever is kept. test_the_table_does_not_grow
"""

from typing import Final

from librt.strings import read_i64_le
from mypy_extensions import i64

# The shortest has one byte of key, and one of value.
_BYTES_MIN: Final = 8
_BYTES_MAX: Final = 256
PLACES: Final = 1 << 14


class _Form:
    """What was sent, and its normal form. They are in one object, so that a thread never sees one without the other."""

    def __init__(self, sent: bytes, normal: bytes) -> None:
        self.sent: Final = sent
        self.normal: Final = normal


class NormalForms:
    """By what was sent."""

    def __init__(self) -> None:
        self._places: Final[list[_Form | None]] = [None] * PLACES

    def find(self, buffer: bytes, start: i64, end: i64) -> bytes:
        """Return the normal form of what is at start:end; empty where it is not known."""
        size: i64 = end - start
        if size < _BYTES_MIN or size > _BYTES_MAX:
            return b""
        form = self._places[_place(buffer, start, end)]
        if form is None:
            return b""
        sent = form.sent
        if len(sent) != size:
            return b""
        # Eight bytes each, the last ones once more where they do not fill eight.
        last: i64 = size - 8
        at: i64 = 0
        while at < last:
            if read_i64_le(sent, at) != read_i64_le(buffer, start + at):
                return b""
            at += 8
        return form.normal if read_i64_le(sent, last) == read_i64_le(buffer, end - 8) else b""

    def keep(self, buffer: bytes, start: i64, end: i64, normal: bytes) -> None:
        """`normal` is the normal form of what is at start:end, and not empty."""
        size: i64 = end - start
        if _BYTES_MIN <= size <= _BYTES_MAX:
            self._places[_place(buffer, start, end)] = _Form(buffer[start:end], normal)


def _place(buffer: bytes, start: i64, end: i64) -> i64:
    """The last eight bytes have most of the value, and those in the middle most of the key."""
    size: i64 = end - start
    tail: i64 = read_i64_le(buffer, end - 8)
    middle: i64 = read_i64_le(buffer, start + ((size - 8) >> 1))
    mixed: i64 = tail ^ (tail >> 32) ^ (middle >> 7) ^ (middle >> 39) ^ size
    # Multiplicative hashing; the product stays below 2**63.
    return (mixed & 0xFFFFFFFF) * 0x5E3779B1 >> 24 & (PLACES - 1)
