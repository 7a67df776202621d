"""Read from a payload which messages it contains, how many items each has, and its receipts, almost without decoding it.

In telemetry, only the header and the fields after the groups are read. The resource and the groups, which are nearly all of the
bytes, are skipped. Dead letters are few, and are decoded.
"""

from typing import Final, NamedTuple
from uuid import UUID

from google.protobuf.message import DecodeError
from infrasage.v1.dead_letter_pb2 import DeadLetterBatch

from adapters.codec.wire import Cursor, NonCanonical
from adapters.record_tags import BATCH_ID, BATCH_PART, FINGERPRINT, ITEM_COUNT, RECEIPT, RECORD
from collector.broker.contract import DEAD_LETTERS_TOPIC

_ID_BYTES: Final = 16

# A batch id and a batch part.
MessageKey = tuple[UUID, int]
# A tenant and a fingerprint, which are equal for copies of a message.
CopyKey = tuple[bytes, bytes]


class Contents(NamedTuple):
    """The items and receipts of concatenated TelemetryBatch payloads."""

    items: dict[MessageKey, int]
    receipts: set[MessageKey]  # also records that have a fingerprint: each is a row of telemetry_batches


class DeadLetterIds(NamedTuple):
    """The ids in concatenated DeadLetterBatch payloads."""

    letters: set[UUID]
    events: set[UUID]


def contents(payload: bytes) -> Contents:
    """Return the number of items, and the receipts, by batch id and batch part.

    Raises ValueError if our adapters did not write these bytes.
    """
    items: dict[MessageKey, int] = {}
    receipts: set[MessageKey] = set()
    cursor = Cursor(payload)
    end = len(payload)
    try:
        while cursor.position < end:
            if cursor.field(end) != RECORD:
                continue
            after = cursor.position
            cursor.position = cursor.start
            batch_id, part, count, has_receipt = b"", 0, 0, False
            while cursor.position < after:
                tag = cursor.field(after)
                if tag == BATCH_ID:
                    batch_id = payload[cursor.start : cursor.position]
                elif tag == BATCH_PART:
                    part = cursor.value
                elif tag == ITEM_COUNT:
                    count = cursor.value
                elif tag in (RECEIPT, FINGERPRINT):
                    has_receipt = True
            key = (_uuid(batch_id, "a record's batch id"), int(part))
            if has_receipt:
                receipts.add(key)
            if count or not has_receipt:
                items[key] = items.get(key, 0) + int(count)
    except NonCanonical as error:
        raise ValueError(f"not a TelemetryBatch: {end} bytes, malformed at {error.position}") from error
    return Contents(items, receipts)


def can_be_looked_up(topic: str, payload: bytes) -> bool:
    """Return whether everything in payloads of a topic can be looked up in the store. Bytes that are not ours can't be."""
    try:
        if topic == DEAD_LETTERS_TOPIC:
            dead_letter_ids(payload)
        else:
            contents(payload)
    except ValueError:
        return False
    return True


def record_count(payload: bytes) -> int:
    """Return how many records concatenated TelemetryBatch payloads have. Raises ValueError."""
    cursor = Cursor(payload)
    end = len(payload)
    records = 0
    try:
        while cursor.position < end:
            records += cursor.field(end) == RECORD
    except NonCanonical as error:
        raise ValueError(f"not a TelemetryBatch: {end} bytes, malformed at {error.position}") from error
    return records


def dead_letter_ids(payload: bytes) -> DeadLetterIds:
    """Return the ids of dead letters and events. Raises ValueError if we did not write these bytes."""
    try:
        batch = DeadLetterBatch.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"not a DeadLetterBatch: {len(payload)} bytes") from error
    return DeadLetterIds(
        {_uuid(record.letter.id, "a dead letter's id") for record in batch.records if record.letter.id},
        {_uuid(record.event.id, "an event's id") for record in batch.records if record.event.id},
    )


def _uuid(id_: bytes, what: str) -> UUID:
    if len(id_) != _ID_BYTES:
        raise ValueError(f"{what} has {len(id_)} bytes, not {_ID_BYTES}")
    return UUID(bytes=id_)
