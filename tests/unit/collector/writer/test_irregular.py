"""The field of a refused record that is not as protobuf's own encoder writes it."""

import pytest
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from support import batches

from adapters.codec.wire import length_of
from collector.writer.irregular import irregular_field

HISTOGRAM = (0x0A, 0x5A, 0x4A, 0x0A)  # records, metrics, histogram, data_points
PATH = "records.metrics.histogram.data_points"


def within(content: bytes, *tags: int) -> bytes:
    for tag in reversed(tags):
        content = bytes([tag]) + length_of(len(content)) + content
    return content


@pytest.mark.parametrize("make", [batches.metrics, batches.logs, batches.traces])
def test_a_regular_record_has_none(make: object) -> None:
    batch: TelemetryBatch = make(1, "acme")  # type: ignore[operator]
    assert irregular_field(batch.SerializeToString()) is None
    assert irregular_field(b"") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x32\x00", "bucket_counts (an empty list)"),
        (b"\x3a\x00", "explicit_bounds (an empty list)"),
        (b"\x31" + bytes(8), "bucket_counts (a list that is not packed)"),
        (b"\x18\x01", "time_unix_nano (wire type 0)"),
        (b"\xfa\x06\x00", "111 (unknown)"),
        (b"\x32\x05", "(malformed)"),
    ],
)
def test_the_first_irregular_field_is_named(content: bytes, said: str) -> None:
    """With the way to it; what comes before it is regular."""
    good = within(b"\x19" + bytes(8), *HISTOGRAM)
    expected = f"{PATH}{said}" if said.startswith("(") else f"{PATH}.{said}"
    assert expected == irregular_field(good + within(content, *HISTOGRAM))
