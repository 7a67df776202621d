"""The writer: from the broker into the store, exactly once.

Invariants:
1. A range is intended before it is inserted, inserted under tokens that its log and its offsets determine, and committed after
   (test_writer.py, test_a_crash_anywhere_loses_and_repeats_nothing).
2. Whatever fails, at whatever step, the range is abandoned, polled again in doubt, and looked up before it is repeated, and
   after (test_writer.py, test_any_sequence_of_faults_ends_with_every_record_once).
3. The pieces of a range that the store did not refuse are those at the depth of its intent. A deeper intent is made only while
   nothing of the piece that failed is stored (test_writer_memory.py).
4. What is left out of a range, because it was stored before, is decided before the intent, and durable with it
   (test_repetitions.py, test_each_request_is_stored_once).
docs/internals/exactly-once.md has the argument.

So there is one way of failing, for broker and store, passing error and crash alike, and one place that waits: the loop. It
tries for ever, with a growing, jittered delay (three lines here, which a retry library would only hide: what is retried is
the loop itself, and the delay must end at `stop`). Only data that the store refuses is not tried again: it is halved
(collector/writer/piece.py), down to the item that is at fault, which becomes a dead letter, while the rest is stored. So is a
range for which the store has too little memory, after an intent that says so.

Of a range of infrasage.dead_letters the records of replays are stored first (collector/writer/replay_range.py), then its
entries and events. It is the only topic that is decoded here, and what the store refuses of it becomes no dead letter again: it
is logged.
"""

import asyncio
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeVar

import structlog

from adapters.errors import STORE_REFUSED
from collector.broker.contract import DEAD_LETTERS_TOPIC, BrokerError, Consumer, Partition, Range
from collector.broker.left_out import before
from collector.runtime.reminders import Reminder
from collector.store.contract import Store, StoreError, StoreRefusedData, StoreShortage
from collector.store.payload_index import MessageKey, contents
from collector.writer.memory_shortage import MemoryShortages
from collector.writer.piece import Piece, bounded
from collector.writer.repetitions import Repetitions, replaced
from collector.writer.replay_range import DeadLetterRange, by_topic, refuse
from collector.writer.store_refusals import RefusedItem

T = TypeVar("T")

# How long one poll waits. Nothing depends on it: appends and `stop` both end it.
_POLL_WAIT_S: Final = 10.0
# After so many failures of a partition an insert that succeeded is believed without a look-up.
_LOOK_UPS_MAX: Final = 8
# A broker that fails is asked again so soon, since a new leader ends it. A store in trouble is left alone for longer.
_BROKER_RETRY_MAX_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class WriterLimits:
    """As the settings [writer] have them."""

    bytes_max: int  # of one insert, unless one message alone is larger
    row_bytes_max: int  # of its rows, unless one item alone has more
    refusals_max: int  # inserts of one range that are refused, after which records that are refused are not divided any more
    linger_ms: float  # an insert that is not full begins no sooner than this after the one before
    retry_min_s: float
    retry_max_s: float


class WriterObserver(Protocol):
    """Receives what the writer does; collector.telemetry.metrics.Metrics is one."""

    def written(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        """Count one insert that is in the store. `messages`: 0 if it was only a part of one."""

    def write_failed(self, topic: str, kind: str) -> None:
        """Count one insert that failed. `kind`: unavailable (tried again) or refused (the data)."""

    def dead_lettered(self, topic: str, records: int) -> None:
        """Count records of a range that were refused, and are durable in the dead letters."""

    def store_refused(self, source: str, items: int) -> None:
        """Count items of an adapter that were refused, and are durable in the dead letters."""

    def dropped(self, records: int) -> None:
        """Count entries or events of dead letters that were refused themselves."""

    def completed(self, topic: str, rows: int, in_part: int) -> None:
        """An interrupted insert had left out so many rows, which are stored now; and `in_part`, which are missing."""


class _NotFound(StoreError):
    """An insert succeeded, and not all of its rows are there."""


class Writer:
    """Runs in one task; the store's calls block, and run in one thread of its own."""

    def __init__(
        self,
        consumer: Consumer,
        store: Store,
        keep: Callable[[Sequence[RefusedItem]], Awaitable[Mapping[str, int]]],
        limits: WriterLimits,
        observer: WriterObserver,
        *,
        repetitions: Repetitions | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_unix_nano: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        is_disk_low: Callable[[], bool] = lambda: False,
    ) -> None:
        """`keep` makes dead letters durable, and returns how many items of each source (RefusedRecords.keep). `clock` is in
        seconds; `jitter` draws from 0 to 1. `is_disk_low`: the store's disk is so full that its inserts are not trusted.
        `repetitions`: None leaves nothing out."""
        self._consumer: Final = consumer
        self._store: Final = store
        self._keep: Final = keep
        self._limits: Final = limits
        self._observer: Final = observer
        self._repetitions: Final = repetitions
        self._clock: Final = clock
        self._now_unix_nano: Final = now_unix_nano
        self._sleep: Final = sleep
        self._jitter: Final = jitter
        self._is_disk_low: Final = is_disk_low
        self._logger: Final = structlog.get_logger(__name__)
        self._thread: Final = ThreadPoolExecutor(1, "writer")
        self._stopping: Final = asyncio.Event()
        self._progress = asyncio.Event()  # set, and replaced, at every commit
        self._in_hand: Partition | None = None  # None: polling
        self._intended_at = -math.inf  # the range in hand, by `clock`
        self._at_work: Final = asyncio.Lock()  # held from the intent of a range to its commit
        self._began: Final[dict[Partition, float]] = {}  # when the last insert did, by `clock`
        self._failures: Final[Counter[Partition | None]] = Counter()  # of what was in hand, since it last succeeded
        self._in_a_row = 0  # failures, whatever was in hand
        self._reminders: Final[defaultdict[Partition | None, Reminder]] = defaultdict(lambda: Reminder(clock))
        self._memory: Final = MemoryShortages(limits.row_bytes_max, store, clock)

    @property
    def state(self) -> Literal["ok", "degraded"]:
        """degraded: something could not be stored at its last attempt, and is tried again."""
        return "degraded" if self._failures else "ok"

    def owns(self, partitions: Collection[Partition]) -> None:
        """These are ours now: whatever else failed here is somebody else's to try again."""
        for partition in [partition for partition in self._failures if partition is not None and partition not in partitions]:
            del self._failures[partition]
            self._reminders.pop(partition, None)
        self._memory.owns(partitions)

    async def run(self) -> None:
        """Write until `stop`. When it returns, or was cancelled, no call to the store is in progress any more."""
        try:
            while not self._stopping.is_set():
                self._in_hand = None
                try:
                    await self._poll_and_write()
                except Exception as error:  # noqa: BLE001 - the loop outlives whatever it is; what was in hand comes back
                    await self._unless_stopped(self._sleep(self._failed(error)))
        finally:
            await asyncio.to_thread(self._thread.shutdown)

    async def _poll_and_write(self) -> None:
        """Write one range. A method of its own, so that nothing holds a range once it is written: the next one reuses its
        buffer."""
        messages = await self._unless_stopped(self._consumer.poll(self._limits.bytes_max, _POLL_WAIT_S))
        self._succeeded()
        if messages is not None:
            self._in_hand = messages.partition
            taken = await self._in_thread(self._take, messages)
            if not messages.in_doubt and taken.end == messages.end and not taken.depth:
                await self._linger(messages)
            await self._write(taken)
            self._succeeded()

    @asynccontextmanager
    async def paused(self, timeout_s: float) -> AsyncIterator[None]:
        """Meanwhile nothing is inserted or committed. Raises TimeoutError where the range in hand takes longer."""
        async with asyncio.timeout(timeout_s):
            await self._at_work.acquire()
        try:
            yield
        finally:
            self._at_work.release()

    def _take(self, messages: Range) -> Range:
        """Return what is to be inserted of a range; of one in doubt, the same as before. Raises StoreError."""
        if messages.in_doubt:
            return replaced(messages)
        if self._repetitions is not None:
            messages = self._repetitions.decide(messages)
        taken = bounded(messages, self._memory.row_bytes_max)
        return taken._replace(left_out=before(taken.left_out, len(taken.payloads)))

    async def _write(self, messages: Range) -> None:
        async with self._at_work:
            await self._write_range(messages)

    async def _write_range(self, messages: Range) -> None:
        if messages.in_doubt:
            self._memory.found_in_doubt(messages)
        self._intended_at = self._clock()
        await self._consumer.intend(messages)
        self._memory.intended(messages)
        if messages.partition.topic == DEAD_LETTERS_TOPIC:
            await self._write_dead_letters(messages)
        else:
            refused = await self._insert_all(messages, Piece.whole(messages))
            if refused:
                sources = await self._keep(refused)
                self._observer.dead_lettered(messages.partition.topic, len(refused))
                for source, items in sources.items():
                    self._observer.store_refused(source, items)
        await self._consumer.commit(messages)
        self._memory.committed(messages)
        if self._repetitions is not None:
            await self._in_thread(self._repetitions.committed, messages)
        self._progress.set()
        self._progress = asyncio.Event()

    async def _write_dead_letters(self, messages: Range) -> None:
        read = await self._in_thread(DeadLetterRange, messages, self._now_unix_nano())
        if read.replays:
            batch_ids = [replay.batch_id for replay in read.replays]
            stored = await self._in_thread(self._store.stored_batches, batch_ids, read.mark)
            for topic, replays in by_topic(read.replays, stored).items():
                piece = Piece.replays(messages, topic, [replay.payload for replay in replays])
                for one in await self._insert_all(messages, piece):
                    for event in replays[one.offset].events:
                        refuse(event, STORE_REFUSED, one.error)
        payloads = await self._in_thread(read.payloads)
        dropped = await self._insert_all(messages, Piece.whole(messages._replace(payloads=payloads)))
        for one in dropped:
            self._logger.critical(
                "the store refused a dead letter, which is lost but for what the broker still has",
                topic=one.partition.topic,
                partition=one.partition.index,
                offset=one.offset,
                record=one.path[0],
                error=one.error,
            )
        if dropped:
            self._observer.dropped(len(dropped))

    async def _insert_all(self, messages: Range, piece: Piece) -> list[RefusedItem]:
        """Every item of it is stored, or among those returned. Raises StoreError: some may be stored."""
        attempt = _Attempt(messages.in_doubt, messages.depth)
        try:
            await self._insert(piece, attempt)
        except StoreShortage as error:
            if attempt.failed is not None:
                await self._halve(messages, attempt.failed, attempt.stored, error)
            raise
        return attempt.refused

    async def _insert(self, piece: Piece, attempt: "_Attempt") -> None:
        """Pieces in their order: what is stored of a message is always its first items, but for those that were refused."""
        if piece.level < attempt.depth and (halves := await self._in_thread(piece.halves)):
            for half in halves:
                await self._insert(half, attempt)
            return
        topic = piece.topic
        began = self._clock()
        try:
            if not (attempt.in_doubt and await self._in_thread(self._store.holds, topic, piece.payload, attempt.stored)):
                if self._memory.gives_up(piece):
                    attempt.refused.append(_refused(piece, self._memory.last_error))
                    return
                await self._store_piece(piece, attempt)
                await self._check_stored(piece, attempt)
                self._memory.stored(piece)
                self._observer.written(topic, piece.messages, sum(map(len, piece.parts)), self._clock() - began)
            attempt.note(piece)
        except StoreRefusedData as error:
            self._observer.write_failed(topic, "refused")
            attempt.refusals += 1
            if attempt.refusals > self._limits.refusals_max:
                attempt.refused += [_refused(one, str(error)) for one in piece.records()]
                return
            halves = await self._in_thread(piece.halves)
            if not halves or await self._is_refused_bare(piece):
                attempt.refused += [_refused(one, str(error)) for one in piece.records()]
                return
            for half in halves:
                await self._insert(half, attempt)
        except StoreError as error:
            self._observer.write_failed(topic, "unavailable")
            if isinstance(error, StoreShortage):
                attempt.failed = attempt.failed or piece
            elif not isinstance(error, _NotFound):
                self._memory.unanswered(piece.partition)
            raise

    async def _store_piece(self, piece: Piece, attempt: "_Attempt") -> None:
        """Insert it. In doubt, tokens prove nothing by themselves: the rows of a known one may be missing, and those of a
        forgotten one may be there. Raises StoreError."""
        looks_up = attempt.in_doubt and await self._in_thread(self._store.can_complete, piece.topic, piece.payload)
        is_quiet = self._memory.is_quiet(piece.partition)
        asked = piece.topic, piece.payload, attempt.stored
        if looks_up and is_quiet and not await self._in_thread(self._store.untouched, *asked):
            await self._complete(piece, attempt)
            return
        await self._in_thread(self._store.insert, piece.topic, piece.parts, piece.token)
        if not looks_up or await self._in_thread(self._store.holds, *asked):
            return
        if not is_quiet:
            raise _NotFound(
                "an insert succeeded, and some of its rows are missing: they are inserted once no other can bring them"
            )
        await self._complete(piece, attempt)

    async def _complete(self, piece: Piece, attempt: "_Attempt") -> None:
        """Store what is missing of it. Raises StoreError.

        Without tokens only one writer may do that. Another, to which the partition has gone, completes nothing until inserts
        of this one have ended: `insert_outlives_s` after it found the range, and so after our intent.
        """
        if self._clock() - self._intended_at > (self._store.insert_outlives_s or math.inf) / 2:
            raise _NotFound("rows of an interrupted insert are missing: before they are inserted, the range is intended anew")
        earlier = [each.payload for each in attempt.earlier(piece)]
        done = await self._in_thread(self._store.complete, piece.topic, piece.payload, piece.token, earlier)
        rows, in_part = sum(done.rows.values()), sum(done.in_part.values())
        if not rows and not in_part:
            return
        self._observer.completed(piece.topic, rows, in_part)
        place = {"topic": piece.topic, "partition": piece.partition.index, "offset": piece.offset, "token": piece.token}
        if rows:
            self._logger.warning(
                "an interrupted insert is completed: its missing rows are stored", **place, rows=dict(done.rows)
            )
        if in_part:
            self._logger.error(
                "rows of an interrupted insert are missing: the store has some of their message and not all, and which is not"
                " known; `audit` shows the message",
                **place,
                rows_missing=dict(done.in_part),
            )

    async def _check_stored(self, piece: Piece, attempt: "_Attempt") -> None:
        """Look up what was inserted, while the disk is low: an insert on a full disk may succeed and leave nothing that can be
        read. Raises StoreError. Ends after some attempts, in case the look-up is what fails."""
        if not self._is_disk_low() or self._failures[piece.partition] >= _LOOK_UPS_MAX:
            return
        if not await self._in_thread(self._store.holds, piece.topic, piece.payload, attempt.stored):
            raise _NotFound("an insert succeeded on a full disk, and its rows are not found: it is repeated")

    async def _is_refused_bare(self, piece: Piece) -> bool:
        """Return whether it is a record that is refused without its items too, so that none of them is at fault alone, and
        to search among them is of no use. Raises StoreError."""
        bare = await self._in_thread(piece.bare)
        if bare is None:
            return False
        try:
            await self._in_thread(self._store.insert, bare.topic, bare.parts, bare.token)
        except StoreRefusedData:
            return True
        return False

    async def _halve(self, messages: Range, piece: Piece, stored: Mapping[MessageKey, int], error: StoreShortage) -> None:
        """Intend the range once more, to be inserted in smaller pieces, where that is called for and safe. Raises StoreError,
        BrokerError."""
        is_one = not await self._in_thread(piece.halves)
        if not self._memory.failed(piece, error, is_one=is_one):
            return
        if not await self._in_thread(self._store.untouched, piece.topic, piece.payload, stored):
            return
        if is_one:
            self._memory.give_up(piece, error)
            return
        await self._consumer.intend(messages._replace(depth=piece.level + 1))
        self._memory.halved()
        self._in_a_row = 0
        self._logger.warning(
            "the store has too little room for an insert, which is cut in smaller pieces",
            topic=piece.topic,
            partition=piece.partition.index,
            offset=piece.offset,
            row_bytes=piece.row_bytes(),
            pieces=2 ** (piece.level + 1),
            error=str(error),
        )

    def stop(self) -> None:
        """Let `run` end: after the range in hand, but without waiting for a store or broker that fails."""
        self._stopping.set()

    async def drained(self, timeout_s: float) -> bool:
        """Return whether everything that was appended before this call is stored; waits for that, up to `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                goals = {partition: position.end for partition, position in (await self._consumer.positions()).items()}
                while True:
                    progress = self._progress
                    positions = await self._consumer.positions()
                    if all(position.committed >= goals.get(partition, 0) for partition, position in positions.items()):
                        return True
                    await progress.wait()
        except (TimeoutError, BrokerError):
            return False

    async def _linger(self, messages: Range) -> None:
        """The first record after a pause is stored at once. Under load, what comes meanwhile shares the next insert."""
        if not messages.in_doubt and sum(map(len, messages.payloads)) < self._limits.bytes_max // 2:
            early_s = self._began.get(messages.partition, -math.inf) + self._limits.linger_ms / 1000 - self._clock()
            if early_s > 0:
                await self._unless_stopped(self._sleep(early_s))
        self._began[messages.partition] = self._clock()

    def _succeeded(self) -> None:
        if self._in_hand is not None:  # that a poll succeeds says nothing of the store
            self._in_a_row = 0
        self._reminders.pop(self._in_hand, None)
        if failures := self._failures.pop(self._in_hand, 0):
            self._logger.info("writing again", topic=self._topic(), failures=failures)

    def _failed(self, error: Exception) -> float:
        """Count the failure. Return the seconds until the next attempt: they double up to a maximum, and half is random."""
        self._failures[self._in_hand] += 1
        failures = self._failures[self._in_hand]
        if self._reminders[self._in_hand].due():
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
        return self._in_hand.topic if self._in_hand else None

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Its result; None where `stop` came first, and it was cancelled."""
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


@dataclass
class _Attempt:
    """One attempt at a range."""

    in_doubt: bool
    depth: int
    refused: list[RefusedItem] = field(default_factory=list)
    refusals: int = 0
    stored: Counter[MessageKey] = field(default_factory=Counter)  # items of messages that are inserted in parts
    pieces: list[Piece] = field(default_factory=list)  # that are stored, of the last message that is inserted in parts
    failed: Piece | None = None  # for which the store had too little room

    def note(self, piece: Piece) -> None:
        """It is stored. Parts of one message have the same batch id and part, so only together do they tell which are there."""
        if not piece.messages and piece.topic != DEAD_LETTERS_TOPIC:
            with suppress(ValueError):
                self.stored.update(contents(piece.payload).items)
            self.pieces = [*self.earlier(piece), piece]

    def earlier(self, piece: Piece) -> list[Piece]:
        """Return the pieces of the same message that are stored."""
        return [each for each in self.pieces if each.offset == piece.offset] if not piece.messages else []


def _refused(piece: Piece, error: str) -> RefusedItem:
    return RefusedItem(piece.partition, piece.log, piece.offset, piece.path, piece.payload, error)
