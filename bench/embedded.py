"""The embedded form: records a second through to storage, `serve` on two cores, its durable log and ClickHouse's engine in it.

    python bench/embedded.py [--signal metrics,logs,traces] [--rows 1000000] [--rounds 3] [--keep]

Needs nothing but the package. Sent over HTTP, 1,000 items a request, 8 connections, as fast as it is answered: an answer means
that the records are in the log, synced. Then the number of rows is asked for, by the socket of the query command, which answers
when all that was acknowledged is stored: the clock runs from the first request until that answer. The process may use two
cores, and the sender takes what it needs from them. Beside it, rows per CPU-second of the whole process.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import bodies, measuring, tables
from bench.measuring import cpu_seconds, http_message, http_senders, memory_mib, send_all, spread

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.processes.program import Program, started

from collector.api.query_client import ask

SUITE: Final = "embedded"
ITEMS: Final = 1000
# As many different ones; then they begin again.
REQUESTS: Final = 250
CONNECTIONS: Final = 8
CORES: Final = 2
STORED_TIMEOUT_S: Final = 300
TABLES: Final = {"metrics": "otel_metrics_gauge", "logs": "otel_logs", "traces": "otel_traces"}


def stored(program: Program, signal: str) -> int:
    """Rows, once everything acknowledged is stored."""
    answer = ask(program.data_dir, f"SELECT toUInt32(count()) AS rows FROM {TABLES[signal]}", "JSONEachRow")
    if answer.messages_behind:
        sys.exit(f"{answer.messages_behind} messages are not stored within {STORED_TIMEOUT_S} s")
    return int(json.loads(answer.body)["rows"])


def measure(here: Path, signal: str, rows: int, rounds: int) -> dict[str, Any]:
    program = Program(here / "data", query__wait_s=STORED_TIMEOUT_S, logging__level="warning")
    program.command = ["taskset", "-c", f"0-{min(CORES, os.cpu_count() or 1) - 1}", *program.command]
    messages = [http_message(f"/v1/{signal}", body) for body in bodies.scrapes(signal, ITEMS, REQUESTS)]
    rates: dict[str, list[float]] = {"stored_per_s": [], "acknowledged_per_s": [], "rate": []}
    with started(program):
        for number in range(rounds + 1):  # the first, which is short, does not count
            sent = rows if number else ITEMS * CONNECTIONS
            before = stored(program, signal)
            cpu_s, began = cpu_seconds(program.pid()), time.perf_counter()
            send_all(http_senders(program.otlp_http_port, messages, CONNECTIONS), sent // ITEMS)
            acknowledged_s = time.perf_counter() - began
            found = stored(program, signal) - before
            stored_s = time.perf_counter() - began
            if found != sent:
                sys.exit(f"{found} rows of {signal} are stored, {sent} were sent")
            if number:
                rates["stored_per_s"].append(rows / stored_s)
                rates["acknowledged_per_s"].append(rows / acknowledged_s)
                rates["rate"].append(rows / (cpu_seconds(program.pid()) - cpu_s))
        memory = memory_mib(program.pid())
    result: dict[str, Any] = {"signal": signal, "rows": rows, "memory_mib": memory}
    return result | {key: [round(one) for one in spread(values)] for key, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signal", default="metrics,logs,traces")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    print(tables.HEADS[SUITE])
    for signal in options.signal.split(","):
        with tempfile.TemporaryDirectory() as directory:
            result = measure(Path(directory), signal, options.rows // ITEMS * ITEMS, options.rounds)
        print(tables.embedded_row(result), flush=True)
        if options.keep:
            measuring.keep(SUITE, result, ("signal",))


if __name__ == "__main__":
    main()
