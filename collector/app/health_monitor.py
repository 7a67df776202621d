"""The state of the broker and the store: polled now and then, and more often during a problem; shown in /healthz and /metrics.
And the number of open dead letters, which costs the store more, and so is polled less often.

Invariants:
1. /healthz never waits for either, and one that hangs does not hide the other. test_a_store_that_hangs_hides_nothing_else
2. A scrape has every dead letter that was acknowledged before it, and waits for that 4.5 s at most; and as long before it where
   another is under way, and dead letters came since (collector/api/metrics_page.py). It waits for dead letters only, whatever
   else is on its way. test_a_scrape_has_the_dead_letters_that_came_before_it,
   test_a_store_that_hangs_does_not_hold_up_a_scrape
3. A scrape that did not wait long enough is not shown to the next. test_a_count_that_came_too_late_is_not_kept
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
# If it did not answer. Writers and readers notice an outage first.
_AWAY_INTERVAL_S: Final = 1.0
_DEAD_LETTERS_INTERVAL_S: Final = 10.0
# The time of the newest item is looked up for a scrape, unless it was so short a time before.
_NEWEST_KEPT_S: Final = 1.0
_DAMAGED_PARTS_INTERVAL_S: Final = 10.0
# How long a scrape waits until dead letters that are on their way are stored and counted. Prometheus waits 10 s for a scrape,
# which may be as long behind another.
_COUNTED_WAIT_S: Final = 4.5
# And until the newest items are known, meanwhile.
_LOOKED_WAIT_S: Final = 2.0

log = structlog.get_logger(__name__)


class WatchedBroker(Protocol):
    """What is watched of a broker, whichever it is."""

    @property
    def failure(self) -> str | None:
        """Return why it does not take messages; None: it does, as far as is known."""

    @property
    def unproven(self) -> str | None:
        """Return why appends failed, as long as none has succeeded since; None: nothing speaks against it."""

    async def ping(self) -> None:
        """Raises BrokerError; finds out when one that failed works again."""

    async def progress(self) -> Mapping[Partition, Position]:
        """As `positions`; a partition whose broker does not answer keeps the end that it last had. Raises BrokerError."""

    async def positions(self) -> Mapping[Partition, Position]:
        """Return the positions of the partitions that are ours. Raises BrokerError."""


class WatchedLog(Protocol):
    """What is watched of the local log."""

    @property
    def is_full(self) -> bool:
        """Return whether it holds as much as it may."""

    @property
    def bytes_used(self) -> int:
        """What its messages take."""

    @property
    def bytes_max(self) -> int:
        """What they may take."""

    @property
    def is_gone(self) -> bool:
        """Return whether its files were removed, replaced or cut since they were opened."""

    @property
    def is_cut(self) -> bool:
        """Return whether its files were cut since they were opened."""

    def damages(self) -> tuple[int, int]:
        """How often damage was found, and how many messages were lost, as far as no operator has confirmed it. Blocks; raises
        OSError."""


class HealthMonitor:
    """`run` in a task; `health` at any time."""

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
        """`owns` is called with the partitions that are ours; None: nothing is read from the broker here. `ping_store` blocks,
        and raises StoreError; None: the store is in this process. `dead_letters` blocks, and raises StoreError; None:
        there is no store here. `writer_state`: ok, or what is the matter with inserts; None: nothing is written to the
        store here. `failures`: what else is shown as a part in infrasage_up, by name, and why it fails. `clock`: in
        seconds. `caught_up` waits so many seconds until what was appended to a topic is stored, and returns whether it is;
        None: nothing is written to the store here. `newest_items` blocks, raises StoreError, and returns when the newest
        stored item of each signal was, in seconds since 1970; None: there is no store here. `damaged_parts` blocks,
        raises StoreError, and returns how many parts of the store are damaged and put aside; None: the store is not in
        this process."""
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
        self._counted: dict[Partition, int] | None = None  # how far dead letters were stored when they were last counted
        self._counts_failed = 0  # how often dead letters that were on their way could not be counted
        self._counts_begun = 0
        self._count_shown = 0
        self._store_failure: str | None = None
        self._is_stopping = False

    def stopping(self) -> None:
        """The process leaves: /healthz reports that from now on."""
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
        # A writer that can't read says nothing of the store.
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
            # Nobody knows: the last one known may be long past.
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
        """Return what returns how far dead letters go, and how often they could not be counted so far, where they are counted;
        None: they are not."""
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
        """Look at what a scrape shows of the store as it is now: dead letters, and the newest items."""
        await asyncio.gather(self.count_new_dead_letters(), self._look_at_newest_items())

    async def count_new_dead_letters(self) -> None:
        """Count the open dead letters if some came since they were last counted: so the next scrape has those of an answer that
        reports failed items. Waits _COUNTED_WAIT_S at most until they are stored and counted."""
        if self._dead_letters is None or self._caught_up is None:
            return
        is_counted = False
        if self._store_failure is None:
            with contextlib.suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(_COUNTED_WAIT_S):
                    is_counted = await self._count_what_came(self._dead_letters, self._caught_up)
        self._counts_failed += not is_counted

    async def _count_what_came(self, count: Callable[[], int], caught_up: Callable[[float, str], Awaitable[bool]]) -> bool:
        """Return whether all of them are counted. Raises BrokerError."""
        positions = await self._dead_letter_positions()
        goals = {partition: position.end for partition, position in positions.items()}
        if any(position.committed < position.end for position in positions.values()):
            # Not to the end: what is stored by then is counted.
            await caught_up(_COUNTED_WAIT_S * 0.8, DEAD_LETTERS_TOPIC)
            positions = await self._dead_letter_positions()
        stored = {partition: position.committed for partition, position in positions.items()}
        await self._count_up_to(stored, count)
        return self._counted is not None and all(end <= stored.get(partition, end) for partition, end in goals.items())

    async def _count_up_to(self, stored: dict[Partition, int], count: Callable[[], int]) -> None:
        """Count, after the count that is under way, which may have begun before these were stored."""
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
        """Find the newest items, once for all scrapes that wait for it, each _LOOKED_WAIT_S at most."""
        if self._newest_items is None:
            return
        if self._looking is None or (self._looking.done() and self._clock() >= self._looked_at + _NEWEST_KEPT_S):
            self._looked_at = self._clock()
            self._looking = asyncio.create_task(self._find_newest_items(self._newest_items))
        await asyncio.wait({self._looking}, timeout=_LOOKED_WAIT_S)

    async def _find_newest_items(self, look: Callable[[], Mapping[str, float]]) -> None:
        # While the store is away the last one known goes on to grow older: nothing newer is stored.
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
