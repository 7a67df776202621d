"""Read a range of infrasage.dead_letters. It contains entries and events, which are stored as they are, and records of replays,
which are stored as telemetry before them.

A replayed record has the same batch id each time, and a mark of the range that it came in (the batch part). A record stored
under that batch id with another mark came from an earlier range, and is left out. A record with this mark came with an earlier
attempt at this same range. This holds because all replays are in one partition, where ranges follow one another.

Invariants:
1. A dead letter that is replayed twice is stored once (test_a_dead_letter_is_replayed_once).
2. However often a range is repeated, the rows to be stored and their token are the same
   (test_the_same_range_gives_the_same_bytes).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple
from uuid import UUID

from google.protobuf.message import DecodeError
from infrasage.v1.dead_letter_pb2 import (
    DEAD_LETTER_ACTION_REJECTED_AGAIN,
    DEAD_LETTER_ACTION_REPLAYED,
    DeadLetter,
    DeadLetterBatch,
    DeadLetterEvent,
    DeadLetterRecord,
)
from infrasage.v1.telemetry_pb2 import TelemetryBatch

from adapters.codec.wire import NonCanonical
from adapters.errors import REASON, UNREADABLE_MESSAGE
from adapters.record_headers import header_first
from adapters.record_upgrade import current
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, Partition, Range
from collector.broker.range_digest import without_digest
from collector.records.dead_letter import text
from collector.writer.store_refusals import RefusedItem, entry

_BATCH_ID_BYTES: Final = 16
_SIGNALS: Final = frozenset({METRICS_TOPIC, LOGS_TOPIC, TRACES_TOPIC})


class Replay(NamedTuple):
    """One record to be stored, and the events that contain it. The record is the first event's; the others repeat it."""

    events: list[DeadLetterEvent]
    batch_id: UUID
    topic: str
    payload: bytes  # a TelemetryBatch, marked


class DeadLetterRange:
    """A decoded range of dead letters. `replays` are in the order of the range, each batch id once."""

    def __init__(self, messages: Range, now_unix_nano: int) -> None:
        self.mark: Final = _mark(messages)
        self._batches: Final = [_read(messages, index, now_unix_nano) for index in range(len(messages.payloads))]
        self.replays: Final = self._replays()

    def _replays(self) -> Sequence[Replay]:
        found: dict[UUID, Replay] = {}
        for batch in self._batches:
            for record in batch.records:
                if not record.HasField("event") or not record.event.payload:
                    continue
                event = record.event
                if event.action == DEAD_LETTER_ACTION_REPLAYED:
                    try:
                        replay = _replay(event, self.mark)
                    except ValueError as error:
                        refuse(event, UNREADABLE_MESSAGE, str(error))
                    else:
                        found.setdefault(replay.batch_id, replay).events.append(event)
                event.ClearField("payload")  # stored by itself, and not with the event
        return list(found.values())

    def payloads(self) -> list[bytes]:
        """Return the messages in the form that the store takes."""
        return [batch.SerializeToString() for batch in self._batches]


def by_topic(replays: Iterable[Replay], stored: Collection[UUID]) -> Mapping[str, Sequence[Replay]]:
    """Return the replays that are not stored yet, by topic."""
    found: dict[str, list[Replay]] = {}
    for replay in replays:
        if replay.batch_id not in stored:
            found.setdefault(replay.topic, []).append(replay)
    return found


def refuse(event: DeadLetterEvent, reason: int, message: str) -> None:
    """Record in an event that its replay is rejected, with the reason."""
    event.action = DEAD_LETTER_ACTION_REJECTED_AGAIN
    event.reason = REASON[reason].name
    event.message = text(message)


def _replay(event: DeadLetterEvent, mark: int) -> Replay:
    """Return the replay of an event, with no events yet. Raises ValueError if its record is invalid."""
    if event.topic not in _SIGNALS:
        raise ValueError(f"a replay for topic {event.topic!r}, which is no signal's")
    try:
        batch = TelemetryBatch.FromString(current(event.payload))
    except DecodeError:
        raise ValueError(f"a replay whose record, {len(event.payload)} bytes, can't be read") from None
    if len(event.batch_id) != _BATCH_ID_BYTES or any(record.batch_id != event.batch_id for record in batch.records):
        raise ValueError("a replay whose record has another batch id than the replay")
    if not any(record.HasField("receipt") for record in batch.records):
        raise ValueError("a replay without a receipt: nothing would show that it is stored")
    for record in batch.records:
        record.batch_part = mark
    try:
        payload = header_first(batch.SerializeToString())
    except NonCanonical:
        raise ValueError("a replay whose record has fields that nobody writes") from None
    return Replay([], UUID(bytes=event.batch_id), event.topic, payload)


def _mark(messages: Range) -> int:
    """Return the mark of a range, from 1 to 2**32 - 1. Ranges of one log have different marks. Ranges of two logs rarely have
    equal marks, which matters only if they replay the same entry."""
    log = without_digest(messages.log)
    digest = blake2b(log.encode(), digest_size=4).digest() if log else b""
    return 1 + (int.from_bytes(digest, "big") + messages.start) % 0xFFFFFFFF


def _read(messages: Range, index: int, now_unix_nano: int) -> DeadLetterBatch:
    """Return a decoded message. If it can't be read, return an entry that has it as its payload."""
    payload = bytes(messages.payloads[index])
    try:
        batch = DeadLetterBatch.FromString(payload)
        if batch.records or not payload:
            return batch
        letter = _from_version_0_1(DeadLetter.FromString(payload), now_unix_nano)
    except DecodeError:
        letter = None
    if letter is None:
        refused = RefusedItem(
            messages.partition, messages.log, messages.start + index, (0,), payload, "neither entries nor events"
        )
        letter = entry(refused, now_unix_nano)
    return DeadLetterBatch(records=[DeadLetterRecord(letter=letter)])


def _from_version_0_1(letter: DeadLetter, now_unix_nano: int) -> DeadLetter | None:
    """Return the bare entry that version 0.1 wrote, with all fields of today's entries; None if it is no such entry."""
    if letter.topic not in _SIGNALS:
        return None
    # Version 0.1 did not record the number of the record in its message.
    number = int.from_bytes(blake2b(letter.payload, digest_size=4).digest(), "big")
    partition = Partition(letter.topic, letter.partition)
    return entry(RefusedItem(partition, "", letter.offset, (number,), letter.payload, letter.error), now_unix_nano)
