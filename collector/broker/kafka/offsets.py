"""Requests for where partitions begin and end, and commits, with their answers: bytes in, bytes out.

aiokafka's way through its schemas costs ten times as much, and each insert of the writer has three of these. Source:
kafka.apache.org, "ListOffsets API" version 1 and "OffsetCommit API" version 2: all brokers since Kafka 0.10.1 take them, with
Kafka 4 those among them.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from collector.broker.contract import Partition

LIST_API: Final = (2, 1)
COMMIT_API: Final = (8, 2)

EARLIEST: Final = -2
LATEST: Final = -1

_COUNT: Final = struct.Struct(">i")
_LENGTH: Final = struct.Struct(">h")
_ASKED: Final = struct.Struct(">iq")  # a partition, and a time
_FOUND: Final = struct.Struct(">ihqq")  # a partition, an error, a time, the offset
_COMMITTED: Final = struct.Struct(">ih")  # a partition, an error
_NO_REPLICA: Final = struct.pack(">i", -1)
_RETENTION: Final = struct.pack(">q", -1)  # as the broker has it


def list_request(topics: Sequence[tuple[str, Sequence[int]]], time: int) -> bytes:
    """For the first offset there is (EARLIEST), or the next one there will be (LATEST), of each topic's partitions."""
    out = [_NO_REPLICA, _COUNT.pack(len(topics))]
    for topic, indexes in topics:
        out += [_string(topic), _COUNT.pack(len(indexes))]
        out += [_ASKED.pack(index, time) for index in indexes]
    return b"".join(out)


def list_answer(answer: memoryview) -> dict[Partition, tuple[int, int]]:
    """By partition, the error's code and the offset. Raises ValueError."""
    return {partition: (code, offset) for partition, (code, _, offset) in _partitions(answer, _FOUND).items()}


def commit_request(group_id: str, generation: int, member_id: str, partition: Partition, offset: int, metadata: str) -> bytes:
    """In that generation of the group, as that member of it."""
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
    """The error's code. Raises ValueError."""
    answered = _partitions(answer, _COMMITTED)
    if partition not in answered:
        raise ValueError(f"an answer to a commit without {partition.topic}/{partition.index}")
    (code,) = answered[partition]
    return code


def _partitions(answer: memoryview, form: struct.Struct) -> Mapping[Partition, Sequence[int]]:
    """What such an answer says of each, after its number."""
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
                index, *said = form.unpack_from(answer, at)
                at += form.size
                found[Partition(topic, index)] = said
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{len(answer)} bytes are no answer about partitions") from error
    return found


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _LENGTH.pack(len(encoded)) + encoded
