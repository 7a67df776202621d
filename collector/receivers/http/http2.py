"""Serves over HTTP/2 the requests that HTTP/1.1 serves too. Clients begin with prior knowledge, or under TLS by ALPN.

Invariants:
1. No stream waits for another stream, and no connection for another connection
   (test_many_requests_at_once_on_one_connection).
2. Telemetry goes straight to its `HttpRequest`; only pages pass through ASGI (test_requests_are_answered_as_in_http_1_1).
3. A refused request is answered before its body is whole, and the client may still send the rest of the body for
   `body_timeout_s` (test_a_body_of_unknown_length_is_taken_and_limited).

The part that is shared with gRPC's connections is in http2_connection.py.
"""

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, Final

from starlette.types import Scope

from collector.http2.engine import INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM, Stream
from collector.http2.headers import RequestHead, encode, encode_all
from collector.receivers.http.http2_asgi import Http2Page
from collector.receivers.http.shared import HttpShared
from collector.receivers.http.targets import METHOD, TARGET, decoded_path, is_host
from collector.receivers.http.telemetry_request import Head, HttpRequest, asks_for_continue
from collector.receivers.http2_bodies import BodyStream
from collector.receivers.transport.connections import CLOSED, ENDING, OPEN, REFUSING
from collector.receivers.transport.http2_connection import HEARD_MAX_S, ServerConnection, ServerStream

# How many bytes of bodies may be on their way on one stream and on one connection: enough for 5 and 20 MB/s at 50 ms.
_STREAM_WINDOW_BYTES: Final = 256 * 1024
_CONNECTION_WINDOW_BYTES: Final = 1024 * 1024

# An old connection that is busy is ended after twice `age_grace_s` and this time.
_BUSY_MAX_S: Final = 5.0


_STATUS: Final[dict[int, bytes]] = {status.value: encode(b":status", b"%d" % status.value) for status in HTTPStatus}
_CONTINUE: Final = encode(b":status", b"100")


class _Meaning:
    """How a request is handled: as telemetry (`head` is set), with a refusal (`status` is not 0), or as a page."""

    def __init__(self, request_head: RequestHead, path: str, head: Head | None, status: int) -> None:
        self.request_head: Final = request_head
        self.path: Final = path
        self.head: Final = head
        self.status: Final = status


class Http2Connection(ServerConnection):
    """One connection. It is asyncio's protocol, receives the HTTP/2 engine's events, and has the server's deadlines."""

    def __init__(self, shared: HttpShared) -> None:
        super().__init__(shared, _STREAM_WINDOW_BYTES, _CONNECTION_WINDOW_BYTES)
        self._shared: Final = shared
        self._keep_alive_s: Final = shared.settings.keep_alive_s
        self._bodies: Final = shared.bodies()
        self._server: tuple[str, int] | None = None
        self._client: tuple[str, int] | None = None
        self._date: bytes = b""
        self._date_header: bytes = b""

    # Called by asyncio, or when a connection is old.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._server = _address(transport, "sockname")
        self._client = _address(transport, "peername")
        self.begin()
        self.flush()

    def end_behind_answer(self) -> None:
        """End an old connection on which no request is in flight.

        The connection is not read until the client has had time to read its answers. Then GOAWAY names the last stream that was
        taken, so the client sends later requests on a new connection. The pause is for clients that use Python's h2, such as
        httpx: when GOAWAY comes, they lose the answers that they have not read, and the requests that GOAWAY names as taken.
        """
        if self.state != OPEN:
            super().end_behind_answer()
            return
        self._hold_back()

    def end_by_age(self) -> None:
        if self.state != OPEN or self.loop.time() > self.ends_at + 2 * self.connections.age_grace_s + _BUSY_MAX_S:
            self.shutdown()
        else:
            self._hold_back()

    def _hold_back(self) -> None:
        self.state = ENDING
        self.transport.pause_reading()
        self.loop.call_later(self.connections.held_back_s, self._end_if_quiet)

    def _end_if_quiet(self) -> None:
        if self.state != ENDING:
            return
        if self.streams:  # requests that came meanwhile are not answered yet, or their bodies are not read yet
            self.state = OPEN
            if self.is_writable and not self.unread:
                self.transport.resume_reading()
            if self.connections.is_ending:
                self.shutdown()
            elif self.connections.is_leaving:
                self.leave()
            return
        # The connection is not read, so no frame is written after GOAWAY.
        self.state = REFUSING
        self.goaway(int(self.highest_stream_id), NO_ERROR)
        self.flush()
        self.loop.call_later(HEARD_MAX_S, self.close_if_over)

    # Called by the HTTP/2 engine.

    def on_head(self, stream_id: int, head: RequestHead) -> Stream | None:
        if self.state >= REFUSING or self.has_all_streams:
            self.refuse(stream_id, REFUSED_STREAM)
            return None
        meaning = head.meaning
        if meaning is None:
            meaning = head.meaning = self._interpret(head)
        assert isinstance(meaning, _Meaning)
        return _HttpStream(self, stream_id, self.last_received, meaning)

    def on_request(self, stream: Stream) -> None:
        assert isinstance(stream, _HttpStream)
        meaning = stream.meaning
        assert meaning is not None
        if meaning.status:
            block = self._status_and_date(meaning.status) + encode(b"content-length", b"0")
            if self._shared.cors is not None:
                origin = b", ".join([value for name, value in meaning.request_head.headers if name == b"origin"])
                block += encode_all(list(self._shared.cors.headers(origin)))
            self.send_head(stream, block, end=True)
            self._answered(stream)
        elif meaning.head is None:
            takes_body = self._shared.takes_page_bodies and not self._head_ends
            page = Http2Page(self._scope(meaning), is_head=meaning.request_head.method == b"HEAD", takes_body=takes_body)
            stream.page = page
            if takes_body and any(
                asks_for_continue(value) for name, value in meaning.request_head.headers if name == b"expect"
            ):
                self.send_head(stream, _CONTINUE, end=False)
            self.run(stream, self._show(stream, page))
        else:
            receiver = self._shared.receiver
            assert receiver is not None
            request = receiver.new_request(meaning.path, meaning.head, self._bodies)
            request.can_be_held_back = True
            stream.request = request
            request.admit()
            if request.answer is not None:
                self.due.append(stream)
            elif meaning.head.expects_continue and not self._head_ends:
                self.send_head(stream, _CONTINUE, end=False)

    def on_data(self, stream: Stream, data: bytes, window_bytes: int) -> None:
        assert isinstance(stream, _HttpStream)
        if stream.page is not None and stream.page.takes_more:
            # Bytes that the application has not read use up the window of their stream, but not the connection's.
            self.acknowledge(None, window_bytes)
            self.open_window(stream, window_bytes - len(data))
            stream.page.feed(data)
            return
        request = stream.request
        if request is None:
            self.acknowledge(stream, window_bytes)
            return
        if request.answer is None and not request.feed(data):
            self.due.append(stream)
        stream.return_window(window_bytes, request)

    def on_end(self, stream: Stream) -> None:
        assert isinstance(stream, _HttpStream)
        self.note_whole(stream)
        request = stream.request
        if request is not None and request.answer is None:
            self.run(stream, self._finish(stream, request))
        elif stream.page is not None:
            stream.page.end_body()
        stream.close_body()  # after `run`, so that this request's task begins before another body is read

    def on_aborted(self, stream: Stream) -> None:
        super().on_aborted(stream)
        assert isinstance(stream, _HttpStream)
        stream.close_body()
        if stream.page is not None:
            stream.page.disconnected()
        elif stream.request is not None and stream.request.answer is None and not stream.is_running:
            stream.request.disconnected()
        stream.drained()

    # Requests.

    def _interpret(self, head: RequestHead) -> _Meaning:
        if head.size_bytes > self._shared.header_bytes_max:
            return _Meaning(head, "", None, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        method, target = head.method, head.path
        if method == b"CONNECT" or not (METHOD.fullmatch(method) and TARGET.fullmatch(target) and _has_one_host(head)):
            return _Meaning(head, "", None, HTTPStatus.BAD_REQUEST)
        receiver = self._shared.receiver
        path = target.decode()
        if receiver is None or not receiver.takes(path):
            path = decoded_path(target.partition(b"?")[0])
            if receiver is None or self._shared.is_page(path):
                return _Meaning(head, path, None, 0)
        http_head = Head(method.decode())
        http_head.query = target.partition(b"?")[2]
        for name, value in head.headers:
            http_head.add(name, value)
        return _Meaning(head, path, http_head, 0)

    async def _finish(self, stream: "_HttpStream", request: HttpRequest) -> None:
        await request.finish()
        self.task_done(stream)
        if self.state == CLOSED:
            request.completed()  # no client gets the answer, but it is counted
            return
        self.send_answer(stream)
        self.flush()
        if self.state >= REFUSING:
            self.close_if_over()

    def send_answer(self, stream: ServerStream) -> None:
        assert isinstance(stream, _HttpStream)
        request = stream.request
        assert request is not None
        answer = request.answer
        assert answer is not None
        stream.close_body()
        request.completed()
        if stream.is_aborted:
            return
        pieces = [self._status_and_date(answer.status)]
        for name, value in answer.headers:
            pieces.append(encode(name, value))
        if answer.content_type:
            pieces.append(encode(b"content-type", answer.content_type))
        body = answer.body
        if answer.status != 204:
            pieces.append(encode(b"content-length", b"%d" % len(body)))
        if request.head.method == "HEAD":
            body = b""
        self.send_head(stream, b"".join(pieces), end=not body)
        if body:
            self.send_body(stream, body, b"", end=True)
        self._answered(stream)
        # A sender that waits for 100 Continue, or is too slow, need not send the rest.
        if (
            stream.is_sent
            and not (stream.is_received or stream.is_aborted)
            and (request.is_abandoned or request.head.expects_continue)
        ):
            self.reset(stream, NO_ERROR)

    async def _show(self, stream: "_HttpStream", page: Http2Page) -> None:
        showing: Awaitable[None] = page.show(self._shared.app, stream)
        await showing
        self.task_done(stream)
        if stream.is_aborted or self.state == CLOSED:
            return
        if stream.is_sent:
            self._answered(stream)
        else:
            self.reset(stream, INTERNAL_ERROR)
        self.flush()
        if self.state >= REFUSING:
            self.close_if_over()

    def _answered(self, stream: "_HttpStream") -> None:
        stream.answered_at = self.loop.time()
        self.answered()
        if stream.is_received:
            return
        stream.forget()
        self.note_early(stream)

    def write_page_head(self, stream: "_HttpStream", status: int, headers: list[tuple[bytes, bytes]], *, end: bool) -> None:
        if not stream.is_aborted:
            self.send_head(stream, self._status_and_date(status) + encode_all(headers), end=end)
            self.flush()

    def _status_and_date(self, status: int) -> bytes:
        date = self._shared.date
        if date is not self._date:
            self._date = date
            self._date_header = encode(b"date", date)
        known = _STATUS.get(status)
        return (encode(b":status", b"%d" % status) if known is None else known) + self._date_header

    def _scope(self, meaning: _Meaning) -> Scope:
        head = meaning.request_head
        headers = [header for header in head.headers if header[0] != b"host" or not head.authority]
        if head.authority:
            headers.insert(0, (b"host", head.authority))
        raw_path, _, query_string = head.path.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "server": self._server,
            "client": self._client,
            "scheme": "https" if self.is_tls else "http",
            "root_path": "",
            "method": head.method.decode(),
            "path": meaning.path,
            "raw_path": raw_path,
            "query_string": query_string,
            "headers": headers,
            "state": {},
        }

    # Called by the server, to enforce deadlines.

    def check_deadline(self, stream: ServerStream, now: float) -> None:
        assert isinstance(stream, _HttpStream)
        if stream.is_received or stream.is_running:
            return
        if stream.answered_at:
            if now - stream.answered_at > self._shared.body_timeout_s:
                self.reset(stream, NO_ERROR)
            return
        late_s = self._shared.body_timeout_s
        if stream.request is not None and stream.late_s(now, late_s) > late_s:
            stream.request.timed_out(late_s)
            self.send_answer(stream)

    def on_idle(self, now: float) -> None:
        if now - self._idle_since > self._keep_alive_s:
            self.close_with_goaway(NO_ERROR)


class _HttpStream(BodyStream):
    """One request and its answer."""

    def __init__(self, connection: Http2Connection, stream_id: int, began: float, meaning: _Meaning) -> None:
        """`began` is in the loop's time."""
        super().__init__(connection, stream_id, began)
        self.meaning: _Meaning | None = meaning
        self.request: HttpRequest | None = None
        self.page: Http2Page | None = None  # at most one of `request` and `page` is set
        self._http: Final = connection
        self._drained: asyncio.Event | None = None  # set when a page may write more

    def drained(self) -> None:
        if self._drained is not None:
            self._drained.set()

    def forget(self) -> None:
        """Release the objects that only the answer needed."""
        self.meaning = None
        self.request = None
        self.page = None

    # Called by a page.

    def write_head(self, status: int, headers: list[tuple[bytes, bytes]], *, end: bool) -> None:
        self._http.write_page_head(self, status, headers, end=end)

    def resume_reading(self, size_bytes: int) -> None:
        self._http.open_window(self, size_bytes)
        self._http.flush()

    async def write_body(self, data: bytes, *, end: bool) -> None:
        self._http.send_body(self, data, b"", end=end)
        self._http.flush()
        while self.rest and not self.is_aborted:
            self._drained = asyncio.Event()
            await self._drained.wait()


def _has_one_host(head: RequestHead) -> bool:
    """Return whether all values of `:authority` and Host in the head are one well-formed host, if any (RFC 9113, 8.3.1)."""
    hosts = {value.lower() for name, value in head.headers if name == b"host"}
    if head.authority:
        hosts.add(head.authority.lower())
    return len(hosts) <= 1 and all(is_host(host) for host in hosts)


def _address(transport: Any, name: str) -> tuple[str, int] | None:
    """Return a host and a port. For a Unix socket, whose clients have no names, the port is the file descriptor, which no other
    open connection has."""
    address = transport.get_extra_info(name)
    if isinstance(address, tuple):
        return (str(address[0]), int(address[1]))
    connection = transport.get_extra_info("socket")
    return None if connection is None else ("unix", int(connection.fileno()))
