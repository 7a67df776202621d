"""Headers of records, read without their items, and the order in which records are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import Receipt, TelemetryBatch
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support.records import encoded
from support.strategies.batches import batches

from adapters.codec.wire import Cursor, NonCanonical
from adapters.record_headers import header_first, record_headers
from adapters.record_upgrade import HEAD_BYTES, is_current

SIGNALS = ["metrics", "log_records", "spans"]


@given(st.lists(st.sampled_from(SIGNALS).flatmap(lambda signal: batches(signal, "acme", 1)), max_size=3), st.booleans())
def test_headers_are_those_of_records(made: list[TelemetryBatchV1], has_receipt: bool) -> None:
    """Protobuf's own parser reads the same, in whichever order fields are."""
    batch = TelemetryBatch.FromString(b"".join(map(encoded, made)))
    if has_receipt:
        batch.records.add(receipt=Receipt(received=3, process_id=b"p"))
    expected = [
        (
            record.tenant_id.encode(),
            record.received_time_unix_nano,
            record.batch_id,
            record.item_count,
            record.receipt.SerializeToString() if record.HasField("receipt") else None,
        )
        for record in batch.records
    ]
    for payload in (batch.SerializeToString(), header_first(batch.SerializeToString())):
        found = [
            (each.tenant, each.received_time_unix_nano, each.batch_id, each.item_count, each.receipt)
            for each in record_headers(payload)
        ]
        assert expected == found


@pytest.mark.parametrize("payload", [b"\xff", b"\x0a\x05", b"\x0a\x02\x08\xff"])
def test_what_is_no_message_has_no_headers(payload: bytes) -> None:
    with pytest.raises(NonCanonical):
        record_headers(payload)


@given(st.sampled_from(SIGNALS).flatmap(lambda signal: batches(signal, "acme", 1)))
def test_the_header_comes_first_and_nothing_is_lost(made: TelemetryBatchV1) -> None:
    """Protobuf's own encoder writes by number; ours is the order of messages that adapters write. Unknown fields stay."""
    payload = encoded(made)
    batch = TelemetryBatch.FromString(payload)
    written = header_first(batch.SerializeToString() + b"\x7a\x01x")
    assert b"\x7a\x01x" == written[-3:]
    assert batch == TelemetryBatch.FromString(written[:-3])
    assert is_current(written[:HEAD_BYTES])
    assert written == header_first(written)
    (record,) = batch.records
    numbers = _numbers(header_first(TelemetryBatch(records=[record]).SerializeToString()))
    assert numbers == sorted(numbers, key=_place)


def _place(number: int) -> tuple[int, int]:
    """The version, the header, the resource and its groups, and what is known at the end."""
    if number == 1012:
        return 0, number
    return (1 if 1000 < number < 1007 else 2 if number < 1000 else 3), number


def _numbers(payload: bytes) -> list[int]:
    """Those of the fields of the one record, in their order."""
    cursor = Cursor(payload)
    cursor.field(len(payload))
    end = cursor.position
    cursor.position = cursor.start
    found = []
    while cursor.position < end:
        found.append(int(cursor.field(end)) >> 3)
    return found
