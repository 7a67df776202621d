"""Batches that others wrote: read in parts, as far as they go, and never more than is wanted."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from collector.broker.contract import MessageContext, Unread
from collector.broker.kafka.protocol import foreign_records
from collector.broker.kafka.protocol.compression import Undecodable, pieces
from collector.broker.kafka.protocol.foreign_records import BatchHead, ForeignRecordLimits, ForeignRecords, read

MIB = 1 << 20
BASE = 50
ALL = ForeignRecordLimits(0, 1 << 40, 1 << 40)
COUNT = 20


def records(values: list[bytes], headers: Any = ()) -> bytes:
    """As a batch has them, not compressed."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for index, value in enumerate(values):
        builder.append(index, 1000 + index, b"key", value, list(headers))
    return bytes(builder.build())[61:]


def head(count: int) -> BatchHead:
    return BatchHead(BASE, BASE + count, 7, 1000, 2000, None)


def found(inside: bytes, count: int, wanted: ForeignRecordLimits = ALL, piece_bytes: int = MIB) -> ForeignRecords:
    return read(head(count), b"raw", cut(inside, piece_bytes), wanted)


def cut(inside: bytes, piece_bytes: int) -> Iterator[bytes]:
    return (inside[at : at + piece_bytes] for at in range(0, len(inside), piece_bytes))


def shown(*parts: ForeignRecords) -> list[Any]:
    return [
        (offset, bytes(value), context)
        for part in parts
        for (offset, value), context in zip(part.messages, part.contexts, strict=True)
    ]


@given(
    values=st.lists(st.binary(max_size=300), min_size=1, max_size=COUNT),
    bytes_max=st.integers(1, 3000),
    piece_bytes=st.integers(1, 400),
    value_bytes_max=st.integers(10, 400),
)
def test_parts_of_a_batch_are_the_whole(values: list[bytes], bytes_max: int, piece_bytes: int, value_bytes_max: int) -> None:
    """They are, wherever one ends, and however it is decompressed."""
    inside = records(values, [("name", b"text")])
    wanted = ALL._replace(value_bytes_max=value_bytes_max)
    whole = found(inside, len(values), wanted)
    assert whole.is_whole
    assert [(BASE + index, value) for index, value in enumerate(values)] == [each[:2] for each in shown(whole)]
    parts: list[ForeignRecords] = []
    offset = 0
    while not parts or not parts[-1].is_whole:
        parts.append(found(inside, len(values), wanted._replace(offset=offset, bytes_max=bytes_max), piece_bytes))
        offset = parts[-1].next_offset
        assert sum(len(value) for _, value in parts[-1].messages) < bytes_max + 300
    assert shown(whole) == shown(*parts)
    assert BASE + len(values) == offset


def test_of_a_value_that_is_too_large_the_beginning_is_read() -> None:
    """It is read with its headers, which are behind it. What comes before and after it is whole."""
    large = b"x" * (3 * MIB)
    inside = records([b"a", large, b"b"], [("name", b"text")])
    result = found(inside, 3, ALL._replace(value_bytes_max=2 * MIB))
    assert [b"a", large[:MIB], b"b"] == [bytes(value) for _, value in result.messages]
    assert [[("name", b"text")]] * 3 == [list(context.headers) for context in result.contexts]
    why = "the message has 3145728 bytes, the limit (http.decompressed_bytes_max) is 2097152"
    assert [None, Unread(why, True, 3 * MIB), None] == [context.unread for context in result.contexts]


def test_headers_have_a_limit() -> None:
    inside = records([b"value"], [("name", bytes(2 * MIB))]) + records([b"next"])
    result = found(inside, 2)
    assert [b"value", b"next"] == [bytes(value) for _, value in result.messages]
    unread = result.contexts[0].unread
    assert unread is not None
    assert (True, [], "headers") == (unread.is_too_large, result.contexts[0].headers, unread.why.split()[2])


@given(at=st.integers(0, 10_000), offset=st.integers(0, BASE + COUNT - 1))
def test_a_damaged_batch_is_read_as_far_as_it_goes(at: int, offset: int) -> None:
    """The rest is one message, whose value is the batch as it was written."""
    values = [b"%d" % index * 100 for index in range(COUNT)]
    inside = records(values)
    at %= len(inside)

    def damaged() -> Iterator[bytes]:
        yield from cut(inside[:at], 100)
        raise Undecodable("it is damaged")

    result = read(head(COUNT), b"raw", damaged(), ALL._replace(offset=offset))
    *good, last = shown(result)
    assert good == [each for each in shown(found(inside, COUNT)) if offset <= each[0] < last[0]]
    assert (BASE + COUNT, True, b"raw") == (result.next_offset, result.is_whole, last[1])
    left = f"messages {last[0]} to {BASE + COUNT - 1}" if last[0] < BASE + COUNT - 1 else f"message {last[0]}"
    unread = Unread(f"{left} can not be read: it is damaged", False, 3)
    assert MessageContext(last[0], 7, 2000, [], unread) == last[2]


@given(st.binary(max_size=200), st.integers(0, 7))
def test_whatever_is_in_a_batch_it_is_read(inside: bytes, codec: int) -> None:
    """Nothing else is raised, and its end is reached."""
    given_pieces: Iterator[bytes] = pieces(codec, inside) if codec else iter([inside])
    assert (BASE + 3, True) == read(head(3), inside, given_pieces, ALL)[2:]


@pytest.mark.parametrize(
    ("limit", "why"), [("_BATCH_BYTES_MAX", "more than 1024 MiB"), ("_BATCH_MESSAGES_MAX", "1000000 messages")]
)
def test_a_batch_of_too_much_is_read_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch, limit: str, why: str) -> None:
    values = [b"x" * 100] * COUNT
    lowered = {"_BATCH_BYTES_MAX": 500, "_BATCH_MESSAGES_MAX": 5}[limit]
    monkeypatch.setattr(foreign_records, limit, lowered)
    result = found(records(values), COUNT)
    assert len(result.messages) == 6
    unread = result.contexts[-1].unread
    assert unread is not None
    assert (True, True) == (unread.is_too_large, why.replace("1024", "0").replace("1000000", "5") in unread.why)
    assert (BASE + COUNT, True) == (result.next_offset, result.is_whole)


def test_of_many_small_messages_only_some_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is an object, also without a value."""
    monkeypatch.setattr(foreign_records, "_MESSAGES_AT_ONCE", 8)
    inside = records([b""] * COUNT)
    first = found(inside, COUNT)
    assert (8, BASE + 8, False) == (len(first.messages), first.next_offset, first.is_whole)
    last = found(inside, COUNT, ALL._replace(offset=BASE + 16))
    assert (4, BASE + COUNT, True) == (len(last.messages), last.next_offset, last.is_whole)
