"""Which fields of a protobuf body nobody reads: said where nothing at all was taken of it.

An unknown field is skipped, as protobuf wants it: a newer sender may have more fields. A request that has unknown fields alone
was meant for another route or version, and the answer must say so.
"""

from contextlib import suppress
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from mypy_extensions import i64

from adapters.codec.wire import Cursor, NonCanonical

TOLD_MAX: Final = 5
# How many fields are looked at: a request has one unknown field in the place of each item, or no other field at all.
_FIELDS_MAX: Final = 1_000
# Messages that hold items, and are no items themselves.
_ENVELOPES: Final = frozenset(
    f"{level}{signal}" for level in ("Resource", "Scope") for signal in ("Metrics", "Logs", "Spans")
) | {"Metric", "TimeSeries"}


def unknown_fields(body: bytes, descriptor: Any) -> list[str]:
    """Return the first fields that the message and the envelopes in it do not have: `ResourceSpans has no field 1000`.

    `descriptor`: protobuf's, of the message.
    """
    told: list[str] = []
    with suppress(NonCanonical):  # as far as it is plainly written
        _tell(Cursor(body), len(body), descriptor, told, _FIELDS_MAX)
    return told


def _tell(cursor: Cursor, end: i64, descriptor: Any, told: list[str], fields_left: i64) -> i64:
    """Return how many fields may still be looked at. Raises NonCanonical."""
    fields = descriptor.fields_by_number
    while cursor.position < end and fields_left > 0 and len(told) < TOLD_MAX:
        fields_left -= 1
        number = int(cursor.field(end) >> 3)
        after: i64 = cursor.position
        field = fields.get(number)
        if field is None:
            words = f"{descriptor.name} has no field {number}"
            if words not in told:
                told.append(words)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.name in _ENVELOPES:
            cursor.position = cursor.start
            fields_left = _tell(cursor, after, field.message_type, told, fields_left)
        cursor.position = after
    return fields_left
