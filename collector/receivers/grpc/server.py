"""The gRPC server: OTLP's three services, health checking and reflection, on one port, over TLS or not. It logs no calls.

Invariants:
1. Connections, calls and what they hold are bounded (test_connections_are_bounded_and_must_begin_in_time,
   test_too_many_requests_at_once_are_unavailable_with_a_delay, test_over_the_budget_is_unavailable_with_a_delay).
2. It stops within the time given, and answers what was on its way (test_what_crosses_the_end_is_answered).
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final, cast

from collector.config.receivers import Grpc
from collector.ingest.pipeline import Pipeline
from collector.ingest.produce import InFlight
from collector.receivers.grpc import health, reflection
from collector.receivers.grpc.connection import GrpcConnection, GrpcShared
from collector.receivers.grpc.health import Health
from collector.receivers.grpc.reflection import Reflection
from collector.receivers.grpc.services import Methods, Service
from collector.receivers.grpc.unary_call import Calls
from collector.receivers.responses import Explain
from collector.receivers.transport.certificates import Certificates
from collector.receivers.transport.pending import last_pending
from collector.receivers.transport.tls_listener import Handshake, TlsListener
from collector.runtime.descriptors import Descriptors
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access

_TICK_S: Final = 0.5
# What a cancelled call may still take to say so.
_CANCEL_S: Final = 1.0
_BACKLOG: Final = 2048


class GrpcServer:
    """Use: `start`, then `port`, then `leave` if there is time for it, then `stop`."""

    def __init__(
        self,
        pipeline: Pipeline,
        in_flight: InFlight,
        metrics: Metrics,
        settings: Grpc,
        *,
        host: str,
        services: Sequence[Service],
        access: Access,
        explain: Explain,
        certificates: Certificates | None = None,
        reuse_port: bool = False,
        descriptors: Descriptors | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """`certificates`: TLS alone. `reuse_port`: other processes may listen there too, and share the connections."""
        self._settings: Final = settings
        self._host: Final = host
        self._certificates: Final = certificates
        self._reuse_port: Final = reuse_port
        names = [service.name for service in services]
        self._health: Final = Health(names)
        others = self._health.handlers() | Reflection([*names, health.SERVICE, reflection.SERVICE]).handlers()
        calls = Calls(pipeline, in_flight, metrics, settings, access=access, explain=explain, clock=clock)
        self._shared: Final = GrpcShared(calls, Methods(services, metrics, others), settings)
        self._shared.descriptors = descriptors
        self._listener: asyncio.Server | TlsListener | None = None
        self._ticking: asyncio.Task[None] | None = None
        self.port = 0  # the one that is listened on

    async def start(self) -> None:
        """Listen and accept. Raises OSError where the port can't be had."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.port = await self._listen()
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{self._settings.port} for gRPC: {error.strerror or error}") from error
        self._ticking = asyncio.create_task(self._tick())
        self._shared.metrics.watch_grpc_connections(lambda: len(self._shared.open), self._settings.connections_max)

    def leave(self) -> None:
        """Report NOT_SERVING to health checks, ask clients with GOAWAY to go elsewhere, and go on accepting and answering."""
        self._health.end()
        self._shared.leave()

    @property
    def is_used(self) -> bool:
        """Return whether a client is connected, or was a moment ago."""
        return self._shared.is_used(asyncio.get_running_loop().time())

    async def stop(self, grace_s: float) -> None:
        """Report NOT_SERVING, accept no more calls, let those that have begun finish for `grace_s` seconds, then
        cancel them."""
        if self._listener is None:
            return
        self._health.end()
        # Closing the listener would reset them.
        accepted = [] if isinstance(self._listener, TlsListener) else last_pending(self._listener.sockets)
        self._listener.close()
        self._shared.end()
        loop = asyncio.get_running_loop()
        for connection in accepted:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, connection)
        try:
            async with asyncio.timeout(grace_s):
                await self._all_over()
        except TimeoutError:
            await self._cut_off()
        if self._ticking is not None:
            self._ticking.cancel()

    async def _listen(self) -> int:
        port, reuse_port = self._settings.port, self._reuse_port
        if self._certificates is not None:
            listener = TlsListener(self._shared, self._certificates, self._protocol)
            await listener.start(self._host, port, backlog=_BACKLOG, reuse_port=reuse_port)
            self._listener = listener
            return listener.port
        server = await asyncio.get_running_loop().create_server(
            self._protocol, self._host, port, backlog=_BACKLOG, reuse_port=reuse_port
        )
        self._listener = server
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def _protocol(self, handshake: Handshake | None = None) -> asyncio.Protocol:
        if handshake is not None:
            handshake.done()
        return cast("asyncio.Protocol", GrpcConnection(self._shared))

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            self._shared.tick(loop.time())

    async def _all_over(self) -> None:
        while self._shared.open or self._shared.tasks:  # noqa: ASYNC110  # sets tell nobody
            await asyncio.sleep(0.01)

    async def _cut_off(self) -> None:
        """End what had not enough time."""
        tasks = list(self._shared.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_S)
        await asyncio.sleep(0)
        for connection in list(self._shared.open):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_S):
                await self._all_over()
