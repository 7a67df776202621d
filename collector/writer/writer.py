"""The writer: from the broker into the store, exactly once.

Invariants:
1. A range is intended before it is inserted, inserted under tokens that its log and its offsets determine, and committed after
   (test_writer.py, test_a_crash_anywhere_loses_and_repeats_nothing).
2. Whatever fails, at whatever step, the range is abandoned, polled again in doubt, and looked up before it is repeated, and
   after (test_writer.py, test_any_sequence_of_faults_ends_with_every_record_once).
3. The messages that are left out of a range, as stored before, are chosen before the intent, and durable with it
   (test_repetitions.py, test_each_request_is_stored_once).
docs/internals/exactly-once.md has the argument.

So failures of broker and store, transient errors and crashes are all handled in one way, and in one place: the loop. It tries
for ever, with a growing, jittered delay. (The delay is three lines here. A retry library would only hide them: the loop itself
is retried, and the delay must end at `stop`.) Only data that the store refuses is not tried again: it is halved
(collector/writer/piece.py), down to the item that is at fault, which becomes a dead letter, while the rest is stored. A range
for which the store has too little memory is halved too, after an intent with the new depth.

Messages of earlier versions are converted to today's form as soon as they are read (adapters/record_upgrade.py).

Messages of topics that others write become ours before anything is decided about their range
(collector/ingest/foreign_topics.py). Their rejected items are kept as dead letters before the range is committed.

In a range of infrasage.dead_letters the records of replays are stored first (collector/writer/replay_range.py), then its
entries and events. It is the only topic that is decoded here. If the store refuses a dead letter, that becomes no dead letter
again, but is logged.
"""

import asyncio
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeVar

import structlog

from adapters.errors import STORE_REFUSED
from adapters.record_upgrade import HEAD_BYTES, current, is_current
from collector.broker.contract import DEAD_LETTERS_TOPIC, BrokerError, Consumer, Partition, Payload, Range
from collector.broker.left_out import before
from collector.broker.range_digest import with_digest
from collector.runtime.reminders import Reminder
from collector.store.contract import Store, StoreError, StoreUnavailable
from collector.writer.memory_shortage import MemoryShortages
from collector.writer.piece import Piece, bounded
from collector.writer.range_inserter import InsertObserver, RangeInserter
from collector.writer.repetitions import Repetitions, replaced
from collector.writer.replay_range import DeadLetterRange, by_topic, refuse
from collector.writer.store_refusals import RefusedItem

T = TypeVar("T")

# How long one poll waits. Nothing depends on it: appends and `stop` both end it.
_POLL_WAIT_S: Final = 10.0
# After this number of failures of a partition, an insert that succeeded is believed without a look-up.
_LOOK_UPS_MAX: Final = 8
# A broker that failed is tried again sooner than a store, since the election of a new leader ends most failures.
_BROKER_RETRY_MAX_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class WriterLimits:
    """The limits of the settings [writer]."""

    bytes_max: int  # the most bytes of one insert, unless one message alone is larger
    row_bytes_max: int  # the most bytes of its rows, unless one item alone has more
    refusals_max: int  # after more refused inserts of a range, refused records are no longer divided
    linger_ms: float  # the least time between the beginnings of two inserts of a partition, unless the second one is full
    retry_min_s: float
    retry_max_s: float


class WriterObserver(InsertObserver, Protocol):
    """Is notified of the writer's work; collector.telemetry.metrics.Metrics is one."""

    def dead_lettered(self, topic: str, records: int) -> None:
        """Count records of a range that were refused, and are durable in the dead letters."""

    def store_refused(self, source: str, items: int) -> None:
        """Count items of an adapter that were refused, and are durable in the dead letters."""

    def dropped(self, records: int) -> None:
        """Count entries or events of dead letters that were refused themselves."""


class ForeignRange(Protocol):
    """A range of messages that others wrote; collector.ingest.foreign_topics.AdaptedRange is one."""

    @property
    def messages(self) -> Range:
        """Return the messages that are stored in place of theirs: one for each, which may be empty."""

    async def keep(self, count: int) -> None:
        """Return when the dead letters of the first `count` messages are durable. Raises BrokerError."""

    def stored(self, count: int) -> None:
        """Count the items of the first `count` messages, which are committed."""


class TopicsOfOthers(Protocol):
    """Reads the topics that others write; collector.ingest.foreign_topics.ForeignTopics does."""

    def reads(self, topic: str) -> bool:
        """Return whether others write the topic."""

    def adapt(self, messages: Range) -> ForeignRange:
        """Return how a range of one of these topics is stored. Every call returns the same. It blocks."""


class Writer:
    """Writes ranges to the store, in one task. Blocking calls of the store run in one thread of the writer's own."""

    def __init__(
        self,
        consumer: Consumer,
        store: Store,
        keep: Callable[[Sequence[RefusedItem]], Awaitable[Mapping[str, int]]],
        limits: WriterLimits,
        observer: WriterObserver,
        *,
        repetitions: Repetitions | None = None,
        of_others: TopicsOfOthers | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_unix_nano: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        is_disk_low: Callable[[], bool] = lambda: False,
    ) -> None:
        """`keep` makes dead letters durable, and returns the number of items by source (RefusedRecords.keep). `clock` is in
        seconds. `jitter` returns a random number from 0 to 1. `is_disk_low` returns whether the store's disk is so full that a
        successful insert has to be looked up. `repetitions` decides which messages are left out; None: none. `of_others` reads
        the topics that others write; None: there are none."""
        self._consumer: Final = consumer
        self._store: Final = store
        self._keep: Final = keep
        self._limits: Final = limits
        self._observer: Final = observer
        self._repetitions: Final = repetitions
        self._of_others: Final = of_others
        self._adapted: ForeignRange | None = None  # the current range, if others wrote it
        self._clock: Final = clock
        self._now_unix_nano: Final = now_unix_nano
        self._sleep: Final = sleep
        self._jitter: Final = jitter
        self._logger: Final = structlog.get_logger(__name__)
        self._thread: Final = ThreadPoolExecutor(1, "writer")
        self._stopping: Final = asyncio.Event()
        self._progress = asyncio.Event()  # set, and replaced, at every commit
        self._current_partition: Partition | None = None  # the partition of the current range; None: polling
        self._at_work: Final = asyncio.Lock()  # held from the intent of a range to its commit
        self._began: Final[dict[Partition, float]] = {}  # when the last insert of a partition began, by `clock`
        self._failures: Final[Counter[Partition | None]] = (
            Counter()
        )  # failures of each partition (None: of polls) since its last success
        self._in_a_row = 0  # consecutive failures, of any partition
        self._reminders: Final[defaultdict[Partition | None, Reminder]] = defaultdict(lambda: Reminder(clock))
        self._memory: Final = MemoryShortages(limits.row_bytes_max, store, clock)
        self._inserter: Final = RangeInserter(
            store,
            self._memory,
            observer,
            self._in_thread,
            self._intend_halved,
            refusals_max=limits.refusals_max,
            clock=clock,
            looks_up=lambda partition: is_disk_low() and self._failures[partition] < _LOOK_UPS_MAX,
        )

    @property
    def state(self) -> Literal["ok", "degraded"]:
        """Return degraded if the last attempt to store a range has failed, and the range is tried again; else ok."""
        return "degraded" if self._failures else "ok"

    def owns(self, partitions: Collection[Partition]) -> None:
        """Note which partitions are ours now. Forget the failures of all others, since another writer tries those again."""
        for partition in [partition for partition in self._failures if partition is not None and partition not in partitions]:
            del self._failures[partition]
            self._reminders.pop(partition, None)
        self._memory.owns(partitions)

    async def run(self) -> None:
        """Write until `stop`. When it returns, or was cancelled, no call of the store is running."""
        try:
            while not self._stopping.is_set():
                self._current_partition = None
                try:
                    await self._poll_and_write()
                except Exception as error:  # noqa: BLE001 - no error may end the loop; the range is polled again
                    await self._unless_stopped(self._sleep(self._failed(error)))
        finally:
            await asyncio.to_thread(self._thread.shutdown)

    async def _poll_and_write(self) -> None:
        """Write one range. No variable outside refers to the range after that, since the next one reuses its buffer."""
        messages = await self._unless_stopped(self._consumer.poll(self._limits.bytes_max, _POLL_WAIT_S))
        self._succeeded()
        if messages is not None:
            self._current_partition = messages.partition
            taken = await self._in_thread(self._take, messages)
            if not messages.in_doubt and taken.end == messages.end and not taken.depth:
                await self._linger(messages)
            await self._write(taken)
            self._succeeded()

    @asynccontextmanager
    async def paused(self, timeout_s: float) -> AsyncIterator[None]:
        """Insert and commit nothing inside this context. Raises TimeoutError if the current range takes longer."""
        async with asyncio.timeout(timeout_s):
            await self._at_work.acquire()
        try:
            yield
        finally:
            self._at_work.release()

    def _take(self, messages: Range) -> Range:
        """Return the part of a range to insert: for a range in doubt, the same as before. Raises StoreError."""
        messages = self._ours(messages)
        if messages.in_doubt:
            return messages
        if self._repetitions is not None:
            messages = self._repetitions.decide(messages)
        taken = bounded(messages, self._memory.row_bytes_max)
        return with_digest(taken._replace(left_out=before(taken.left_out, len(taken.payloads))))

    def _ours(self, messages: Range) -> Range:
        """Return a range with its messages in the form of this version. Offsets, tokens and rows are unchanged, so a range that
        an earlier version intended is completed."""
        self._adapted = None
        if self._of_others is not None and self._of_others.reads(messages.partition.topic):
            self._adapted = self._of_others.adapt(messages)
            return self._adapted.messages
        if messages.partition.topic == DEAD_LETTERS_TOPIC:
            return messages
        return messages._replace(payloads=[_current(payload) for payload in messages.payloads])

    async def _write(self, messages: Range) -> None:
        async with self._at_work:
            await self._write_range(messages)

    async def _write_range(self, messages: Range) -> None:
        if messages.in_doubt:
            self._memory.found_in_doubt(messages)
            messages = await self._as_intended(messages)
        self._inserter.begin_intent()
        await self._consumer.intend(messages)
        self._memory.intended(messages)
        adapted = self._adapted
        if adapted is not None:
            await adapted.keep(len(messages.payloads))
        if messages.partition.topic == DEAD_LETTERS_TOPIC:
            await self._write_dead_letters(messages)
        elif any(messages.payloads):
            refused = await self._inserter.insert(messages, Piece.whole(messages))
            if refused:
                sources = await self._keep(refused)
                self._observer.dead_lettered(messages.partition.topic, len(refused))
                for source, items in sources.items():
                    self._observer.store_refused(source, items)
        await self._consumer.commit(messages)
        self._memory.committed(messages)
        if adapted is not None:
            adapted.stored(len(messages.payloads))
            self._adapted = None
        if self._repetitions is not None:
            await self._in_thread(self._repetitions.committed, messages)
        self._progress.set()
        self._progress = asyncio.Event()

    async def _as_intended(self, messages: Range) -> Range:
        """Return a range in doubt without the messages that are left out. If fewer messages are left out than before, the range
        has another token, and waits until no earlier insert can be running. Raises StoreError, BrokerError."""
        if self._repetitions is None:
            return await self._in_thread(replaced, messages)
        kept = await self._in_thread(self._repetitions.reinstated, messages)
        if kept.left_out == messages.left_out:
            return await self._in_thread(replaced, messages)
        if not self._memory.is_quiet(messages.partition):
            await self._consumer.intend(messages)
            self._memory.intended(messages)
            raise StoreUnavailable(
                "a message is lost, and its repetition was left out: the repetition is stored once no earlier insert can be"
                " going on"
            )
        kept = await self._in_thread(replaced, kept)
        self._logger.warning(
            "a message that was left out as a repetition is stored: the first one is lost",
            topic=messages.partition.topic,
            partition=messages.partition.index,
            first_offset=messages.start,
        )
        return with_digest(kept._replace(in_doubt=False))._replace(in_doubt=True)

    async def _write_dead_letters(self, messages: Range) -> None:
        read = await self._in_thread(DeadLetterRange, messages, self._now_unix_nano())
        if read.replays:
            batch_ids = [replay.batch_id for replay in read.replays]
            stored = await self._in_thread(self._store.stored_batches, batch_ids, read.mark)
            for topic, replays in by_topic(read.replays, stored).items():
                piece = Piece.replays(messages, topic, [replay.payload for replay in replays])
                for one in await self._inserter.insert(messages, piece):
                    for event in replays[one.offset].events:
                        refuse(event, STORE_REFUSED, one.error)
        payloads = await self._in_thread(read.payloads)
        dropped = await self._inserter.insert(messages, Piece.whole(messages._replace(payloads=payloads)))
        for one in dropped:
            self._logger.critical(
                "the store refused a dead letter: it is lost, unless the broker still has it",
                topic=one.partition.topic,
                partition=one.partition.index,
                offset=one.offset,
                record=one.path[0],
                error=one.error,
            )
        if dropped:
            self._observer.dropped(len(dropped))

    async def _intend_halved(self, messages: Range, depth: int) -> None:
        """Intend a range again, to be halved `depth` times. Raises BrokerError."""
        await self._consumer.intend(messages._replace(depth=depth))
        self._in_a_row = 0  # the next attempt is a different one, so it is made soon

    def stop(self) -> None:
        """Let `run` end after the current range, but without waiting for a store or broker that fails."""
        self._stopping.set()

    async def drained(self, timeout_s: float, topic: str | None = None) -> bool:
        """Wait at most `timeout_s` until everything that was appended before this call is stored, or all of it in one topic.
        Return whether it is."""
        try:
            async with asyncio.timeout(timeout_s):
                ends = {partition: position.end for partition, position in (await self._consumer.positions()).items()}
                goals = {partition: end for partition, end in ends.items() if topic is None or partition.topic == topic}
                while True:
                    progress = self._progress
                    positions = await self._consumer.positions()
                    if all(position.committed >= goals.get(partition, 0) for partition, position in positions.items()):
                        return True
                    await progress.wait()
        except (TimeoutError, BrokerError):
            return False

    async def _linger(self, messages: Range) -> None:
        """Wait until `linger_ms` after the partition's last insert began, unless the range is half full. So the first record
        after a pause is stored at once; under load, the messages that come meanwhile share the next insert."""
        if not messages.in_doubt and sum(map(len, messages.payloads)) < self._limits.bytes_max // 2:
            early_s = self._began.get(messages.partition, -math.inf) + self._limits.linger_ms / 1000 - self._clock()
            if early_s > 0:
                await self._unless_stopped(self._sleep(early_s))
        self._began[messages.partition] = self._clock()

    def _succeeded(self) -> None:
        if self._current_partition is not None:  # a successful poll says nothing about the store
            self._in_a_row = 0
        self._reminders.pop(self._current_partition, None)
        if failures := self._failures.pop(self._current_partition, 0):
            self._logger.info("writing again", topic=self._topic(), failures=failures)

    def _failed(self, error: Exception) -> float:
        """Count the failure. Return the seconds until the next attempt: they double up to a maximum, and half is random."""
        self._failures[self._current_partition] += 1
        failures = self._failures[self._current_partition]
        if self._reminders[self._current_partition].due():
            expected = isinstance(error, BrokerError | StoreError)
            self._logger.warning(
                "cannot write", topic=self._topic(), failures=failures, error=str(error), exc_info=not expected
            )
        retry_max_s = self._limits.retry_max_s
        if isinstance(error, BrokerError):
            retry_max_s = min(retry_max_s, _BROKER_RETRY_MAX_S)
        delay_s = min(retry_max_s, self._limits.retry_min_s * 2.0 ** min(self._in_a_row, 64))
        self._in_a_row += 1
        return delay_s * (0.5 + self._jitter() / 2)

    def _topic(self) -> str | None:
        return self._current_partition.topic if self._current_partition else None

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return the result of `work`; None: `stop` came first, and `work` was cancelled."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            task.cancel()
        await asyncio.wait({task})
        return None if task.cancelled() else task.result()

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)


def _current(payload: Payload) -> Payload:
    # A payload that has the current form already is not copied.
    return payload if is_current(bytes(payload[:HEAD_BYTES])) else current(bytes(payload))
