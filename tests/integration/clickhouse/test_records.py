"""A record of several groups, in every order of its fields that protobuf allows, is stored item for item."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support import batches, letters
from support.records import encoded, flat, signal_of
from support.references.stored import items, stored

from adapters.codec.wire import Cursor
from adapters.record_tags import GROUP, RECORD, RESOURCE, SCOPE
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.store.clickhouse import ClickHouseStore
from collector.store.options import RequestedTables, StoreOptions

_NUMBERS = itertools.count(1)
_SIGNALS: Final = [
    pytest.param(METRICS_TOPIC, batches.metrics, id="metrics"),
    pytest.param(LOGS_TOPIC, batches.logs, id="logs"),
    pytest.param(TRACES_TOPIC, batches.traces, id="traces"),
]
# Fields that nobody knows: a varint, eight bytes, some bytes, four bytes.
_UNKNOWN: Final = b"\xc8\x7f\x01\xd1\x7f12345678\xda\x7f\x03abc\xe5\x7f1234"
Field = tuple[int, bytes]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    opened = ClickHouseStore.embedded(tmp_path_factory.mktemp("store"), StoreOptions(RequestedTables(fsync=False)))
    opened.apply_schema()
    yield opened
    opened.close()


def fields(message: bytes) -> list[Field]:
    """Each field: its tag, and all of its bytes."""
    cursor = Cursor(message)
    found = []
    while cursor.position < len(message):
        start = cursor.position
        tag = cursor.field(len(message))
        found.append((int(tag), message[start : cursor.position]))
    return found


def content(field: bytes) -> bytes:
    cursor = Cursor(field)
    cursor.field(len(field))
    return field[cursor.start : cursor.position]


def message(tag: int, content_: bytes) -> bytes:
    assert tag < 128
    length, size = len(content_), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([tag]) + size + bytes([length]) + content_


def header_first(of_record: list[Field]) -> list[Field]:
    """As adapters write them."""
    return sorted(of_record, key=lambda field: field[0] < 128)


def ascending(of_record: list[Field]) -> list[Field]:
    """As protobuf's own encoders write them."""
    return sorted(of_record, key=lambda field: field[0])


def descending(of_record: list[Field]) -> list[Field]:
    return sorted(of_record, key=lambda field: -field[0])


def header_between(of_record: list[Field]) -> list[Field]:
    """Each group before a field of the header, as long as there are some."""
    groups = [field for field in of_record if field[0] == GROUP]
    others = [field for field in of_record if field[0] != GROUP]
    mixed = itertools.zip_longest(groups, others)
    return [field for pair in mixed for field in pair if field is not None]


def in_other_order(batch: bytes, order: Callable[[list[Field]], list[Field]]) -> bytes:
    """The same, and unknown fields everywhere. The scope is between the first item and the others."""
    made = b""
    for _, one in fields(batch):
        of_record = []
        for tag, field in fields(content(one)):
            if tag == GROUP:
                inside = fields(content(field))
                inside.sort(key=lambda pair: pair[0] == SCOPE)
                scope = [inside.pop()[1]] if inside and inside[-1][0] == SCOPE else []
                inner = [value for _, value in inside]
                made_field = message(GROUP, b"".join([*inner[:1], *scope, _UNKNOWN, *inner[1:]]))
            elif tag == RESOURCE:
                made_field = message(RESOURCE, _UNKNOWN + content(field))
            else:
                made_field = field
            of_record.append((tag, made_field))
        made += message(RECORD, _UNKNOWN.join(field for _, field in order(of_record)) + _UNKNOWN)
    return made


def several_groups(number: int, tenant: str, flat_batch: TelemetryBatchV1) -> TelemetryBatch:
    """The items of its first record in groups: with a scope and without, with two items, one, none, and one that is empty. Its
    other records, and a receipt."""
    made = TelemetryBatch.FromString(encoded(flat_batch))
    first = made.records[0]
    whole = first.groups[0]
    found = list(whole.items)
    assert len(found) >= 4
    del first.groups[:]
    for at, count in enumerate((2, 0, 1, 1, 0, len(found))):
        group = first.groups.add(items=found[:count])
        found = found[count:]
        if at not in (2, 4):
            group.scope.CopyFrom(whole.scope)
            group.scope.name = f"library {at}"
            batches.attributes(group.scope.attributes, **{f"only_{at}": "x"})
        if at in (1, 2, 5):
            group.schema_url = f"schema {at}"
    first.groups.add(items=[b""]) if signal_of(first) == "metrics" else first.groups.add()
    made.records.add(
        tenant_id=tenant, batch_id=batches.batch_id(number), received_time_unix_nano=batches.NOW, batch_part=3,
        receipt=letters.any_receipt(), fingerprint=number.to_bytes(16, "big"), repeated_items=7,
    )  # fmt: skip
    return made


@pytest.mark.parametrize("order", [header_first, ascending, descending, header_between])
@pytest.mark.parametrize(("topic", "make"), _SIGNALS)
def test_every_item_of_every_group(
    store: ClickHouseStore,
    topic: str,
    make: Callable[[int, str], TelemetryBatchV1],
    order: Callable[[list[Field]], list[Field]],
) -> None:
    number = next(_NUMBERS)
    tenant = f"tenant-{number}"
    payload = several_groups(number, tenant, make(number, tenant)).SerializeToString()
    mixed = in_other_order(payload, order)
    assert items_of(mixed) == items_of(payload)
    assert store.can_complete(topic, mixed)
    store.insert(topic, [mixed], f"{number}")
    assert stored(store, tenant) == items_of(payload)
    columns = "BatchPart, Received, Fingerprint, RepeatedItems"
    row = store.query(f"SELECT {columns} FROM telemetry_batches WHERE TenantId = '{tenant}'", "TSV").decode().split()
    received = letters.any_receipt().received
    assert row == ["3", str(received), f"00000000-0000-0000-0000-{number:012x}", "7"]
    assert store.holds(topic, mixed)
    assert ({}, {}) == store.complete(topic, mixed, f"{number}")


def items_of(payload: bytes) -> list[bytes]:
    batch: Any = flat(payload)
    batch.DiscardUnknownFields()
    return sorted(items(batch))


def test_the_order_of_items(store: ClickHouseStore) -> None:
    """Rows of one time are in the order of the items, whatever group they are of."""
    number = next(_NUMBERS)
    made = batches.logs(number, f"tenant-{number}")
    (one,) = made.records
    del one.log_records[:]
    for n in range(60):
        one.log_records.add(time_unix_nano=batches.NOW).body.string_value = str(n)
    batch = TelemetryBatch.FromString(encoded(made))
    record = batch.records[0]
    found = list(record.groups[0].items)
    del record.groups[:]
    for at in range(0, 60, 7):
        record.groups.add(items=found[at : at + 7]).scope.name = str(-at)
    store.insert(LOGS_TOPIC, [batch.SerializeToString()], f"{number}")
    sql = f"SELECT Body, ScopeName FROM otel_logs WHERE TenantId = 'tenant-{number}' ORDER BY _part, _part_offset"
    expected = [f"{n}\t{-(n - n % 7)}" for n in range(60)]
    assert store.query(sql, "TSV").decode().splitlines() == expected
