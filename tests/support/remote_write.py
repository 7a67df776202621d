"""Prometheus remote write 1.0, put together by hand: the wire format's twin that shares no code with the product."""

import struct
from collections.abc import Mapping, Sequence


def _varint(number: int) -> bytes:
    out = bytearray()
    number &= 2**64 - 1
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bytes(field: int, payload: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


def write_request(series: Sequence[tuple[Mapping[str, str], Sequence[tuple[float, int]]]]) -> bytes:
    """A WriteRequest, not compressed: of each series the labels, and samples of (value, milliseconds since the epoch)."""
    out = b""
    for labels, samples in series:
        body = b"".join(
            _bytes(1, _bytes(1, name.encode()) + _bytes(2, value.encode())) for name, value in sorted(labels.items())
        )
        for value, moment_ms in samples:
            body += _bytes(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(moment_ms))
        out += _bytes(1, body)
    return out
