"""Make dead letters of everything that the writer can't store: records that the store refused, and messages that can't be read.

Invariants:
1. A dead letter is durable before its original is committed (test_writer.py,
   test_dead_letters_that_cannot_be_kept_are_not_committed).
2. A dead letter is kept at least once. Its id is made of its original's place in the broker, so a repetition has the same id
   (test_store_refusals.py, test_kept_twice_they_are_the_same).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from google.protobuf.message import DecodeError
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_TELEMETRY_BATCH, PAYLOAD_FORM_UNREADABLE, DeadLetter, DeadLetterRecord
from infrasage.v1.telemetry_pb2 import Source, TelemetryBatch, TelemetryRecord

from adapters.errors import REASON, STORE_REFUSED, UNREADABLE_MESSAGE
from adapters.record_upgrade import current
from collector.broker.contract import Partition, Producer
from collector.records.dead_letter import messages, record_id, text
from collector.writer.irregular import irregular_field


class RefusedItem(NamedTuple):
    """A refused item, or a record that does not divide into items, or a message that does not divide into records."""

    partition: Partition
    log: str  # the identity of the log, as in Range
    offset: int  # the offset of its message
    path: tuple[int, ...]  # the record's number in the message; if the record was divided, also the item's number in the record
    payload: bytes  # a TelemetryBatch with the item; the message itself if it can't be read
    error: str  # the store's error
    topic: str = ""  # the topic of ours that it was to be stored as; empty: the partition's topic

    @property
    def stored_as(self) -> str:
        """Return the topic, one of ours, that it was to be stored as."""
        return self.topic or self.partition.topic


class RefusedRecords:
    """Appends refused items as dead letters to the broker that they came from."""

    def __init__(self, producer: Producer, message_bytes_max: int, now_unix_nano: Callable[[], int]) -> None:
        self._producer: Final = producer
        self._message_bytes_max: Final = message_bytes_max
        self._now_unix_nano: Final = now_unix_nano
        self._logger: Final = structlog.get_logger(__name__)

    async def keep(self, refused: Sequence[RefusedItem]) -> Mapping[str, int]:
        """Make dead letters durable. Return the number of items by source. Raises BrokerError."""
        now = self._now_unix_nano()
        letters = [entry(one, now) for one in refused]
        fields = [irregular_field(one.stored_as, one.payload) for one in refused]
        records = (DeadLetterRecord(letter=letter) for letter in letters)
        await self._producer.append(messages(records, self._message_bytes_max))
        samples: dict[str, int] = {}
        items: Counter[str] = Counter()
        for index, letter in enumerate(letters):
            source = _source(letter)
            samples.setdefault(source, index)
            items[source] += max(1, letter.item_count)
        for source, index in samples.items():
            letter = letters[index]
            self._logger.error(
                "the store refused items, kept as dead letters: a defect of the collector, please report it",
                source=source,
                items=items[source],
                dead_letter=str(UUID(bytes=letter.id)),
                field=fields[index] or "not known",
                topic=letter.topic,
                partition=letter.partition,
                offset=letter.offset,
                error=letter.error,
            )
        return items


def _source(letter: DeadLetter) -> str:
    """Return the adapter that wrote a record, by its name in metrics."""
    return Source.Name(letter.source).removeprefix("SOURCE_").lower()


def entry(refused: RefusedItem, now_unix_nano: int) -> DeadLetter:
    """Return the dead letter of a refused item, with the fields of its header if that can be read."""
    partition = refused.partition
    letter = DeadLetter(
        id=record_id(refused.log, partition.topic, partition.index, refused.offset, *refused.path),
        kept_time_unix_nano=now_unix_nano,
        topic=refused.stored_as,
        route="" if refused.stored_as == partition.topic else f"kafka:{partition.topic}",
        partition=partition.index,
        offset=refused.offset,
        record_index=refused.path[0],
        error=text(refused.error),
        payload=refused.payload,
        payload_size_bytes=len(refused.payload),
    )
    record = _record(refused.payload)
    if record is None:
        reason = REASON[UNREADABLE_MESSAGE]
        letter.payload_form = PAYLOAD_FORM_UNREADABLE
    else:
        reason = REASON[STORE_REFUSED]
        letter.payload_form = PAYLOAD_FORM_TELEMETRY_BATCH
        letter.tenant_id = record.tenant_id
        letter.received_time_unix_nano = record.received_time_unix_nano
        letter.source = record.source
        letter.type = record.type
        letter.service_id = text(record.service_id)
        letter.batch_id = record.batch_id if len(record.batch_id) == 16 else b""
        letter.item_count = record.item_count
    letter.reason = reason.name
    letter.message = reason.meaning
    return letter


def _record(payload: bytes) -> TelemetryRecord | None:
    """Return the only record of a payload; None if it can't be read."""
    try:
        batch = TelemetryBatch.FromString(current(payload))
    except DecodeError:
        return None
    return batch.records[0] if len(batch.records) == 1 else None
