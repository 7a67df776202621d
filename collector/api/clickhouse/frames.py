"""Compress answers as clients ask: by Accept-Encoding, as in HTTP, or in ClickHouse's own frames for `compress=1`.

Invariants:
1. A frame is as ClickHouse writes it: CityHash128 of the rest, method, size with this head, size decompressed, data.
   (test_frames_hold_the_body_and_its_checksum; test_clickhouse_go and test_jdbc, whose drivers verify the checksums)
"""

import struct
from collections.abc import Callable
from typing import Final

import cramjam
from clickhouse_cityhash.cityhash import CityHash128

from collector.api.documents import codings_of
from collector.receivers.http.targets import VALUE_BYTES_MAX

# The default of ClickHouse's max_compress_block_size.
_FRAME_BYTES: Final = 1024 * 1024
_HEAD: Final = struct.Struct("<BII")
_CHECKSUM: Final = struct.Struct("<QQ")
_LOW: Final = (1 << 64) - 1

_METHODS: Final[dict[str, tuple[int, Callable[[bytes], bytes]]]] = {
    "LZ4": (0x82, lambda data: bytes(cramjam.lz4.compress_block(data, store_size=False))),
    "ZSTD": (0x90, lambda data: bytes(cramjam.zstd.compress(data, level=1))),
}
# In the order of preference: the cheapest first.
_ENCODINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "lz4": lambda data: bytes(cramjam.lz4.compress(data)),
    "zstd": lambda data: bytes(cramjam.zstd.compress(data, level=1)),
    "gzip": lambda data: bytes(cramjam.gzip.compress(data, level=3)),
    "deflate": lambda data: bytes(cramjam.zlib.compress(data, level=3)),
    "br": lambda data: bytes(cramjam.brotli.compress(data, level=1)),
}


def framed(body: bytes, method: str) -> bytes:
    """Return a body in ClickHouse's frames. `method` is LZ4 or ZSTD. Raises KeyError for another."""
    number, compress = _METHODS[method]
    frames = bytearray()
    for start in range(0, len(body), _FRAME_BYTES):
        data = body[start : start + _FRAME_BYTES]
        compressed = compress(data)
        rest = _HEAD.pack(number, len(compressed) + _HEAD.size, len(data)) + compressed
        checksum = CityHash128(rest)
        frames += _CHECKSUM.pack(checksum >> 64, checksum & _LOW) + rest
    return bytes(frames)


def encoded(body: bytes, accept_encoding: str) -> tuple[bytes, str | None]:
    """Return the body in the first of our encodings that a client accepts, and the encoding's name; None: it is unchanged."""
    if len(accept_encoding) > VALUE_BYTES_MAX:
        return body, None
    codings = codings_of(accept_encoding.encode("latin-1"))
    for name, compress in _ENCODINGS.items():
        if codings.get(name.encode(), False):
            return compress(body), name
    return body, None
