"""Prometheus 3, scraping an exporter whose numbers are known, and writing them by remote write 1.0 and 2.0 at once.

That each kind of series arrives whole is in tests/system/test_serve.py; here it is that each number does, once, with a key.
"""

from pathlib import Path

import pytest
from support.processes.clients import new_key
from support.processes.exporter import Exporter
from support.processes.program import Program, require_peer
from support.processes.prometheus import FEATURES, prometheus

pytestmark = pytest.mark.clients

SCRAPES = 10
STALE = "reinterpretAsUInt64(Value) = 0x7ff0000000000002"


def test_remote_write_1_0_and_2_0(program: Program, tmp_path: Path) -> None:
    """A key in X-API-Key or as a bearer's; both versions have every number of every series once, and its stale marker."""
    command = require_peer("prometheus", knows=FEATURES)
    tenants = {"v1": new_key(program, "prometheus-v1"), "v2": new_key(program, "prometheus-v2")}
    with Exporter(SCRAPES) as exporter:
        config = f"""
global: {{scrape_interval: 200ms, scrape_native_histograms: true, scrape_protocols: [PrometheusProto]}}
scrape_configs:
  - {{job_name: native, metrics_path: /native, static_configs: [{{targets: ["127.0.0.1:{exporter.port}"]}}]}}
remote_write:
  - url: {program.http}/api/v1/prometheus/write
    headers: {{X-API-Key: "{tenants["v1"]}"}}
    send_exemplars: true
    send_native_histograms: true
    queue_config: {{batch_send_deadline: 200ms}}
  - url: {program.http}/api/v1/prometheus/write
    protobuf_message: io.prometheus.write.v2.Request
    authorization: {{credentials: "{tenants["v2"]}"}}
    send_exemplars: true
    send_native_histograms: true
    queue_config: {{batch_send_deadline: 200ms}}
"""
        with prometheus(command, tmp_path, config, f"--enable-feature={','.join(FEATURES)}"):
            program.wait_for(
                "SELECT uniqExact(TenantId, MetricName) FROM otel_metrics_gauge WHERE ServiceName = 'native'"
                f" AND {STALE} AND MetricName IN ('latency_seconds', 'temperature')",
                expected=4,
            )
    numbers = list(range(1, SCRAPES + 1))
    for version, counters in (("v1", "otel_metrics_gauge"), ("v2", "otel_metrics_sum")):
        where = f"WHERE ServiceName = 'native' AND Source = 'prometheus_write_{version}' AND TenantId = 'prometheus-{version}'"
        (row,) = program.query(
            f"SELECT (SELECT arraySort(groupArrayIf(Value, Flags = 0 AND NOT ({STALE}))) FROM {counters} {where}"
            " AND MetricName = 'requests_total') AS counter,"
            f" (SELECT countIf({STALE}) FROM {counters} {where} AND MetricName = 'requests_total') AS counter_ends,"
            f" (SELECT arraySort(groupArrayArray(Exemplars.Value)) FROM {counters} {where}"
            " AND MetricName = 'requests_total') AS exemplars,"
            f" (SELECT arraySort(groupArrayIf(-Value, NOT ({STALE}))) FROM otel_metrics_gauge {where}"
            " AND MetricName = 'temperature') AS gauge,"
            " (SELECT arraySort(groupArray((toUInt64(Count), Sum))) FROM otel_metrics_exponential_histogram"
            f" {where} AND MetricName = 'latency_seconds') AS histograms,"
            f" (SELECT arraySort(groupArrayIf(Value, Attributes['le'] = '+Inf' AND NOT ({STALE}))) FROM {counters} {where}"
            " AND MetricName = 'size_bytes_bucket') AS buckets"
        )
        assert {
            "counter": numbers,
            "counter_ends": 1,
            "exemplars": numbers,
            "gauge": numbers,
            "histograms": [[number, number * 1.5] for number in numbers],
            "buckets": [2 * number for number in numbers],
        } == row, version
