"""The writer with the real embedded engine: in processes that are killed, and replaying dead letters."""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from infrasage.v1.dead_letter_pb2 import DEAD_LETTER_ACTION_REPLAYED, DeadLetter, DeadLetterEvent
from support import batches, letters
from support.fakes.brokers import LIMITS, TOPICS
from support.processes.commands import command, run, run_and_kill
from support.processes.write_to_engine import BAD_EVERY, POINTS
from support.records import encoded
from support.reopened_store import store_with_tables
from support.store_templates import copy_store

from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC, Message, Payload
from collector.broker.local_log import LocalLog
from collector.records.dead_letter import event_messages, replay_batch_id
from collector.store.contract import Store, StoreUnavailable
from collector.store.options import RequestedTables, StoreOptions
from collector.telemetry.metrics import Metrics
from collector.writer.store_refusals import RefusedRecords
from collector.writer.writer import Writer, WriterLimits


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.soak)])
def test_kill_9_stores_everything_exactly_once(tmp_path: Path, kills: int) -> None:
    """Killed while it appends, stores, and searches for bad records: in the end every acknowledged point is there, no point is
    there twice, and every bad record is a dead letter, once."""
    lot = random.Random(11)
    acknowledged: list[int] = []
    first = 0
    copy_store(tmp_path / "store")
    for _ in range(kills):
        lines = lot.randrange(20, 160)
        printed = run_and_kill(command("support.processes.write_to_engine", tmp_path, first), lines)
        assert lines <= len(printed)
        acknowledged += map(int, printed)
        # The one after the last that was printed may have been kept as well: it is not sent again.
        first = acknowledged[-1] + 2
    *rows, dead_letters = run(command("support.processes.write_to_engine", tmp_path, "finish")).splitlines()
    stored = {number: (count, distinct) for number, count, distinct in (map(int, row.split()) for row in rows)}
    assert set(acknowledged) <= set(stored) <= set(range(first))
    assert dict.fromkeys(stored, (POINTS, POINTS)) == stored
    assert len([number for number in stored if number % BAD_EVERY == 0]) == int(dead_letters)


def replay(of: DeadLetter, value: float, topic: str = METRICS_TOPIC) -> DeadLetterEvent:
    """As a replay makes it: the item as a record of its own batch, with a receipt."""
    batch_id = replay_batch_id(of.id)
    batch = batches.gauge(0, 1)
    batch.records[0].metrics[0].gauge.data_points[0].as_double = value
    batch.records.add(received_time_unix_nano=batches.NOW, tenant_id="tenant-a", receipt=letters.any_receipt())
    for record in batch.records:
        record.batch_id = batch_id
    payload = encoded(batch)
    return letters.event(of, DEAD_LETTER_ACTION_REPLAYED, int(value), batch_id=batch_id, topic=topic, payload=payload)


class LosesAnswers:
    """A store whose inserts are done, and then fail: every other one."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.inserts = 0
        self.insert_outlives_s = store.insert_outlives_s
        self.holds = store.holds
        self.untouched = store.untouched
        self.can_complete = store.can_complete
        self.complete = store.complete
        self.stored_batches = store.stored_batches
        self.copies = store.copies
        self.query = store.query
        self.read = store.read
        self.ping = store.ping

    def insert(self, topic: str, payloads: Sequence[Payload], token: str) -> None:
        self.store.insert(topic, payloads, token)
        self.inserts += 1
        if self.inserts % 2:
            raise StoreUnavailable("the answer is lost")


async def test_replayed_twice_stored_once(tmp_path: Path) -> None:
    """The tables show it, with every other answer lost: one row and one receipt a dead letter, whichever replay came first; the
    entry is shown as replayed, its attempts counted."""
    entries = [letters.letter(1, index) for index in range(20)]
    rounds = [
        event_messages([replay(entry, 1) for entry in entries[:15]], 1 << 20),
        event_messages([replay(entry, 2) for entry in entries[5:15]], 2000),
        event_messages([replay(entry, 3, LOGS_TOPIC) for entry in entries[:3]], 1 << 20),
    ]
    with closing(store_with_tables(tmp_path / "store", StoreOptions(RequestedTables(fsync=False)))) as store:
        async with await LocalLog.open(tmp_path / "log", LIMITS, (*TOPICS, DEAD_LETTERS_TOPIC)) as log:
            await log.append([Message(DEAD_LETTERS_TOPIC, letters.dead_letters(*entries))])
            for messages in rounds:
                await log.append(messages)
            limits = WriterLimits(
                bytes_max=8000, row_bytes_max=1 << 27, refusals_max=1000, linger_ms=0, retry_min_s=0.001, retry_max_s=0.01
            )
            keep = RefusedRecords(log, 1 << 20, time.time_ns).keep
            writer = Writer(log, LosesAnswers(store), keep, limits, Metrics())
            writing = asyncio.create_task(writer.run())
            assert await writer.drained(60)
            writer.stop()
            await writing
        points = store.query("SELECT Value, count(), uniqExact(BatchId) FROM otel_metrics_gauge GROUP BY Value", "TSV")
        assert points == b"1\t15\t15\n"
        assert store.query("SELECT count(), uniqExact(BatchId) FROM telemetry_batches", "TSV") == b"15\t15\n"
        states = store.query("SELECT State, count(), sum(Attempts) FROM dead_letters GROUP BY State ORDER BY State", "TSV")
        assert states == b"open\t5\t0\nreplayed\t15\t28\n"
        batch_ids = "SELECT BatchId FROM otel_metrics_gauge"
        stored = f"SELECT count() FROM dead_letters WHERE NOT IsOpen AND ReplayBatchId IN ({batch_ids})"
        assert store.query(stored, "TSV") == b"15\n"
