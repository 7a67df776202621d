"""Records per CPU-second of the gateway, side by side with the OpenTelemetry Collector: OTLP in, Kafka out, acks=all.

    python bench/gateway.py [--transport http,grpc] [--signal metrics,logs,traces] [--items 1,100,1000,10000]
                            [--rounds 3] [--seconds 3] [--keep]

Needs Kafka's jars and the Collector (`otelcol`, with its otlp receiver and kafka exporter) in $PEERS, by default
~/.cache/infrasage-peers. Each server runs on one core, the client on another; rounds are interleaved, so that what else the
machine does hits both alike. What counts is CPU time of the server's process, not wall time: the ratio of the medians. Both
processes begin anew for each row, so that the most memory that they took is that row's.

With --keep the results go into bench/results/gateway.json, each in the place of what was measured before of the same, and from
there into docs/performance.md (bench/report.py).
"""

import argparse
import asyncio
import json
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
RESULTS = Path(__file__).resolve().parent / "results/gateway.json"
NAMES = ("ours", "collector")
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
    producer: {{max_message_bytes: 20000000, required_acks: -1, compression: none}}
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
                await call(request, timeout=60)
                taken.append(time.perf_counter() - began)

        await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    return len(taken), taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="http,grpc")
    parser.add_argument("--signal", default="metrics,logs,traces")
    parser.add_argument("--items", default="1,100,1000,10000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    otelcol = shutil.which("otelcol") or str(PEERS / "bin/otelcol")
    ours = str(Path(sys.executable).with_name("infrasage-collector"))
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        here = Path(directory)
        kafka = Kafka(
            here / "kafka",
            auto__create__topics__enable="true",
            # The Collector makes one message of a request, however large.
            message__max__bytes="20000000",
            # And a disk holds no more than so much of each partition.
            log__retention__bytes="1000000000",
            log__segment__bytes="200000000",
            log__retention__check__interval__ms="2000",
        )
        stack.callback(kafka.close)
        kafka.start()
        print("records per CPU-second: minimum, median, maximum; milliseconds; most memory in MiB")
        print("| transport | signal | items | ours | Collector | ratio | p50 | p99 | memory |")
        print("|---|---|---|---|---|---|---|---|---|")
        for transport in options.transport.split(","):
            for signal in options.signal.split(","):
                for items in map(int, options.items.split(",")):
                    pair = _Pair(here, kafka.bootstrap, otelcol, ours)
                    result = pair.measure(transport, signal, items, options.rounds, options.seconds)
                    print(row(result), flush=True)
                    if options.keep:
                        keep(result)


class _Pair:
    """Ours and the Collector, both new."""

    def __init__(self, here: Path, kafka: str, otelcol: str, ours: str) -> None:
        self._here = here
        self._ports = {name: (free_port(), free_port()) for name in NAMES}
        http, grpc_port = self._ports["collector"]
        config = here / "otelcol.yaml"
        config.write_text(COLLECTOR.format(http=http, grpc=grpc_port, kafka=kafka), encoding="utf-8")
        http, grpc_port = self._ports["ours"]
        settings = here / "ours.toml"
        settings.write_text('[tenants]\nanonymous = "yes"\n')
        gateway = [ours, "gateway", "--kafka", kafka, "--http-port", str(free_port())]
        gateway += ["--otlp-http-port", str(http), "--grpc-port", str(grpc_port), "--config", str(settings)]
        self._commands = {"ours": gateway, "collector": [otelcol, "--config", str(config)]}

    def measure(self, transport: str, signal: str, items: int, rounds: int, seconds: float) -> dict[str, Any]:
        load = load_http if transport == "http" else load_grpc
        request = body(signal, items)
        rates: dict[str, list[float]] = defaultdict(list)
        taken: dict[str, list[float]] = defaultdict(list)
        with ExitStack() as stack:
            pids = {
                name: stack.enter_context(server(command, self._ports[name][0], self._here / f"{name}.log"))
                for name, command in self._commands.items()
            }
            ports = {name: self._ports[name][transport == "grpc"] for name in NAMES}
            for name in NAMES:
                asyncio.run(load(ports[name], signal, request, 0.3))  # topics are made, what is loaded late is there
            for _ in range(rounds):
                for name, pid in pids.items():
                    before = cpu_seconds(pid)
                    requests, times = asyncio.run(load(ports[name], signal, request, seconds))
                    rates[name].append(requests * items / (cpu_seconds(pid) - before))
                    taken[name] += times
            memory = {name: memory_mib(pid) for name, pid in pids.items()}
        result: dict[str, Any] = {"transport": transport, "signal": signal, "items": items}
        for name in NAMES:
            p50, p99 = (statistics.quantiles(taken[name], n=100)[at] * 1000 for at in (49, 98))
            rate = [round(one) for one in (min(rates[name]), statistics.median(rates[name]), max(rates[name]))]
            result[name] = {"rate": rate, "p50_ms": round(p50, 1), "p99_ms": round(p99, 1), "memory_mib": memory[name]}
        return result


def memory_mib(pid: int) -> int:
    """The most that it had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1024


def row(result: dict[str, Any]) -> str:
    ours, collector = result["ours"], result["collector"]
    rates = [" ".join(f"{rate:,}" for rate in side["rate"]) for side in (ours, collector)]
    ratio = ours["rate"][1] / collector["rate"][1]
    both = [f"{ours[key]} / {collector[key]}" for key in ("p50_ms", "p99_ms", "memory_mib")]
    where = f"| {result['transport']} | {result['signal']} | {result['items']:,} |"
    return f"{where} {rates[0]} | {rates[1]} | **{ratio:.2f}** | {' | '.join(both)} |"


def keep(result: dict[str, Any]) -> None:
    """In the place of what was measured before of the same."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    same = ("transport", "signal", "items")
    kept = [one for one in kept if any(one[key] != result[key] for key in same)] + [result]
    kept.sort(key=lambda one: (one["transport"] != "http", one["signal"], one["items"]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
