"""OpenTelemetry's Collector as a process, and numbered items to send it."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from support.processes.clients import AMOUNT
from support.processes.program import require_peer
from support.waiting import until

REQUESTS: Final = 10
_START_TIMEOUT_S: Final = 180
# Without it the Collector knows of no protobuf_message.
_REMOTE_WRITE_2: Final = "exporter.prometheusremotewritexporter.enableSendingRW2"


def has_component(name: str) -> bool:
    """Whether the Collector that is there was built with it."""
    done = subprocess.run([require_peer("otelcol"), "components"], capture_output=True, text=True, timeout=60, check=False)
    return name in done.stdout


@contextmanager
def otelcol(place: Path, config: str, is_ready: Callable[[], bool]) -> Iterator[None]:
    """It runs, and is ready. Ended in order, so that it sends what it still has; it has reported no error."""
    command = require_peer("otelcol")
    (place / "otelcol.yaml").write_text(config, encoding="utf-8")
    log_path = place / "otelcol.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [command, f"--config={place}/otelcol.yaml", f"--feature-gates={_REMOTE_WRITE_2}"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: process.poll() is not None or is_ready(), _START_TIMEOUT_S)
        assert process.poll() is None, log_path.read_text()
        yield
    finally:
        process.terminate()
        process.wait(60)
        print(log_path.read_text())
    assert "\terror\t" not in log_path.read_text(), log_path.read_text()


def send(url: str, service: str, signals: list[str], metadata: Mapping[str, str] | None = None) -> None:
    """Numbered items, as the clients in other languages send them, in several requests. `metadata`: headers."""
    for signal in signals:
        for first in range(0, AMOUNT, AMOUNT // REQUESTS):
            request = MAKE[signal](service, range(first, first + AMOUNT // REQUESTS))
            headers = {"Content-Type": "application/x-protobuf", **(metadata or {})}
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
