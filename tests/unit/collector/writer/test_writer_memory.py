"""A store that has too little memory for an insert: whatever is in a log can be drained, nothing is stored twice, and a
shortage that passes makes no dead letters."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import TYPE_LOG, TYPE_METRIC
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support import batches
from support.batches import NOW, attributes, record
from support.examples import examples
from support.fakes.brokers import LIMITS, TOPICS
from support.fakes.stores import Crash, FakeStore, batch
from support.fakes.writing import CRASHES, TOPIC, Observed, world
from support.records import encoded
from support.reopened_store import store_with_tables
from support.waiting import eventually

from adapters.codec.wire import BYTES, Cursor, length_of
from collector.broker.contract import (
    DEAD_LETTERS_TOPIC,
    LOGS_TOPIC,
    METRICS_TOPIC,
    TRACES_TOPIC,
    Message,
    Partition,
    Payload,
    Range,
)
from collector.broker.local_log import LocalLog
from collector.broker.range_digest import with_digest
from collector.config.receivers import Validation
from collector.dead_letters.queries import DeadLetterReports
from collector.dead_letters.replay import DeadLetterReplayer
from collector.ingest.validate import Limits
from collector.query.reader import Reader
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreOutOfMemory
from collector.store.options import RequestedTables, StoreOptions
from collector.writer.memory_shortage import MemoryShortages
from collector.writer.piece import Piece
from collector.writer.store_refusals import RefusedRecords
from collector.writer.writer import Writer, WriterLimits

MIB = 1 << 20


# The limit of one insert.


async def test_a_range_that_is_too_large_for_one_insert_is_cut(tmp_path: Path) -> None:
    """Between messages, and within one; what comes after it is stored too, and nothing is a dead letter."""
    store = FakeStore(memory_records=2)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, *(f"a{n}" for n in range(9)))
        for n in range(5):
            await w.append(TOPIC, f"b{n}")
        await w.drain(w.writer())
        expected = [f"a{n}" for n in range(9)] + [f"b{n}" for n in range(5)]
        assert dict.fromkeys(expected, 1) == store.rows
        assert [] == w.letters


async def test_an_item_that_is_too_large_alone_is_a_dead_letter(tmp_path: Path) -> None:
    """It is tried twice; its neighbours, and other topics, are stored."""
    store = FakeStore(memory_records=0)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b")
        await w.drain(w.writer())
        assert {batch("a"), batch("b")} == {letter.payload for letter in w.letters}
        assert {"Query memory limit exceeded"} == {letter.error for letter in w.letters}
        assert 0 == w.log.depth(TOPIC)


@pytest.mark.parametrize("crash_at", CRASHES)
async def test_a_crash_amid_the_pieces_repeats_nothing(tmp_path: Path, crash_at: str) -> None:
    """The depth is in the intent, so a successor inserts the same pieces."""
    for at in range(1, 9):
        directory = tmp_path / str(at)
        store = FakeStore(faults=[""] * at + ([crash_at] if "insert" in crash_at else []), memory_records=2)
        async with world(directory, store) as w:
            await w.append(TOPIC, *(f"{n}" for n in range(9)))
            crashing = [crash_at]
            await w.drain_through_crashes(lambda w=w, at=crashing: w.writer(at.pop() if at else None))  # type: ignore[misc]
            assert dict.fromkeys((f"{n}" for n in range(9)), 1) == store.rows
            assert [] == w.letters


@examples(40)
@given(
    appends=st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=6),
    faults=st.lists(
        st.sampled_from(
            [
                "",
                "",
                "down",
                "no memory",
                "half done, then no memory",
                "answer lost",
                "insert half done",
                "half done, then down",
                "token without rows",
                "rows without token",
            ]
        ),
        max_size=30,
    ),
    crashes=st.lists(st.sampled_from([None, *CRASHES]), max_size=8),
    memory_records=st.sampled_from([1, 2, 3]),
)
def test_any_sequence_of_shortages_ends_with_every_record_once(
    appends: list[tuple[int, bool]], faults: list[str], crashes: list[str | None], memory_records: int
) -> None:
    """Shortages, other failures, crashes and bad records in any order: good ones are stored once, bad ones are dead letters."""

    async def run(directory: Path) -> None:
        store = FakeStore(faults=faults, memory_records=memory_records)
        async with world(directory, store) as w:
            good: list[str] = []
            bad: list[str] = []
            for number, (records, spoilt) in enumerate(appends):
                names = [f"{number}-{n}" for n in range(records)]
                if spoilt:
                    names[records // 2] = f"bad-{number}"
                good += [name for name in names if not name.startswith("bad")]
                bad += [name for name in names if name.startswith("bad")]
                await w.append(TOPIC, *names)
            coming = iter(crashes)
            await w.drain_through_crashes(lambda: w.writer(next(coming, None)))
            assert dict.fromkeys(good, 1) == store.rows
            assert {batch(name) for name in bad} == {letter.payload for letter in w.letters}
            assert len(bad) == len({entry.id for entry in w.entries})

    with tempfile.TemporaryDirectory() as place:
        asyncio.run(run(Path(place) / "log"))


# The server's memory.


async def test_a_server_out_of_memory_makes_no_dead_letters(tmp_path: Path) -> None:
    """However long it lasts, the range is cut down to single items, and waits."""
    store = FakeStore(faults=["no memory"] * 300)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b", "c")
        await w.drain(w.writer())
        assert {"a": 1, "b": 1, "c": 1} == store.rows
        assert [] == w.letters
        assert sum(w.time.slept) > 3600


async def test_a_shortage_that_passes_cuts_nothing(tmp_path: Path) -> None:
    """Three failures in a row are waited for."""
    store = FakeStore(faults=["no memory"] * 3)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b")
        await w.drain(w.writer())
        assert 4 == len(store.asked)
        assert 1 == len(set(store.asked))


async def test_an_item_that_fails_while_others_are_stored_is_a_dead_letter(tmp_path: Path) -> None:
    """The server has memory for others, again and again: so it is the item, and what comes after it goes on."""

    class Choosy(FakeStore):
        def insert(self, topic: str, payloads: object, token: str) -> None:
            self.next = "no memory" if b"huge" in b"".join(payloads) else ""  # type: ignore[arg-type]
            self._faults = iter([self.next])
            super().insert(topic, payloads, token)  # type: ignore[arg-type]

    store = Choosy()
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "huge")
        await w.append(TOPIC, "after")
        writer = w.writer(bytes_max=1)
        running = asyncio.create_task(writer.run())
        for n in range(30):
            await w.append(TOPICS[1], f"other-{n}")
            await asyncio.sleep(0.005)
        assert await writer.drained(60)
        writer.stop()
        await running
        assert [batch("huge")] == [letter.payload for letter in w.letters]
        assert 1 == store.rows["after"]


async def test_a_partly_stored_range_is_not_cut(tmp_path: Path) -> None:
    """Some of it is there, under its token: only its repetition, whole, completes it."""
    store = FakeStore(faults=["half done, then no memory"] + ["no memory"] * 20)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, "a", "b", "c", "d")
        await w.drain(w.writer())
        assert dict.fromkeys("abcd", 1) == store.rows
        assert 1 == len(set(store.asked))


@pytest.mark.parametrize("fault", ["insert half done", "half done, then down"], ids=["crash", "no answer"])
async def test_a_completion_that_breaks_off_stores_nothing_twice(tmp_path: Path, fault: str) -> None:
    """This is on a server: the writer, or its connection, dies in the middle of a completion. What was completed has no token,
    so the rest is completed too, once no insert of before can be going on."""
    store = FakeStore(faults=["half done, then no memory", fault], outlives_s=60)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, *"abcdef")
        await w.drain_through_crashes(w.writer)
        assert dict.fromkeys("abcdef", 1) == store.rows
        assert w.time.now >= 60


@pytest.mark.parametrize("room", ["memory", "disk"])
async def test_a_partly_stored_range_is_completed_message_by_message(tmp_path: Path, room: str) -> None:
    """There is too little room for all of them, from then on: a completion needs no token, so it takes as many as it can."""

    class Narrowing(FakeStore):
        def insert(self, topic: str, payloads: Sequence[Payload], token: str) -> None:
            try:
                super().insert(topic, payloads, token)
            finally:
                setattr(self, f"{room}_records", 3)

    store = Narrowing(faults=["half done, then no memory"])
    async with world(tmp_path, store) as w:
        for number in range(9):
            await w.append(TOPIC, f"a{number}", f"b{number}")
        await w.drain(w.writer())
        assert dict.fromkeys((f"{letter}{number}" for letter in "ab" for number in range(9)), 1) == store.rows
        assert [] == w.letters
        assert 1 == len(set(store.asked))


async def test_an_insert_without_an_answer_is_waited_for_before_it_is_cut(tmp_path: Path) -> None:
    """It may still store the range whole. So may what another process began."""
    for begun_by_another in (False, True):
        directory = tmp_path / str(begun_by_another)
        store = FakeStore(faults=["insert begun"] if begun_by_another else ["down"], memory_records=1, outlives_s=300)
        async with world(directory, store) as w:
            await w.append(TOPIC, "a", "b")
            if begun_by_another:
                with pytest.raises(Crash):
                    await asyncio.wait_for(w.writer().run(), 30)
            before = w.time.now
            await w.drain(w.writer())
            assert w.time.now - before >= 300
            assert {"a": 1, "b": 1} == store.rows


async def test_a_range_that_came_back_is_not_known_any_more(tmp_path: Path) -> None:
    """Its partition was another writer's meanwhile, which may have begun an insert that still goes on."""
    for came_back in (False, True):
        now = 0.0
        shortages = MemoryShortages(MIB, FakeStore(outlives_s=300), lambda: now)  # noqa: B023 - called at once
        messages = Range(Partition(TOPIC, 0), 0, 1, [batch("a", "b")], log="log")
        shortages.intended(messages)
        if came_back:
            shortages.owns([])
        shortages.found_in_doubt(messages)
        error = StoreOutOfMemory("x", of_this_insert=True)
        assert shortages.failed(Piece.whole(messages), error, is_one=False) is not came_back
        now = 301.0
        assert shortages.failed(Piece.whole(messages), error, is_one=False)


# A disk with too little room.


def _large(number: int) -> str:
    return f"{number}-{'x' * 600_000}"


async def test_an_insert_that_the_disk_has_no_room_for_is_cut(tmp_path: Path) -> None:
    """Each message has 0.6 MB of rows, and there is room for the insert of two: all are stored, once, without an operator."""
    store = FakeStore(disk_records=2)
    async with world(tmp_path, store) as w:
        for number in range(8):
            await w.append(TOPIC, _large(number))
        await w.drain(w.writer(bytes_max=1 << 24))
        assert dict.fromkeys(map(_large, range(8)), 1) == store.rows
        assert [] == w.letters


async def test_a_disk_that_stays_full_cuts_no_range_to_items(tmp_path: Path) -> None:
    """It takes nothing for an hour: then the range goes in pieces of about a mebibyte, and nothing became a dead letter."""
    store = FakeStore(disk_records=0)
    async with world(tmp_path, store) as w:
        await w.append(TOPIC, *(f"small-{number}" for number in range(1000)))
        for number in range(8):
            await w.append(TOPIC, _large(number))
        running = asyncio.create_task(w.writer(bytes_max=1 << 24).run())
        while w.time.now < 3600:
            await asyncio.sleep(0)
        store.disk_records = None
        before = store.inserts
        await eventually(lambda: w.log.depth(TOPIC) == 0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert 1000 + 8 == len(store.rows) == sum(store.rows.values())
        assert store.inserts - before <= 16
        assert [] == w.letters


# The bytes of rows.


async def test_an_insert_has_no_more_rows_than_it_may(tmp_path: Path) -> None:
    """It has no more, whatever the bytes of its messages are."""
    store = FakeStore()
    async with world(tmp_path, store) as w:
        for n in range(10):
            await w.append(TOPIC, f"{n}", f"{n}+")
        await w.drain(w.writer(row_bytes_max=300))
        assert {f"{n}{plus}": 1 for n in range(10) for plus in ("", "+")} == store.rows


# The real engine.


def large(number: int, records: int, size: int) -> bytes:
    """One message of so many logs under one resource attribute of that size."""
    made = TelemetryBatchV1()
    one = record(made, TYPE_LOG, number)
    attributes(one.resource.attributes, big="x" * size)
    for n in range(records):
        one.log_records.add(time_unix_nano=NOW + n).body.string_value = f"{n}"
    one.item_count = records
    receipt = made.records.add(batch_id=one.batch_id, tenant_id="tenant-a", received_time_unix_nano=NOW)
    receipt.receipt.received = records
    return encoded(made)


@asynccontextmanager
async def engine(directory: Path) -> AsyncIterator[tuple[LocalLog, ClickHouseStore]]:
    options = StoreOptions(RequestedTables(fsync=False), insert_memory_bytes_max=288 * MIB)
    with closing(store_with_tables(directory / "store", options)) as store:
        async with await LocalLog.open(directory / "log", LIMITS, (*TOPICS, DEAD_LETTERS_TOPIC)) as log:
            yield log, store


async def drain(log: LocalLog, store: ClickHouseStore, row_bytes_max: int) -> Observed:
    observed = Observed()
    limits = WriterLimits(
        bytes_max=16 * MIB, row_bytes_max=row_bytes_max, refusals_max=1000, linger_ms=0, retry_min_s=0.001, retry_max_s=0.01
    )
    writer = Writer(log, store, RefusedRecords(log, MIB, time.time_ns).keep, limits, observed)
    running = asyncio.create_task(writer.run())
    assert await writer.drained(400)
    writer.stop()
    await running
    return observed


@pytest.mark.parametrize("row_bytes_max", [64 * MIB, 1 << 40], ids=["bounded", "found out"])
async def test_a_message_that_becomes_a_thousand_times_as_large_is_stored(tmp_path: Path, row_bytes_max: int) -> None:
    """290 KB on the wire: 2,000 rows of 250 KB each. It needs twice the memory that an insert may have; and what comes after
    it is stored. Also where the writer does not know how many bytes its rows have."""
    async with engine(tmp_path) as (log, store):
        await log.append([Message(LOGS_TOPIC, large(1, 2000, 250_000))])
        await log.append([Message(LOGS_TOPIC, large(2, 20, 0))])
        observed = await drain(log, store, row_bytes_max)
        counts = store.query("SELECT count(), uniqExact(Timestamp) FROM otel_logs GROUP BY BatchId ORDER BY count()", "TSV")
        assert b"20\t20\n2000\t2000\n" == counts
        assert b"2\n" == store.query("SELECT count() FROM telemetry_batches", "TSV")
        assert {} == observed.dead_letters
        assert (row_bytes_max > MIB * 64) == bool(observed.failed["unavailable"])


async def test_what_was_stored_of_a_message_in_parts_is_not_taken_for_the_rest(tmp_path: Path) -> None:
    """Parts of a message have the same batch id and part. After a crash amid them the look-up counts them together: what is
    there is not stored again, and what is not there is."""
    names = [f"{n}" for n in range(64)]
    payload = large(1, len(names), 100_000)

    class DiesAt:
        """A store with which the process dies after so many inserts."""

        def __init__(self, store: ClickHouseStore, inserts: int) -> None:
            self._store = store
            self._left = inserts

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

        def insert(self, topic: str, payloads: list[bytes], token: str) -> None:
            if not self._left:
                raise Crash
            self._left -= 1
            self._store.insert(topic, payloads, token)
            # As after a power cut, so that only the look-up can tell.
            self._store._sessions().control.command(
                "ALTER TABLE otel_logs MODIFY SETTING non_replicated_deduplication_window = 0"
            )

    async with engine(tmp_path) as (log, store):
        await log.append([Message(LOGS_TOPIC, payload)])
        limits = WriterLimits(
            bytes_max=16 * MIB, row_bytes_max=MIB, refusals_max=1000, linger_ms=0, retry_min_s=0.001, retry_max_s=0.01
        )
        for inserts in (3, 1, 0, 2):
            dying = DiesAt(store, inserts)
            writer = Writer(log, dying, RefusedRecords(log, MIB, time.time_ns).keep, limits, Observed())  # type: ignore[arg-type]
            with pytest.raises(Crash):
                await asyncio.wait_for(writer.run(), 60)
        await drain(log, store, 1 << 40)  # another setting: the depth is that of the intent
        assert b"64\t64\n" == store.query("SELECT count(), uniqExact(Timestamp) FROM otel_logs", "TSV")
        assert b"1\n" == store.query("SELECT count() FROM telemetry_batches", "TSV")


async def test_a_record_that_is_refused_without_its_items_is_one_dead_letter(tmp_path: Path) -> None:
    """No item is at fault: to look for it would take two inserts for each."""
    made = TelemetryBatchV1()
    for number in range(2):
        one = record(made, TYPE_METRIC, number)
        data = one.metrics.add(name="g").gauge
        for n in range(100):
            data.data_points.add(time_unix_nano=NOW + n, as_double=n)
        one.item_count = 100
    made.records[1].batch_id = b"more than sixteen bytes"
    async with engine(tmp_path) as (log, store):
        await log.append([Message(METRICS_TOPIC, encoded(made))])
        observed = await drain(log, store, 64 * MIB)
        await drain(log, store, 64 * MIB)  # the dead letter
        assert 2 == observed.failed["refused"]
        assert b"100\t1\n" == store.query("SELECT count(), uniqExact(BatchId) FROM otel_metrics_gauge", "TSV")
        assert b"1\t100\n" == store.query("SELECT RecordIndex, ItemCount FROM dead_letters", "TSV")
        assert b"0\n" == store.query("SELECT count() FROM telemetry_batches", "TSV")


def histograms(points: int, bad: set[int]) -> bytes:
    """One metric of so many points, of which some have an empty packed field, as versions wrote it that did not remove them."""
    made = TelemetryBatchV1()
    one = record(made, TYPE_METRIC, 1)
    data = one.metrics.add(name="h").histogram
    for n in range(points):
        data.data_points.add(time_unix_nano=NOW + n, count=n)
        if n in bad:
            data.data_points[n].bucket_counts.append(n)
    one.item_count = points
    payload = encoded(made)
    return _without_lists(payload)


def _without_lists(payload: bytes) -> bytes:
    def walk(start: int, end: int, path: tuple[int, ...]) -> bytes:
        out = bytearray()
        cursor = Cursor(payload)
        cursor.position = start
        while cursor.position < end:
            begin = cursor.position
            tag = int(cursor.field(end))
            here = (*path, tag >> 3)
            if here == (1, 2, 2, 9, 1, 6):
                out += bytes([tag, 0])
            elif here in ((1,), (1, 2), (1, 2, 2), (1, 2, 2, 9), (1, 2, 2, 9, 1)) and tag & 7 == BYTES:
                after = cursor.position
                content = walk(int(cursor.start), int(after), here)
                out += bytes([tag]) + length_of(len(content)) + content
                cursor.position = after
            else:
                out += payload[begin : cursor.position]
        return bytes(out)

    return walk(0, len(payload), ())


async def test_a_refused_point_takes_no_other_with_it(tmp_path: Path) -> None:
    """50 points of one metric, 5 of which the engine can't read: 45 rows, and 5 dead letters of one item each. The log names
    adapter, field and one of them. Replayed, they are stored."""
    bad = set(range(3, 50, 10))
    async with engine(tmp_path) as (log, store):
        await log.append([Message(METRICS_TOPIC, histograms(50, bad))])
        with structlog.testing.capture_logs() as logs:
            observed = await drain(log, store, 64 * MIB)
        await drain(log, store, 64 * MIB)  # the dead letters
        assert b"45\t45\n" == store.query("SELECT count(), uniqExact(TimeUnix) FROM otel_metrics_histogram", "TSV")
        assert 5 == observed.dead_letters[METRICS_TOPIC]
        rows = store.query(
            "SELECT count(), uniqExact(Id), sum(ItemCount) FROM dead_letters WHERE Reason = 'store_refused'", "TSV"
        )
        assert b"5\t5\t5\n" == rows
        assert {"otlp": 5} == observed.refused_items
        (line,) = [line for line in logs if line["log_level"] == "error"]
        assert ("otlp", 5) == (line["source"], line["items"])
        assert "records.groups.items.histogram.data_points.bucket_counts (an empty list)" == line["field"]

        async def caught_up(_wait_s: float) -> int:
            return 0

        reports = DeadLetterReports(Reader(store.read, caught_up, 1), None)
        limits = Limits(**Validation().model_dump())
        mending = DeadLetterReplayer(reports, log.append, {}, limits, message_bytes_max=MIB // 2, now_unix_nano=time.time_ns)
        ids = store.query("SELECT Id FROM dead_letters", "TSV").decode().split()
        assert line["dead_letter"] in ids
        entries = await reports.entries([UUID(id_) for id_ in ids])
        assert all(b"\x32\x00" in (entry.payload or b"") for entry in entries)
        outcomes = await mending.replay(entries, as_of="received", actor="ada")
        assert ["replayed"] * 5 == [outcome.outcome for outcome in outcomes]
        await drain(log, store, 64 * MIB)
        assert b"50\t50\n" == store.query("SELECT count(), uniqExact(TimeUnix) FROM otel_metrics_histogram", "TSV")
        assert b"replayed\t5\n" == store.query("SELECT State, count() FROM dead_letters GROUP BY State", "TSV")


@pytest.mark.parametrize(("topic", "stored"), [(METRICS_TOPIC, 2), (LOGS_TOPIC, 0), (TRACES_TOPIC, 4)])
async def test_a_range_of_both_forms_that_is_stored_in_part_is_completed(tmp_path: Path, topic: str, stored: int) -> None:
    """An earlier version intended it by the digest of its bytes, and the rows of so many of its messages are there."""
    make = {METRICS_TOPIC: batches.metrics, LOGS_TOPIC: batches.logs, TRACES_TOPIC: batches.traces}[topic]
    made = [make(number, "acme") for number in range(4)]
    payloads = [one.SerializeToString() if number % 2 else encoded(one) for number, one in enumerate(made)]
    async with engine(tmp_path) as (log, store):
        for payload in payloads:
            await log.append([Message(topic, payload)])
        polled = await log.poll(MIB, 0)
        assert polled is not None
        intended = with_digest(polled)
        await log.intend(intended)
        if stored:
            store.insert(topic, [encoded(one) for one in made[:stored]], Piece.whole(intended).token)
    async with engine(tmp_path) as (log, store):
        observed = await drain(log, store, 64 * MIB)
        assert {} == observed.dead_letters
        expected = sum(record.item_count for one in made for record in one.records)
        tables = {
            METRICS_TOPIC: [
                f"otel_metrics_{kind}" for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary")
            ],
            LOGS_TOPIC: ["otel_logs"],
            TRACES_TOPIC: ["otel_traces"],
        }
        counts = [int(store.query(f"SELECT count() FROM {table}", "TSV")) for table in tables[topic]]
        assert expected == sum(counts)
