"""Cache the normal forms of attributes: senders repeat the same few in every request.

Each form has one place in a table, which the sent bytes determine. A new form replaces the form that was there before. So the
table never grows, and a sender whose attributes are all different costs about as much as without a table.

Invariants (tests in tests/unit/adapters/otlp/test_normal_forms.py):
1. `find` returns a form only for the exact bytes for which `keep` stored it. test_a_form_is_found_for_its_own_bytes_only
2. The table always has the same size. test_the_table_does_not_grow
"""

from typing import Final

from librt.strings import read_i64_le
from mypy_extensions import i64

# The shortest has one byte of key, and one of value.
_BYTES_MIN: Final = 8
_BYTES_MAX: Final = 256
PLACES: Final = 1 << 14


class _Form:
    """A `_Form` holds sent bytes and their normal form, in one object, so that a thread never sees one without the other."""

    def __init__(self, sent: bytes, normal: bytes) -> None:
        self.sent: Final = sent
        self.normal: Final = normal


class NormalForms:
    """A `NormalForms` is a table of normal forms by the bytes that were sent."""

    def __init__(self) -> None:
        self._places: Final[list[_Form | None]] = [None] * PLACES

    def find(self, buffer: bytes, start: i64, end: i64) -> bytes:
        """Return the normal form of start:end; empty if it is not in the table."""
        size: i64 = end - start
        if size < _BYTES_MIN or size > _BYTES_MAX:
            return b""
        form = self._places[_place(buffer, start, end)]
        if form is None:
            return b""
        sent = form.sent
        if len(sent) != size:
            return b""
        # Eight bytes at a time; the last eight may overlap with the ones before.
        last: i64 = size - 8
        at: i64 = 0
        while at < last:
            if read_i64_le(sent, at) != read_i64_le(buffer, start + at):
                return b""
            at += 8
        return form.normal if read_i64_le(sent, last) == read_i64_le(buffer, end - 8) else b""

    def keep(self, buffer: bytes, start: i64, end: i64, normal: bytes) -> None:
        """Store `normal`, which is not empty, as the normal form of start:end."""
        size: i64 = end - start
        if _BYTES_MIN <= size <= _BYTES_MAX:
            self._places[_place(buffer, start, end)] = _Form(buffer[start:end], normal)


def _place(buffer: bytes, start: i64, end: i64) -> i64:
    """Return the place of start:end. The last eight bytes have most of the value, and the middle ones most of the key."""
    size: i64 = end - start
    tail: i64 = read_i64_le(buffer, end - 8)
    middle: i64 = read_i64_le(buffer, start + ((size - 8) >> 1))
    mixed: i64 = tail ^ (tail >> 32) ^ (middle >> 7) ^ (middle >> 39) ^ size
    # Multiplicative hashing; the product stays below 2**63.
    return (mixed & 0xFFFFFFFF) * 0x5E3779B1 >> 24 & (PLACES - 1)
