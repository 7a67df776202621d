"""The ends of the partitions that are ours, as far as their leaders report them."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from aiokafka.errors import KafkaError

from collector.broker.contract import BrokerDown, Partition, Position
from collector.broker.kafka.group import GroupHead, Ownership
from collector.broker.kafka.group_partitions import GroupPartitions
from collector.broker.kafka.leaders import Ends, Leaders
from collector.broker.kafka.log_changes import LogChanges
from collector.broker.kafka.read_failures import ReadFailures


class PartitionEnds:
    """Asks for the ends of one consumer's partitions, and remembers them. Used by one event loop."""

    def __init__(self, group: GroupPartitions, leaders: Leaders, logs: LogChanges, failures: ReadFailures) -> None:
        self._group: Final = group
        self._leaders: Final = leaders
        self._logs: Final = logs
        self._read_failures: Final = failures
        self._ends: Final[dict[Partition, int]] = {}  # the last known ends

    def clear(self) -> None:
        """Forget all ends, since other partitions are ours now."""
        self._ends.clear()

    def by_leader(self, ownership: Ownership) -> dict[int, list[Partition]]:
        """Return the partitions that have a leader, by the leader's node. Note the others as failures."""
        by_leader: defaultdict[int, list[Partition]] = defaultdict(list)
        for partition in ownership.partitions:
            leader = self._leaders.known(partition)
            if leader is None:
                self._read_failures.note([partition], BrokerDown("it has no leader now"))
            else:
                by_leader[leader].append(partition)
        return dict(by_leader)

    async def ask(self, ownership: Ownership, node: int, partitions: Collection[Partition]) -> Ends:
        """Return the ends of partitions that this broker leads, and the beginnings of those without a head. Look whether the
        logs of partitions with nothing to read were replaced. Raises KafkaError, OSError, ValueError."""
        heads = ownership.heads or {}
        answer = await self._leaders.ends(node, partitions, [each for each in partitions if each not in heads])
        await self._logs.check(ownership, node, answer.ends)
        return answer

    def learn(self, ownership: Ownership, answer: Ends) -> None:
        """Note the ends, beginnings and errors of an answer. Raises nothing: an error becomes a trouble of its partition."""
        assert ownership.heads is not None
        for partition, begin in answer.begins.items():
            if partition not in ownership.heads:
                ownership.heads[partition] = GroupHead(begin, None)
                self._logs.note_never_committed(partition)
        for partition, end in answer.ends.items():
            self._ends[partition] = end
            self._read_failures.note_end(partition)
        for partition, error in answer.errors.items():
            self._read_failures.note([partition], error)

    async def positions(self, ownership: Ownership, heads: Mapping[Partition, GroupHead]) -> dict[Partition, Position]:
        """Ask every leader, and wait for all. Raises KafkaError, OSError, ValueError, BrokerDown if an end is not known."""
        for failure in (await self._ask_all(ownership, heads)).values():
            raise failure
        if not heads.keys() <= self._ends.keys():
            raise BrokerDown("the consumer group is being rebalanced")
        return self._known(heads)

    async def progress(self, ownership: Ownership, heads: Mapping[Partition, GroupHead]) -> dict[Partition, Position]:
        """Return the same as `positions`, but keep the last known end of a partition whose leader does not report it. Raises
        the errors of `positions` if no leader reports one."""
        failures = await self._ask_all(ownership, heads)
        if failures.keys() >= set(ownership.partitions):
            for failure in failures.values():
                raise failure
        return self._known(heads)

    def _known(self, heads: Mapping[Partition, GroupHead]) -> dict[Partition, Position]:
        known = {partition: head for partition, head in heads.items() if partition in self._ends}
        return {partition: Position(head.committed, self._ends[partition]) for partition, head in known.items()}

    async def _ask_all(self, ownership: Ownership, heads: Mapping[Partition, GroupHead]) -> dict[Partition, Exception]:
        """Ask every leader where its partitions end, and wait for all. Return an error for each end that is not known."""
        failures: dict[Partition, Exception] = {}

        async def ask(node: int, partitions: Sequence[Partition]) -> None:
            try:
                answer = await self._leaders.ends(node, partitions, [each for each in partitions if each not in heads])
            except (KafkaError, OSError, ValueError) as error:
                failures.update(dict.fromkeys(partitions, error))
            else:
                failures.update(answer.errors)
                if ownership is self._group.ownership:
                    self.learn(ownership, answer)

        by_leader = self.by_leader(ownership)
        await asyncio.gather(*(ask(node, partitions) for node, partitions in by_leader.items()))
        led = {partition for partitions in by_leader.values() for partition in partitions}
        leaderless = [partition for partition in ownership.partitions if partition not in led]
        return failures | {each: BrokerDown(f"{each.topic}/{each.index} has no leader now") for each in leaderless}
