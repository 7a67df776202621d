"""The partitions that the consumer group has assigned to us: their committed offsets, and commits of ranges read from them.

A membership that ends is replaced. The metadata of a committed offset has the identity of the log that the offset belongs to,
and the intent (identity.py).
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from collector.broker.contract import BrokerDown, Partition, Range
from collector.broker.kafka.connection_pool import Brokers, NotAsked
from collector.broker.kafka.group import Fenced, GroupHead, Member, Ownership
from collector.broker.kafka.identity import Committed
from collector.broker.kafka.options import KafkaOptions, text
from collector.broker.left_out import parse_log, with_left_out

log = structlog.get_logger(__name__)


class GroupPartitions:
    """Keeps one consumer's partitions and their heads. Used by the event loop that made it, between `start` and `close`."""

    def __init__(self, options: KafkaOptions, topics: Collection[str], brokers: Brokers) -> None:
        self.closed: Final = asyncio.Event()
        self.failure: str | None = None
        """Why the last request failed; None if it succeeded."""

        self.on_assigned: Callable[[Ownership], None] = lambda _ownership: None
        """Called with an ownership whose heads have been read."""

        self._options: Final = options
        self._topics: Final = topics
        self._brokers: Final = brokers
        self._loop: Final = asyncio.get_running_loop()
        self._reading: Final = asyncio.Lock()
        self._member = Member(options, topics, brokers)
        self._settled = self._loop.time()  # when it was last known what is ours

    async def start(self) -> None:
        """Join the group and return when partitions are assigned (possibly none). Raises KafkaError, OSError, BrokerDown."""
        try:
            await self._member.start()
            while (await self.owned(math.inf)) is None:
                pass
        except BaseException:
            await self._member.close()
            raise

    async def close(self) -> None:
        """Leave the group."""
        await self._member.close()

    @property
    def member(self) -> Member:
        """Return the present membership."""
        return self._member

    @property
    def ownership(self) -> Ownership | None:
        """Return the partitions that are ours, or are being taken away; None if none were assigned yet."""
        return self._member.ownership

    def is_current(self, ownership: Ownership) -> bool:
        """Return whether these partitions are ours now, and are not being taken away."""
        return ownership is self._member.ownership and ownership.active

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Raise BrokerDown for every failure inside this context. `what` is the action, for its message."""
        if self.closed.is_set():
            raise BrokerDown(f"cannot {what}: closed")
        try:
            yield
        except BrokerDown as error:
            self.failure = str(error)
            raise
        except (KafkaError, OSError) as error:  # TimeoutError is an OSError
            self.failure = text(error)
            self._member.client.force_metadata_update()
            raise BrokerDown(f"cannot {what}: {self.failure}") from error
        self.failure = None

    async def owned(self, deadline: float) -> tuple[Ownership, dict[Partition, GroupHead]] | None:
        """Return the partitions that are ours and their heads; None if they are not known by `deadline` (the loop's clock).
        Raises KafkaError, OSError, BrokerDown."""
        while True:
            member = self._member
            try:
                member.check()
            except KafkaError:
                await self._replace(member)
                raise
            changed = member.changed
            ownership = member.ownership
            if ownership is not None and ownership.active:
                heads = ownership.heads if ownership.heads is not None else await self._take_over(ownership)
                if ownership is member.ownership and ownership.active:
                    self._settled = self._loop.time()
                    return ownership, heads
                continue
            try:
                async with asyncio.timeout(min(1.0, max(0.0, deadline - self._loop.time()))):
                    await changed.wait()
            except TimeoutError:
                if self._loop.time() - self._settled > self._options.request_timeout_s + self._options.session_timeout_s:
                    raise BrokerDown("Kafka assigns no partitions: it is unavailable, or the group is rebalancing") from None
                if self._loop.time() >= deadline or self.closed.is_set():
                    return None

    def owned_heads(self, messages: Range) -> tuple[Ownership, dict[Partition, GroupHead]]:
        """Return the ownership of a range's partition, and its heads. Raises BrokerDown if the partition is no longer ours."""
        ownership = self._member.ownership
        if self.closed.is_set() or ownership is None or ownership.heads is None or messages.partition not in ownership.heads:
            raise BrokerDown(f"cannot commit {range_name(messages)}: the partition is no longer ours")
        return ownership, ownership.heads

    async def commit(self, ownership: Ownership, partition: Partition, head: GroupHead) -> None:
        """Commit a head to Kafka, in the generation of `ownership`. Raises BrokerDown."""
        settled = False
        try:
            with self.guarded(f"commit {partition.topic}/{partition.index} at {head}"):
                try:
                    metadata = Committed(with_left_out(head.log, head.left_out), head.intent, head.depth).metadata()
                    await self._member.commit(ownership, partition, head.committed, metadata)
                except NotAsked:
                    settled = True
                    raise
            settled = True
        except Fenced as error:
            settled = True
            raise BrokerDown(f"cannot commit {partition.topic}/{partition.index}: no longer ours ({error})") from error
        finally:
            # Also if cancelled: a new generation settles whether the head is, or will be, committed.
            if not settled:
                self._member.rejoin(ownership)
        assert ownership.heads is not None
        ownership.heads[partition] = head

    async def _take_over(self, ownership: Ownership) -> dict[Partition, GroupHead]:
        """Return the heads of an ownership, read once. Raises KafkaError, OSError."""
        async with self._reading:
            if ownership.heads is None:
                async with asyncio.timeout(self._options.request_timeout_s):
                    ownership.heads = await self._read_heads(ownership)
                self.on_assigned(ownership)
        return ownership.heads

    async def _replace(self, member: Member) -> None:
        """Replace a membership that ended by itself with a new one."""
        await member.close()
        self._member = Member(self._options, self._topics, self._brokers)
        await self._member.start()

    async def _read_heads(self, ownership: Ownership) -> dict[Partition, GroupHead]:
        """Read the heads of partitions with a commit. The beginnings of the others are read together with their ends."""
        heads: dict[Partition, GroupHead] = {}
        committed = await self._member.committed(ownership)
        for partition, (offset, metadata) in committed.items():
            commit = Committed.read(metadata)
            if commit is None:
                log.warning(
                    "not our commit: its metadata is ignored",
                    topic=partition.topic,
                    partition=partition.index,
                    metadata=metadata[:100],
                )
                commit = Committed("", None, 0)
            identity, left_out = parse_log(commit.log)
            if commit.intent is not None and commit.intent > offset:
                heads[partition] = GroupHead(offset, commit.intent, identity, commit.depth, left_out)
            else:
                heads[partition] = GroupHead(offset, None, identity)
        return heads


def range_name(messages: Range) -> str:
    """Return the partition and the offsets of a range, for messages."""
    return f"{messages.partition.topic}/{messages.partition.index} {messages.start} to {messages.end}"
