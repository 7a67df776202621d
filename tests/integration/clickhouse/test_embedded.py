"""The embedded store beyond its contract: schema, options, threads, limits, and what it does when it can't."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from support import batches
from support.records import encoded
from support.reopened_store import reopening
from support.store_ranges import LETTERS, MESSAGES, TABLES, payload, topic_of, wrong_counts
from support.store_templates import copy_store
from support.waiting import until

from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC
from collector.store.clickhouse import _NEWEST_ITEMS, ClickHouseStore
from collector.store.contract import StoreError, StoreUnavailable
from collector.store.insert import Insert
from collector.store.options import QueryLimits, RequestedTables, StoreOptions
from collector.store.retention import Retention

Open = Callable[..., ClickHouseStore]


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    """Opens the store of this test; closes what it had open before, as a process has one at a time."""
    copy_store(tmp_path / "store")
    with reopening(tmp_path / "store") as reopen:

        def open_(options: StoreOptions = StoreOptions()) -> ClickHouseStore:  # noqa: B008 - immutable
            store = reopen(options)
            store.apply_schema()
            return store

        yield open_


def text(store: ClickHouseStore, sql: str) -> str:
    return store.query(sql, "TabSeparated").decode()


def engine(store: ClickHouseStore, table: str) -> str:
    return text(store, f"SELECT engine_full FROM system.tables WHERE name = '{table}'")


def test_reopened(open_store: Open) -> None:
    """What was stored is there after closing and opening; the schema is applied once."""
    payload = encoded(batches.gauge(1, 3))
    open_store().insert(METRICS_TOPIC, [payload], "t")
    store = open_store()
    assert store.apply_schema() == ((), ())
    assert store.holds(METRICS_TOPIC, payload)
    store.insert(METRICS_TOPIC, [payload], "t")
    assert text(store, "SELECT count() FROM otel_metrics_gauge") == "3\n"


def test_tokens_outlast_a_restart(open_store: Open) -> None:
    """Each table keeps them, also of the engine that has just applied the schema: a repetition stores nothing."""
    for _ in range(2):
        store = open_store(StoreOptions(RequestedTables(Retention(dead_letters=None))))
        for number in range(4):
            store.insert(topic_of(number), [payload(number)], f"token {number}")
        assert [] == wrong_counts(store, range(4))
        for table in TABLES[DEAD_LETTERS_TOPIC]:
            assert f"{MESSAGES * LETTERS}\n" == text(store, f"SELECT count() FROM {table}")


def test_retention(open_store: Open) -> None:
    """Retention is what the options say at this start: set, changed and taken away."""
    assert "TTL" not in engine(open_store(), "otel_logs")
    store = open_store(StoreOptions(RequestedTables(Retention(30))))
    assert "TTL toDateTime(Timestamp) + toIntervalDay(30)" in engine(store, "otel_logs")
    assert "TTL toDateTime(TimeUnix) + toIntervalDay(30)" in engine(store, "otel_metrics_summary")
    assert "TTL toDateTime(Start) + toIntervalDay(30)" in engine(store, "otel_traces_trace_id_ts")
    assert "toIntervalDay(7)" in engine(open_store(StoreOptions(RequestedTables(Retention(7)))), "otel_traces")
    assert "TTL" not in engine(open_store(), "otel_traces")


def test_retention_of_dead_letters(open_store: Open) -> None:
    """They have one of their own, and events stay longer than the entries that they are about; receipts go with telemetry."""
    store = open_store(StoreOptions(RequestedTables(Retention(3))))
    assert "TTL toDateTime(KeptAt) + toIntervalDay(30)" in engine(store, "telemetry_dead_letters")
    assert "TTL toDateTime(At) + toIntervalDay(37)" in engine(store, "telemetry_dead_letter_events")
    assert "TTL toDateTime(ReceivedAt) + toIntervalDay(3)" in engine(store, "telemetry_batches")
    store = open_store(StoreOptions(RequestedTables(Retention(dead_letters=None))))
    assert "TTL" not in engine(store, "telemetry_dead_letters")
    assert "TTL" not in engine(store, "telemetry_dead_letter_events")
    assert "toIntervalDay(1)" in engine(
        open_store(StoreOptions(RequestedTables(Retention(dead_letters=1)))), "telemetry_dead_letters"
    )


def test_old_rows_go(open_store: Open) -> None:
    """Rows past their days are dropped, with their day's partition."""
    store = open_store(StoreOptions(RequestedTables(Retention(1))))
    batch = batches.logs(1, "t")
    for log in batch.records[0].log_records:
        log.time_unix_nano = 10**18  # 2001
    store.insert(LOGS_TOPIC, [encoded(batch)], "t")
    deadline = time.monotonic() + 20
    while text(store, "SELECT count() FROM otel_logs") != "0\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_fsync(open_store: Open) -> None:
    """Inserts are on disk when they end, unless the options say otherwise."""
    assert "fsync_after_insert = 1, fsync_part_directory = 1" in engine(open_store(), "otel_logs")
    assert "fsync_after_insert = 0, fsync_part_directory = 0" in engine(
        open_store(StoreOptions(RequestedTables(fsync=False))), "otel_logs"
    )
    assert "fsync_after_insert = 1, fsync_part_directory = 1" in engine(open_store(), "otel_logs")


def test_inserts_beside_queries(open_store: Open) -> None:
    """While a long query runs, inserts go on, other queries are answered, and closing does not wait for it."""
    store = open_store()
    failed: list[str] = []

    def long_query() -> None:
        try:
            store.query("SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1", "TabSeparated")
        except StoreError as error:
            failed.append(str(error))

    running = threading.Thread(target=long_query)
    running.start()
    time.sleep(0.2)
    for number in range(3):
        store.insert(METRICS_TOPIC, [encoded(batches.gauge(number, 1))], f"t{number}")
    store.ping()
    assert text(store, "SELECT count() FROM otel_metrics_gauge") == "3\n"
    assert running.is_alive()
    began = time.monotonic()
    store.close()
    running.join()
    assert time.monotonic() - began < 10
    assert "QUERY_WAS_CANCELLED" in failed[0]


@pytest.mark.parametrize(
    ("limits", "sql", "message"),
    [
        (
            QueryLimits(time_max_s=1.5),  # the next query has as long, on a machine that is busy
            "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1",
            "TIMEOUT_EXCEEDED",
        ),
        (QueryLimits(memory_bytes_max=2**24), "SELECT groupArray(number) FROM numbers(100000000)", "MEMORY_LIMIT_EXCEEDED"),
        (QueryLimits(result_rows_max=10), "SELECT number FROM numbers(11)", "TOO_MANY_ROWS"),
        (QueryLimits(result_bytes_max=100), "SELECT repeat('x', 1000 + number) FROM numbers(10)", "TOO_MANY_ROWS_OR_BYTES"),
    ],
    ids=["time", "memory", "rows", "bytes"],
)
def test_query_limits(open_store: Open, limits: QueryLimits, sql: str, message: str) -> None:
    """A query past a limit fails, and the next one is answered."""
    store = open_store(StoreOptions(queries=limits))
    with pytest.raises(StoreError, match=message):
        store.query(sql, "TabSeparated")
    assert text(store, "SELECT 1") == "1\n"


def test_queries_at_once(open_store: Open) -> None:
    """A query that finds all places taken waits for one, and not for ever."""
    store = open_store(StoreOptions(queries=QueryLimits(concurrent_max=1, time_max_s=1.0)))
    slow = threading.Thread(target=store.query, args=("SELECT sleep(0.7)", "TabSeparated"))
    slow.start()
    time.sleep(0.1)
    assert text(store, "SELECT 1") == "1\n"
    slow.join()


def test_our_own_statements_do_not_wait_for_users(open_store: Open) -> None:
    """A user's takes all places, and longer than any may wait: the engine does not look at the time while it sleeps."""
    store = open_store(StoreOptions(queries=QueryLimits(concurrent_max=1, time_max_s=0.5)))

    def ask() -> None:
        with contextlib.suppress(StoreError):
            store.query("SELECT sleep(3)", "TabSeparated")

    user = threading.Thread(target=ask)
    user.start()
    until(lambda: store._queries.running)
    with pytest.raises(StoreUnavailable, match="1 queries are running"):
        store.query("SELECT 1", "TabSeparated")
    assert b"1\n" == store.read("SELECT 1", "TabSeparated")
    assert user.is_alive()
    user.join()


def test_insert_memory(open_store: Open) -> None:
    """An insert that lacks memory is to be tried again: it is not the data's fault."""
    store = open_store(StoreOptions(insert_memory_bytes_max=2**20))
    with pytest.raises(StoreUnavailable, match="MEMORY_LIMIT_EXCEEDED"):
        store.insert(METRICS_TOPIC, [encoded(batches.gauge(1, 20_000))], "t")
    assert text(store, "SELECT count() FROM otel_metrics_gauge") == "0\n"


def test_opened_twice(open_store: Open, tmp_path: Path) -> None:
    """Another process can't open the directory, and its error names the directory."""
    open_store()
    program = (
        "import sys; from pathlib import Path; from collector.store.clickhouse import ClickHouseStore\n"
        "from collector.store.contract import StoreUnavailable\n"
        "try: ClickHouseStore.embedded(Path(sys.argv[1]))\n"
        "except StoreUnavailable as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.startswith(f"cannot open the store in {tmp_path / 'store'}: ")


def test_any_directory(tmp_path: Path) -> None:
    """The store works in a directory of any name."""
    store = ClickHouseStore.embedded(tmp_path / "with space, naïve ☃, a&b=c, a:b, it's")
    try:
        store.apply_schema()
        store.insert(METRICS_TOPIC, [encoded(batches.gauge(1, 1))], "t")
        assert text(store, "SELECT count() FROM otel_metrics_gauge") == "1\n"
    finally:
        store.close()


def test_current_directory(tmp_path: Path) -> None:
    """Nothing is left in the directory that the program runs in. In a process of its own: the engine asks once where it is."""
    program = (
        "import sys; from pathlib import Path; from collector.broker.contract import METRICS_TOPIC\n"
        "from collector.store.clickhouse import ClickHouseStore\n"
        "from support import batches; from support.records import encoded\n"
        "store = ClickHouseStore.embedded(Path(sys.argv[1])); store.apply_schema()\n"
        "store.insert(METRICS_TOPIC, [encoded(batches.gauge(1, 1))], 't'); store.close()\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(root / part) for part in ("", "proto", "tests"))}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "store")], check=True, cwd=elsewhere, env=environment)
    assert list(elsewhere.iterdir()) == []


def test_no_schema(tmp_path: Path) -> None:
    """The store reports missing tables as something that may pass."""
    store = ClickHouseStore.embedded(tmp_path / "store")
    try:
        with pytest.raises(StoreUnavailable, match="UNKNOWN_TABLE"):
            store.insert(METRICS_TOPIC, [encoded(batches.gauge(1, 1))], "t")
    finally:
        store.close()


def test_newest_items_are_known_without_reading_rows(open_store: Open) -> None:
    """They are known by signal, over all of its tables, since the engine has them of each part. A signal may have none."""
    store = open_store()
    assert {} == store.newest_items()
    gauges = batches.gauge(1, 3)
    store.insert(METRICS_TOPIC, [encoded(gauges)], "t")
    newest = float(text(store, "SELECT toUnixTimestamp64Nano(max(TimeUnix)) / 1e9 FROM otel_metrics_gauge WHERE TimeUnix > 0"))
    assert {"metrics": newest} == store.newest_items()
    plan = text(store, f"EXPLAIN {_NEWEST_ITEMS}")
    assert "otel_" not in plan
    assert "_minmax_count_projection" in plan


def test_view_prunes(open_store: Open) -> None:
    """The view telemetry passes conditions down: other services and times are not read."""
    store = open_store()
    store.insert(METRICS_TOPIC, [encoded(batches.gauge(1, 30_000))], "t")
    sql = "EXPLAIN indexes = 1 SELECT count() FROM telemetry WHERE timestamp > now64() + 86400 AND service_id = 'x'"
    plan = text(store, sql)
    assert "PrimaryKey" in plan
    assert re.search(r"Granules: 0/\d+", plan)


def merged_part(store: ClickHouseStore) -> Path:
    """Insert three messages of one point each, and merge their parts."""
    for number in range(3):
        store.insert(METRICS_TOPIC, [encoded(batches.gauge(number, 1))], f"{number}")
    store._command("OPTIMIZE TABLE otel_metrics_gauge FINAL")
    found = text(store, "SELECT path FROM system.parts WHERE active AND table = 'otel_metrics_gauge'")
    return Path(found.strip())


def test_a_damaged_part_is_put_aside_while_its_sources_are_there(open_store: Open, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that ran full in a merge leaves such a part. The look-up of a range in doubt would fail for ever."""
    store = open_store()
    part = merged_part(store)
    next(part.glob("*mrk*")).write_bytes(b"")
    store._command("SYSTEM DROP MARK CACHE")
    for number in range(3):
        assert store.holds(METRICS_TOPIC, encoded(batches.gauge(number, 1)))
    assert "3\n" == text(store, "SELECT count() FROM otel_metrics_gauge")
    store.insert(METRICS_TOPIC, [encoded(batches.gauge(3, 1))], "3")
    assert "4\n" == text(store, "SELECT count() FROM otel_metrics_gauge")
    assert 1 == "".join(capsys.readouterr()).count("a part of a table is damaged and was put aside")
    assert 1 == store.damaged_parts()


def test_an_insert_that_left_a_damaged_part_is_repeated(open_store: Open, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that was full at one of the tables: the look-up puts the part aside, and the same token is no repetition then."""
    store = open_store()
    payload = encoded(batches.gauge(1, 2))
    store.insert(METRICS_TOPIC, [payload], "t")
    part = Path(text(store, "SELECT path FROM system.parts WHERE active AND table = 'otel_metrics_gauge'").strip())
    next(part.glob("*mrk*")).write_bytes(b"")
    store._command("SYSTEM DROP MARK CACHE")
    assert not store.holds(METRICS_TOPIC, payload)
    store.insert(METRICS_TOPIC, [payload], "t")
    store.insert(METRICS_TOPIC, [payload], "t")
    assert store.holds(METRICS_TOPIC, payload)
    assert "2\n" == text(store, "SELECT count() FROM otel_metrics_gauge")
    assert 1 == "".join(capsys.readouterr()).count("a part of a table is damaged and was put aside")


def test_a_part_that_was_put_aside_is_reported(open_store: Open, capsys: pytest.CaptureFixture[str]) -> None:
    """It is reported at each start, as long as it is there. The engine is silent about it, and its rows may be missing."""
    part = merged_part(open_store())
    open_store()
    assert "put aside" not in "".join(capsys.readouterr())
    next(part.glob("*mrk*")).write_bytes(b"")
    for _ in range(2):
        open_store()
        said = "".join(capsys.readouterr())
        assert 1 == said.count("a part of a table is damaged and was put aside")
        assert "otel_metrics_gauge" in said


def take_store(store: Path) -> Path:
    """Rename it."""
    return store.rename(store.with_name("away"))


def take_table(store: Path) -> Path:
    """Rename the directory that has the rows of one table."""
    table = next(store.glob("store/*/*/*_0/data.bin")).parents[1]
    return table.rename(table.with_name("away"))


@pytest.mark.parametrize("take", [take_store, take_table])
def test_a_store_that_is_moved_away_takes_nothing(open_store: Open, tmp_path: Path, take: Callable[[Path], Path]) -> None:
    """The engine would make its directories again: neither what it says of inserts nor what it finds is believed."""
    store, payload = open_store(), encoded(batches.gauge(1, 3))
    store.insert(METRICS_TOPIC, [payload], "t")
    take(tmp_path / "store")
    ways: tuple[Callable[[], object], ...] = (
        lambda: store.insert(METRICS_TOPIC, [encoded(batches.gauge(2, 3))], "u"),
        lambda: store.holds(METRICS_TOPIC, payload),
        lambda: store.complete(METRICS_TOPIC, payload, "t"),
        lambda: store.freeze("name"),
    )
    for way in ways:
        with pytest.raises(StoreUnavailable, match=r"was removed while it was in use: put it back, and restart"):
            way()
    assert not (tmp_path / "store" / "shadow").exists()


def test_a_store_that_is_moved_away_during_an_insert_takes_nothing(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The insert succeeds, and is not believed."""
    store = open_store()
    sessions = store._sessions()

    def move_and_insert(*arguments: Any) -> Any:
        take_store(tmp_path / "store")
        return sessions.insert(*arguments)

    monkeypatch.setattr(store, "_connected", sessions._replace(insert=cast("Insert", move_and_insert)))
    with pytest.raises(StoreUnavailable, match=r"was (removed|replaced) while it was in use"):
        store.insert(METRICS_TOPIC, [encoded(batches.gauge(1, 3))], "t")


def test_a_store_that_was_away_is_used_after_a_restart(open_store: Open, tmp_path: Path) -> None:
    """Merges may have gone elsewhere meanwhile. What it has is as it was, and what is in doubt is inserted."""
    store, payload = open_store(), encoded(batches.gauge(1, 3))
    store.insert(METRICS_TOPIC, [payload], "t")
    away = take_store(tmp_path / "store")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.insert(METRICS_TOPIC, [encoded(batches.gauge(2, 3))], "u")
        if away.exists():
            shutil.rmtree(tmp_path / "store", ignore_errors=True)  # what the engine has made meanwhile
            away.rename(tmp_path / "store")
    store = open_store()
    assert store.holds(METRICS_TOPIC, payload)
    store.insert(METRICS_TOPIC, [encoded(batches.gauge(2, 3))], "u")
    assert text(store, "SELECT count() FROM otel_metrics_gauge") == "6\n"
