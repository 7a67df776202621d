"""Measures rows per CPU-second of the writer's own process and of ClickHouse's engine, from Kafka to the store.

    python bench/writer.py [--signal metrics,logs,traces] [--rows 2000000] [--rounds 3] [--keep]

Needs Kafka's jars in $PEERS. The engine is the embedded one (chDB), in a separate process behind a small HTTP bridge of the
tests (tests/support/processes/clickhouse_bridge.py). Its CPU time includes the bridge, and the merges that follow. Inserted
parts are synced, as by default.

The topic is filled through the gateway with requests of 1,000 items, while the writer is stopped (SIGSTOP). Then the writer
continues. The CPU time of both processes counts until the number of rows shows that all are stored. The writer has a separate
core; the engine shares the other with Kafka.
"""

import argparse
import os
import signal as signals
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import bodies, measuring, tables
from bench.measuring import cpu_seconds, http_message, http_senders, memory_mib, send_all, spread

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.processes.clickhouse_server import Bridge, bridge
from support.processes.program import WriterCommand, metric, started

SUITE: Final = "writer"
ITEMS: Final = 1000
# The number of different requests. After the last, the first is sent again.
REQUESTS: Final = 250
CONNECTIONS: Final = 8
TIMEOUT_S: Final = 300
TABLES: Final = {"metrics": "otel_metrics_gauge", "logs": "otel_logs", "traces": "otel_traces"}


def wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            sys.exit(f"not {what} within {TIMEOUT_S} s")
        time.sleep(0.2)


def ask(engine: Bridge, sql: str) -> int:
    """Return the one number of the answer."""
    headers = {"X-ClickHouse-User": engine.user, "X-ClickHouse-Key": engine.password}
    with urlopen(Request(f"{engine.url}/?database={engine.database}", sql.encode(), headers)) as answer:
        return int(answer.read())


class Way:
    """A running gateway, writer and engine."""

    def __init__(self, gateway: measuring.Gateway, writer: WriterCommand, engine: Bridge) -> None:
        self._gateway = gateway
        self._writer = writer
        self._engine = engine

    def fill(self, signal: str, rows: int) -> None:
        messages = [http_message(f"/v1/{signal}", body) for body in bodies.scrapes(signal, ITEMS, REQUESTS)]
        send_all(http_senders(self._gateway.otlp_port, messages, CONNECTIONS), rows // ITEMS)

    def _count(self, signal: str) -> int:
        """Return the number of rows by a query to the engine, which is cheap. The writer's page of metrics would cost more than
        its work."""
        return ask(self._engine, f"SELECT count() FROM {TABLES[signal]}")

    def _inserts(self, signal: str) -> float:
        return metric(self._writer.http, "infrasage_writer_insert_duration_seconds_count", f'topic="infrasage.{signal}"')

    def measure(self, signal: str, rows: int, rounds: int) -> dict[str, Any]:
        self.fill(signal, ITEMS)  # modules that are imported late are loaded now
        wait(lambda: self._count(signal) == ITEMS, "stored")
        assert self._engine.process is not None
        pids = {"writer": self._writer.worker(), "engine": self._engine.process.pid}
        rates: dict[str, list[float]] = {name: [] for name in pids}
        stored_per_s: list[float] = []
        inserts = self._inserts(signal)
        for _ in range(rounds):
            expected = self._count(signal) + rows
            os.kill(pids["writer"], signals.SIGSTOP)
            try:
                self.fill(signal, rows)
                before = {name: cpu_seconds(pid) for name, pid in pids.items()}
                began = time.perf_counter()
            finally:
                os.kill(pids["writer"], signals.SIGCONT)
            wait(lambda: self._count(signal) >= expected, "stored")  # noqa: B023 - called before the next
            stored_per_s.append(rows / (time.perf_counter() - began))
            rates["writer"].append(rows / (cpu_seconds(pids["writer"]) - before["writer"]))
            wait(lambda: ask(self._engine, "SELECT count() FROM system.merges") == 0, "merged")
            rates["engine"].append(rows / (cpu_seconds(pids["engine"]) - before["engine"]))
            if (found := self._count(signal)) != expected:
                sys.exit(f"{found} rows of {signal} are stored, not {expected}")
        result: dict[str, Any] = {
            "signal": signal,
            "rows": rows,
            "rows_an_insert": round(rows * rounds / (self._inserts(signal) - inserts)),
            "stored_per_s": [round(one) for one in spread(stored_per_s)],
        }
        for name, pid in pids.items():
            result[name] = {"rate": [round(one) for one in spread(rates[name])], "memory_mib": memory_mib(pid)}
        return result


def measure(here: Path, kafka: str, signal: str, rows: int, rounds: int) -> dict[str, Any]:
    """Return the result of one signal. The gateway, the writer and the engine are new, so that their memory is this
    signal's."""
    gateway = measuring.Gateway(here, kafka)
    with measuring.server(gateway.command, gateway.otlp_port, gateway.log), bridge(here / "engine") as engine:
        writer = WriterCommand(
            here / "writer",
            kafka__bootstrap=kafka,
            # The writer must not lose its partitions while it is stopped.
            kafka__session_timeout_s=600,
            kafka__group_id=f"bench-{signal}",
            clickhouse__url=engine.url,
            clickhouse__user=engine.user,
            clickhouse__password=engine.password,
            clickhouse__database=engine.database,
            logging__level="warning",
        )
        writer.command = ["taskset", "-c", "0", *writer.command]
        with started(writer):
            return Way(gateway, writer, engine).measure(signal, rows, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signal", default="metrics,logs,traces")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    measuring.leave_the_first_core()
    print(tables.HEADS[SUITE])
    for signal in options.signal.split(","):
        with tempfile.TemporaryDirectory() as directory, measuring.kafka(Path(directory)) as kafka:
            result = measure(Path(directory), kafka, signal, options.rows // ITEMS * ITEMS, options.rounds)
        print(tables.writer_row(result), flush=True)
        if options.keep:
            measuring.keep(SUITE, result, ("signal",))


if __name__ == "__main__":
    main()
