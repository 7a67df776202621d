"""The messages of one range, from the leader of its partition."""

from typing import Final

from collector.broker.contract import BrokerDown, MessageContext, Partition, Payload, Range
from collector.broker.kafka.group import GroupHead
from collector.broker.kafka.identity import log_of
from collector.broker.kafka.leaders import Leaders
from collector.broker.kafka.protocol.fetch import WrongChecksum

# One answer to a fetch. The broker sends a whole batch even where it is larger.
_FETCH_BYTES: Final = 16 * 1024 * 1024


class MessagesDeleted(BrokerDown):
    """Kafka has deleted what was to be read."""

    def __init__(self, partition: Partition, offset: int, earliest: int) -> None:
        super().__init__(f"Kafka deleted {earliest - offset} messages of {partition.topic}/{partition.index}")
        self.offset: Final = offset
        self.earliest: Final = earliest


async def read_range(
    leaders: Leaders,
    partition: Partition,
    head: GroupHead,
    end: int,
    bytes_max: int,
    identity: str,
    with_contexts: bool = False,
) -> Range:
    """Read from the committed offset; exactly up to the intent if there is one, else up to `end` or as many as fit.

    `identity`: of the partition's log. `with_contexts`: others write the topic. Raises KafkaError, OSError, ValueError,
    BrokerDown, and MessagesDeleted.
    """
    in_doubt = head.intent is not None
    goal = end if head.intent is None else head.intent
    start = offset = head.committed
    payloads: list[Payload] = []
    contexts: list[MessageContext] = []
    size = 0
    largest = 1
    epoch = -1
    # Not for less than a batch: the broker would send a whole one, for nothing.
    while offset < goal and (in_doubt or size + largest <= bytes_max):
        room = _FETCH_BYTES if in_doubt else max(1, min(_FETCH_BYTES, bytes_max - size))
        fetched = await leaders.fetch(partition, offset, room, with_contexts)
        if fetched is None and payloads and not in_doubt:
            break  # deleted while it was read: what was read before is there
        if fetched is None:
            raise await _out_of_range(leaders, partition, offset)
        before = offset
        try:
            for batch in fetched:
                largest = max(largest, batch.size_bytes)
                for index, (at, payload) in enumerate(batch.messages):
                    if offset <= at < goal:
                        if payloads and not in_doubt and size + len(payload) > bytes_max:
                            return Range(partition, start, offset, payloads, log=log_of(identity, epoch), contexts=contexts)
                        epoch = batch.leader_epoch
                        payloads.append(payload)
                        if with_contexts:
                            contexts.append(batch.contexts[index])
                        size += len(payload)
                        offset = at + 1
                offset = max(offset, min(batch.next_offset, goal))
                if offset >= goal:
                    break
        except WrongChecksum:
            raise _unreadable(partition, offset, "wrong checksum") from None
        if offset == before:
            raise _unreadable(partition, offset, "Kafka sent nothing")
    if in_doubt:
        return Range(partition, start, max(offset, goal), payloads, in_doubt, head.log, head.depth, head.left_out, contexts)
    return Range(partition, start, offset, payloads, log=log_of(identity, epoch), contexts=contexts)


async def _out_of_range(leaders: Leaders, partition: Partition, offset: int) -> BrokerDown:
    earliest = await leaders.earliest(partition)
    if earliest <= offset:
        return _unreadable(partition, offset, "Kafka says it has none such")
    return MessagesDeleted(partition, offset, earliest)


def _unreadable(partition: Partition, offset: int, why: str) -> BrokerDown:
    return BrokerDown(f"cannot read {partition.topic}/{partition.index} at offset {offset}: {why}")
