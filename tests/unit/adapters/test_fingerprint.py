"""Fingerprints: which request, which message, which partition; and what is in the place of a message that is left out."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import Receipt, TelemetryBatch, TelemetryRecord
from librt.strings import BytesWriter
from support.examples import examples

from adapters.fingerprint import (
    Fingerprint,
    layout_fingerprints,
    partition_of,
    placeholder,
    put_fingerprint,
    read_fingerprint,
    request_fingerprint,
    request_seed,
)
from adapters.record import LOGS, Adapted, Part, Rejection

BODY = b"a body" * 100
# Of 6 partitions, and of 50.
PINNED = [2, 0, 5, 3, 3, 4, 4, 1, 4, 0, 2, 26, 5, 21, 43, 4, 18, 38, 9, 19]


def adapted(*parts: int, rejected: tuple[int, ...] = ()) -> Adapted:
    """Parts of so many items, and rejected items by index."""
    made = Adapted()
    made.parts = [Part(LOGS, bytes(items), items, 0) for items in parts]
    made.rejections = [Rejection(index, 2, 20, "why") for index in rejected]
    if rejected:
        made.rejected = {(2, 20): len(rejected)}
    return made


def test_a_fingerprint_tells_requests_apart() -> None:
    """Route, key and body, and the borders between them."""
    logs, traces = request_seed("/v1/logs"), request_seed("/v1/traces")
    requests = [(logs, BODY, b""), (traces, BODY, b""), (logs, BODY, b"key"), (logs, BODY, b"key2"), (logs, BODY + b"k", b"ey")]
    found = [request_fingerprint(*request) for request in requests]
    assert len(requests) == len(set(found))
    assert {16} == {len(each) for each in found}
    assert found == [request_fingerprint(*request) for request in requests]


def test_parts_with_other_items_have_other_fingerprints() -> None:
    """A single part is the request; else each place, each division, and each set of rejected items has its own."""
    request = request_fingerprint(request_seed("/v1/logs"), BODY, b"")
    assert [request] == layout_fingerprints(request, adapted(5))
    divided = [
        layout_fingerprints(request, each)
        for each in (
            adapted(5),
            adapted(2, 3),
            adapted(3, 2),
            adapted(5, rejected=(1,)),
            adapted(5, rejected=(2,)),
            adapted(2, 3, rejected=(2,)),
        )
    ]
    for one, other in combinations(divided, 2):
        assert not set(one) & set(other)
    assert all(len(each) == len(set(each)) for each in divided)
    assert [] == layout_fingerprints(request, adapted(rejected=(0,)))


RECORDS = st.lists(
    st.builds(
        TelemetryRecord,
        tenant_id=st.text(max_size=5),
        service_id=st.text(max_size=5),
        item_count=st.integers(0, 300),
        received_time_unix_nano=st.integers(0, 2**64 - 1),
    ),
    max_size=4,
)


@examples(100)
@given(records=RECORDS, value=st.binary(min_size=16, max_size=16), has_receipt=st.booleans(), part=st.integers(0, 300))
def test_a_message_says_its_fingerprint(records: list[TelemetryRecord], value: bytes, has_receipt: bool, part: int) -> None:
    """It is read from the last record, and only where it has one; the stand-in has the same."""
    plain = TelemetryBatch(records=records).SerializeToString()
    assert read_fingerprint(plain) is None
    end = TelemetryRecord(tenant_id="t", received_time_unix_nano=7, batch_id=b"b" * 16, batch_part=part)
    if has_receipt:
        end.receipt.CopyFrom(Receipt(received=3, route="/v1/logs"))
    writer = BytesWriter()
    writer.write(end.SerializeToString())
    put_fingerprint(writer, value)
    last = TelemetryRecord.FromString(writer.getvalue())
    assert value == last.fingerprint
    message = plain + TelemetryBatch(records=[last]).SerializeToString()
    assert (b"t", value, 7) == _read(message)
    # And what is in its place has the receipt and no items.
    (record,) = TelemetryBatch.FromString(placeholder(message)).records
    assert sum(record.item_count for record in records) == record.repeated_items
    record.repeated_items = 0
    assert last == record


def _read(message: bytes) -> tuple[bytes, bytes, int]:
    found = read_fingerprint(message)
    assert found is not None
    return contents_of(found)


def contents_of(print_: Fingerprint) -> tuple[bytes, bytes, int]:
    return print_.tenant, print_.value, print_.received_time_unix_nano


@pytest.mark.parametrize("before", [0, 1, 127, 128, 16_383, 16_384, 70_000])
def test_records_of_every_length_are_passed(before: int) -> None:
    """Lengths of one, two and three bytes, before the last record and between others."""
    end = TelemetryRecord(tenant_id="t", received_time_unix_nano=7, fingerprint=b"f" * 16)
    others = [TelemetryRecord(service_id="s" * size) for size in (before, 5, before)]
    assert (b"t", b"f" * 16, 7) == _read(TelemetryBatch(records=[*others, end]).SerializeToString())
    end.service_id = "s" * before
    assert (b"t", b"f" * 16, 7) == _read(TelemetryBatch(records=[*others, end]).SerializeToString())


LENGTHS = st.lists(st.sampled_from([0, 5, 127, 4000, 4090, 4096, 5000, 20_000]), max_size=4)


@examples(100)
@given(
    lengths=LENGTHS,
    end=st.sampled_from(
        ["a fingerprint", "no fingerprint", "other fields", "cut", "a length beyond the end", "a negative length"]
    ),
    cut=st.integers(0, 9000),
)
def test_a_view_is_read_as_its_bytes_are(lengths: list[int], end: str, cut: int) -> None:
    """This holds whatever large records come before the last one, behind what is no record, and if it is damaged."""
    last = TelemetryRecord(tenant_id="t", received_time_unix_nano=7, fingerprint=b"f" * 16 if end == "a fingerprint" else b"")
    others = [TelemetryRecord(service_id="s" * length) for length in lengths]
    message = TelemetryBatch(records=[*others, last]).SerializeToString()
    if end == "other fields":
        message += b"\x78\x01" + message
    elif end == "cut":
        message = message[: max(0, len(message) - cut)]
    elif end == "a length beyond the end":
        message += b"\x0a\xff\xff\xff\x7f" + bytes(cut)
    elif end == "a negative length":
        message += b"\x0a" + b"\xff" * 9 + b"\x01" + bytes(cut)
    found, expected = read_fingerprint(memoryview(message)), read_fingerprint(message)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert contents_of(expected) == contents_of(found)
    if end == "a fingerprint":
        assert found is not None


@pytest.mark.parametrize("payload", [b"", b"\x0a\xff", b"\xff" * 20, b"\x0a\x02\x92\x3f"])
def test_what_is_no_message_has_no_fingerprint(payload: bytes) -> None:
    """Other producers may write to our topics."""
    assert read_fingerprint(payload) is None


def test_a_fingerprint_has_the_same_partition_in_every_version() -> None:
    """Otherwise a repetition across an upgrade would go to another partition than its first copy, and be stored."""
    prints = [bytes(range(start, start + 16)) for start in range(0, 240, 24)]
    assert PINNED == [partition_of(each, partitions) for partitions in (6, 50) for each in prints]


def test_added_partitions_take_their_share_and_move_nothing_else() -> None:
    """Evenly spread; of n partitions the new one takes one in n, and nothing else moves."""
    prints = [request_fingerprint(1, number.to_bytes(4, "big"), b"") for number in range(4000)]
    for partitions in (1, 2, 3, 6, 7, 50):
        before = [partition_of(each, partitions) for each in prints]
        after = [partition_of(each, partitions + 1) for each in prints]
        assert set(before) == set(range(partitions))
        assert max(Counter(before).values()) < 2.5 * len(prints) / partitions
        moved = [new for old, new in zip(before, after, strict=True) if old != new]
        assert {partitions} == set(moved)
        assert len(moved) == pytest.approx(len(prints) / (partitions + 1), rel=0.5)
