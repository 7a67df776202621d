"""A transport that keeps what is written, and connections on it without a socket."""

from typing import Any

from support.fakes.receiving import EXPLAIN, Receivers

from collector.config.receivers import Grpc
from collector.receivers.grpc.connection import GrpcConnection, GrpcShared
from collector.receivers.grpc.services import Methods
from collector.receivers.grpc.unary_call import GrpcReceiver
from collector.receivers.http.shared import HttpShared
from collector.receivers.routes import GRPC_SERVICES


class Wire:
    """As asyncio's."""

    def __init__(self, *, is_tls: bool = False) -> None:
        self.written = bytearray()
        self.is_closed = False
        self.is_read = True
        self.is_tls = is_tls

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" or (name == "ssl_object" and self.is_tls) else None

    def fileno(self) -> int:
        """As its own socket. No limit of descriptors is near this one."""
        return 0

    def get_write_buffer_size(self) -> int:
        return 0

    abort = close

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


def http_shared(made: Receivers) -> HttpShared:
    """What the HTTP connections of those receivers have in common."""
    return HttpShared(made.app, made.http_settings, made.metrics, receiver=made.app.receiver, is_page=made.app.is_page)


def grpc_shared(made: Receivers, **settings: Any) -> GrpcShared:
    """And the gRPC ones."""
    grpc = Grpc.model_validate({"port": 0} | settings)
    receiver = GrpcReceiver(
        made.pipeline, made.in_flight, made.metrics, grpc, access=made.access, explain=EXPLAIN, clock=lambda: 0.0
    )
    return GrpcShared(receiver, Methods(GRPC_SERVICES, made.metrics, {}), grpc)


def grpc_connection(made: Receivers, wire: Wire, **settings: Any) -> GrpcConnection:
    """One of those, that has begun."""
    connection = GrpcConnection(grpc_shared(made, **settings))
    connection.connection_made(wire)
    return connection
