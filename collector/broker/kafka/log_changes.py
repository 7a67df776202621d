"""Move the head of a partition whose log was replaced by another, or has lost its end.

Invariants:
1. An offset that was committed for another log is not used (test_a_topic_made_anew_while_the_writer_is_stopped_loses_nothing).
2. Before anything is read under a leader, the committed offset is compared with this leader's log. If Kafka has lost the end of
   the log, reading goes back to where the log ends now (test_an_end_lost_while_the_writer_is_stopped).
3. The beginning of a partition that was never committed is asked for after its log's identity
   (test_a_beginning_of_another_log_is_not_used).
4. Messages that Kafka deleted before they were read are reported, even if nothing was committed before. They are reported once,
   since the head that passes over them is committed even if no message follows
   (test_what_was_deleted_before_the_first_commit_is_missed_aloud, test_what_was_deleted_to_the_end_is_reported_once).
"""

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from collector.broker.contract import BrokerDown, Partition, Range
from collector.broker.kafka.group import GroupHead, Ownership
from collector.broker.kafka.identity import TopicLog, epoch_of, identity_of, log_of
from collector.broker.kafka.leaders import Leaders

# How often the logs of partitions that have nothing to read are looked at, since they may have been replaced.
_IDENTITIES_INTERVAL_S: Final = 1.0

log = structlog.get_logger(__name__)

Heads = dict[Partition, GroupHead]


class LogChanges:
    """Keeps the heads of one consumer's partitions true to their logs. Used by the event loop that made it."""

    def __init__(self, leaders: Leaders, group_id: str) -> None:
        """`group_id` is the consumer group whose committed offsets are used."""
        self._leaders: Final = leaders
        self._group_id: Final = group_id
        self._loop: Final = asyncio.get_running_loop()
        self._identities_read: Final[dict[int, float]] = {}  # when they were last read, by broker, by the loop's clock
        self._seen: Final[dict[str, str]] = {}  # the last known identity of a topic's log
        self._never_committed: Final[set[Partition]] = set()  # partitions whose heads have no identity yet
        self._compared: Final[dict[Partition, int]] = {}  # the epoch of the leader that has all committed messages
        self._passed_over: Final[set[Partition]] = set()  # their heads passed over deleted messages, and are not committed yet
        self._read_under: Final[dict[Partition, int | None]] = {}  # the leader's epoch when the current range was read

    def clear(self) -> None:
        """Forget the state of all partitions: others are ours now, or their heads were read again."""
        self._never_committed.clear()
        self._passed_over.clear()
        self._compared.clear()

    def note_never_committed(self, partition: Partition) -> None:
        """Note that a partition's head is its beginning, in a log whose identity is not known yet."""
        self._never_committed.add(partition)

    def pass_over(self, heads: Heads, partition: Partition, earliest: int) -> None:
        """Move a partition's head behind the messages that Kafka deleted before they were read, and report them."""
        head = heads[partition]
        log.error(
            "Kafka deleted messages before they were stored: its retention is shorter than the writer was away",
            topic=partition.topic,
            partition=partition.index,
            messages=earliest - head.committed,
            first_offset=head.committed,
        )
        heads[partition] = head.without_deleted(earliest)
        self._passed_over.add(partition)

    def has_passed_over(self, partition: Partition) -> bool:
        """Return whether a partition's head passed over deleted messages, and was not committed since."""
        return partition in self._passed_over

    def note_committed(self, partition: Partition) -> None:
        """Note that a partition's head was committed: it is compared again if its range was read under another leader."""
        self._passed_over.discard(partition)
        if self._compared.get(partition) != self._read_under.get(partition):
            self._compared.pop(partition, None)

    async def check(self, ownership: Ownership, node: int, ends: Mapping[Partition, int]) -> None:
        """Look at partitions that seem to have nothing to read. If a log was replaced, it is read from its first message on."""
        now_s = self._loop.time()
        heads = ownership.heads
        if heads is None or now_s - self._identities_read.get(node, -math.inf) < _IDENTITIES_INTERVAL_S:
            return
        self._identities_read[node] = now_s
        idle = [partition for partition, end in ends.items() if partition in heads and end <= heads[partition].committed]
        if not idle:
            return
        try:
            known = await self._leaders.logs(node, sorted({partition.topic for partition in idle}))
        except (KafkaError, OSError):
            return  # its partitions are looked at when it answers again
        for partition in idle:
            if partition.topic in known:
                with suppress(KafkaError, OSError, ValueError, BrokerDown):  # the partition is looked at again
                    await self._fit(heads, partition, known[partition.topic])

    async def begin_reading(self, heads: Heads, partition: Partition) -> str:
        """Make the head an offset of the current log. Return the log's identity. Raises KafkaError, OSError, ValueError,
        BrokerDown."""
        topic_log = await self._leaders.log(partition)
        await self._fit(heads, partition, topic_log)
        self._read_under[partition] = topic_log.leader_epochs.get(partition.index)
        return topic_log.identity

    async def change_since(self, messages: Range) -> str | None:
        """Return how the partition has changed since the range was read; None if it has not. Raises KafkaError, OSError,
        BrokerDown."""
        partition = messages.partition
        topic_log = await self._leaders.log(partition)
        if messages.log and topic_log.identity != identity_of(messages.log):
            self._identities_read.clear()  # look at all of them soon
            return "the topic was created again"
        if topic_log.leader_epochs.get(partition.index) != self._read_under.get(partition):
            return "its leader has changed"
        return None

    async def _fit(self, heads: Heads, partition: Partition, topic_log: TopicLog) -> None:
        """Make the head an offset of this log. Raises KafkaError, OSError, ValueError, BrokerDown."""
        await self._begin_if_new(heads, partition, topic_log.identity)
        leader_epoch = topic_log.leader_epochs.get(partition.index)
        if leader_epoch is not None and leader_epoch != self._compared.get(partition):
            await self._go_back_if_lost(heads, partition, topic_log.identity, leader_epoch)
            self._compared[partition] = leader_epoch

    async def _begin_if_new(self, heads: Heads, partition: Partition, identity: str) -> None:
        """Start at the first message of the current log if the head belongs to another log."""
        head = heads[partition]
        former = self._seen.get(partition.topic) or identity_of(head.log)
        if former not in ("", identity):
            log.warning(
                "a topic was created again, or Kafka was replaced: its committed offsets are of another log, so it is read from"
                " its first message on; what the former log still held is not stored",
                topic=partition.topic,
                log=identity,
                former_log=former,
            )
        self._seen[partition.topic] = identity
        if partition in self._never_committed or (head.log and identity_of(head.log) != identity):
            earliest = await self._leaders.earliest(partition)
            self._never_committed.discard(partition)
            heads[partition] = GroupHead(earliest, None, log_of(identity, -1))
            if earliest > 0:
                log.error(
                    "Kafka deleted messages before the group had committed anything: they are lost, unless they were stored"
                    " under another group's name, or by offsets that Kafka has forgotten",
                    topic=partition.topic,
                    partition=partition.index,
                    messages=earliest,
                    group=self._group_id,
                )
                self._passed_over.add(partition)
        elif not head.log and head.intent is None:
            heads[partition] = head._replace(log=log_of(identity, -1))

    async def _go_back_if_lost(self, heads: Heads, partition: Partition, identity: str, leader_epoch: int) -> None:
        """Move the head back to the end of the leader's log if the leader lacks committed messages."""
        head = heads[partition]
        epoch = epoch_of(head.log)
        if epoch < 0 or epoch == leader_epoch:
            return
        if epoch > leader_epoch:
            raise BrokerDown(f"the leader of {partition.topic}/{partition.index} is of epoch {leader_epoch}, not yet {epoch}")
        last = await self._leaders.epoch_end(partition, leader_epoch, epoch)
        goal = head.committed if head.intent is None else head.intent
        if last is None or not 0 <= last.offset < goal:
            return
        log.error(
            "Kafka lost the end of a partition: messages that the writer had not read are lost. The writer reads on from the"
            " new end; check unclean.leader.election.enable, the replicas and the disks",
            topic=partition.topic,
            partition=partition.index,
            end=last.offset,
            read_to=goal,
            leader_epoch=leader_epoch,
        )
        intent = last.offset if head.intent is not None and last.offset > head.committed else None
        began = log_of(identity, last.epoch)
        heads[partition] = GroupHead(min(last.offset, head.committed), intent, began, head.depth, head.left_out)
