"""The server's side of HTTP/2 without any I/O: bytes come in and become calls, calls become bytes to send (RFC 9113).

Invariants:
1. Whatever a client sends, `receive` returns or raises Http2Error (test_http2_random_frames.py).
2. Windows, heads, streams and frames are bounded, and an error of one stream ends only that stream (test_engine.py,
   test_why_a_stream_ends_and_nothing_else).
3. Frames without use are paid from a credit that data and answered requests earn. A connection without credit ends with
   ENHANCE_YOUR_CALM (test_why_a_connection_ends).
4. A client that keeps to SETTINGS never runs out of credit: each open stream has some small frames and one reset for free
   (test_as_many_requests_as_announced_are_served, test_as_many_calls_as_announced_may_be_cancelled_at_once).
5. A frame on a closed stream is ignored if this side reset the stream, since the frame may have been on its way. Otherwise it
   is a connection error (test_frames_on_closed_streams).
6. One call does a bounded number of steps. The rest of the data waits in `unread`, so that a server can give other connections
   their turn (test_a_piece_of_many_steps_is_read_in_turns).
"""

from typing import Final

from mypy_extensions import i64

from collector.http2.headers import HeadDecoder, HeadError, RequestHead

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAM_ID_MAX: Final = 2**31 - 1

# Error codes, RFC 9113, 7.
NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

# Types of frames, and flags.
_DATA: Final = 0
_HEADERS: Final = 1
_PRIORITY: Final = 2
_RST_STREAM: Final = 3
_SETTINGS: Final = 4
_PUSH_PROMISE: Final = 5
_PING: Final = 6
_GOAWAY: Final = 7
_WINDOW_UPDATE: Final = 8
_CONTINUATION: Final = 9
_ACK: Final = 1
_END_STREAM: Final = 1
_END_HEADERS: Final = 4
_PADDED: Final = 8
_HAS_PRIORITY: Final = 0x20

# Settings.
_HEADER_TABLE_SIZE: Final = 1
_MAX_CONCURRENT_STREAMS: Final = 3
_ENABLE_PUSH: Final = 2
_INITIAL_WINDOW_SIZE: Final = 4
_MAX_FRAME_SIZE: Final = 5
_MAX_HEADER_LIST_SIZE: Final = 6

_FRAME_HEADER_BYTES: Final = 9
# The smallest limit that may be announced, which is ours.
_FRAME_BYTES_MAX: Final = 16_384
_WINDOW_BYTES: Final = 65_535  # the first window of every connection and stream
_WINDOW_BYTES_MAX: Final = 2**31 - 1
# The first size of HPACK's table for our heads, and the beginning of a head that shrinks the table to nothing.
_HEADER_TABLE_BYTES: Final = 4096
_NO_HEADER_TABLE: Final = b"\x20"

# The bytes of a frame or an answer that pay for one frame without content.
_BYTES_A_FRAME: Final = 256
# A smaller DATA frame costs as much as a frame without content.
_SMALL_BYTES: Final = 64
# How many small frames (DATA, WINDOW_UPDATE, PRIORITY) a stream may have for free: a gRPC message takes up to three DATA
# frames, and some clients open each stream's window by itself.
_FREE_FRAMES: Final = 16
# A reset wastes the work for its request; an answered request has been worth as much. As many resets are free as there may be
# streams, and each answer gives one back: a client may cancel all its open streams, for example when its deadlines pass.
_RESET_COST: Final = 20
_ANSWER_WORTH: Final = 20
# A change of all windows costs one frame for this many streams.
_WINDOWS_A_FRAME: Final = 64
# A millisecond or four: a frame is one step, and so is an octet of a head, which can be a whole field.
_STEPS_AT_ONCE: Final = 8_192
# How many streams that this side has reset are remembered, and how many gaps in the streams' numbers.
_RESETS_KEPT_MAX: Final = 1024
_GAPS_KEPT_MAX: Final = 64


class Http2Error(Exception):
    """The connection can't go on. `code` is the error code for GOAWAY."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code: Final = code


class Stream:
    """One request and its answer, as the engine sees them."""

    def __init__(self, stream_id: int) -> None:
        self.stream_id: Final = stream_id
        self.is_received: bool = False  # the whole request has come
        self.is_sent: bool = False  # the whole answer was sent
        self.is_aborted: bool = False  # reset by either side
        self.send_window: i64 = 0  # how much of the answer may be sent, if the connection's window allows it
        self.receive_window: i64 = 0  # how much may still come
        self.taken_bytes: i64 = 0  # that were taken since the last WINDOW_UPDATE
        self.window_bytes: i64 = _WINDOW_BYTES  # how much of the body may be on its way or not taken yet
        self.is_announced: bool = False  # whether the head has the body's length
        self.missing_bytes: i64 = 0  # of an announced body
        self.free_frames: i64 = _FREE_FRAMES  # small frames that cost nothing


class Http2Engine:
    """One connection. A server inherits from it, and implements the methods whose names begin with `on_`. `out` has the frames
    to send."""

    def __init__(
        self,
        *,
        streams_max: int,
        header_bytes_max: int,
        header_bytes_end: int,
        stream_window_bytes: int,
        connection_window_bytes: int,
        control_frames_max: int,
    ) -> None:
        """The windows are the most bytes of bodies that may be on the way or not taken yet, of one stream and of all.

        `header_bytes_max` is announced to the client, and is how much of a head is kept. A head that is larger than
        `header_bytes_end` as sent ends the connection, and so do more than `control_frames_max` frames without use.
        """
        self.out: Final[list[bytes]] = []
        self.streams: Final[dict[int, Stream]] = {}
        self.highest_stream_id: i64 = 0
        self.frames: i64 = 0  # that were begun
        self.is_over: bool = False  # whether a GOAWAY has ended it, so that no more is read
        self._streams_max: i64 = streams_max
        self._header_bytes_max: i64 = header_bytes_max
        self._header_bytes_end: i64 = header_bytes_end
        self._decoder: Final = HeadDecoder(header_bytes_max)
        self._stream_window_bytes: i64 = stream_window_bytes
        self.wide_window_bytes: Final[int] = stream_window_bytes
        # How many streams may have the wide window at once: as many as fill the connection's window.
        self._wide_streams_left: i64 = max(connection_window_bytes // stream_window_bytes, 1)
        self._connection_window_bytes: i64 = connection_window_bytes
        self._receive_window: i64 = connection_window_bytes
        self._taken_bytes: i64 = 0
        self._send_window: i64 = _WINDOW_BYTES
        self._credit_max: i64 = control_frames_max
        self._credit: i64 = control_frames_max
        self._free_resets: i64 = streams_max
        # Streams that this side has reset, the oldest first. Up to `_resets_forgotten` they may have been forgotten.
        self._resets: Final[dict[int, None]] = {}
        self._resets_forgotten: i64 = 0
        # Numbers that the client has left out, so that they were never streams: the first and the last of each gap.
        self._gaps: Final[list[tuple[int, int]]] = []
        # The limits of the client.
        self._stream_send_window: i64 = _WINDOW_BYTES
        self._frame_bytes_max: i64 = _FRAME_BYTES_MAX
        self._header_table_bytes: i64 = _HEADER_TABLE_BYTES
        self._shrinks_header_table: bool = False  # with the next head
        self._preface_bytes: i64 = 0  # that have come
        self._has_settings: bool = False
        self._rest: bytes = b""  # the beginning of a frame that is not whole
        self._steps: i64 = 0  # of this call of `receive`
        self.unread: bytes = b""  # the rest of the data after the steps of one call
        # The head that is coming.
        self._head_bytes: i64 = 0
        self._head_is_whole: bool = False  # whether it is in one frame
        self._head_stream_id: i64 = 0
        self._head_ends: bool = False

    # Methods that the server calls.

    def begin(self) -> None:
        """Send our SETTINGS, and open the connection's window."""
        settings = b"".join(
            [
                _setting(_MAX_CONCURRENT_STREAMS, self._streams_max),
                _setting(_MAX_HEADER_LIST_SIZE, self._header_bytes_max),
            ]
        )
        self.out.append(frame(_SETTINGS, 0, 0, settings))
        self.out.append(_window_update(0, self._connection_window_bytes - _WINDOW_BYTES))

    def receive(self, data: bytes) -> None:
        """Take received bytes. Raises Http2Error; then do not call it again.

        The bytes that are left after `_STEPS_AT_ONCE` are in `unread`. Pass them first at the next turn.
        """
        self._steps = 0
        at: i64 = 0
        end: i64 = len(data)
        if self._preface_bytes < len(PREFACE):
            at = min(end, len(PREFACE) - self._preface_bytes)
            if data[:at] != PREFACE[self._preface_bytes : self._preface_bytes + at]:
                raise Http2Error(PROTOCOL_ERROR)
            self._preface_bytes += at
        while self._rest and at < end:
            rest = self._rest
            size: i64 = len(rest)
            missing: i64 = _FRAME_HEADER_BYTES - size
            if missing <= 0:
                missing = _FRAME_HEADER_BYTES + _length(rest, 0) - size
            step: i64 = min(missing, end - at)
            rest += data[at : at + step]
            at += step
            size += step
            if size >= _FRAME_HEADER_BYTES:
                length: i64 = _length(rest, 0)
                if length > _FRAME_BYTES_MAX:
                    raise Http2Error(FRAME_SIZE_ERROR)
                if size == _FRAME_HEADER_BYTES + length:
                    self._rest = b""
                    self._frame(rest, 0, length)
                    continue
            self._rest = rest
        while at < end and not self.is_over:
            if self._steps > _STEPS_AT_ONCE:
                self.unread = data[at:]
                return
            if end - at < _FRAME_HEADER_BYTES:
                self._rest = data[at:]
                self.frames += 1
                return
            length = _length(data, at)
            if length > _FRAME_BYTES_MAX:
                raise Http2Error(FRAME_SIZE_ERROR)
            if end - at < _FRAME_HEADER_BYTES + length:
                self._rest = data[at:]
                self.frames += 1
                return
            self.frames += 1
            self._steps += 1
            self._frame(data, at, length)
            at += _FRAME_HEADER_BYTES + length

    @property
    def is_between(self) -> bool:
        """Return whether neither the preface, a frame nor a head is incomplete."""
        return not self._rest and not self._head_stream_id and self._has_settings

    def sendable_bytes(self, stream: Stream) -> int:
        """Return how much of that stream's body may be sent now, in one frame."""
        return int(max(min(self._send_window, stream.send_window, self._frame_bytes_max), 0))

    def send_head(self, stream: Stream, block: bytes, *, end: bool) -> None:
        """Send a head. `block` has its encoded headers. If `end`, the answer has no body."""
        flags = _END_STREAM if end else 0
        if self._shrinks_header_table:
            self._shrinks_header_table = False
            block = _NO_HEADER_TABLE + block
        if len(block) <= self._frame_bytes_max:
            self.out.append(frame(_HEADERS, flags | _END_HEADERS, stream.stream_id, block))
        else:
            type_ = _HEADERS
            at: i64 = 0
            while at < len(block):
                piece = block[at : at + self._frame_bytes_max]
                at += len(piece)
                flags |= _END_HEADERS if at == len(block) else 0
                self.out.append(frame(type_, flags, stream.stream_id, piece))
                type_, flags = _CONTINUATION, 0
        if end:
            self._sent(stream)

    def send_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Send a part of the body, of at most `sendable_bytes`."""
        size: i64 = len(data)
        stream.send_window -= size
        self._send_window -= size
        self.out.append(frame(_DATA, _END_STREAM if end else 0, stream.stream_id, data))
        self._add_credit(1 + size // _BYTES_A_FRAME)  # the client will acknowledge it
        if end:
            self._sent(stream)

    def acknowledge(self, stream: Stream | None, size_bytes: int) -> None:
        """Note that `size_bytes` of the stream's body were taken or dropped, so that as many more may come."""
        self._taken_bytes += size_bytes
        if self._taken_bytes * 2 >= self._connection_window_bytes:
            self.out.append(_window_update(0, self._taken_bytes))
            self._receive_window += self._taken_bytes
            self._taken_bytes = 0
        if stream is not None:
            self.open_window(stream, size_bytes)

    def open_window(self, stream: Stream, size_bytes: int, *, may_widen: bool = True) -> None:
        """Do as `acknowledge`, but only for the stream's window. If `may_widen`, it may become the large window."""
        if not stream.is_received and not stream.is_aborted:
            stream.taken_bytes += size_bytes
            if stream.taken_bytes * 2 >= stream.window_bytes:
                # Few streams need large windows. Many streams do not, and could bring too much at once with them.
                is_few = may_widen and len(self.streams) * _WINDOW_BYTES <= self._connection_window_bytes
                if is_few and self._wide_streams_left > 0 and stream.window_bytes < self._stream_window_bytes:
                    self._wide_streams_left -= 1
                    stream.taken_bytes += self._stream_window_bytes - stream.window_bytes
                    stream.window_bytes = self._stream_window_bytes
                self.out.append(_window_update(stream.stream_id, stream.taken_bytes))
                stream.receive_window += stream.taken_bytes
                stream.taken_bytes = 0

    def is_window_due(self, stream: Stream, size_bytes: int) -> bool:
        """Return whether the client would get a window update if `size_bytes` more were taken."""
        return (stream.taken_bytes + size_bytes) * 2 >= stream.window_bytes

    def _narrow(self, stream: Stream) -> None:
        """Let another stream have the large window of this stream, if it has one."""
        if stream.window_bytes > _WINDOW_BYTES:
            stream.window_bytes = _WINDOW_BYTES
            self._wide_streams_left += 1

    def reset(self, stream: Stream, code: int) -> None:
        """End the stream, answered or not."""
        self.refuse(stream.stream_id, code)
        self._drop(stream)

    def refuse(self, stream_id: int, code: int) -> None:
        """Reset a request that has not become a stream."""
        self.out.append(frame(_RST_STREAM, 0, stream_id, code.to_bytes(4, "big")))
        resets = self._resets
        resets[stream_id] = None
        if len(resets) > _RESETS_KEPT_MAX:
            oldest = next(iter(resets))
            del resets[oldest]
            self._resets_forgotten = max(self._resets_forgotten, oldest)

    def ping(self, data: bytes) -> None:
        """Send a ping with eight bytes, which come back."""
        self.out.append(frame(_PING, 0, 0, data))

    def goaway(self, last_stream_id: int, code: int, reason: bytes = b"") -> None:
        """Send GOAWAY. Requests on streams above `last_stream_id` are not answered."""
        payload = last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + reason
        self.out.append(frame(_GOAWAY, 0, 0, payload))

    def answered(self) -> None:
        """Note that a request was answered, for which the client earns credit."""
        self._add_credit(_ANSWER_WORTH)
        if self._free_resets < self._streams_max:
            self._free_resets += 1

    # Events for the server.

    def on_head(self, stream_id: int, head: RequestHead) -> Stream | None:
        """Return the stream of a new request; None if it was refused."""
        raise NotImplementedError

    def on_request(self, stream: Stream) -> None:
        """Handle a request that has begun. It may be answered from here on."""
        raise NotImplementedError

    def on_data(self, stream: Stream, data: bytes, window_bytes: int) -> None:
        """Handle a piece of the body, which uses `window_bytes` of the windows until it is acknowledged."""
        raise NotImplementedError

    def on_end(self, stream: Stream) -> None:
        """Handle the end of a request: all of it has arrived."""
        raise NotImplementedError

    def on_aborted(self, stream: Stream) -> None:
        """Handle the reset of a stream: no client waits for its answer."""
        raise NotImplementedError

    def on_window(self, stream: Stream | None) -> None:
        """Handle a larger window: more may be sent, on this stream or, if None, on all."""

    def on_ping(self) -> None:
        """Handle a ping of the client, which is already answered."""

    def on_ping_answered(self, data: bytes) -> None:
        """Handle the answer to one of our pings."""

    def on_goaway(self, code: int) -> None:
        """Handle GOAWAY: the client begins no more requests."""

    # Frames.

    def _frame(self, data: bytes, at: i64, length: i64) -> None:
        """Handle the whole frame at `at`. Raises Http2Error."""
        kind: i64 = data[at + 3]
        flags: i64 = data[at + 4]
        stream_id: i64 = (data[at + 5] & 0x7F) << 24 | data[at + 6] << 16 | data[at + 7] << 8 | data[at + 8]
        start: i64 = at + _FRAME_HEADER_BYTES
        end: i64 = start + length
        if not self._has_settings:
            if kind != _SETTINGS or flags & _ACK:
                raise Http2Error(PROTOCOL_ERROR)
            self._has_settings = True
        if self._head_stream_id and (kind != _CONTINUATION or stream_id != self._head_stream_id):
            raise Http2Error(PROTOCOL_ERROR)
        if kind == _DATA:
            self._data(stream_id, flags, data, start, end)
        elif kind == _HEADERS:
            self._headers(stream_id, flags, data, start, end)
        elif kind == _CONTINUATION:
            if not self._head_stream_id:
                raise Http2Error(PROTOCOL_ERROR)
            self._take_credit(1)
            self._fragment(data[start:end], flags)
        elif kind == _WINDOW_UPDATE:
            self._update_window(stream_id, data, start, length)
        elif kind == _SETTINGS:
            self._settings(stream_id, flags, data, start, length)
        elif kind == _PING:
            _only_of_connection(stream_id)
            _exactly(length, 8)
            self._take_credit(1)
            if flags & _ACK:
                self.on_ping_answered(data[start:end])
            else:
                self.out.append(frame(_PING, _ACK, 0, data[start:end]))
                self.on_ping()
        elif kind == _RST_STREAM:
            self._reset_by_client(stream_id, length)
        elif kind == _GOAWAY:
            _only_of_connection(stream_id)
            if length < 8:
                raise Http2Error(FRAME_SIZE_ERROR)
            self._take_credit(1)
            self.on_goaway(int.from_bytes(data[start + 4 : start + 8], "big"))
        elif kind == _PRIORITY:
            if stream_id == 0:
                raise Http2Error(PROTOCOL_ERROR)
            _exactly(length, 5)
            self._charge(self.streams.get(stream_id))
        elif kind == _PUSH_PROMISE:
            raise Http2Error(PROTOCOL_ERROR)
        else:  # an unknown type, which is ignored
            self._take_credit(1)

    def _data(self, stream_id: i64, flags: i64, data: bytes, start: i64, end: i64) -> None:
        self._known(stream_id)
        size: i64 = end - start
        self._receive_window -= size
        if self._receive_window < 0:
            raise Http2Error(FLOW_CONTROL_ERROR)
        if flags & _PADDED:
            if size == 0 or data[start] >= size:
                raise Http2Error(PROTOCOL_ERROR)
            end -= data[start]
            start += 1
        stream = self.streams.get(stream_id)
        if stream is None or stream.is_received:
            self._take_credit(1)
            if stream is None and not self._was_reset_here(stream_id):
                raise Http2Error(STREAM_CLOSED)
            self.acknowledge(None, size)
            if stream is not None:
                self.reset(stream, STREAM_CLOSED)
            return
        content_bytes: i64 = end - start
        if content_bytes < _SMALL_BYTES:
            self._charge(stream)
        else:
            self._add_credit(content_bytes // _BYTES_A_FRAME)
        stream.receive_window -= size
        if stream.is_announced:
            stream.missing_bytes -= content_bytes
        if stream.receive_window < 0 or stream.missing_bytes < 0:
            self.acknowledge(None, size)
            self.reset(stream, FLOW_CONTROL_ERROR if stream.receive_window < 0 else PROTOCOL_ERROR)
            return
        if size:
            self.on_data(stream, data[start:end], size)
        if flags & _END_STREAM and not stream.is_aborted:
            self._received(stream)

    def _headers(self, stream_id: i64, flags: i64, data: bytes, start: i64, end: i64) -> None:
        if stream_id & 1 == 0:
            raise Http2Error(PROTOCOL_ERROR)
        if flags & _PADDED:
            if start == end:
                raise Http2Error(PROTOCOL_ERROR)
            end -= data[start]
            start += 1
        if flags & _HAS_PRIORITY:
            start += 5
        if start > end:
            raise Http2Error(PROTOCOL_ERROR)
        self._head_stream_id = stream_id
        self._head_ends = bool(flags & _END_STREAM)
        self._head_bytes = 0
        self._head_is_whole = flags & _END_HEADERS != 0
        self._fragment(data[start:end], flags)

    def _fragment(self, block: bytes, flags: i64) -> None:
        """Take one piece of a head."""
        self._steps += len(block)
        self._head_bytes += len(block)
        if self._head_bytes > self._header_bytes_end:
            raise Http2Error(ENHANCE_YOUR_CALM)
        try:
            if self._head_is_whole:
                head = self._decoder.decode(block)
            else:
                self._decoder.feed(block)
                if not flags & _END_HEADERS:
                    return
                head = self._decoder.finish()
                self._decoder.forget()
        except HeadError:
            raise Http2Error(COMPRESSION_ERROR) from None
        stream_id = self._head_stream_id
        self._head_stream_id = 0
        stream = self.streams.get(stream_id)
        if stream is not None:
            # Trailers, which are not needed.
            if stream.is_received:
                self.reset(stream, STREAM_CLOSED)
            elif head.is_malformed or not (self._head_ends and head.is_trailers):
                self.reset(stream, PROTOCOL_ERROR)
            else:
                self._received(stream)
        elif stream_id > self.highest_stream_id:
            if stream_id > self.highest_stream_id + 2:
                self._leave_out(int(self.highest_stream_id) + 2, int(stream_id) - 2)
            self.highest_stream_id = stream_id
            self._request(int(stream_id), head)
        else:
            self._take_credit(1)
            if not self._was_reset_here(stream_id):
                raise Http2Error(PROTOCOL_ERROR if self._was_left_out(stream_id) else STREAM_CLOSED)

    def _request(self, stream_id: int, head: RequestHead) -> None:
        if not head.is_cut and (head.is_malformed or head.is_trailers or (self._head_ends and head.content_length > 0)):
            self._take_credit(1)
            self.refuse(stream_id, PROTOCOL_ERROR)
            return
        ends = self._head_ends
        stream = self.on_head(stream_id, head)
        if stream is None:
            self._take_credit(1)
            return
        stream.send_window = self._stream_send_window
        stream.receive_window = _WINDOW_BYTES
        if head.content_length >= 0:
            stream.is_announced = True
            stream.missing_bytes = head.content_length
        self.streams[stream_id] = stream
        self.on_request(stream)
        if ends and not stream.is_aborted:
            self._received(stream)

    def _update_window(self, stream_id: i64, data: bytes, start: i64, length: i64) -> None:
        _exactly(length, 4)
        step: i64 = (data[start] & 0x7F) << 24 | data[start + 1] << 16 | data[start + 2] << 8 | data[start + 3]
        if stream_id == 0:
            self._take_credit(1)
            self._send_window += step
            if step == 0 or self._send_window > _WINDOW_BYTES_MAX:
                raise Http2Error(PROTOCOL_ERROR if step == 0 else FLOW_CONTROL_ERROR)
            self.on_window(None)
            return
        self._known(stream_id)
        stream = self.streams.get(stream_id)
        self._charge(stream)
        if stream is None:
            return
        stream.send_window += step
        if step == 0 or stream.send_window > _WINDOW_BYTES_MAX:
            self.reset(stream, PROTOCOL_ERROR if step == 0 else FLOW_CONTROL_ERROR)
            return
        self.on_window(stream)

    def _settings(self, stream_id: i64, flags: i64, data: bytes, start: i64, length: i64) -> None:
        """Check all values, and apply the last window once: a frame may have 2,730 settings, each for all streams."""
        _only_of_connection(stream_id)
        if flags & _ACK:
            _exactly(length, 0)
            self._take_credit(1)
            return
        if length % 6:
            raise Http2Error(FRAME_SIZE_ERROR)
        self._take_credit(max(length // 6, 1))
        window_bytes: i64 = self._stream_send_window
        at: i64 = start
        while at < start + length:
            name: i64 = data[at] << 8 | data[at + 1]
            value: i64 = data[at + 2] << 24 | data[at + 3] << 16 | data[at + 4] << 8 | data[at + 5]
            at += 6
            if name == _INITIAL_WINDOW_SIZE:
                if value > _WINDOW_BYTES_MAX:
                    raise Http2Error(FLOW_CONTROL_ERROR)
                window_bytes = value
            elif name == _MAX_FRAME_SIZE:
                if not _FRAME_BYTES_MAX <= value < 2**24:
                    raise Http2Error(PROTOCOL_ERROR)
                self._frame_bytes_max = value
            elif name == _ENABLE_PUSH and value > 1:
                raise Http2Error(PROTOCOL_ERROR)
            elif name == _HEADER_TABLE_SIZE and value < self._header_table_bytes:
                # RFC 7541 (4.2) requires this in the next head, and nghttp2 fails without it. Our heads do not use the table.
                self._header_table_bytes = 0
                self._shrinks_header_table = True
            # A server does not need the other settings.
        self.out.append(frame(_SETTINGS, _ACK, 0, b""))
        if window_bytes != self._stream_send_window:
            self._change_windows(window_bytes)

    def _change_windows(self, window_bytes: i64) -> None:
        """Change the send windows of every open stream, and of streams to come."""
        self._take_credit(len(self.streams) // _WINDOWS_A_FRAME)
        step: i64 = window_bytes - self._stream_send_window
        self._stream_send_window = window_bytes
        for stream in self.streams.values():
            stream.send_window += step
            if stream.send_window > _WINDOW_BYTES_MAX:
                raise Http2Error(FLOW_CONTROL_ERROR)
        self.on_window(None)

    def _reset_by_client(self, stream_id: i64, length: i64) -> None:
        self._known(stream_id)
        _exactly(length, 4)
        stream = self.streams.get(stream_id)
        if stream is not None and self._free_resets > 0:
            self._free_resets -= 1
        else:
            self._take_credit(1 if stream is None else _RESET_COST)
        if stream is not None:
            self._drop(stream)

    # Streams.

    def _known(self, stream_id: i64) -> None:
        """Raise Http2Error if that stream has never been begun."""
        if stream_id & 1 == 0 or stream_id > self.highest_stream_id:
            raise Http2Error(PROTOCOL_ERROR)

    def _was_reset_here(self, stream_id: i64) -> bool:
        """Return whether this side has reset the stream, or may have."""
        return stream_id <= self._resets_forgotten or stream_id in self._resets

    def _leave_out(self, first: int, last: int) -> None:
        """Note streams that the client has not begun, and can't begin any more."""
        self._gaps.append((first, last))
        if len(self._gaps) > _GAPS_KEPT_MAX:
            del self._gaps[0]

    def _was_left_out(self, stream_id: i64) -> bool:
        return any(first <= stream_id <= last for first, last in self._gaps)

    def _received(self, stream: Stream) -> None:
        stream.is_received = True
        self._narrow(stream)
        if stream.missing_bytes > 0:
            self.reset(stream, PROTOCOL_ERROR)
            return
        if stream.is_sent:
            self.streams.pop(stream.stream_id, None)
        self.on_end(stream)

    def _sent(self, stream: Stream) -> None:
        stream.is_sent = True
        if stream.is_received:
            self.streams.pop(stream.stream_id, None)

    def _drop(self, stream: Stream) -> None:
        self.streams.pop(stream.stream_id, None)
        if not stream.is_aborted:
            self._narrow(stream)
            stream.is_aborted = True
            self.on_aborted(stream)

    def _add_credit(self, frames: i64) -> None:
        self._credit = min(self._credit_max, self._credit + frames)

    def _take_credit(self, frames: i64) -> None:
        """Take credit for frames without use. Raises Http2Error if none is left."""
        self._credit -= frames
        if self._credit < 0:
            raise Http2Error(ENHANCE_YOUR_CALM)

    def _charge(self, stream: Stream | None) -> None:
        """Charge a small frame on a stream; the first ones are free. Raises Http2Error."""
        if stream is not None and stream.free_frames > 0:
            stream.free_frames -= 1
        else:
            self._take_credit(1)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return a whole frame."""
    return b"".join([len(payload).to_bytes(3, "big"), bytes([kind, flags]), stream_id.to_bytes(4, "big"), payload])


def _setting(name: int, value: i64) -> bytes:
    return name.to_bytes(2, "big") + int(value).to_bytes(4, "big")


def _window_update(stream_id: int, step: i64) -> bytes:
    return frame(_WINDOW_UPDATE, 0, stream_id, int(step).to_bytes(4, "big"))


def _length(data: bytes, at: i64) -> i64:
    """Return the length of the payload of the frame whose header begins at `at`."""
    return data[at] << 16 | data[at + 1] << 8 | data[at + 2]


def _only_of_connection(stream_id: i64) -> None:
    """Raise Http2Error if a frame of the connection is on a stream."""
    if stream_id:
        raise Http2Error(PROTOCOL_ERROR)


def _exactly(length: i64, expected: i64) -> None:
    """Raise Http2Error if a frame has another length."""
    if length != expected:
        raise Http2Error(FRAME_SIZE_ERROR)
