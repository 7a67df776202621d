"""HTTP/2 for the same application as HTTP/1.1: by prior knowledge, or as ALPN has it under TLS.

The law: no stream holds up another, and no connection another. Streams, heads, windows, idle and half-finished things are
bounded; what a client cancelled counts as long as it works here; one that only makes work is told so, and closed. At the end
the client is told first, so that no request is lost on its way.

Flow control follows the application: what it has not taken is not acknowledged, so no more than a window of it comes.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import structlog
from starlette.types import Message, Scope

from collector.receive.servers.connections import Shared, Stall
from collector.receive.servers.http2_engine import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    REFUSED_STREAM,
    STREAM_ID_MAX,
    Http2Engine,
    Http2Error,
    Stream,
)
from collector.receive.servers.http2_heads import OF_CONNECTIONS, RequestHead, encode_all

# What of bodies may be on its way or not taken yet, of one stream and of all of a connection: for 5 and 20 MB/s over 50 ms.
_STREAM_WINDOW_BYTES: Final = 256 * 1024
_CONNECTION_WINDOW_BYTES: Final = 1024 * 1024
# How a client hears of the end: first that it shall begin nothing more; then, when it has heard, from where on nothing is
# answered.
_HEARD: Final = b"the end."
_HEARD_MAX_S: Final = 1.0
# Up to here too large a head is answered; beyond, it ends the connection.
_HEADS_ANSWERED: Final = 2

log = structlog.get_logger(__name__)


class Http2Connection(Http2Engine):
    """One connection, as asyncio's protocol and as the server sees it."""

    def __init__(self, shared: Shared) -> None:
        settings = shared.settings
        super().__init__(
            streams_max=settings.concurrent_streams_max,
            header_bytes_max=settings.header_bytes_max,
            header_bytes_end=_HEADS_ANSWERED * settings.header_bytes_max,
            stream_window_bytes=_STREAM_WINDOW_BYTES,
            connection_window_bytes=_CONNECTION_WINDOW_BYTES,
            control_frames_max=settings.control_frames_max,
        )
        self._shared: Final = shared
        self._loop: Final = asyncio.get_running_loop()
        self._requests_max: Final = settings.concurrent_streams_max
        self._head_bytes_max: Final = settings.header_bytes_max
        self._late_s: Final = settings.body_timeout_s
        self._request_s: Final = 3 * settings.body_timeout_s  # as in HTTP/1.1
        self._keep_alive_s: Final = settings.keep_alive_s
        self._stall: Final = Stall(settings.body_timeout_s)
        self._transport: Any = None
        self._requests: Final[dict[int, _Request]] = {}  # until they are answered, and work no more
        self._writable: Final = asyncio.Event()
        self._writable.set()
        self._idle_since: float = 0.0
        self._half: tuple[int, float] | None = None  # a frame that is half here: which one, and since when
        self._ending: bool = False
        self._refusing: bool = False
        self._closed: bool = False
        self._server: tuple[str, int] | None = None
        self._client: tuple[str, int] | None = None
        self._scheme: str = "http"

    # asyncio's side.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._shared.open.add(self)
        self._server = _address(transport, "sockname")
        self._client = _address(transport, "peername")
        if transport.get_extra_info("ssl_object") is not None:
            self._scheme = "https"
        self._idle_since = self._loop.time()
        self.begin()
        self.flush()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._closed = True
        self._shared.open.discard(self)
        self._writable.set()
        for request in list(self._requests.values()):
            request.hang_up()

    def eof_received(self) -> None:
        """Closes it: nobody sends so in HTTP/2 who still reads."""

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
            self.receive(data)
        except Http2Error as error:
            self._goodbye(error.code)
        else:
            self.flush()

    # The server's side.

    def close_if_late(self, now: float) -> None:
        if self._stall.is_over(self._transport, now):
            self.abort()
            return
        if self.is_between:
            self._half = None
        elif self._half is None or self._half[0] != self.frames:
            self._half = (int(self.frames), now)
        elif now - self._half[1] > self._late_s:
            self._goodbye(ENHANCE_YOUR_CALM)
            return
        if not self._requests:
            if now - self._idle_since > self._keep_alive_s:
                self._goodbye(NO_ERROR)
            return
        for request in list(self._requests.values()):
            # An answer may be over before its request is: then its sender need not go on.
            if request.more_body and now - request.began > self._request_s:
                self.end(request, NO_ERROR if request.answered else CANCEL)

    def shutdown(self) -> None:
        if self._closed or self._ending:
            return
        self._ending = True
        self.goaway(STREAM_ID_MAX, NO_ERROR)
        self.ping(_HEARD)
        self.flush()
        self._loop.call_later(_HEARD_MAX_S, self._refuse)

    def abort(self) -> None:
        self._transport.abort()

    # The requests' side.

    def flush(self) -> None:
        """Send what the engine has to send."""
        if self.out:
            if not self._transport.is_closing():
                self._transport.write(b"".join(self.out))
            self.out.clear()

    def taken(self, request: "_Request", size_bytes: int) -> None:
        """So much was taken: as much more may come."""
        if size_bytes and not self._closed:
            self.acknowledge(request, size_bytes)
            self.flush()

    def write_head(self, request: "_Request", headers: list[tuple[bytes, bytes]], *, end: bool) -> None:
        if not request.is_gone:
            self.send_head(request, encode_all(headers), end=end)

    async def write_body(self, request: "_Request", data: bytes, *, end: bool) -> None:
        """Return when all of it is with the transport, or nobody wants it any more."""
        rest = memoryview(data)
        while rest and not request.gone:
            self.flush()
            if not self._writable.is_set():
                await self._writable.wait()
                continue
            size = min(self.sendable_bytes(request), len(rest))
            if size > 0:
                self.send_data(request, bytes(rest[:size]), end=end and size == len(rest))
                rest = rest[size:]
            elif not await request.window_opens(self._late_s):
                self.end(request, CANCEL)
        if end and not data and not request.gone:
            self.send_data(request, b"", end=True)
        self.flush()

    def end(self, request: "_Request", code: int) -> None:
        """Answered or not."""
        self.reset(request, code)
        self.flush()

    # The engine's side.

    def on_head(self, stream_id: int, head: RequestHead) -> Stream | None:
        if self._refusing or len(self._requests) >= self._requests_max:
            # Also by those that were reset and still work here.
            self.refuse(stream_id, REFUSED_STREAM)
            return None
        return _Request(self, stream_id, head, self._loop.time())

    def on_request(self, stream: Stream) -> None:
        assert isinstance(stream, _Request)
        request = stream
        self._requests[request.stream_id] = request
        scope = self._scope(request.head)
        if isinstance(scope, HTTPStatus):
            work = request.answer(scope)
        else:
            request.expects_continue = (b"expect", b"100-continue") in scope["headers"]
            work = self._run(scope, request)
        task = self._loop.create_task(work)
        request.task = task
        self._shared.tasks.add(task)
        task.add_done_callback(self._shared.tasks.discard)
        task.add_done_callback(request.forget)

    def on_data(self, stream: Stream, data: bytes, window_bytes: int) -> None:
        assert isinstance(stream, _Request)
        if stream.answered or stream.gone:
            self.taken(stream, window_bytes)
        else:
            stream.take(data, window_bytes)

    def on_end(self, stream: Stream) -> None:
        assert isinstance(stream, _Request)
        stream.ended()
        self.forget(stream)

    def on_gone(self, stream: Stream) -> None:
        assert isinstance(stream, _Request)
        stream.more_body = False
        stream.hang_up()
        self.forget(stream)

    def on_window(self) -> None:
        for request in self._requests.values():
            request.window_opened()

    def on_ping_answered(self, data: bytes) -> None:
        if data == _HEARD:
            self._refuse()

    def on_goaway(self, code: int) -> None:
        # Nothing new comes; without an error, what is at hand is waited for.
        if code == NO_ERROR and self._requests:
            self._refusing = True
        else:
            self._close()

    # Requests.

    def _scope(self, head: RequestHead) -> Scope | HTTPStatus:
        """The request as ASGI has it, or the status by which it is refused."""
        method, path, authority = head.method, head.path, head.authority
        if head.size_bytes > self._head_bytes_max:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if method == b"CONNECT" or not (path.startswith(b"/") and path.isascii() and method.isascii()):
            return HTTPStatus.BAD_REQUEST
        headers = [header for header in head.headers if header[0] != b"host" or not authority]
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

    async def _run(self, scope: Scope, request: "_Request") -> None:
        try:
            await self._shared.app(scope, request.receive, request.send)
        except Exception:
            log.exception("the HTTP application failed")
        if request.answered or request.gone:
            return
        if request.has_begun:
            self.end(request, INTERNAL_ERROR)
        else:
            await request.answer(HTTPStatus.INTERNAL_SERVER_ERROR)

    def date(self) -> tuple[bytes, bytes]:
        """The header, as of the last tick."""
        return (b"date", self._shared.date)

    # How it ends.

    def forget(self, request: "_Request") -> None:
        """Once its task is done, and either its body has ended or nobody waits for that."""
        if (request.more_body and not request.gone) or (request.task is not None and not request.task.done()):
            return
        if self._requests.pop(request.stream_id, None) is None:
            return
        if request.answered:
            self.answered()
        self.taken(request, request.untaken_bytes)
        self._idle_since = self._loop.time()
        if self._refusing and not self._requests:
            self._close()

    def _refuse(self) -> None:
        """The client has heard of the end, or had the time to."""
        if self._closed or self._refusing or not self._ending:
            return
        self._refusing = True
        self.goaway(int(self.highest_stream_id), NO_ERROR)
        self.flush()
        if not self._requests:
            self._close()

    def _goodbye(self, code: int) -> None:
        """Close now, and say why."""
        self.goaway(int(self.highest_stream_id), code)
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self.flush()
        self.is_over = True
        self._closed = True
        self._transport.close()
        for request in list(self._requests.values()):
            request.hang_up()


class _Request(Stream):
    """One request and its answer, as ASGI has them."""

    def __init__(self, connection: Http2Connection, stream_id: int, head: RequestHead, began: float) -> None:
        """`began`: by the loop's time."""
        super().__init__(stream_id)
        self.head: Final = head
        self._connection: Final = connection
        self._is_head: Final = head.method == b"HEAD"
        self._body = bytearray()
        self._happened: Final = asyncio.Event()
        self._window: Final = asyncio.Event()
        self._end_told: bool = False
        self._start: Message | None = None
        self.began: Final = began
        self.task: asyncio.Task[None] | None = None
        self.untaken_bytes: int = 0  # of the window
        self.more_body: bool = True
        self.expects_continue: bool = False
        self.has_begun: bool = False  # its answer
        self.answered: bool = False
        self.gone: bool = False  # nobody waits for its answer

    # What comes in.

    def take(self, data: bytes, window_bytes: int) -> None:
        """A piece of the body, which takes so much of the window."""
        self._body += data
        self.untaken_bytes += window_bytes
        self._happened.set()

    def ended(self) -> None:
        self.more_body = False
        self._happened.set()

    def forget(self, _task: asyncio.Task[None]) -> None:
        """Its task is done."""
        self._connection.forget(self)

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
            self._connection.write_head(self, [(b":status", b"100")], end=False)
            self._connection.flush()
        while not (self.gone or self.answered):
            if self._body or not (self.more_body or self._end_told):
                body, self._body = bytes(self._body), bytearray()
                taken_bytes, self.untaken_bytes = self.untaken_bytes, 0
                self._connection.taken(self, taken_bytes)
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
            headers += [header for header in self._start.get("headers", ()) if header[0] not in OF_CONNECTIONS]
            self._connection.write_head(self, headers, end=end and not data)
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


def _address(transport: Any, name: str) -> tuple[str, int] | None:
    address = transport.get_extra_info(name)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
