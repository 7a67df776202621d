"""The routes and gRPC methods that take telemetry, by the names under which they are served, counted and configured."""

from typing import Final

OTLP_METRICS: Final = "/v1/metrics"
OTLP_LOGS: Final = "/v1/logs"
OTLP_TRACES: Final = "/v1/traces"
REMOTE_WRITE: Final = "/api/v1/prometheus/write"
NATIVE: Final = "/api/v1/telemetry"
NATIVE_BATCH: Final = "/api/v1/telemetry/batch"

METRICS_SERVICE: Final = "opentelemetry.proto.collector.metrics.v1.MetricsService"
LOGS_SERVICE: Final = "opentelemetry.proto.collector.logs.v1.LogsService"
TRACES_SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"


def export(service: str) -> str:
    """Return the method of an OTLP service that takes telemetry."""
    return f"{service}/Export"
