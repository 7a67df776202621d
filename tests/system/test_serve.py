"""The running program, driven by real clients; what they sent is read back by the query command."""

import json
import math
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cramjam
import httpx
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from support.processes.exporter import BOUNDS, START_S, Exporter
from support.processes.program import MakeProgram, Program, require_peer, run
from support.processes.prometheus import FEATURES, prometheus
from support.references.remote_write import write_request
from support.waiting import until

from collector.runtime.lockfile import DataDirLock

TRANSPORTS = ["grpc", "http"]


def test_it_says_where_everything_is(program: Program) -> None:
    """What serve prints: three addresses, the data, and a curl line that works as it is."""
    assert program.http in program.printed
    assert program.otlp_http in program.printed
    assert program.grpc in program.printed
    assert str(program.data_dir) in program.printed
    curl = next(line for line in program.printed.splitlines() if line.lstrip().startswith("curl "))
    answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True, timeout=20)
    assert json.loads(answer.stdout) == {"status": "ok", "queued": 1}
    assert program.value("SELECT count() FROM telemetry WHERE service_id = 'demo'") == 1


def now_text(offset_s: float = 0) -> str:
    seconds = time.time() + offset_s
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".123456789Z"


def test_native_records_of_every_type(program: Program) -> None:
    """All six types are stored under the API's own names, whatever table they are in."""
    common = {"service_id": "native-six", "timestamp": now_text(), "attributes": {"region": "us-east-1", "attempt": 3}}
    named = [common | {"type": type_, "metric_name": "m", "value": 87.3} for type_ in ("metric", "trace", "profile", "slo")]
    said = [common | {"type": type_, "body": "it happened\n"} for type_ in ("log", "event")]
    answer = httpx.post(f"{program.http}/api/v1/telemetry/batch", json=[*named, *said])
    assert answer.status_code == 200, answer.text
    assert answer.json()["queued"] == 6
    rows = program.query("SELECT * FROM telemetry WHERE service_id = 'native-six' ORDER BY type")
    assert [row["type"] for row in rows] == ["event", "log", "metric", "profile", "slo", "trace"]
    assert {row["tenant"] for row in rows} == {"anonymous"}
    assert all(str(row["timestamp"]).endswith(".123456789") for row in rows)
    assert all(row["attributes"] == {"region": "us-east-1", "attempt": "3"} for row in rows)
    for row in rows:
        if row["type"] in ("log", "event"):
            assert row["body"] == "it happened\n"
        else:
            assert (row["metric_name"], row["value"]) == ("m", 87.3)


def test_a_bad_native_record_does_not_take_the_good_ones_down(program: Program) -> None:
    """Partial success: the good ones are stored, the bad one is named with its index."""
    good = {"service_id": "native-partial", "metric_name": "m", "value": 1.0, "timestamp": now_text()}
    answer = httpx.post(f"{program.http}/api/v1/telemetry/batch", json=[good, good | {"timestamp": now_text(-90_000)}, good])
    assert answer.json() == {
        "status": "ok",
        "queued": 2,
        "failed": 1,
        "failures": [{"index": 1, "error": "timestamp_too_old", "message": "Timestamp is more than 24h in the past"}],
    }
    assert program.value("SELECT count() FROM telemetry WHERE service_id = 'native-partial'") == 2


@pytest.fixture
def exporters(program: Program) -> Callable[[str], tuple[Any, Any, Any]]:
    """The SDK's own exporters for metrics, traces and logs, by transport."""

    def make(transport: str) -> tuple[Any, Any, Any]:
        if transport == "grpc":
            return (
                grpc_metrics.OTLPMetricExporter(endpoint=program.grpc, insecure=True),
                grpc_traces.OTLPSpanExporter(endpoint=program.grpc, insecure=True),
                grpc_logs.OTLPLogExporter(endpoint=program.grpc, insecure=True),
            )
        compression = Compression.Gzip
        return (
            http_metrics.OTLPMetricExporter(endpoint=f"{program.otlp_http}/v1/metrics", compression=compression),
            http_traces.OTLPSpanExporter(endpoint=f"{program.otlp_http}/v1/traces", compression=compression),
            http_logs.OTLPLogExporter(endpoint=f"{program.http}/v1/logs"),
        )

    return make


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sdk_metrics(program: Program, exporters: Callable[[str], tuple[Any, Any, Any]], transport: str) -> None:
    """Every instrument of the SDK arrives in the table of its kind, with its value, unit, attributes and exemplar."""
    service = f"sdk-metrics-{transport}"
    exporter = exporters(transport)[0]
    provider = MeterProvider(
        resource=Resource.create({"service.name": service, "host.cpus": 2}),
        metric_readers=[PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)],
        views=[
            View(instrument_type=Histogram, instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())
        ],
    )
    meter = provider.get_meter("scope", "1.2", attributes={"library": True})

    def observed(_options: CallbackOptions) -> Iterator[Observation]:
        yield Observation(7, {"cpu": 0})

    with TracerProvider().get_tracer("t").start_as_current_span("sampled") as span:  # gives the counter an exemplar
        meter.create_counter("counter", "By", "what is counted").add(3, {"k": "v", "n": 5})
    meter.create_up_down_counter("updown").add(-2)
    histogram = meter.create_histogram("histogram", explicit_bucket_boundaries_advisory=[1.0, 10.0])
    exponential = meter.create_histogram("exponential")
    for value in (0.5, 5.0, 50.0):
        histogram.record(value)
        exponential.record(value)
    meter.create_gauge("gauge").set(0.1)
    meter.create_observable_counter("observable_counter", [observed])
    meter.create_observable_up_down_counter("observable_updown", [observed])
    meter.create_observable_gauge("observable_gauge", [observed])
    provider.shutdown()  # collects and sends, once

    sums = program.query(f"SELECT * FROM otel_metrics_sum WHERE ServiceName = '{service}' ORDER BY MetricName")
    assert [(row["MetricName"], row["Value"], row["IsMonotonic"], row["AggregationTemporality"]) for row in sums] == [
        ("counter", 3, True, 2),
        ("observable_counter", 7, True, 2),
        ("observable_updown", 7, False, 2),
        ("updown", -2, False, 2),
    ]
    counter = sums[0]
    assert (counter["MetricUnit"], counter["MetricDescription"]) == ("By", "what is counted")
    assert counter["Attributes"] == {"k": "v", "n": "5"}
    assert counter["ResourceAttributes"]["host.cpus"] == "2"
    assert (counter["ScopeName"], counter["ScopeVersion"], counter["ScopeAttributes"]) == ("scope", "1.2", {"library": "true"})
    assert counter["Exemplars.TraceId"] == [f"{span.get_span_context().trace_id:032x}"]
    assert counter["Exemplars.SpanId"] == [f"{span.get_span_context().span_id:016x}"]
    assert counter["Exemplars.Value"] == [3]

    gauges = program.query(f"SELECT MetricName, Value FROM otel_metrics_gauge WHERE ServiceName = '{service}' ORDER BY 1")
    assert gauges == [{"MetricName": "gauge", "Value": 0.1}, {"MetricName": "observable_gauge", "Value": 7}]
    (histogram_row,) = program.query(f"SELECT * FROM otel_metrics_histogram WHERE ServiceName = '{service}'")
    assert (histogram_row["Count"], histogram_row["Sum"], histogram_row["Min"], histogram_row["Max"]) == (3, 55.5, 0.5, 50)
    assert histogram_row["ExplicitBounds"] == [1, 10]
    assert [int(count) for count in histogram_row["BucketCounts"]] == [1, 1, 1]
    (exponential_row,) = program.query(f"SELECT * FROM otel_metrics_exponential_histogram WHERE ServiceName = '{service}'")
    assert (exponential_row["Count"], exponential_row["Sum"]) == (3, 55.5)
    assert sum(int(count) for count in exponential_row["PositiveBucketCounts"]) == 3


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sdk_traces(program: Program, exporters: Callable[[str], tuple[Any, Any, Any]], transport: str) -> None:
    """Spans arrive with ids, parent, kind, status, attributes, events, links and nanosecond times."""
    service = f"sdk-traces-{transport}"
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporters(transport)[1]))
    tracer = provider.get_tracer("scope", "2.0")
    link = Link(SpanContext(2**127 + 1, 2**63 + 1, is_remote=True, trace_flags=TraceFlags(1)), {"why": "follows"})
    start = time.time_ns() // 1000 * 1000 + 789
    with tracer.start_as_current_span(
        "parent", kind=SpanKind.SERVER, links=[link], start_time=start, end_on_exit=False
    ) as parent:
        parent.add_event("cache miss", {"key": "k1", "size": 12}, timestamp=start + 1)
        parent.set_attribute("ratio", 0.1)
        with tracer.start_as_current_span("child", kind=SpanKind.CLIENT) as child:
            child.set_status(Status(StatusCode.ERROR, "timed out"))
    parent.end(start + 1_000_000_001)
    assert provider.force_flush(10_000)
    provider.shutdown()

    child_row, parent_row = program.query(
        "SELECT *, toUnixTimestamp64Nano(Timestamp) AS nanoseconds"
        f" FROM otel_traces WHERE ServiceName = '{service}' ORDER BY SpanName"
    )
    assert int(parent_row["nanoseconds"]) == start
    assert int(parent_row["Duration"]) == 1_000_000_001
    assert (parent_row["SpanName"], parent_row["SpanKind"], parent_row["StatusCode"]) == ("parent", "Server", "Unset")
    assert parent_row["TraceId"] == f"{parent.get_span_context().trace_id:032x}"
    assert parent_row["SpanAttributes"] == {"ratio": "0.1"}
    assert parent_row["Events.Name"] == ["cache miss"]
    assert parent_row["Events.Attributes"] == [{"key": "k1", "size": "12"}]
    assert (parent_row["Links.TraceId"], parent_row["Links.SpanId"]) == (["8" + "0" * 30 + "1"], ["8" + "0" * 14 + "1"])
    assert parent_row["Links.Attributes"] == [{"why": "follows"}]
    assert child_row["ParentSpanId"] == parent_row["SpanId"]
    assert (child_row["SpanKind"], child_row["StatusCode"], child_row["StatusMessage"]) == ("Client", "Error", "timed out")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sdk_logs(program: Program, exporters: Callable[[str], tuple[Any, Any, Any]], transport: str) -> None:
    """Log records arrive with their time, severity, body, attributes, event name and trace."""
    service = f"sdk-logs-{transport}"
    provider = LoggerProvider(resource=Resource.create({"service.name": service}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporters(transport)[2]))
    moment = time.time_ns()
    with TracerProvider().get_tracer("t").start_as_current_span("span") as span:
        provider.get_logger("scope").emit(
            LogRecord(
                timestamp=moment,
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body="löschen\n…",
                attributes={"n": 1, "list": ["a", "b"]},
                event_name="disk.full",
            )
        )
    assert provider.force_flush(10_000)
    provider.shutdown()

    (row,) = program.query(
        f"SELECT *, toUnixTimestamp64Nano(Timestamp) AS nanoseconds FROM otel_logs WHERE ServiceName = '{service}'"
    )
    assert int(row["nanoseconds"]) == moment
    assert (row["SeverityNumber"], row["SeverityText"], row["Body"]) == (13, "WARN", "löschen\n…")
    assert row["LogAttributes"] == {"n": "1", "list": '["a","b"]'}
    assert row["EventName"] == "disk.full"
    assert row["TraceId"] == f"{span.get_span_context().trace_id:032x}"
    assert row["SpanId"] == f"{span.get_span_context().span_id:016x}"


def test_remote_write_keeps_every_bit(program: Program) -> None:
    """What Prometheus would send, stale marker, NaN and minus zero included, is stored bit for bit."""
    stale = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
    values = [1.5, stale, math.nan, math.inf, -0.0]
    moment = int(time.time() * 1000)
    labels = {"__name__": "up", "job": "remote-write", "instance": "host:9090", "zone": "a"}
    body = write_request([(labels, [(value, moment + index) for index, value in enumerate(values)])])
    answer = httpx.post(
        f"{program.http}/api/v1/prometheus/write",
        content=bytes(cramjam.snappy.compress_raw(body)),
        headers={
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        },
    )
    assert (answer.status_code, answer.content) == (204, b"")
    rows = program.query(
        "SELECT reinterpretAsUInt64(Value) AS bits, toUnixTimestamp64Milli(TimeUnix) AS ms,"
        " Attributes, MetricName, ResourceAttributes"
        " FROM otel_metrics_gauge WHERE ServiceName = 'remote-write' ORDER BY TimeUnix"
    )
    assert [int(row["bits"]) for row in rows] == [struct.unpack("<Q", struct.pack("<d", value))[0] for value in values]
    assert [int(row["ms"]) - moment for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["Attributes"] == {"zone": "a"}
    assert rows[0]["MetricName"] == "up"
    assert rows[0]["ResourceAttributes"]["service.instance.id"] == "host:9090"


def test_the_answer_holds_what_was_acknowledged_just_before(program: Program) -> None:
    """A query that begins after an acknowledgement reads it, though records reach the store a little later."""
    for index in range(5):
        record = {"service_id": "read-after-write", "metric_name": "m", "value": index, "timestamp": now_text()}
        assert httpx.post(f"{program.http}/api/v1/telemetry", json=record).json() == {"status": "ok", "queued": 1}
        assert program.value("SELECT count() FROM telemetry WHERE service_id = 'read-after-write'") == index + 1


def test_the_counters_add_up(program: Program) -> None:
    """Per type and status, /metrics counts what the store holds."""
    assert httpx.get(f"{program.http}/healthz").json()["status"] == "ok"
    text = httpx.get(f"{program.http}/metrics").text
    accepted = sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("infrasage_ingestion_events_total{") and 'status="accepted"' in line
    )
    tables = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
    stored = " + ".join(
        f"(SELECT count() FROM {table})" for table in (*(f"otel_metrics_{kind}" for kind in tables), "otel_logs", "otel_traces")
    )
    assert accepted == int(program.value(f"SELECT {stored}"))


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_telemetrygen(program: Program, signal: str) -> None:
    """OpenTelemetry's load generator, over gRPC: as many items are stored as it says it sent."""
    telemetrygen = require_peer("telemetrygen")
    service = f"telemetrygen-{signal}"
    amount = {"metrics": ["--metrics", "200"], "logs": ["--logs", "200"], "traces": ["--traces", "100"]}[signal]
    done = subprocess.run(
        [
            *(telemetrygen, signal, "--otlp-endpoint", program.grpc, "--otlp-insecure", "--rate", "0"),
            *("--service", service, "--workers", "2", *amount),
        ],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = {"metrics": "otel_metrics_gauge", "logs": "otel_logs", "traces": "otel_traces"}[signal]
    # Two workers; a trace is two spans.
    assert int(program.value(f"SELECT count() FROM {table} WHERE ServiceName = '{service}'")) == 400


def test_prometheus_scrapes_it_and_writes_to_it(program: Program, tmp_path: Path) -> None:
    """Prometheus scrapes the collector's own /metrics and writes them back: they are found in the store, and their metadata."""
    config = f"""
global: {{scrape_interval: 500ms}}
scrape_configs:
  - job_name: collector-self
    static_configs: [{{targets: ["127.0.0.1:{program.http_port}"]}}]
remote_write:
  - url: {program.http}/api/v1/prometheus/write
    queue_config: {{max_samples_per_send: 10000, batch_send_deadline: 500ms}}
    metadata_config: {{send_interval: 1s}}
"""
    with prometheus(require_peer("prometheus"), tmp_path, config):
        program.wait_for(
            "SELECT uniqExact(TimeUnix) >= 2 FROM otel_metrics_gauge WHERE ServiceName = 'collector-self' AND MetricName = 'up'"
            " AND Value = 1",
            expected=1,
        )
        stored = "ServiceName = 'collector-self' AND MetricName = 'infrasage_ingestion_events_total'"
        program.wait_for(f"SELECT count() > 0 FROM otel_metrics_gauge WHERE {stored}", expected=1)
        described = "Source = 'prometheus_write_v1' AND MetricMetadata['prometheus.type'] = 'counter' AND Flags = 1"
        program.wait_for(
            f"SELECT count() > 0 FROM otel_metrics_summary WHERE {described} AND MetricName LIKE 'infrasage_ingestion_events%'"
            " AND MetricDescription != ''",
            expected=1,
        )


def test_prometheus_writes_2_0(program: Program, tmp_path: Path) -> None:
    """Counters, gauges, histograms of every kind, exemplars, metadata, start timestamps and stale markers: all that an exporter
    has said, each once.
    """
    command = require_peer("prometheus", knows=FEATURES)
    scrapes = 4
    numbers = list(range(1, scrapes + 1))
    with Exporter(scrapes) as exporter:
        config = f"""
global: {{scrape_interval: 200ms, scrape_native_histograms: true, scrape_protocols: [PrometheusProto]}}
scrape_configs:
  - {{job_name: native, metrics_path: /native, convert_classic_histograms_to_nhcb: true,
      static_configs: [{{targets: ["127.0.0.1:{exporter.port}"]}}]}}
  - {{job_name: classic, metrics_path: /classic, static_configs: [{{targets: ["127.0.0.1:{exporter.port}"]}}]}}
remote_write:
  - url: {program.http}/api/v1/prometheus/write
    protobuf_message: io.prometheus.write.v2.Request
    send_exemplars: true
    send_native_histograms: true
    queue_config: {{batch_send_deadline: 200ms}}
"""
        with prometheus(command, tmp_path, config, f"--enable-feature={','.join(FEATURES)}"):
            # The stale markers of native histograms are floats. Those of the last series to end are the last that come.
            program.wait_for(
                "SELECT uniqExact(ServiceName, MetricName) FROM otel_metrics_gauge WHERE ServiceName IN ('native', 'classic')"
                " AND reinterpretAsUInt64(Value) = 0x7ff0000000000002 AND MetricName IN ('latency_seconds', 'temperature')",
                expected=4,
            )
    sent = "WHERE Source = 'prometheus_write_v2' AND ServiceName IN ('native', 'classic')"
    each = "GROUP BY ServiceName, MetricName, Attributes ORDER BY ServiceName, MetricName, Attributes['le']"
    stale = "countIf(reinterpretAsUInt64(Value) = 0x7ff0000000000002)"

    # Each number once, the stale marker, and exemplars beside their series, in points without a value.
    sums = program.query(
        "SELECT ServiceName, MetricName, Attributes['le'], Attributes['zone'], MetricMetadata['prometheus.type'],"
        " arraySort(groupArrayIf(Value, Flags = 0)) AS values, arraySort(groupArrayArray(Exemplars.Value)) AS exemplars,"
        f" {stale} AS ends, any(IsMonotonic AND AggregationTemporality = 2) AS counts FROM otel_metrics_sum {sent}"
        f" {each.replace('Attributes ', 'Attributes, MetricMetadata ', 1)}"
    )
    twice = [2 * n for n in numbers]
    assert [
        ("classic", "requests_total", "", "a", "counter", numbers, numbers, 1, True),
        ("classic", "size_bytes_bucket", "+Inf", "a", "histogram", twice, [], 1, True),
        ("classic", "size_bytes_bucket", "0.5", "a", "histogram", numbers, [], 1, True),
        ("classic", "size_bytes_bucket", "1.5", "a", "histogram", twice, [], 1, True),
        ("classic", "size_bytes_count", "", "a", "histogram", twice, [], 1, True),
        ("classic", "size_bytes_sum", "", "a", "histogram", [n * 1.25 for n in numbers], [], 1, True),
        ("native", "requests_total", "", "a", "counter", numbers, numbers, 1, True),
    ] == [tuple(row.values()) for row in sums]
    gauges = program.query(
        "SELECT ServiceName, MetricName, arraySort(groupArrayIf(-Value, Flags = 0)) AS values,"
        f" arraySort(groupArrayArray(Exemplars.TraceId)) AS exemplars, {stale} AS ends FROM otel_metrics_gauge {sent}"
        f" AND MetricName IN ('temperature', 'latency_seconds', 'size_bytes') {each}"
    )
    trace_ids = [f"{n:032x}" for n in numbers]
    assert [
        ("classic", "latency_seconds", [], trace_ids, 1),
        ("classic", "temperature", numbers, [], 1),
        ("native", "latency_seconds", [], trace_ids, 1),
        ("native", "size_bytes", [], [], 1),
        ("native", "temperature", numbers, [], 1),
    ] == [tuple(row.values()) for row in gauges]
    exponential = program.query(
        "SELECT ServiceName, arraySort(groupArray((Count, Sum, Scale, PositiveOffset, PositiveBucketCounts))) AS histograms,"
        f" any(MetricUnit), any(AggregationTemporality) FROM otel_metrics_exponential_histogram {sent} {each}"
    )
    latencies = [[n, n * 1.5, 0, 0, [n]] for n in numbers]
    assert [("classic", latencies, "seconds", 2), ("native", latencies, "seconds", 2)] == [
        tuple(row.values()) for row in exponential
    ]
    custom = program.query(
        "SELECT MetricName, arraySort(groupArray((Count, Sum, ExplicitBounds, BucketCounts))) AS histograms"
        f" FROM otel_metrics_histogram {sent} {each}"
    )
    sizes = [[2 * n, n * 1.25, list(BOUNDS), [n, n, 0]] for n in numbers]
    assert [("size_bytes", sizes)] == [tuple(row.values()) for row in custom]
    started = f"FROM otel_metrics_sum {sent} AND Flags = 0 AND StartTimeUnix != toDateTime64({START_S}, 9)"
    assert 0 == int(program.value(f"SELECT count() {started}"))


def test_its_data_is_all_in_one_place(program: Program) -> None:
    """Nothing is left in the directory that it was started from, and nothing but what is documented in the data directory."""
    assert list(program.working_dir.iterdir()) == []
    in_use = {"lock", "log", "log.acknowledged", "store", "query.sock", "keys.json", "keys.json.lock"}
    assert {path.name for path in program.data_dir.iterdir()} == in_use


def test_many_at_once(program: Program) -> None:
    """Sixteen senders at once, each with its own connection: every record is stored once."""
    failures: list[str] = []

    def send(worker: int) -> None:
        with httpx.Client(base_url=program.http, timeout=20) as client:
            for index in range(20):
                batch = [
                    {
                        "service_id": "many",
                        "metric_name": "m",
                        "value": worker * 1000 + index * 10 + item,
                        "timestamp": now_text(),
                    }
                    for item in range(10)
                ]
                answer = client.post("/api/v1/telemetry/batch", json=batch)
                if answer.status_code != 200 or answer.json()["queued"] != 10:
                    failures.append(answer.text)

    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    (row,) = program.query("SELECT count() AS n, uniqExact(value) AS distinct FROM telemetry WHERE service_id = 'many'")
    assert (int(row["n"]), int(row["distinct"])) == (3200, 3200)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["query", "SELECT FROM WHERE"], 1, "Syntax error"),
        (["query", "SELEC 1"], 1, "Syntax error"),
        (["query", "SELECT * FROM no_such_table"], 1, "no_such_table"),
        (["query", "DROP TABLE otel_logs"], 1, "error: "),
        (["query", "INSERT INTO otel_logs (Body) VALUES ('x')"], 1, "error: "),
        (["query", "--format", "NoSuchFormat", "SELECT 1"], 1, "NoSuchFormat"),
    ],
)
def test_a_bad_query_has_all_its_faults_in_one_error(program: Program, arguments: list[str], status: int, said: str) -> None:
    """ClickHouse's own message on standard error, no traceback, and nothing is changed."""
    done = run(*arguments, "--data-dir", program.data_dir)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_empty_result_says_so(program: Program) -> None:
    """The notice is on standard error: standard output has the result, which is empty."""
    done = run("query", "SELECT 1 WHERE 0", "--data-dir", program.data_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no rows\n")


def test_a_plan_of_the_schema_beside_it(program: Program, tmp_path: Path) -> None:
    """The tables are as the settings of its start say; other settings are planned, and the start that applies them is named."""
    config = tmp_path / "collector.toml"
    config.write_text("[store]\nlogs_retention_days = 7\n")
    assert run("schema", "plan", "--data-dir", program.data_dir).stdout == "the tables are up to date\n"
    planned = run("schema", "plan", "--data-dir", program.data_dir, "--config", config).stdout
    assert "\n-- otel_logs: a mutation that reads " in planned
    refused = run("schema", "apply", "--data-dir", program.data_dir, "--config", config)
    assert refused.returncode == 1
    assert "it brings its tables up to date when it starts: restart it" in refused.stderr


def test_a_second_collector_on_the_same_data_is_refused(program: Program) -> None:
    """It names the process that has the data directory, and does it no harm."""
    done = run("serve", "--data-dir", program.data_dir, "--http-port", "0", "--otlp-http-port", "0", "--grpc-port", "0")
    assert done.returncode == 1
    assert f"in use by process {program.pid()}" in done.stderr
    assert "Traceback" not in done.stderr
    assert program.value("SELECT 1") == 1


def test_a_start_waits_for_a_command_that_has_the_data(make_program: MakeProgram) -> None:
    """An audit of what a collector left, say: the start goes on when that has ended. Stopped before, it ends with 0."""
    made = make_program()
    made.data_dir.mkdir()
    command = DataDirLock(made.data_dir, "audit")
    made.launch()
    until(lambda: "the data directory is in use: waiting for it" in made.log())
    assert made.stop() == 0, made.log()
    made.launch()
    until(lambda: made.log().count("the data directory is in use: waiting for it") == 2)
    command.release()
    made.await_ready()
    assert made.value("SELECT 1") == 1
    assert made.stop() == 0


@pytest.mark.parametrize("flag", ["--http-port", "--otlp-http-port", "--grpc-port"])
def test_a_port_in_use_is_named_with_its_flag(program: Program, tmp_path: Path, flag: str) -> None:
    """The message has the port and the flag to change."""
    free = {"--http-port": "0", "--otlp-http-port": "0", "--grpc-port": "0"}
    ports = free | {flag: str(program.http_port)}
    done = run("serve", "--data-dir", tmp_path / "other", *(word for pair in ports.items() for word in pair))
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert str(program.http_port) in errors[0]
    assert flag in errors[0]
    assert "Traceback" not in done.stderr
