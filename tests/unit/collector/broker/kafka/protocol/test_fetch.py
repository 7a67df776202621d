"""Record batches are read as aiokafka reads them, byte for byte. The request is the one that aiokafka would send."""

import io
import struct
from collections.abc import Mapping
from typing import Any

import google_crc32c
import pytest
from aiokafka.protocol.fetch import FetchRequest_v10, FetchResponse_v10
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from collector.broker.kafka.protocol.fetch import Arriving, WrongChecksum, batches, fetch_answer, fetch_request
from collector.broker.kafka.protocol.foreign_records import ForeignRecordLimits

MESSAGES = st.lists(st.tuples(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=300)), min_size=1, max_size=40)
COMPRESSIONS = st.sampled_from([0, 1, 2, 3, 4])
ALL = ForeignRecordLimits(0, 1 << 40, 1 << 40)
NONE_MADE: Mapping[int, int] = {}  # no checksum was computed while the answer came in


def batch(
    messages: list[tuple[bytes | None, bytes | None]], base: int, compression: int = 0, *, headers: bool = False
) -> bytes:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 20)
    for index, (key, value) in enumerate(messages):
        builder.append(index, 1000 + index, key, value, [("h", b"v"), ("", None)] if headers else [])
    built = bytearray(builder.build())
    built[0:8] = struct.pack(">q", base)  # the broker sets these bytes, and no checksum covers them
    return bytes(built)


def by_aiokafka(records: bytes) -> list[tuple[int, bytes]]:
    found = []
    read = MemoryRecords(records)
    while read.has_next():
        found += [(record.offset, record.value or b"") for record in read.next_batch()]
    return found


def read(records: bytes, checksums: Mapping[int, int] = NONE_MADE) -> list[tuple[int, bytes]]:
    return [(offset, bytes(payload)) for each in batches(memoryview(records), checksums) for offset, payload in each.messages]


def arrived(answer: bytes, cuts: set[int]) -> Mapping[int, int]:
    """Return the checksums of an answer that comes in parts, up to each of `cuts`. The bytes that have not come are wrong."""
    arriving = Arriving()
    for cut in sorted({*cuts, len(answer)}):
        have = min(cut, len(answer))
        arriving.received(memoryview(answer[:have] + b"\x7f" * (len(answer) - have)), have)
    return arriving.checksums


def in_an_answer(records: bytes) -> bytes:
    encoded: bytes = FetchResponse_v10(5, 0, 0, [("topic", [(3, 0, 100, 90, 0, [], records)])]).encode()
    return encoded


CUTS = st.sets(st.integers(0, 9000), max_size=20)


@given(st.lists(st.tuples(MESSAGES, COMPRESSIONS, st.booleans()), max_size=4), st.integers(0, 2**40))
def test_what_aiokafka_reads_is_read(written: list[tuple[Any, int, bool]], base: int) -> None:
    records = b""
    for messages, compression, headers in written:
        records += batch(messages, base, compression, headers=headers)
        base += len(messages)
    assert by_aiokafka(records) == read(records)
    nexts = [each.next_offset for each in batches(memoryview(records), NONE_MADE)]
    assert not nexts or nexts[-1] == base


@given(MESSAGES, MESSAGES, st.data())
def test_a_batch_that_is_cut_is_left_for_the_next_answer(one: Any, two: Any, data: st.DataObject) -> None:
    first, second = batch(one, 0), batch(two, len(one))
    cut = data.draw(st.integers(0, len(second) - 1))
    assert read(first) == read(first + second[:cut])


@given(MESSAGES, COMPRESSIONS, CUTS, st.data())
def test_one_wrong_bit_is_noticed(messages: Any, compression: int, cuts: set[int], data: st.DataObject) -> None:
    """A wrong bit in the checksum, or in what it covers, is found when an answer is read and while it comes in."""
    records = bytearray(batch(messages, 0, compression))
    at = data.draw(st.integers(17, len(records) - 1))
    records[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WrongChecksum):
        read(bytes(records))
    with pytest.raises(WrongChecksum):
        read(bytes(records), arrived(in_an_answer(bytes(records)), cuts))


@given(st.lists(st.tuples(MESSAGES, COMPRESSIONS), max_size=4), st.integers(0, 80), CUTS)
def test_checksums_are_made_while_an_answer_comes_in(written: list[tuple[Any, int]], cut: int, cuts: set[int]) -> None:
    """There is one for each batch that came whole, over the bytes that the batch's own checksum covers."""
    each = [batch(messages, 0, compression) for messages, compression in written]
    records = b"".join(each)[: -cut or None]
    expected = {}
    at = 0
    for one in each:
        if at + len(one) <= len(records):
            expected[at] = google_crc32c.value(one[21:])
        at += len(one)
    checksums = arrived(in_an_answer(records), cuts)
    assert expected == checksums
    assert read(records) == read(records, checksums)


def test_a_batch_that_is_large_is_checked_in_parts() -> None:
    records = batch([(None, bytes([at]) * 100_000) for at in range(5)], 0)
    answer = in_an_answer(records)
    assert {0: google_crc32c.value(records[21:])} == arrived(answer, set(range(0, len(answer), 130_001)))


@given(st.binary(max_size=200), st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, 2, 3]), CUTS)
def test_what_is_no_batch_is_left_alone(after: bytes, length: int, format_: int, cuts: set[int]) -> None:
    """An answer is read to its end, whatever length it announces."""
    records = struct.pack(">qiib", 0, length, -1, format_) + after
    assert set(arrived(in_an_answer(records), cuts)) <= {0, 12 + length}
    arrived(records, cuts)


def test_markers_of_transactions_are_no_messages() -> None:
    """A marker gives no message, and its offset is counted."""
    records = bytearray(batch([(b"\0\0\0\1", b"\0\0\0\0\0\0")], 7))
    records[21:23] = struct.pack(">h", 0x30)
    records[17:21] = struct.pack(">I", google_crc32c.value(bytes(records[21:])))
    assert [([], 8, len(records), -1, (), True)] == [tuple(each) for each in batches(memoryview(records), NONE_MADE)]


@given(MESSAGES, COMPRESSIONS, st.integers(0, 2**40), st.booleans())
def test_contexts_are_as_aiokafka_has_them(messages: Any, compression: int, base: int, is_append_time: bool) -> None:
    """Timestamps, by the producer's clock or the broker's, and headers are the same with every compression."""
    records = bytearray(batch(messages, base, compression, headers=True))
    if is_append_time:
        records[22] |= 8
        records[17:21] = struct.pack(">I", google_crc32c.value(bytes(records[21:])))
    (theirs,) = (list(each) for each in _batches_of(bytes(records)))
    (ours,) = batches(memoryview(bytes(records)), NONE_MADE, ALL)
    assert [
        (record.offset, -1, record.timestamp, [(key, value or b"") for key, value in record.headers], None) for record in theirs
    ] == [tuple(context) for context in ours.contexts]


def _batches_of(records: bytes) -> list[Any]:
    read = MemoryRecords(records)
    found = []
    while read.has_next():
        found.append(read.next_batch())
    return found


def test_a_header_whose_key_is_no_text_does_not_stop_reading() -> None:
    """Others wrote the batch, so its headers may be anything, compressed or not."""
    for compression in range(5):
        records = bytearray(batch([(None, b"value")], 3, compression, headers=True))
        if not compression:
            records[records.index(b"h", 61)] = 0xFF
            records[17:21] = struct.pack(">I", google_crc32c.value(bytes(records[21:])))
        (read_batch,) = batches(memoryview(bytes(records)), NONE_MADE, ALL)
        assert [(3, b"value")] == [(offset, bytes(payload)) for offset, payload in read_batch.messages]
        assert ("h" if compression else "\N{REPLACEMENT CHARACTER}", b"v") == read_batch.contexts[0].headers[0]


def test_an_unknown_compression_is_an_error_that_is_reported() -> None:
    records = bytearray(batch([(None, b"value")], 3))
    records[22] |= 7
    records[17:21] = struct.pack(">I", google_crc32c.value(bytes(records[21:])))
    with pytest.raises(ValueError, match="codec 7"):
        read(bytes(records))


def test_what_is_older_than_record_batches_is_read() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    for index in range(3):
        builder.append(index, 1000, None, b"%d" % index)
    records = bytes(builder.build())
    assert [(0, b"0"), (1, b"1"), (2, b"2")] == read(records)
    contexts = [context for each in batches(memoryview(records), NONE_MADE, ALL) for context in each.contexts]
    assert [(0, -1, 1000, [], None), (1, -1, 1000, [], None), (2, -1, 1000, [], None)] == [
        tuple(context) for context in contexts
    ]


@given(st.text("abc.-_", min_size=1, max_size=50), st.integers(0, 2**31 - 1), st.integers(0, 2**62), st.integers(1, 2**31 - 1))
def test_the_request_is_as_aiokafka_writes_it(topic: str, index: int, offset: int, bytes_max: int) -> None:
    theirs = FetchRequest_v10(-1, 0, 1, bytes_max, 0, 0, -1, [(topic, [(index, -1, offset, -1, bytes_max)])], [])
    assert theirs.encode() == fetch_request(topic, index, offset, bytes_max)


@given(
    topic=st.text("abc", min_size=1, max_size=9),
    code=st.integers(-1, 100),
    aborted=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3),
    records=st.binary(max_size=100),
)
def test_an_answer_is_read(topic: str, code: int, aborted: list[tuple[int, int]], records: bytes) -> None:
    answer = FetchResponse_v10(5, 0, 0, [(topic, [(3, code, 100, 90, 0, aborted, records)])]).encode()
    read_code, read_records = fetch_answer(memoryview(answer))
    assert (code, records) == (read_code, bytes(read_records))
    assert FetchResponse_v10.decode(io.BytesIO(answer)).topics[0][1][0][6] == records


def test_an_error_of_the_answer_as_a_whole_is_read() -> None:
    code, records = fetch_answer(memoryview(FetchResponse_v10(5, 71, 0, []).encode()))
    assert (71, b"") == (code, bytes(records))


@pytest.mark.parametrize("size", [0, 3, 12, 30])
def test_half_an_answer_is_none(size: int) -> None:
    answer = FetchResponse_v10(5, 0, 0, [("topic", [(3, 0, 100, 90, 0, [], b"abc")])]).encode()
    with pytest.raises(ValueError, match="not an answer"):
        fetch_answer(memoryview(answer[:size]))
