"""Two lists of items compared field by field, doubles by their bits; and items spoilt in one field, to see that it is noticed.

An item is a serialized TelemetryRecordV1, as `stored.items` has it. A path names a field by its names from the record down,
list indexes left out: metrics.gauge.data_points.exemplars.as_double.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message
from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1

NOTHING = "nothing"


class Difference(NamedTuple):
    """`path` is empty where there is no such item at all."""

    path: str
    expected: str
    found: str


def differences(expected: Sequence[bytes], found: Sequence[bytes]) -> list[Difference]:
    """Between two lists of items in whatever order. One that has no equal is compared with the one that is most like it."""
    lost = _records(Counter(expected) - Counter(found))
    strange = _records(Counter(found) - Counter(expected))
    told: list[Difference] = []
    for record in lost:
        if not strange:
            told.append(Difference("", str(record), NOTHING))
            continue
        comparisons = [list(between(record, other)) for other in strange]
        nearest = min(range(len(strange)), key=lambda n: len(comparisons[n]))
        # Equal in every field, and yet not the same bytes: that is a difference, too.
        told += comparisons[nearest] or [Difference("", str(record), str(strange[nearest]))]
        del strange[nearest]
    return told + [Difference("", NOTHING, str(record)) for record in strange]


def _records(counted: Counter[bytes]) -> list[TelemetryRecordV1]:
    return [TelemetryRecordV1.FromString(item) for item in counted.elements()]


def between(expected: Any, found: Any, path: str = "") -> Iterator[Difference]:
    """Between two messages of one type."""
    for field in expected.DESCRIPTOR.fields:
        here = f"{path}.{field.name}".lstrip(".")
        mine, theirs = getattr(expected, field.name), getattr(found, field.name)
        if field.is_repeated:
            if len(mine) != len(theirs):
                yield Difference(here, f"{len(mine)} entries", f"{len(theirs)} entries")
            pairs = list(zip(mine, theirs, strict=False))
        elif field.has_presence and expected.HasField(field.name) != found.HasField(field.name):
            there = expected.HasField(field.name)
            yield Difference(here, str(mine) if there else NOTHING, NOTHING if there else str(theirs))
            continue
        else:
            pairs = [(mine, theirs)]
        for one, other in pairs:
            if field.message_type is not None:
                yield from between(one, other, here)
            elif _exact(one) != _exact(other):
                yield Difference(here, repr(_exact(one)), repr(_exact(other)))


def _exact(value: Any) -> Any:
    """A double as itself and its bits."""
    return (repr(value), struct.pack("<d", value).hex()) if isinstance(value, float) else value


def paths(message: Message, path: str = "") -> Iterator[str]:
    """Of every field that is set and is no message."""
    for field, value in message.ListFields():
        here = f"{path}.{field.name}".lstrip(".")
        if field.message_type is None:
            yield here
            continue
        for entry in value if field.is_repeated else (value,):
            yield from paths(entry, here)


def possible_paths(descriptor: Any, path: str = "") -> Iterator[str]:
    """What `paths` can say of a message of this type in the normal form, where every AnyValue is a text."""
    for field in descriptor.fields:
        here = f"{path}.{field.name}".lstrip(".")
        if field.message_type is None:
            yield here
        elif field.message_type.name == "AnyValue":
            yield f"{here}.string_value"
        else:
            yield from possible_paths(field.message_type, here)


def spoilt(item: bytes, path: str) -> bytes:
    """The item with something else in the first field of that path; it has one."""
    record = TelemetryRecordV1.FromString(item)
    assert _spoil(record, path.split("."))
    return record.SerializeToString(deterministic=True)


def _spoil(message: Any, names: list[str]) -> bool:
    field = message.DESCRIPTOR.fields_by_name[names[0]]
    value = getattr(message, field.name)
    if field.message_type is not None:
        entries = value if field.is_repeated else [value] if message.HasField(field.name) else []
        return any(_spoil(entry, names[1:]) for entry in entries)
    if field.name not in {there.name for there, _ in message.ListFields()}:
        return False
    if field.is_repeated:
        value[0] = _other(value[0])
    else:
        setattr(message, field.name, _other(value))
    return True


def _other(value: Any) -> Any:
    """As like it as can be."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        (bits,) = struct.unpack("<Q", struct.pack("<d", value))
        return struct.unpack("<d", struct.pack("<Q", bits ^ 1))[0]
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    return value + "x" if isinstance(value, str) else value ^ 1
