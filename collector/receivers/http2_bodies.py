"""Bodies of telemetry that come over HTTP/2: where the budget has no room for all of them at once, windows hold them back.

The windows of the connection are always given back: else one stream would hold up the others.

Invariants:
1. No body is held back for longer than _WAIT_FACTOR times `body_timeout_s`, all in all, and that time does not count as its
   client's (tests/unit/collector/receivers/test_http2_bodies.py, test_no_body_waits_for_ever).
2. Bodies that nobody ends do not hold up others (the same, test_no_body_waits_for_those_that_nobody_ends).
"""

from typing import Final

from mypy_extensions import i64

from collector.ingest.room import ComingBody, Room
from collector.receivers.transport.http2_connection import ServerConnection, ServerStream

_WAIT_FACTOR: Final = 4


class BodyStream(ServerStream):
    """A stream whose body may be held back."""

    def __init__(self, connection: ServerConnection, stream_id: int, began: float) -> None:
        """`began`: the loop's time."""
        super().__init__(stream_id, began)
        self._connection: Final = connection
        self._room: Room | None = None
        self._body: ComingBody | None = None  # a large one
        self._is_held_back: bool = False
        self._withheld_bytes: i64 = 0  # of its window
        self._held_since: float = 0.0  # the loop's time
        self._waited_s: float = 0.0

    def took(self, window_bytes: int, room: Room | None) -> None:
        """Give a piece's windows back, or let it wait for that. `room`: of its tenant; None: nothing is waited for."""
        connection = self._connection
        if room is None or not (self._body is not None or connection.is_window_due(self, window_bytes)):
            connection.acknowledge(self, window_bytes)
            return
        body = self._body
        if body is None:
            body = self._body = ComingBody(self._resume)
            self._room = room
        body.came_bytes += window_bytes
        connection.acknowledge(None, window_bytes)
        room.grant(body, self.receive_window)
        if self._is_held_back:
            self._withheld_bytes += window_bytes
        elif connection.is_window_due(self, window_bytes) and not room.admits(body):
            self._is_held_back = True
            self._withheld_bytes = window_bytes
            self._held_since = connection.loop.time()
        else:
            self._open(window_bytes)

    def leave_room(self) -> None:
        """Note that no more of the body is waited for."""
        if self._body is not None and self._room is not None:
            self._room.left(self._body)
            self._room = None
            self._body = None  # it refers to this stream
            if self._is_held_back:
                self._resume()  # the rest may pass

    def late_s(self, now: float, body_timeout_s: float) -> float:
        """Return for how long its client has had the time to send. Called twice a second. `now`: the loop's time."""
        waited_s = self._waited_s
        body, room = self._body, self._room
        if body is not None and room is not None:
            if not self._is_held_back:
                room.look_at(body)
            else:
                waited_s += now - self._held_since
                if waited_s > _WAIT_FACTOR * body_timeout_s:
                    room.free(body)
                elif room.is_stuck(self._held_since, now):
                    room.open(now)
        return now - self.began - waited_s

    def _resume(self) -> None:
        connection = self._connection
        self._is_held_back = False
        self._waited_s += connection.loop.time() - self._held_since
        size = int(self._withheld_bytes)
        self._withheld_bytes = 0
        self._open(size)
        connection.flush()

    def _open(self, window_bytes: int) -> None:
        connection = self._connection
        body, room = self._body, self._room
        if body is None or room is None:
            connection.open_window(self, window_bytes)
        else:
            connection.open_window(self, window_bytes, may_widen=room.may_widen(body, connection.wide_window_bytes))
            room.grant(body, self.receive_window)
