"""What a dead letter holds, as whoever reads the topic finds it."""

from collections.abc import Sequence

from infrasage.v1.dead_letter_pb2 import DeadLetter as DeadLetterMessage

from collector.broker.contract import DEAD_LETTERS_TOPIC, METRICS_TOPIC, Message, Partition
from collector.dead_letters import DeadLetter, DeadLetters


class Kept:
    """A producer that remembers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def append(self, messages: Sequence[Message]) -> None:
        self.messages += messages


async def test_a_dead_letter_says_where_it_stood_and_why() -> None:
    """Topic, partition, offset and error are in it, and the bytes as they were, whether they are a batch or not."""
    kept = Kept()
    letters = [
        DeadLetter(Partition(METRICS_TOPIC, 3), 2**40, b"\xff not a batch", "cannot parse"),
        DeadLetter(Partition(METRICS_TOPIC, 0), 7, b"", ""),
    ]
    await DeadLetters(kept).keep(letters)
    assert [DEAD_LETTERS_TOPIC] * 2 == [message.topic for message in kept.messages]
    first, second = (DeadLetterMessage.FromString(message.payload) for message in kept.messages)
    assert (METRICS_TOPIC, 3, 2**40, "cannot parse", b"\xff not a batch") == (
        first.topic,
        first.partition,
        first.offset,
        first.error,
        first.payload,
    )
    assert (0, 7) == (second.partition, second.offset)
