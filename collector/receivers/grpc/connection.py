"""A connection of gRPC: it makes calls of HTTP/2's streams, and writes their answers.

Invariants:
1. A call's error is trailers-only, and its answer one write (test_errors_are_trailers_only_on_the_wire).
2. A client that pings too often gets gRPC's own error (test_pings_too_often_are_answered_in_grpcs_own_words).

The part that is shared with HTTP's connections is in receivers/transport/http2_connection.py.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, cast

import structlog

from collector.config.receivers import Grpc
from collector.http2.engine import ENHANCE_YOUR_CALM, NO_ERROR, REFUSED_STREAM, Stream
from collector.http2.headers import RequestHead, encode
from collector.receivers.grpc.call_heads import STATUS_200, OtherCall, RefusedHead, http_elsewhere, meaning_of
from collector.receivers.grpc.services import Methods
from collector.receivers.grpc.status import ACCEPTED, OK_HEAD, OK_TRAILERS, trailers
from collector.receivers.grpc.stream_call import CallFailed, StreamCall
from collector.receivers.grpc.unary_call import Call, CallHead, GrpcReceiver, UnaryStream
from collector.receivers.rpc_codes import (
    RPC_INTERNAL,
    RPC_OK,
    RPC_RESOURCE_EXHAUSTED,
)
from collector.receivers.transport.connections import CLOSED, REFUSING, Connections
from collector.receivers.transport.eviction import FRESH_S, Renumbered
from collector.receivers.transport.http2_connection import ServerConnection, ServerStream
from collector.receivers.unfinished_bodies import ConnectionBodies
from collector.runtime.descriptors import Descriptors

# The most bytes of messages that may be on the way or not taken yet, of one stream and of a connection. Their bytes are in the
# budget as they come, so the windows need only be large enough for a fast network.
_STREAM_WINDOW_BYTES: Final = 1024 * 1024
_CONNECTION_WINDOW_BYTES: Final = 8 * 1024 * 1024
_ARE_YOU_THERE: Final = b"inquiry."
# How often a client may ping too soon: gRPC core's number.
_PING_STRIKES_MAX: Final = 2

# A client that sends HTTP/1.1 here has the wrong port, and gets an answer that says so.
_HTTP1_METHODS: Final = (b"POST", b"GET ", b"HEAD", b"PUT ", b"OPTI")
_ACCEPT_ENCODING: Final = encode(*ACCEPTED)
_HTTP1_ANSWER: Final = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n\r\n%b"
)
_DEFAULT_HTTP_PLACES: Final = "port 4318 or 8080"

log = structlog.get_logger(__name__)


class GrpcShared(Connections):
    """The state that the connections of a server share."""

    def __init__(
        self, receiver: GrpcReceiver, methods: Methods, settings: Grpc, descriptors: Descriptors | None = None
    ) -> None:
        super().__init__(receiver.metrics, settings, descriptors)
        self.receiver: Final = receiver
        self.methods: Final = methods
        self.settings: Final = settings
        self.stream_calls: int = 0
        """How many stream calls are open on all connections, not counting health's Check."""
        self.http_places: str = _DEFAULT_HTTP_PLACES
        """The ports for HTTP, for the answer to HTTP clients."""


class _Refusing(ServerStream):
    """A stream that is refused by its head. The rest of the stream is ignored."""

    def __init__(self, stream_id: int, began: float, answer: RefusedHead) -> None:
        super().__init__(stream_id, began)
        self.answer: Final = answer


class GrpcConnection(ServerConnection):
    """A connection of gRPC, which is asyncio's protocol."""

    def __init__(self, shared: GrpcShared) -> None:
        super().__init__(shared, _STREAM_WINDOW_BYTES, _CONNECTION_WINDOW_BYTES)
        self._shared: Final = shared
        self._has_begun: bool = False  # whether any byte came
        self._stream_calls: int = 0  # how many are open
        self._bodies: Final = ConnectionBodies(shared.receiver.unfinished)
        self._pinged: float = 0.0  # 0 if no answer to a ping is waited for
        self._last_ping: float = -1e9
        self._ping_strikes: int = 0
        self._moved: bool = False  # whether data or an answer was sent since the client's last ping

    # asyncio's side.

    def connection_made(self, transport: Any) -> None:
        shared = self._shared
        now = self.loop.time()
        shared.accepted(now)
        is_tls = transport.get_extra_info("ssl_object") is not None
        if is_tls:
            super().connection_made(transport)  # the TLS listener has made room
        elif shared.is_full(now):
            self._refuse(transport)
        elif shared.has_descriptor_for(transport.get_extra_info("socket").fileno()):
            super().connection_made(transport)
        else:
            self.state = CLOSED
            assert shared.descriptors is not None
            if shared.makes_room(now):
                waiting = Renumbered(transport, shared.descriptors, self._new_protocol, refuse=self._refuse)
                shared.begin(waiting.run())
            else:
                shared.descriptors.ran_out()
                self._refuse(transport)

    def _new_protocol(self) -> asyncio.Protocol:
        """Return a protocol that begins this connection again, with another descriptor."""
        return cast("asyncio.Protocol", GrpcConnection(self._shared))

    def _refuse(self, transport: Any) -> None:
        self._shared.refused()
        self.state = CLOSED
        transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._has_begun and self.state != CLOSED:
            self._has_begun = True
            if data[:4] in _HTTP1_METHODS:
                text = http_elsewhere(self._shared.http_places)
                self.transport.write(_HTTP1_ANSWER % (len(text), b"" if data[:4] == b"HEAD" else text))
                self.close()
                return
            self.begin()
        self._pinged = 0.0
        super().data_received(data)

    # The engine's side.

    def on_head(self, stream_id: int, head: RequestHead) -> Stream | None:
        if self.state >= REFUSING or self.has_all_streams:
            self.refuse(stream_id, REFUSED_STREAM)
            return None
        self._moved = True
        meaning = head.meaning
        if meaning is None:
            meaning = head.meaning = meaning_of(head, self._shared.methods, self._shared.header_bytes_max)
        if isinstance(meaning, CallHead):
            return UnaryStream(self, stream_id, self.last_received, Call(self._shared.receiver, meaning, self._bodies))
        if isinstance(meaning, OtherCall):
            full = self._full_of_stream_calls(meaning)
            if full is not None:
                return _Refusing(stream_id, self.last_received, full)
            return StreamCall(
                stream_id, self.last_received, meaning.handler, meaning.timeout_s, is_counted=not meaning.is_check
            )
        assert isinstance(meaning, RefusedHead)
        return _Refusing(stream_id, self.last_received, meaning)

    def on_request(self, stream: Stream) -> None:
        if isinstance(stream, UnaryStream):
            if not stream.call.admit():
                self.due.append(stream)
        elif isinstance(stream, StreamCall):
            self._begin_stream_call(stream)
        else:
            assert isinstance(stream, _Refusing)
            answer = stream.answer
            self.send_head(stream, answer.block, end=not answer.has_text)
            if answer.has_text:
                self.send_body(stream, http_elsewhere(self._shared.http_places), b"", end=True)
            self.note_early(stream)

    def on_data(self, stream: Stream, data: bytes, window_bytes: int) -> None:
        self._moved = True
        if isinstance(stream, UnaryStream):
            if not stream.call.has_answer and not stream.call.feed(data):
                self.due.append(stream)
            stream.return_window(window_bytes, stream.call)
            return
        self.acknowledge(stream, window_bytes)
        if isinstance(stream, StreamCall):
            stream.feed(data)

    def on_end(self, stream: Stream) -> None:
        if isinstance(stream, UnaryStream):
            call = stream.call
            if call.has_answer:
                return
            if call.end():
                self.run(stream, self._finish(stream, call))
            else:
                self.due.append(stream)
            stream.close_body()  # after the task is made, so that it begins before another body comes
        elif isinstance(stream, StreamCall):
            stream.wake()
        else:
            assert isinstance(stream, _Refusing)
            self.note_whole(stream)

    def on_aborted(self, stream: Stream) -> None:
        super().on_aborted(stream)
        if isinstance(stream, UnaryStream):
            stream.close_body()
            if not stream.is_running and not stream.call.has_answer:
                stream.call.disconnected()
        elif isinstance(stream, StreamCall):
            if stream.task is not None:
                stream.task.cancel()
            stream.drained()

    def on_ping(self) -> None:
        now = self.last_received
        if self._moved or now - self._last_ping >= self._shared.settings.ping_interval_min_s:
            self._ping_strikes = 0
        else:
            self._ping_strikes += 1
            if self._ping_strikes > _PING_STRIKES_MAX:
                # gRPC's own error text, after which its clients ping less often.
                self.close_with_goaway(ENHANCE_YOUR_CALM, b"too_many_pings")
        self._moved = False
        self._last_ping = now

    # Calls.

    async def _finish(self, stream: UnaryStream, call: Call) -> None:
        await call.finish()
        call.call_done()
        self.task_done(stream)
        if self.state == CLOSED:
            call.completed()  # no client gets the answer, but the outcome is counted
            return
        self.send_answer(stream)
        self.flush()
        if self.state >= REFUSING:
            self.close_if_over()

    def send_answer(self, stream: ServerStream) -> None:
        assert isinstance(stream, UnaryStream)
        call = stream.call
        stream.close_body()
        call.completed()
        if stream.is_aborted:
            return
        if call.is_accepted:
            self.send_head(stream, OK_HEAD, end=False)
            self.send_body(stream, call.answer, call.trailers, end=True)
        else:
            self.send_head(stream, STATUS_200 + _ACCEPT_ENCODING + call.trailers, end=True)
        self._moved = True
        self.answered()
        self._end_early(stream)

    def _end_early(self, stream: ServerStream) -> None:
        """Reset a stream that is answered before it is whole: the rest is not needed."""
        if stream.is_sent and not stream.is_received:
            self.reset(stream, NO_ERROR)

    # Other calls.

    def _full_of_stream_calls(self, call: OtherCall) -> RefusedHead | None:
        """Return the refusal if the allowed number of stream calls is open, else None."""
        settings = self._shared.settings
        if self._stream_calls >= settings.connection_stream_calls_max:
            limit = f"{settings.connection_stream_calls_max} on a connection (grpc.connection_stream_calls_max)"
        elif not call.is_check and self._shared.stream_calls >= settings.stream_calls_max:
            limit = f"{settings.stream_calls_max} (grpc.stream_calls_max)"
        else:
            return None
        return RefusedHead(
            STATUS_200 + trailers(RPC_RESOURCE_EXHAUSTED, f"of calls beside telemetry's, at most {limit} are open")
        )

    def _begin_stream_call(self, stream_call: StreamCall) -> None:
        self._stream_calls += 1
        if stream_call.is_counted:
            self._shared.stream_calls += 1
        stream_call.wire = self
        stream_call.task = self.run(stream_call, self._run_stream_call(stream_call))

    def write_message(self, stream_call: StreamCall, message: bytes) -> None:
        """Write the next message of the answer, with its prefix. The head is sent only with the first message, since errors are
        trailers-only."""
        if stream_call.is_aborted or self.state == CLOSED:
            return
        if not stream_call.has_answered:
            stream_call.has_answered = True
            self.send_head(stream_call, OK_HEAD, end=False)
        self.send_body(stream_call, message, b"", end=False)
        self.flush()

    async def _run_stream_call(self, stream_call: StreamCall) -> None:
        code, message = RPC_OK, ""
        try:
            answering: Awaitable[None] = stream_call.handler(stream_call)
            await answering
        except CallFailed as failed:
            code, message = failed.code, failed.message
        except asyncio.CancelledError:
            ended = stream_call.cancelled()
            code, message = ended.code, ended.message
        except Exception as error:  # it is answered, and logged
            log.error("call failed by a defect", exc_info=error)
            code, message = RPC_INTERNAL, "a defect of the collector"
        self._stream_calls -= 1
        if stream_call.is_counted:
            self._shared.stream_calls -= 1
        self.task_done(stream_call)
        if stream_call.is_aborted or self.state == CLOSED:
            return
        self.answered()
        ends = OK_TRAILERS if code == RPC_OK else trailers(code, message)
        if stream_call.has_answered:
            self.send_body(stream_call, b"", ends, end=True)
        else:
            self.send_head(stream_call, STATUS_200 + ends, end=True)
        self._end_early(stream_call)
        self.flush()
        if self.state >= REFUSING:
            self.close_if_over()

    # The server's side.

    def check_deadline(self, stream: ServerStream, now: float) -> None:
        if isinstance(stream, UnaryStream) and not stream.is_received and not stream.call.has_answer:
            late_s = self._shared.body_timeout_s
            timeout_s = stream.call.timeout_s
            if now - stream.began > timeout_s or stream.late_s(now, late_s) > late_s:
                stream.call.timed_out(min(timeout_s, late_s))
                self.send_answer(stream)
        elif isinstance(stream, StreamCall) and not stream.is_sent:
            stream.end_if_late(now - stream.began, self._shared.body_timeout_s)
        elif stream.is_sent and now - stream.began > self._shared.body_timeout_s:
            self.reset(stream, NO_ERROR)

    def evict(self) -> None:
        if self._has_begun:
            super().evict()
        else:
            self.close()

    def leave(self) -> None:
        """Leave as in HTTP/2, but only if the connection has begun: SETTINGS come first."""
        if self._has_begun:
            super().leave()

    def shutdown(self) -> None:
        """Shut down as in HTTP/2. A connection that has not begun gets FRESH_S, since its first call may be on its way."""
        if self._has_begun:
            super().shutdown()
        else:
            self.loop.call_later(FRESH_S, self._end)

    def _end(self) -> None:
        if self._has_begun:
            super().shutdown()
        else:
            self.close()

    def on_idle(self, now: float) -> None:
        settings = self._shared.settings
        if self._pinged:
            if now - self._pinged > settings.keep_alive_timeout_s:
                self.abort()
        elif self.is_writable and now - self.last_received > settings.keep_alive_s:
            self._pinged = now
            self.ping(_ARE_YOU_THERE)

    def close_if_over(self) -> None:
        """Stop the other calls once all telemetry is answered, since nothing new comes; then close."""
        streams = list(self.streams.values())
        for stream in streams:
            if not isinstance(stream, StreamCall):
                return
        for stream in streams:
            if isinstance(stream, StreamCall) and stream.task is not None:
                stream.task.cancel()
        if not streams:
            self.close()
