"""A completion of a half-done insert that breaks off: with a real Kafka, and ClickHouse over HTTP (the bridge)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from support import store_ranges
from support.fakes.brokers import kafka_options
from support.processes.clickhouse_server import bridge
from support.processes.kafka import Kafka, libraries
from support.rewritten_logs import LIMITS, Unobserved, keep
from support.waiting import eventually

from collector.broker.contract import METRICS_TOPIC, Message
from collector.broker.kafka import KafkaConsumer, KafkaOptions, KafkaProducer
from collector.store.clickhouse import ClickHouseStore
from collector.writer.writer import Writer, WriterLimits

HISTOGRAM, SUM = "otel_metrics_histogram", "otel_metrics_sum"
VIEWS = ("landing_resource_metrics_to_histogram", "landing_resource_metrics_to_sum")
ONE_RANGE = WriterLimits(**{**vars(LIMITS), "bytes_max": 1 << 24})


class Clock:
    """That of the machine, put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Failures(Unobserved):
    """Counts attempts that failed."""

    count = 0

    def write_failed(self, topic: str, kind: str) -> None:
        self.count += 1


class World:
    """A topic of one partition and its group. Between two attempts, writers wait for `may_retry`."""

    def __init__(self, options: KafkaOptions) -> None:
        self.options = options
        self.clock = Clock()
        self.failures = Failures()
        self.may_retry = asyncio.Event()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.may_retry.wait()

    @asynccontextmanager
    async def writing(self, store: ClickHouseStore) -> AsyncIterator[Writer]:
        """By a writer with a consumer of its own."""
        async with await KafkaConsumer.open(self.options, [METRICS_TOPIC]) as consumer:
            writer = Writer(consumer, store, keep, ONE_RANGE, self.failures, clock=self.clock, sleep=self._sleep)
            running = asyncio.create_task(writer.run())
            try:
                yield writer
            finally:
                self.may_retry.set()
                writer.stop()
                await running

    async def failed(self, count: int) -> None:
        await eventually(lambda: self.failures.count >= count)

    def let_inserts_end(self, store: ClickHouseStore) -> None:
        """By the writers' clock, none is going on any more."""
        self.clock.ahead += store.insert_outlives_s + 1


def rows(store: ClickHouseStore, table: str) -> int:
    return int(store.read(f"SELECT count() FROM {table}", "TSV"))


async def half_an_insert(w: World, store: ClickHouseStore) -> None:
    """Its rows of two tables are missing, and their tokens; those of the others are there."""
    await w.failed(1)
    assert 0 < rows(store, "otel_metrics_gauge")
    assert [0, 0] == [rows(store, table) for table in (HISTOGRAM, SUM)]
    for view in VIEWS:
        await asyncio.to_thread(store.administer, f"ATTACH TABLE {view}")


@pytest.mark.parametrize("next_", ["the same writer", "another writer"])
async def test_a_completion_that_breaks_off_is_completed(tmp_path: Path, next_: str) -> None:
    """An insert ends in its middle, and the connection of its completion breaks before the last table. What was completed has
    no token: the next attempt stores the rest, and nothing twice."""
    libraries()
    kafka = Kafka(tmp_path / "kafka", is_killed=False)
    try:
        kafka.start()
        w = World(kafka_options(kafka.bootstrap, group_id="writers", topic_partitions=1))
        with bridge(tmp_path / "bridge") as there, closing(there.store()) as store, closing(there.store()) as others:
            await asyncio.to_thread(store.apply_schema)
            async with await KafkaProducer.open(w.options, [METRICS_TOPIC]) as producer:
                await producer.append([Message(METRICS_TOPIC, message) for message in store_ranges.messages(0)])
            for view in VIEWS:
                await asyncio.to_thread(store.administer, f"DETACH TABLE {view}")
            there.faults({"do": "error", "code": 999, "text": "it died in the middle", "when": "after"})
            async with w.writing(store) as writer:
                await half_an_insert(w, store)
                there.faults({"do": "drop", "on": f"INSERT INTO {SUM.upper()}"})
                w.let_inserts_end(store)
                w.may_retry.set()
                await eventually(lambda: rows(store, HISTOGRAM))
                await w.failed(2)
                assert 0 == rows(store, SUM)
                if next_ == "the same writer":
                    await finish(w, writer, store)
            if next_ == "another writer":
                async with w.writing(others) as writer:
                    await finish(w, writer, others)
            assert [] == store_ranges.wrong_counts(store, [0])
    finally:
        kafka.close()


async def finish(w: World, writer: Writer, store: ClickHouseStore) -> None:
    """It waits for inserts that may be going on, and then stores the rest."""
    await eventually(lambda: w.failures.count >= 3 or rows(store, SUM))
    w.let_inserts_end(store)
    assert await writer.drained(60)
