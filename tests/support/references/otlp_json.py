"""OTLP/JSON of a message, by the specification's text: what protobuf's own json_format gets wrong is right here."""

import base64
import math
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_IDS = ("trace_id", "span_id", "parent_span_id")
_WIDE = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64)
# Asked at each freedom that the specification leaves; True is the usual way.
Choose = Callable[[], bool]


def usual() -> bool:
    return True


def to_json(message: Message, choose: Choose = usual) -> dict[str, Any]:
    """A document for `json.dumps`. A NaN loses its payload, which JSON has no place for."""
    return {
        field.json_name: [value_of(field, entry, choose) for entry in value]
        if field.is_repeated
        else value_of(field, value, choose)
        for field, value in message.ListFields()
    }


def forget_nan_payloads(message: Message) -> None:
    """Make of every NaN the one that JSON's NaN means, in place."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for entry in value if field.is_repeated else (value,):
                forget_nan_payloads(entry)
        elif field.type == FieldDescriptor.TYPE_DOUBLE and field.is_repeated:
            value[:] = [math.nan if math.isnan(number) else number for number in value]
        elif field.type == FieldDescriptor.TYPE_DOUBLE and math.isnan(value):
            setattr(message, field.name, math.nan)


def value_of(field: FieldDescriptor, value: Any, choose: Choose) -> Any:
    """One value of a field, as `to_json` writes it."""
    if field.message_type is not None:
        return to_json(value, choose)
    if field.name in _IDS:
        return value.hex() if choose() else value.hex().upper()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() if choose() else base64.urlsafe_b64encode(value).decode().rstrip("=")
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return str(value) if field.type in _WIDE and choose() else value
