"""A range that Kafka deletes while it is read."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from collector.broker.contract import MessageContext, Partition
from collector.broker.kafka.group import GroupHead
from collector.broker.kafka.leaders import Leaders
from collector.broker.kafka.protocol.fetch import Batch
from collector.broker.kafka.range_reader import MessagesDeleted, read_range

PARTITION = Partition("topic", 0)


class DeletedMeanwhile:
    """Has one message a fetch, up to offset 3; then it begins at 8."""

    async def fetch(
        self, _partition: Partition, offset: int, _bytes_max: int, _value_bytes_max: int | None
    ) -> Iterator[Batch] | None:
        return None if offset >= 3 else iter([Batch([(offset, b"%d" % offset)], offset + 1, 1, 0)])

    async def earliest(self, _partition: Partition) -> int:
        return 8


async def read(head: GroupHead) -> Any:
    return await read_range(cast("Leaders", DeletedMeanwhile()), PARTITION, head, 10, 1000, "log")


async def test_what_was_read_before_it_was_deleted_is_kept() -> None:
    messages = await read(GroupHead(1, None))
    assert (1, 3, [b"1", b"2"]) == (messages.start, messages.end, messages.payloads)
    with pytest.raises(MessagesDeleted, match="deleted 5 messages"):
        await read(GroupHead(3, None))


async def test_a_range_in_doubt_is_not_cut() -> None:
    """Its token is that of all of its messages."""
    with pytest.raises(MessagesDeleted):
        await read(GroupHead(1, 6))


class Partly:
    """Has batches that a fetch returns in parts, and counts its requests."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.rooms: list[int] = []

    async def fetch(self, _partition: Partition, offset: int, bytes_max: int, value_bytes_max: int | None) -> Iterator[Batch]:
        assert 1000 == value_bytes_max
        self.rooms.append(bytes_max)
        value = b"x" * self.sizes[offset]
        context = MessageContext(offset, 0, 1, [])
        return iter([Batch([(offset, value)], offset + 1, 10, 0, [context], offset + 1 == len(self.sizes))])


@pytest.mark.parametrize(
    ("head", "end", "rooms"),
    [
        (GroupHead(0, None), 1, [100]),  # what is there of a batch ends a range
        (GroupHead(0, 3, "log"), 3, [16 << 20] * 3),  # but not one in doubt
        (GroupHead(3, None), 4, [100]),
    ],
)
async def test_a_part_of_a_batch_is_a_range(head: GroupHead, end: int, rooms: list[int]) -> None:
    """A batch that is decompressed again for each message would take for ever."""
    partly = Partly(50, 60, 70, 80)
    messages = await read_range(cast("Leaders", partly), PARTITION, head, 4, 100, "log", 1000)
    assert (head.committed, end, rooms) == (messages.start, messages.end, partly.rooms)
    assert [b"x" * size for size in partly.sizes[head.committed : end]] == messages.payloads
    assert list(range(head.committed, end)) == [context.offset for context in messages.contexts]


async def test_what_does_not_fit_is_left_to_the_next_range() -> None:
    """It is left also if nothing else came with it."""

    class Whole(Partly):
        async def fetch(self, *asked: Any) -> Iterator[Batch]:
            (batch,) = await super().fetch(*asked)
            return iter([batch._replace(is_whole=True)])

    messages = await read_range(cast("Leaders", Whole(50, 60)), PARTITION, GroupHead(0, None), 2, 100, "log", 1000)
    assert (0, 1, [b"x" * 50]) == (messages.start, messages.end, messages.payloads)
