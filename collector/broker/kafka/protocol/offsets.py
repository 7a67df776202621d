"""Requests for the beginnings and ends of partitions, commits, and committed offsets, with their answers: bytes in, bytes out.

aiokafka's schemas cost ten times as much, and each insert of the writer needs three of the first two kinds. Committed offsets
are read once a generation. Source: kafka.apache.org, "ListOffsets API" version 1, "OffsetCommit API" version 2 and
"OffsetFetch API" version 1: all brokers since Kafka 0.10.1 take them, including Kafka 4. "OffsetForLeaderEpoch API" version 3:
brokers since Kafka 2.3.
"""

import io
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from aiokafka.protocol.commit import OffsetFetchRequest_v1, OffsetFetchResponse_v1

from collector.broker.contract import Partition

LIST_API: Final = (2, 1)
COMMIT_API: Final = (8, 2)
# From version 2 on, an error of the whole request has its own field, and no partitions follow. Version 1 reports it for each.
COMMITTED_API: Final = (9, 1)
EPOCH_END_API: Final = (23, 3)

EARLIEST: Final = -2
LATEST: Final = -1

_COUNT: Final = struct.Struct(">i")
_LENGTH: Final = struct.Struct(">h")
_ASKED: Final = struct.Struct(">iq")  # a partition, and a time
_FOUND: Final = struct.Struct(">ihqq")  # a partition, an error, a time, the offset
_COMMITTED: Final = struct.Struct(">ih")  # a partition, an error
_EPOCH_END: Final = struct.Struct(">hiiq")  # an error, a partition, an epoch, and the offset at which it ends
_NO_REPLICA: Final = struct.pack(">i", -1)
_RETENTION: Final = struct.pack(">q", -1)  # the broker's own setting


def list_request(topics: Sequence[tuple[str, Sequence[int]]], time: int) -> bytes:
    """Return a request for the first offset (EARLIEST), or the next to be written (LATEST), of each topic's partitions."""
    out = [_NO_REPLICA, _COUNT.pack(len(topics))]
    for topic, indexes in topics:
        out += [_string(topic), _COUNT.pack(len(indexes))]
        out += [_ASKED.pack(index, time) for index in indexes]
    return b"".join(out)


def list_answer(answer: memoryview) -> dict[Partition, tuple[int, int]]:
    """Return the error's code and the offset, by partition. Raises ValueError."""
    return {partition: (code, offset) for partition, (code, _, offset) in _partitions(answer, _FOUND).items()}


def epoch_end_request(partition: Partition, leader_epoch: int, epoch: int) -> bytes:
    """Return a request to the leader of `leader_epoch` for the offset after the last message of `epoch` or an earlier epoch."""
    asked = struct.pack(">iiii", 1, partition.index, leader_epoch, epoch)
    return b"".join([_NO_REPLICA, _COUNT.pack(1), _string(partition.topic), asked])


def epoch_end_answer(answer: memoryview) -> tuple[int, int, int]:
    """Return the error's code, the last epoch up to the requested one, and where it ends (below 0: not known). Raises
    ValueError."""
    try:
        (length,) = _LENGTH.unpack_from(answer, 8)  # after the time that the broker has held it back, and the number of topics
        code, _, epoch, end = _EPOCH_END.unpack_from(answer, 8 + _LENGTH.size + length + _COUNT.size)
    except struct.error as error:
        raise ValueError(f"{len(answer)} bytes are not an answer about the end of an epoch") from error
    return code, epoch, end


def commit_request(group_id: str, generation: int, member_id: str, partition: Partition, offset: int, metadata: str) -> bytes:
    """Return a request that commits an offset, in a generation of the group, as a member of it."""
    return b"".join(
        [
            _string(group_id),
            _COUNT.pack(generation),
            _string(member_id),
            _RETENTION,
            _COUNT.pack(1),
            _string(partition.topic),
            _COUNT.pack(1),
            struct.pack(">iq", partition.index, offset),
            _string(metadata),
        ]
    )


def commit_answer(answer: memoryview, partition: Partition) -> int:
    """Return the error's code. Raises ValueError."""
    answered = _partitions(answer, _COMMITTED)
    if partition not in answered:
        raise ValueError(f"an answer to a commit without {partition.topic}/{partition.index}")
    (code,) = answered[partition]
    return code


def committed_request(group_id: str, partitions: Iterable[Partition]) -> bytes:
    """Return a request for the committed offset and metadata of each partition."""
    topics: defaultdict[str, list[int]] = defaultdict(list)
    for partition in partitions:
        topics[partition.topic].append(partition.index)
    request: bytes = OffsetFetchRequest_v1(group_id, list(topics.items())).encode()
    return request


def committed_answer(answer: memoryview, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int, str]]:
    """Return, by partition, the error's code, the offset (below 0: none was committed) and its metadata. Raises ValueError,
    also if the answer lacks one of `partitions`: if that counted as not committed, all its messages would be stored again."""
    try:
        topics = OffsetFetchResponse_v1.decode(io.BytesIO(answer)).topics
    except (struct.error, ValueError) as error:
        raise ValueError(f"{len(answer)} bytes are not an answer about committed offsets") from error
    found = {Partition(topic, index): (code, at, text or "") for topic, values in topics for index, at, text, code in values}
    for partition in partitions:
        if partition not in found:
            raise ValueError(f"an answer about committed offsets without {partition.topic}/{partition.index}")
    return found


def _partitions(answer: memoryview, form: struct.Struct) -> Mapping[Partition, Sequence[int]]:
    """Return the values that an answer has for each partition, without the partition's number. Raises ValueError."""
    found: dict[Partition, Sequence[int]] = {}
    try:
        (topics,) = _COUNT.unpack_from(answer, 0)
        at = _COUNT.size
        for _ in range(topics):
            (length,) = _LENGTH.unpack_from(answer, at)
            at += _LENGTH.size
            topic = str(answer[at : at + length], "utf-8")
            at += length
            (count,) = _COUNT.unpack_from(answer, at)
            at += _COUNT.size
            for _ in range(count):
                index, *values = form.unpack_from(answer, at)
                at += form.size
                found[Partition(topic, index)] = values
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{len(answer)} bytes are not an answer about partitions") from error
    return found


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _LENGTH.pack(len(encoded)) + encoded
