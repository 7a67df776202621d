"""Prometheus remote write 1.0 and 2.0, put together by hand: the wire format's twin that shares no code with the product."""

import struct
from collections.abc import Mapping, Sequence


def varint(number: int) -> bytes:
    """A negative one in two's complement of 64 bits."""
    out = bytearray()
    number &= 2**64 - 1
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def length_delimited(field: int, payload: bytes) -> bytes:
    """A field that is text, bytes or a message."""
    return varint(field << 3 | 2) + varint(len(payload)) + payload


def write_request(series: Sequence[tuple[Mapping[str, str], Sequence[tuple[float, int]]]]) -> bytes:
    """A WriteRequest, not compressed: of each series the labels, and samples of (value, milliseconds since the epoch)."""
    out = b""
    for labels, samples in series:
        body = b"".join(
            length_delimited(1, length_delimited(1, name.encode()) + length_delimited(2, value.encode()))
            for name, value in sorted(labels.items())
        )
        for value, moment_ms in samples:
            body += length_delimited(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(moment_ms))
        out += length_delimited(1, body)
    return out


def write_request_v2(series: Sequence[tuple[Mapping[str, str], Sequence[tuple[float, int]]]]) -> bytes:
    """The same as a Request of 2.0: no metadata, no start timestamps."""
    symbols = [""]
    out = b""
    for labels, samples in series:
        refs = b""
        for text in (text for pair in sorted(labels.items()) for text in pair):
            if text not in symbols:
                symbols.append(text)
            refs += varint(symbols.index(text))
        body = length_delimited(1, refs)
        for value, moment_ms in samples:
            body += length_delimited(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(moment_ms))
        out += length_delimited(5, body)
    return b"".join(length_delimited(4, symbol.encode()) for symbol in symbols) + out
