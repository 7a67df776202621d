"""What is written is what aiokafka reads, and what it would write: batches, requests and answers."""

import io
import struct
from typing import Any

import pytest
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from collector.broker.kafka.protocol.produce import (
    BATCH_OVERHEAD_BYTES,
    MESSAGE_OVERHEAD_BYTES,
    next_sequence,
    partition_batch,
    produce_answer,
    produce_request,
)

PAYLOADS = st.lists(
    st.one_of(st.binary(max_size=200), st.integers(0, 40_000).map(lambda size: b"\xab" * size)), min_size=1, max_size=150
)
COMPRESSIONS = ["none", "gzip", "snappy", "lz4", "zstd"]


@given(
    partition=st.integers(0, 2**31 - 1),
    payloads=PAYLOADS,
    time_ms=st.integers(0, 2**45),
    producer=st.tuples(st.integers(0, 2**62), st.integers(0, 2**15 - 1), st.integers(0, 2**31 - 1)),
    compression=st.sampled_from(COMPRESSIONS),
)
def test_a_batch_is_read_as_it_was_written(
    partition: int, payloads: list[bytes], time_ms: int, producer: tuple[int, int, int], compression: str
) -> None:
    """Behind its partition and size, each message with its offset and time, under the producer and its sequence; and no larger
    than the limit counts."""
    request = b"".join(partition_batch(partition, payloads, time_ms, *producer, compression))
    written = request[8:]
    assert struct.pack(">ii", partition, len(written)) == request[:8]
    records = MemoryRecords(written)
    (batch,) = iter(records.next_batch, None)
    assert batch.validate_crc()
    assert producer == (batch.producer_id, batch.producer_epoch, batch.base_sequence)
    assert (False, False) == (batch.is_transactional, batch.is_control_batch)
    assert COMPRESSIONS.index(compression) == batch.compression_type
    read = [(each.offset, each.timestamp, each.key, each.value, each.headers) for each in batch]
    assert [(offset, time_ms, None, payload, []) for offset, payload in enumerate(payloads)] == read
    assert batch.next_offset == len(payloads)
    if compression == "none":
        size_max = BATCH_OVERHEAD_BYTES + sum(len(payload) + MESSAGE_OVERHEAD_BYTES for payload in payloads)
        assert len(written) <= size_max


def test_a_large_payload_is_not_copied() -> None:
    payload = bytes(100_000)
    assert any(piece is payload for piece in partition_batch(0, [b"a", payload, b"b"], 0, 1, 0, 0, "none"))


def test_sequences_begin_anew_after_the_largest() -> None:
    assert 5 == next_sequence(2, 3)
    assert 2 == next_sequence(2**31 - 1, 3)


BATCHES = st.dictionaries(
    st.text("abc.-_", min_size=1, max_size=20),
    st.dictionaries(st.integers(0, 2**31 - 1), PAYLOADS, min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)


@given(batches=BATCHES, timeout_ms=st.integers(0, 2**31 - 1))
def test_the_request_is_as_aiokafka_writes_it(batches: dict[str, dict[int, list[bytes]]], timeout_ms: int) -> None:
    ours = {
        topic: [partition_batch(index, payloads, 0, 1, 0, 0, "none") for index, payloads in each.items()]
        for topic, each in batches.items()
    }
    topics = [
        (topic, [(index, b"".join(batch)[8:]) for index, batch in zip(each, ours[topic], strict=True)])
        for topic, each in batches.items()
    ]
    theirs = ProduceRequest_v7(transactional_id=None, required_acks=-1, timeout=timeout_ms, topics=topics)
    assert theirs.encode() == b"".join(produce_request(ours, timeout_ms))


@given(
    topics=st.dictionaries(
        st.text(min_size=1, max_size=9), st.dictionaries(st.integers(0, 99), st.integers(-1, 99), max_size=4), max_size=3
    )
)
def test_an_answer_is_read(topics: dict[str, dict[int, int]]) -> None:
    answered: list[Any] = [(topic, [(index, code, 7, -1, 0) for index, code in each.items()]) for topic, each in topics.items()]
    answer = ProduceResponse_v7(answered, 0).encode()
    assert {(topic, index): code for topic, each in topics.items() for index, code in each.items()} == produce_answer(
        memoryview(answer)
    )
    assert ProduceResponse_v7.decode(io.BytesIO(answer)).throttle_time_ms == 0


@pytest.mark.parametrize("size", [0, 3, 5, 12, 30])
def test_half_an_answer_is_none(size: int) -> None:
    answer = ProduceResponse_v7([("topic", [(3, 0, 100, -1, 0)])], 0).encode()
    with pytest.raises(ValueError, match="not an answer"):
        produce_answer(memoryview(answer[:size]))
