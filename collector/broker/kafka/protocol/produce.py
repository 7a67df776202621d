"""Produce requests and their answers, and the record batches in them: bytes in, bytes out.

A large message is not copied: it is one of the pieces of its batch. Source: kafka.apache.org, "Produce API" version 7, and
"Record batch".
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import google_crc32c
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from librt.strings import BytesWriter

# Its key, and the first version that may bring batches in zstd: brokers since Kafka 2.1 (2018) take it.
PRODUCE_API: Final = (0, 7)

# What a batch takes beside its messages, and a message beside its payload, at most.
BATCH_OVERHEAD_BYTES: Final = 61
MESSAGE_OVERHEAD_BYTES: Final = 20

_CODECS: Final[Mapping[str, tuple[int, Callable[[bytes], bytes]]]] = {
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}
# From here on a payload is a piece by itself: to copy it would cost more than to handle one piece more.
_ALONE_BYTES_MIN: Final = 16 * 1024
# Base offset (set by the broker), length of what follows it, leader's epoch (also set by the broker), format, checksum.
_HEAD: Final = struct.Struct(">qiibI")
_HEAD_COUNTED: Final = 9  # of it, what the length counts
# Attributes, the last offset's delta, two timestamps, the producer's id, epoch and sequence; how many records. All checked.
_CHECKED: Final = struct.Struct(">hiqqqhii")
_FORMAT: Final = 2
# Of a partition: its number, an error, the batch's offset and time, the partition's first offset.
_ANSWERED: Final = struct.Struct(">ihqqq")
_SEQUENCES: Final = 2**31


def next_sequence(sequence: int, messages: int) -> int:
    """After a batch of so many."""
    return (sequence + messages) % _SEQUENCES


def record_batch(
    payloads: Sequence[bytes], time_ms: int, producer_id: int, epoch: int, sequence: int, compression: str
) -> list[bytes]:
    """Return one batch, in pieces. `compression`: none, or one of Kafka's."""
    pieces = _records(payloads)
    attributes = 0
    if compression != "none":
        attributes, encode = _CODECS[compression]
        pieces = [encode(b"".join(pieces))]
    last = len(payloads) - 1
    checked = _CHECKED.pack(attributes, last, time_ms, time_ms, producer_id, epoch, sequence, last + 1)
    checksum: int = google_crc32c.value(checked)
    size = _HEAD_COUNTED + len(checked)
    for piece in pieces:
        checksum = google_crc32c.extend(checksum, piece)
        size += len(piece)
    return [_HEAD.pack(0, size, -1, _FORMAT, checksum) + checked, *pieces]


def _records(payloads: Sequence[bytes]) -> list[bytes]:
    """Each: its length, no attributes, no time of its own, its offset's delta, no key, the payload, no headers."""
    pieces: list[bytes] = []
    writer = BytesWriter()
    for delta, payload in enumerate(payloads):
        size = len(payload)
        _put(writer, 4 + _size(delta) + _size(size) + size)
        writer.append(0)
        writer.append(0)
        _put(writer, delta)
        writer.append(1)
        _put(writer, size)
        if size < _ALONE_BYTES_MIN:
            writer.write(payload)
        else:
            pieces += (writer.getvalue(), payload)
            writer.truncate(0)
        writer.append(0)
    pieces.append(writer.getvalue())
    return pieces


def _put(writer: BytesWriter, number: int) -> None:
    """A zigzag varint of one that is not negative."""
    number <<= 1
    while number > 127:
        writer.append(number & 127 | 128)
        number >>= 7
    writer.append(number)


def _size(number: int) -> int:
    number <<= 1
    size = 1
    while number > 127:
        number >>= 7
        size += 1
    return size


def produce_request(batches: Mapping[str, Mapping[int, Sequence[bytes]]], timeout_ms: int) -> list[bytes]:
    """Return a request, in pieces, with a batch for each partition of each topic. All in-sync replicas must keep it."""
    pieces: list[bytes] = [struct.pack(">hhii", -1, -1, timeout_ms, len(batches))]
    for topic, partitions in batches.items():
        name = topic.encode()
        pieces.append(struct.pack(f">h{len(name)}si", len(name), name, len(partitions)))
        for index, batch in partitions.items():
            pieces.append(struct.pack(">ii", index, sum([len(piece) for piece in batch])))
            pieces += batch
    return pieces


def produce_answer(answer: memoryview) -> dict[tuple[str, int], int]:
    """The error's code of each partition. Raises ValueError."""
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
        raise ValueError(f"{len(answer)} bytes are no answer to a produce request") from error
    return codes
