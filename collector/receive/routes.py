"""What is received where, by which adapter, and how it is answered: one table for HTTP, one for gRPC.

The law: an adapter is chosen here and nowhere else, once, by the request's head.
"""

from functools import partial
from typing import Final

import adapters.native
import adapters.otlp.json
import adapters.otlp.logs
import adapters.otlp.metrics
import adapters.otlp.traces
import adapters.prometheus.write_v1
from adapters.record import (
    LOGS,
    METRICS,
    SOURCE_NATIVE,
    SOURCE_OTLP,
    SOURCE_PROMETHEUS_WRITE_V1,
    TRACES,
    Adapted,
    Header,
    Rules,
)
from collector.pipeline import Adapt
from collector.receive.grpc import Service
from collector.receive.http import COMPRESSED, SNAPPY, Format, Route
from collector.receive.responses import NATIVE, NATIVE_BATCH, REMOTE_WRITE_V1, OtlpJsonDialect, OtlpProtobufDialect


def _metrics_json(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    return adapters.otlp.metrics.adapt(adapters.otlp.json.metrics_to_wire(body), header, rules, message_bytes_max)


def _logs_json(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    return adapters.otlp.logs.adapt(adapters.otlp.json.logs_to_wire(body), header, rules, message_bytes_max)


def _traces_json(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    return adapters.otlp.traces.adapt(adapters.otlp.json.traces_to_wire(body), header, rules, message_bytes_max)


def _otlp(endpoint: str, signal: int, adapt: Adapt, adapt_json: Adapt) -> Route:
    json = OtlpJsonDialect(signal)
    formats = {
        "application/x-protobuf": Format(adapt, SOURCE_OTLP, OtlpProtobufDialect(signal), COMPRESSED),
        "application/json": Format(adapt_json, SOURCE_OTLP, json, COMPRESSED),
    }
    return Route(endpoint, formats, otherwise=json)


def http_routes(batch_items_max: int) -> dict[str, Route]:
    """Every route that takes telemetry, by its path."""
    native = Format(adapters.native.adapt, SOURCE_NATIVE, NATIVE, COMPRESSED)
    native_batch = Format(
        partial(adapters.native.adapt_batch, batch_items_max=batch_items_max), SOURCE_NATIVE, NATIVE_BATCH, COMPRESSED
    )
    write_v1 = Format(adapters.prometheus.write_v1.adapt, SOURCE_PROMETHEUS_WRITE_V1, REMOTE_WRITE_V1, SNAPPY)
    routes = (
        _otlp("/v1/metrics", METRICS, adapters.otlp.metrics.adapt, _metrics_json),
        _otlp("/v1/logs", LOGS, adapters.otlp.logs.adapt, _logs_json),
        _otlp("/v1/traces", TRACES, adapters.otlp.traces.adapt, _traces_json),
        Route("/api/v1/telemetry", {"application/json": native}, otherwise=NATIVE),
        Route("/api/v1/telemetry/batch", {"application/json": native_batch}, otherwise=NATIVE_BATCH),
        Route(
            "/api/v1/prometheus/write",
            {
                "application/x-protobuf": write_v1,
                "application/x-protobuf;proto=prometheus.writerequest": write_v1,
            },
            otherwise=REMOTE_WRITE_V1,
            parameter="proto",
        ),
    )
    return {route.endpoint: route for route in routes}


GRPC_SERVICES: Final = (
    Service("opentelemetry.proto.collector.metrics.v1.MetricsService", METRICS, adapters.otlp.metrics.adapt),
    Service("opentelemetry.proto.collector.logs.v1.LogsService", LOGS, adapters.otlp.logs.adapt),
    Service("opentelemetry.proto.collector.trace.v1.TraceService", TRACES, adapters.otlp.traces.adapt),
)
