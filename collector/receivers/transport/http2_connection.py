"""A connection of HTTP/2 as asyncio and its server see it: the part that HTTP and gRPC share.

Invariants:
1. No input of a client makes `data_received` raise, and none is logged (test_http2_random_frames.py).
2. An answer that its client does not take ends after `answer_timeout_s`, however many windows of one byte the client opens
   (test_an_answer_that_nobody_reads_ends, test_an_answer_that_is_read_byte_by_byte_ends).
3. A request that its client cancelled counts against its streams as long as work goes on for it
   (test_more_requests_than_allowed_are_refused_to_be_sent_again).
4. A stream counts until its answer's last frame is written, and no longer (test_as_many_requests_as_announced_are_served).
5. The end is announced before requests are refused, so that no request on its way is lost
   (test_what_crosses_the_end_is_answered, test_a_server_that_leaves_answers_and_says_so).
6. Bytes that a client sent before it closed its half are read in turns too (test_a_piece_of_many_steps_is_read_in_turns,
   test_over_tls_nothing_is_read_at_once_since_the_client_ends).
"""

import asyncio
from math import inf
from typing import Any, Final

from mypy_extensions import i64

from collector.http2.engine import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    STREAM_ID_MAX,
    Http2Engine,
    Http2Error,
    Stream,
)
from collector.receivers.transport.connections import (
    CLOSED,
    ENDING,
    LEAVING,
    OPEN,
    PROGRESS_BYTES,
    REFUSING,
    Connections,
    Stall,
)
from collector.receivers.transport.eviction import BUSY, FRESH_S

# The payload of the ping that shows that a client has received the announcement of the end: that it shall begin no more
# requests. After the answer to that ping, or HEARD_MAX_S, the client learns from which request on none is answered.
HEARD: Final = b"the end."
HEARD_MAX_S: Final = 1.0
# The most answered requests of a connection whose rest is still taken. The rest of the next one is not.
_EARLY_MAX: Final = 16
# A head as sent may be this many times too large, and still only its request is refused. No part of it is kept.
_HEAD_BYTES_FACTOR: Final = 16


class ServerStream(Stream):
    """A stream whose answer may have to wait for its client's windows."""

    def __init__(self, stream_id: int, began: float) -> None:
        """`began` is the loop's time."""
        super().__init__(stream_id)
        self.began: Final = began
        self.is_running: bool = False  # whether a task works for it
        self.rest: bytes = b""  # the part of the answer's body that is not sent yet
        self.rest_at: i64 = 0  # where in `rest` the next frame begins
        self.trailers: bytes = b""  # to be sent after the body
        self.ends: bool = False  # whether the answer ends with `rest`
        self.waits_since: float = 0.0  # the loop's time of the last progress
        self.answered_at: float = 0.0  # the loop's time of an answer before the request was whole
        self.is_early: bool = False  # answered, and not whole
        self.taken_since: i64 = 0  # bytes taken since `waits_since`

    def drained(self) -> None:
        """Handle the end of the answer's body: all of it is sent."""

    def quiet_since(self) -> float:
        """Return the loop's time since when the stream does not keep its connection from eviction; BUSY if it does.

        An answer that its client does not read does not keep it, nor does the rest of a request that is answered.
        """
        if self.rest:
            return self.waits_since
        return self.answered_at if self.is_sent else BUSY


class ServerConnection(Http2Engine):
    """A connection of HTTP/2. Each server inherits from it, and has the methods that `Http2Engine` calls."""

    def __init__(self, shared: Connections, stream_window_bytes: int, connection_window_bytes: int) -> None:
        super().__init__(
            streams_max=shared.streams_max,
            header_bytes_max=shared.header_bytes_max,
            header_bytes_end=_HEAD_BYTES_FACTOR * shared.header_bytes_max,
            stream_window_bytes=stream_window_bytes,
            connection_window_bytes=connection_window_bytes,
            control_frames_max=shared.control_frames_max,
        )
        self.connections: Final = shared
        self.loop: Final = asyncio.get_running_loop()
        self.transport: Any = None
        self.is_tls: bool = False
        self.state: i64 = OPEN
        self.has_ended: bool = False  # the client has closed its half, so its windows do not grow any more
        self.is_writable: bool = True
        self.last_received: float = 0.0  # the loop's time
        self.ends_at: float = inf  # the loop's time at which the connection is old
        self.due: Final[
            list[ServerStream]
        ] = []  # answers to send once all received bytes are read: their requests may be whole by then
        self._is_read_due: bool = False  # whether `_read_unread` will be called
        self._is_end_due: bool = False  # whether the client has closed its half after the bytes in `unread`
        self._streams_allowed: Final = shared.streams_max
        self._late_s: Final = shared.body_timeout_s
        self._stall: Final = Stall(shared.answer_timeout_s)
        self._blocked: Final[dict[int, ServerStream]] = {}  # the stream that has waited longest first
        self._gone_running: int = 0  # how many streams are gone while a task works for them
        self._early: int = 0  # how many requests are answered and not whole
        self._idle_since: float = 0.0  # the loop's time
        self._idle_at: i64 = 0  # the highest stream by then
        self._busy_at: float = 0.0  # the loop's time when a stream last kept the connection from eviction
        self._half: tuple[i64, float] | None = None  # the number of a frame that is not whole, and since when

    # Methods that a server implements.

    def send_answer(self, stream: ServerStream) -> None:
        """Send the stream's answer."""
        raise NotImplementedError

    def check_deadline(self, stream: ServerStream, now: float) -> None:
        """End the stream if its request should have come by now."""
        raise NotImplementedError

    def on_idle(self, now: float) -> None:
        """End the connection if it has been idle for too long."""
        raise NotImplementedError

    def close_if_over(self) -> None:
        """Close if no request is left to be answered, since no new one comes."""
        if not self.streams:
            self.close()

    # asyncio's side.

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.is_tls = transport.get_extra_info("ssl_object") is not None
        self.last_received = self._idle_since = self.loop.time()
        self.ends_at = self.connections.ends_at(self.last_received)
        self.connections.open.add(self)
        if self.connections.is_ending:
            # The connection was accepted just as the server ended: its first request may be on its way.
            self.loop.call_later(FRESH_S, self.shutdown)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.state = CLOSED
        self.connections.open.discard(self)
        self._drop_all()

    def eof_received(self) -> bool:
        """Answer requests that are complete, if the client still reads and the answers fit its windows.

        Over TLS the client's end is the end of both directions, so no unread request can be answered.
        """
        if self.unread:
            self._is_end_due = True
            return not self.is_tls
        self._end_input()
        return bool(self.streams) and not self.is_tls

    def _end_input(self) -> None:
        """Drop the requests that are not whole, and the answers for which no window is left."""
        self.state = max(self.state, REFUSING)
        self.has_ended = True
        for stream in list(self.streams.values()):
            if not stream.is_received:
                self._drop(stream)
        self._pump_blocked()

    def pause_writing(self) -> None:
        # A client that does not read its answers can't send further requests.
        self.is_writable = False
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_writable = True
        if self.unread:
            self._read_unread_soon()
        else:
            self.transport.resume_reading()
        if self.has_ended:
            self._pump_blocked()
        else:
            self._pump_all()
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self.unread:
            self.unread += data
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        if self.state == CLOSED:
            return
        self.last_received = self.loop.time()
        try:
            self.receive(data)
        except Http2Error as error:
            self.close_with_goaway(error.code)
            return
        except Exception as defect:  # noqa: BLE001  # a defect of ours: it ends the connection, and is logged
            self.connections.defect(defect)
            self.close_with_goaway(INTERNAL_ERROR)
            return
        if self.due:
            for stream in self.due:
                self.send_answer(stream)
            self.due.clear()
        self.flush()
        if self.unread:
            self.transport.pause_reading()
            self._read_unread_soon()
        elif self.state >= REFUSING:
            self.close_if_over()

    def _read_unread_soon(self) -> None:
        """Read the unread bytes once other connections have had their turn."""
        if not self._is_read_due:
            self._is_read_due = True
            self.loop.call_soon(self._read_unread)

    def _read_unread(self) -> None:
        self._is_read_due = False
        if self.unread and self.is_writable:
            data = self.unread
            self.unread = b""
            self._read(data)
            if self.unread or self.state == CLOSED:
                return
            if self._is_end_due:
                self._is_end_due = False
                self._end_input()
                self.flush()
                if not self.streams:
                    self.close()
            elif self.is_writable:
                self.transport.resume_reading()

    # The engine's side.

    def on_window(self, stream: Stream | None) -> None:
        if stream is None:
            self._pump_all()
        elif stream.stream_id in self._blocked:
            assert isinstance(stream, ServerStream)
            self._pump(stream)

    def on_ping_answered(self, data: bytes) -> None:
        if data == HEARD:
            self._refuse_more()

    def on_goaway(self, code: int) -> None:
        # The client begins no more requests. Without an error, those that it has begun are answered.
        self.state = max(self.state, REFUSING)
        if code != NO_ERROR:
            self.is_over = True
            self.close()

    def on_aborted(self, stream: Stream) -> None:
        assert isinstance(stream, ServerStream)
        self.note_whole(stream)
        self._blocked.pop(stream.stream_id, None)
        stream.rest = b""
        stream.rest_at = 0
        if stream.is_running:
            self._gone_running += 1

    # Requests.

    @property
    def has_all_streams(self) -> bool:
        """Return whether the client has begun all streams that it may. Cancelled ones count while a task works for them."""
        return len(self.streams) + self._gone_running >= self._streams_allowed

    def note_early(self, stream: ServerStream) -> None:
        """Note that a request is answered and not whole. The rest of a few such requests may pass. More are reset, so that no
        client can use the memory of many streams for the bytes of their heads."""
        self._early += 1
        stream.is_early = True
        if self._early > _EARLY_MAX and stream.is_sent:
            self.reset(stream, NO_ERROR)

    def note_whole(self, stream: ServerStream) -> None:
        """Note that no more of the request comes."""
        if stream.is_early:
            stream.is_early = False
            self._early -= 1

    def run(self, stream: ServerStream, work: Any) -> Any:
        """Start a task of the server for that stream. Call `task_done` at its end."""
        stream.is_running = True
        # With a name, since asyncio would make one of a number.
        task = asyncio.Task(work, loop=self.loop, name="stream")
        tasks = self.connections.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    def task_done(self, stream: ServerStream) -> None:
        """Note that the stream's task is done."""
        stream.is_running = False
        if stream.is_aborted:
            self._gone_running -= 1

    def send_body(self, stream: ServerStream, data: bytes, trailers: bytes, *, end: bool) -> None:
        """Send `data` as the windows allow, after bytes that still wait; then the trailers, if any. `end` ends the answer."""
        if stream.is_aborted or self.state == CLOSED:
            return
        size: i64 = len(data)
        if not stream.rest:
            if 0 < size <= self.sendable_bytes(stream) and self.is_writable:  # nearly always
                self.send_data(stream, data, end=end and not trailers)
                if trailers:
                    self.send_head(stream, trailers, end=True)
                stream.drained()
                return
            stream.rest = data
            stream.waits_since = self.loop.time()
            stream.taken_since = 0
        else:
            stream.rest = stream.rest[stream.rest_at :] + data
        stream.rest_at = 0
        stream.trailers = trailers
        stream.ends = end
        if not data and not stream.rest:
            self._last(stream, end_is_due=end)
            return
        self._pump(stream)
        if stream.rest:
            self._blocked[stream.stream_id] = stream

    def _pump(self, stream: ServerStream) -> None:
        """Send as much of the stream's answer as may be sent."""
        while self._pump_frame(stream):
            pass

    def _pump_all(self) -> None:
        """Send a frame of each stream in turn, so that no stream waits until another is complete."""
        blocked = self._blocked
        has_sent = True
        while has_sent and blocked and self._send_window > 0:
            has_sent = False
            for stream in list(blocked.values()):
                if self._pump_frame(stream):
                    has_sent = True
                    if stream.rest:
                        del blocked[stream.stream_id]
                        blocked[stream.stream_id] = stream

    def _pump_blocked(self) -> None:
        """Send as much of each blocked answer as may be sent."""
        for stream in list(self._blocked.values()):
            self._pump(stream)

    def _pump_frame(self, stream: ServerStream) -> bool:
        """Send one frame of the stream, if it may send one. Drop the stream if it never may. Return whether more may follow."""
        left: i64 = len(stream.rest) - stream.rest_at
        if not left or not self.is_writable:
            return False
        size: i64 = self.sendable_bytes(stream)
        if not size:
            if self.has_ended:
                self._drop(stream)
            return False
        at: i64 = stream.rest_at
        stream.taken_since += min(size, left)
        if size >= left:
            data = stream.rest[at:] if at else stream.rest
            stream.rest = b""
            stream.rest_at = 0
            self._blocked.pop(stream.stream_id, None)
            ends = stream.ends and not stream.trailers
            self.send_data(stream, data, end=ends)
            self._last(stream, end_is_due=False)
            return False
        stream.rest_at = at + size
        self.send_data(stream, stream.rest[at : at + size], end=False)
        self.flush()  # so that the transport can pause the writing
        return True

    def _last(self, stream: ServerStream, *, end_is_due: bool) -> None:
        """End the answer after its body: send the trailers, or an empty frame if `end_is_due`."""
        if stream.trailers:
            self.send_head(stream, stream.trailers, end=True)
            stream.trailers = b""
        elif end_is_due:
            self.send_data(stream, b"", end=True)
        stream.drained()

    # The server's side.

    def close_if_late(self, now: float) -> None:
        """Close, answer or reset everything that should have come, or been read, by now."""
        if self._stall.is_over(self.transport, now):
            self.abort()
            return
        if now > self.ends_at and self.state < ENDING:
            # A busy connection ends after an answer, as soon as no other request is in flight.
            if self.idle_since() != BUSY or now > self.ends_at + self.connections.age_grace_s:
                self.end_by_age()
            if self.state == CLOSED:
                return
        if self.is_between:
            self._half = None
        else:
            half = self._half
            if half is None or half[0] != self.frames:
                self._half = (self.frames, now)
            elif now - half[1] > (self._late_s if self.frames else self.connections.handshake_timeout_s):
                self.close_with_goaway(ENHANCE_YOUR_CALM)
                return
        for stream in list(self.streams.values()):
            if isinstance(stream, ServerStream):
                if stream.rest:
                    self._check_progress(stream, now)
                else:
                    self.check_deadline(stream, now)
        self._note_activity(now)
        self.on_idle(now)
        self.flush()

    def _note_activity(self, now: float) -> None:
        """Note until when the connection had requests. Pings are not requests."""
        highest: i64 = self.highest_stream_id
        if self.streams or self._gone_running or highest != self._idle_at:
            if self._gone_running or highest != self._idle_at or self._quiet_since() == BUSY:
                self._busy_at = now
            self._idle_at = highest
            self._idle_since = now

    def idle_since(self) -> float:
        """Return the loop's time since when the connection has no request, to half a second; BUSY if it has or just had one."""
        highest: i64 = self.highest_stream_id
        if self.state == CLOSED or self._gone_running or highest != self._idle_at:
            return BUSY
        return max(self._busy_at, self._quiet_since()) if self.streams else self._idle_since

    def _quiet_since(self) -> float:
        """Return the loop's time since when no stream keeps the connection from eviction; BUSY if one does."""
        since = 0.0
        for stream in self.streams.values():
            assert isinstance(stream, ServerStream)
            since = max(since, stream.quiet_since())
            if since == BUSY:
                break
        return since

    def evict(self) -> None:
        self.close_with_goaway(NO_ERROR)

    def _check_progress(self, stream: ServerStream, now: float) -> None:
        if stream.taken_since >= PROGRESS_BYTES:
            stream.taken_since = 0
            stream.waits_since = now
        elif now - stream.waits_since > self.connections.answer_timeout_s:
            self.reset(stream, CANCEL)

    def answered(self) -> None:
        super().answered()
        if self.connections.is_leaving and self.state == OPEN:
            self._announce_end()
        if not self.streams and self.state < ENDING and self.loop.time() > self.ends_at:
            self.end_behind_answer()

    def leave(self) -> None:
        """Ask the client to begin no more requests here (RFC 9113, 6.8), and answer those that it begins nevertheless."""
        if self.state == OPEN:
            self._announce_end()
            self.flush()

    def _announce_end(self) -> None:
        self.state = LEAVING
        self.goaway(STREAM_ID_MAX, NO_ERROR)

    def shutdown(self) -> None:
        """Take no more requests, and close when all are answered."""
        if self.state >= ENDING:
            if self.state == REFUSING:  # the client has ended the connection
                self.close_if_over()
            return
        if self.state == OPEN:
            self._announce_end()
        self.state = ENDING
        self.ping(HEARD)
        self.flush()
        self.loop.call_later(HEARD_MAX_S, self._refuse_more)

    def end_by_age(self) -> None:
        """End an old connection that is idle, or has been busy for too long."""
        self.shutdown()

    def end_behind_answer(self) -> None:
        """Shut down if no request is in flight, without a ping: clients with Python's h2 take no frame after GOAWAY, and would
        lose the answer before it."""
        if self.state == OPEN:
            self._announce_end()
        self.state = ENDING
        self.loop.call_later(HEARD_MAX_S, self._refuse_more)

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def _refuse_more(self) -> None:
        """Refuse new requests: the client has received the announcement of the end, or had the time to."""
        if self.state < ENDING or self.state == CLOSED:
            return
        if self.state == ENDING:
            self.state = REFUSING
            self.goaway(int(self.highest_stream_id), NO_ERROR)
        self.flush()
        self.close_if_over()

    def close_with_goaway(self, code: int, reason: bytes = b"") -> None:
        """Close now, with the reason in GOAWAY."""
        self.is_over = True
        self.goaway(int(self.highest_stream_id), code, reason)
        self.close()

    def close(self) -> None:
        if self.state == CLOSED:
            return
        self.flush()
        self.is_over = True
        self.state = CLOSED
        self.transport.close()
        self._drop_all()

    def _drop_all(self) -> None:
        for stream in list(self.streams.values()):
            stream.is_aborted = True
            self.on_aborted(stream)
        self.streams.clear()
        self._blocked.clear()
        self.unread = b""

    def flush(self) -> None:
        """Write the engine's frames to the transport."""
        out = self.out
        if out:
            if not self.transport.is_closing():
                data = out[0] if len(out) == 1 else b"".join(out)
                self._stall.written_bytes += len(data)
                self.transport.write(data)
            out.clear()
