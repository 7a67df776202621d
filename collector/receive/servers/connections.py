"""What the connections of one server have in common, whatever they speak.

The law: every open connection is known here, so that it is counted, watched, and ended with the server.
"""

import asyncio
from email.utils import formatdate
from typing import Final, Protocol, cast

from starlette.types import ASGIApp
from uvicorn.server import ServerState

from collector.config import Http
from collector.metrics import Metrics


class Connection(Protocol):
    """One connection, as its server sees it."""

    def close_if_late(self, now: float) -> None:
        """Close it if its sender, or its reader, should have done something by now. `now`: the loop's time."""

    def shutdown(self) -> None:
        """Take no more requests, and close once those at hand are answered."""

    def abort(self) -> None:
        """Close at once."""


class Shared(ServerState):
    """A server's application, settings, connections and tasks. uvicorn's class, since its protocol takes that."""

    def __init__(self, app: ASGIApp, settings: Http, metrics: Metrics) -> None:
        super().__init__()
        self.app: Final = app
        self.settings: Final = settings
        self.metrics: Final = metrics
        # A set that uvicorn has typed for its own protocols.
        self.open: Final = cast("set[Connection]", self.connections)

    def tick(self, now: float) -> None:
        """Write the date anew, and close what has been too slow. `now`: the loop's time."""
        self.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        for connection in list(self.open):
            connection.close_if_late(now)


class Stall:
    """Tells when a client has read nothing of what waits for it for too long."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s: Final = timeout_s
        self._waiting_bytes = 0
        self._since = 0.0

    def is_over(self, transport: asyncio.WriteTransport, now: float) -> bool:
        """Asked now and then. `now`: the loop's time."""
        waiting_bytes = transport.get_write_buffer_size()
        if not waiting_bytes or waiting_bytes != self._waiting_bytes:
            self._waiting_bytes = waiting_bytes
            self._since = now
            return False
        return now - self._since > self._timeout_s
