"""Frames of HTTP/2 that no client would send, each well enough made to get somewhere: for property tests and the fuzzer."""

from typing import Final, NamedTuple

from hpack import Encoder
from hypothesis import strategies as st
from support.http2 import frame, pieces
from support.otlp_grpc import LOGS

PATHS: Final = (
    LOGS.method,
    "/v1/logs",
    "/api/v1/telemetry",
    "/healthz",
    "/nowhere",
    "/v1/logs?x=%",
    "*",
    "",
    "/%ff",
    "/grpc.health.v1.Health/Watch",
)
FIELDS: Final = (
    ("content-type", "application/grpc"),
    ("content-type", "application/grpc+json"),
    ("content-type", "application/x-protobuf"),
    ("content-type", "application/json; charset=x"),
    ("content-length", "0"),
    ("content-length", "5"),
    ("content-length", "-1"),
    ("content-length", str(2**63 - 1)),
    ("content-length", str(2**63)),
    ("content-length", "9" * 5000),
    ("content-length", ""),
    ("grpc-timeout", "1S"),
    ("grpc-timeout", "x"),
    ("grpc-encoding", "gzip"),
    ("content-encoding", "gzip"),
    ("te", "trailers"),
    ("expect", "100-continue"),
    ("x-api-key", " KEY "),
    ("x-\1", "\0"),
    ("X-A", "b"),
    (":path", "/late"),
    ("cookie", "a" * 3000),
    ("transfer-encoding", "chunked"),
    ("host", "a\r\nb"),
)
METHODS: Final = ("POST", "GET", "HEAD", "CONNECT", "P\u00d6ST", "")
CONTENTS: Final = (b"", b"\0\0\0\0\0", b"\0\0\0\0\5hello", b"\1\0\0\0\2\x1f\x8b", b"{}", b"x" * 300, b"\0" * 16_384)
SETTINGS: Final = (
    (1, 0),
    (1, 2**32 - 1),
    (2, 0),
    (2, 2),
    (3, 0),
    (4, 0),
    (4, 1),
    (4, 2**31 - 1),
    (4, 2**31),
    (5, 16_384),
    (5, 2**24),
    (6, 0),
    (99, 7),
)
STEPS: Final = (0, 1, 100, 65_535, 2**31 - 1)


class Op(NamedTuple):
    """One frame, or the few of one head. Numbers choose from the tables above, whatever they are."""

    kind: int
    stream: int
    flags: int
    what: int
    more: tuple[int, ...]


def encoded(ops: list[Op]) -> bytes:
    """What a client would write that does all that, with one table for its heads."""
    encoder = Encoder()
    return b"".join(_frames(op, encoder) for op in ops)


def _frames(op: Op, encoder: Encoder) -> bytes:
    kind, stream_id, flags = op.kind % 12, op.stream % 24, op.flags & 0xFF
    if kind in (1, 10, 11):  # heads are most of it
        block = _block(op, encoder)
        if flags & 0x20:
            block = (op.what % 2**31).to_bytes(4, "big") + b"\7" + block
        if flags & 8:
            block = bytes([op.what % 256]) + block + bytes(op.what % 256)
        first, *rest = pieces(block, op.more[:2] if flags & 0x40 else ())
        flags &= 0xFF if rest else ~4
        out = frame(1, first, stream_id=stream_id, flags=flags & ~4 if rest else flags | 4)
        for number, piece in enumerate(rest):
            out += frame(9, piece, stream_id=stream_id, flags=4 if number == len(rest) - 1 else 0)
        return out
    if kind == 0:
        content = CONTENTS[op.what % len(CONTENTS)]
        if flags & 8:
            content = bytes([op.stream % 256]) + content[:16_000] + bytes(op.stream % 256)
        return frame(0, content, stream_id=stream_id, flags=flags)
    if kind == 4:
        chosen = [SETTINGS[n % len(SETTINGS)] for n in op.more]
        payload = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in chosen)
        return frame(4, payload, flags=flags & 1 if not payload else 0)
    if kind == 8:
        return frame(8, STEPS[op.what % len(STEPS)].to_bytes(4, "big"), stream_id=stream_id)
    lengths = {2: 5, 3: 4, 5: 4, 6: 8, 7: 8, 9: 3}
    payload = op.what.to_bytes(8, "big", signed=False)[-lengths[kind] :] if op.what < 2**63 else b""
    return frame(kind, payload.rjust(lengths[kind], b"\0"), stream_id=0 if kind in (6, 7) else stream_id, flags=flags)


def _block(op: Op, encoder: Encoder) -> bytes:
    chosen = [FIELDS[n % len(FIELDS)] for n in op.more]
    pseudo = [(":method", METHODS[op.what % len(METHODS)] if op.flags & 2 else "POST"), (":scheme", "http")]
    pseudo += [(":path", PATHS[op.what % len(PATHS)]), (":authority", "a")]
    fields = chosen if op.flags & 0x10 else pseudo + chosen  # trailers have no pseudo-header
    return encoder.encode(
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields], huffman=op.what % 2 == 0
    )


def frames_of(written: bytes) -> list[tuple[int, int, bytes]]:
    """Kind, stream and payload of each frame; raises AssertionError where some of it is no whole frame."""
    found, at = [], 0
    while at < len(written):
        size = int.from_bytes(written[at : at + 3], "big")
        assert at + 9 + size <= len(written)
        found.append((written[at + 3], int.from_bytes(written[at + 5 : at + 9], "big"), written[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def ops_of(script: bytes) -> list[Op]:
    """A fuzzer's bytes as frames: eight for each."""
    rows = [script[at : at + 8] for at in range(0, len(script) - 7, 8)]
    return [Op(row[0], row[1], row[2], row[3], tuple(row[4:])) for row in rows]


OPS: Final = st.lists(
    st.builds(
        Op,
        st.sampled_from([0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9]),
        st.sampled_from([1, 1, 3, 3, 5, 7, 9, 2, 0, 23]),
        st.sampled_from([0, 1, 1, 4, 5, 5, 2, 3, 0x10, 0x11, 0x40, 0x41, 8, 0x20, 0xFF]),
        st.integers(0, 2**63),
        st.lists(st.integers(0, 30), max_size=6).map(tuple),
    ),
    max_size=25,
)
