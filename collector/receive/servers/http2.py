"""HTTP/2 on h2, for the same application as HTTP/1.1: by prior knowledge, or as ALPN has it under TLS.

The law: no stream holds up another, and no connection another. Streams, heads, windows, idle and half-finished things are
bounded; what a client cancelled counts as long as it works here; one that only makes work is told so, and closed. At the end
the client is told first, so that no request is lost on its way.

Flow control follows the application: what it has not taken is not acknowledged, so no more than a window of it comes.
"""

import asyncio
import contextlib
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import structlog
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame
from starlette.types import Message, Scope

from collector.receive.servers.connections import Shared, Stall
from collector.receive.servers.frames import Flood, FrameMeter

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# What of bodies may be on its way or not taken yet, of one stream and of all of a connection: for 5 and 20 MB/s over 50 ms.
_STREAM_WINDOW_BYTES: Final = 256 * 1024
_CONNECTION_WINDOW_BYTES: Final = 1024 * 1024
# Every connection begins with so much, RFC 9113.
_WINDOW_BYTES: Final = 65_535
# How a client hears of the end: first that it shall begin nothing more; then, when it has heard, from where on nothing is
# answered.
_STREAM_ID_MAX: Final = 2**31 - 1
_HEARD: Final = b"the end."
_HEARD_MAX_S: Final = 1.0
# Headers that speak of a connection in HTTP/1.1, and are not to be said in HTTP/2.
_OF_CONNECTIONS: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
# What h2 counts beside a header's name and value, RFC 9113.
_HEADER_BYTES_OVERHEAD: Final = 32
# Up to here too large a head is answered; beyond, it ends the connection.
_HEADS_ANSWERED: Final = 2

log = structlog.get_logger(__name__)


class _States(H2ConnectionStateMachine):
    """h2's own takes a client's GOAWAY for the end of all; but what is at hand may be finished (RFC 9113, 6.8)."""

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        return [] if input_ is ConnectionInputs.RECV_GOAWAY else super().process_input(input_)


class _Http2(H2Connection):
    # Remembered so that what was on its way when they closed is told from nonsense; h2's own number takes megabytes.
    MAX_CLOSED_STREAMS = 1024

    def __init__(self) -> None:
        super().__init__(
            H2Configuration(
                client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.state_machine = _States()


class Http2Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, shared: Shared) -> None:
        settings = shared.settings
        self._shared: Final = shared
        self._loop: Final = asyncio.get_running_loop()
        self._streams_max: Final = settings.concurrent_streams_max
        self._header_bytes_max: Final = settings.header_bytes_max
        self._late_s: Final = settings.body_timeout_s
        self._request_s: Final = 3 * settings.body_timeout_s  # as in HTTP/1.1
        self._keep_alive_s: Final = settings.keep_alive_s
        self._h2: Final = _Http2()
        hard_max = _HEADS_ANSWERED * settings.header_bytes_max
        self._meter: Final = FrameMeter(len(PREFACE), settings.control_frames_max, hard_max)
        self._h2.decoder.max_header_list_size = hard_max
        self._stall: Final = Stall(settings.body_timeout_s)
        self._transport: asyncio.Transport
        self._streams: Final[dict[int, _Stream]] = {}
        self._writable: Final = asyncio.Event()
        self._writable.set()
        self._idle_since = 0.0
        self._half: tuple[int, float] | None = None  # a frame that is half here: which one, and since when
        self._ending = False
        self._refusing = False
        self._closed = False
        self._server: tuple[str, int] | None = None
        self._client: tuple[str, int] | None = None
        self._scheme = "http"

    # asyncio's side.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a listener's are of that type
        self._transport = transport
        self._shared.open.add(self)
        self._server = _address(transport, "sockname")
        self._client = _address(transport, "peername")
        if transport.get_extra_info("ssl_object") is not None:
            self._scheme = "https"
        self._idle_since = self._loop.time()
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: self._streams_max,
                SettingCodes.MAX_HEADER_LIST_SIZE: self._header_bytes_max,
                SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW_BYTES - _WINDOW_BYTES)
        self._flush()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._closed = True
        self._shared.open.discard(self)
        self._writable.set()
        for stream in list(self._streams.values()):
            stream.hang_up()

    def pause_writing(self) -> None:
        self._writable.clear()
        # Who does not read what it asked for can't ask for more.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        try:
            self._meter.feed(data)
            events = self._h2.receive_data(data)
        except Flood as flood:
            self._goodbye(flood.code)
        except ProtocolError:
            self._flush()  # h2 has said which
            self._close()
        else:
            for event in events:
                self._handle(event)
            self._flush()

    # The server's side.

    def close_if_late(self, now: float) -> None:
        if self._stall.is_over(self._transport, now):
            self.abort()
            return
        if self._meter.is_between:
            self._half = None
        elif self._half is None or self._half[0] != self._meter.frames:
            self._half = (self._meter.frames, now)
        elif now - self._half[1] > self._late_s:
            self._goodbye(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        if not self._streams:
            if now - self._idle_since > self._keep_alive_s:
                self._goodbye(ErrorCodes.NO_ERROR)
            return
        for stream in list(self._streams.values()):
            # An answer may be over before its request is: then its sender need not go on.
            if stream.more_body and now - stream.began > self._request_s:
                self.reset(stream, ErrorCodes.NO_ERROR if stream.answered else ErrorCodes.CANCEL)

    def shutdown(self) -> None:
        if self._closed or self._ending:
            return
        self._ending = True
        self._send_goaway(_STREAM_ID_MAX, ErrorCodes.NO_ERROR)
        self._h2.ping(_HEARD)
        self._flush()
        self._loop.call_later(_HEARD_MAX_S, self._refuse)

    def abort(self) -> None:
        self._transport.abort()

    # The streams' side.

    def flush(self) -> None:
        """Send what h2 has to send."""
        self._flush()

    def acknowledge(self, stream_id: int, size_bytes: int) -> None:
        """So much was taken: as much more may come."""
        if size_bytes and not self._closed:
            self._h2.acknowledge_received_data(size_bytes, stream_id)
            self._flush()

    async def write_head(self, stream: "_Stream", headers: list[tuple[bytes, bytes]], *, end: bool) -> None:
        try:
            self._h2.send_headers(stream.stream_id, headers, end_stream=end)
        except ProtocolError:  # reset meanwhile
            stream.hang_up()

    async def write_body(self, stream: "_Stream", data: bytes, *, end: bool) -> None:
        """Return when all of it is with the transport, or nobody wants it any more."""
        rest = memoryview(data)
        try:
            while rest and not stream.gone:
                self._flush()
                if not self._writable.is_set():
                    await self._writable.wait()
                    continue
                size = min(self._h2.local_flow_control_window(stream.stream_id), self._h2.max_outbound_frame_size, len(rest))
                if size > 0:
                    self._h2.send_data(stream.stream_id, bytes(rest[:size]), end_stream=end and size == len(rest))
                    self._meter.sent(size)
                    rest = rest[size:]
                elif not await stream.window_opens(self._late_s):
                    self.reset(stream, ErrorCodes.CANCEL)
            if end and not data and not stream.gone:
                self._h2.end_stream(stream.stream_id)
        except ProtocolError:  # as above
            stream.hang_up()
        self._flush()

    def reset(self, stream: "_Stream", code: ErrorCodes) -> None:
        """End it, answered or not."""
        stream.more_body = False
        with contextlib.suppress(ProtocolError):  # it has ended by itself
            self._h2.reset_stream(stream.stream_id, code)
        self._flush()
        stream.hang_up()
        self._forget(stream)

    # What comes in.

    def _handle(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            stream = self._streams.get(event.stream_id)
            size_bytes = event.flow_controlled_length
            if stream is None or stream.answered or stream.gone:
                self.acknowledge(event.stream_id, size_bytes)
            else:
                stream.take(event.data, size_bytes)
        elif isinstance(event, RequestReceived):
            self._request(event)
        elif isinstance(event, StreamEnded):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.end()
                self._forget(stream)
        elif isinstance(event, StreamReset):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.more_body = False
                stream.hang_up()
                self._forget(stream)
        elif isinstance(event, WindowUpdated):
            for stream in [self._streams.get(event.stream_id)] if event.stream_id else self._streams.values():
                if stream is not None:
                    stream.window_opened()
        elif isinstance(event, RemoteSettingsChanged):
            for stream in self._streams.values():
                stream.window_opened()
        elif isinstance(event, PingAckReceived):
            if event.ping_data == _HEARD:
                self._refuse()
        elif isinstance(event, ConnectionTerminated):
            # Nothing new comes; without an error, what is at hand is waited for.
            if event.error_code == ErrorCodes.NO_ERROR and self._streams:
                self._refusing = True
            else:
                self._close()

    def _request(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        if self._refusing or len(self._streams) >= self._streams_max:
            # Also by those that were reset and still work here.
            with contextlib.suppress(ProtocolError):  # its sender has done so meanwhile
                self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        scope = self._scope(event.headers)
        stream = _Stream(self, stream_id, self._loop.time(), is_head=isinstance(scope, dict) and scope["method"] == "HEAD")
        self._streams[stream_id] = stream
        if isinstance(scope, HTTPStatus):
            task = self._loop.create_task(stream.answer(scope))
        else:
            stream.expects_continue = (b"expect", b"100-continue") in scope["headers"]
            task = self._loop.create_task(self._run(scope, stream))
        stream.task = task
        self._shared.tasks.add(task)
        task.add_done_callback(self._shared.tasks.discard)
        task.add_done_callback(lambda _: self._forget(stream))

    def _scope(self, fields: list[tuple[bytes, bytes]]) -> Scope | HTTPStatus:
        """The request as ASGI has it, or the status by which it is refused."""
        method = path = authority = b""
        headers = []
        size_bytes = 0
        for name, value in fields:
            size_bytes += len(name) + len(value) + _HEADER_BYTES_OVERHEAD
            if name == b":method":
                method = value
            elif name == b":path":
                path = value
            elif name == b":authority":
                authority = value
            elif not name.startswith(b":") and not (name == b"host" and authority):
                headers.append((name, value))
        if size_bytes > self._header_bytes_max:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if method == b"CONNECT" or not (path.startswith(b"/") and path.isascii() and method.isascii()):
            return HTTPStatus.BAD_REQUEST
        if authority:
            headers.insert(0, (b"host", authority))
        raw_path, _, query_string = path.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "root_path": "",
            "method": method.decode(),
            "path": unquote(raw_path.decode()),
            "raw_path": raw_path,
            "query_string": query_string,
            "headers": headers,
            "state": {},
        }

    async def _run(self, scope: Scope, stream: "_Stream") -> None:
        try:
            await self._shared.app(scope, stream.receive, stream.send)
        except Exception:
            log.exception("the HTTP application failed")
        if stream.answered or stream.gone:
            return
        if stream.has_begun:
            self.reset(stream, ErrorCodes.INTERNAL_ERROR)
        else:
            await stream.answer(HTTPStatus.INTERNAL_SERVER_ERROR)

    def date(self) -> tuple[bytes, bytes]:
        """The header, as of the last tick."""
        return (b"date", self._shared.date)

    # How it ends.

    def _forget(self, stream: "_Stream") -> None:
        """Once its task is done, and either its body has ended or nobody waits for that."""
        if (stream.more_body and not stream.gone) or (stream.task is not None and not stream.task.done()):
            return
        if self._streams.pop(stream.stream_id, None) is None:
            return
        if stream.answered:
            self._meter.answered()
        self.acknowledge(stream.stream_id, stream.untaken_bytes)
        self._idle_since = self._loop.time()
        if self._refusing and not self._streams:
            self._close()

    def _refuse(self) -> None:
        """The client has heard of the end, or had the time to."""
        if self._closed or self._refusing:
            return
        self._refusing = True
        self._send_goaway(self._h2.highest_inbound_stream_id, ErrorCodes.NO_ERROR)
        if not self._streams:
            self._close()

    def _goodbye(self, code: ErrorCodes) -> None:
        """Close now, and say why."""
        self._flush()
        self._send_goaway(self._h2.highest_inbound_stream_id, code)
        self._close()

    def _send_goaway(self, last_stream_id: int, code: ErrorCodes) -> None:
        # h2's own is its last word: after it, requests at hand could not be answered.
        self._transport.write(GoAwayFrame(0, last_stream_id, code).serialize())

    def _close(self) -> None:
        self._closed = True
        self._transport.close()
        for stream in list(self._streams.values()):
            stream.hang_up()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)


class _Stream:
    """One request and its answer, as ASGI has them."""

    def __init__(self, connection: Http2Connection, stream_id: int, began: float, *, is_head: bool) -> None:
        self._connection: Final = connection
        self._is_head: Final = is_head
        self._body = bytearray()
        self._happened: Final = asyncio.Event()
        self._window: Final = asyncio.Event()
        self._end_told = False
        self._start: Message | None = None
        self.stream_id: Final = stream_id
        self.began: Final = began  # by the loop's time
        self.task: asyncio.Task[None] | None = None
        self.untaken_bytes = 0  # of the window
        self.more_body = True
        self.expects_continue = False
        self.has_begun = False  # its answer
        self.answered = False
        self.gone = False  # nobody waits for its answer

    # What comes in.

    def take(self, data: bytes, window_bytes: int) -> None:
        """A piece of the body, which takes so much of the window."""
        self._body += data
        self.untaken_bytes += window_bytes
        self._happened.set()

    def end(self) -> None:
        self.more_body = False
        self._happened.set()

    def hang_up(self) -> None:
        """Nobody waits for the answer any more."""
        self.gone = True
        self._happened.set()
        self._window.set()

    def window_opened(self) -> None:
        self._window.set()

    async def window_opens(self, timeout_s: float) -> bool:
        """Whether it does in time."""
        self._window.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._window.wait()
        except TimeoutError:
            return False
        return True

    # The application's side.

    async def receive(self) -> Message:
        if self.expects_continue and not self.has_begun and self.more_body:
            self.expects_continue = False
            await self._connection.write_head(self, [(b":status", b"100")], end=False)
            self._connection.flush()
        while not (self.gone or self.answered):
            if self._body or not (self.more_body or self._end_told):
                body, self._body = bytes(self._body), bytearray()
                taken_bytes, self.untaken_bytes = self.untaken_bytes, 0
                self._connection.acknowledge(self.stream_id, taken_bytes)
                self._end_told = not self.more_body
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            self._happened.clear()
            await self._happened.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.gone:
            return
        if self._start is None:
            self._expect(message, "http.response.start")
            self._start = message
            return
        self._expect(message, "http.response.body")
        data = b"" if self._is_head else message.get("body", b"")
        end = not message.get("more_body", False)
        if not self.has_begun:
            self.has_begun = True
            headers = [(b":status", b"%d" % self._start["status"]), self._connection.date()]
            headers += [header for header in self._start.get("headers", ()) if header[0] not in _OF_CONNECTIONS]
            await self._connection.write_head(self, headers, end=end and not data)
            if data or not end:
                await self._connection.write_body(self, data, end=end)
            else:
                self._connection.flush()
        elif data or end:
            await self._connection.write_body(self, data, end=end)
        if end and not self.gone:
            self.answered = True
            self._happened.set()

    async def answer(self, status: HTTPStatus) -> None:
        """Without a body."""
        await self.send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await self.send({"type": "http.response.body"})

    def _expect(self, message: Message, type_: str) -> None:
        if message["type"] != type_ or self.answered:
            raise RuntimeError(f"the application sent {message['type']} where {type_} was due")


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    address = transport.get_extra_info(name)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
