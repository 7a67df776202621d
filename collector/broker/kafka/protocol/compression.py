"""Decompress the records of a batch in pieces, so that their reader has only a few pieces in memory.

Source: kafka.apache.org, "Record batch"; KIP-57 (LZ4's frames, without blocks that depend on each other); xerial/snappy-java's
SnappyOutputStream. Checksums of the formats themselves are left out: the batch has one.

Invariant: a piece has at most a few megabytes. In snappy without xerial's frame it has at most 22 times the batch's bytes
(tests/unit/collector/broker/kafka/protocol/test_compression.py, test_a_bomb_is_read_piece_by_piece,
test_what_snappy_announces_is_checked_first).
"""

import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import cramjam

from adapters.codec.snappy_block import announced_bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE_BYTES: Final = 1 << 20
_GZIP_WINDOW_BITS: Final = 16 + zlib.MAX_WBITS
_GZIP_MAGIC: Final = b"\x1f\x8b"
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEAD_BYTES: Final = 16
# A copy of 64 bytes takes three.
_SNAPPY_RATIO_MAX: Final = 22
_LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"
_LZ4_BLOCK_CHECKSUMS: Final = 0x10
_LZ4_CONTENT_SIZE: Final = 0x08
_LZ4_DICTIONARY: Final = 0x01
_LZ4_UNCOMPRESSED: Final = 1 << 31
# 64 KiB to 4 MiB, by the number in the frame's head.
_LZ4_BLOCK_BYTES: Final = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
_LENGTH: Final = struct.Struct(">I")
_LZ4_LENGTH: Final = struct.Struct("<I")


class Undecodable(ValueError):
    """The content of a batch does not follow its format."""


def pieces(codec: int, data: bytes) -> Iterator[bytes]:
    """Yield the decompressed bytes of `data`. Raises Undecodable."""
    decompress = _DECOMPRESS.get(codec)
    if decompress is None:
        raise Undecodable(f"a batch is compressed with codec {codec}, and known are {', '.join(map(str, _DECOMPRESS))}")
    try:
        yield from decompress(data)
    except (zlib.error, zstd.ZstdError, cramjam.DecompressionError, struct.error, IndexError) as error:
        raise Undecodable(f"a batch that is compressed with codec {codec} is damaged: {error}") from error


def _gzip(data: bytes) -> Iterator[bytes]:
    """Decompress all members. Ignore bytes that follow them, as Java's reader does."""
    while data.startswith(_GZIP_MAGIC):
        member = zlib.decompressobj(_GZIP_WINDOW_BITS)
        while not member.eof:
            piece = member.decompress(data, _PIECE_BYTES)
            data = member.unused_data if member.eof else member.unconsumed_tail
            if not piece and not data and not member.eof:
                raise Undecodable("a batch in gzip ends too soon")
            yield piece


def _zstd(data: bytes) -> Iterator[bytes]:
    while data:
        frame = zstd.ZstdDecompressor()
        given = data
        while not frame.eof:
            piece = frame.decompress(given, _PIECE_BYTES)
            given = b""
            if not piece and frame.needs_input and not frame.eof:
                raise Undecodable("a batch in zstd ends too soon")
            yield piece
        data = frame.unused_data


def _lz4(data: bytes) -> Iterator[bytes]:
    """Decompress one frame."""
    if not data.startswith(_LZ4_MAGIC):
        raise Undecodable("a batch in LZ4 does not begin with a frame")
    flags = data[4]
    block = memoryview(bytearray(_LZ4_BLOCK_BYTES.get(data[5] >> 4 & 7, 0)))
    at = 7 + (8 if flags & _LZ4_CONTENT_SIZE else 0) + (4 if flags & _LZ4_DICTIONARY else 0)
    while length := _LZ4_LENGTH.unpack_from(data, at)[0]:
        size = length & ~_LZ4_UNCOMPRESSED
        start = at + _LZ4_LENGTH.size
        at = start + size
        if at > len(data):
            raise Undecodable("a batch in LZ4 ends too soon")
        if length & _LZ4_UNCOMPRESSED:
            yield data[start:at]
        else:
            written = cramjam.lz4.decompress_block_into(data[start:at], block)
            yield bytes(block[:written])
        at += _LZ4_LENGTH.size if flags & _LZ4_BLOCK_CHECKSUMS else 0


def _snappy(data: bytes) -> Iterator[bytes]:
    if not data.startswith(_XERIAL_MAGIC):
        yield _snappy_block(data)
        return
    at = _XERIAL_HEAD_BYTES
    while at < len(data):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(data, at)[0]
        if at > len(data):
            raise Undecodable("a batch in snappy ends too soon")
        yield _snappy_block(data[start:at])


def _snappy_block(data: bytes) -> bytes:
    """Decompress a block. Check its announced size first, since that is allocated before decompression."""
    announced, start = announced_bytes(data)
    if start == 0:
        raise Undecodable("a block in snappy announces no size")
    if announced > len(data) * _SNAPPY_RATIO_MAX:
        raise Undecodable(f"a block in snappy announces {announced} bytes, more than it can hold")
    return bytes(cramjam.snappy.decompress_raw(data))


_DECOMPRESS: Final[dict[int, Callable[[bytes], Iterator[bytes]]]] = {1: _gzip, 2: _snappy, 3: _lz4, 4: _zstd}
