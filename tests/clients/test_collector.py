"""OpenTelemetry's Collector between a sender and ours, with each exporter that can reach us."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.ports import free_port
from support.processes.clients import AMOUNT, expected, new_key, stored
from support.processes.otelcol import otelcol, send
from support.processes.program import Program

pytestmark = pytest.mark.clients

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
CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{"{name}": {exporter}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {pipelines}
"""


@contextmanager
def collector(place: Path, program: Program, name: str, exporter: str, signals: list[str], key: str | None) -> Iterator[str]:
    """The Collector with this one exporter, ready; its address."""
    port = free_port()
    headers = "" if key is None else f", headers: {{x-api-key: {key}}}"
    filled = exporter.format(grpc=program.grpc, otlp_http=program.otlp_http, http=program.http, headers=headers)
    pipelines = ", ".join(f'{signal}: {{receivers: [otlp], exporters: ["{name}"]}}' for signal in signals)
    config = CONFIG.format(port=port, name=name, exporter=filled, pipelines=f"{{{pipelines}}}")
    url = f"http://127.0.0.1:{port}"
    with otelcol(place, config, lambda: httpx.post(f"{url}/v1/{signals[0]}", json={}).is_success):
        yield url


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
