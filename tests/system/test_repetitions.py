"""Real senders behind a network that loses answers: what they send again is stored once."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from support.processes.lossy_network import LossyNetwork
from support.processes.program import Program, metric, require_peer, run, started
from support.processes.prometheus import FEATURES, prometheus
from support.waiting import until

RECORDS = 12
LOSS = 0.25


def port_of(address: str) -> int:
    port = urlsplit(address if "//" in address else f"//{address}").port
    assert port is not None
    return port


def by_sdk(service: str, exporter: HttpLogExporter | GrpcLogExporter) -> None:
    """Each record is one request; the SDK sends it again when it hears nothing."""
    provider = LoggerProvider(Resource({"service.name": service}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = provider.get_logger("test")
    for number in range(RECORDS):
        logger.emit(body=f"{service} {number}")
    provider.shutdown()


def by_hand(service: str, address: str, headers: Callable[[int], dict[str, str]]) -> None:
    """Equal records of the native API, each of which is meant: only the key tells a repetition."""
    timestamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    for number in range(RECORDS):
        record = {"service_id": service, "metric_name": "m", "timestamp": timestamp, "value": 1}
        while True:
            try:
                answer = httpx.post(f"{address}/api/v1/telemetry", json=record, headers=headers(number), timeout=10)
            except httpx.TransportError:
                continue
            assert 200 == answer.status_code, answer.text
            break


@pytest.mark.parametrize("answers_max", [0, 10_000])
def test_what_senders_send_again_is_stored_once(tmp_path: Path, answers_max: int) -> None:
    """OTLP's SDK over HTTP and gRPC, and a client with keys: whether the gateway remembers its answers, or the writer alone
    recognizes repetitions. The audit adds up."""
    settings = {"repetitions__window_s": 900, "repetitions__answers_max": answers_max}
    with started(Program(tmp_path / "data", **settings)) as program:
        ports = [port_of(address) for address in (program.otlp_http, program.grpc, program.http)]
        with (
            LossyNetwork(ports[0], LOSS, 1) as otlp,
            LossyNetwork(ports[1], LOSS / 2, 2) as grpc,
            LossyNetwork(ports[2], LOSS, 3) as native,
        ):
            with ThreadPoolExecutor(3) as threads:
                sending = [
                    threads.submit(
                        by_sdk, "http", HttpLogExporter(endpoint=f"http://127.0.0.1:{otlp.port}/v1/logs", timeout=60)
                    ),
                    threads.submit(
                        by_sdk, "grpc", GrpcLogExporter(endpoint=f"127.0.0.1:{grpc.port}", insecure=True, timeout=60)
                    ),
                    threads.submit(
                        by_hand, "native", f"http://127.0.0.1:{native.port}", lambda number: {"Idempotency-Key": f'"{number}"'}
                    ),
                ]
                for each in sending:
                    each.result()
            assert all((otlp.lost, native.lost))
        stored = Counter(row["Body"] for row in program.query("SELECT Body FROM otel_logs "))
        assert dict.fromkeys((f"{service} {number}" for service in ("http", "grpc") for number in range(RECORDS)), 1) == stored
        assert RECORDS == int(program.value("SELECT count() FROM otel_metrics_gauge"))
        repeated = int(program.value("SELECT countIf(RepeatedItems != 0) FROM telemetry_batches"))
        assert (repeated > 0) == (answers_max == 0)
    audited = run("audit", "--data-dir", tmp_path / "data")
    assert 0 == audited.returncode, audited.stdout


def test_what_prometheus_sends_again_is_stored_once(tmp_path: Path) -> None:
    """It is so over remote write 1.0 and 2.0 at once. Each sample has its own time, so equal rows are one sample twice."""
    with started(Program(tmp_path / "data", repetitions__window_s=900, repetitions__answers_max=0)) as program:
        with LossyNetwork(port_of(program.http), LOSS, 4) as network:
            written = f"""
    url: http://127.0.0.1:{network.port}/api/v1/prometheus/write
    write_relabel_configs: [{{source_labels: [__name__], regex: up|infrasage_up|infrasage_ingestion.*, action: keep}}]
    queue_config: {{batch_send_deadline: 200ms, min_backoff: 30ms, max_backoff: 100ms}}
    metadata_config: {{send: false}}
"""
            config = f"""
global: {{scrape_interval: 200ms}}
scrape_configs:
  - {{job_name: collector-self, static_configs: [{{targets: ["127.0.0.1:{program.http_port}"]}}]}}
remote_write:
  - name: "1.0"{written}
  - name: "2.0"{written}    protobuf_message: io.prometheus.write.v2.Request
"""
            with prometheus(require_peer("prometheus", knows=FEATURES), tmp_path, config):
                left_out = ("infrasage_writer_repeated_messages_total", 'topic="infrasage.metrics"')
                until(lambda: network.lost >= 10 and metric(program.http, *left_out) >= 2)
        for source in ("prometheus_write_v1", "prometheus_write_v2"):
            once = "uniqExact(MetricName, Attributes, ResourceAttributes, TimeUnix)"
            stored = f"FROM otel_metrics_gauge WHERE Source = '{source}' AND ServiceName = 'collector-self'"
            rows, distinct = (int(program.value(f"SELECT {what} {stored}")) for what in ("count()", once))
            assert 0 < rows == distinct
    audited = run("audit", "--data-dir", tmp_path / "data")
    assert 0 == audited.returncode, audited.stdout
