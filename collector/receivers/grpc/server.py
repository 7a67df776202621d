"""The gRPC server: OTLP's three services, health checking and reflection, on one port, over TLS or not. It logs no calls.

Invariants:
1. Connections, calls and their bytes are bounded (test_connections_are_bounded_and_must_begin_in_time,
   test_too_many_requests_at_once_are_unavailable_with_a_delay, test_over_the_budget_is_unavailable_with_a_delay).
2. A health check reports NOT_SERVING before the server takes no more calls (test_what_crosses_the_end_is_answered).

Listening, draining and stopping are in receivers/transport/server.py.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final, cast

from collector.config.receivers import Grpc
from collector.ingest.pipeline import Pipeline
from collector.ingest.produce import InFlight
from collector.receivers.grpc import health, reflection
from collector.receivers.grpc.connection import GrpcConnection, GrpcShared
from collector.receivers.grpc.health import GrpcHealth
from collector.receivers.grpc.reflection import Reflection
from collector.receivers.grpc.services import Methods, Service
from collector.receivers.grpc.unary_call import GrpcReceiver
from collector.receivers.refusals import Explain
from collector.receivers.transport.certificates import Certificates
from collector.receivers.transport.server import Server
from collector.receivers.transport.tls_listener import Handshake
from collector.runtime.descriptors import Descriptors
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access

_BACKLOG: Final = 2048


class GrpcServer(Server):
    """The gRPC server. Call `start`, then `leave` if there is time for it, then `stop`. `port` is known after `start`."""

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
        places: Sequence[tuple[str, int]] = (),
        unix_sockets: Sequence[socket.socket] = (),
        certificates: Certificates | None = None,
        reuse_port: bool = False,
        descriptors: Descriptors | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """`host`, `places` and `unix_sockets` are those of Server. With `certificates`, the ports accept only TLS. With
        `reuse_port`, other processes may listen on the same port, and share the connections."""
        names = [service.name for service in services]
        self._health: Final = GrpcHealth(names)
        others = self._health.handlers() | Reflection([*names, health.SERVICE, reflection.SERVICE]).handlers()
        self.receiver: Final = GrpcReceiver(pipeline, in_flight, metrics, settings, access=access, explain=explain, clock=clock)
        self._shared: Final = GrpcShared(self.receiver, Methods(services, metrics, others), settings, descriptors)
        super().__init__(
            self._shared,
            host,
            [settings.port],
            backlog=_BACKLOG,
            places=places,
            unix_sockets=unix_sockets,
            certificates=certificates,
            reuse_port=reuse_port,
        )

    async def start(self) -> None:
        """Listen and accept. If it raises OSError, it listens on nothing."""
        try:
            await super().start()
        except OSError as error:
            host, port = self._host, self._shared.settings.port
            host = f"[{host}]" if ":" in host else host
            raise OSError(f"cannot listen on {host}:{port} for gRPC: {error.strerror or error}") from error
        self._shared.metrics.watch_grpc_connections(self.connection_count, self._shared.connections_max)

    def set_http_places(self, places: str) -> None:
        """Set the ports for HTTP, for the answer to HTTP clients."""
        self._shared.http_places = places

    @property
    def port(self) -> int:
        """Return the port of the server."""
        return self.ports[0]

    def leave(self) -> None:
        """Report NOT_SERVING to health checks, send GOAWAY to clients, and continue to accept and to answer."""
        self._health.end()
        super().leave()

    async def stop(self, grace_s: float) -> None:
        """Report NOT_SERVING, accept no more calls, let those that have begun finish for `grace_s` seconds, then
        cancel them."""
        self._health.end()
        await super().stop(grace_s)

    def _protocol(self, handshake: Handshake | None = None) -> asyncio.Protocol:
        if handshake is not None:
            handshake.done()
        return cast("asyncio.Protocol", GrpcConnection(self._shared))
