"""Hypothesis strategies for OTLP: whole requests, made from the official descriptors, and odd ways to write them."""

import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

NOW = 1_775_822_400_000_000_000  # 2026-04-10T12:00:00Z

_texts = st.one_of(st.sampled_from(["", "a", "http.method", "GET", "été", "x" * 130]), st.text(max_size=12))
_doubles = st.one_of(st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 1e300]), st.floats(width=64))
_DAY = 86_400 * 10**9
_TEN_MINUTES = 600 * 10**9
_edges = [NOW + 1, NOW - _DAY, NOW - _DAY - 1, NOW + _TEN_MINUTES, NOW + _TEN_MINUTES + 1, 0, 1, 2**63 - 1, 2**63, 2**64 - 1]
_times = st.sampled_from([NOW] * 20 + _edges)
_ids = {
    "trace_id": st.sampled_from([b"\x01" * 16] * 9 + [bytes(16), b"\x01" * 15, b""]),
    "span_id": st.sampled_from([b"\x02" * 8] * 9 + [bytes(8), b"\x02" * 9, b""]),
}
_ranges = {
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
}


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.name in _ids:
        return _ids[field.name]
    if (field.name.endswith("time_unix_nano") and field.name != "start_time_unix_nano") or field.full_name.endswith(
        "Span.start_time_unix_nano"
    ):
        return _times
    if field.type == FieldDescriptor.TYPE_STRING:
        return _texts
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=9)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _doubles
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        assert field.enum_type is not None
        return st.sampled_from([value.number for value in field.enum_type.values])
    low, high = _ranges[field.type]
    return st.one_of(st.sampled_from([0, 1, low, high]), st.integers(low, high))


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> Message:
    """A message with about half of its fields set, and lists of up to three."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if descriptor.name == "AnyValue" and field.name in ("array_value", "kvlist_value") and depth > 8:
            continue
        likely = field.message_type is not None and field.message_type.name not in (
            "KeyValue",
            "AnyValue",
            "Exemplar",
            "EntityRef",
        )
        likely = likely and field.containing_oneof is None
        likely = likely or field.name in (*_ids, "time_unix_nano", "aggregation_temporality")
        if not draw(st.booleans()) and not (likely and draw(st.integers(0, 9))):
            continue
        if field.message_type is None:
            value = draw(st.lists(_scalar(field), max_size=4)) if field.is_repeated else draw(_scalar(field))
            if field.is_repeated:
                getattr(message, field.name).extend(value)
            else:
                setattr(message, field.name, value)
        elif field.is_repeated:
            for _ in range(draw(st.sampled_from((1, 2, 0, 1, 2, 3, 1, 2, 3, 4)))):
                getattr(message, field.name).append(draw(messages(field.message_type, depth + 1)))
        else:
            getattr(message, field.name).CopyFrom(draw(messages(field.message_type, depth + 1)))
    return message


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def fields_of(body: bytes) -> list[bytes]:
    """The top-level fields of a well-formed message, each with its tag."""
    fields, position = [], 0

    def read() -> int:
        nonlocal position
        result = shift = 0
        while True:
            byte = body[position]
            position += 1
            result |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return result

    while position < len(body):
        start = position
        kind = read() & 7
        if kind == 0:
            read()
        elif kind == 1:
            position += 8
        elif kind == 5:
            position += 4
        else:
            length = read()
            position += length
        fields.append(body[start:position])
    return fields


_UNKNOWN = [b"\xf8\x7f\x07", b"\xfa\x7f\x02hi", b"\x19" + bytes(8), b"\xfd\x7f\x00\x00\x00\x00", b"\xf0\x07\x00"]


@st.composite
def oddly_written(draw: st.DrawFn, message: Message) -> bytes:
    """Bytes of `message`, or of something close to it: fields shuffled, repeated, split or unknown, packed ones unpacked."""
    out: list[bytes] = []
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        for entry in values:
            if field.message_type is not None:
                inner = draw(oddly_written(entry))
                halves = fields_of(inner) if not field.is_repeated and draw(st.integers(0, 9)) == 0 else None
                parts = [inner] if halves is None else [b"".join(halves[::2]), b"".join(halves[1::2])]
                out += [varint(field.number << 3 | 2) + varint(len(part)) + part for part in parts]
            else:
                single = type(message)()
                if field.is_repeated:
                    getattr(single, field.name).append(entry)
                else:
                    setattr(single, field.name, entry)
                out.append(single.SerializeToString())
    if draw(st.integers(0, 3)) == 0:
        out = draw(st.permutations(out))
    if out and draw(st.integers(0, 9)) == 0:
        out.append(draw(st.sampled_from(out)))
    if draw(st.integers(0, 9)) == 0:
        out.insert(draw(st.integers(0, len(out))), draw(st.sampled_from(_UNKNOWN)))
    return b"".join(out)
