"""Polls the state of the broker and the store, for /healthz and /metrics.

Both are polled every 3 s, and every second during an outage. A store inside this process is not polled. The number of open dead
letters is polled every 10 s, since it costs the store more.

Invariants:
1. /healthz never waits for the broker or the store. If one of them hangs, the state of the other is still shown.
   test_a_store_that_hangs_hides_nothing_else
2. A scrape waits at most 4.5 s until every dead letter that was acknowledged before the scrape is counted. Before this wait, it
   may wait up to 4.5 s for another scrape, if dead letters were appended since that scrape began
   (collector/api/metrics_page.py). It does not wait for other messages to be stored.
   test_a_scrape_has_the_dead_letters_that_came_before_it, test_a_store_that_hangs_does_not_hold_up_a_scrape
3. If a scrape ended its wait too early, the next scrape does not reuse its result.
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
# The interval while the broker or the store does not answer. Writers and readers notice an outage before this poll.
_AWAY_INTERVAL_S: Final = 1.0
_DEAD_LETTERS_INTERVAL_S: Final = 10.0
# The time of the newest item is looked up for a scrape at most once in this time.
_NEWEST_KEPT_S: Final = 1.0
_DAMAGED_PARTS_INTERVAL_S: Final = 10.0
# How long a scrape waits until appended dead letters are stored and counted. Prometheus waits 10 s for a scrape, and a scrape
# may first wait as long for another scrape.
_COUNTED_WAIT_S: Final = 4.5
# How long a scrape waits for the times of the newest items. This wait runs at the same time as the one above.
_LOOKED_WAIT_S: Final = 2.0

log = structlog.get_logger(__name__)


class WatchedBroker(Protocol):
    """What the monitor reads from a broker of any kind."""

    @property
    def failure(self) -> str | None:
        """Return why the broker does not accept messages; None if no failure is known."""

    @property
    def unproven(self) -> str | None:
        """Return why the last appends failed; None if an append has succeeded since."""

    async def ping(self) -> None:
        """Check whether a broker that failed works again. Raises BrokerError if it does not."""

    async def progress(self) -> Mapping[Partition, Position]:
        """Return the same as `positions`, but use the last known end of a partition whose broker does not answer. Raises
        BrokerError."""

    async def positions(self) -> Mapping[Partition, Position]:
        """Return the positions of the partitions that this process owns. Raises BrokerError."""


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
    def has_lost_files(self) -> bool:
        """Return whether the log's files were removed, replaced or cut since they were opened."""

    @property
    def is_cut(self) -> bool:
        """Return whether the log's files were cut since they were opened."""

    def damages(self) -> tuple[int, int]:
        """Return the number of incidents of damage, and the number of messages lost by them. Incidents that an operator has
        confirmed are not counted. Blocks. Raises OSError."""


class HealthMonitor:
    """Polls the broker and the store while `run` runs in a task. `health` may be called at any time."""

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

        `dead_letters` returns the number of open dead letters. It is None if this process reads no store.
        `owns` is called with the partitions that this process owns. It is None if this process reads nothing from the broker.
        `ping_store` is None if the store is in this process.
        `writer_state` returns "ok", or what is wrong with inserts. It is None if this process writes nothing to the store.
        `failures` has, by name, the other parts of infrasage_up. Each function returns why its part fails, or None.
        `clock` returns seconds.
        `caught_up` takes a time in seconds and a topic. It waits at most that time until everything appended to the topic is
        stored, and returns whether it is. It is None if this process writes nothing to the store.
        `newest_items` returns the time of the newest stored item of each signal, in seconds since 1970. It is None if this
        process reads no store.
        `damaged_parts` returns the number of damaged parts that the store has put aside. It is None if the store is not in this
        process."""
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
        self._counted: dict[Partition, int] | None = None  # the offsets up to which dead letters were stored at the last count
        self._counts_failed = 0  # how many scrapes ended their wait before all earlier dead letters were counted
        self._counts_begun = 0
        self._count_shown = 0
        self._store_failure: str | None = None
        self._is_stopping = False

    def stopping(self) -> None:
        """Report from now on in /healthz that the process is stopping."""
        self._is_stopping = True

    def health(self) -> Health:
        """Return the last known states. Does not wait."""
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
        if self._local_log.has_lost_files:
            return "cut" if self._local_log.is_cut else "removed"
        return "damaged" if self._damages[0] else "ok"

    def _store(self) -> str:
        if self._writer_state is None:
            return NOT_USED
        if self._store_failure is not None:
            return "unavailable"
        # While the broker cannot be read, the writer's state does not describe the store.
        state = self._writer_state() if self._broker.failure is None else "ok"
        return "damaged parts" if state == "ok" and self._damaged_parts else state

    async def run(self) -> None:
        """Poll until the task is cancelled."""
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
        self._clock_watch.check()
        if self._disk is not None:
            self._disk.check()
            if self._disk.free_bytes is not None:
                self._metrics.disk(self._disk.free_bytes, self._disk.reserve_bytes, self._disk.size_bytes)
        if self._local_log is not None:
            self._metrics.log_bytes(self._local_log.bytes_used, self._local_log.bytes_max)
            with contextlib.suppress(OSError):  # the last known value is kept
                self._damages = await asyncio.to_thread(self._local_log.damages)
            self._metrics.log_damaged(*self._damages)

    async def _watch_lag(self, owns: Callable[[Collection[Partition]], None]) -> None:
        try:
            progress = await self._broker.progress()
        except BrokerError:
            # The lag is unknown. The last known lag may be out of date, so it is not shown.
            self._metrics.log_lag({})
            self._metrics.log_lag_seconds({})
            return
        self._metrics.log_lag({partition: max(0, at.end - at.committed) for partition, at in progress.items()})
        self._metrics.log_lag_seconds(self._lag_clock.update(progress))
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
        """Return a function whose result changes when a dead letter is appended, or when a scrape could not count dead letters.
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

    async def update_for_scrape(self) -> None:
        """Update the metrics that a scrape reads from the store: the number of open dead letters, and the newest items."""
        await asyncio.gather(self.count_new_dead_letters(), self._watch_newest_items())

    async def count_new_dead_letters(self) -> None:
        """Count the open dead letters if any were appended since the last count. Wait at most _COUNTED_WAIT_S.

        So the next scrape counts the rejected items of every request that was answered before it."""
        if self._dead_letters is None or self._caught_up is None:
            return
        is_counted = False
        if self._store_failure is None:
            with contextlib.suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(_COUNTED_WAIT_S):
                    is_counted = await self._count_appended(self._dead_letters, self._caught_up)
        self._counts_failed += not is_counted

    async def _count_appended(self, count: Callable[[], int], caught_up: Callable[[float, str], Awaitable[bool]]) -> bool:
        """Wait until the dead letters that are appended now are stored, then count. Return whether the count includes all of
        them. Raises BrokerError."""
        positions = await self._dead_letter_positions()
        goals = {partition: position.end for partition, position in positions.items()}
        if any(position.committed < position.end for position in positions.values()):
            # This does not use the whole time, so that time is left for the count.
            await caught_up(_COUNTED_WAIT_S * 0.8, DEAD_LETTERS_TOPIC)
            positions = await self._dead_letter_positions()
        stored = {partition: position.committed for partition, position in positions.items()}
        await self._count_up_to(stored, count)
        return self._counted is not None and all(end <= stored.get(partition, end) for partition, end in goals.items())

    async def _count_up_to(self, stored: dict[Partition, int], count: Callable[[], int]) -> None:
        """Count the open dead letters, unless the last count was made at these offsets. First wait for a count that is running,
        since it may have begun before these dead letters were stored."""
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
        except StoreError:  # the last known number is kept; `_watch_store` logs an outage of the store
            self._counted = None
            return
        # Of two counts that overlap, the result of the count that began later is newer.
        if number > self._count_shown:
            self._count_shown = number
            self._metrics.dead_letters(found)

    async def _watch_newest_items(self) -> None:
        """Look up the times of the newest items, once for all scrapes that wait. Each scrape waits at most _LOOKED_WAIT_S."""
        if self._newest_items is None:
            return
        if self._looking is None or (self._looking.done() and self._clock() >= self._looked_at + _NEWEST_KEPT_S):
            self._looked_at = self._clock()
            self._looking = asyncio.create_task(self._find_newest_items(self._newest_items))
        await asyncio.wait({self._looking}, timeout=_LOOKED_WAIT_S)

    async def _find_newest_items(self, look: Callable[[], Mapping[str, float]]) -> None:
        # While the store does not answer, the age of the last known item continues to grow, since nothing newer is stored.
        with contextlib.suppress(StoreError):
            self._metrics.newest_items(await asyncio.to_thread(look), time.time)

    async def _watch_damaged_parts(self, count: Callable[[], int]) -> None:
        while True:
            with contextlib.suppress(StoreError):  # the last known number is kept
                self._damaged_parts = await asyncio.to_thread(count)
                self._metrics.damaged_parts(self._damaged_parts)
            await asyncio.sleep(_DAMAGED_PARTS_INTERVAL_S)

    async def _watch_dead_letters(self, count: Callable[[], int]) -> None:
        while True:
            await self._count_dead_letters(count)
            await asyncio.sleep(_DEAD_LETTERS_INTERVAL_S)
