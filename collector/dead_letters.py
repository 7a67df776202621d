"""What no store will take: kept, so that nothing is dropped.

The law: a dead letter is durable before its original is committed. It is kept at least once: a crash between the two keeps it
again, and its batch id, batch part and items tell that it is the same.

Each is a message of its own on infrasage.dead_letters (infrasage.v1.DeadLetter): the record as it was, where it stood, and what
the store said. Nothing consumes that topic yet.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog
from infrasage.v1 import dead_letter_pb2

from collector.broker.contract import DEAD_LETTERS_TOPIC, Message, Partition, Producer


class DeadLetter(NamedTuple):
    """One record that the store refused."""

    partition: Partition
    offset: int  # of the message it was in
    payload: bytes  # a TelemetryBatch of this record; the message itself where it is not even that
    error: str  # what the store said


class DeadLetters:
    """Keeps them in the broker that they came from."""

    def __init__(self, producer: Producer) -> None:
        self._producer: Final = producer
        self._logger: Final = structlog.get_logger(__name__)

    async def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Return when all of them are durable. Raises BrokerError."""
        await self._producer.append([Message(DEAD_LETTERS_TOPIC, _serialized(letter)) for letter in letters])
        first = letters[0]
        self._logger.error(
            "the store refused records, kept as dead letters",
            records=len(letters),
            topic=first.partition.topic,
            partition=first.partition.index,
            first_offset=first.offset,
            first_error=first.error,
        )


def _serialized(letter: DeadLetter) -> bytes:
    return dead_letter_pb2.DeadLetter(
        topic=letter.partition.topic,
        partition=letter.partition.index,
        offset=letter.offset,
        error=letter.error,
        payload=letter.payload,
    ).SerializeToString()
