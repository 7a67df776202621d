"""The requests are those that aiokafka would send, and the answers say what it reads in them."""

import io
import struct
from typing import Any

import pytest
from aiokafka.protocol.commit import OffsetCommitRequest_v2, OffsetCommitResponse_v2, OffsetFetchResponse_v1
from aiokafka.protocol.offset import OffsetRequest_v1, OffsetResponse_v1
from hypothesis import given
from hypothesis import strategies as st

from collector.broker.contract import Partition
from collector.broker.kafka.protocol.offsets import (
    COMMIT_API,
    COMMITTED_API,
    EARLIEST,
    LATEST,
    LIST_API,
    commit_answer,
    commit_request,
    committed_answer,
    committed_request,
    epoch_end_answer,
    epoch_end_request,
    list_answer,
    list_request,
)

NAMES = st.text(max_size=20)
INT_16, INT_32, INT_64 = (st.integers(-(2**bits), 2**bits - 1) for bits in (15, 31, 63))
PARTITIONS = st.lists(st.builds(Partition, NAMES, INT_32), max_size=20, unique=True)


def by_topic(partitions: list[Partition], *more: Any) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """As aiokafka has them: in the order in which the topics come."""
    topics: dict[str, list[tuple[Any, ...]]] = {}
    for partition, *rest in zip(partitions, *more, strict=True):
        topics.setdefault(partition.topic, []).append((partition.index, *rest))
    return list(topics.items())


def test_versions() -> None:
    assert (OffsetRequest_v1.API_KEY, OffsetRequest_v1.API_VERSION) == LIST_API
    assert (OffsetCommitRequest_v2.API_KEY, OffsetCommitRequest_v2.API_VERSION) == COMMIT_API
    assert (OffsetFetchResponse_v1.API_KEY, OffsetFetchResponse_v1.API_VERSION) == COMMITTED_API


@given(PARTITIONS, st.sampled_from([EARLIEST, LATEST]))
def test_list_request(partitions: list[Partition], time: int) -> None:
    expected = OffsetRequest_v1(-1, by_topic(partitions, [time] * len(partitions)))
    topics = [(topic, [index for (index,) in indexes]) for topic, indexes in by_topic(partitions)]
    assert list_request(topics, time) == expected.encode()


@given(st.data(), PARTITIONS)
def test_list_answer(data: st.DataObject, partitions: list[Partition]) -> None:
    def drawn(numbers: st.SearchStrategy[int]) -> list[int]:
        return data.draw(st.lists(numbers, min_size=len(partitions), max_size=len(partitions)))

    codes, times, offsets = drawn(INT_16), drawn(INT_64), drawn(INT_64)
    answer = OffsetResponse_v1(by_topic(partitions, codes, times, offsets)).encode()
    assert OffsetResponse_v1.decode(io.BytesIO(answer)).encode() == answer
    assert list_answer(memoryview(answer)) == dict(zip(partitions, zip(codes, offsets, strict=True), strict=True))


@given(NAMES, INT_32, NAMES, st.builds(Partition, NAMES, INT_32), INT_64, NAMES)
def test_commit_request(
    group_id: str, generation: int, member_id: str, partition: Partition, offset: int, metadata: str
) -> None:
    topics = [(partition.topic, [(partition.index, offset, metadata)])]
    expected = OffsetCommitRequest_v2(group_id, generation, member_id, -1, topics)
    assert commit_request(group_id, generation, member_id, partition, offset, metadata) == expected.encode()


@given(st.builds(Partition, NAMES, INT_32), INT_16)
def test_commit_answer(partition: Partition, code: int) -> None:
    answer = OffsetCommitResponse_v2(by_topic([partition], [code])).encode()
    assert commit_answer(memoryview(answer), partition) == code


@given(st.builds(Partition, NAMES, INT_32), st.data())
def test_half_an_answer_is_none(partition: Partition, data: st.DataObject) -> None:
    """Nothing is taken for what it does not say."""
    committed = OffsetCommitResponse_v2(by_topic([partition], [0])).encode()
    listed = OffsetResponse_v1(by_topic([partition], [0], [0], [7])).encode()
    with pytest.raises(ValueError, match="not an answer"):
        commit_answer(memoryview(committed)[: data.draw(st.integers(0, len(committed) - 1))], partition)
    with pytest.raises(ValueError, match="not an answer"):
        list_answer(memoryview(listed)[: data.draw(st.integers(0, len(listed) - 1))])


def test_an_answer_about_another_partition() -> None:
    answer = OffsetCommitResponse_v2(by_topic([Partition("t", 1)], [0])).encode()
    with pytest.raises(ValueError, match="without t/2"):
        commit_answer(memoryview(answer), Partition("t", 2))


SAID = st.tuples(INT_16, INT_64, st.none() | NAMES)


@given(st.dictionaries(st.builds(Partition, NAMES, INT_32), SAID, max_size=20))
def test_committed_answer(said: dict[Partition, tuple[int, int, str | None]]) -> None:
    topics = by_topic(list(said), *([each[at] for each in said.values()] for at in (1, 2, 0)))
    answer = memoryview(OffsetFetchResponse_v1(topics).encode())
    expected = {partition: (code, offset, text or "") for partition, (code, offset, text) in said.items()}
    assert committed_answer(answer, said) == expected
    with pytest.raises(ValueError, match="without not asked for/0"):
        committed_answer(answer, [*said, Partition("not asked for", 0)])


def test_an_answer_about_nothing_says_of_none_that_it_is_not_committed() -> None:
    """Brokers of later versions answer so while they load a group: with no partitions."""
    with pytest.raises(ValueError, match=r"without infrasage\.logs/1"):
        committed_answer(memoryview(bytes(4)), [Partition("infrasage.logs", 1)])
    with pytest.raises(ValueError, match="3 bytes are not an answer"):
        committed_answer(memoryview(bytes(3)), [])


def test_committed_request() -> None:
    """The request has each topic once."""
    request = committed_request("g", [Partition("a", 1), Partition("b", 0), Partition("a", 2)])
    assert (
        request.hex(" ") == "00 01 67 00 00 00 02 00 01 61 00 00 00 02 00 00 00 01 00 00 00 02 00 01 62 00 00 00 01 00 00 00 00"
    )


def test_the_question_for_the_end_of_an_epoch_is_as_kafka_has_it() -> None:
    """Version 3 of the request, and of its answer."""
    request = epoch_end_request(Partition("ab", 7), 9, 4)
    assert struct.pack(">iih2siiii", -1, 1, 2, b"ab", 1, 7, 9, 4) == request
    answer = struct.pack(">iih2sihiiq", 0, 1, 2, b"ab", 1, 0, 7, 3, 21)
    assert (0, 3, 21) == epoch_end_answer(memoryview(answer))
    for size in range(len(answer)):
        with pytest.raises(ValueError, match="not an answer about the end of an epoch"):
            epoch_end_answer(memoryview(answer)[:size])
