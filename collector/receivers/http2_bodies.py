"""Hold back bodies of telemetry over HTTP/2 by their windows, if the budget has no room for all of them at once.

The connection's window is always given back. Otherwise one stream would delay the others.
"""

from typing import Final

from mypy_extensions import i64

from collector.ingest.room import ComingBody, Room
from collector.receivers.request import TelemetryRequest
from collector.receivers.transport.http2_connection import ServerConnection, ServerStream


class BodyStream(ServerStream):
    """A stream whose body may be held back."""

    def __init__(self, connection: ServerConnection, stream_id: int, began: float) -> None:
        """`began` is the loop's time."""
        super().__init__(stream_id, began)
        self._connection: Final = connection
        self._body: ComingBody | None = None  # only for a large body
        self._room: Room | None = None  # the room in which it waits
        self._withheld_bytes: i64 = 0  # of its window

    def return_window(self, window_bytes: int, request: TelemetryRequest) -> None:
        """Give the windows of a piece back, or hold the stream's window back."""
        room = request.room()
        connection = self._connection
        body = self._body
        if room is None or not (body is not None or connection.is_window_due(self, window_bytes)):
            connection.acknowledge(self, window_bytes)
            return
        if body is None:
            body = self._body = ComingBody(self._resume, request.announced_bytes)
            self._room = room
        body.received_bytes += window_bytes
        connection.acknowledge(None, window_bytes)
        room.grant(body, self.receive_window)
        if body.is_held_back:
            self._withheld_bytes += window_bytes
        elif connection.is_window_due(self, window_bytes) and not room.admits(body):
            self._withheld_bytes = window_bytes
        else:
            self._open(window_bytes)

    def close_body(self) -> None:
        """Note that no more of the body is needed."""
        body, room = self._body, self._room
        if body is not None and room is not None:
            self._body = None  # it refers to this stream
            self._room = None
            room.remove(body)

    def late_s(self, now: float, body_timeout_s: float) -> float:
        """Return for how long the client was able to send. Called twice a second. `now` is the loop's time."""
        late_s = now - self.began
        body, room = self._body, self._room
        return late_s if body is None or room is None else late_s - room.check(body, now, body_timeout_s)

    def _resume(self) -> None:
        size = int(self._withheld_bytes)
        self._withheld_bytes = 0
        self._open(size)
        self._connection.flush()

    def _open(self, window_bytes: int) -> None:
        connection = self._connection
        body, room = self._body, self._room
        if body is None or room is None:
            connection.open_window(self, window_bytes)
        else:
            connection.open_window(self, window_bytes, may_widen=room.may_widen(body, connection.wide_window_bytes))
            room.grant(body, self.receive_window)
