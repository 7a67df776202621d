"""The field of a refused record that is not as protobuf's own encoder writes it."""

import pytest
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support import batches
from support.records import encoded

from adapters.codec.wire import length_of
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.writer.irregular import irregular_field

HISTOGRAM = (0x0A, 0x12, 0x12, 0x4A, 0x0A)  # records, groups, items, histogram, data_points
PATH = "records.groups.items.histogram.data_points"


def within(content: bytes, *tags: int) -> bytes:
    for tag in reversed(tags):
        content = bytes([tag]) + length_of(len(content)) + content
    return content


@pytest.mark.parametrize(
    ("topic", "make"), [(METRICS_TOPIC, batches.metrics), (LOGS_TOPIC, batches.logs), (TRACES_TOPIC, batches.traces)]
)
def test_a_regular_record_has_none(topic: str, make: object) -> None:
    batch: TelemetryBatchV1 = make(1, "acme")  # type: ignore[operator]
    assert irregular_field(topic, encoded(batch)) is None
    assert irregular_field(topic, b"") is None


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
    """The error has the way to it. What comes before it is regular."""
    good = within(b"\x19" + bytes(8), *HISTOGRAM)
    expected = f"{PATH}{said}" if said.startswith("(") else f"{PATH}.{said}"
    assert expected == irregular_field(METRICS_TOPIC, good + within(content, *HISTOGRAM))


@pytest.mark.parametrize(
    ("topic", "item", "said"),
    [
        (LOGS_TOPIC, b"\x32\x01\x00", "attributes(malformed)"),
        (TRACES_TOPIC, b"\x58\x00", "events (wire type 0)"),
        ("infrasage.other", b"\xff", None),
    ],
)
def test_items_are_read_as_those_of_their_topic(topic: str, item: bytes, said: str | None) -> None:
    """An item of a topic that is no signal's is not looked into."""
    expected = None if said is None else f"records.groups.items.{said}"
    assert expected == irregular_field(topic, within(item, 0x0A, 0x12, 0x12))
