"""OTLP over gRPC as a client has it: the three services, a request's answer, and an error with all that comes with it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from google.rpc.status_pb2 import Status
from grpc import aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from support.fakes.receiving import otlp_logs, otlp_metrics, otlp_traces

UNCOMPRESSED = [("grpc.max_send_message_length", -1)]


class Service(NamedTuple):
    name: str
    body: Callable[..., bytes]
    response: Any
    rejected_field: str
    noun: str

    @property
    def method(self) -> str:
        return f"/{self.name}/Export"


PREFIX = "opentelemetry.proto.collector"
METRICS = Service(
    f"{PREFIX}.metrics.v1.MetricsService", otlp_metrics, ExportMetricsServiceResponse, "rejected_data_points", "data points"
)
LOGS = Service(f"{PREFIX}.logs.v1.LogsService", otlp_logs, ExportLogsServiceResponse, "rejected_log_records", "log records")
TRACES = Service(f"{PREFIX}.trace.v1.TraceService", otlp_traces, ExportTraceServiceResponse, "rejected_spans", "spans")
EACH_SERVICE = pytest.mark.parametrize("service", [METRICS, LOGS, TRACES], ids=lambda service: service.noun)


async def export(channel: aio.Channel, service: Service, body: bytes, **keywords: Any) -> bytes:
    """The raw response."""
    method: Any = channel.unary_unary(service.method)
    answer: bytes = await method(body, timeout=20, **keywords)
    return answer


async def refused(channel: aio.Channel, service: Service, body: bytes, **keywords: Any) -> tuple[aio.AioRpcError, Status]:
    """The error, and the google.rpc.Status in its trailers, which agrees with it."""
    with pytest.raises(aio.AioRpcError) as info:
        await export(channel, service, body, **keywords)
    error = info.value
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert details is not None
    status = Status.FromString(details)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    # Trailers-only: Java's sender drops a batch whose error comes after initial metadata.
    assert not error.initial_metadata()
    return error, status
