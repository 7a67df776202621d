"""OpenTelemetry's Collector on the other side of Kafka: it writes what we store, and reads what we write."""

import gzip
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.ports import free_port
from support.processes.clients import AMOUNT, Stored, expected, stored
from support.processes.kafka import Kafka, libraries
from support.processes.otelcol import has_component, otelcol, send
from support.processes.program import Program, run, started
from support.waiting import until

pytestmark = pytest.mark.clients

# A machine that is ten times slower stores it, too.
PATIENCE_S = 180
SIGNALS = ["metrics", "logs", "traces"]
# As the exporter names them by itself; and others, in the other encoding, with a tenant.
DEFAULT = {"metrics": "otlp_metrics", "logs": "otlp_logs", "traces": "otlp_spans"}
NAMED = {signal: f"theirs.{signal}.json" for signal in SIGNALS}
TOPICS = [
    *(f"{name}=otlp_proto" for name in DEFAULT.values()),
    *(f"{name}=otlp_json:{signal}:acme" for signal, name in NAMED.items()),
]
WRITES = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}", include_metadata: true}}}}}}}}
exporters:
  kafka:
    brokers: ["{kafka}"]
    producer: {{compression: {compression}, max_message_bytes: 8000000}}
    include_metadata_keys: [x-tenant]
    metrics: {{topic: "{metrics}", encoding: {encoding}}}
    logs: {{topic: "{logs}", encoding: {encoding}}}
    traces: {{topic: "{traces}", encoding: {encoding}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    metrics: {{receivers: [otlp], exporters: [kafka]}}
    logs: {{receivers: [otlp], exporters: [kafka]}}
    traces: {{receivers: [otlp], exporters: [kafka]}}
"""
READS = """
receivers:
  kafka:
    brokers: ["{kafka}"]
    group_id: {group}
    initial_offset: earliest
    metrics: {{topics: [infrasage.metrics], encoding: otlp_proto}}
    logs: {{topics: [infrasage.logs], encoding: otlp_proto}}
    traces: {{topics: [infrasage.traces], encoding: otlp_proto}}
exporters: {{otlp_http: {{endpoint: "{sink}"}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    metrics: {{receivers: [kafka], exporters: [otlp_http]}}
    logs: {{receivers: [kafka], exporters: [otlp_http]}}
    traces: {{receivers: [kafka], exporters: [otlp_http]}}
"""


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    libraries()
    made = Kafka(tmp_path_factory.mktemp("kafka") / "kafka", is_killed=False)
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def program(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One that stores what is in Kafka, our topics and theirs; an audit of it adds up at the end."""
    place = tmp_path_factory.mktemp("clients") / "data"
    settings = {
        "kafka__bootstrap": kafka.bootstrap,
        "kafka__topics": ",".join(TOPICS),
        "kafka__topics_tenant_header": "x-tenant",
        "kafka__topic_partitions": 2,
    }
    with started(Program(place, **settings)) as running:
        yield running
        done = run("audit", "--json", "--data-dir", running.data_dir, **running.settings)
        assert (done.returncode, json.loads(done.stdout)["difference"]) == (0, 0), done.stdout + done.stderr


@contextmanager
def writing(place: Path, kafka: Kafka, compression: str, encoding: str, topics: dict[str, str]) -> Iterator[str]:
    """The Collector with its kafka exporter, ready; its address."""
    port = free_port()
    config = WRITES.format(port=port, kafka=kafka.bootstrap, compression=compression, encoding=encoding, **topics)
    url = f"http://127.0.0.1:{port}"
    with otelcol(place, config, lambda: httpx.post(f"{url}/v1/logs", json={}).is_success):
        yield url


def is_stored(program: Program, service: str, expected_: Stored, tenant: str = "anonymous") -> None:
    """In the end, and exactly that."""
    with suppress(pytest.fail.Exception):
        until(lambda: stored(program, service, tenant) == expected_, PATIENCE_S)
    assert expected_ == stored(program, service, tenant)


def expected_of(topics: dict[str, str]) -> Stored:
    return expected("http")._replace(routes=sorted(f"kafka:{name}" for name in topics.values()))


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_what_it_writes_is_stored(program: Program, kafka: Kafka, tmp_path: Path, compression: str) -> None:
    """All three signals, each number once, from topics with the exporter's own names."""
    service = f"otelcol-{compression}"
    with writing(tmp_path, kafka, compression, "otlp_proto", DEFAULT) as url:
        send(url, service, SIGNALS)
    is_stored(program, service, expected_of(DEFAULT))


def test_what_it_writes_as_json_is_stored(program: Program, kafka: Kafka, tmp_path: Path) -> None:
    """Each item is stored with the tenant of its topic."""
    with writing(tmp_path, kafka, "gzip", "otlp_json", NAMED) as url:
        send(url, "otelcol-json", SIGNALS)
    is_stored(program, "otelcol-json", expected_of(NAMED), "acme")


def test_its_metadata_name_the_tenant(program: Program, kafka: Kafka, tmp_path: Path) -> None:
    """A header of its sender, which the exporter writes into those of the message."""
    with writing(tmp_path, kafka, "none", "otlp_proto", DEFAULT) as url:
        send(url, "otelcol-header", SIGNALS, {"x-tenant": "globex"})
    is_stored(program, "otelcol-header", expected_of(DEFAULT), "globex")


class Sink:
    """Takes OTLP over HTTP, and counts the items of one service."""

    def __init__(self) -> None:
        self.service = ""
        self.items: Counter[str] = Counter()
        self.numbers: dict[str, set[int]] = {signal: set() for signal in SIGNALS}
        self.lock = threading.Lock()

    def take(self, signal: str, body: bytes) -> None:
        with self.lock:
            for number in {"metrics": self._metrics, "logs": self._logs, "traces": self._traces}[signal](body):
                self.items[signal] += 1
                self.numbers[signal].add(number)

    def _is_asked(self, entry: object) -> bool:
        attributes = {each.key: each.value.string_value for each in entry.resource.attributes}  # type: ignore[attr-defined]
        return attributes.get("service.name") == self.service

    def _metrics(self, body: bytes) -> Iterator[int]:
        for entry in filter(self._is_asked, ExportMetricsServiceRequest.FromString(body).resource_metrics):
            for metric in (metric for scope in entry.scope_metrics for metric in scope.metrics):
                yield from (point.as_int for point in metric.sum.data_points)

    def _logs(self, body: bytes) -> Iterator[int]:
        for entry in filter(self._is_asked, ExportLogsServiceRequest.FromString(body).resource_logs):
            yield from (int(record.body.string_value) for scope in entry.scope_logs for record in scope.log_records)

    def _traces(self, body: bytes) -> Iterator[int]:
        for entry in filter(self._is_asked, ExportTraceServiceRequest.FromString(body).resource_spans):
            yield from (int(span.attributes[0].value.string_value) for scope in entry.scope_spans for span in scope.spans)


@contextmanager
def listening(sink: Sink) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            sink.take(self.path.rpartition("/")[2], body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_we_write_is_read_by_it(program: Program, kafka: Kafka, tmp_path: Path) -> None:
    """Its kafka receiver takes our topics for what they are, otlp_proto: all three signals, each number once. Receipts, which
    are in the same messages, are no items to it."""
    if not has_component("kafkareceiver"):
        pytest.skip("the Collector that is there has no kafka receiver: tests/clients/peers builds one that has")
    sink = Sink()
    sink.service = "read-by-otelcol"
    send(program.otlp_http, sink.service, SIGNALS)
    is_stored(program, sink.service, expected("http"))
    with listening(sink) as url:
        config = READS.format(kafka=kafka.bootstrap, group="their-group", sink=url)
        with otelcol(tmp_path, config, lambda: all(sink.items[signal] >= AMOUNT for signal in SIGNALS)):
            until(lambda: all(sink.items[signal] >= AMOUNT for signal in SIGNALS))
    assert dict.fromkeys(SIGNALS, AMOUNT) == dict(sink.items)
    assert {signal: set(range(AMOUNT)) for signal in SIGNALS} == sink.numbers
