"""Request bodies in the shapes of real senders: several of each shape, of different services or nodes."""

import functools
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from bench.bodies import REQUESTS, to_json

SIGNALS: Final = {
    "kubelet": "metrics",
    "sdk_metrics": "metrics",
    "histograms": "metrics",
    "spans": "traces",
    "java_logs": "logs",
    "structured_logs": "logs",
}
ITEMS: Final = {"kubelet": 600, "sdk_metrics": 300, "histograms": 100, "spans": 256, "java_logs": 512, "structured_logs": 500}

_VARIANTS: Final = 8
_BOUNDS: Final = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0)
_STACK: Final = "java.lang.IllegalStateException: no stock\n" + "\tat com.example.shop.Stock.take(Stock.java:117)\n" * 24


@functools.cache
def bodies(shape: str) -> tuple[bytes, ...]:
    """Return the OTLP requests of a shape in protobuf."""
    now = time.time_ns()
    return tuple(_SHAPES[shape](variant, now).SerializeToString() for variant in range(_VARIANTS))


@functools.cache
def json_bodies(shape: str) -> tuple[bytes, ...]:
    """Return the requests of `bodies` in JSON without white space, as SDKs write it."""
    parse = REQUESTS[SIGNALS[shape]].FromString
    return tuple(json.dumps(to_json(parse(one)), separators=(",", ":")).encode() for one in bodies(shape))


def _put(owner: Any, values: Mapping[str, str | int | bool]) -> None:
    _add(owner.attributes, values)


def _add(members: Any, values: Mapping[str, str | int | float | bool]) -> None:
    for key, value in values.items():
        any_value = members.add(key=key).value
        if isinstance(value, bool):
            any_value.bool_value = value
        elif isinstance(value, int):
            any_value.int_value = value
        elif isinstance(value, float):
            any_value.double_value = value
        else:
            any_value.string_value = value


def _service(variant: int) -> dict[str, str | int | bool]:
    """Return the resource of a service in Kubernetes, as Java's agent and the k8sattributes processor make it: 22
    attributes."""
    return {
        "service.name": f"checkout-{variant}",
        "service.namespace": "shop",
        "service.version": "4.17.2",
        "service.instance.id": f"8d7f1b9c-6a53-4e0c-9d0e-{variant:012d}",
        "deployment.environment.name": "production",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": "java",
        "telemetry.sdk.version": "1.52.0",
        "telemetry.distro.name": "opentelemetry-java-instrumentation",
        "telemetry.distro.version": "2.18.1",
        "process.pid": 1,
        "process.executable.path": "/opt/java/openjdk/bin/java",
        "process.runtime.name": "OpenJDK Runtime Environment",
        "process.runtime.version": "21.0.7+6-LTS",
        "os.type": "linux",
        "os.description": "Linux 6.8.0-1029-aws",
        "host.name": f"checkout-{variant}-7c9d8b6f5-x2x{variant}",
        "host.arch": "amd64",
        "container.id": f"{variant:064x}",
        "k8s.pod.name": f"checkout-{variant}-7c9d8b6f5-x2x{variant}",
        "k8s.namespace.name": "shop",
        "k8s.node.name": f"ip-10-0-{variant}-17.eu-central-1.compute.internal",
    }


def _kubelet(variant: int, now: int) -> Message:
    """Return a request of the kubeletstats receiver for a node: a resource for each container, and points without
    attributes."""
    request = ExportMetricsServiceRequest()
    names = ("cpu.time", "cpu.usage", "memory.available", "memory.usage", "memory.rss", "memory.working_set")
    for pod in range(50):
        entry = request.resource_metrics.add()
        values: dict[str, str | int | bool] = {
            "k8s.node.name": f"node-{variant}",
            "k8s.namespace.name": f"team-{pod % 7}",
            "k8s.pod.name": f"service-{pod}-7c9d8b6f5-{variant}x{pod}",
            "k8s.pod.uid": f"8d7f1b9c-6a53-4e0c-{variant:04d}-{pod:012d}",
            "k8s.container.name": f"service-{pod}",
            "container.id": f"{variant * 100 + pod:064x}",
        }
        _put(entry.resource, values)
        scope = entry.scope_metrics.add()
        scope.scope.name = "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/kubeletstatsreceiver"
        scope.scope.version = "0.155.0"
        for number in range(12):
            metric = scope.metrics.add(
                name=f"container.{names[number % 6]}.{number // 6}", unit="By", description="Of a container"
            )
            if number % 3:
                metric.gauge.data_points.add(time_unix_nano=now, start_time_unix_nano=now - 10**12, as_int=pod * 4096 + number)
            else:
                metric.sum.is_monotonic = True
                metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
                metric.sum.data_points.add(time_unix_nano=now, start_time_unix_nano=now - 10**12, as_double=pod + number / 7)
    return request


def _sdk_metrics(variant: int, now: int) -> Message:
    """Return a request of a periodic reader: scopes of a histogram, a sum and a gauge, with ten points each."""
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    _put(entry.resource, _service(variant))
    times = {"time_unix_nano": now, "start_time_unix_nano": now - 10**12}
    for number in range(10):
        scope = entry.scope_metrics.add()
        scope.scope.name = f"io.opentelemetry.instrumentation-{number}"
        scope.scope.version = "2.18.1-alpha"
        duration = scope.metrics.add(
            name="http.server.request.duration", unit="s", description="Duration of HTTP server requests."
        )
        duration.histogram.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        total = scope.metrics.add(name="http.server.requests", unit="{request}", description="Requests.")
        total.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        total.sum.is_monotonic = True
        active = scope.metrics.add(name="http.server.active_requests", unit="{request}", description="Requests being served.")
        for route in range(10):
            values: dict[str, str | int | bool] = {
                "http.request.method": "GET" if route % 3 else "POST",
                "http.route": f"/api/v2/carts/{{id}}/{route}",
                "http.response.status_code": 200 + route % 5,
                "url.scheme": "https",
            }
            counts = [route + bucket for bucket in range(len(_BOUNDS) + 1)]
            point: Any = duration.histogram.data_points.add(
                **times, count=sum(counts), sum=12.5 * route, min=0.25, max=873.5, bucket_counts=counts, explicit_bounds=_BOUNDS
            )
            _put(point, values)
            _put(total.sum.data_points.add(**times, as_int=sum(counts)), values)
            _put(active.gauge.data_points.add(**times, as_int=route), values)
    return request


def _histograms(variant: int, now: int) -> Message:
    """Return a request of exponential histograms: 10 scopes with ten points of 160 buckets each, and an exemplar."""
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    _put(entry.resource, _service(variant))
    for number in range(10):
        scope = entry.scope_metrics.add()
        scope.scope.name = f"io.opentelemetry.instrumentation-{number}"
        duration = scope.metrics.add(name="http.server.request.duration", unit="s", description="Duration of requests.")
        histogram = duration.exponential_histogram
        histogram.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        for route in range(10):
            counts = [bucket * route % 97 + bucket for bucket in range(160)]
            point = histogram.data_points.add(
                time_unix_nano=now, start_time_unix_nano=now - 10**12, count=sum(counts) + 3, zero_count=3, sum=12.5 * route
            )
            point.scale, point.positive.offset, point.min, point.max = 3, -40, 0.25, 873.5
            point.positive.bucket_counts.extend(counts)
            point.exemplars.add(
                time_unix_nano=now - 1000, as_double=0.25 * route, trace_id=os.urandom(16), span_id=os.urandom(8)
            )
            _put(point, {"http.request.method": "GET", "http.route": f"/api/v2/carts/{{id}}/{route}"})
    return request


def _spans(variant: int, now: int) -> Message:
    """Return spans of servers, clients and databases. One in ten has an exception with its stack."""
    request = ExportTraceServiceRequest()
    entry = request.resource_spans.add()
    _put(entry.resource, _service(variant))
    trace = b""
    for number in range(8):
        scope = entry.scope_spans.add()
        scope.scope.name = f"io.opentelemetry.instrumentation-{number}"
        scope.scope.version = "2.18.1-alpha"
        for index in range(32):
            if index % 8 == 0:
                trace = os.urandom(16)
            span = scope.spans.add(trace_id=trace, span_id=os.urandom(8), name=f"GET /api/v2/carts/{{id}}/{number}", kind=2)
            span.parent_span_id = os.urandom(8)
            span.start_time_unix_nano, span.end_time_unix_nano = now + index, now + index + 1_250_000
            values: dict[str, str | int | bool] = {
                "http.request.method": "GET",
                "http.route": f"/api/v2/carts/{{id}}/{number}",
                "http.response.status_code": 500 if index % 10 == 0 else 200,
                "url.scheme": "https",
                "url.path": f"/api/v2/carts/{variant}{index:06d}/{number}",
                "server.address": "shop.example.com",
                "server.port": 443,
                "client.address": f"203.0.113.{index}",
                "network.protocol.version": "1.1",
                "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "thread.id": 40 + index,
                "thread.name": f"http-nio-8080-exec-{index}",
            }
            _put(span, values)
            if index % 10 == 0:
                event = span.events.add(time_unix_nano=now + index + 1_000_000, name="exception")
                values = {"exception.type": "java.lang.IllegalStateException", "exception.message": "no stock"}
                _put(event, values | {"exception.stacktrace": _STACK})
                span.status.code = Status.StatusCode.STATUS_CODE_ERROR
    return request


def _java_logs(variant: int, now: int) -> Message:
    """Return a request of Java's agent: each logger is a scope, with eight or nine records."""
    request = ExportLogsServiceRequest()
    entry = request.resource_logs.add()
    _put(entry.resource, _service(variant))
    scopes = []
    for number in range(60):
        scope = entry.scope_logs.add()
        scope.scope.name = f"com.example.shop.checkout.service{number}.CheckoutService{number}"
        scopes.append(scope)
    for index in range(512):
        record = scopes[index % 60].log_records.add(time_unix_nano=now + index, observed_time_unix_nano=now + index + 1000)
        record.severity_number, record.severity_text = SeverityNumber.SEVERITY_NUMBER_INFO, "INFO"
        record.body.string_value = (
            f"order {variant}{index:08d} of customer {index * 7919 % 100_000} was accepted in {index % 90} ms"
        )
        record.trace_id, record.span_id, record.flags = os.urandom(16), os.urandom(8), 1
        _put(record, {"thread.name": f"http-nio-8080-exec-{index % 24}", "thread.id": 40 + index % 24})
    return request


def _structured_logs(variant: int, now: int) -> Message:
    """Return a request of records whose body is a key-value list of eight values, as parsers of JSON lines make it."""
    request = ExportLogsServiceRequest()
    entry = request.resource_logs.add()
    _put(entry.resource, _service(variant))
    scope = entry.scope_logs.add()
    for index in range(500):
        record = scope.log_records.add(time_unix_nano=now + index, observed_time_unix_nano=now + index + 1000)
        record.severity_number, record.severity_text = SeverityNumber.SEVERITY_NUMBER_INFO, "info"
        body: dict[str, str | int | float | bool] = {
            "message": f"order {variant}{index:08d} was accepted",
            "customer": index * 7919 % 100_000,
            "took_ms": index % 90 + 0.5,
            "is_new": index % 3 == 0,
            "path": f"/api/v2/carts/{index % 50}",
            "region": "eu-west-1",
            "status": 200 + index % 5,
            "thread": f"http-nio-8080-exec-{index % 24}",
        }
        _add(record.body.kvlist_value.values, body)
        _put(record, {"log.file.name": "checkout.log"})
    return request


_SHAPES: Final[dict[str, Callable[[int, int], Message]]] = {
    "kubelet": _kubelet,
    "sdk_metrics": _sdk_metrics,
    "histograms": _histograms,
    "spans": _spans,
    "java_logs": _java_logs,
    "structured_logs": _structured_logs,
}
