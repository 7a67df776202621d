"""landing.proto says what telemetry.proto and OTLP's files say, number by number."""

import re
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from infrasage.v1.telemetry_pb2 import TelemetryRecord

from collector.store.migrations import LANDING_FORMAT

# Fields that have no column: header fields that only lookups use, and what the normal form never has.
_WITHOUT_COLUMN = {"item_count", "key_strindex", "string_value_strindex"}
_WITHOUT_COLUMN |= {f"{kind}_value" for kind in ("bool", "int", "double", "array", "kvlist", "bytes")}
# What a type is called here, so that the parser passes all its bits: the bytes on the wire are the same.
_SAME_WIRE = {"enum": "int32", "fixed64": "sfixed64"}
_RENAMED = {"Record": "TelemetryRecord", "StringValue": "AnyValue", "Attribute": "KeyValue", "Scope": "InstrumentationScope"}


def messages() -> dict[str, dict[int, tuple[str, str]]]:
    """Fields of landing.proto by message and number: type (repeated or not) and name."""
    found: dict[str, dict[int, tuple[str, str]]] = {}
    name = ""
    for line in LANDING_FORMAT.read_text("utf-8").splitlines():
        if opened := re.match(r"\s*message (\w+) \{", line):
            name = opened[1]
            found[_RENAMED.get(name, name)] = {}
        elif field := re.match(r"\s*((?:repeated |optional )?)(\w+) (\w+) = (\d+);", line):
            if field[2] == "Record":
                continue  # the envelope's own field, after the record
            found[_RENAMED.get(name, name)][int(field[4])] = (field[1] + _RENAMED.get(field[2], field[2]), field[3])
    return found


def official() -> dict[str, Descriptor]:
    """Every message below TelemetryRecord, by name."""
    found: dict[str, Descriptor] = {}

    def walk(descriptor: Any) -> None:
        if descriptor.name in found:
            return
        found[descriptor.name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None and field.name not in _WITHOUT_COLUMN:
                walk(field.message_type)

    walk(TelemetryRecord.DESCRIPTOR)
    return found


def described(field: FieldDescriptor) -> str:
    names = {value: name[5:].lower() for name, value in vars(FieldDescriptor).items() if name.startswith("TYPE_")}
    type_ = field.message_type.name if field.message_type else names[field.type]
    return ("repeated " if field.is_repeated else "") + type_


@pytest.mark.parametrize("name", sorted(official()))
def test_message(name: str) -> None:
    """Every field is there, under its number, its name and a type of the same bytes."""
    expected = {
        field.number: (described(field), field.name) for field in official()[name].fields if field.name not in _WITHOUT_COLUMN
    }
    mine = messages()[name]
    assert {number: field_name for number, (_, field_name) in mine.items()} == {
        number: field_name for number, (_, field_name) in expected.items()
    }
    for number, (type_, field_name) in mine.items():
        theirs = expected[number][0]
        allowed = {theirs, f"optional {theirs}", _SAME_WIRE.get(theirs, theirs)}
        assert type_ in allowed, field_name
