"""HTTP/1.1 on httptools' parser. Requests go directly to their `HttpRequest`, without a framework or a queue of messages.

Invariants:
1. Requests of a connection are answered one after the other, in their order (test_pipelined_requests_are_answered_in_order).
2. However many requests or chunks one piece of data has, other connections have their turn after a few of them
   (test_thousands_of_requests_in_one_packet_do_not_hold_up_others, test_a_body_of_tiny_chunks_is_read_in_turns). They also have
   it after some kilobytes of heads, in however many pieces (test_large_heads_in_many_pieces_are_read_in_turns).
3. Heads, trailers and chunk extensions are bounded. A message that is too slow, or an answer that is not read, ends its
   connection (test_trailers_and_chunk_extensions_are_bounded, test_a_head_that_trickles_is_not_waited_for_either,
   test_answers_that_nobody_reads_are_not_kept_for_ever).
4. A connection whose large body has no room is not read (test_http1_bodies.py, test_bodies_beyond_the_room_are_not_read).
5. Input that cannot be parsed is answered once, and never logged, since strangers could fill the disk
   (test_a_request_is_framed_in_one_way_or_refused).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from math import inf
from typing import Any, Final, cast

import httptools
from mypy_extensions import i64
from starlette.types import Scope

from collector.http2.headers import FIELDS_MAX
from collector.receivers.http.http1_asgi import Http1Page, status_line
from collector.receivers.http.http1_bodies import IncomingBody
from collector.receivers.http.shared import HttpShared
from collector.receivers.http.targets import decoded_path, is_host
from collector.receivers.http.telemetry_request import Head, HttpRequest
from collector.receivers.transport.connections import CLOSED, ENDING, OPEN, REFUSING, Stall
from collector.receivers.transport.eviction import BUSY
from collector.receivers.transport.pending import has_unread

# The spaces around a header's value, which are no part of it.
_SPACES: Final = b" \t"
# A header's colon, space and line end.
_HEADER_BYTES_OVERHEAD: Final = 4


def closing_response(status: str, text: str = "") -> bytes:
    """Return a whole response to input that does not become a request. The connection is closed after it. `text` is the
    reason, for people."""
    content_type = "content-type: text/plain; charset=utf-8\r\n" if text else ""
    body = f"{text}\n" if text else ""
    return f"HTTP/1.1 {status}\r\n{content_type}content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()


def with_headers(response: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the response with further headers, after its first line."""
    first, _, rest = response.partition(b"\r\n")
    return b"\r\n".join([first, *[name + b": " + value for name, value in headers], rest])


_BAD_REQUEST: Final = closing_response("400 Bad Request")
_HEAD_TOO_LARGE: Final = closing_response("431 Request Header Fields Too Large")
_NO_HOST: Final = closing_response("400 Bad Request", "the Host header is missing; HTTP/1.1 requires one")
_HOSTS: Final = closing_response("400 Bad Request", "there is more than one Host header")
_ODD_HOST: Final = closing_response("400 Bad Request", "the Host header is not a host with or without a port")
_ODD_CODING: Final = closing_response("501 Not Implemented", "Transfer-Encoding is not chunked, the only one that is supported")
_CODING_IN_1_0: Final = closing_response("400 Bad Request", "HTTP/1.0 has no Transfer-Encoding")
_FRAGMENT: Final = closing_response("400 Bad Request", "the target has a fragment, which is not part of a request")
_CONNECTION_TRAILER: Final = closing_response("400 Bad Request", "Connection is not allowed as a trailer")
_NO_VERSION: Final = closing_response("400 Bad Request", "HTTP/0.9 is not supported; use HTTP/1.1 or HTTP/2")
_ODD_VERSION: Final = closing_response(
    "505 HTTP Version Not Supported", "this version is not supported in this form; use HTTP/1.1"
)
# The text of httptools' error.
_INVALID_VERSION: Final = "Invalid HTTP version"
_HEAD_END: Final = b"\r\n\r\n"
# The bytes that are parsed at once, and how many requests of a larger piece are answered before other connections have their
# turn: a millisecond or so.
_AT_ONCE_BYTES: Final = 4_096
_REQUESTS_AT_ONCE: Final = 32
# The bytes of heads from one turn of the loop to the next: a byte costs up to 0.1 us, and a turn reads 32 pieces of 256 KiB.
_HEADS_AT_ONCE_BYTES: Final = 32_768
_CHUNKS_AT_ONCE_BYTES: Final = 16_384
_CHUNKS_AT_ONCE: Final = 4_096
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"connection: close\r\n"
_STATUS_LINES: Final[dict[int, bytes]] = {status.value: status_line(status.value) for status in HTTPStatus}


def builtin_http1(shared: HttpShared) -> Callable[[], asyncio.Protocol]:
    """Return the function that makes a connection's protocol."""
    return lambda: cast("asyncio.Protocol", Http1Connection(shared))


class _Turn:
    """One request of a connection, and its answer."""

    def __init__(self, head: Head, keep_alive: bool) -> None:
        self.head: Final = head
        self.keep_alive: bool = keep_alive
        self.request: HttpRequest | None = None
        self.page: Http1Page | None = None  # either `request` or `page` is set
        self.is_received: bool = False  # to its last byte
        self.is_running: bool = False  # in a task
        self.is_answered: bool = False  # to the last byte
        self.answered_at: float = 0.0  # the loop's time


class Http1Connection:
    """One connection: asyncio's protocol, httptools' callbacks, and the server's handle, in one object for their speed.

    Compiled, it can't inherit from asyncio.Protocol, but has every method that is called.
    """

    def __init__(self, shared: HttpShared) -> None:
        settings = shared.settings
        self._shared: Final = shared
        self._loop: Final = asyncio.get_running_loop()
        self._header_bytes_max: Final = settings.header_bytes_max
        # A head may take as long as a body. A request has both, and as long again for its sender to read its refusal.
        self._late_s: Final = settings.body_timeout_s
        self._request_s: Final = 3 * settings.body_timeout_s
        self._keep_alive_s: Final = settings.keep_alive_s
        self._stall: Final = Stall(shared.answer_timeout_s)
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._scheme: str = "http"

        # The message that is coming in.
        self._url: bytes = b""
        self._head: Head | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._incoming: _Turn | None = None  # once its head is whole
        self._head_bytes: int = 0
        self._unclaimed_bytes: int = 0
        self._in_head: bool = True
        self._body_left: int = 0  # the missing bytes of a body whose length is known
        self._unfed: bytes = b""  # received bytes after so many requests that these have to be answered first
        self._is_feed_due: bool = False
        self._chunks: i64 = 0  # pieces of bodies that came with this piece of data
        self._heads_bytes: i64 = 0  # that were read since other connections certainly had their turn
        self._asks_upgrade: bool = False
        self._refusal: bytes = b""  # the response to a head that can't be taken
        self._closing_response: bytes = b""  # the refusal that follows the answers to the requests before it
        self._host: bytes = b""  # the last well-formed host
        self._began: float = 0.0  # the loop's time; 0 if nothing is coming in
        self._body_began: float = 0.0
        self._bodies: Final = shared.bodies()
        self._body: Final = IncomingBody()

        self._turn: _Turn | None = None  # the request whose answer is due
        self._waiting: Final[deque[_Turn]] = deque()
        self._idle_since: float = 0.0
        self._ends_at: float = inf  # the loop's time at which the connection is old
        self._state: i64 = OPEN
        self._reads: bool = True
        self._paused_at: float = 0.0  # the loop's time
        self._writable: asyncio.Event | None = None  # set while writing is paused

    # asyncio's side.

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._shared.open.add(self)
        if transport.get_extra_info("ssl_object") is not None:
            self._scheme = "https"
        self._idle_since = self._loop.time()
        self._ends_at = self._shared.ends_at(self._idle_since)
        # The connection was accepted just as the server ended: one request is answered.
        if self._shared.is_ending:
            self._state = ENDING

    def connection_lost(self, _exc: Exception | None) -> None:
        self._state = CLOSED
        self._shared.open.discard(self)
        self._body.close_body()
        turns = [*self._waiting] if self._turn is None else [self._turn, *self._waiting]
        for turn in turns:
            if turn.page is not None:
                turn.page.disconnected()
            elif turn.request is not None and not turn.is_running and not turn.is_answered:
                turn.request.disconnected()
        self._waiting.clear()
        self._unfed = b""
        if self._writable is not None:
            self._writable.set()
        self._parser = None  # this object and the parser refer to each other

    def eof_received(self) -> bool:
        """Answer a sender that has sent its request and closed its half."""
        self._state = max(self._state, ENDING)
        return bool(self._unfed) or (self._turn is not None and self._incoming is None)

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        # A client that does not read its answers can't send further requests.
        self._update_reading()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if self._unfed:
            self._feed_soon()
        self._update_reading()

    def data_received(self, data: bytes) -> None:
        if self._state >= REFUSING:
            return
        if self._unfed:
            self._unfed += data
            return
        if not self._began:
            self._began = self._loop.time()
        if len(data) > _AT_ONCE_BYTES:
            self._feed_by_message(data)
        else:
            self._feed(data)
        turn = self._incoming
        if turn is not None and turn.request is not None:
            self._body.received(turn.request, self._body_left, self._update_reading)
        if self._waiting or self._unfed or self._body.is_held_back:
            self._update_reading()

    def _feed_by_message(self, data: bytes) -> None:
        """Feed some requests of a large piece, which may have thousands. The others follow when these are answered."""
        view = memoryview(data)
        requests_left = _REQUESTS_AT_ONCE
        self._chunks = 0
        at, end = 0, len(data)
        while at < end and self._state < REFUSING:
            if self._chunks > _CHUNKS_AT_ONCE:
                self._unfed = data[at:]
                self._feed_soon()
                return
            if self._incoming is not None:
                after = min(at + (self._body_left if self._body_left > 0 else _CHUNKS_AT_ONCE_BYTES), end)
            elif requests_left and self._heads_bytes < _HEADS_AT_ONCE_BYTES:
                requests_left -= 1
                head_end = data.find(_HEAD_END, at)
                after = end if head_end < 0 else head_end + len(_HEAD_END)
            else:
                self._unfed = data[at:]
                if self._turn is None:
                    self._feed_soon()
                return
            self._feed(view[at:after])
            at = after

    def _feed_soon(self) -> None:
        """Feed the unfed bytes once other connections have had their turn."""
        if not self._is_feed_due:
            self._is_feed_due = True
            self._loop.call_soon(self._feed_unfed)

    def _feed_unfed(self) -> None:
        self._is_feed_due = False
        self._heads_bytes = 0
        if (self._turn is None or self._incoming is not None) and self._writable is None:
            data = self._unfed
            self._unfed = b""
            if data:
                self.data_received(data)
                self._update_reading()

    def _feed(self, data: Any) -> None:
        # This is 0 after each head, piece of a body and end. All other bytes are kept in the parser's memory.
        self._unclaimed_bytes += len(data)
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._feed_without_upgrade(memoryview(data), upgrade.args[0])
        except httptools.HttpParserError as error:
            if not self._refusal and error.args and error.args[0] == _INVALID_VERSION:
                self._refusal = _ODD_VERSION
            self._fail(self._refusal or _BAD_REQUEST)
        else:
            if self._unclaimed_bytes > self._header_bytes_max:
                self._fail(_HEAD_TOO_LARGE)

    def _feed_without_upgrade(self, rest: memoryview, end: int) -> None:
        """Parse the head again without Upgrade, as an ordinary request. The JDK's client asks for HTTP/2 with every request,
        and the parser would skip its body. `end` is where the head ends. Raises HttpParserError."""
        while True:
            if self._parser.get_method() == b"CONNECT":
                raise httptools.HttpParserError("CONNECT")
            head = self._head_without_upgrade()
            # A parser that has read the end of the last message of a connection reads no other.
            self._parser = httptools.HttpRequestParser(self)
            self._parser.feed_data(head)
            rest = rest[end:]
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                end = upgrade.args[0]
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        lines = [self._parser.get_method() + b" " + self._url + b" HTTP/" + self._parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self._headers if name not in (b"upgrade", b"http2-settings")]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _update_reading(self) -> None:
        """Read only while no request waits for an earlier one, the answers are read, and the body is taken."""
        turn = self._incoming
        is_full = self._body.is_held_back or (turn is not None and turn.page is not None and turn.page.is_full)
        reads = not self._waiting and not self._unfed and self._writable is None and not is_full
        if reads == self._reads or self._state == CLOSED:
            return
        self._reads = reads
        now = self._loop.time()
        if reads:
            # Bytes that could not come in the meantime are not late.
            paused_s = now - self._paused_at
            self._began = min(now, self._began + paused_s) if self._began else 0.0
            self._body_began = min(now, self._body_began + paused_s)
            self._transport.resume_reading()
        else:
            self._paused_at = now
            self._transport.pause_reading()

    # httptools' side.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._head_bytes = 0
        self._in_head = True
        self._asks_upgrade = False

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, which is a header after the body."""
        self._count_head(len(name) + len(value))
        if self._in_head:
            # The parser has removed the spaces before the value.
            if value and value[-1] in _SPACES:
                value = value.rstrip(_SPACES)
            if len(self._headers) >= FIELDS_MAX:
                self._refuse(_HEAD_TOO_LARGE)
            self._headers.append((name.lower(), value))
        elif name.lower() == b"connection":
            # RFC 9110, 6.5.1: no trailer may be about the connection. The parser would obey it.
            self._refuse(_CONNECTION_TRAILER)

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade():
            self._asks_upgrade = True
            return
        self._in_head = False
        self._heads_bytes += self._head_bytes
        self._unclaimed_bytes = 0
        self._body_began = self._loop.time()
        head = Head(parser.get_method().decode())
        keep_alive: bool = parser.should_keep_alive()
        hosts, codings, connections = 0, 0, 0
        for name, value in self._headers:
            if name == b"host":
                hosts += 1
                if hosts > 1:
                    self._refuse(_HOSTS)
                if value != self._host:
                    if not is_host(value):
                        self._refuse(_ODD_HOST)
                    self._host = value
                continue
            if name == b"transfer-encoding":
                codings += 1
                if value.lower() != b"chunked" or codings > 1:
                    self._refuse(_ODD_CODING)
            elif name == b"connection":
                connections += 1
            head.add(name, value)
        # The parser makes a text of the version. Without a Connection header only 1.1 keeps alive.
        if not keep_alive or connections or codings or not hosts:
            self._check_version(parser.get_http_version(), hosts, codings)
            if head.expects_continue and parser.get_http_version() == "1.0":
                head.expects_continue = False  # RFC 9110, 10.1.1
        self._body_left = head.content_length
        turn = _Turn(head, keep_alive)
        self._dispatch(turn)
        self._incoming = turn
        self._waiting.append(turn)
        self._process_requests()

    def _check_version(self, version: str, hosts: int, codings: int) -> None:
        """Refuse a head that its version of HTTP does not allow. Raises ValueError."""
        if version == "1.1":
            if not hosts:
                self._refuse(_NO_HOST)
        elif version != "1.0":
            self._refuse(_NO_VERSION if version == "0.9" else _ODD_VERSION)
        elif codings:
            self._refuse(_CODING_IN_1_0)

    def on_body(self, piece: bytes) -> None:
        self._unclaimed_bytes = 0
        self._chunks += 1
        self._body_left -= len(piece)
        turn = self._incoming
        if turn is None:
            return
        request = turn.request
        if request is None:
            if turn.page is not None:
                turn.page.feed(piece)
                self._update_reading()
        elif request.answer is None and not request.feed(piece):
            self._body.close_body()
            self._process_requests()

    def on_message_complete(self) -> None:
        if self._asks_upgrade:
            return
        self._unclaimed_bytes = 0
        self._in_head = True
        self._began = 0.0
        turn = self._incoming
        if turn is not None:
            turn.is_received = True
            self._incoming = None
            if turn.page is not None:
                turn.page.end_body()
            self._process_requests()
            self._body.close_body()  # after the task is made, so that it begins before another body comes

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes + _HEADER_BYTES_OVERHEAD
        if self._head_bytes > self._header_bytes_max:
            self._refuse(_HEAD_TOO_LARGE)

    def _refuse(self, response: bytes) -> None:
        """Stop the parser, and note the response. Raises ValueError."""
        self._refusal = response
        raise ValueError("refused")

    def _dispatch(self, turn: _Turn) -> None:
        """Give the request its `HttpRequest` or its page."""
        receiver = self._shared.receiver
        url = self._url.decode("ascii")
        if receiver is None or not receiver.takes(url):
            parsed: Any = httptools.parse_url(self._url)  # its parts may be None, contrary to its stubs
            if b"#" in self._url:
                self._refuse(_FRAGMENT)
            raw_path: bytes = parsed.path or b"/"
            path = decoded_path(raw_path)
            turn.head.query = parsed.query or b""
            if receiver is None or self._shared.is_page(path):
                scope = self._scope(path, raw_path, parsed.query or b"")
                is_head = turn.head.method == "HEAD"
                turn.page = Http1Page(scope, is_head=is_head, takes_body=self._shared.takes_page_bodies)
                return
            url = path
        turn.request = receiver.new_request(url, turn.head, self._bodies)
        turn.request.can_be_held_back = True
        turn.request.admit()

    def _scope(self, path: str, raw_path: bytes, query_string: bytes) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self._parser.get_http_version(),
            "server": _address(self._transport, "sockname"),
            "client": _address(self._transport, "peername"),
            "scheme": self._scheme,
            "root_path": "",
            "method": self._parser.get_method().decode(),
            "path": path,
            "raw_path": raw_path,
            "query_string": query_string,
            "headers": self._headers,
            "state": {},
        }

    def _fail(self, response: bytes) -> None:
        """Stop reading, since the following bytes can't be parsed. Send `response` after answers that are due, and close."""
        self._state = max(self._state, REFUSING)
        self._body.close_body()
        response = self._with_cors_headers(response)
        broken, self._incoming = self._incoming, None
        if broken is not None and broken is not self._turn:
            # A broken request after another one is dropped: its sender needs no answer.
            self._waiting.remove(broken)
            if broken.request is not None and not broken.is_answered:
                broken.request.disconnected()
        if self._turn is None:
            self._write(response)
            self._close()
        elif self._turn is broken:
            # The current request is broken.
            if broken.request is not None and broken.request.answer is None:
                self._write(response)
                broken.request.disconnected()
                broken.is_answered = True
            self._close()
        else:
            self._closing_response = response

    def _with_cors_headers(self, response: bytes) -> bytes:
        """Return the refusal of input that became no request, with the headers by which an allowed page can read it."""
        cors = self._shared.cors
        if cors is None:
            return response
        origin = b", ".join([value for name, value in self._headers if name == b"origin"])
        return with_headers(response, cors.headers(origin))

    # Answering.

    def _process_requests(self) -> None:
        """Do everything that can be done now for the requests that have come."""
        while self._state != CLOSED:
            turn = self._turn
            if turn is None:
                if not self._waiting:
                    self._idle_since = self._loop.time()
                    if self._unfed:
                        self._feed_soon()
                    elif self._state >= ENDING:
                        if self._closing_response:
                            self._write(self._closing_response)
                        self._close()
                    elif not self._reads:
                        self._update_reading()
                    return
                turn = self._turn = self._waiting.popleft()
                if not self._reads:
                    self._update_reading()  # the rest of this request may be still to come
            if not turn.is_answered:
                if turn.is_running:
                    return
                request = turn.request
                if request is None:
                    if self._shared.takes_page_bodies:
                        self._continue(turn)
                    self._run(turn, self._show(turn))
                    return
                if request.answer is None:
                    if turn.is_received:
                        self._run(turn, self._finish(turn, request))
                    else:
                        self._continue(turn)
                    return
                self._send_answer(turn, request)
            if not turn.is_received and self._state != CLOSED:
                # After the answer the rest of the body may still pass: closing while the sender writes resets the connection,
                # and the answer is lost.
                return
            if not turn.keep_alive:
                self._close()
            self._turn = None

    def _continue(self, turn: _Turn) -> None:
        """Send 100 Continue, if the client waits for it."""
        if turn.head.expects_continue and turn.head.has_body:
            turn.head.expects_continue = False
            self._write(_CONTINUE)

    def _run(self, turn: _Turn, work: Any) -> None:
        turn.is_running = True
        # With a name, since asyncio would make one of a number.
        task = asyncio.Task(work, loop=self._loop, name="request")
        tasks = self._shared.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _finish(self, turn: _Turn, request: HttpRequest) -> None:
        await request.finish()
        turn.is_running = False
        if self._state == CLOSED:
            request.completed()  # no client gets the answer, but it is counted
        else:
            self._process_requests()

    def _send_answer(self, turn: _Turn, request: HttpRequest) -> None:
        answer = request.answer
        assert answer is not None
        if (self._is_last() and not (self._waiting or self._unfed or self._closing_response)) or (
            # A sender without a 100 Continue may send its next request, or this one's body. Closing rules out a mix-up.
            not turn.is_received and (request.is_abandoned or turn.head.expects_continue)
        ):
            turn.keep_alive = False
        pieces = [_STATUS_LINES[answer.status], self._shared.date_line]
        for name, value in answer.headers:
            pieces += (name, b": ", value, b"\r\n")
        if answer.content_type:
            pieces += (b"content-type: ", answer.content_type, b"\r\n")
        if not turn.keep_alive:
            pieces.append(_CLOSE)
        if answer.status != 204:
            pieces += (b"content-length: ", b"%d" % len(answer.body), b"\r\n\r\n")
            if turn.head.method != "HEAD":
                pieces.append(answer.body)
        else:
            pieces.append(b"\r\n")
        self._write(b"".join(pieces))
        turn.is_answered = True
        request.completed()
        if not turn.is_received:
            turn.answered_at = self._loop.time()
            if request.is_abandoned or turn.head.expects_continue:
                self._close()

    def _is_last(self) -> bool:
        """Return whether the next answer is the connection's last, if no further request has come."""
        return self._state >= ENDING or self._shared.is_leaving or self._loop.time() > self._ends_at

    async def _show(self, turn: _Turn) -> None:
        page = turn.page
        assert page is not None
        await page.show(
            self._shared.app,
            self,
            keep_alive=turn.keep_alive and (bool(self._closing_response) or not self._is_last()),
        )
        turn.is_running = False
        turn.is_answered = True
        turn.answered_at = self._loop.time()
        turn.keep_alive = page.keeps_alive
        if page.closes and not turn.is_received:
            self._close()
        else:
            self._update_reading()
            self._process_requests()

    # A page's side.

    def _write(self, data: bytes) -> None:
        self._stall.written_bytes += len(data)
        self._transport.write(data)

    async def write(self, data: bytes) -> None:
        """Write `data`, and wait until there is room for more."""
        if self._state != CLOSED:
            self._write(data)
            if self._writable is not None:
                await self._writable.wait()

    def date_line(self) -> bytes:
        """Return the header with the date of the last tick."""
        return self._shared.date_line

    def resume_reading(self) -> None:
        self._update_reading()

    # The server's side.

    def close_if_late(self, now: float) -> None:
        """Close the connection if a message is late, its answer is not read, or it has been idle for too long."""
        if self._stall.is_over(self._transport, now):
            self.abort()
            return
        self._body.check(now, self._late_s)
        turn = self._incoming
        if not self._began:
            if self._turn is None and now - self._idle_since > self._keep_alive_s:
                self._close()
        elif not self._reads:
            return
        elif turn is None:
            if now - self._began > self._late_s:
                self._close()
        elif turn.is_answered:
            if now - turn.answered_at > self._late_s:
                self._close()
        elif turn.request is None or turn.request.answer is not None:
            if now - self._began > self._request_s:
                self._close()
        elif now - self._body_began > self._late_s:
            turn.request.timed_out(self._late_s)
            self._body.close_body()
            self._process_requests()

    def idle_since(self) -> float:
        turn = self._turn
        if self._state == CLOSED or self._waiting or self._unfed:
            return BUSY
        if turn is not None and turn is self._incoming and turn.is_answered:
            # The rest of its body has no use: most such requests were refused, and their senders must not keep the place.
            return turn.answered_at
        if turn is not None or self._incoming is not None:
            return BUSY
        # A head that is not whole is no request yet.
        return self._began or self._idle_since

    def evict(self) -> None:
        self._close()

    def leave(self) -> None:
        """Do nothing now: the next answer announces the end to the client."""

    def shutdown(self) -> None:
        self._state = max(self._state, ENDING)
        # A request that has begun to come is answered. If it makes no progress, its deadline ends it.
        if self._turn is None and not (self._began or self._unfed or has_unread(self._transport)):
            self._close()

    def abort(self) -> None:
        self._transport.abort()

    def _close(self) -> None:
        if self._state != CLOSED:
            self._state = CLOSED
            self._transport.close()


def _address(transport: Any, name: str) -> tuple[str, int] | None:
    """Return a host and a port. For a Unix socket, whose clients have no names, the port is a number that is unique now."""
    address = transport.get_extra_info(name)
    if isinstance(address, tuple):
        return (str(address[0]), int(address[1]))
    connection = transport.get_extra_info("socket")
    return None if connection is None else ("unix", int(connection.fileno()))
