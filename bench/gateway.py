"""Measures records per CPU-second of the gateway and of the OpenTelemetry Collector: OTLP in, Kafka out, acks=all.

    python bench/gateway.py [--transport http,https,h2c,h2,grpc,grpcs,json,native,native_json] [--signal metrics,logs,traces]
                            [--items 1,100,1000,10000] [--rounds 3] [--seconds 3] [--keep]

Needs Kafka's jars and the Collector (`otelcol`, with its otlp receiver and kafka exporter) in $PEERS, by default
~/.cache/infrasage-peers. Each server runs on one core; the client and Kafka run on the others. The rounds of both servers
alternate, so that other work of the machine affects both alike. The result is the ratio of the medians, by CPU time of the
server's process and not by wall time. Both processes are started again for each row, so that their memory maximum is of that
row.

`native` is our JSON API, with metrics, and 1 and 100 records a request. The Collector has no such API, and gets as many records
in OTLP over HTTP. `json` is OTLP/JSON over HTTP/1.1, to both. `native_json` is our JSON API beside the Collector's OTLP/JSON.

`https` is HTTP/1.1 over TLS, `h2c` HTTP/2 without TLS, `h2` HTTP/2 with TLS, `grpcs` gRPC over TLS. Each has 1 and 100 metrics
a request. Both servers have the same certificate. HTTP/2 is one connection with 32 concurrent requests, as gRPC is. The
Collector does not support h2c, and gets as many records over HTTP/1.1.

With --keep the results go into bench/results/gateway.json, in the place of earlier results of the same row. From there
bench/report.py writes them into docs/internals/performance.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.ports import free_port

from bench import bodies, measuring, tables
from bench.http2_client import http2_senders
from bench.measuring import (
    Certificate,
    Senders,
    Side,
    closed_loop,
    closed_loop_of,
    grpc_senders,
    http_message,
    http_senders,
    memory_mib,
    server,
)

SUITE: Final = "gateway"
SAME: Final = ("transport", "signal", "items")
NAMES: Final = ("ours", "collector")
NATIVE_ITEMS: Final = (1, 100)
JSON_ITEMS: Final = (1, 500)
TLS: Final = ("https", "h2", "grpcs")
# Transports that differ from HTTP/1.1 and gRPC by the cost of a request, and not of a record.
BY_REQUEST: Final = ("https", "h2c", "h2", "grpcs")
BY_REQUEST_ITEMS: Final = (1, 100)
WARM_S: Final = 0.3
COLLECTOR: Final = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", max_recv_msg_size_mib: 64{tls}}}
      http: {{endpoint: "127.0.0.1:{http}"{tls}}}
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


class Pair:
    """Starts the gateway and the Collector, both new. `ports` has the HTTP and gRPC ports of each by name, `pids` the process
    ids while the context is entered."""

    def __init__(self, here: Path, kafka: str, certificate: Certificate | None = None) -> None:
        """With a `certificate`, both servers use TLS."""
        ours = measuring.Gateway(here, kafka, tls=certificate)
        self.ports = {"ours": (ours.otlp_port, ours.grpc_port), "collector": (free_port(), free_port())}
        self._native_port = ours.http_port
        http, grpc = self.ports["collector"]
        config = here / "otelcol.yaml"
        tls = f", tls: {{cert_file: {certificate.cert}, key_file: {certificate.key}}}" if certificate else ""
        config.write_text(COLLECTOR.format(http=http, grpc=grpc, kafka=kafka, tls=tls), encoding="utf-8")
        self._certificate = certificate
        self.commands = {"ours": ours.command, "collector": [measuring.peer("otelcol"), "--config", str(config)]}
        self._here = here
        self._stack = ExitStack()
        self.pids: dict[str, int] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name, command in self.commands.items():
                log = self._here / f"{name}.log"
                self.pids[name] = stack.enter_context(server(command, self.ports[name][0], log))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def senders(self, name: str, transport: str, signal: str, items: int) -> Senders:
        """Return the senders of a transport to the server `name`."""
        http, grpc = self.ports[name]
        certificate = self._certificate
        if transport in ("grpc", "grpcs"):
            return grpc_senders(grpc, bodies.METHODS[signal], bodies.otlp(signal, items), tls=certificate)
        if transport == "h2" or (transport == "h2c" and name == "ours"):
            context = certificate.client("h2") if certificate else None
            return http2_senders(http, f"/v1/{signal}", bodies.otlp(signal, items), context)
        if transport in ("native", "native_json") and name == "ours":
            path = bodies.NATIVE_RECORD if items == 1 else bodies.NATIVE_BATCH
            messages = [http_message(path, body, "application/json") for body in bodies.native(items)]
            return http_senders(self._native_port, messages)
        if transport in ("json", "native_json"):
            texts = bodies.otlp_json(signal, items)
            return http_senders(http, [http_message(f"/v1/{signal}", one, "application/json") for one in texts])
        context = certificate.client("http/1.1") if certificate else None
        return http_senders(http, [http_message(f"/v1/{signal}", one) for one in bodies.otlp(signal, items)], tls=context)


def measure(pair: Pair, transport: str, signal: str, items: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the results of both servers for one row."""
    sides = {name: Side() for name in NAMES}
    with pair:
        for name in NAMES:  # topics are created, and modules that are imported late are loaded
            closed_loop(pair.senders(name, transport, signal, items), WARM_S)
        for _ in range(rounds):
            for name, side in sides.items():
                taken, cpu_s = closed_loop_of(pair.senders(name, transport, signal, items), seconds, pair.pids[name])
                side.add(items, cpu_s, taken)
        found = {name: side.result(memory_mib(pair.pids[name])) for name, side in sides.items()}
    return {"transport": transport, "signal": signal, "items": items, **found}


def rows(transports: str, signals: str, items: str) -> Iterator[tuple[str, str, int]]:
    """Yield the rows of these options that can be measured: transport, signal and number of items."""
    for transport in transports.split(","):
        if transport in ("native", "native_json"):
            yield from ((transport, "metrics", number) for number in NATIVE_ITEMS)
            continue
        if transport == "json":
            yield from ((transport, signal, number) for signal in signals.split(",") for number in JSON_ITEMS)
            continue
        numbers = measuring.numbers(items)
        if transport in BY_REQUEST:
            numbers = [number for number in numbers if number in BY_REQUEST_ITEMS]
        for signal in ["metrics"] if transport in BY_REQUEST else signals.split(","):
            yield from ((transport, signal, number) for number in numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", default="http,https,h2c,h2,grpc,grpcs,json,native,native_json")
    parser.add_argument("--signal", default="metrics,logs,traces")
    parser.add_argument("--items", default="1,100,1000,10000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    measuring.leave_the_first_core()
    with tempfile.TemporaryDirectory() as directory, measuring.kafka(Path(directory)) as kafka:
        print(tables.HEADS[SUITE])
        certificate = measuring.certificate(Path(directory))
        for transport, signal, items in rows(options.transport, options.signal, options.items):
            pair = Pair(Path(directory), kafka, certificate if transport in TLS else None)
            result = measure(pair, transport, signal, items, options.rounds, options.seconds)
            print(tables.gateway_row(result), flush=True)
            if options.keep:
                measuring.keep(SUITE, result, SAME)


if __name__ == "__main__":
    main()
