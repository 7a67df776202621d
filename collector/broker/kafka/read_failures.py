"""The partitions that can't be read now, with the reason and the time since when, and the log lines about them."""

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import structlog

from collector.broker.contract import BrokerDown, Partition
from collector.broker.kafka.group import Ownership
from collector.broker.kafka.options import text

# How often metadata is read while a partition can't be read.
_REFRESH_S: Final = 0.5
# A partition is logged once it can't be read for this time, so not at each change of its leader. And how often, at most.
_LOGGED_AFTER_S: Final = 2.0
_LOGGED_EVERY_S: Final = 30.0

log = structlog.get_logger(__name__)


class _ReadFailure(NamedTuple):
    """Why a partition can't be read, and since when, by the loop's clock."""

    error: str
    since_s: float
    is_of_reading: bool  # whether reading itself failed, and not only the request for the partition's end


class ReadFailures:
    """Keeps which of one consumer's partitions can't be read. Used by the event loop that made it."""

    def __init__(self, refresh: Callable[[], None]) -> None:
        """`refresh` lets the client read the cluster's metadata again, soon."""
        self._refresh: Final = refresh
        self._loop: Final = asyncio.get_running_loop()
        self._by_partition: Final[dict[Partition, _ReadFailure]] = {}
        self._refreshed = self._logged = -math.inf  # when, by the loop's clock

    @property
    def failure(self) -> str | None:
        """Return a partition that can't be read, and why; None if all can be read."""
        if not self._by_partition:
            return None
        partition, failure = next(iter(self._by_partition.items()))
        return f"cannot read {partition.topic}/{partition.index}: {failure.error}"

    def note(self, partitions: Iterable[Partition], error: BaseException, *, is_of_reading: bool = False) -> None:
        """Note that partitions can't be read now. `is_of_reading`: reading itself failed, so `note_end` does not settle it."""
        now_s = self._loop.time()
        for partition in partitions:
            before = self._by_partition.get(partition)
            self._by_partition[partition] = _ReadFailure(
                text(error), now_s if before is None else before.since_s, is_of_reading
            )
        if now_s - self._refreshed > _REFRESH_S:
            self._refreshed = now_s
            self._refresh()

    def note_end(self, partition: Partition) -> None:
        """Note that a partition's leader has reported its end."""
        failure = self._by_partition.get(partition)
        if failure is not None and not failure.is_of_reading:
            del self._by_partition[partition]

    def note_read(self, partition: Partition) -> None:
        """Note that a partition was read, or that there is nothing to read in it."""
        self._by_partition.pop(partition, None)

    def clear(self) -> None:
        """Forget all partitions, since others are ours now."""
        self._by_partition.clear()

    def check(self, ownership: Ownership) -> None:
        """Raise BrokerDown if none of the partitions can be read. Log if some can't be read for a while."""
        if not self._by_partition:
            return
        partition, failure = next(iter(self._by_partition.items()))
        now_s = self._loop.time()
        if self._by_partition.keys() >= set(ownership.partitions):
            raise BrokerDown(self.failure)
        if now_s - failure.since_s > _LOGGED_AFTER_S and now_s - self._logged > _LOGGED_EVERY_S:
            self._logged = now_s
            log.warning(
                "some partitions cannot be read, the others go on",
                topic=partition.topic,
                partition=partition.index,
                partitions=len(self._by_partition),
                seconds=round(now_s - failure.since_s, 1),
                error=failure.error,
            )
