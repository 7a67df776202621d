"""HTTP/1.1 with hypercorn's connection on h11, in place of our own.

Only the connection is hypercorn's. Its `serve` is not used, so it adds no signal handlers, no log and no limits of its own.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from copy import copy
from math import inf
from typing import Final, cast

import h11
import hypercorn
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.events import Event, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from collector.receivers.http.shared import HttpShared
from collector.receivers.transport.connections import Stall
from collector.receivers.transport.eviction import BUSY, FRESH_S


def hypercorn_http1(shared: HttpShared) -> Callable[[], asyncio.Protocol]:
    """Return the function that makes a connection's protocol."""
    settings = shared.settings
    config = hypercorn.Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = settings.keep_alive_s
    config.keep_alive_max_requests = sys.maxsize
    config.h11_max_incomplete_size = settings.header_bytes_max
    wrapper = ASGIWrapper(cast("ASGIFramework", shared.app))
    return lambda: _Protocol(shared, wrapper, config)


class _Protocol(asyncio.StreamReaderProtocol):
    """The streams that hypercorn reads and writes, and the task in which it does so."""

    def __init__(self, shared: HttpShared, wrapper: ASGIWrapper, config: hypercorn.Config) -> None:
        super().__init__(asyncio.StreamReader(), self._serve)
        self._shared: Final = shared
        self._wrapper: Final = wrapper
        self._config: Final = copy(config)  # each connection has its own last request
        self._context: Final = WorkerContext(None)
        self._stall: Final = Stall(shared.answer_timeout_s)
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._is_lost = False  # the task of the connection may go on for a while
        self._ends_at = inf  # the loop's time at which the connection is old
        self._connection: _Connection | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a listener's are of that type
        self._transport = transport
        self._ends_at = self._shared.ends_at(asyncio.get_running_loop().time())
        self._shared.open.add(self)
        if self._shared.is_leaving:
            self.leave()
        if self._shared.is_ending:
            # The connection was accepted just as the server ended: its first request may be on its way.
            asyncio.get_running_loop().call_later(FRESH_S, self.shutdown)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True  # a lost transport can't report its waiting bytes
        super().connection_lost(exc)

    def close_if_late(self, now: float) -> None:
        if not self._is_lost and self._stall.is_over(self._transport, now):
            self._transport.abort()
        elif now > self._ends_at:
            self.leave()

    def idle_since(self) -> float:
        return BUSY if self._connection is None else self._connection.idle_since

    def evict(self) -> None:
        self.abort()

    def leave(self) -> None:
        """Let each further answer announce the end of the connection."""
        self._config.keep_alive_max_requests = 0

    def shutdown(self) -> None:
        self._ending = asyncio.create_task(self._context.terminated.set())

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._task = asyncio.current_task()
        try:
            loop = asyncio.get_running_loop()
            self._connection = _Connection(self._wrapper, loop, self._config, self._context, LifespanState({}), reader, writer)
            self._connection.idle_since = loop.time()
            await self._connection
        except asyncio.CancelledError:
            pass  # by `abort`, and the end of this task: StreamReaderProtocol would log it as an error
        finally:
            self._shared.open.discard(self)


class _Http1(H11Protocol):
    """HTTP/1.1 alone, even if the client asks for an upgrade to HTTP/2, which would be hypercorn's."""

    async def _check_protocol(self, event: h11.Request) -> None:
        pass


class _Connection(TCPServer):
    """hypercorn's connection. It closes after its sender's end, where hypercorn's would stay open for the whole idle time."""

    _ended = False
    idle_since = BUSY
    """The loop's time since when it has no request."""

    async def run(self) -> None:
        """Run the connection as hypercorn does, with our protocol in place of hypercorn's, which chooses one."""
        connection = self.writer.transport
        family = connection.get_extra_info("socket").family
        client, server = (parse_socket_addr(family, connection.get_extra_info(name)) for name in ("peername", "sockname"))
        is_tls = connection.get_extra_info("ssl_object") is not None
        state = ConnectionState(self.state)
        try:
            async with TaskGroup(self.loop) as group:
                self._task_group = group
                self.protocol = _Http1(  # type: ignore[assignment]  # of the wrapper, only what _Http1 has too is used
                    self.app, self.config, self.context, group, state, is_tls, client, server, self.protocol_send
                )
                await self.protocol.initiate()
                await self.idle_task.restart(group, self._idle_timeout)
                await self._read_data()
        except OSError:
            pass
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self.idle_since = self.loop.time() if event.idle else BUSY
        if self._ended and isinstance(event, Updated) and event.idle:
            await self._close()
        else:
            await super().protocol_send(event)

    async def _read_data(self) -> None:
        await super()._read_data()
        self._ended = True
        await self.idle_task.stop()
