"""The encodings of bodies that are taken: their names in headers, and the decompression of each."""

from typing import Final

IDENTITY: Final = "identity"

HTTP: Final = {
    b"": IDENTITY,
    b"identity": IDENTITY,
    b"gzip": "gzip",
    b"x-gzip": "gzip",
    b"zstd": "zstd",
    b"deflate": "deflate",
    b"zlib": "deflate",  # the name that the Collector's exporters use
    b"snappy": "snappy_of_any_format",
    b"x-snappy-framed": "snappy_of_any_format",
}
"""By the Content-Encoding header, RFC 9110."""

SNAPPY: Final = {b"": "snappy", b"snappy": "snappy"}
"""By the same header, for remote write, which always compresses: no header means snappy."""

GRPC: Final = {
    b"": IDENTITY,
    b"identity": IDENTITY,
    b"deflate": "deflate",
    b"gzip": "gzip",
    b"snappy": "snappy_of_any_format",
    b"zstd": "zstd",
}
"""By the grpc-encoding header, PROTOCOL-HTTP2.md. Go's clients send zstd."""

GRPC_NAMES: Final = b", ".join([name for name in GRPC if name])
"""For the grpc-accept-encoding header."""
