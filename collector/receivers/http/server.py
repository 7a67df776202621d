"""The HTTP server: one application on one host and several ports, over TLS or not, in HTTP/1.1 and HTTP/2 on each of them.

It takes no signals, starts no loop and logs no requests. docs/adr says why HTTP/1.1 and HTTP/2 are our own.

Invariants:
1. Connections, heads and idle times are bounded (test_connections_over_the_limit_are_refused, test_too_large_a_head_is_431,
   test_idle_connections_are_closed).
2. It stops within the time given, and answers what was on its way (test_stopping_ends_in_time,
   test_stopping_finishes_what_is_in_flight, test_a_request_that_crosses_the_end_is_answered).
"""

import asyncio
import contextlib
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
from collector.receivers.transport.pending import last_pending
from collector.receivers.transport.tls_listener import TlsListener
from collector.runtime.descriptors import Descriptors
from collector.telemetry.metrics import Metrics

# How often dates are written anew and slow connections looked for.
_TICK_S: Final = 0.5
# What a cancelled request may still take to say so.
_CANCEL_S: Final = 1.0

# What makes the protocols of a server's HTTP/1.1 connections.
Http1 = Callable[[HttpShared], Callable[[], asyncio.Protocol]]


def _hypercorn_http1(shared: HttpShared) -> Callable[[], asyncio.Protocol]:
    # Most processes need nothing of it.
    from collector.receivers.http.http1_hypercorn import hypercorn_http1  # noqa: PLC0415

    return hypercorn_http1(shared)


SERVERS: Final[Mapping[str, Http1]] = {"builtin": builtin_http1, "hypercorn": _hypercorn_http1}


class HttpServer:
    """Use: `start`, then `ports`, then `leave` if there is time for it, then `stop`."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        ports: Sequence[int],
        settings: Http,
        metrics: Metrics,
        *,
        certificates: Certificates | None = None,
        reuse_port: bool = False,
        descriptors: Descriptors | None = None,
    ) -> None:
        """Port 0 is any free one. `certificates`: TLS alone. `reuse_port`: other processes may listen there too, and share."""
        self._host: Final = host
        self._ports_wanted: Final = tuple(ports)
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._certificates: Final = certificates
        self._reuse_port: Final = reuse_port
        self._shared: Final = (
            HttpShared(app, settings, metrics, receiver=app.receiver, is_page=app.is_page)
            if isinstance(app, HttpApplication)
            else HttpShared(app, settings, metrics)
        )
        self._shared.descriptors = descriptors
        self._http1: Final = SERVERS[settings.server](self._shared)
        self._listeners: Final[list[asyncio.Server | TlsListener]] = []
        self._ticking: asyncio.Task[None] | None = None
        self.ports: tuple[int, ...] = ()  # those that are listened on, in the order they were given

    async def start(self) -> None:
        """Listen and accept. Raises OSError, and then listens on none of the ports."""
        self._shared.tick(asyncio.get_running_loop().time())
        try:
            self.ports = tuple([await self._listen(port) for port in self._ports_wanted])
        except BaseException:
            self._close_listeners()
            raise
        self._ticking = asyncio.create_task(self._tick())
        self._metrics.watch_connections(self.connection_count, self._settings.connections_max)

    def leave(self) -> None:
        """Go on accepting and answering, and tell clients to go elsewhere: in HTTP/1.1 with each answer."""
        self._shared.leave()

    @property
    def is_used(self) -> bool:
        """Return whether a client is connected, or was a moment ago."""
        return self._shared.is_used(asyncio.get_running_loop().time())

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let requests finish for `grace_s` seconds, then cancel those that have not."""
        accepted = self._pending()
        self._close_listeners()
        loop = asyncio.get_running_loop()
        for connection in accepted:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(lambda: FirstBytes(self._shared, self._http1), connection)
        try:
            async with asyncio.timeout(grace_s):
                await self._drain()
        except TimeoutError:
            await self._cut_off()
        if self._ticking is not None:
            self._ticking.cancel()

    def connection_count(self) -> int:
        """Return how many connections are open, on all ports together."""
        return len(self._shared.open)

    async def _listen(self, port: int) -> int:
        """The port that is listened on."""
        host, backlog, reuse_port = self._host, self._settings.backlog, self._reuse_port
        if self._certificates is not None:
            listener = TlsListener(
                self._shared, self._certificates, lambda handshake: FirstBytes(self._shared, self._http1, handshake)
            )
            await listener.start(host, port, backlog=backlog, reuse_port=reuse_port)
            self._listeners.append(listener)
            return listener.port
        server = await asyncio.get_running_loop().create_server(
            lambda: FirstBytes(self._shared, self._http1), host, port, backlog=backlog, reuse_port=reuse_port
        )
        self._listeners.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def _pending(self) -> list[socket.socket]:
        """What has connected so far without TLS, whose listeners do this themselves."""
        servers = [listener for listener in self._listeners if not isinstance(listener, TlsListener)]
        return last_pending(listening for server in servers for listening in server.sockets)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            self._shared.tick(loop.time())

    async def _drain(self) -> None:
        """Return when every request is answered and every connection closed; take no more requests."""
        self._shared.end()
        while self._shared.open or self._shared.tasks:  # noqa: ASYNC110  # sets tell nobody
            await asyncio.sleep(0.01)

    async def _cut_off(self) -> None:
        """End what `_drain` had no time for."""
        tasks = list(self._shared.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_S)
        for connection in list(self._shared.open):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_S):
                while self._shared.open:  # noqa: ASYNC110  # as above
                    await asyncio.sleep(0.01)
