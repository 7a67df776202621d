"""OpenTelemetry's Collector between a sender and ours, with each exporter that can reach us."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from support.ports import free_port
from support.processes.clients import AMOUNT, expected, new_key, stored
from support.processes.program import Program, require_peer
from support.waiting import until

pytestmark = pytest.mark.clients

REQUESTS = 10

OTLP = {
    "otlp_grpc": "{{endpoint: {grpc}, tls: {{insecure: true}}{headers}}}",
    "otlp_grpc/none": "{{endpoint: {grpc}, tls: {{insecure: true}}, compression: none{headers}}}",
    "otlp_http": "{{endpoint: {otlp_http}{headers}}}",
    "otlp_http/json": "{{endpoint: {otlp_http}, encoding: json{headers}}}",
    "otlp_http/zstd": "{{endpoint: {otlp_http}, compression: zstd{headers}}}",
}
REMOTE_WRITE = {
    "prometheus_remote_write": "{{endpoint: {http}/api/v1/prometheus/write{headers}}}",
    "prometheus_remote_write/2": (
        "{{endpoint: {http}/api/v1/prometheus/write, protobuf_message: io.prometheus.write.v2.Request{headers}}}"
    ),
}
# Without it the Collector knows of no protobuf_message.
REMOTE_WRITE_2 = "exporter.prometheusremotewritexporter.enableSendingRW2"
CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{"{name}": {exporter}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {pipelines}
"""


@contextmanager
def collector(place: Path, program: Program, name: str, exporter: str, signals: list[str], key: str | None) -> Iterator[str]:
    """The Collector with this one exporter, ready; its address. Ended in order, so that it sends what it still has."""
    command = require_peer("otelcol")
    port = free_port()
    headers = "" if key is None else f", headers: {{x-api-key: {key}}}"
    filled = exporter.format(grpc=program.grpc, otlp_http=program.otlp_http, http=program.http, headers=headers)
    pipelines = ", ".join(f'{signal}: {{receivers: [otlp], exporters: ["{name}"]}}' for signal in signals)
    config = CONFIG.format(port=port, name=name, exporter=filled, pipelines=f"{{{pipelines}}}")
    (place / "otelcol.yaml").write_text(config, encoding="utf-8")
    log_path = place / "otelcol.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [command, f"--config={place}/otelcol.yaml", f"--feature-gates={REMOTE_WRITE_2}"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: process.poll() is not None or httpx.post(f"{url}/v1/{signals[0]}", json={}).is_success)
        assert process.poll() is None, log_path.read_text()
        yield url
    finally:
        process.terminate()
        process.wait(20)
    assert "\terror\t" not in log_path.read_text(), log_path.read_text()


def send(url: str, service: str, signals: list[str]) -> None:
    """Numbered items, as the clients in other languages send them, in several requests."""
    for signal in signals:
        for first in range(0, AMOUNT, AMOUNT // REQUESTS):
            request = MAKE[signal](service, range(first, first + AMOUNT // REQUESTS))
            headers = {"Content-Type": "application/x-protobuf"}
            answer = httpx.post(f"{url}/v1/{signal}", content=request.SerializeToString(), headers=headers)
            assert answer.status_code == 200, answer.text


def metrics(service: str, numbers: range) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    entry.resource.attributes.add(key="service.name").value.string_value = service
    metrics = entry.scope_metrics.add().metrics
    now = time.time_ns()
    points = metrics.add(name="numbered.counter").sum
    points.is_monotonic, points.aggregation_temporality = True, AGGREGATION_TEMPORALITY_CUMULATIVE
    for number in numbers:
        point = points.data_points.add(time_unix_nano=now, start_time_unix_nano=now - 1_000_000_000, as_int=number)
        point.attributes.add(key="number").value.int_value = number
    if numbers[0] == 0:
        histogram = metrics.add(name="numbered.histogram").histogram
        histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        total = AMOUNT * (AMOUNT - 1) // 2
        times = {"time_unix_nano": now, "start_time_unix_nano": now - 1_000_000_000}
        histogram.data_points.add(**times, count=AMOUNT, sum=total, explicit_bounds=[500], bucket_counts=[501, AMOUNT - 501])
    return request


def ids(number: int) -> dict[str, bytes]:
    return {"trace_id": (number + 1).to_bytes(16, "big"), "span_id": (number + 1).to_bytes(8, "big")}


def logs(service: str, numbers: range) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    entry = request.resource_logs.add()
    entry.resource.attributes.add(key="service.name").value.string_value = service
    records = entry.scope_logs.add().log_records
    for number in numbers:
        records.add(time_unix_nano=time.time_ns(), **ids(number)).body.string_value = str(number)
    return request


def traces(service: str, numbers: range) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    entry = request.resource_spans.add()
    entry.resource.attributes.add(key="service.name").value.string_value = service
    spans = entry.scope_spans.add().spans
    for number in numbers:
        now = time.time_ns()
        span = spans.add(name="numbered", start_time_unix_nano=now, end_time_unix_nano=now + 1, **ids(number))
        span.attributes.add(key="number").value.int_value = number
    return request


MAKE: dict[str, Any] = {"metrics": metrics, "logs": logs, "traces": traces}


@pytest.mark.parametrize("with_key", [False, True], ids=["no key", "a key"])
@pytest.mark.parametrize("name", OTLP)
def test_otlp(program: Program, tmp_path: Path, name: str, with_key: bool) -> None:
    """All three signals, each number once: protobuf and JSON, gzip (its default), none and zstd."""
    tenant = f"otelcol-{name.replace('/', '-')}" if with_key else "anonymous"
    service = f"otelcol-{name}-{with_key}"
    key = new_key(program, tenant) if with_key else None
    signals = ["metrics", "logs", "traces"]
    with collector(tmp_path, program, name, OTLP[name], signals, key) as url:
        send(url, service, signals)
    assert expected("grpc" if "grpc" in name else "http") == stored(program, service, tenant)


@pytest.mark.parametrize("with_key", [False, True], ids=["no key", "a key"])
@pytest.mark.parametrize("name", REMOTE_WRITE)
def test_remote_write(program: Program, tmp_path: Path, name: str, with_key: bool) -> None:
    """Its remote write, 1.0 and 2.0: each point of the counter, and the histogram as it spells it, once."""
    tenant = f"otelcol-{name.replace('/', '-')}" if with_key else "anonymous"
    service = f"otelcol-{name}-{with_key}"
    key = new_key(program, tenant) if with_key else None
    with collector(tmp_path, program, name, REMOTE_WRITE[name], ["metrics"], key) as url:
        send(url, service, ["metrics"])
    # 1.0 does not say what a series is, so there it is a gauge.
    version, table = ("v2", "otel_metrics_sum") if name.endswith("2") else ("v1", "otel_metrics_gauge")
    where = f"WHERE ServiceName = '{service}' AND TenantId = '{tenant}' AND Source = 'prometheus_write_{version}'"
    rows = program.query(
        "SELECT MetricName, Attributes['le'] AS le, count() AS points, uniqExact(Attributes['number']) AS series,"
        " countIf(Value = toInt64OrDefault(Attributes['number'], -1::Int64)) AS numbered, toUInt64(max(Value)) AS greatest"
        f" FROM {table} {where} AND MetricName LIKE 'numbered%' GROUP BY MetricName, le ORDER BY MetricName, le"
    )
    assert [
        ("numbered_counter_total", "", AMOUNT, AMOUNT, AMOUNT, AMOUNT - 1),
        ("numbered_histogram_bucket", "+Inf", 1, 1, 0, AMOUNT),
        ("numbered_histogram_bucket", "500", 1, 1, 0, 501),
        ("numbered_histogram_count", "", 1, 1, 0, AMOUNT),
        ("numbered_histogram_sum", "", 1, 1, 0, AMOUNT * (AMOUNT - 1) // 2),
    ] == [
        (row["MetricName"], row["le"], *(int(row[column]) for column in ("points", "series", "numbered", "greatest")))
        for row in rows
    ]
