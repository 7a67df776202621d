"""Find the unknown fields of a protobuf body, which are reported if no item was found in it.

An unknown field is skipped, as protobuf requires: a newer sender may have more fields. A request that has only unknown fields
was meant for another route or version, and the answer must report that.
"""

from contextlib import suppress
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from mypy_extensions import i64

from adapters.codec.wire import Cursor, NonCanonical

FIELDS_REPORTED_MAX: Final = 5
# The most fields that are examined: a request has one unknown field in the place of each item, or no other field at all.
_FIELDS_MAX: Final = 1_000
# Messages that hold items, and are not items themselves.
_ENVELOPES: Final = frozenset(
    f"{level}{signal}" for level in ("Resource", "Scope") for signal in ("Metrics", "Logs", "Spans")
) | {"Metric", "TimeSeries"}


def unknown_fields(body: bytes, descriptor: Any) -> list[str]:
    """Return the first unknown fields of the message and of the envelopes in it, as `ResourceSpans has no field 1000`.

    `descriptor` is protobuf's descriptor of the message.
    """
    found: list[str] = []
    with suppress(NonCanonical):  # as far as it is plainly written
        _collect(Cursor(body), len(body), descriptor, found, _FIELDS_MAX)
    return found


def _collect(cursor: Cursor, end: i64, descriptor: Any, found: list[str], fields_left: i64) -> i64:
    """Add the unknown fields up to `end` to `found`. Return how many fields may still be examined. Raises NonCanonical."""
    fields = descriptor.fields_by_number
    while cursor.position < end and fields_left > 0 and len(found) < FIELDS_REPORTED_MAX:
        fields_left -= 1
        number = int(cursor.field(end) >> 3)
        after: i64 = cursor.position
        field = fields.get(number)
        if field is None:
            words = f"{descriptor.name} has no field {number}"
            if words not in found:
                found.append(words)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.name in _ENVELOPES:
            cursor.position = cursor.start
            fields_left = _collect(cursor, after, field.message_type, found, fields_left)
        cursor.position = after
    return fields_left
