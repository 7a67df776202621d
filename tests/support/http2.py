"""A client of HTTP/2 that does what the test asks, and no more."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from support.fakes.receiving import Response

_FRAME_BYTES = 16_384


class _States(H2ConnectionStateMachine):
    """After a GOAWAY h2's own would hear nothing more; a client that keeps to RFC 9113 waits for its open streams."""

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        return [] if input_ is ConnectionInputs.RECV_GOAWAY else super().process_input(input_)


class Http2Client:
    """One connection. `acknowledges`: whether it lets more of an answer come once it has some."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, acknowledges: bool = True) -> None:
        self.reader = reader
        self.writer = writer
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8", validate_outbound_headers=False))
        self.h2.state_machine = _States()
        self.events: list[Event] = []
        self.resets: dict[int, int] = {}
        self.goaways: list[ConnectionTerminated] = []
        self._acknowledges = acknowledges
        self._statuses: dict[int, dict[str, str]] = {}
        self._trailers: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()

    def begin(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def request(
        self, path: str, content_type: str = "", body: bytes | None = None, *headers: tuple[str, str], method: str = "POST"
    ) -> int:
        """Send a head, and a body that fits the window; None: neither is over. The stream's number."""
        stream_id = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost"), *headers]
        if content_type:
            head.append(("content-type", content_type))
        self.h2.send_headers(stream_id, head, end_stream=body == b"")
        if body:
            for at in range(0, len(body), 16_384):
                self.h2.send_data(stream_id, body[at : at + 16_384], end_stream=at + 16_384 >= len(body))
        self.flush()
        return stream_id

    def send(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(stream_id, data, end_stream=end)
        self.flush()

    async def upload(self, bodies: Mapping[int, bytes], *, ends: bool = True) -> None:
        """Send a frame of each body in turn, as far as the windows allow, until all are sent or answered."""
        at = dict.fromkeys(bodies, 0)
        while at := {each: sent for each, sent in at.items() if each not in self.ended | set(self.resets)}:
            has_sent = False
            for stream_id, sent in list(at.items()):
                body = bodies[stream_id]
                size = min(_FRAME_BYTES, self.h2.local_flow_control_window(stream_id), len(body) - sent)
                if size > 0:
                    is_last = sent + size == len(body)
                    self.send(stream_id, body[sent : sent + size], end=is_last and ends)
                    at[stream_id] += size
                    has_sent = True
                    if is_last:
                        del at[stream_id]
            await self.writer.drain()
            if at and not has_sent:
                assert await self.read(), f"closed; {self.goaways}"

    def reset(self, stream_id: int) -> None:
        self.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        self.flush()

    def status(self, stream_id: int) -> int:
        """Of that stream's answer."""
        return int(self._statuses[stream_id][":status"])

    def trailers(self, stream_id: int) -> dict[str, str]:
        """What ended that stream's answer; its head, if that was all of it."""
        return self._trailers.get(stream_id, self._statuses[stream_id])

    async def response(self, stream_id: int, within_s: float = 10) -> Response:
        """That stream's, once it is whole. Raises AssertionError where there will be none."""
        async with asyncio.timeout(within_s):
            while stream_id not in self.ended:
                assert stream_id not in self.resets, f"reset with {self.resets[stream_id]}"
                assert await self.read(), f"closed; {self.goaways}"
        headers = self._statuses[stream_id]
        return Response(int(headers[":status"]), headers, self._bodies.get(stream_id, b""))

    async def reset_code(self, stream_id: int, within_s: float = 10) -> int:
        """With what the server resets that stream."""
        async with asyncio.timeout(within_s):
            while stream_id not in self.resets:
                assert await self.read(), f"closed; {self.goaways}"
        return self.resets[stream_id]

    async def closed(self, within_s: float = 5) -> int | None:
        """Read until the server closes: the code of its GOAWAY, None without one."""
        async with asyncio.timeout(within_s):
            try:
                while await self.read():
                    pass
            except ConnectionError:
                pass
        return self.goaways[-1].error_code if self.goaways else None

    async def read(self) -> bool:
        """Whether there was more to read."""
        data = await self.reader.read(65536)
        if not data:
            return False
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, ResponseReceived):
                self._statuses[event.stream_id] = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, TrailersReceived):
                self._trailers[event.stream_id] = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, DataReceived):
                self._bodies[event.stream_id] = self._bodies.get(event.stream_id, b"") + event.data
                if self._acknowledges:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.resets[event.stream_id] = event.error_code
            elif isinstance(event, ConnectionTerminated):
                self.goaways.append(event)
        self.flush()
        return True


@asynccontextmanager
async def http2(port: int, tls: ssl.SSLContext | None = None, *, acknowledges: bool = True) -> AsyncIterator[Http2Client]:
    """Connected by prior knowledge, or over TLS by ALPN."""
    host = "localhost" if tls is not None else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=host)
    client = Http2Client(reader, writer, acknowledges=acknowledges)
    client.begin()
    try:
        yield client
    finally:
        writer.close()


def frame(type_: int, payload: bytes = b"", *, stream_id: int = 0, flags: int = 0) -> bytes:
    """One frame's bytes."""
    return len(payload).to_bytes(3, "big") + bytes([type_, flags]) + stream_id.to_bytes(4, "big") + payload


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut at those places."""
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
