"""The methods served over gRPC: OTLP's, and others such as health checks."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from collector.ingest.reading import Input
from collector.receivers.grpc.stream_call import Handler
from collector.receivers.responses import OtlpProtobufDialect
from collector.telemetry.instruments import Endpoint
from collector.telemetry.metrics import Metrics


class Service(NamedTuple):
    """One of OTLP's services: its full name, its signal, and its input."""

    name: str
    signal: int
    input: Input


class Method:
    """The method Export of one service."""

    def __init__(self, service: Service, endpoint: Endpoint) -> None:
        self.service: Final = service.name
        self.input: Final = service.input
        self.dialect: Final = OtlpProtobufDialect(service.signal)
        self.endpoint: Final = endpoint


class Methods:
    """All methods, by path."""

    def __init__(self, services: Sequence[Service], metrics: Metrics, others: Mapping[str, Handler]) -> None:
        """`others` are by path, such as `/grpc.health.v1.Health/Check`."""
        self.exports: Final = {
            f"/{service.name}/Export".encode(): Method(service, metrics.grpc_method(f"{service.name}/Export"))
            for service in services
        }
        self.others: Final = {path.encode(): handler for path, handler in others.items()}
