"""Hypothesis strategies for OTLP: whole requests, made from the official descriptors, and odd ways to write them."""

import math
import random
import struct
from functools import cache
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from support.strategies.wire_forms import ODDITIES, Forms

NOW = 1_775_822_400_000_000_000  # 2026-04-10T12:00:00Z

_texts = st.one_of(
    st.sampled_from(["", "a", "http.method", "GET", "été", " a\n", "\0", "\U0001f600", "x" * 130]), st.text(max_size=12)
)
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
_doubles = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, math.nan, STALE, math.inf, -math.inf, 1e300, 5e-324]), st.floats(width=64)
)
_DAY = 86_400 * 10**9
_TEN_MINUTES = 600 * 10**9
# The first of the last four, in 2119, is in time where the window is a century.
_edges = [NOW + 1, NOW - _DAY, NOW - _DAY - 1, NOW + _TEN_MINUTES, NOW + _TEN_MINUTES + 1, 0, 1]
_edges += [4_733_510_399_999_999_999, 2**63 - 1, 2**63, 2**64 - 1]
_times = st.sampled_from([NOW] * 20 + _edges)
_ids = {
    "trace_id": st.sampled_from([b"\x01" * 16, bytes(range(16)), b"\xff" * 16] * 6 + [bytes(16), b"\x01" * 15, b""]),
    "span_id": st.sampled_from([b"\x02" * 8, bytes(range(8)), b"\xff" * 8] * 6 + [bytes(8), b"\x02" * 9, b""]),
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


def _is_checked_time(field: FieldDescriptor) -> bool:
    """Whether a rule is about it: a point's start may be any number, a span's may not."""
    return field.name.endswith("time_unix_nano") and (
        field.name != "start_time_unix_nano" or field.full_name.endswith("Span.start_time_unix_nano")
    )


@cache
def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Of a field that is no message: a value, or where it is repeated a list of them."""
    return st.lists(_scalar(field), max_size=4) if field.is_repeated else _scalar(field)


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.name in _ids:
        return _ids[field.name]
    if _is_checked_time(field):
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
        # Zero is what a field that is not set is, too; 99 a later version may add.
        return st.sampled_from([value.number for value in field.enum_type.values if value.number] * 3 + [0, 99])
    low, high = _ranges[field.type]
    return st.one_of(st.sampled_from([0, 1, low, high]), st.integers(low, high))


def _is_likely(field: FieldDescriptor) -> bool:
    """Whether it is set nearly always: without it there is little in a message, or it is refused."""
    if field.message_type is not None:
        return field.message_type.name not in ("KeyValue", "AnyValue", "Exemplar", "EntityRef")
    return field.name in (*_ids, "aggregation_temporality") or _is_checked_time(field)


class _Choices(NamedTuple):
    """Which fields of a message are set, as the bits of numbers: few draws, since it is draws that take Hypothesis its time."""

    evenly: st.SearchStrategy[int]
    likely: int
    oneofs: tuple[st.SearchStrategy[int], ...]


@cache
def _choices(descriptor: Descriptor, with_lists: bool) -> _Choices:
    """`with_lists`: whether a value may be a list of values."""
    bits = {field.name: 1 << n for n, field in enumerate(descriptor.fields)}
    oneofs = []
    alone = sum(bits.values())
    for oneof in descriptor.oneofs:
        if len(oneof.fields) == 1:
            continue  # an optional field, to protobuf
        names = [field.name for field in oneof.fields if with_lists or field.name not in ("array_value", "kvlist_value")]
        oneofs.append(st.sampled_from([bits[name] for name in names] * 2 + [0]))
        alone -= sum(bits[field.name] for field in oneof.fields)
    likely = sum(bits[field.name] for field in descriptor.fields if _is_likely(field))
    evenly = st.integers(0, 2 ** len(bits) - 1).map(lambda chosen: chosen & alone)
    return _Choices(evenly, likely & alone, tuple(oneofs))


# Made once: Hypothesis takes longer to make a strategy than to draw from it.
_mostly = st.integers(0, 9).map(bool)
_lengths = st.sampled_from((1, 2, 0, 1, 2, 3, 1, 2, 3, 4))


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    """A message with about half of its fields set, and lists of up to four."""
    return _message(draw, descriptor, 0)


def _message(draw: st.DrawFn, descriptor: Descriptor, depth: int) -> Message:
    message: Message = GetMessageClass(descriptor)()
    choices = _choices(descriptor, depth <= 8)
    chosen = draw(choices.evenly)
    if choices.likely and draw(_mostly):
        chosen |= choices.likely
    for oneof in choices.oneofs:
        chosen |= draw(oneof)
    for n, field in enumerate(descriptor.fields):
        if not chosen >> n & 1:
            continue
        if field.message_type is None:
            value = draw(_scalars(field))
            if field.is_repeated:
                getattr(message, field.name).extend(value)
            else:
                setattr(message, field.name, value)
        elif field.is_repeated:
            for _ in range(draw(_lengths)):
                getattr(message, field.name).append(_message(draw, field.message_type, depth + 1))
        else:
            getattr(message, field.name).CopyFrom(_message(draw, field.message_type, depth + 1))
    if descriptor.name in _FITTED and draw(_mostly):
        fit(message)
    return message


def _fit_explicit(point: Any) -> None:
    """Have its buckets fit each other: else nearly every histogram would be rejected."""
    bounds = sorted({bound for bound in point.explicit_bounds if not math.isnan(bound)})
    counts = list(point.bucket_counts)[: len(bounds) + 1]
    point.explicit_bounds[:] = bounds if counts else []
    if counts:
        point.bucket_counts[:] = counts + [0] * (len(bounds) + 1 - len(counts))
        _fit_count(point, point.bucket_counts)


def _fit_exponential(point: Any) -> None:
    if len(point.positive.bucket_counts) + len(point.negative.bucket_counts):
        _fit_count(point, point.positive.bucket_counts, point.negative.bucket_counts, point.zero_count)


def _fit_count(point: Any, first: Any, second: Any = (), zeros: int = 0) -> None:
    """The count that its buckets add up to; without the largest of them, where no field could hold it."""
    for counts in (first, second):
        for n, count in enumerate(counts):
            if sum(first) + sum(second) + zeros >= 2**64:
                counts[n] = count >> 5
    point.count = min(sum(first) + sum(second) + zeros, 2**64 - 1)


def fit(message: Message) -> None:
    """Have the buckets of a histogram's point fit each other; leave any other message as it is."""
    if (fitted := _FITTED.get(message.DESCRIPTOR.name)) is not None:
        fitted(message)


_FITTED = {"HistogramDataPoint": _fit_explicit, "ExponentialHistogramDataPoint": _fit_exponential}


def fit_buckets(message: Message) -> None:
    """Have the buckets of all histograms in it fit each other, in place."""
    if message.DESCRIPTOR.name in _FITTED:
        _FITTED[message.DESCRIPTOR.name](message)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for entry in value if field.is_repeated else (value,):
                fit_buckets(entry)


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


_UNKNOWN = [b"\xf8\x7f\x07", b"\xfa\x7f\x02hi", b"\x99\x06" + bytes(8), b"\xfd\x7f\x00\x00\x00\x00", b"\xf0\x07\x00"]


_oddities = st.sets(st.sampled_from(ODDITIES), min_size=1, max_size=3).map(sorted)


@st.composite
def oddly_written(draw: st.DrawFn, message: Message) -> bytes:
    """One of the forms of `message` that protobuf allows; or bytes of something close to it."""
    if draw(st.integers(0, 2)) == 0:
        return Forms(random.Random(draw(st.integers(0, 2**32))), draw(_oddities), 0.3).form(message)
    return _altered(draw, message)


def _altered(draw: st.DrawFn, message: Message) -> bytes:
    """Fields shuffled, repeated, split or unknown, packed ones unpacked."""
    out: list[bytes] = []
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        for entry in values:
            if field.message_type is not None:
                inner = _altered(draw, entry)
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
