"""A client of HTTP/2 that costs less CPU than the servers it measures: one connection, many concurrent requests.

The header block is encoded once for each length of a body. Of an answer's header block only the first byte is read. A slow
client would reduce the number of concurrent requests of the server, and so increase the server's cost for each.

It is no example of a client: it does not check what the suites do not need.
"""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from hpack import Encoder

from bench.measuring import CONNECTIONS, Send

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM: Final = 1
_ACK: Final = 1
_END_HEADERS: Final = 4
_FRAME_BYTES: Final = 16_384
_INITIAL_WINDOW: Final = 4
# The first byte of a header block with `:status: 200`: its index in HPACK's static table (RFC 7541, appendix A).
_STATUS_200: Final = 0x88
# A WINDOW_UPDATE is sent after so many bytes of answers.
_READ_BYTES: Final = 32_768


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


class _Connection(asyncio.Protocol):
    def __init__(self, path: str, content_type: str, scheme: str) -> None:
        self._head: Final = [
            *((":method", "POST"), (":scheme", scheme), (":authority", "bench"), (":path", path)),
            ("content-type", content_type),
        ]
        self._encoder: Final = Encoder()
        # Header blocks that add nothing to the encoder's table, by the length of the body.
        self._heads: Final[dict[int, bytes]] = {}
        self._transport: asyncio.Transport
        self._data = b""
        self._ids: Final = itertools.count(1, 2)
        self._answers: Final[dict[int, asyncio.Future[bool]]] = {}
        self._refused: Final[set[int]] = set()
        self._window = 65_535
        self._stream_window = 65_535
        self._stream_windows: Final[dict[int, int]] = {}
        self._widened = asyncio.Event()
        self._read_bytes = 0
        self.ready: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a socket's is of that type
        self._transport = transport
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, b""))

    def connection_lost(self, exc: Exception | None) -> None:
        waiting: list[asyncio.Future[Any]] = [self.ready, *self._answers.values()]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(exc or ConnectionResetError("the server has closed the connection"))

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        at, end = 0, len(data)
        while end - at >= 9:
            after = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if after > end:
                break
            stream_id = int.from_bytes(data[at + 5 : at + 9], "big")
            self._frame_received(data[at + 3], data[at + 4], stream_id, data[at + 9 : after])
            at = after
        self._data = data[at:]

    def _frame_received(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == _HEADERS:
            if payload[0] != _STATUS_200:
                self._refused.add(stream_id)
        elif kind == _DATA:
            self._read_bytes += len(payload)
            if self._read_bytes >= _READ_BYTES:
                self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, self._read_bytes.to_bytes(4, "big")))
                self._read_bytes = 0
        elif kind == _WINDOW_UPDATE:
            step = int.from_bytes(payload, "big")
            if not stream_id:
                self._window += step
            elif stream_id in self._stream_windows:
                self._stream_windows[stream_id] += step
            self._widened.set()
        elif kind == _SETTINGS and not flags & _ACK:
            for place in range(0, len(payload), 6):
                if int.from_bytes(payload[place : place + 2], "big") == _INITIAL_WINDOW:
                    self._stream_window = int.from_bytes(payload[place + 2 : place + 6], "big")
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _RST_STREAM:
            self._answers.pop(stream_id).set_exception(RuntimeError(f"the stream is reset: {payload!r}"))
        elif kind == _GOAWAY:
            self.connection_lost(ConnectionResetError(f"GOAWAY {payload!r}"))
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self._answers.pop(stream_id).set_result(stream_id not in self._refused)

    async def send(self, body: bytes) -> None:
        """Send a request, and wait for its answer. Raises RuntimeError if the answer is not 200."""
        stream_id = next(self._ids)
        answer = self._answers[stream_id] = asyncio.get_running_loop().create_future()
        out = [_frame(_HEADERS, _END_HEADERS, stream_id, self._encoded(len(body)))]
        self._stream_windows[stream_id] = self._stream_window
        at = 0
        while at < len(body):
            size = min(len(body) - at, _FRAME_BYTES, self._window, self._stream_windows[stream_id])
            if size <= 0:
                self._transport.write(b"".join(out))
                out.clear()
                self._widened.clear()
                await self._widened.wait()
                continue
            self._window -= size
            self._stream_windows[stream_id] -= size
            out.append(_frame(_DATA, _END_STREAM if at + size == len(body) else 0, stream_id, body[at : at + size]))
            at += size
        self._transport.write(b"".join(out))
        is_ok = await answer
        del self._stream_windows[stream_id]
        if not is_ok:
            raise RuntimeError("an answer that is not 200")

    def _encoded(self, body_bytes: int) -> bytes:
        """Return the header block of a request. It has to be sent as the next frame, since the server's HPACK table follows
        this encoder's."""
        if body_bytes not in self._heads:
            head = [*self._head, ("content-length", str(body_bytes))]
            encoded = bytes(self._encoder.encode(head))
            again = bytes(self._encoder.encode(head))  # all fields are in the table now
            if again != encoded:
                self._heads.clear()  # new entries have changed the indexes of the earlier ones
            self._heads[body_bytes] = again
            return encoded
        return self._heads[body_bytes]


@asynccontextmanager
async def http2_senders(
    port: int,
    path: str,
    bodies: Iterable[bytes],
    tls: ssl.SSLContext | None = None,
    content_type: str = "application/x-protobuf",
    requests: int = CONNECTIONS,
) -> AsyncIterator[Sequence[Send]]:
    """Yield `requests` senders that send at the same time, on one connection."""
    following = itertools.cycle(bodies)
    transport, connection = await asyncio.get_running_loop().create_connection(
        lambda: _Connection(path, content_type, "https" if tls else "http"),
        "127.0.0.1",
        port,
        ssl=tls,
        server_hostname="localhost" if tls else None,
    )
    try:
        await connection.ready

        async def send() -> None:
            await connection.send(next(following))

        yield [send] * requests
    finally:
        transport.close()
