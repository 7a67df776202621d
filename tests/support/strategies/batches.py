"""Any message in the normal form, flat (support/records.py), for Hypothesis: every field, every number, every text.

They are made from the messages' own descriptors, so a field that a later OTLP adds is generated too, and missed if not stored.
"""

import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import Source, Type
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support.batches import batch_id
from support.records import item_count

_TEXT = st.text(max_size=12)
_DOUBLES = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]) | st.floats()
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: _DOUBLES,
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_SFIXED64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=16),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 24),
}
_ITEMS_MAX = 2
_SIGNALS = {"metrics", "log_records", "spans"}
_HEADER = frozenset({"tenant_id", "source", "type", "received_time_unix_nano", "batch_id", "item_count", "receipt"} | _SIGNALS)


@st.composite
def batches(draw: st.DrawFn, signal: str, tenant_id: str, number: int) -> TelemetryBatchV1:
    """A batch of one record whose items are in field `signal`: metrics, log_records or spans."""
    batch = TelemetryBatchV1()
    record: Any = batch.records.add(tenant_id=tenant_id)  # enumerations are given as numbers
    record.source = draw(st.sampled_from(Source.values()))
    record.type = draw(st.sampled_from(Type.values()))
    record.received_time_unix_nano = draw(st.integers(1, 2**63 - 1))
    record.batch_id = batch_id(number)
    _fill(draw, record, skip=_HEADER)
    for _ in range(draw(st.integers(1, _ITEMS_MAX))):
        _fill(draw, getattr(record, signal).add())
    record.item_count = item_count(record)
    return batch


def _fill(draw: st.DrawFn, message: Message, skip: frozenset[str] = frozenset()) -> None:
    """Set any of the message's fields."""
    for oneof in message.DESCRIPTOR.oneofs:
        names = [field.name for field in oneof.fields]
        skip = skip | (set(names) - {draw(st.sampled_from(names))})
    for field in message.DESCRIPTOR.fields:
        if field.name in skip:
            continue
        if field.message_type is None:
            _set_scalar(draw, message, field)
        elif field.message_type.name == "KeyValue":
            for key in draw(st.lists(_TEXT, max_size=2, unique=True)):
                getattr(message, field.name).add(key=key).value.string_value = draw(_TEXT)
        elif field.message_type.name == "AnyValue":
            getattr(message, field.name).string_value = draw(_TEXT)
        elif field.is_repeated:
            for _ in range(draw(st.integers(0, _ITEMS_MAX))):
                _fill(draw, getattr(message, field.name).add())
        elif field.containing_oneof is not None or draw(st.booleans()):
            getattr(message, field.name).SetInParent()
            _fill(draw, getattr(message, field.name))


def _set_scalar(draw: st.DrawFn, message: Message, field: Any) -> None:
    values = _SCALARS[field.type]
    if field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(values, max_size=3)))
    elif not field.has_presence or draw(st.booleans()):
        setattr(message, field.name, draw(values))
