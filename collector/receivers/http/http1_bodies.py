"""Hold back bodies of telemetry over HTTP/1.1: if the budget has no room for all of them, their connections are not read.

Bytes that clients send meanwhile stay in the kernel, and in the buffer of TLS. A client that disconnects then is noticed when
its connection is read again.
"""

from collections.abc import Callable
from typing import Final

from collector.ingest.room import ComingBody, Room
from collector.receivers.http.telemetry_request import HttpRequest
from collector.receivers.request import LARGE_BYTES

# The most bytes that are read of a connection before it can be held back.
_READ_BYTES: Final = 256 << 10


class IncomingBody:
    """The body that is coming in over a connection."""

    def __init__(self) -> None:
        self._body: ComingBody | None = None  # only for a large body
        self._room: Room | None = None  # the room in which it waits

    @property
    def is_held_back(self) -> bool:
        return self._body is not None and self._body.is_held_back

    def received(self, request: HttpRequest, left_bytes: int, resume: Callable[[], None]) -> None:
        """Hold the body back if no more of it may come. `left_bytes` are still to come; below 1 if the length is not known.
        `resume` is called when the body is not held back any more."""
        body, room = self._body, self._room
        if body is None or room is None:
            if request.head.content_length <= LARGE_BYTES and request.body_bytes <= LARGE_BYTES:
                return
            room = self._room = request.room()
            if room is None:
                return
            body = self._body = ComingBody(resume, request.announced_bytes)
        body.received_bytes = request.body_bytes
        if body.is_held_back:
            return
        room.grant(body, 0)
        if room.admits(body):
            room.grant(body, min(_READ_BYTES, left_bytes) if left_bytes > 0 else _READ_BYTES)

    def close_body(self) -> None:
        """Note that no more of the body is needed."""
        body, room = self._body, self._room
        if body is not None and room is not None:
            self._body = None  # it refers to the connection
            self._room = None
            room.remove(body)

    def check(self, now: float, body_timeout_s: float) -> None:
        """Let others pass a body without progress, and end a wait that is too long. Called twice a second. `now` is the loop's
        time."""
        if self._body is not None and self._room is not None:
            self._room.check(self._body, now, body_timeout_s)
