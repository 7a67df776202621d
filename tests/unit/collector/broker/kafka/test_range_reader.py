"""A range that Kafka deletes while it is read."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from collector.broker.contract import Partition
from collector.broker.kafka.group import GroupHead
from collector.broker.kafka.leaders import Leaders
from collector.broker.kafka.protocol.fetch import Batch
from collector.broker.kafka.range_reader import MessagesDeleted, read_range

PARTITION = Partition("topic", 0)


class DeletedMeanwhile:
    """Has one message a fetch, up to offset 3; then it begins at 8."""

    async def fetch(self, _partition: Partition, offset: int, _bytes_max: int, _with_contexts: bool) -> Iterator[Batch] | None:
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
