"""Rows of messages: consecutive messages of one topic that committed together share a row, a *chunk*.

Invariants:
1. A checksum covers the message, its topic and its offset (test_a_checksum_holds_a_message_in_its_place).
2. Damage of one message leaves the other messages of its chunk readable
   (test_a_flipped_byte_of_a_message_is_not_stored).
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Final

import google_crc32c

# Small messages share a row up to this size, which bounds the bytes that are read in vain if a range ends within a row.
_CHUNK_BYTES: Final = 256 * 1024
# A chunk's key is partition << 48 | offset of its first message: 34 years of 260,000 messages a second.
OFFSET_BITS: Final = 48
OFFSET_MASK: Final = (1 << OFFSET_BITS) - 1
_UINT32_MASK: Final = 0xFFFF_FFFF


def chunk_key(id_: int, offset: int) -> int:
    """Return the key under which a chunk is stored, from a topic's id and the chunk's first offset."""
    return id_ << OFFSET_BITS | offset


def chunks(payloads: list[bytes]) -> Iterator[list[bytes]]:
    """Yield lists of consecutive payloads, each of at most _CHUNK_BYTES or with a single payload."""
    chunk: list[bytes] = []
    size = 0
    for payload in payloads:
        if chunk and size + len(payload) > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(payload)
        size += len(payload)
    yield chunk


def pack_lengths(payloads: list[bytes]) -> bytes:
    """Return the lengths of payloads, four bytes each, little-endian."""
    return struct.pack(f"<{len(payloads)}I", *map(len, payloads))


def count(lengths: bytes) -> int:
    """Return the number of packed lengths."""
    return len(lengths) // 4


def pack_checksums(topic: str, key: int, payloads: Sequence[bytes]) -> bytes:
    """Return the CRC-32C of each payload, begun with the place of the message: four bytes each, little-endian.

    CRC is a bijection of the value that it begins with, so the same payload at another place always has another checksum.
    """
    begin = _begin(topic, key)
    extend = google_crc32c.extend
    numbers = [extend(begin + index & _UINT32_MASK, payload) for index, payload in enumerate(payloads)]
    return struct.pack(f"<{len(numbers)}I", *numbers)


def _begin(topic: str, key: int) -> int:
    return int(google_crc32c.value(b"%b\0%d" % (topic.encode(), key)))


def split(topic: str, key: int, lengths: bytes, payload: bytes, checksums: bytes | None) -> list[bytes | None]:
    """Return the messages of a chunk, in order; None for each that is damaged.

    `checksums` is None for a chunk that a version without checksums wrote: then only its lengths can be verified.
    """
    messages = slices(lengths, payload)
    if checksums is None:
        is_whole = sum(_numbers(lengths)) == len(payload)
        return [message if is_whole else None for message in messages]
    numbers = _numbers(checksums)
    begin = _begin(topic, key)
    extend = google_crc32c.extend
    whole = [
        message if extend(begin + index & _UINT32_MASK, message) == number else None
        for index, (message, number) in enumerate(zip(messages, numbers, strict=False))
    ]
    return whole + [None] * (len(messages) - len(whole))  # if the checksums themselves are cut


def slices(lengths: bytes, payload: bytes) -> list[bytes]:
    """Cut a payload into messages of the given lengths, as far as it reaches."""
    sizes = _numbers(lengths)
    return (
        [payload] if sizes == [len(payload)] else [payload[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]
    )


def _numbers(packed: bytes) -> Sequence[int]:
    return struct.unpack_from(f"<{len(packed) // 4}I", packed)
