"""Membership of the consumer group: which partitions are ours, in which generation, and commits in that very generation.

Invariants:
1. A commit is sent under the generation in which its partition was read, whatever the present generation is. So Kafka refuses
   it from a member that has lost the partition. (test_a_stale_range_is_refused_though_its_partition_came_back)
2. If it is not known whether Kafka has committed, the member leaves the group and joins again. A request that is still in
   flight then belongs to an old generation, and changes nothing.
   (test_a_commit_without_an_answer_is_settled_by_a_new_generation)
3. A member leaves the group at its present coordinator, whichever broker that is by then. Else the others would wait for it
   until its session ends. (test_the_coordinator_of_the_group_may_be_the_broker_that_dies)
"""

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from aiokafka import ConsumerRebalanceListener
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    IllegalGenerationError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.group import LeaveGroupRequest

from collector.broker.contract import Partition
from collector.broker.kafka.client import Client
from collector.broker.kafka.connection_pool import Brokers, NotAsked
from collector.broker.kafka.options import KafkaOptions
from collector.broker.kafka.protocol.offsets import (
    COMMIT_API,
    COMMITTED_API,
    commit_answer,
    commit_request,
    committed_answer,
    committed_request,
)
from collector.broker.left_out import after

# Heartbeats in a session. Kafka's answers to them report that partitions move.
_HEARTBEATS: Final = 10
_NOT_COORDINATOR: Final = (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError)
_LEAVE_RETRY_S: Final = 0.1


class GroupHead(NamedTuple):
    """The group's offsets of a partition."""

    committed: int
    intent: int | None  # the end of the range that is about to be written, which starts at `committed`
    log: str = ""  # the identity of the log that the offsets belong to, as in Range; empty: not known
    depth: int = 0  # the depth of the range that is about to be written
    left_out: bytes = b""  # the messages left out of that range

    def without_deleted(self, earliest: int) -> "GroupHead":
        """Return the head of a partition whose messages before `earliest` Kafka has deleted."""
        if self.intent is None or self.intent <= earliest:
            return GroupHead(earliest, None, self.log)
        return self._replace(committed=earliest, left_out=after(self.left_out, earliest - self.committed))


class Ownership:
    """Partitions that are ours in one generation of the group."""

    def __init__(self, generation: int, member_id: str, partitions: Iterable[Partition]) -> None:
        self.generation: Final = generation
        self.member_id: Final = member_id
        self.partitions: Final = sorted(partitions, key=lambda partition: (partition.index, partition.topic))
        self.heads: dict[Partition, GroupHead] | None = None
        """None: not read yet. A partition without a head was never committed, and its beginning is not known yet."""
        self.active = True  # False: being taken away; the current range may still be committed, as long as Kafka accepts it


class Fenced(Exception):
    """The group has moved on: nothing was committed."""


class Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One membership of the group: its client, its coordinator, and our partitions in the current generation."""

    def __init__(self, options: KafkaOptions, topics: Collection[str], brokers: Brokers) -> None:
        self.ownership: Ownership | None = None
        self.changed = asyncio.Event()  # set, and replaced, whenever `ownership` is
        self.client: Final = Client(options)
        self._options: Final = options
        self._brokers: Final = brokers
        self._topics: Final = set(topics)
        self._subscription: Final = SubscriptionState()
        self._coordinator: Any = None
        self._leaving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to join the group. Raises KafkaError, OSError."""
        await self.client.bootstrap()
        await self.client.set_topics(self._topics)
        self._subscription.subscribe(self._topics, listener=self)
        self._coordinator = GroupCoordinator(
            self.client,
            self._subscription,
            group_id=self._options.group_id,
            enable_auto_commit=False,
            session_timeout_ms=int(self._options.session_timeout_s * 1000),
            heartbeat_interval_ms=int(self._options.session_timeout_s * 1000 / _HEARTBEATS),
            rebalance_timeout_ms=int(self._options.session_timeout_s * 1000),
            max_poll_interval_ms=2**31 - 1,  # it measures aiokafka's fetcher, which is not used
        )

    def on_partitions_revoked(self, _revoked: object) -> None:
        if self.ownership is not None:
            self.ownership.active = False

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        partitions = [Partition(each.topic, each.partition) for each in assigned]
        self.ownership = Ownership(self._coordinator.generation, self._coordinator.member_id, partitions)
        if self.ownership.generation < 0:
            # The member has left meanwhile, and joins again. Kafka takes a commit without a generation from anyone if a group
            # is empty.
            self.ownership.active = False
        self.changed.set()
        self.changed = asyncio.Event()

    def check(self) -> None:
        """Check that the membership has not ended by itself. Raises KafkaError if it has."""
        try:
            self._coordinator.check_errors()
        except KafkaError:
            raise
        except Exception as error:  # any error that ended aiokafka's task: without it there is no membership
            raise KafkaError(f"the membership has ended: {error!r}") from error

    async def committed(self, ownership: Ownership) -> dict[Partition, tuple[int, str]]:
        """Return the committed offset and metadata of each partition that has them. Sees every commit of generations before
        `ownership`'s. Raises KafkaError, OSError if they are not known; aiokafka's own method would then return none."""
        if not ownership.partitions:
            return {}
        request = committed_request(self._options.group_id, ownership.partitions)
        answer = await self._ask_coordinator(COMMITTED_API, request)
        try:
            answered = committed_answer(answer, ownership.partitions)
        except ValueError as error:
            raise KafkaError(str(error)) from error
        for code, _, _ in answered.values():
            refused = for_code(code)
            if refused in _NOT_COORDINATOR:
                self._coordinator.coordinator_dead()
            if refused is not NoError:
                raise refused
        return {partition: (offset, metadata) for partition, (_, offset, metadata) in answered.items() if offset >= 0}

    async def commit(self, ownership: Ownership, partition: Partition, offset: int, metadata: str) -> None:
        """Commit in the generation of `ownership`, whatever the present generation is. Raises Fenced or NotAsked if it was not
        committed; KafkaError or OSError if that is not known."""
        if ownership.generation < 0:
            raise Fenced("no generation")
        request = commit_request(self._options.group_id, ownership.generation, ownership.member_id, partition, offset, metadata)
        answer = await self._ask_coordinator(COMMIT_API, request)
        error = for_code(commit_answer(answer, partition))
        if error in (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError):
            ownership.active = False
            if ownership is self.ownership:
                if error is RebalanceInProgressError:
                    self._coordinator.request_rejoin()
                else:
                    self._coordinator.reset_generation()
            raise Fenced(error.__name__)
        if error in _NOT_COORDINATOR:
            self._coordinator.coordinator_dead()
        if error is not NoError:
            raise error

    async def _ask_coordinator(self, api: tuple[int, int], request: bytes) -> memoryview:
        """Ask the coordinator, over the connection that all of these requests share, so they arrive in order."""
        try:
            async with asyncio.timeout(self._options.answer_timeout_s):
                await self._coordinator.ensure_coordinator_known()
        except TimeoutError:
            raise NotAsked("the group has no coordinator now") from None
        try:
            return await self._brokers.ask(self.client, self._coordinator.coordinator_id, api, [request])
        except (KafkaError, OSError):
            self._coordinator.coordinator_dead()
            raise

    def rejoin(self, ownership: Ownership) -> None:
        """Leave the group and join it again: in the next generation no request of this one can be executed late."""
        ownership.active = False
        if self.ownership is ownership:
            self.ownership = None
            self._leaving = asyncio.create_task(self._leave(ownership), name="kafka-leave")

    async def _leave(self, ownership: Ownership) -> None:
        """Leave the group. Return when the coordinator has accepted it, the session must have expired, or there is a new
        generation anyway."""
        coordinator = self._coordinator
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.session_timeout_s):
                while coordinator.generation == ownership.generation:
                    if await self._left(ownership.member_id):
                        break
                    await asyncio.sleep(_LEAVE_RETRY_S)
        if coordinator.generation == ownership.generation:
            coordinator.reset_generation()

    async def _left(self, member_id: str) -> bool:
        coordinator = self._coordinator
        try:
            await coordinator.ensure_coordinator_known()
            answer = await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, member_id))
        except KafkaError:
            return False
        error = for_code(answer.error_code)
        if error in _NOT_COORDINATOR:
            coordinator.coordinator_dead()
        return error not in (*_NOT_COORDINATOR, GroupLoadInProgressError)

    async def close(self) -> None:
        """Leave the group, so that the others need not wait."""
        if self._leaving is not None:
            self._leaving.cancel()
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(self._options.request_timeout_s):
                if self._coordinator is not None:
                    await self._coordinator.close()
        await self.client.close()
