"""Headers are read without the items."""

from uuid import UUID

import pytest
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from support import batches
from support.records import encoded

from collector.store.payload_index import contents


def test_counts() -> None:
    """Items are added up over the records and payloads of one message, and over no other."""
    payloads = [
        encoded(batches.gauge(1, 5)),
        encoded(batches.gauge(1, 7)),
        encoded(batches.gauge(1, 2, part=300)),
        encoded(batches.gauge(2, 1)),
        encoded(batches.metrics(3, "t")),
    ]
    first, second, third = (UUID(bytes=batches.batch_id(number)) for number in (1, 2, 3))
    assert contents(b"".join(payloads)).items == {(first, 0): 12, (first, 300): 2, (second, 0): 1, (third, 0): 39}


def test_nothing() -> None:
    assert contents(b"") == ({}, set())


def test_unknown_fields() -> None:
    """Fields of a later TelemetryBatch or TelemetryRecord are passed over."""
    record = TelemetryBatch.FromString(encoded(batches.gauge(1, 5))).records[0].SerializeToString() + b"\xda\x7f\x03abc"
    payload = b"\x12\x02xy\x0a" + bytes([len(record) & 127 | 128, len(record) >> 7]) + record
    assert list(contents(payload).items.values()) == [5]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_truncated(cut: int) -> None:
    """Bytes that end too soon are said to be malformed, with numbers."""
    payload = encoded(batches.gauge(1, 1))[:-cut]
    with pytest.raises(ValueError, match=f"{len(payload)} bytes"):
        contents(payload)


def test_no_batch_id() -> None:
    batch = batches.gauge(1, 1)
    batch.records[0].batch_id = b"short"
    with pytest.raises(ValueError, match="5 bytes, not 16"):
        contents(encoded(batch))
