"""Attacks on a connection instead of by a request: header fields, windows, settings and pages. bench/hostile.py runs them."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import cramjam
from hpack import Encoder
from support.attacks import SMALL, Attack, small_logs
from support.http2 import frame

from collector.tenancy import key_format

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
GOAWAY: Final = 7
CONTINUATION: Final = 9
END_STREAM: Final = 1
END_HEADERS: Final = 4
INITIAL_WINDOW_SIZE: Final = 4

STREAMS: Final = 128  # http.concurrent_streams_max
SMALL_BODIES: Final = 120
SPANS: Final = next(attack for attack in SMALL if attack.name == "130,000 empty spans")
SAMPLES: Final = next(attack for attack in SMALL if attack.name.startswith("120,000 empty samples"))
READ_TIMEOUT_S: Final = 0.5
READ_BYTES: Final = 1 << 16
KEY_BYTES: Final = 30_000
VALUE_BYTES: Final = 60_000
FREE_KEY: Final = key_format.new()
"""The key of a tenant on plan Free. Each server that is measured accepts it."""


class ConnectionAttack(NamedTuple):
    """An attack by one connection. `sent` returns the bytes that the connection sends. `is_read` is whether the attacker reads
    the answers until no more arrive."""

    name: str
    sent: Callable[[], bytes]
    is_read: bool = True


def _setting(name: int, value: int) -> bytes:
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


def _requests(method: str, path: str, count: int, flags: int, *fields: tuple[str, str]) -> bytes:
    encoder = Encoder()
    head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a"), *fields]
    return b"".join(frame(HEADERS, encoder.encode(head), stream_id=2 * n + 1, flags=flags) for n in range(count))


def _begun(settings: bytes, requests: bytes) -> bytes:
    return PREFACE + frame(SETTINGS, settings) + requests


def _many_settings() -> bytes:
    head = _requests("POST", "/v1/logs", STREAMS, END_HEADERS, ("content-type", "application/x-protobuf"))
    changes = b"".join(_setting(INITIAL_WINDOW_SIZE, 1 + n % 2) for n in range(2_730))
    return _begun(b"", head) + frame(SETTINGS, changes) * 50


def _lengths() -> bytes:
    fields = ("content-type", "application/x-protobuf"), ("content-length", str(2**63))
    return _begun(b"", _requests("POST", "/v1/logs", 120, END_HEADERS, *fields))


def _pages(path: str) -> bytes:
    return _begun(_setting(INITIAL_WINDOW_SIZE, 0), _requests("GET", path, STREAMS, END_HEADERS | END_STREAM))


def _metrics() -> bytes:
    return b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 100


def _metrics_in_versions() -> bytes:
    """Return requests for /metrics, each with a version that does not exist."""
    head = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text; version=1.%d.0\r\n\r\n"
    return b"".join([head % number for number in range(2, 102)])


def _snappy_chunks() -> bytes:
    """Return a request whose body ends in chunks of padding of four bytes each."""
    body = bytes(cramjam.snappy.compress(b"content")) + b"\xfe\0\0\0" * 4_000_000
    fields = (b"host: a", b"content-type: application/x-protobuf", b"content-encoding: x-snappy-framed")
    return b"\r\n".join((b"POST /v1/logs HTTP/1.1", *fields, b"content-length: %d" % len(body), b"", body))


def _keys() -> bytes:
    """Return requests that each have another Idempotency-Key."""
    body = small_logs()
    head = b"POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\nidempotency-key: %d%s\r\n"
    rest = b"content-length: %d\r\n\r\n%s" % (len(body), body)
    return b"".join([head % (time.time_ns(), b"k" * KEY_BYTES) + rest for _ in range(100)])


def _small_bodies(attack: Attack, *fields: tuple[str, str]) -> bytes:
    """Return as many requests as a connection may have. Each has a small body that is expensive to read."""
    headers, body = attack.sent()
    encoder = Encoder()
    head = [(":method", "POST"), (":scheme", "http"), (":path", attack.path), (":authority", "a"), *headers.items(), *fields]
    pieces = []
    for stream_id in range(1, 2 * SMALL_BODIES, 2):
        pieces.append(frame(HEADERS, encoder.encode(head), stream_id=stream_id, flags=END_HEADERS))
        pieces.append(frame(DATA, body, stream_id=stream_id, flags=END_STREAM))
    return _begun(b"", b"".join(pieces))


def _many_fields() -> bytes:
    """Return requests with as many header fields as two frames of 16 KiB hold. Each field is one octet, an index into HPACK's
    static table."""
    field = b"\x90"  # accept-encoding: gzip, deflate
    heads = [
        frame(HEADERS, field * 16_000, stream_id=stream_id)
        + frame(CONTINUATION, field * 16_000, stream_id=stream_id, flags=END_HEADERS)
        for stream_id in range(1, 2 * STREAMS, 2)
    ]
    return _begun(b"", b"".join(heads))


def _allowed_fields() -> bytes:
    """Return requests over HTTP/1.1, each with the largest allowed number of header fields."""
    fields = b"".join(b"x-%d: %b\r\n" % (number, b"v" * 200) for number in range(250))
    return (b"POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n" + fields + b"\r\n") * 100


def _content_types() -> bytes:
    head = b"POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-type: %b\r\n\r\n"
    return head % (b"*," * (VALUE_BYTES // 2)) * 100


ATTACKS: Final = (
    ConnectionAttack("one connection: HTTP/2, 120 times 130,000 empty spans", lambda: _small_bodies(SPANS)),
    ConnectionAttack(
        "one connection: HTTP/2, 120 times 130,000 empty spans, plan Free",
        lambda: _small_bodies(SPANS, ("x-api-key", FREE_KEY)),
    ),
    ConnectionAttack("one connection: HTTP/2, 120 times 120,000 empty samples", lambda: _small_bodies(SAMPLES)),
    ConnectionAttack("one connection: HTTP/2, 128 heads of 32,000 fields", _many_fields),
    ConnectionAttack("one connection: 100 heads of 250 fields", _allowed_fields),
    ConnectionAttack("one connection: 100 Content-Types of 60 KB", _content_types),
    ConnectionAttack("one connection: 100 GET /metrics", _metrics),
    ConnectionAttack("one connection: 100 GET /metrics, each of another version", _metrics_in_versions),
    ConnectionAttack("one connection: 4 million chunks of padding in framed snappy", _snappy_chunks),
    ConnectionAttack("one connection: 100 log records, each with an Idempotency-Key of 30 KB", _keys),
    ConnectionAttack("one connection: HTTP/2, 128 pages with a window of zero", lambda: _pages("/docs"), is_read=False),
    ConnectionAttack("one connection: HTTP/2, 128 /metrics with a window of zero", lambda: _pages("/metrics"), is_read=False),
    ConnectionAttack("one connection: HTTP/2, 50 SETTINGS of 2,730 windows, 128 streams", _many_settings),
    ConnectionAttack("one connection: HTTP/2, 120 requests with a content-length of 2^63", _lengths),
)


class Connecting:
    """Makes such connections, one after another. Connections that are not read stay open until the end."""

    def __init__(self, port: int, attack: ConnectionAttack, seconds: float) -> None:
        self.body = attack.sent()
        self.port = port
        self.seconds = seconds
        self.is_read = attack.is_read
        self.statuses: list[str] = []

    def run(self) -> Iterator[None]:
        """Make connections until the time is over, and yield after each."""
        end = time.monotonic() + self.seconds
        open_: list[socket.socket] = []
        while not self.statuses or time.monotonic() < end:
            connection = socket.create_connection(("127.0.0.1", self.port))
            connection.settimeout(READ_TIMEOUT_S)
            answer = b""
            try:
                connection.sendall(self.body)
                if self.is_read:
                    while piece := connection.recv(READ_BYTES):
                        answer += piece
            except TimeoutError:
                pass
            except OSError:
                answer += frame(GOAWAY, bytes(8))
            self.statuses.append(_status(answer) if self.is_read else "not read")
            if self.is_read:
                connection.close()
            else:
                open_.append(connection)
                time.sleep(READ_TIMEOUT_S / 10)
            yield
        for connection in open_:
            connection.close()


def _status(answer: bytes) -> str:
    """Return the lowest status of HTTP/1.1, or for HTTP/2 the frame that ended the requests."""
    if answer.startswith(b"HTTP/1.1 "):
        return min(line[9:12] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")).decode()
    kinds: set[int] = set()
    while len(answer) >= 9:
        kinds.add(answer[3])
        answer = answer[9 + int.from_bytes(answer[:3], "big") :]
    return "GOAWAY" if GOAWAY in kinds else "RST_STREAM" if RST_STREAM in kinds else "answered"
