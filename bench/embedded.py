"""Measures the embedded form: records a second that `serve` accepts and stores on two cores, with its log and engine.

    python bench/embedded.py [--signal metrics,logs,traces] [--rows 1000000] [--rounds 3] [--keep]

Needs only the package. Requests of 1,000 items are sent over HTTP by 8 connections, each as soon as the last one is answered.
An answer means that the records are in the log and synced. Then the number of rows is queried over the query command's socket,
which answers when all acknowledged records are stored. The time is measured from the first request until that answer.

The process may use two cores. The sender shares these cores. Rows per CPU-second of the whole process are measured as well.
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
# The number of different requests. After the last, the first is sent again.
REQUESTS: Final = 250
CONNECTIONS: Final = 8
CORES: Final = 2
STORED_TIMEOUT_S: Final = 300
TABLES: Final = {"metrics": "otel_metrics_gauge", "logs": "otel_logs", "traces": "otel_traces"}


def stored(program: Program, signal: str) -> int:
    """Wait until everything acknowledged is stored, and return the number of rows."""
    answer = ask(program.data_dir, f"SELECT toUInt32(count()) AS rows FROM {TABLES[signal]}", "JSONEachRow")
    if answer.messages_behind:
        sys.exit(f"{answer.messages_behind} messages are not stored within {STORED_TIMEOUT_S} s")
    return int(json.loads(answer.body)["rows"])


def measure(here: Path, signal: str, rows: int, rounds: int) -> dict[str, Any]:
    """Return the rates of one signal: minimum, median and maximum over the rounds."""
    program = Program(here / "data", query__wait_s=STORED_TIMEOUT_S, logging__level="warning")
    program.command = ["taskset", "-c", f"0-{min(CORES, os.cpu_count() or 1) - 1}", *program.command]
    messages = [http_message(f"/v1/{signal}", body) for body in bodies.scrapes(signal, ITEMS, REQUESTS)]
    rates: dict[str, list[float]] = {"stored_per_s": [], "acknowledged_per_s": [], "rate": []}
    with started(program):
        for number in range(rounds + 1):  # the first round is short, and is not measured
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
