"""One connection of gRPC: HTTP/2's streams become calls, and their answers are written.

The law: a call's error is trailers-only, its answer one write; what a client cancelled counts as long as it works here; one
that is too slow, reads nothing, or only makes work, is told so and closed. At the end the client is told first, so that no call
is lost on its way.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

import structlog
from mypy_extensions import i64

from collector.config import Grpc
from collector.receive.grpc.call import Call, CallHead, Calls, Sending
from collector.receive.grpc.services import Handler, Methods
from collector.receive.grpc.status import CANCELLED, OK_HEAD, UNIMPLEMENTED, ok_trailers, trailers
from collector.receive.grpc.talk import CallFailed, Talk
from collector.receive.responses import printable
from collector.receive.servers.connections import Connections, Stall
from collector.receive.servers.http2_engine import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    NO_ERROR,
    REFUSED_STREAM,
    STREAM_ID_MAX,
    Http2Engine,
    Http2Error,
    Stream,
)
from collector.receive.servers.http2_heads import RequestHead, encode

# What of messages may be on its way or not taken yet, of one stream and of all of a connection. Their bytes are in the budget
# as they come, so the windows need only be large enough for a fast network.
_STREAM_WINDOW_BYTES: Final = 1024 * 1024
_CONNECTION_WINDOW_BYTES: Final = 8 * 1024 * 1024
# A head this many times too large is still answered; beyond, it ends the connection.
_HEADS_ANSWERED: Final = 2
# How a client hears of the end: first that it shall begin nothing more; then, when it has heard, from where on nothing is
# answered.
_HEARD: Final = b"the end."
_ARE_YOU_THERE: Final = b"inquiry."
_HEARD_MAX_S: Final = 1.0
# How often a client may ping too soon, as gRPC core has it.
_PING_STRIKES_MAX: Final = 2
# Codes of google.rpc that are not an answer's own.
_INTERNAL: Final = 13
_RESOURCE_EXHAUSTED: Final = 8
_UNAVAILABLE: Final = 14

_CONTENT_TYPE: Final = b"application/grpc"
_STATUS_200: Final = encode(b":status", b"200") + encode(b"content-type", _CONTENT_TYPE)
_ACCEPT_ENCODING: Final = encode(b"grpc-accept-encoding", b"identity, deflate, gzip, zstd")
_NO_GRPC: Final = encode(b":status", b"415")
_NO_POST: Final = encode(b":status", b"405") + encode(b"allow", b"POST")
# Who speaks HTTP/1.1 here has mistaken the port, and should hear of it.
_HTTP1_METHODS: Final = (b"POST", b"GET ", b"HEAD", b"PUT ", b"OPTI")
_TEXT: Final = b"This is the port of OTLP over gRPC, in HTTP/2. OTLP over HTTP has one of its own: 4318, or 8080.\n"
_HTTP1_ANSWER: Final = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TEXT), _TEXT)
)

log = structlog.get_logger(__name__)


class GrpcShared(Connections):
    """What the connections of a server have in common."""

    def __init__(self, calls: Calls, methods: Methods, settings: Grpc) -> None:
        super().__init__(
            calls.metrics, connections_max=settings.connections_max, handshake_timeout_s=settings.handshake_timeout_s
        )
        self.calls: Final = calls
        self.methods: Final = methods
        self.settings: Final = settings


class _Refused:
    """What a head is that never becomes a call: what it is told."""

    def __init__(self, block: bytes) -> None:
        self.block: Final = block


class _Other:
    """A call of the other methods."""

    def __init__(self, handler: Handler) -> None:
        self.handler: Final = handler


class GrpcConnection(Http2Engine):
    """One, as asyncio's protocol and as the server sees it."""

    def __init__(self, shared: GrpcShared) -> None:
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
        self._calls: Final = shared.calls
        self._loop: Final = asyncio.get_running_loop()
        self._concurrent_max: Final = settings.concurrent_streams_max
        self._stall: Final = Stall(settings.body_timeout_s)
        self._transport: Any = None
        self._due: Final[list[Call]] = []  # what has an answer that was not said yet
        self._blocked: Final[set[Sending]] = set()
        self._working: int = 0  # calls that run, whether or not their stream is still there
        self._reads: bool = True
        self._has_begun: bool = False  # something came
        self._is_tls: bool = False
        self._is_closed: bool = False
        self._is_ending: bool = False
        self._is_refusing: bool = False
        self._half: tuple[i64, float] | None = None  # a frame that is half here: which one, and since when
        self._last_received: float = 0.0
        self._pinged: float = 0.0  # 0: no answer is waited for
        self._last_ping: float = -1e9
        self._ping_strikes: int = 0
        self._moved: bool = False  # data or an answer, since the client's last ping

    # asyncio's side.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._is_tls = transport.get_extra_info("ssl_object") is not None
        shared = self._shared
        if shared.is_full or shared.is_ending:
            if not shared.is_ending:
                shared.metrics.connection_refused()
            self._is_closed = True
            transport.close()
            return
        shared.open.add(self)
        self._last_received = self._loop.time()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._is_closed = True
        self._shared.open.discard(self)
        for stream in list(self.streams.values()):
            stream.is_gone = True
            self.on_gone(stream)
        self.streams.clear()
        self._blocked.clear()

    def eof_received(self) -> bool:
        """Calls at hand are still answered, if anyone reads that."""
        self._is_refusing = True
        return bool(self.streams) and not self._is_tls  # whose end is the end of both directions

    def pause_writing(self) -> None:
        # Who does not read what it asked for can't ask for more.
        self._reads = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._reads = True
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._is_closed:
            return
        if not self._has_begun:
            self._has_begun = True
            if data[:4] in _HTTP1_METHODS:
                self._transport.write(_HTTP1_ANSWER)
                self._close()
                return
            self.begin()
        self._last_received = self._loop.time()
        self._pinged = 0.0
        try:
            self.receive(data)
        except Http2Error as error:
            self._goodbye(error.code)
            return
        if self._due:
            for call in self._due:
                self._say(call)
            self._due.clear()
        self._flush()
        if self._is_refusing:
            self._close_if_over()

    # The engine's side.

    def on_head(self, stream_id: int, head: RequestHead) -> Stream | None:
        if self._is_refusing or len(self.streams) + self._gone_working() >= self._concurrent_max:
            # Also by those that were reset and still work here.
            self.refuse(stream_id, REFUSED_STREAM)
            return None
        self._moved = True
        meaning = head.meaning
        if meaning is None:
            meaning = head.meaning = self._understand(head)
        if isinstance(meaning, CallHead):
            return Call(self._calls, stream_id, meaning, self._last_received)
        if isinstance(meaning, _Other):
            return Talk(stream_id, self._last_received, meaning.handler)
        assert isinstance(meaning, _Refused)
        refused = Sending(stream_id, self._last_received)
        refused.trailers = meaning.block
        return refused

    def on_request(self, stream: Stream) -> None:
        if isinstance(stream, Call):
            if not stream.judge():
                self._due.append(stream)
        elif isinstance(stream, Talk):
            self._begin_talk(stream)
        else:
            assert isinstance(stream, Sending)
            self.send_head(stream, stream.trailers, end=True)
            self._end_early(stream)

    def on_data(self, stream: Stream, data: bytes, window_bytes: int) -> None:
        self._moved = True
        self.acknowledge(stream, window_bytes)
        if isinstance(stream, Call):
            if not stream.has_answer and not stream.take(data):
                self._due.append(stream)
        elif isinstance(stream, Talk):
            stream.take(data)

    def on_end(self, stream: Stream) -> None:
        if isinstance(stream, Call):
            if stream.has_answer:
                return
            if stream.end():
                self._run(stream)
            else:
                self._due.append(stream)
        elif isinstance(stream, Talk):
            stream.happened()

    def on_gone(self, stream: Stream) -> None:
        if isinstance(stream, Call):
            if not stream.is_running and not stream.has_answer:
                stream.gone()
        elif isinstance(stream, Talk):
            if stream.task is not None:
                stream.task.cancel()
            stream.happened()
        if isinstance(stream, Sending):
            self._blocked.discard(stream)

    def on_window(self) -> None:
        for stream in list(self._blocked):
            self._pump(stream)

    def on_ping(self) -> None:
        now = self._last_received
        if self._moved or now - self._last_ping >= self._shared.settings.ping_interval_min_s:
            self._ping_strikes = 0
        else:
            self._ping_strikes += 1
            if self._ping_strikes > _PING_STRIKES_MAX:
                # In gRPC's own words, at which its clients ping less often.
                self.goaway(int(self.highest_stream_id), ENHANCE_YOUR_CALM, b"too_many_pings")
                self.is_over = True
                self._close()
        self._moved = False
        self._last_ping = now

    def on_ping_answered(self, data: bytes) -> None:
        if data == _HEARD:
            self._refuse_more()

    def on_goaway(self, code: int) -> None:
        # Nothing new comes; without an error, what is at hand is waited for.
        self._is_refusing = True
        if code != NO_ERROR:
            self.is_over = True
            self._close()

    # Calls.

    def _understand(self, head: RequestHead) -> object:
        if head.method != b"POST":
            return _Refused(_NO_POST)
        content_type = b""
        for name, value in head.headers:
            if name == b"content-type":
                content_type = value
                break
        if not content_type.startswith(_CONTENT_TYPE) or content_type[len(_CONTENT_TYPE) :][:1] not in (b"", b"+", b";"):
            return _Refused(_NO_GRPC)
        if head.size_bytes > self._shared.settings.header_bytes_max:
            message = f"the metadata is {head.size_bytes} bytes; at most {self._shared.settings.header_bytes_max} are taken"
            return _Refused(_STATUS_200 + trailers(_RESOURCE_EXHAUSTED, message))
        methods = self._shared.methods
        method = methods.exports.get(head.path)
        if method is not None:
            return CallHead(method, head.headers)
        handler = methods.others.get(head.path)
        if handler is not None:
            return _Other(handler)
        path = printable(head.path.decode("utf-8", "replace"))
        return _Refused(_STATUS_200 + trailers(UNIMPLEMENTED, f"there is no method {path} here"))

    def _run(self, call: Call) -> None:
        self._working += 1
        task = self._loop.create_task(self._finish(call))
        tasks = self._shared.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _finish(self, call: Call) -> None:
        await call.finish()
        self._working -= 1
        if call.is_gone or self._is_closed:
            call.answered()  # nobody hears it, but it is what became of it
            return
        self._say(call)
        self._flush()
        if self._is_refusing:
            self._close_if_over()

    def _gone_working(self) -> int:
        """How many calls work here whose streams are gone."""
        if not self._working:
            return 0
        streams = self.streams
        here = 0
        for stream in streams.values():
            if isinstance(stream, Call) and stream.is_running:
                here += 1
        return max(self._working - here, 0)

    def _say(self, call: Call) -> None:
        if call.is_gone:
            call.answered()
            return
        if call.is_accepted:
            self.send_head(call, OK_HEAD, end=False)
            self._send(call, call.body, call.said)
        else:
            self.send_head(call, _STATUS_200 + _ACCEPT_ENCODING + call.said, end=True)
        self._moved = True
        self.answered()
        call.answered()
        self._end_early(call)

    def _end_early(self, stream: Sending) -> None:
        """Answered before it is whole: the rest is not wanted."""
        if stream.is_sent and not stream.is_received:
            self.reset(stream, NO_ERROR)

    def _send(self, stream: Sending, data: bytes, then: bytes) -> None:
        """`data` as the window allows, and then these trailers, if any."""
        stream.rest += data
        stream.trailers = then
        self._pump(stream)
        if stream.rest:
            stream.blocked_since = self._loop.time()
            self._blocked.add(stream)

    def _pump(self, stream: Sending) -> None:
        while stream.rest:
            size = self.sendable_bytes(stream)
            if not size:
                return
            if size >= len(stream.rest):
                self.send_data(stream, stream.rest, end=False)
                stream.rest = b""
            else:
                self.send_data(stream, stream.rest[:size], end=False)
                stream.rest = stream.rest[size:]
        self._blocked.discard(stream)
        if stream.trailers:
            self.send_head(stream, stream.trailers, end=True)
            stream.trailers = b""
        elif isinstance(stream, Talk):
            stream.happened()

    # Other calls.

    def _begin_talk(self, talk: Talk) -> None:
        talk.wire = self
        task = self._loop.create_task(self._talk(talk))
        talk.task = task
        tasks = self._shared.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def write_message(self, talk: Talk, message: bytes) -> None:
        """The next one of its answer, with what stands before it; the first with the head, since errors are trailers-only."""
        if talk.is_gone or self._is_closed:
            return
        if not talk.has_said:
            talk.has_said = True
            self.send_head(talk, OK_HEAD, end=False)
        self._send(talk, message, b"")
        self._flush()

    async def _talk(self, talk: Talk) -> None:
        code, message = 0, ""
        try:
            answering: Awaitable[None] = talk.handler(talk)
            await answering
        except CallFailed as failed:
            code, message = failed.code, failed.message
        except asyncio.CancelledError:
            code, message = (CANCELLED, "cancelled") if talk.is_gone else (_UNAVAILABLE, "the collector stops")
        except Exception as error:  # it is answered, and logged
            log.error("call failed by a defect", exc_info=error)
            code, message = _INTERNAL, "a defect of the collector"
        if talk.is_gone or self._is_closed:
            return
        self.answered()
        ends = ok_trailers(b"") if code == 0 else trailers(code, message)
        if talk.has_said:
            self._send(talk, b"", ends)
        else:
            self.send_head(talk, _STATUS_200 + ends, end=True)
        self._end_early(talk)
        self._flush()
        if self._is_refusing:
            self._close_if_over()

    # The server's side.

    def close_if_late(self, now: float) -> None:
        """Whatever should have come, or been read, by now."""
        settings = self._shared.settings
        if self._stall.is_over(self._transport, now):
            self.abort()
            return
        if not self.is_between:
            if self._half is None or self._half[0] != self.frames:
                self._half = (self.frames, now)
        else:
            self._half = None
        half = self._half
        if half is not None and now - half[1] > (settings.body_timeout_s if self.frames else settings.handshake_timeout_s):
            self._goodbye(ENHANCE_YOUR_CALM)
            return
        for stream in list(self.streams.values()):
            if isinstance(stream, Call) and not stream.is_received and not stream.has_answer:
                if now - stream.began > settings.body_timeout_s:
                    stream.late()
                    self._say(stream)
            elif isinstance(stream, Sending) and stream.rest and now - stream.blocked_since > settings.body_timeout_s:
                self.reset(stream, CANCEL)
        if self._pinged:
            if now - self._pinged > settings.keep_alive_timeout_s:
                self.abort()
                return
        elif self._reads and now - self._last_received > settings.keep_alive_s:
            self._pinged = now
            self.ping(_ARE_YOU_THERE)
        self._flush()

    def shutdown(self) -> None:
        """Begin nothing more; close when all is answered."""
        if self._is_closed or self._is_ending:
            return
        self._is_ending = True
        self.goaway(STREAM_ID_MAX, NO_ERROR)
        self.ping(_HEARD)
        self._flush()
        self._loop.call_later(_HEARD_MAX_S, self._refuse_more)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _refuse_more(self) -> None:
        """The client has heard of the end, or had the time to."""
        if self._is_closed or not self._is_ending:
            return
        if not self._is_refusing:
            self._is_refusing = True
            self.goaway(int(self.highest_stream_id), NO_ERROR)
        self._flush()
        self._close_if_over()

    def _close_if_over(self) -> None:
        """Nothing new comes: once all telemetry is answered, whoever else still talks is told to stop."""
        streams = list(self.streams.values())
        for stream in streams:
            if not isinstance(stream, Talk):
                return
        for stream in streams:
            if isinstance(stream, Talk) and stream.task is not None:
                stream.task.cancel()
        if not streams:
            self._close()

    def _goodbye(self, code: int) -> None:
        """Close now, and say why."""
        self.is_over = True
        self.goaway(int(self.highest_stream_id), code)
        self._close()

    def _close(self) -> None:
        if self._is_closed:
            return
        self._flush()
        self._is_closed = True
        self._transport.close()
        for stream in list(self.streams.values()):
            stream.is_gone = True
            self.on_gone(stream)
        self.streams.clear()

    def _flush(self) -> None:
        out = self.out
        if out:
            if not self._transport.is_closing():
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
