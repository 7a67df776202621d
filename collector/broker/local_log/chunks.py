"""Rows of messages: consecutive messages of one topic that committed together share a row, a *chunk*."""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Final

# Small messages share a row up to here; it bounds what is read in vain where a range ends within a row.
_CHUNK_BYTES: Final = 256 * 1024
# A chunk's key is partition << 48 | offset of its first message: 34 years of 260,000 messages a second.
OFFSET_BITS: Final = 48
OFFSET_MASK: Final = (1 << OFFSET_BITS) - 1


def chunk_key(id_: int, offset: int) -> int:
    return id_ << OFFSET_BITS | offset


def chunks(payloads: list[bytes]) -> Iterator[list[bytes]]:
    """Consecutive payloads, cut so that none exceeds _CHUNK_BYTES unless it is a single one."""
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
    """Four bytes each, little-endian."""
    return b"".join(len(payload).to_bytes(4, "little") for payload in payloads)


def count(lengths: bytes) -> int:
    return len(lengths) // 4


def split(lengths: bytes, chunk: bytes) -> list[bytes]:
    """The payloads of a chunk. Raises ValueError where the lengths do not add up to it."""
    sizes = [int.from_bytes(lengths[at : at + 4], "little") for at in range(0, len(lengths), 4)]
    if sum(sizes) != len(chunk):
        raise ValueError(f"a chunk of {len(chunk)} bytes should have {sum(sizes)}")
    return [chunk] if len(sizes) == 1 else [chunk[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]
