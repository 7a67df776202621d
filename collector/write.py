"""The writer: from the broker into the store, exactly once.

The law: a range is intended before it is inserted, inserted under a token that its offsets alone determine, and committed
after. Whatever fails, at whatever step, the range is given up, polled again in doubt, and then looked up before it is
repeated. docs/exactly-once.md has the argument.

So there is one way of failing, for broker and store, passing error and crash alike, and one place that waits: the loop. It
tries for ever, with a growing, jittered delay (three lines here, which a retry library would only hide: what is retried is
the loop itself, and the delay must end at `stop`). Only data that the store refuses is not tried again: it is halved, down to
the record that is at fault, which becomes a dead letter, while the rest is stored.

Of a range of infrasage.dead_letters the records of replays are stored first (collector/replays.py), then its entries and
events. It is the only topic that is decoded here, and what the store refuses of it becomes no dead letter again: it is logged.
"""

import asyncio
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, Self, TypeVar

import structlog

from adapters.errors import STORE_REFUSED
from adapters.wire import Cursor, NotPlain
from collector.broker.contract import DEAD_LETTERS_TOPIC, BrokerError, Consumer, Partition, Payload, Range
from collector.refused import Refused
from collector.reminders import Reminder
from collector.replays import DeadLetterRange, by_topic, refuse
from collector.store.contract import Store, StoreError, StoreRefusedData

T = TypeVar("T")

# How long one poll waits. Nothing depends on it: appends and `stop` both end it.
_POLL_WAIT_S: Final = 10.0
# A broker that fails is asked again so soon, since a new leader ends it. A store in trouble is left alone for longer.
_BROKER_RETRY_MAX_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class WriterLimits:
    """As the settings [writer] have them."""

    bytes_max: int  # of one insert, unless one message alone is larger
    linger_ms: float  # an insert that is not full begins no sooner than this after the one before
    retry_min_s: float
    retry_max_s: float


class WriterObserver(Protocol):
    """Told what the writer does; collector.metrics.Metrics is one."""

    def written(self, topic: str, messages: int, size_bytes: int, seconds: float) -> None:
        """One insert is in the store. `messages`: 0 where it was only a part of one."""

    def write_failed(self, topic: str, kind: str) -> None:
        """One insert failed. `kind`: unavailable (tried again) or refused (the data)."""

    def dead_lettered(self, topic: str, records: int) -> None:
        """So many records of a range were refused, and are durable in the dead letters."""

    def dropped(self, records: int) -> None:
        """So many entries or events of dead letters were refused themselves."""


class Writer:
    """Runs in one task; the store's calls block, and run in one thread of its own."""

    def __init__(
        self,
        consumer: Consumer,
        store: Store,
        keep: Callable[[Sequence[Refused]], Awaitable[None]],
        limits: WriterLimits,
        observer: WriterObserver,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_unix_nano: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`keep` makes dead letters durable (RefusedRecords.keep). `clock` is in seconds; `jitter` draws from 0 to 1."""
        self._consumer: Final = consumer
        self._store: Final = store
        self._keep: Final = keep
        self._limits: Final = limits
        self._observer: Final = observer
        self._clock: Final = clock
        self._now_unix_nano: Final = now_unix_nano
        self._sleep: Final = sleep
        self._jitter: Final = jitter
        self._logger: Final = structlog.get_logger(__name__)
        self._thread: Final = ThreadPoolExecutor(1, "writer")
        self._stopping: Final = asyncio.Event()
        self._progress = asyncio.Event()  # set, and replaced, at every commit
        self._in_hand: Partition | None = None  # None: polling
        self._began: Final[dict[Partition, float]] = {}  # when the last insert did, by `clock`
        self._failures: Final[Counter[Partition | None]] = Counter()  # of what was in hand, since it last succeeded
        self._in_a_row = 0  # failures, whatever was in hand
        self._reminders: Final[defaultdict[Partition | None, Reminder]] = defaultdict(lambda: Reminder(clock))

    @property
    def state(self) -> Literal["ok", "degraded"]:
        """degraded: something could not be stored at its last attempt, and is tried again."""
        return "degraded" if self._failures else "ok"

    def owns(self, partitions: Collection[Partition]) -> None:
        """These are ours now: whatever else failed here is somebody else's to try again."""
        for partition in [partition for partition in self._failures if partition is not None and partition not in partitions]:
            del self._failures[partition]
            self._reminders.pop(partition, None)

    async def run(self) -> None:
        """Until `stop`. When it returns, or was cancelled, no call to the store is under way any more."""
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
        """By itself, so that nothing holds a range once it is written: its buffer is that of the next."""
        messages = await self._unless_stopped(self._consumer.poll(self._limits.bytes_max, _POLL_WAIT_S))
        self._succeeded()
        if messages is not None:
            self._in_hand = messages.partition
            await self._linger(messages)
            await self._write(messages)
            self._succeeded()

    async def _write(self, messages: Range) -> None:
        await self._consumer.intend(messages)
        refused: list[Refused] = []
        if messages.partition.topic == DEAD_LETTERS_TOPIC:
            await self._write_dead_letters(messages)
        else:
            await self._insert(_Piece.whole(messages), messages.in_doubt, refused)
        if refused:
            await self._keep(refused)
            self._observer.dead_lettered(messages.partition.topic, len(refused))
        await self._consumer.commit(messages)
        self._progress.set()
        self._progress = asyncio.Event()

    async def _write_dead_letters(self, messages: Range) -> None:
        read = await self._in_thread(DeadLetterRange, messages, self._now_unix_nano())
        if read.replays:
            batch_ids = [replay.batch_id for replay in read.replays]
            stored = await self._in_thread(self._store.stored_batches, batch_ids, read.mark)
            for topic, replays in by_topic(read.replays, stored).items():
                refused: list[Refused] = []
                piece = _Piece.replays(messages, topic, [replay.payload for replay in replays])
                await self._insert(piece, messages.in_doubt, refused)
                for one in refused:
                    for event in replays[one.offset].events:
                        refuse(event, STORE_REFUSED, one.error)
        dropped: list[Refused] = []
        payloads = await self._in_thread(read.payloads)
        await self._insert(_Piece.whole(messages._replace(payloads=payloads)), messages.in_doubt, dropped)
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

    async def _insert(self, piece: "_Piece", in_doubt: bool, refused: list[Refused]) -> None:
        """Every record of it is stored, or among the refused. Raises StoreError: some may be stored."""
        topic = piece.topic
        began = self._clock()
        try:
            if in_doubt and await self._in_thread(self._store.holds, topic, b"".join(piece.parts)):
                return
            await self._in_thread(self._store.insert, topic, piece.parts, piece.token)
        except StoreRefusedData as error:
            self._observer.write_failed(topic, "refused")
            halves = piece.halves()
            if not halves:
                payload = b"".join(piece.parts)
                refused.append(Refused(piece.partition, piece.log, piece.offset, (piece.record_index,), payload, str(error)))
            for half in halves:
                await self._insert(half, in_doubt, refused)
        except StoreError:
            self._observer.write_failed(topic, "unavailable")
            raise
        else:
            self._observer.written(topic, piece.messages, sum(map(len, piece.parts)), self._clock() - began)

    def stop(self) -> None:
        """Let `run` end: after the range in hand, but without waiting for a store or broker that fails."""
        self._stopping.set()

    async def drained(self, timeout_s: float) -> bool:
        """Whether everything that was appended before this call is stored; waits for that, up to `timeout_s`."""
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
        """Note it; the seconds until the next attempt, which double up to a maximum, and of which half is drawn by lot."""
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


@dataclass(frozen=True)
class _Piece:
    """What one insert takes: some consecutive messages of a range, or some records of one message."""

    partition: Partition
    log: str  # the identity of the log that it was read from
    topic: str  # which of the store's it is for
    token: str  # that of the range, and which part of it: so it is the same however often the range is repeated
    offset: int  # of the first message
    parts: Sequence[Payload]
    messages: int  # how many whole ones
    record_index: int = 0  # of the first record in its message, where there are no whole ones
    divides: bool = True  # a message may be stored in part

    @classmethod
    def whole(cls, range_: Range) -> Self:
        token = _token(range_, f"{range_.partition.topic}/{range_.partition.index}/{range_.start}-{range_.end}")
        return cls(
            range_.partition, range_.log, range_.partition.topic, token, range_.start, range_.payloads, len(range_.payloads)
        )

    @classmethod
    def replays(cls, range_: Range, topic: str, payloads: Sequence[bytes]) -> Self:
        """For `topic`, of a range of dead letters. Offsets count the payloads."""
        token = _token(range_, f"replays/{topic}/{range_.partition.index}/{range_.start}-{range_.end}")
        return cls(range_.partition, range_.log, topic, token, 0, payloads, len(payloads), divides=False)

    def halves(self) -> Sequence["_Piece"]:
        """Two; none where it is one record, or can't be cut. Their tokens end in the way to them: /0 and /1."""
        if self.messages == 1:
            if not self.divides:
                return ()
            records = replace(self, parts=_records(bytes(self.parts[0])), messages=0)
            return records.halves()
        middle = len(self.parts) // 2
        if middle == 0:
            return ()
        whole_messages = middle if self.messages else 0
        return (
            replace(self, token=f"{self.token}/0", parts=self.parts[:middle], messages=whole_messages),
            replace(
                self,
                token=f"{self.token}/1",
                offset=self.offset + whole_messages,
                parts=self.parts[middle:],
                messages=self.messages - whole_messages,
                record_index=self.record_index + (0 if self.messages else middle),
            ),
        )


def _token(range_: Range, place: str) -> str:
    """An intent without an identity is of a version whose tokens had none: its repetition has the same."""
    return f"{range_.log}/{place}" if range_.log else place


def _records(batch: bytes) -> list[bytes]:
    """A TelemetryBatch of each record, undecoded; the whole where it does not even divide into fields."""
    cursor = Cursor(batch)
    records: list[bytes] = []
    try:
        while (start := cursor.position) < len(batch):
            cursor.field(len(batch))
            records.append(batch[start : cursor.position])
    except NotPlain:
        return [batch]
    return records
