"""Compression as clients ask for it."""

import gzip
import struct
import zlib
from collections.abc import Callable

import cramjam
import pytest
from clickhouse_cityhash.cityhash import CityHash128

from collector.api.clickhouse.frames import encoded, framed

DECODERS: dict[str | None, Callable[[bytes], bytes]] = {
    None: bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": lambda made: bytes(cramjam.brotli.decompress(made)),
    "lz4": lambda made: bytes(cramjam.lz4.decompress(made)),
}
BODIES = [b"x", b"compressible " * 200_000, bytes(range(256)) * 5000]


@pytest.mark.parametrize("method", ["LZ4", "ZSTD"])
@pytest.mark.parametrize("body", BODIES)
def test_frames_hold_the_body_and_its_checksum(method: str, body: bytes) -> None:
    """Checksum, method, both sizes, data; one frame after another. The drivers' own readers are in tests/clients."""
    at, read, frames = 0, b"", framed(body, method)
    while at < len(frames):
        high, low = struct.unpack_from("<QQ", frames, at)
        number, size, raw = struct.unpack_from("<BII", frames, at + 16)
        assert {"LZ4": 0x82, "ZSTD": 0x90}[method] == number
        rest = frames[at + 16 : at + 16 + size]
        assert CityHash128(rest) == high << 64 | low
        data = rest[9:]
        piece = (
            bytes(cramjam.lz4.decompress_block(data, output_len=raw))
            if method == "LZ4"
            else bytes(cramjam.zstd.decompress(data))
        )
        assert raw == len(piece) <= 1024 * 1024
        read += piece
        at += 16 + size
    assert body == read


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("gzip", "gzip"),
        ("deflate, br", "deflate"),
        ("br", "br"),
        ("gzip, zstd;q=0.5, lz4", "lz4"),
        ("gzip;q=0, br;q=0", None),
        ("", None),
        ("identity", None),
        ("compress", None),
        ("gzip".ljust(1024, ","), "gzip"),
        ("gzip".ljust(1025, ","), None),
        ("gzip;q=0.000, br; q=0.001", "br"),
        ("lz4;q=0.00, zstd;Q=0", None),
    ],
)
def test_an_answer_has_the_encoding_that_its_client_takes(accept: str, expected: str | None) -> None:
    """It is the one that costs least of those, or none."""
    for body in BODIES:
        made, encoding = encoded(body, accept)
        assert expected == encoding
        assert body == DECODERS[encoding](made)
