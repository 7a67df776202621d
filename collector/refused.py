"""What the writer can't store becomes dead letters: records that the store refused, and messages that can't be read.

The law: a dead letter is durable before its original is committed. It is kept at least once, and its id, which is made of its
place in the broker, tells that it is the same.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog
from google.protobuf.message import DecodeError
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_TELEMETRY_BATCH, PAYLOAD_FORM_UNREADABLE, DeadLetter, DeadLetterRecord
from infrasage.v1.telemetry_pb2 import TelemetryBatch, TelemetryRecord

from adapters.errors import REASON, STORE_REFUSED, UNREADABLE_MESSAGE
from collector.broker.contract import Partition, Producer
from collector.dead_letters import messages, record_id, text


class Refused(NamedTuple):
    """One record, or a message that does not divide into records."""

    partition: Partition
    log: str  # the identity of the log, as Range has it
    offset: int  # of the message it was in
    path: tuple[
        int, ...
    ]  # the record's number in the message; of an item that it was divided into, also its number in the record
    payload: bytes  # a TelemetryBatch of this record; the message itself where it is not even that
    error: str  # what the store said


class RefusedRecords:
    """Keeps them in the broker that they came from."""

    def __init__(self, producer: Producer, message_bytes_max: int, now_unix_nano: Callable[[], int]) -> None:
        self._producer: Final = producer
        self._message_bytes_max: Final = message_bytes_max
        self._now_unix_nano: Final = now_unix_nano
        self._logger: Final = structlog.get_logger(__name__)

    async def keep(self, refused: Sequence[Refused]) -> None:
        """Return when all of them are durable. Raises BrokerError."""
        now = self._now_unix_nano()
        records = (DeadLetterRecord(letter=entry(one, now)) for one in refused)
        await self._producer.append(messages(records, self._message_bytes_max))
        first = refused[0]
        self._logger.error(
            "the store refused records, kept as dead letters",
            records=len(refused),
            topic=first.partition.topic,
            partition=first.partition.index,
            first_offset=first.offset,
            first_error=first.error,
        )


def entry(refused: Refused, now_unix_nano: int) -> DeadLetter:
    """With its header's fields, if it can be read."""
    partition = refused.partition
    letter = DeadLetter(
        id=record_id(refused.log, partition.topic, partition.index, refused.offset, *refused.path),
        kept_time_unix_nano=now_unix_nano,
        topic=partition.topic,
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
    """The one record of it; None: it can't be read."""
    try:
        batch = TelemetryBatch.FromString(payload)
    except DecodeError:
        return None
    return batch.records[0] if len(batch.records) == 1 else None
