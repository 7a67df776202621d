"""Killed at any moment, a writer that repeats its last range stores every item and receipt once, in every table."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import store_writer

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC
from collector.store.clickhouse import ClickHouseStore

_ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("INFRASAGE_TEST_KILLS", "3"))
_START_MAX_S = 30
_TABLES = {
    METRICS_TOPIC: ("otel_metrics_gauge", "otel_metrics_sum", "otel_metrics_histogram"),
    LOGS_TOPIC: ("otel_logs",),
}


def progress(directory: Path) -> str:
    path = directory / "progress"
    return path.read_text() if path.exists() else ""


def run_and_kill(directory: Path, mode: str, seconds: float) -> None:
    """One life of the writer, ended by SIGKILL so many seconds after it has got to work."""
    before = progress(directory)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(_ROOT / part) for part in ("", "proto", "tests"))}
    with (directory / "errors").open("ab") as errors:
        writer = subprocess.Popen([sys.executable, store_writer.__file__, str(directory), mode], env=environment, stderr=errors)
        try:
            deadline = time.monotonic() + _START_MAX_S
            while progress(directory) == before:
                assert writer.poll() is None, (directory / "errors").read_text()
                assert time.monotonic() < deadline, f"nothing written within {_START_MAX_S} s"
                time.sleep(0.01)
            time.sleep(seconds)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()


def wrong_counts(directory: Path) -> list[str]:
    """What the store has otherwise than once: a line a message and table."""
    following, in_doubt = store_writer.read_progress(directory)
    store = ClickHouseStore.embedded(directory / "store")
    try:
        store.apply_schema()
        if in_doubt:
            topic, payload = store_writer.numbered_range(following)
            store.insert(topic, [payload], f"{topic}/0/{following}-{following + 1}")
            following += 1
        expected: dict[str, set[str]] = {}
        for number in range(following):
            topic, _ = store_writer.numbered_range(number)
            for table in _TABLES.get(topic, ("otel_traces", "otel_traces_trace_id_ts")):
                expected.setdefault(table, set()).update(
                    f"{number}\t{part}\t{store_writer.ITEMS_PER_KIND}" for part in range(store_writer.MESSAGES)
                )
            receipts = expected.setdefault("telemetry_batches", set())
            receipts.update(f"{number}\t{part}\t1" for part in range(store_writer.MESSAGES))
        wrong = []
        for table, lines in expected.items():
            counted = "sum(SpanCount)" if table.endswith("_ts") else "count()"
            sql = (
                "SELECT reinterpretAsUInt64(reverse(substring(UUIDStringToNum(toString(BatchId)), 11))) AS number, BatchPart, "
                f"{counted} FROM {table} GROUP BY number, BatchPart"
            )
            found = set(store.query(sql, "TabSeparated").decode().splitlines())
            wrong += [f"{table}: {line}" for line in sorted(found ^ lines)]
        return wrong
    finally:
        store.close()


@pytest.mark.parametrize("mode", ["token", "lookup"])
def test_kill(mode: str, tmp_path: Path) -> None:
    """Killed several times, by its tokens alone and with the lookup before a repeat: nothing is missing, nothing is twice."""
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for _ in range(KILLS):
        run_and_kill(tmp_path, mode, moments.uniform(0.0, 0.4))
    assert wrong_counts(tmp_path) == [], f"seed {seed}"
