"""The HTTP servers: uvicorn and hypercorn, each serving one application on several ports of the event loop that runs already.

The law: a server takes no signals, starts no loop and logs no requests; connections, heads and idle times are bounded; and it
stops within the time given, finishing what it has begun. docs/adr says which is the default, and why.
"""

import asyncio
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any, Final, cast

import httptools
import hypercorn
import uvicorn
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.events import Event, Updated
from hypercorn.typing import ASGIFramework, LifespanState
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from collector.config import Http
from collector.metrics import Metrics

# How often dates are written anew and slow connections looked for.
_TICK_S: Final = 0.5
# What a cancelled request may still take to say so.
_CANCEL_S: Final = 1.0
# A header's colon, space and line end.
_HEADER_BYTES_OVERHEAD: Final = 4


def _last_words(status: str) -> bytes:
    """A whole response without a body, for what never becomes a request."""
    return f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()


_BAD_REQUEST: Final = _last_words("400 Bad Request")
_HEAD_TOO_LARGE: Final = _last_words("431 Request Header Fields Too Large")
_TOO_MANY: Final = _last_words("503 Service Unavailable\r\nretry-after: 1")


class HttpServer(ABC):
    """One application on one host and several ports. Use: `start`, then `ports`, then `stop`."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        ports: Sequence[int],
        settings: Http,
        metrics: Metrics,
        *,
        reuse_port: bool = False,
    ) -> None:
        """Port 0 is any free one. `reuse_port`: other processes may listen there too, and share what comes."""
        self._app: Final = app
        self._host: Final = host
        self._ports_wanted: Final = tuple(ports)
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._reuse_port: Final = reuse_port
        self._listeners: Final[list[asyncio.Server]] = []
        self.ports: tuple[int, ...] = ()  # those that are listened on, in the order they were given

    async def start(self) -> None:
        """Listen and accept. Raises OSError, and then listens on none of the ports."""
        try:
            for port in self._ports_wanted:
                self._listeners.append(await self._listen(port))
            self.ports = tuple(listener.sockets[0].getsockname()[1] for listener in self._listeners)
        except BaseException:
            self._close_listeners()
            raise
        self._metrics.watch_connections(self.connection_count)

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let requests finish for `grace_s` seconds, then cancel those that have not."""
        self._close_listeners()
        try:
            async with asyncio.timeout(grace_s):
                await self._drain()
        except TimeoutError:
            await self._cut_off()

    @abstractmethod
    def connection_count(self) -> int:
        """How many connections are open, on all ports together."""

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    @abstractmethod
    async def _listen(self, port: int) -> asyncio.Server: ...

    @abstractmethod
    async def _drain(self) -> None:
        """Return when every request is answered and every connection closed; take no more requests."""

    @abstractmethod
    async def _cut_off(self) -> None:
        """End what `_drain` had no time for."""


class _State(ServerState):
    """What all of a server's connections share."""

    def __init__(self, settings: Http, metrics: Metrics) -> None:
        super().__init__()
        self.settings: Final = settings
        self.metrics: Final = metrics

    def tick(self, now: float) -> None:
        """Write the date anew, and close what has been too slow. `now`: the loop's time."""
        self.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        for connection in list(self.connections):
            cast("_Protocol", connection).close_if_late(now)


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, and what it leaves out: limits on heads and connections, a deadline for slow senders, requests that
    ask for an upgrade and have a body (the JDK's client: every one), half-closed connections; and no log of what they send.
    """

    def __init__(
        self, config: uvicorn.Config, state: _State, app_state: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(config, state, app_state, loop)
        self._shared: Final = state
        settings = state.settings
        self._header_bytes_max: Final = settings.header_bytes_max
        # A head may take as long as a body. A request has both, and as long again for its sender to hear of its refusal.
        self._head_s: Final = settings.body_timeout_s
        self._request_s: Final = 3 * settings.body_timeout_s
        self._head_bytes = 0
        self._unclaimed_bytes = 0
        self._in_head = True
        self._began: float | None = None  # the loop's time when the message that is now coming in began
        self._asks_upgrade = False
        self._broken = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        if len(self.connections) >= self._shared.settings.connections_max:
            self._shared.metrics.connection_refused()
            self._broken = True
            transport.write(_TOO_MANY)
            transport.close()
            return
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        if self in self.connections:
            super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's protocols may answer, uvicorn's does not
        """A sender that has sent its request and closed its half still gets the answer."""
        waits = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
        if waits:
            self.cycle.keep_alive = False
        return waits

    def close_if_late(self, now: float) -> None:
        """Close the connection if the message that is coming in should have been here by now."""
        if self._began is not None and now - self._began > (self._head_s if self._in_head else self._request_s):
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        self._unset_keepalive_if_required()
        if self._began is None:
            self._began = self.loop.time()
        # Back to nothing with each head, piece of a body and end: what the parser has beside those, it keeps in memory.
        self._unclaimed_bytes += len(data)
        rest = memoryview(data)
        try:
            while (end := self._feed(rest)) is not None:
                # The parser would skip the body. The same head without the wish to upgrade is an ordinary request.
                if self.parser.get_method() == b"CONNECT":
                    raise httptools.HttpParserError("CONNECT")
                self.parser.feed_data(self._head_without_upgrade())
                rest = rest[end:]
        except httptools.HttpParserError:
            self._fail(_HEAD_TOO_LARGE if self._head_bytes > self._header_bytes_max else _BAD_REQUEST)
        else:
            if self._unclaimed_bytes > self._header_bytes_max:
                self._fail(_HEAD_TOO_LARGE)

    def _feed(self, data: memoryview) -> int | None:
        """Where a head ends that asks for an upgrade; None where there is none, or none any more."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            end: int = upgrade.args[0]
            return end
        return None

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._in_head = True
        self._asks_upgrade = False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._asks_upgrade = True
            return
        self._in_head = False
        self._unclaimed_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unclaimed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._asks_upgrade:
            return
        self._unclaimed_bytes = 0
        self._in_head = True
        self._began = None
        super().on_message_complete()

    def _count_head(self, size_bytes: int) -> None:
        """Also of trailers, which are headers that come late."""
        self._head_bytes += size_bytes + _HEADER_BYTES_OVERHEAD
        if self._head_bytes > self._header_bytes_max:
            raise ValueError("head too large")

    def _head_without_upgrade(self) -> bytes:
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self.headers if name not in (b"upgrade", b"http2-settings")]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _fail(self, response: bytes) -> None:
        """What came can't be read on from here: say so if nothing else is to be said, and close."""
        self._broken = True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self.transport.write(response)
            self.transport.close()
        elif cycle.more_body:
            # It is the request at hand that is broken; or one behind another, and then its sender is not worth the trouble.
            if not cycle.response_started and not self.pipeline:
                self.transport.write(response)
            self.transport.close()
        else:
            cycle.keep_alive = False


class UvicornServer(HttpServer):
    """uvicorn's HTTP/1.1 on httptools, without uvicorn's own server, which wants signals and a loop for itself."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        ports: Sequence[int],
        settings: Http,
        metrics: Metrics,
        *,
        reuse_port: bool = False,
    ) -> None:
        super().__init__(app, host, ports, settings, metrics, reuse_port=reuse_port)
        self._config: Final = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=cast("int", settings.keep_alive_s),  # only ever handed to call_later
        )
        self._config.load()
        self._state: Final = _State(settings, metrics)
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._state.tick(asyncio.get_running_loop().time())
        await super().start()
        self._ticking = asyncio.create_task(self._tick())

    def connection_count(self) -> int:
        return len(self._state.connections)

    async def _listen(self, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: _Protocol(self._config, self._state, {}, loop),
            self._host,
            port,
            backlog=self._settings.backlog,
            reuse_port=self._reuse_port,
        )

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            self._state.tick(loop.time())

    async def _drain(self) -> None:
        for connection in list(self._state.connections):
            connection.shutdown()
        while self._state.connections or self._state.tasks:  # noqa: ASYNC110  # uvicorn's sets tell nobody
            await asyncio.sleep(0.01)
        self._stop_ticking()

    async def _cut_off(self) -> None:
        self._stop_ticking()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_S)
        for connection in list(self._state.connections):
            connection.transport.abort()

    def _stop_ticking(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()


class _Connection(TCPServer):
    """hypercorn's connection, which otherwise outlives its sender by the whole time that it may be idle."""

    _ended = False

    async def protocol_send(self, event: Event) -> None:
        if self._ended and isinstance(event, Updated) and event.idle:
            await self._close()
        else:
            await super().protocol_send(event)

    async def _read_data(self) -> None:
        await super()._read_data()
        self._ended = True
        await self.idle_task.stop()


class HypercornServer(HttpServer):
    """hypercorn: HTTP/1.1, and HTTP/2 by prior knowledge. Without its own `serve`, which has no limit on connections."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        ports: Sequence[int],
        settings: Http,
        metrics: Metrics,
        *,
        reuse_port: bool = False,
    ) -> None:
        super().__init__(app, host, ports, settings, metrics, reuse_port=reuse_port)
        config = hypercorn.Config()
        config.accesslog = None
        config.errorlog = logging.getLogger("hypercorn.error")
        config.include_server_header = False
        config.keep_alive_timeout = settings.keep_alive_s
        config.keep_alive_max_requests = sys.maxsize
        config.h11_max_incomplete_size = settings.header_bytes_max
        config.h2_max_header_list_size = settings.header_bytes_max
        self._config: Final = config
        self._wrapper: Final = ASGIWrapper(cast("ASGIFramework", app))
        self._context: Final = WorkerContext(None)
        self._connections: Final[set[asyncio.Task[None]]] = set()

    def connection_count(self) -> int:
        return len(self._connections)

    async def _listen(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(
            self._serve, self._host, port, backlog=self._settings.backlog, reuse_port=self._reuse_port
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._settings.connections_max:
            self._metrics.connection_refused()
            writer.write(_TOO_MANY)
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None  # start_server runs this in one
        self._connections.add(task)
        try:
            loop = asyncio.get_running_loop()
            await _Connection(self._wrapper, loop, self._config, self._context, LifespanState({}), reader, writer)
        except asyncio.CancelledError:
            pass  # by `_cut_off`, and the end of this task: start_server would log it as an error
        finally:
            self._connections.discard(task)

    async def _drain(self) -> None:
        await self._context.terminated.set()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _cut_off(self) -> None:
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=_CANCEL_S)


SERVERS: Final[dict[str, type[HttpServer]]] = {"uvicorn": UvicornServer, "hypercorn": HypercornServer}


def http_server(
    app: ASGIApp, host: str, ports: Sequence[int], settings: Http, metrics: Metrics, *, reuse_port: bool = False
) -> HttpServer:
    """The server that the settings name, not started yet. Port 0 is any free one."""
    return SERVERS[settings.server](app, host, ports, settings, metrics, reuse_port=reuse_port)
