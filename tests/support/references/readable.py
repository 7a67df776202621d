"""What of protobuf ClickHouse's parser refuses, as far as is known: so that any test of an adapter sees it without an engine.

tests/integration/clickhouse/test_every_form.py finds such forms with the engine; those that it has found are here.
"""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.records import signal_of

_ITEMS = {"metrics": Metric.DESCRIPTOR, "log_records": LogRecord.DESCRIPTOR, "spans": Span.DESCRIPTOR}
_NOT_PACKED = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)
_FIXED = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64)


def refused_form(payload: bytes) -> str:
    """Return which field of a message is written in a form that the engine refuses, and how; the empty text: none."""
    refused = _refused(payload, TelemetryBatch.DESCRIPTOR)
    for record in TelemetryBatch.FromString(payload).records:
        item = _ITEMS[signal_of(record)]
        for group in record.groups:
            refused = refused or next(filter(None, (_refused(each, item) for each in group.items)), "")
    return refused


def _refused(message: bytes, descriptor: Any) -> str:
    position = 0
    while position < len(message):
        tag, position, found = _varint(message, position)
        field = descriptor.fields_by_number.get(tag >> 3) if descriptor is not None else None
        name = f"{descriptor.name}.{field.name if field is not None else tag >> 3}" if descriptor is not None else "unknown"
        kind = tag & 7
        if kind == 0:
            _, position, found = _varint(message, position)
        elif kind == 2:
            size, position, found = _varint(message, position)
            body = message[position : position + size]
            position += size
            if field is not None and field.message_type is not None:
                inner = _refused(body, field.message_type)
                if inner:
                    return inner
            elif field is not None and field.is_repeated and field.type not in _NOT_PACKED:
                if not body:
                    return f"{name}: a list without elements"
                at = len(body) if field.type in _FIXED else 0
                while at < len(body) and not found:
                    _, at, found = _varint(body, at)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            found = "a group"
        if found:
            return f"{name}: {found}"
    return ""


def _varint(message: bytes, position: int) -> tuple[int, int, str]:
    """The number, where it ends, and what the engine has against it."""
    number = shift = 0
    first = position
    while True:
        byte = message[position]
        number |= (byte & 127) << shift
        shift += 7
        position += 1
        if byte < 128:
            is_padded = position - first == 10 and byte != 1
            return number, position, "a number in ten bytes that needs fewer" if is_padded else ""
