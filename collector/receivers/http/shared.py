"""The state that the connections of an HTTP server share: its application, its settings, its receiver, and the date."""

from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from starlette.types import ASGIApp

from collector.config.receivers import Http
from collector.receivers.http.telemetry_request import HttpReceiver
from collector.receivers.transport.connections import Connections
from collector.receivers.unfinished_bodies import ConnectionBodies
from collector.runtime.descriptors import Descriptors
from collector.telemetry.metrics import Metrics


class HttpShared(Connections):
    """The connections of an HTTP server, with its application and settings."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Http,
        metrics: Metrics,
        descriptors: Descriptors | None = None,
        *,
        receiver: HttpReceiver | None = None,
        is_page: Callable[[str], bool] = lambda _: True,
        takes_page_bodies: bool = False,
        answer_timeout_s: float | None = None,
    ) -> None:
        """`receiver` takes telemetry without ASGI. `is_page` returns whether a path is for `app`.

        If `takes_page_bodies`, `app` reads the body of a request, and has a deadline of its own for it. `answer_timeout_s` is
        how long a client may read nothing of its answer; None uses `settings.body_timeout_s`.
        """
        super().__init__(metrics, settings, descriptors, answer_timeout_s=answer_timeout_s)
        self.app: Final = app
        self.settings: Final = settings
        self.receiver: Final = receiver
        self.cors: Final = None if receiver is None else receiver.cors
        self.is_page: Final = is_page
        self.takes_page_bodies: Final[bool] = takes_page_bodies
        self.date: bytes = b""
        self.date_line: bytes = b""

    def bodies(self) -> ConnectionBodies | None:
        """Return the counter of a new connection's bodies; None if no telemetry is taken."""
        return None if self.receiver is None else ConnectionBodies(self.receiver.unfinished)

    def tick(self, now: float) -> None:
        """Update the date, and check the deadlines."""
        self.date = formatdate(usegmt=True).encode()
        self.date_line = b"date: " + self.date + b"\r\n"
        super().tick(now)
