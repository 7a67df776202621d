"""Measures records per CPU-second in the shapes of real senders: the gateway, the OpenTelemetry Collector and Rotel.

    python bench/shapes.py [--shape kubelet,sdk_metrics,histograms,spans,java_logs,structured_logs]
                           [--encoding protobuf,gzip,json] [--rounds 5] [--seconds 2] [--keep]

Requests are OTLP over HTTP, and go into Kafka with acks=all. `kubelet` is 50 resources of 12 points. `sdk_metrics` is 10 scopes
of histograms, sums and gauges, with integers. `histograms` is 100 points of exponential histograms with 160 buckets. `spans` is
8 scopes with 12 attributes and exceptions. `java_logs` is 512 records of 60 loggers, each a scope, under a resource of 22
attributes. `structured_logs` is 500 records whose bodies are key-value lists of eight values.

Needs what bench/gateway.py needs, and for Rotel `tests/clients/peers rotel-agent`; without it there is no column for Rotel.
Rotel answers before it has sent the request to Kafka, and does not accept JSON. Its work after the answers is counted too: a
round ends when its process is idle.

With --keep the results go into bench/results/shapes.json, in the place of earlier results of the same row.
"""

import argparse
import gzip
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.ports import free_port

from bench import measuring, shape_bodies, tables
from bench.gateway import Pair
from bench.measuring import (
    Senders,
    Side,
    closed_loop,
    closed_loop_of,
    cpu_seconds,
    http_message,
    http_senders,
)

SUITE: Final = "shapes"
SAME: Final = ("shape", "encoding")
ENCODINGS: Final = ("protobuf", "gzip", "json")
WARM_S: Final = 0.5
# A process that uses less CPU than this, in seconds, in a tenth of a second is idle.
_RESTS_S: Final = 0.01
_REST_TIMEOUT_S: Final = 20


class Servers(Pair):
    """Starts also Rotel, if it is installed and accepts the encoding."""

    def __init__(self, here: Path, kafka: str, encoding: str) -> None:
        super().__init__(here, kafka)
        rotel = measuring.peer("rotel-agent")
        if encoding != "json" and shutil.which(rotel):
            http, grpc = self.ports["rotel"] = free_port(), free_port()
            self.commands["rotel"] = [
                *(rotel, "start", "--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"),
                *("--disable-batching", "--exporter", "kafka", "--kafka-exporter-brokers", kafka),
                *("--kafka-exporter-format", "protobuf", "--kafka-exporter-max-message-bytes", "20000000"),
                *("--kafka-exporter-acks", "all", "--kafka-exporter-compression", "none"),
            ]


def senders(port: int, shape: str, encoding: str) -> Senders:
    signal = shape_bodies.SIGNALS[shape]
    path = f"/v1/{signal}"
    if encoding == "json":
        return http_senders(port, [http_message(path, one, "application/json") for one in shape_bodies.json_bodies(shape)])
    bodies = shape_bodies.bodies(shape)
    if encoding == "gzip":
        return http_senders(
            port, [http_message(path, gzip.compress(one, 6), headers="Content-Encoding: gzip\r\n") for one in bodies]
        )
    return http_senders(port, [http_message(path, one) for one in bodies])


def rest(pid: int) -> float:
    """Wait until the process is idle, at most _REST_TIMEOUT_S. Return the CPU-seconds that it used until then."""
    began = cpu_seconds(pid)
    deadline = time.monotonic() + _REST_TIMEOUT_S
    while time.monotonic() < deadline:
        before = cpu_seconds(pid)
        time.sleep(0.1)
        if cpu_seconds(pid) - before < _RESTS_S:
            break
    return cpu_seconds(pid) - began


def measure(here: Path, kafka: str, shape: str, encoding: str, rounds: int, seconds: float) -> dict[str, Any]:
    items = shape_bodies.ITEMS[shape]
    with Servers(here, kafka, encoding) as servers:
        pids = servers.pids
        ports = {name: http for name, (http, _) in servers.ports.items()}
        sides = {name: Side() for name in pids}
        for name, port in ports.items():  # topics are created, and modules that are imported late are loaded
            closed_loop(senders(port, shape, encoding), WARM_S)
            rest(pids[name])
        for _ in range(rounds):
            for name, side in sides.items():
                taken, cpu_s = closed_loop_of(senders(ports[name], shape, encoding), seconds, pids[name])
                side.add(items, cpu_s + rest(pids[name]), taken)
        found = {name: side.result(measuring.memory_mib(pids[name])) for name, side in sides.items()}
    size = sum(map(len, shape_bodies.bodies(shape))) // len(shape_bodies.bodies(shape))
    return {"shape": shape, "encoding": encoding, "items": items, "bytes": size, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default=",".join(shape_bodies.SIGNALS))
    parser.add_argument("--encoding", default=",".join(ENCODINGS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    measuring.leave_the_first_core()
    with tempfile.TemporaryDirectory() as directory, measuring.kafka(Path(directory)) as kafka:
        print(tables.HEADS[SUITE])
        for encoding in options.encoding.split(","):
            for shape in options.shape.split(","):
                result = measure(Path(directory), kafka, shape, encoding, options.rounds, options.seconds)
                print(tables.shape_row(result), flush=True)
                if options.keep:
                    measuring.keep(SUITE, result, SAME)


if __name__ == "__main__":
    main()
