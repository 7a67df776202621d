"""Records per CPU-second of the gateway, side by side with the OpenTelemetry Collector: OTLP in, Kafka out, acks=all.

    python bench/gateway.py [--transport http,grpc] [--signal metrics,logs,traces] [--items 100,1000] [--rounds 3] [--seconds 3]

Needs Kafka's jars and the Collector (`otelcol`, with its otlp receiver and kafka exporter) in $PEERS, by default
~/.cache/infrasage-peers. Each server runs on one core, the client on another; rounds are interleaved, so that what else the
machine does hits both alike. What counts is CPU time of the server's process, not wall time: the ratio of the medians.
"""

import argparse
import asyncio
import os
import re
import shutil
import signal as signals
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.kafka import Kafka

PEERS = Path(os.environ.get("PEERS") or Path.home() / ".cache/infrasage-peers")
CONNECTIONS = 32
METHODS = {
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}
COLLECTOR = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", max_recv_msg_size_mib: 64}}
      http: {{endpoint: "127.0.0.1:{http}"}}
exporters:
  kafka:
    brokers: ["{kafka}"]
    producer: {{max_message_bytes: 1000000, required_acks: -1, compression: none}}
    sending_queue: {{enabled: false}}
    metrics: {{topic: otelcol_metrics, encoding: otlp_proto}}
    logs: {{topic: otelcol_logs, encoding: otlp_proto}}
    traces: {{topic: otelcol_traces, encoding: otlp_proto}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}
  pipelines:
    metrics: {{receivers: [otlp], exporters: [kafka]}}
    logs: {{receivers: [otlp], exporters: [kafka]}}
    traces: {{receivers: [otlp], exporters: [kafka]}}
"""


def attributes(owner: Any, count: int) -> None:
    """All strings but the last, which is an integer, as a status code is."""
    for index in range(count - 1):
        owner.attributes.add(key=f"attribute.number.{index}").value.string_value = f"value-{index}"
    owner.attributes.add(key="http.response.status_code").value.int_value = 200


def body(signal: str, items: int) -> bytes:
    """A request of one resource with 8 attributes; each item has 4."""
    now = time.time_ns()
    if signal == "metrics":
        metrics = ExportMetricsServiceRequest()
        entry = metrics.resource_metrics.add()
        scope = entry.scope_metrics.add()
        for start in range(0, items, 5):
            metric = scope.metrics.add(name=f"metric.{start}", unit="ms")
            for _ in range(min(5, items - start)):
                attributes(metric.gauge.data_points.add(time_unix_nano=now, as_double=1.5), 4)
        attributes(entry.resource, 8)
        return metrics.SerializeToString()
    if signal == "logs":
        logs = ExportLogsServiceRequest()
        log_entry = logs.resource_logs.add()
        log_scope = log_entry.scope_logs.add()
        for index in range(items):
            record = log_scope.log_records.add(time_unix_nano=now, severity_text="INFO")
            record.body.string_value = f"a line of a log, of some length, number {index}"
            attributes(record, 4)
        attributes(log_entry.resource, 8)
        return logs.SerializeToString()
    traces = ExportTraceServiceRequest()
    span_entry = traces.resource_spans.add()
    span_scope = span_entry.scope_spans.add()
    for _ in range(items):
        ids = {"trace_id": os.urandom(16), "span_id": os.urandom(8)}
        attributes(span_scope.spans.add(**ids, name="GET /cart", start_time_unix_nano=now, end_time_unix_nano=now + 1000), 4)
    attributes(span_entry.resource, 8)
    return traces.SerializeToString()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(command: list[str], port: int, log: Path) -> Iterator[int]:
    """The command on the first core, until its port answers; ended at the end. Yields its process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=output, stderr=output)
    try:
        for _ in range(300):
            if process.poll() is not None:
                sys.exit(f"{command[0]} ended: {log.read_text(encoding='utf-8')[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid
    finally:
        process.send_signal(signals.SIGTERM)
        process.wait(30)


async def load_http(port: int, signal: str, request: bytes, seconds: float) -> tuple[int, list[float]]:
    """Requests answered 200, and how long each took, in seconds. Bare sockets: a slow client would be measured too."""
    taken: list[float] = []
    head = (
        f"POST /v1/{signal} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-protobuf\r\nContent-Length: {len(request)}"
    )
    message = head.encode() + b"\r\n\r\n" + request
    until = time.perf_counter() + seconds

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < until:
            writer.write(message)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(answer.decode())
            length = re.search(rb"\r\ncontent-length: *(\d+)", answer, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            taken.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    return len(taken), taken


async def load_grpc(port: int, signal: str, request: bytes, seconds: float) -> tuple[int, list[float]]:
    taken: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(METHODS[signal])
        until = time.perf_counter() + seconds

        async def send() -> None:
            while (began := time.perf_counter()) < until:
                await call(request, timeout=30)
                taken.append(time.perf_counter() - began)

        await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    return len(taken), taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="http,grpc")
    parser.add_argument("--signal", default="metrics,logs,traces")
    parser.add_argument("--items", default="1,100,1000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    otelcol = shutil.which("otelcol") or str(PEERS / "bin/otelcol")
    ours = str(Path(sys.executable).with_name("infrasage-collector"))
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        here = Path(directory)
        kafka = Kafka(here / "kafka", auto__create__topics__enable="true")
        stack.callback(kafka.close)
        kafka.start()
        bootstrap = kafka.bootstrap
        ports = {name: (free_port(), free_port()) for name in ("ours", "collector")}
        config = here / "otelcol.yaml"
        http, grpc_port = ports["collector"]
        config.write_text(COLLECTOR.format(http=http, grpc=grpc_port, kafka=bootstrap), encoding="utf-8")
        http, grpc_port = ports["ours"]
        settings = here / "ours.toml"
        settings.write_text('[tenants]\nanonymous = "yes"\n')
        gateway = [ours, "gateway", "--kafka", bootstrap, "--http-port", str(free_port())]
        gateway += ["--otlp-http-port", str(http), "--grpc-port", str(grpc_port), "--config", str(settings)]
        with (
            server([otelcol, "--config", str(config)], ports["collector"][0], here / "otelcol.log") as collector_pid,
            server(gateway, ports["ours"][0], here / "ours.log") as ours_pid,
        ):
            pids = {"ours": ours_pid, "collector": collector_pid}
            print("records per CPU-second: minimum, median, maximum; p99 in ms")
            print("| transport | signal | items | ours | Collector | ratio | p99, ours / Collector |")
            print("|---|---|---|---|---|---|---|")
            for transport in options.transport.split(","):
                load = load_http if transport == "http" else load_grpc
                for signal in options.signal.split(","):
                    for items in map(int, options.items.split(",")):
                        request = body(signal, items)
                        rates: dict[str, list[float]] = defaultdict(list)
                        taken: dict[str, list[float]] = defaultdict(list)
                        for _ in range(options.rounds):
                            for name, pid in pids.items():
                                port = ports[name][transport == "grpc"]
                                before = cpu_seconds(pid)
                                requests, seconds = asyncio.run(load(port, signal, request, options.seconds))
                                rates[name].append(requests * items / (cpu_seconds(pid) - before))
                                taken[name] += seconds
                        print(row(transport, signal, items, rates, taken), flush=True)


def row(transport: str, signal: str, items: int, rates: dict[str, list[float]], taken: dict[str, list[float]]) -> str:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    shown = [f"{min(rates[name]):,.0f} {medians[name]:,.0f} {max(rates[name]):,.0f}" for name in ("ours", "collector")]
    p99 = [statistics.quantiles(taken[name], n=100)[98] * 1000 for name in ("ours", "collector")]
    ratio = medians["ours"] / medians["collector"]
    return f"| {transport} | {signal} | {items} | {shown[0]} | {shown[1]} | **{ratio:.2f}** | {p99[0]:.1f} / {p99[1]:.1f} |"


if __name__ == "__main__":
    main()
