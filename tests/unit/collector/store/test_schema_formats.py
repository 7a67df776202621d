"""The landing formats say what our own .proto files and OTLP's say, number by number."""

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from infrasage.v1.dead_letter_pb2 import DeadLetterBatch, DeadLetterRecord
from infrasage.v1.telemetry_pb2 import Group, TelemetryBatch, TelemetryRecord
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from collector.store.migrations import DEAD_LETTERS_FORMAT, LOGS_FORMAT, METRICS_FORMAT, TRACES_FORMAT

# Fields that have no column: header fields that only lookups use, and what the normal form never has.
_WITHOUT_COLUMN = {
    "TelemetryRecord.version",
    "TelemetryRecord.item_count",
    "KeyValue.key_strindex",
    "AnyValue.string_value_strindex",
}
_WITHOUT_COLUMN |= {f"AnyValue.{kind}_value" for kind in ("bool", "int", "double", "array", "kvlist", "bytes")}
# The writer stores a replay's record as telemetry.
_WITHOUT_COLUMN |= {"DeadLetterEvent.topic", "DeadLetterEvent.payload"}
# What a type is called here, so that the parser passes all its bits: the bytes on the wire are the same.
_SAME_WIRE = {"enum": "int32", "fixed64": "sfixed64"}
_TELEMETRY = {
    "Record": "TelemetryRecord",
    "StringValue": "AnyValue",
    "Attribute": "KeyValue",
    "Scope": "InstrumentationScope",
}
# Of each signal: what a group is to OTLP, and what OTLP calls its items.
_GROUPS: dict[Path, tuple[Any, str]] = {
    METRICS_FORMAT: (ScopeMetrics, "metrics"),
    LOGS_FORMAT: (ScopeLogs, "log_records"),
    TRACES_FORMAT: (ScopeSpans, "spans"),
}
_RENAMED = {
    **dict.fromkeys(_GROUPS, _TELEMETRY),
    DEAD_LETTERS_FORMAT: {"Record": "DeadLetterRecord", "Letter": "DeadLetter", "Event": "DeadLetterEvent"},
}


def messages(format_: Path) -> dict[str, dict[int, tuple[str, str]]]:
    """Fields of a format by message and number: type (repeated or not) and name."""
    renamed = _RENAMED[format_]
    found: dict[str, dict[int, tuple[str, str]]] = {}
    name = ""
    for line in format_.read_text("utf-8").splitlines():
        if opened := re.match(r"\s*message (\w+) \{", line):
            name = opened[1]
            found[renamed.get(name, name)] = {}
        elif field := re.match(r"\s*((?:repeated |optional )?)(\w+) (\w+) = (\d+);", line):
            if field[2] == "Record":
                continue  # the envelope's own field, after the record
            found[renamed.get(name, name)][int(field[4])] = (field[1] + renamed.get(field[2], field[2]), field[3])
    return found


def official(top: Any) -> dict[str, Descriptor]:
    """Every message below this one, by name."""
    found: dict[str, Descriptor] = {}

    def walk(descriptor: Any) -> None:
        if descriptor.name in found:
            return
        found[descriptor.name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None and has_column(field):
                walk(field.message_type)

    walk(top)
    return found


def has_column(field: Any) -> bool:
    return f"{field.containing_type.name}.{field.name}" not in _WITHOUT_COLUMN


def described(field: FieldDescriptor) -> str:
    names = {value: name[5:].lower() for name, value in vars(FieldDescriptor).items() if name.startswith("TYPE_")}
    type_ = field.message_type.name if field.message_type else names[field.type]
    return ("repeated " if field.is_repeated else "") + type_


@pytest.mark.parametrize(
    ("format_", "descriptor"),
    [
        pytest.param(format_, descriptor, id=name)
        for format_, tops in (
            *((format_, (TelemetryRecord, group)) for format_, (group, _) in _GROUPS.items()),
            (DEAD_LETTERS_FORMAT, (DeadLetterRecord,)),
        )
        for top in tops
        for name, descriptor in sorted(official(top.DESCRIPTOR).items())
        if name != "Group" and descriptor not in (group.DESCRIPTOR for group, _ in _GROUPS.values())
    ],
)
def test_message(format_: Path, descriptor: Descriptor) -> None:
    """Every field is there, under its number, its name and a type of the same bytes."""
    expected = {field.number: (described(field), field.name) for field in descriptor.fields if has_column(field)}
    mine = messages(format_)[descriptor.name]
    assert {number: field_name for number, (_, field_name) in mine.items()} == {
        number: field_name for number, (_, field_name) in expected.items()
    }
    for number, (type_, field_name) in mine.items():
        theirs = expected[number][0]
        allowed = {theirs, f"optional {theirs}", _SAME_WIRE.get(theirs, theirs)}
        assert type_ in allowed, field_name


@pytest.mark.parametrize(("format_", "group"), _GROUPS.items(), ids=["metrics", "logs", "traces"])
def test_group(format_: Path, group: tuple[Any, str]) -> None:
    """A group is what OTLP sends of a scope, under our own names."""
    official_group, items = group
    expected = {
        field.number: (described(field), "items" if field.name == items else field.name)
        for field in official_group.DESCRIPTOR.fields
    }
    assert messages(format_)["Group"] == expected
    ours = {field.number: field.name for field in Group.DESCRIPTOR.fields}
    assert ours == {number: name for number, (_, name) in expected.items()}


@pytest.mark.parametrize(
    ("format_", "batch"),
    [*((format_, TelemetryBatch) for format_ in _GROUPS), (DEAD_LETTERS_FORMAT, DeadLetterBatch)],
    ids=["metrics", "logs", "traces", "dead letters"],
)
def test_envelope(format_: Path, batch: Any) -> None:
    """The message that holds the records has their batch's number."""
    found = re.search(r"repeated Record row = (\d+);", format_.read_text("utf-8"))
    assert found is not None
    assert batch.DESCRIPTOR.fields_by_name["records"].number == int(found[1])
