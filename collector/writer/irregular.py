"""Find the field of a record that differs from the form in which protobuf's own encoder writes it: a parser is likely to refuse
such a field.

Adapters write records in one form, so the first field of another form is the one to look at in a dead letter. Only one item is
read here, and only after the store refused it.
"""

from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from infrasage.v1.telemetry_pb2 import Group, TelemetryBatch

from adapters.codec.wire import BYTES, FIXED32, FIXED64, VARINT, Cursor, NonCanonical
from collector.records.items import ITEM_MESSAGES

_FIXED64_TYPES: Final = frozenset({FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64})
_FIXED32_TYPES: Final = frozenset({FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32})
_BYTES_TYPES: Final = frozenset({FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE})
_ITEMS: Final = Group.DESCRIPTOR.fields_by_name["items"]


def irregular_field(topic: str, payload: bytes) -> str | None:
    """Return the path of the first irregular field in a TelemetryBatch of a topic, and what is wrong with the field; None if
    there is no such field."""
    items = ITEM_MESSAGES.get(topic)
    return _irregular(payload, 0, len(payload), TelemetryBatch.DESCRIPTOR, None if items is None else items.DESCRIPTOR)


def _irregular(buffer: bytes, start: int, end: int, message: Any, item: Any) -> str | None:
    cursor = Cursor(buffer)
    cursor.position = start
    while cursor.position < end:
        try:
            tag = int(cursor.field(end))
        except NonCanonical:
            return "(malformed)"
        field = message.fields_by_number.get(tag >> 3)
        if field is None:
            return f"{tag >> 3} (unknown)"
        after, begin = cursor.position, cursor.start
        is_list = field.is_repeated and field.type not in _BYTES_TYPES
        if is_list and tag & 7 == BYTES:
            if begin == after:
                return f"{field.name} (an empty list)"
        elif tag & 7 != _wire_type(field):
            return f"{field.name} (wire type {tag & 7})"
        elif is_list:
            return f"{field.name} (a list that is not packed)"
        else:
            inner = item if field == _ITEMS else field.message_type
            within = None if inner is None else _irregular(buffer, begin, after, inner, item)
            if within is not None:
                return f"{field.name}{within}" if within.startswith("(") else f"{field.name}.{within}"
        cursor.position = after
    return None


def _wire_type(field: Any) -> int:
    if field.type in _BYTES_TYPES:
        return BYTES
    return FIXED64 if field.type in _FIXED64_TYPES else FIXED32 if field.type in _FIXED32_TYPES else VARINT
