"""Polls the state of the broker and the store, for /healthz and /metrics.

Both are polled every 3 s, and every second during an outage. The number of open dead letters is polled every 10 s, since it
costs the store more.

Invariants:
1. /healthz never waits for the broker or the store. If one of them hangs, the state of the other is still shown.
   test_a_store_that_hangs_hides_nothing_else
2. A scrape counts every dead letter that was acknowledged before it, and waits for that at most 4.5 s. Before that it may wait
   as long for another scrape that is under way, if dead letters came since that one began (collector/api/metrics_page.py). It
   waits for dead letters only, whatever else waits to be stored. test_a_scrape_has_the_dead_letters_that_came_before_it,
   test_a_store_that_hangs_does_not_hold_up_a_scrape
3. The next scrape does not reuse the result of a scrape that could not wait long enough.
   test_a_count_that_came_too_late_is_not_kept
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, Protocol

import structlog

from collector.api.health import CLICKHOUSE, EMBEDDED_ENGINE, EMBEDDED_LOG, KAFKA, NOT_USED, Health
from collector.broker.contract import DEAD_LETTERS_TOPIC, BrokerError, Partition, Position
from collector.runtime.clock import ClockWatch
from collector.runtime.disk import Disk
from collector.runtime.reminders import Reminder
from collector.store.contract import StoreError
from collector.telemetry.lag import LagClock
from collector.telemetry.metrics import Metrics

_INTERVAL_S: Final = 3.0
# After the broker or the store did not answer. Writers and readers notice an outage before this poll.
_AWAY_INTERVAL_S: Final = 1.0
_DEAD_LETTERS_INTERVAL_S: Final = 10.0
# A scrape looks up the time of the newest item, unless that was done within this time.
_NEWEST_KEPT_S: Final = 1.0
_DAMAGED_PARTS_INTERVAL_S: Final = 10.0
# How long a scrape waits until dead letters that are on their way are stored and counted. Prometheus waits 10 s for a scrape,
# and a scrape may first wait as long for another one.
_COUNTED_WAIT_S: Final = 4.5
# How long a scrape waits, at the same time, until the newest items are known.
_LOOKED_WAIT_S: Final = 2.0

log = structlog.get_logger(__name__)


class WatchedBroker(Protocol):
    """What the monitor reads from a broker of any kind."""

    @property
    def failure(self) -> str | None:
        """Return why the broker does not take messages; None: it does, as far as is known."""

    @property
    def unproven(self) -> str | None:
        """Return why appends failed, if none has succeeded since; else None."""

    async def ping(self) -> None:
        """Find out whether a broker that failed works again. Raises BrokerError."""

    async def progress(self) -> Mapping[Partition, Position]:
        """Return the same as `positions`, but with the last known end for a partition whose broker does not answer. Raises
        BrokerError."""

    async def positions(self) -> Mapping[Partition, Position]:
        """Return the positions of the partitions that are ours. Raises BrokerError."""


class WatchedLog(Protocol):
    """What the monitor reads from the local log."""

    @property
    def is_full(self) -> bool:
        """Return whether the log has reached its limit."""

    @property
    def bytes_used(self) -> int:
        """Return how many bytes the log's messages take."""

    @property
    def bytes_max(self) -> int:
        """Return how many bytes the log's messages may take."""

    @property
    def is_gone(self) -> bool:
        """Return whether the log's files were removed, replaced or cut since they were opened."""

    @property
    def is_cut(self) -> bool:
        """Return whether the log's files were cut since they were opened."""

    def damages(self) -> tuple[int, int]:
        """Return how often damage was found, and how many messages were lost, without what an operator has confirmed. Blocks.
        Raises OSError."""


class HealthMonitor:
    """Polls while `run` runs in a task. `health` may be called at any time."""

    def __init__(
        self,
        metrics: Metrics,
        broker: WatchedBroker,
        *,
        local_log: WatchedLog | None = None,
        disk: Disk | None = None,
        dead_letters: Callable[[], int] | None = None,
        owns: Callable[[Collection[Partition]], None] | None = None,
        ping_store: Callable[[], None] | None = None,
        writer_state: Callable[[], str] | None = None,
        failures: Mapping[str, Callable[[], str | None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        caught_up: Callable[[float, str], Awaitable[bool]] | None = None,
        newest_items: Callable[[], Mapping[str, float]] | None = None,
        damaged_parts: Callable[[], int] | None = None,
    ) -> None:
        """`dead_letters`, `ping_store`, `newest_items` and `damaged_parts` block, and raise StoreError.

        `dead_letters` returns the number of open dead letters; None: this process reads no store.
        `owns` is called with the partitions that are ours; None: this process reads nothing from the broker.
        `ping_store` is None if the store is in this process.
        `writer_state` returns "ok", or what is wrong with inserts; None: this process writes nothing to the store.
        `failures` are the other parts of infrasage_up, by name. Each returns why its part fails, or None.
        `clock` is in seconds.
        `caught_up` waits at most so many seconds until everything appended to a topic is stored, and returns whether it is;
        None: this process writes nothing to the store.
        `newest_items` returns the time of the newest stored item of each signal, in seconds since 1970; None: this process
        reads no store.
        `damaged_parts` returns how many damaged parts of the store were put aside; None: the store is not in this process."""
        self._metrics: Final = metrics
        self._broker: Final = broker
        self._local_log: Final = local_log
        self._damages: tuple[int, int] = 0, 0
        self._clock_watch: Final = ClockWatch()
        self._disk: Final = disk
        self._dead_letters: Final = dead_letters
        self._owns: Final = owns
        self._ping_store: Final = ping_store
        self._writer_state: Final = writer_state
        self._failures: Final = failures or {}
        self._clock: Final = clock
        self._caught_up: Final = caught_up
        self._lag_clock: Final = LagClock(clock)
        self._newest_items: Final = newest_items
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._count_damaged_parts: Final = damaged_parts
        self._damaged_parts = 0
        self._counting: asyncio.Task[None] | None = None
        self._counted: dict[Partition, int] | None = None  # the offsets up to which the last count found dead letters stored
        self._counts_failed = 0  # how often a scrape could not wait until all dead letters before it were counted
        self._counts_begun = 0
        self._count_shown = 0
        self._store_failure: str | None = None
        self._is_stopping = False

    def stopping(self) -> None:
        """Report from now on in /healthz that the process is stopping."""
        self._is_stopping = True

    def health(self) -> Health:
        return Health(
            clickhouse=self._store(),
            kafka=self._kafka(),
            log=self._log(),
            is_stopping=self._is_stopping,
            broker=EMBEDDED_LOG if self._local_log is not None else KAFKA,
            store=NOT_USED if self._writer_state is None else CLICKHOUSE if self._ping_store is not None else EMBEDDED_ENGINE,
        )

    def _kafka(self) -> str:
        if self._broker.failure is not None or self._broker.unproven is not None:
            return "unavailable"
        if self._local_log is None:
            return "ok"
        if self._disk is not None and self._disk.is_low:
            return "disk full"
        return "full" if self._local_log.is_full else "ok"

    def _log(self) -> str:
        if self._local_log is None:
            return NOT_USED
        if self._local_log.is_gone:
            return "cut" if self._local_log.is_cut else "removed"
        return "damaged" if self._damages[0] else "ok"

    def _store(self) -> str:
        if self._writer_state is None:
            return NOT_USED
        if self._store_failure is not None:
            return "unavailable"
        # While the broker can't be read, the writer's state says nothing about the store.
        state = self._writer_state() if self._broker.failure is None else "ok"
        return "damaged parts" if state == "ok" and self._damaged_parts else state

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_broker())
            if self._ping_store is not None:
                group.create_task(self._watch_store(self._ping_store))
            if self._dead_letters is not None:
                group.create_task(self._watch_dead_letters(self._dead_letters))
            if self._count_damaged_parts is not None:
                group.create_task(self._watch_damaged_parts(self._count_damaged_parts))

    async def _watch_broker(self) -> None:
        while True:
            with contextlib.suppress(BrokerError):
                await self._broker.ping()
            if self._owns is not None:
                await self._watch_lag(self._owns)
            await self._watch_machine()
            self._metrics.up("broker", self._kafka() == "ok")
            if self._writer_state is not None:
                self._metrics.up("store", self._store() == "ok")
            for part, failure in self._failures.items():
                self._metrics.up(part, failure() is None)
            await asyncio.sleep(_INTERVAL_S if self._broker.failure is None else _AWAY_INTERVAL_S)

    async def _watch_machine(self) -> None:
        self._clock_watch.look()
        if self._disk is not None:
            self._disk.look()
            if self._disk.free_bytes is not None:
                self._metrics.disk(self._disk.free_bytes, self._disk.reserve_bytes, self._disk.size_bytes)
        if self._local_log is not None:
            self._metrics.log_bytes(self._local_log.bytes_used, self._local_log.bytes_max)
            with contextlib.suppress(OSError):  # the last known value stays
                self._damages = await asyncio.to_thread(self._local_log.damages)
            self._metrics.log_damaged(*self._damages)

    async def _watch_lag(self, owns: Callable[[Collection[Partition]], None]) -> None:
        try:
            progress = await self._broker.progress()
        except BrokerError:
            # The lag is unknown, and the last known lag may be long outdated.
            self._metrics.log_lag({})
            self._metrics.log_lag_seconds({})
            return
        self._metrics.log_lag({partition: max(0, at.end - at.committed) for partition, at in progress.items()})
        self._metrics.log_lag_seconds(self._lag_clock.look(progress))
        owns(progress)

    async def _watch_store(self, ping: Callable[[], None]) -> None:
        reminder = Reminder(self._clock)
        while True:
            try:
                await asyncio.to_thread(ping)
            except StoreError as error:
                if reminder.due():
                    log.warning("the store does not answer", error=str(error))
                self._store_failure = str(error)
            else:
                if reminder.over():
                    log.info("the store answers again")
                self._store_failure = None
            await asyncio.sleep(_INTERVAL_S if self._store_failure is None else _AWAY_INTERVAL_S)

    @property
    def newest_dead_letters(self) -> Callable[[], Awaitable[object]] | None:
        """Return a function whose result changes when a dead letter is appended, or when a count of dead letters has failed.
        Return None if this process does not count dead letters."""
        return self._dead_letter_ends if self._counts_dead_letters else None

    @property
    def _counts_dead_letters(self) -> bool:
        return self._dead_letters is not None and self._caught_up is not None

    async def _dead_letter_ends(self) -> object:
        with contextlib.suppress(BrokerError):
            ends = {partition: position.end for partition, position in (await self._dead_letter_positions()).items()}
            return ends, self._counts_failed
        return None

    async def look_for_scrape(self) -> None:
        """Update what a scrape shows of the store: the number of open dead letters, and the newest items."""
        await asyncio.gather(self.count_new_dead_letters(), self._look_at_newest_items())

    async def count_new_dead_letters(self) -> None:
        """Count the open dead letters if any were appended since the last count, and wait at most _COUNTED_WAIT_S for that.

        So once a sender was answered that items were rejected, the next scrape counts them."""
        if self._dead_letters is None or self._caught_up is None:
            return
        is_counted = False
        if self._store_failure is None:
            with contextlib.suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(_COUNTED_WAIT_S):
                    is_counted = await self._count_what_came(self._dead_letters, self._caught_up)
        self._counts_failed += not is_counted

    async def _count_what_came(self, count: Callable[[], int], caught_up: Callable[[float, str], Awaitable[bool]]) -> bool:
        """Wait until the dead letters that were appended before are stored, and count. Return whether the count has all of
        them. Raises BrokerError."""
        positions = await self._dead_letter_positions()
        goals = {partition: position.end for partition, position in positions.items()}
        if any(position.committed < position.end for position in positions.values()):
            # Not for the whole time, so that time is left to count those that are stored by then.
            await caught_up(_COUNTED_WAIT_S * 0.8, DEAD_LETTERS_TOPIC)
            positions = await self._dead_letter_positions()
        stored = {partition: position.committed for partition, position in positions.items()}
        await self._count_up_to(stored, count)
        return self._counted is not None and all(end <= stored.get(partition, end) for partition, end in goals.items())

    async def _count_up_to(self, stored: dict[Partition, int], count: Callable[[], int]) -> None:
        """Count, unless the last count was at these offsets. Wait first for a count that is under way, since it may have begun
        before these dead letters were stored."""
        while True:
            is_known = stored == self._counted
            if self._counting is not None and not self._counting.done():
                await asyncio.wait({self._counting})
            if is_known:
                return
            if self._counting is None or self._counting.done():
                self._counting = asyncio.create_task(self._count_dead_letters(count))
                self._counted = stored

    async def _dead_letter_positions(self) -> dict[Partition, Position]:
        positions = await self._broker.positions()
        return {partition: position for partition, position in positions.items() if partition.topic == DEAD_LETTERS_TOPIC}

    async def _count_dead_letters(self, count: Callable[[], int]) -> None:
        self._counts_begun += 1
        number = self._counts_begun
        try:
            found = await asyncio.to_thread(count)
        except StoreError:  # the last known number stays; an outage of the store is logged elsewhere
            self._counted = None
            return
        # Of two counts that overlap, the one that began later knows more.
        if number > self._count_shown:
            self._count_shown = number
            self._metrics.dead_letters(found)

    async def _look_at_newest_items(self) -> None:
        """Find the newest items, once for all scrapes that wait for them. Each scrape waits at most _LOOKED_WAIT_S."""
        if self._newest_items is None:
            return
        if self._looking is None or (self._looking.done() and self._clock() >= self._looked_at + _NEWEST_KEPT_S):
            self._looked_at = self._clock()
            self._looking = asyncio.create_task(self._find_newest_items(self._newest_items))
        await asyncio.wait({self._looking}, timeout=_LOOKED_WAIT_S)

    async def _find_newest_items(self, look: Callable[[], Mapping[str, float]]) -> None:
        # While the store is away, the age of the last known item goes on growing, since nothing newer is stored.
        with contextlib.suppress(StoreError):
            self._metrics.newest_items(await asyncio.to_thread(look), time.time)

    async def _watch_damaged_parts(self, count: Callable[[], int]) -> None:
        while True:
            with contextlib.suppress(StoreError):  # the last known number stays
                self._damaged_parts = await asyncio.to_thread(count)
                self._metrics.damaged_parts(self._damaged_parts)
            await asyncio.sleep(_DAMAGED_PARTS_INTERVAL_S)

    async def _watch_dead_letters(self, count: Callable[[], int]) -> None:
        while True:
            await self._count_dead_letters(count)
            await asyncio.sleep(_DEAD_LETTERS_INTERVAL_S)
