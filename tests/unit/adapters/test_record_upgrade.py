"""Messages of version 1, read as those of today."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import Receipt, TelemetryBatch, TelemetryRecord
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support.batches import logs, metrics
from support.fakes.receiving import otlp_logs, otlp_metrics, otlp_traces
from support.letters import dead_letters, letter
from support.records import encoded
from support.strategies.batches import batches

from adapters.record_headers import header_first
from adapters.record_upgrade import HEAD_BYTES, current, is_current

SIGNALS = ["metrics", "log_records", "spans"]
HEADER = (
    *("tenant_id", "source", "type", "received_time_unix_nano", "batch_id", "service_id"),
    *("batch_part", "item_count", "fingerprint", "repeated_items"),
)


@given(st.lists(st.sampled_from(SIGNALS).flatmap(lambda signal: batches(signal, "acme", 1)), min_size=1, max_size=3))
def test_a_message_of_version_1_keeps_what_it_says(made: list[TelemetryBatchV1]) -> None:
    """Each record its header, resource, scope and items; and a receipt and a fingerprint, where a record has those."""
    version_1 = TelemetryBatchV1(records=[record for batch in made for record in batch.records])
    last = version_1.records.add(source=2, batch_id=b"b" * 16, batch_part=300, fingerprint=b"f" * 16, repeated_items=2**40)
    last.receipt.CopyFrom(Receipt(received=3, sequence=2**63, process_id=b"p" * 16))
    payload = current(version_1.SerializeToString())
    assert is_current(payload[:HEAD_BYTES])
    assert payload == header_first(payload)
    found = TelemetryBatch.FromString(payload).records
    assert len(version_1.records) == len(found)
    for before, after in zip(version_1.records, found, strict=True):
        assert 2 == after.version
        assert [getattr(before, name) for name in HEADER] == [getattr(after, name) for name in HEADER]
        assert before.receipt.SerializeToString() == after.receipt.SerializeToString()
        assert before.resource.SerializeToString() == after.resource.SerializeToString()
        assert before.resource_schema_url == after.schema_url
        items: list[Any] = [*before.metrics, *before.log_records, *before.spans]
        assert [item.SerializeToString() for item in items] == [item for group in after.groups for item in group.items]
        assert len(after.groups) == (before is not last)
        for group in after.groups:
            assert before.scope.SerializeToString() == group.scope.SerializeToString()
            assert before.scope_schema_url == group.schema_url


VERSION_1 = metrics(1, "acme").SerializeToString()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"\x0a",
        b"\x0a\x00",
        VERSION_1[:-1],
        VERSION_1[:100],
        VERSION_1 + b"\x12\x00",
        encoded(logs(1, "acme")),
        TelemetryBatch.FromString(encoded(logs(1, "acme"))).SerializeToString(),
        TelemetryBatch(records=[TelemetryRecord(service_id="a", item_count=1)]).SerializeToString(),
        otlp_logs(),
        otlp_metrics(),
        otlp_traces(),
        dead_letters(letter(1)),
    ],
)
def test_what_is_no_record_of_version_1_is_left_alone(payload: bytes) -> None:
    """Today's, in whichever order; OTLP as other collectors write it; what is cut, and what is nothing of ours."""
    assert payload is current(payload)


@pytest.mark.parametrize("size", [1, 100, 20_000, 1_023_999, 1_024_064, 1_024_128, 3_000_000])
def test_no_length_is_taken_for_a_version(size: int) -> None:
    """The length of a first record of some 1,024,000 bytes ends in the bytes that are the tag of a version."""
    version_1 = logs(1, "acme")
    (record,) = version_1.records
    record.scope.name = "x" * size
    record.scope.name = "x" * max(1, 2 * size - record.ByteSize())
    payload = version_1.SerializeToString()
    assert not is_current(payload[:HEAD_BYTES])
    assert encoded(version_1) == current(payload)
