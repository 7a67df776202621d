"""The writer into a ClickHouse server: killed at every step, answered or not, overloaded, away: every point is there once."""

import asyncio
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from support.batches import gauge
from support.fakes.brokers import LIMITS, TOPICS
from support.processes.clickhouse_server import Bridge, Server, bridge, server
from support.processes.commands import command, environment
from support.processes.write_to_server import WRITER_LIMITS
from support.records import encoded
from support.waiting import eventually, until

from collector.broker.contract import DEAD_LETTERS_TOPIC, METRICS_TOPIC, Message
from collector.broker.local_log import LocalLog
from collector.store.clickhouse import ClickHouseStore
from collector.writer.store_refusals import RefusedRecords
from collector.writer.writer import Writer

POINTS = 20
MESSAGES = 40
# Nothing can read it: its first field claims to be longer than the record.
BAD_RECORD = b"\x0a\x06\x0a\xc8\x01bad"
COUNTS = (
    "SELECT reinterpretAsUInt64(reverse(unhex(substring(toString(BatchId), 25)))) AS number, count(), uniqExact(TimeUnix) "
    "FROM otel_metrics_gauge GROUP BY number ORDER BY number"
)
TOO_MANY_PARTS = {"do": "error", "code": 252, "text": "Too many parts (3000). (TOO_MANY_PARTS)"}
NO_MEMORY = {"do": "error", "code": 241, "text": "(total) memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)"}


class Observed:
    """A WriterObserver that remembers."""

    def __init__(self) -> None:
        self.failed: Counter[str] = Counter()

    def written(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        """That is counted in the store."""

    def write_failed(self, topic: str, kind: str) -> None:
        self.failed[kind] += 1

    def dead_lettered(self, topic: str, records: int) -> None:
        """That is counted in the log."""

    def store_refused(self, source: str, items: int) -> None: ...

    def dropped(self, records: int) -> None:
        """Nothing is, here."""

    def completed(self, topic: str, rows: int, in_part: int) -> None: ...


class World:
    """A log, and a server."""

    def __init__(self, log: LocalLog, store: ClickHouseStore) -> None:
        self.log = log
        self.store = store
        self.observed = Observed()
        self.appended = 0

    async def append(self, messages: int = MESSAGES) -> None:
        for number in range(self.appended, self.appended + messages):
            await self.log.append([Message(METRICS_TOPIC, encoded(gauge(number, POINTS)))])
        self.appended += messages

    def writer(self) -> Writer:
        return Writer(self.log, self.store, RefusedRecords(self.log, 1 << 20, time.time_ns).keep, WRITER_LIMITS, self.observed)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Writer]:
        """Until all is stored."""
        writer = self.writer()
        running = asyncio.create_task(writer.run())
        try:
            yield writer
            assert await writer.drained(60)
        finally:
            writer.stop()
            await running

    async def drain(self) -> None:
        async with self.writing():
            pass

    def assert_all_once(self) -> None:
        lines = self.store.query(COUNTS, "TSV").decode().splitlines()
        assert [f"{number}\t{POINTS}\t{POINTS}" for number in range(self.appended)] == lines


@asynccontextmanager
async def world(directory: Path, there: Server, database: str) -> AsyncIterator[World]:
    with closing(there.store(database=database)) as store:
        async with await LocalLog.open(directory, LIMITS, TOPICS) as log:
            yield World(log, store)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """One bridge, with tables."""
    with bridge(tmp_path_factory.mktemp("bridge")) as made:
        yield made


@pytest.fixture
def database(there: Bridge) -> str:
    """The database of the tables, which are empty, as a test finds them that made its own: that takes 3 s of CPU."""
    there.faults()
    until(lambda: not there.is_busy())  # the last test may have left a statement
    with closing(there.store()) as store:
        made_by = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
        for table in store.query(made_by, "TSVRaw").decode().split():
            if table != "schema_migrations":
                store.administer(f"TRUNCATE TABLE {table} SYNC")
    return there.database


# Killed.


@pytest.mark.parametrize(
    ("step", "landing"),
    [
        ("before the intent", ""),
        ("after the intent", ""),
        ("during the insert", "at once"),
        ("during the insert", "later"),
        ("after the insert", ""),
        ("after the commit", ""),
    ],
)
async def test_killed_at_any_step(tmp_path: Path, there: Bridge, database: str, step: str, landing: str) -> None:
    """A writer is killed at one step of its loop; the next goes on. `landing`: where it dies during an insert, the rows are
    there before the next one looks, or come only after it has repeated the insert."""
    async with world(tmp_path / "log", there, database) as w:
        w.store.apply_schema()
        await w.append()
    if landing:
        when = "after" if landing == "at once" else "before"
        # The third insert, as for the other steps: two pass.
        there.faults({"do": "pass", "when": when, "times": 2}, {"do": "hold", "when": when})
    arguments = (tmp_path / "log", there.url, there.user, there.password, database, step, 3)
    killed = await asyncio.create_subprocess_exec(
        *command("support.processes.write_to_server", *arguments), env=environment(), stderr=subprocess.DEVNULL
    )
    # A busy machine: what the limit finds is a writer that hangs.
    assert await asyncio.wait_for(killed.wait(), 120) == -signal.SIGKILL
    assert there.is_busy() == bool(landing)
    async with world(tmp_path / "log", there, database) as w:
        assert 0 < w.log.depth(METRICS_TOPIC) < MESSAGES
        w.appended = MESSAGES
        await w.append(3)
        await w.drain()
        if landing == "later":
            there.release()
            await eventually(lambda: not there.is_busy())
        w.assert_all_once()


async def test_the_server_is_killed(tmp_path: Path) -> None:
    """It is killed again and again, in the middle of inserts, and comes back each time: the writer goes on by itself."""
    with bridge(tmp_path / "bridge") as there:
        async with world(tmp_path / "log", there, "telemetry") as w, w.writing():
            for seconds in (0.0, 0.02, 0.05):
                there.faults({"do": "die", "seconds": seconds, "when": "before" if seconds else "after"})
                await w.append()
                await asyncio.to_thread(there.wait)
                await asyncio.to_thread(there.start)
        async with world(tmp_path / "log", there, "telemetry") as w:
            w.appended = 3 * MESSAGES
            w.assert_all_once()


# Failing.


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([{"do": "drop", "when": "after", "times": 5}], id="answers lost"),
        pytest.param([{"do": "drop", "times": 5}], id="requests lost"),
        pytest.param([TOO_MANY_PARTS | {"times": 8}, NO_MEMORY | {"times": 4}], id="overloaded"),
        pytest.param([TOO_MANY_PARTS | {"when": "after", "times": 4}], id="failed after it had stored"),
        pytest.param([{"do": "page", "times": 3}], id="not ClickHouse for a while"),
        pytest.param(
            [{"do": "drop", "times": 4, "on": "SELECT"}, {"do": "drop", "when": "after", "times": 2}], id="lookups lost"
        ),
    ],
)
async def test_failures_are_waited_for(tmp_path: Path, there: Bridge, database: str, faults: list[dict[str, object]]) -> None:
    """Whatever the server answers for a while, or does not: the writer waits, drops nothing, and repeats nothing."""
    async with world(tmp_path, there, database) as w:
        w.store.apply_schema()
        await w.append()
        there.faults(*faults)
        await w.drain()
        assert w.observed.failed["unavailable"] >= 3
        assert w.observed.failed["refused"] == 0
        assert w.log.depth(DEAD_LETTERS_TOPIC) == 0
        w.assert_all_once()


async def test_away_and_back(tmp_path: Path) -> None:
    """Away when the writer begins, and away again later: it says so, the log grows, and it catches up by itself."""
    there = Bridge(url="", directory=tmp_path / "bridge")
    there.start()
    there.kill()
    async with world(tmp_path / "log", there, "telemetry") as w:
        try:
            async with w.writing() as writer:
                for _ in range(2):
                    await w.append()
                    await eventually(lambda: writer.state == "degraded")
                    assert w.log.depth(METRICS_TOPIC) >= MESSAGES
                    await asyncio.to_thread(there.start)
                    assert await writer.drained(60)
                    assert writer.state == "ok"
                    await asyncio.to_thread(w.assert_all_once)
                    there.kill()
                await asyncio.to_thread(there.start)
        finally:
            there.kill()


# Refused.


async def test_bad_records(tmp_path: Path) -> None:
    """What the server can't read is found by halving, and kept as dead letters; the rest is stored once."""
    with server(tmp_path / "server") as anywhere:
        async with world(tmp_path / "log", anywhere, anywhere.database) as w:
            await w.append(5)
            await w.log.append([Message(METRICS_TOPIC, BAD_RECORD)])
            await w.append(5)
            await w.drain()
            assert w.log.depth(DEAD_LETTERS_TOPIC) == 1
            assert w.observed.failed["unavailable"] == 0
            w.assert_all_once()
