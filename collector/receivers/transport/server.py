"""The base of the HTTP and the gRPC server: it listens on ports and Unix sockets, watches deadlines, drains and stops.

Invariants:
1. A server stops within the time given, and then cancels what is left (test_stopping_ends_in_time).
2. Clients that connected or sent before the end are answered (test_a_request_that_crosses_the_end_is_answered,
   test_what_crosses_the_end_is_answered).
3. A server that cannot listen on one of its ports listens on none (test_a_port_in_use_fails_loudly).
"""

import asyncio
import contextlib
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from collector.receivers.transport.certificates import Certificates
from collector.receivers.transport.connections import Connections
from collector.receivers.transport.listeners import bind_tcp
from collector.receivers.transport.pending import last_pending
from collector.receivers.transport.tls_listener import Handshake, TlsListener

# How often deadlines are checked.
_TICK_S: Final = 0.5
# How long a cancelled task may take to answer its client.
_CANCEL_S: Final = 1.0
_DRAIN_INTERVAL_S: Final = 0.01
# The file of a Unix socket belongs to the process that bound it. Other processes may listen there, too.
_KEEPS_FILE: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Server(ABC):
    """The base of a server. Call `start`, then `leave` if there is time for it, then `stop`. `start` sets `ports`."""

    def __init__(
        self,
        connections: Connections,
        host: str,
        ports: Sequence[int],
        *,
        backlog: int,
        places: Sequence[tuple[str, int]] = (),
        unix_sockets: Sequence[socket.socket] = (),
        certificates: Certificates | None = None,
        reuse_port: bool = False,
    ) -> None:
        """`host` has addresses, with commas between; the server listens on each port at all of them. Port 0 is any free port.
        `places` are further hosts and ports. `unix_sockets` are bound, and without TLS. With `certificates`, every port is for
        TLS. With `reuse_port`, other processes may listen on the same ports, and share the connections."""
        self._connections: Final = connections
        self._host: Final = host
        self._ports_requested: Final = tuple(ports)
        self._places: Final = tuple(places)
        self._unix_sockets: Final = tuple(unix_sockets)
        self._backlog: Final = backlog
        self._certificates: Final = certificates
        self._reuse_port: Final = reuse_port
        self._listeners: Final[list[asyncio.Server | TlsListener]] = []
        self._ticking: asyncio.Task[None] | None = None
        self.ports: tuple[int, ...] = ()
        """The ports of the server, in the order of `ports`."""

    @abstractmethod
    def _protocol(self, handshake: Handshake | None = None) -> asyncio.Protocol:
        """Return the protocol of a new connection. `handshake` is the TLS handshake before it."""

    async def start(self) -> None:
        """Listen and accept. If it raises OSError, it listens on nothing."""
        self._connections.tick(asyncio.get_running_loop().time())
        try:
            self.ports = tuple([await self._listen(self._host, port) for port in self._ports_requested])
            for host, port in self._places:
                await self._listen(host, port)
            for unix_socket in self._unix_sockets:
                await self._listen_unix(unix_socket)
        except BaseException:
            self._close_listeners()
            raise
        self._ticking = asyncio.create_task(self._tick())

    def leave(self) -> None:
        """Ask clients to connect elsewhere, and continue to accept and to answer."""
        self._connections.leave()

    @property
    def is_used(self) -> bool:
        """Return whether a client is connected, or was within the last 10 s."""
        return self._connections.is_used(asyncio.get_running_loop().time())

    def connection_count(self) -> int:
        """Return how many connections are open, on all ports together."""
        return len(self._connections.open)

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let requests finish for `grace_s` seconds, then cancel the rest."""
        accepted = self._pending()
        self._close_listeners()
        self._connections.end()
        loop = asyncio.get_running_loop()
        for connection in accepted:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, connection)
        try:
            async with asyncio.timeout(grace_s):
                await self._drain()
        except TimeoutError:
            await self._cut_off()
        if self._ticking is not None:
            self._ticking.cancel()

    async def _listen(self, host: str, port: int) -> int:
        """Listen on a port, and return its number. Raises OSError."""
        loop = asyncio.get_running_loop()
        hosts = host.split(",")
        sockets = await loop.run_in_executor(None, partial(bind_tcp, hosts, port, reuse_port=self._reuse_port))
        bound: int = sockets[0].getsockname()[1]
        with contextlib.ExitStack() as stack:
            for listening in sockets:
                stack.enter_context(listening)
            for listening in sockets:
                if self._certificates is not None:
                    listener = TlsListener(self._connections, self._certificates, self._protocol)
                    listener.start(listening, backlog=self._backlog)
                    self._listeners.append(listener)
                else:
                    self._listeners.append(await loop.create_server(self._protocol, sock=listening, backlog=self._backlog))
            stack.pop_all()
        return bound

    async def _listen_unix(self, unix_socket: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._listeners.append(
            await loop.create_unix_server(self._protocol, sock=unix_socket, backlog=self._backlog, **_KEEPS_FILE)
        )

    def _pending(self) -> list[socket.socket]:
        """Return the connections that wait at the event loop's listeners, which closing would reset. A TLS listener accepts its
        own."""
        servers = [listener for listener in self._listeners if not isinstance(listener, TlsListener)]
        return last_pending(listening for server in servers for listening in server.sockets)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            self._connections.tick(loop.time())

    async def _drain(self) -> None:
        """Wait until every request is answered and every connection is closed."""
        while self._connections.open or self._connections.tasks:  # noqa: ASYNC110  # a set has no event
            await asyncio.sleep(_DRAIN_INTERVAL_S)

    async def _cut_off(self) -> None:
        """Cancel the tasks and close the connections that did not finish in time."""
        tasks = list(self._connections.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_S)
        await asyncio.sleep(0)
        for connection in list(self._connections.open):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_S):
                await self._drain()
