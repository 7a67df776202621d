"""The HTTP server: one application on one host and several ports, with or without TLS, in HTTP/1.1 and HTTP/2 on each port.

It takes no signals, starts no loop and logs no requests. docs/adr has the reasons for our own HTTP/1.1 and HTTP/2.

Invariants:
1. Connections, heads and idle times are bounded (test_connections_over_the_limit_are_refused, test_too_large_a_head_is_431,
   test_idle_connections_are_closed).
2. At a stop the requests in flight are answered (test_stopping_finishes_what_is_in_flight).

Listening, draining and stopping are in receivers/transport/server.py.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from starlette.types import ASGIApp

from collector.config.receivers import Http
from collector.receivers.http.asgi import HttpApplication
from collector.receivers.http.http1 import builtin_http1
from collector.receivers.http.protocol_detection import FirstBytes
from collector.receivers.http.shared import HttpShared
from collector.receivers.transport.certificates import Certificates
from collector.receivers.transport.server import Server
from collector.receivers.transport.tls_listener import Handshake
from collector.runtime.descriptors import Descriptors
from collector.telemetry.metrics import Metrics

# Returns the function that makes the protocols of a server's HTTP/1.1 connections.
Http1 = Callable[[HttpShared], Callable[[], asyncio.Protocol]]


def _hypercorn_http1(shared: HttpShared) -> Callable[[], asyncio.Protocol]:
    # Most processes do not need this module.
    from collector.receivers.http.http1_hypercorn import hypercorn_http1  # noqa: PLC0415

    return hypercorn_http1(shared)


SERVERS: Final[Mapping[str, Http1]] = {"builtin": builtin_http1, "hypercorn": _hypercorn_http1}


def _every_path(_path: str) -> bool:
    return True


class HttpServer(Server):
    """The HTTP server. Call `start`, then `leave` if there is time for it, then `stop`. `start` sets `ports`."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        ports: Sequence[int],
        settings: Http,
        metrics: Metrics,
        *,
        places: Sequence[tuple[str, int]] = (),
        unix_sockets: Sequence[socket.socket] = (),
        certificates: Certificates | None = None,
        reuse_port: bool = False,
        descriptors: Descriptors | None = None,
        is_counted: bool = True,
        takes_page_bodies: bool = False,
        answer_timeout_s: float | None = None,
    ) -> None:
        """`host`, `ports`, `places` and `unix_sockets` are those of Server. With `certificates`, the ports accept only TLS.
        With `reuse_port`, other processes may listen on the same ports, and share the connections.

        `is_counted` is whether its connections are in the metrics. `takes_page_bodies` and `answer_timeout_s` are those of
        HttpShared.
        """
        self._is_counted: Final = is_counted
        self._shared: Final = HttpShared(
            app,
            settings,
            metrics,
            descriptors,
            receiver=app.receiver if isinstance(app, HttpApplication) else None,
            is_page=app.is_page if isinstance(app, HttpApplication) else _every_path,
            takes_page_bodies=takes_page_bodies or isinstance(app, HttpApplication),  # the forms of its web pages
            answer_timeout_s=answer_timeout_s,
        )
        self._http1: Final = SERVERS[settings.server](self._shared)
        super().__init__(
            self._shared,
            host,
            ports,
            backlog=settings.backlog,
            places=places,
            unix_sockets=unix_sockets,
            certificates=certificates,
            reuse_port=reuse_port,
        )

    async def start(self) -> None:
        """Listen and accept. If it raises OSError, it listens on nothing."""
        await super().start()
        if self._is_counted:
            self._shared.metrics.watch_connections(self.connection_count, self._shared.connections_max)

    def _protocol(self, handshake: Handshake | None = None) -> asyncio.Protocol:
        return FirstBytes(self._shared, self._http1, handshake)
