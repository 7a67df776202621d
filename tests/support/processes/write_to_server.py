"""A writer from the local log into a ClickHouse server, that kills itself (SIGKILL) at a chosen step of its loop.

`python -m support.processes.write_to_server DIRECTORY URL USER PASSWORD DATABASE STEP CALL` stores what the log in DIRECTORY
holds, and dies at the CALL-th time that it gets to STEP: before the intent, after the intent, during the insert (once the
request is on its way), after the insert, after the commit.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from uuid import UUID

import structlog
from support.fakes.brokers import LIMITS, TOPICS

from collector.broker.contract import Partition, Payload, Position, Range
from collector.broker.local_log import LocalLog
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import NOTHING, Completed, Store
from collector.telemetry.metrics import Metrics
from collector.writer.store_refusals import RefusedRecords
from collector.writer.writer import Writer, WriterLimits

WRITER_LIMITS = WriterLimits(
    bytes_max=8 * 1024, row_bytes_max=1 << 27, refusals_max=1000, linger_ms=0, retry_min_s=0.05, retry_max_s=0.2
)
# How long after it began an insert is "on its way": the bridge has taken the whole of it by then, and waits.
ON_ITS_WAY_S = 1.0


class Death:
    """Comes at the given call of a step."""

    def __init__(self, step: str, call: int) -> None:
        self.step = step
        self.calls_left = call

    def at(self, step: str) -> bool:
        self.calls_left -= step == self.step
        return step == self.step and self.calls_left == 0

    def reach(self, step: str) -> None:
        if self.at(step):
            os.kill(os.getpid(), signal.SIGKILL)


class MortalConsumer:
    """The log, around which its reader may die."""

    def __init__(self, log: LocalLog, death: Death) -> None:
        self.log = log
        self.death = death

    async def poll(self, bytes_max: int, wait_s: float) -> Range | None:
        return await self.log.poll(bytes_max, wait_s)

    async def intend(self, messages: Range) -> None:
        self.death.reach("before the intent")
        await self.log.intend(messages)
        self.death.reach("after the intent")

    async def commit(self, messages: Range) -> None:
        self.death.reach("after the insert")
        await self.log.commit(messages)
        self.death.reach("after the commit")

    async def positions(self) -> dict[Partition, Position]:
        return await self.log.positions()

    async def progress(self) -> dict[Partition, Position]:
        return await self.log.progress()

    async def lag(self) -> dict[Partition, int]:
        return await self.log.lag()


class MortalStore:
    """The store, in whose insert one may die."""

    def __init__(self, store: Store, death: Death) -> None:
        self.store = store
        self.death = death

    def insert(self, topic: str, payloads: Sequence[Payload], token: str) -> None:
        if self.death.at("during the insert"):
            threading.Timer(ON_ITS_WAY_S, os.kill, (os.getpid(), signal.SIGKILL)).start()
        self.store.insert(topic, payloads, token)

    @property
    def insert_outlives_s(self) -> float:
        return self.store.insert_outlives_s

    def holds(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        return self.store.holds(topic, payload, besides)

    def untouched(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        return self.store.untouched(topic, payload, besides)

    def can_complete(self, topic: str, payload: bytes) -> bool:
        return self.store.can_complete(topic, payload)

    def complete(self, topic: str, payload: bytes, token: str, earlier: Sequence[bytes] = ()) -> Completed:
        return self.store.complete(topic, payload, token, earlier)

    def stored_batches(self, batch_ids: Collection[UUID], besides_part: int) -> set[UUID]:
        return self.store.stored_batches(batch_ids, besides_part)

    def copies(
        self,
        topic: str,
        asked: Mapping[tuple[bytes, bytes], int],
        besides: Collection[tuple[UUID, int]],
        since_ns: int,
        until_ns: int,
    ) -> dict[tuple[bytes, bytes], list[int]]:
        return self.store.copies(topic, asked, besides, since_ns, until_ns)

    def query(self, sql: str, format_: str) -> bytes:
        return self.store.query(sql, format_)

    def read(self, sql: str, format_: str) -> bytes:
        return self.store.read(sql, format_)

    def ping(self) -> None:
        self.store.ping()


async def main(directory: Path, url: str, user: str, password: str, database: str, step: str, call: str) -> None:
    death = Death(step, int(call))
    with closing(ClickHouseStore.server(url, user=user, password=password, database=database)) as store:
        async with await LocalLog.open(directory, LIMITS, TOPICS) as log:
            keep = RefusedRecords(log, 1 << 20, time.time_ns).keep
            await Writer(MortalConsumer(log, death), MortalStore(store, death), keep, WRITER_LIMITS, Metrics()).run()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
