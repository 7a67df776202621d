"""The head of a partition, as the group keeps it."""

from collector.broker.kafka.group import GroupHead
from collector.broker.left_out import bitmap


def test_what_kafka_has_deleted_moves_the_head() -> None:
    """An intent that goes beyond keeps its end, and leaves out the same messages; one that does not is none any more."""
    head = GroupHead(100, 110, "log.3", 2, bitmap([1, 4, 9]))
    assert GroupHead(104, 110, "log.3", 2, bitmap([0, 5])) == head.without_deleted(104)
    assert GroupHead(110, None, "log.3") == head.without_deleted(110)
    assert GroupHead(250, None, "log.3") == head.without_deleted(250)
    assert GroupHead(104, None, "log.3") == GroupHead(100, None, "log.3").without_deleted(104)
