"""Produce requests and their answers, and the record batches in them: bytes in, bytes out.

A large message is not copied: it is one of the pieces of its batch. Source: kafka.apache.org, "Produce API" version 7, and
"Record batch".
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import google_crc32c
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from librt.strings import BytesWriter, write_i16_be, write_i32_be, write_i64_be
from mypy_extensions import i16, i32, i64

# The API's key, and the first version whose requests may have batches in zstd: brokers since Kafka 2.1 (2018) take it.
PRODUCE_API: Final = (0, 7)

# The bytes of a batch without its messages, and of a message without its payload, at most.
BATCH_OVERHEAD_BYTES: Final = 61
MESSAGE_OVERHEAD_BYTES: Final = 20

_CODECS: Final[Mapping[str, tuple[int, Callable[[bytes], bytes]]]] = {
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}
# From this size on a payload is a piece by itself: a copy would cost more than another piece.
_SINGLE_BYTES_MIN: Final = 16 * 1024
BATCH_FORMAT: Final = 2  # the version ("magic") of a record batch
# Bytes of a batch before those that the checksum covers.
_LENGTH_COUNTED: Final = 9  # the leader's epoch, the format, the checksum
_LENGTH_NOT_COUNTED: Final = 12  # the base offset, which the broker sets, and the length
# A partition in an answer: its number, an error, the batch's offset and time, the partition's first offset.
_ANSWERED: Final = struct.Struct(">ihqqq")
_SEQUENCES: Final = 2**31


def next_sequence(sequence: int, messages: int) -> int:
    """Return the sequence number after a batch of so many messages."""
    return (sequence + messages) % _SEQUENCES


def partition_batch(
    partition: int,
    payloads: Sequence[bytes],
    time_ms: int,
    producer_id: int,
    epoch: int,
    sequence: int,
    compression: str,
) -> list[bytes]:
    """Return one batch for a partition as a request has it, in pieces, after the partition's number and the batch's size.
    `compression` is none, or one of Kafka's codecs."""
    writer = BytesWriter()
    if compression == "none":
        _put_checked(writer, 0, len(payloads), time_ms, producer_id, epoch, sequence)
        pieces = _records(writer, payloads)
    else:
        attributes, encode = _CODECS[compression]
        _put_checked(writer, attributes, len(payloads), time_ms, producer_id, epoch, sequence)
        pieces = [writer.getvalue(), encode(b"".join(_records(BytesWriter(), payloads)))]
    checksum = 0
    length: i64 = _LENGTH_COUNTED
    for piece in pieces:
        checksum = google_crc32c.extend(checksum, piece)
        length += len(piece)
    return [_head(partition, length, checksum), *pieces]


def _head(partition: i64, length: i64, checksum: i64) -> bytes:
    writer = BytesWriter()
    write_i32_be(writer, i32(partition))
    write_i32_be(writer, i32(length + _LENGTH_NOT_COUNTED))
    write_i64_be(writer, 0)
    write_i32_be(writer, i32(length))
    write_i32_be(writer, -1)
    writer.append(BATCH_FORMAT)
    for shift in (24, 16, 8, 0):
        writer.append(int(checksum >> shift & 0xFF))
    return writer.getvalue()


def _put_checked(
    writer: BytesWriter, attributes: i64, messages: i64, time_ms: i64, producer_id: i64, epoch: i64, sequence: i64
) -> None:
    """Write the fields that the checksum covers before the records: attributes, the last offset's delta, two timestamps, the
    producer's id, epoch and sequence, and the number of records."""
    write_i16_be(writer, i16(attributes))
    write_i32_be(writer, i32(messages - 1))
    write_i64_be(writer, time_ms)
    write_i64_be(writer, time_ms)
    write_i64_be(writer, producer_id)
    write_i16_be(writer, i16(epoch))
    write_i32_be(writer, i32(sequence))
    write_i32_be(writer, i32(messages))


def _records(writer: BytesWriter, payloads: Sequence[bytes]) -> list[bytes]:
    """Return the writer's content, and then the records, in pieces. A record has its length, no attributes, no time of its own,
    its offset's delta, no key, the payload, and no headers."""
    pieces: list[bytes] = []
    for delta, payload in enumerate(payloads):
        size: i64 = len(payload)
        _put(writer, 4 + _size(delta) + _size(size) + size)
        writer.append(0)
        writer.append(0)
        _put(writer, delta)
        writer.append(1)
        _put(writer, size)
        if size < _SINGLE_BYTES_MIN:
            writer.write(payload)
        else:
            pieces += (writer.getvalue(), payload)
            writer.truncate(0)
        writer.append(0)
    pieces.append(writer.getvalue())
    return pieces


def _put(writer: BytesWriter, number: i64) -> None:
    """Write the zigzag varint of a number that is not negative."""
    number <<= 1
    while number > 127:
        writer.append(int(number & 127 | 128))
        number >>= 7
    writer.append(int(number))


def _size(number: i64) -> i64:
    number <<= 1
    size: i64 = 1
    while number > 127:
        number >>= 7
        size += 1
    return size


def produce_request(batches: Mapping[str, Sequence[Sequence[bytes]]], timeout_ms: int) -> list[bytes]:
    """Return a request, in pieces. `batches` has, by topic, batches that `partition_batch` made for different partitions. All
    in-sync replicas must keep them."""
    pieces: list[bytes] = [struct.pack(">hhii", -1, -1, timeout_ms, len(batches))]
    for topic, partitions in batches.items():
        name = topic.encode()
        pieces.append(struct.pack(f">h{len(name)}si", len(name), name, len(partitions)))
        for batch in partitions:
            pieces += batch
    return pieces


def produce_answer(answer: memoryview) -> dict[tuple[str, int], int]:
    """Return the error's code of each partition. Raises ValueError."""
    codes: dict[tuple[str, int], int] = {}
    try:
        (topics,) = struct.unpack_from(">i", answer, 0)
        at = 4
        for _ in range(topics):
            (size,) = struct.unpack_from(">h", answer, at)
            topic = bytes(answer[at + 2 : at + 2 + size]).decode()
            at += 2 + size
            (partitions,) = struct.unpack_from(">i", answer, at)
            at += 4
            for _ in range(partitions):
                index, code, _offset, _time, _first = _ANSWERED.unpack_from(answer, at)
                codes[topic, index] = code
                at += _ANSWERED.size
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{len(answer)} bytes are not an answer to a produce request") from error
    return codes
