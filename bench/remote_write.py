"""Measures samples per CPU-second of the gateway, Prometheus and VictoriaMetrics, for remote write 1.0.

    python bench/remote_write.py [--samples 2000,10000] [--connections 8] [--rounds 3] [--seconds 3] [--keep]

The gateway writes to Kafka with acks=all, the others write into their own storage. Needs Kafka's jars and Prometheus in $PEERS,
by default ~/.cache/infrasage-peers, and victoria-metrics on the path. Each server runs on one core, the client on another. The
rounds of the servers alternate, so that other work of the machine affects all alike. The results are the ratios of the medians,
by CPU time of the server's process and not by wall time. All servers are started again for each row, so that their memory
maximum is of that row.

Each connection is a sender with its own series and one sample a series. Each of its requests has the same series, with later
times and other values, as scrapes do. A series has 10.4 labels. Half of the series are the node exporter's, half the kubelet's.
Requests are made before the clock starts, and are the same for all servers.

With --keep the results go into bench/results/remote_write.json, in the place of earlier results of the same row.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import struct
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import cramjam

sys.path.append(str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from support.ports import free_port
from support.processes.kafka import Kafka
from support.references.remote_write import length_delimited, varint

from bench.measuring import memory_mib, peer, server

RESULTS = Path(__file__).resolve().parent / "results/remote_write.json"
NAMES = ("ours", "prometheus", "victoria_metrics")
PATHS = {"ours": "/api/v1/prometheus/write", "prometheus": "/api/v1/write", "victoria_metrics": "/api/v1/write"}
# The time between two scrapes. It is shorter than usual, so that all times of a run are within the hours that each server
# accepts.
SCRAPE_INTERVAL_MS = 1_000
# More samples a second than any server is expected to accept. This many are made for a round, so that they suffice.
SAMPLES_A_SECOND_MAX = 1_500_000
# The number of a target's series, as the node exporter has on a small host.
SERIES_OF_A_TARGET = 500
MODES = ("idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user")


def labels_of(sender: int, n: int) -> dict[str, str]:
    """Return the labels of a sender's series number `n`, as a scrape and its target's discovery set them."""
    target, at = divmod(n, SERIES_OF_A_TARGET)
    node = f"ip-10-{sender}-{target}-17.eu-west-1.compute.internal"
    if target % 2 == 0:
        if at < 128:
            own = {"__name__": "node_cpu_seconds_total", "cpu": str(at // 8), "mode": MODES[at % 8]}
        elif at < 300:
            own = {"__name__": f"node_network_receive_{at // 4}_bytes_total", "device": f"eth{at % 4}"}
        else:
            own = {"__name__": f"node_memory_Active{at}_bytes"}
        return {
            **own,
            "cluster": "production-eu-west-1",
            "env": "production",
            "instance": f"10.{sender}.{target}.17:9100",
            "job": "node-exporter",
            "namespace": "monitoring",
            "node": node,
            "pod": f"prometheus-node-exporter-{sender * 1000 + target:05x}",
            "service": "prometheus-node-exporter",
        }
    family, container = divmod(at, 25)
    return {
        "__name__": f"container_network_{family}_usage_bytes_total",
        "cluster": "production-eu-west-1",
        "container": "application",
        "env": "production",
        "image": f"registry.example.com/shop/checkout:v1.{container}.0",
        "instance": f"10.{sender}.{target}.17:10250",
        "job": "kubelet",
        "metrics_path": "/metrics/cadvisor",
        "namespace": f"team-{container % 5}",
        "node": node,
        "pod": f"checkout-{container}-6d4cf56db6-{sender:02x}{target:03x}",
    }


class Sender:
    """A Prometheus that sends the same series repeatedly. About a third of the series do not change."""

    def __init__(self, number: int, samples: int) -> None:
        self._random: Final = random.Random(number)
        self._labels: Final = [
            b"".join(
                length_delimited(1, length_delimited(1, name.encode()) + length_delimited(2, value.encode()))
                for name, value in sorted(labels_of(number, n).items())
            )
            for n in range(samples)
        ]
        self._values: Final = [self._random.random() * 1e6 for _ in range(samples)]
        self._rates: Final = [self._random.choice((0.0, 1.0, 12.5)) for _ in range(samples)]

    def request(self, time_ms: int) -> bytes:
        """Return a WriteRequest in snappy's block format, as HTTP carries it."""
        moment = b"\x10" + varint(time_ms)
        series: list[bytes] = []
        for n, labels in enumerate(self._labels):
            self._values[n] += self._rates[n]
            sample = b"\x09" + struct.pack("<d", self._values[n]) + moment
            series.append(length_delimited(1, labels + length_delimited(2, sample)))
        return bytes(cramjam.snappy.compress_raw(b"".join(series)))


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process, of all threads, in nanoseconds. /proc counts in ticks of 10 ms."""
    return time.clock_gettime_ns(~pid << 3 | 2)


async def load(port: int, path: str, requests: Sequence[Iterator[bytes]], seconds: float) -> list[float]:
    """Send the requests, by one connection for each sequence, until time or requests are over. Return the durations, in
    seconds."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n"
        "X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: "
    ).encode()

    async def send(bodies: Iterator[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < until and (body := next(bodies, None)) is not None:
            writer.write(b"%s%d\r\n\r\n%s" % (head, len(body), body))
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith((b"HTTP/1.1 204 ", b"HTTP/1.1 200 ")):
                raise RuntimeError((answer + await reader.read(1000)).decode())
            length = next((line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            await reader.readexactly(int(length.partition(b":")[2]))
            taken.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(send(bodies) for bodies in requests))
    return taken


class _Servers:
    """The gateway, Prometheus and VictoriaMetrics, all new."""

    def __init__(self, here: Path, kafka: str) -> None:
        self._here: Final = here
        self._ports: Final = {name: free_port() for name in NAMES}
        settings = here / "ours.toml"
        settings.write_text('[tenants]\nanonymous = "yes"\n[repetitions]\nwindow_s = 0\n')
        config = here / "prometheus.yml"
        config.write_text("global: {}\n")
        ours = str(Path(sys.executable).with_name("infrasage-collector"))
        prometheus = peer("prometheus")
        address = {name: f"127.0.0.1:{port}" for name, port in self._ports.items()}
        ports = ["--otlp-http-port", str(free_port()), "--grpc-port", str(free_port())]
        stores = {name: tempfile.mkdtemp(dir=here) for name in NAMES}
        self._commands: Final = {
            "ours": [
                *(ours, "gateway", "--kafka", kafka, "--config", str(settings)),
                *("--http-port", str(self._ports["ours"]), *ports),
            ],
            "prometheus": [
                *(prometheus, f"--config.file={config}", f"--web.listen-address={address['prometheus']}"),
                *("--web.enable-remote-write-receiver", f"--storage.tsdb.path={stores['prometheus']}", "--log.level=error"),
            ],
            "victoria_metrics": [
                *("victoria-metrics", f"-httpListenAddr={address['victoria_metrics']}"),
                *(f"-storageDataPath={stores['victoria_metrics']}", "-loggerLevel=ERROR"),
            ],
        }

    def measure(self, samples: int, connections: int, rounds: int, seconds: float) -> dict[str, Any]:
        """Return the result of one row."""
        rates: dict[str, list[float]] = defaultdict(list)
        taken: dict[str, list[float]] = defaultdict(list)
        senders = [Sender(number, samples) for number in range(connections)]
        # Times have to be within the hours that all three servers accept, and not in the future.
        time_ms = int(time.time() * 1000) - 12 * 3_600_000
        with ExitStack() as stack:
            pids = {
                name: stack.enter_context(server(command, self._ports[name], self._here / f"{name}.log"))
                for name, command in self._commands.items()
            }
            for n in range(-1, rounds):
                # The first round, in which topics and series are created, is not measured.
                prepared: list[list[bytes]] = [[] for _ in senders]
                for _ in range(2 if n < 0 else max(3, round(seconds * SAMPLES_A_SECOND_MAX / samples / connections))):
                    time_ms += SCRAPE_INTERVAL_MS
                    for sender, bodies in zip(senders, prepared, strict=True):
                        bodies.append(sender.request(time_ms))
                for name, pid in pids.items():
                    before = cpu_ns(pid)
                    times = asyncio.run(load(self._ports[name], PATHS[name], [iter(bodies) for bodies in prepared], seconds))
                    if n >= 0:
                        rates[name].append(len(times) * samples / (cpu_ns(pid) - before) * 1e9)
                        taken[name] += times
            memory = {name: memory_mib(pid) for name, pid in pids.items()}
        result: dict[str, Any] = {"samples": samples, "connections": connections}
        for name in NAMES:
            p50, p99 = (statistics.quantiles(taken[name], n=100)[at] * 1000 for at in (49, 98))
            rate = [round(one) for one in (min(rates[name]), statistics.median(rates[name]), max(rates[name]))]
            result[name] = {"rate": rate, "p50_ms": round(p50, 1), "p99_ms": round(p99, 1), "memory_mib": memory[name]}
        return result


def row(result: dict[str, Any]) -> str:
    sides = [result[name] for name in NAMES]
    rates = [" ".join(f"{rate:,}" for rate in side["rate"]) for side in sides]
    ratios = [f"**{sides[0]['rate'][1] / side['rate'][1]:.2f}**" for side in sides[1:]]
    others = [" / ".join(str(side[key]) for side in sides) for key in ("p50_ms", "p99_ms", "memory_mib")]
    return f"| {result['samples']:,} | {' | '.join([*rates, *ratios, *others])} |"


def keep(result: dict[str, Any]) -> None:
    """Write a result into bench/results, in the place of an earlier result of the same row."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    same = ("samples", "connections")
    kept = [one for one in kept if any(one[key] != result[key] for key in same)] + [result]
    kept.sort(key=lambda one: (one["samples"], one["connections"]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", default="2000,10000")
    parser.add_argument("--connections", default="8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        here = Path(directory)
        kafka = Kafka(
            here / "kafka",
            auto__create__topics__enable="true",
            log__retention__bytes="1000000000",
            log__segment__bytes="200000000",
            log__retention__check__interval__ms="2000",
        )
        stack.callback(kafka.close)
        kafka.start()
        print("samples per CPU-second: minimum, median, maximum; our ratio to each; milliseconds; most memory in MiB")
        print("| samples | ours | Prometheus | VictoriaMetrics | to Prometheus | to VictoriaMetrics | p50 | p99 | memory |")
        print("|---|---|---|---|---|---|---|---|---|")
        for samples in map(int, options.samples.split(",")):
            for connections in map(int, options.connections.split(",")):
                result = _Servers(here, kafka.bootstrap).measure(samples, connections, options.rounds, options.seconds)
                print(row(result), flush=True)
                if options.keep:
                    keep(result)


if __name__ == "__main__":
    main()
