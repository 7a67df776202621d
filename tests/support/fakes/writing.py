"""A writer over a real local log and a fake store, which may die at any step; and what it says of itself."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infrasage.v1.dead_letter_pb2 import DeadLetter, DeadLetterBatch
from support.fakes.brokers import LIMITS, TOPICS
from support.fakes.stores import Crash, FakeStore, batch

from collector.broker.contract import Message, Partition, Position, Range
from collector.broker.local_log import LocalLog
from collector.writer.repetitions import Repetitions
from collector.writer.store_refusals import RefusedItem, RefusedRecords
from collector.writer.writer import Writer, WriterLimits

TOPIC = TOPICS[0]

CRASHES = [
    "before the intent",
    "after the intent",
    "insert begun",
    "insert half done",
    "token without rows",
    "rows without token",
    "inserted",
    "before the commit",
    "after the commit",
]


@dataclass
class Observed:
    """A WriterObserver that remembers."""

    stored: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    refused_items: Counter[str] = field(default_factory=Counter)  # by source
    lost: int = 0
    completed_rows: Counter[str] = field(default_factory=Counter)  # by topic
    repeated: Counter[str] = field(default_factory=Counter)

    def written(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        assert size_bytes > 0 <= seconds
        self.stored[topic] += messages

    def write_failed(self, topic: str, kind: str) -> None:
        self.failed[kind] += 1

    def dead_lettered(self, topic: str, records: int) -> None:
        self.dead_letters[topic] += records

    def store_refused(self, source: str, items: int) -> None:
        self.refused_items[source] += items

    def dropped(self, records: int) -> None:
        self.lost += records

    def completed(self, topic: str, rows: int, in_part: int) -> None:
        self.completed_rows[topic] += rows
        assert 0 == in_part

    def left_out(self, topic: str, messages: int) -> None:
        self.repeated[topic] += messages

    def looked_up(self, fingerprints: int) -> None:
        assert fingerprints > 0


class CrashingConsumer:
    """The log, but the process dies before or after a given call, once."""

    def __init__(self, log: LocalLog, crash_at: str | None = None) -> None:
        self.log = log
        self.crash_at = crash_at
        self.polls = 0

    def _at(self, step: str) -> None:
        if step == self.crash_at:
            self.crash_at = None
            raise Crash(step)

    async def poll(self, bytes_max: int, wait_s: float) -> Range | None:
        self.polls += 1
        return await self.log.poll(bytes_max, wait_s)

    async def intend(self, messages: Range) -> None:
        self._at("before the intent")
        await self.log.intend(messages)
        self._at("after the intent")

    async def commit(self, messages: Range) -> None:
        self._at("before the commit")
        await self.log.commit(messages)
        self._at("after the commit")

    async def positions(self) -> dict[Partition, Position]:
        return await self.log.positions()

    async def progress(self) -> dict[Partition, Position]:
        return await self.log.progress()

    async def lag(self) -> dict[Partition, int]:
        return await self.log.lag()


class Virtual:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        await asyncio.sleep(0)


class Appending:
    """A Producer of one function."""

    def __init__(self, append: Callable[[Sequence[Message]], Awaitable[None]]) -> None:
        self._append = append

    async def append(self, messages: Sequence[Message]) -> None:
        await self._append(messages)


class World:
    """A log, a store, and writers that come and go."""

    def __init__(self, log: LocalLog, store: FakeStore) -> None:
        self.log = log
        self.store = store
        self.time = Virtual()
        self.observed = Observed()
        self.letters: list[RefusedItem] = []
        self.entries: list[DeadLetter] = []  # as they are in the log
        self.is_disk_low = False

    def writer(
        self,
        crash_at: str | None = None,
        bytes_max: int = 1_000_000,
        linger_ms: float = 0,
        row_bytes_max: int = 1 << 27,
        refusals_max: int = 1000,
        window_s: int = 0,
        keys_max: int = 1000,
    ) -> Writer:
        limits = WriterLimits(
            bytes_max=bytes_max,
            row_bytes_max=row_bytes_max,
            refusals_max=refusals_max,
            linger_ms=linger_ms,
            retry_min_s=0.1,
            retry_max_s=30,
        )
        consumer = CrashingConsumer(self.log, crash_at)
        return Writer(
            consumer,
            self.store,
            self.keep,
            limits,
            self.observed,
            repetitions=Repetitions(self.store, window_s, keys_max, self.observed),
            clock=self.time.clock,
            sleep=self.time.sleep,
            jitter=lambda: 1.0,
            is_disk_low=lambda: self.is_disk_low,
        )

    async def keep(self, letters: Sequence[RefusedItem]) -> Mapping[str, int]:
        kept = await RefusedRecords(Appending(self.append_messages), 1 << 20, lambda: 1).keep(letters)
        self.letters += letters
        return kept

    async def append_messages(self, messages: Sequence[Message]) -> None:
        await self.log.append(messages)
        for message in messages:
            self.entries += [record.letter for record in DeadLetterBatch.FromString(message.payload).records]

    async def append(self, topic: str, *names: str) -> None:
        """One message, of a record for each name."""
        await self.log.append([Message(topic, batch(*names))])

    async def drain(self, writer: Writer) -> None:
        running = asyncio.create_task(writer.run())
        assert await writer.drained(60)
        writer.stop()
        await running

    async def drain_through_crashes(self, make: Callable[[], Writer]) -> int:
        """New writers over the same log, until all is stored. How many crashed."""
        for crashes in range(1000):
            writer = make()
            running = asyncio.create_task(writer.run())
            drained = asyncio.create_task(writer.drained(60))
            await asyncio.wait({running, drained}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                drained.cancel()
                assert isinstance(running.exception(), Crash)
                continue
            assert await drained
            writer.stop()
            # It may still die on the way out, after what mattered.
            await asyncio.gather(running, return_exceptions=True)
            return crashes
        raise AssertionError("never drained")


@asynccontextmanager
async def world(directory: Path, store: FakeStore | None = None) -> AsyncIterator[World]:
    async with await LocalLog.open(directory, LIMITS, TOPICS) as log:
        yield World(log, store or FakeStore())
