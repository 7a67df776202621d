"""A range of infrasage.dead_letters, as the writer reads it."""

from uuid import UUID

import pytest
from infrasage.v1.dead_letter_pb2 import (
    DEAD_LETTER_ACTION_DISCARDED,
    DEAD_LETTER_ACTION_REJECTED_AGAIN,
    DEAD_LETTER_ACTION_REPLAYED,
    DeadLetter,
    DeadLetterBatch,
    DeadLetterEvent,
    DeadLetterRecord,
)
from infrasage.v1.telemetry_pb2 import SOURCE_OTLP, TelemetryBatch, TelemetryRecord
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1
from support.batches import gauge
from support.fakes.stores import replayed
from support.records import encoded, flat

from adapters.record_headers import header_first
from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC, Partition, Range
from collector.records.dead_letter import replay_batch_id
from collector.writer.replay_range import DeadLetterRange, by_topic

LETTER = b"d" * 16
LOG = "a log"
OTHER = b"o" * 16
NOW = 1_775_822_400_000_000_000


def replay(letter: bytes = LETTER, topic: str = METRICS_TOPIC, **changes: object) -> DeadLetterEvent:
    batch_id = replay_batch_id(letter)
    event = DeadLetterEvent(
        id=b"e" * 16,
        dead_letter_id=letter,
        tenant_id="acme",
        action=DEAD_LETTER_ACTION_REPLAYED,
        batch_id=batch_id,
        topic=topic,
        payload=replayed("a", batch_id),
    )
    for name, value in changes.items():
        setattr(event, name, value)
    return event


def batch(*records: DeadLetterEvent | DeadLetter) -> bytes:
    return DeadLetterBatch(
        records=[
            DeadLetterRecord(event=one) if isinstance(one, DeadLetterEvent) else DeadLetterRecord(letter=one) for one in records
        ]
    ).SerializeToString()


def read(*payloads: bytes, start: int = 0, log: str = LOG) -> DeadLetterRange:
    messages = Range(Partition(DEAD_LETTERS_TOPIC, 0), start, start + len(payloads), payloads, log=log)
    return DeadLetterRange(messages, NOW)


def records(what: DeadLetterRange) -> list[DeadLetterRecord]:
    return [record for payload in what.payloads() for record in DeadLetterBatch.FromString(payload).records]


def test_entries_pass_as_they_are() -> None:
    payloads = [batch(DeadLetter(id=LETTER, payload=b"x")), b"", batch(DeadLetter(id=OTHER), DeadLetter(id=LETTER))]
    what = read(*payloads)
    assert payloads == what.payloads()
    assert [] == what.replays


def test_a_replay_is_taken_out_of_its_event() -> None:
    """The record is stored as telemetry, marked with its range; the event is stored without it."""
    what = read(batch(replay()), start=41, log="")
    (found,) = what.replays
    assert (found.topic, found.batch_id) == (METRICS_TOPIC, UUID(bytes=replay_batch_id(LETTER)))
    assert [42, 42] == [record.batch_part for record in TelemetryBatch.FromString(found.payload).records]
    (stored,) = records(what)
    assert stored.event == replay(payload=b"")


def test_a_replay_of_version_1_is_stored_as_one_of_today() -> None:
    """It was appended before an upgrade. The record has our order, however it came."""
    version_1 = gauge(1, 2)
    version_1.records.add(source=SOURCE_OTLP).receipt.received = 2
    for record in version_1.records:
        record.batch_id = replay_batch_id(LETTER)
    forms = [
        version_1.SerializeToString(),
        encoded(version_1),
        TelemetryBatch.FromString(encoded(version_1)).SerializeToString(),
    ]
    for record in version_1.records:
        record.batch_part = 42
    for payload in forms:
        (found,) = read(batch(replay(payload=payload)), start=41, log="").replays
        assert version_1 == flat(found.payload)
        assert [2, 2] == [record.version for record in TelemetryBatch.FromString(found.payload).records]
        assert found.payload == header_first(found.payload)


def test_the_same_range_gives_the_same_bytes() -> None:
    payloads = [batch(replay()), batch(replay(OTHER, LOGS_TOPIC), DeadLetter(id=LETTER))]
    first, second = read(*payloads, start=7), read(*payloads, start=7)
    assert [each.payload for each in first.replays] == [each.payload for each in second.replays]
    assert first.payloads() == second.payloads()


def test_marks_tell_ranges_apart() -> None:
    """None is 0, which is what the messages of gateways have."""
    marks = [read(b"", start=start).mark for start in (0, 1, 2, 2**32 - 2)]
    assert len(set(marks)) == len(marks)
    assert all(0 < mark < 2**32 for mark in marks)
    assert read(b"", start=2**40).mark < 2**32
    # The same offsets of another log are another range; those of no known log are marked as versions without identities did.
    assert read(b"", start=1).mark != read(b"", start=1, log="another log").mark
    assert 8 == read(b"", start=7, log="").mark


def test_a_dead_letter_is_replayed_once() -> None:
    """The first of two replays counts, whatever topics they name, and both events are kept."""
    what = read(batch(replay()), batch(replay(topic=LOGS_TOPIC), replay(OTHER, LOGS_TOPIC)))
    assert [METRICS_TOPIC, LOGS_TOPIC] == [each.topic for each in what.replays]
    assert [2, 1] == [len(each.events) for each in what.replays]
    assert 3 == len(records(what))


def test_what_is_stored_already_is_left_out() -> None:
    what = read(batch(replay(), replay(OTHER, LOGS_TOPIC)))
    assert {METRICS_TOPIC: [what.replays[0]], LOGS_TOPIC: [what.replays[1]]} == by_topic(what.replays, set())
    assert {LOGS_TOPIC: [what.replays[1]]} == by_topic(what.replays, {what.replays[0].batch_id})


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (replay(topic="infrasage.dead_letters"), "'infrasage.dead_letters'"),
        (replay(payload=b"\xff\xff"), "2 bytes"),
        (replay(batch_id=b"x" * 16), "another batch id"),
        (replay(batch_id=b"short"), "another batch id"),
        (
            replay(
                payload=TelemetryBatch(
                    records=[TelemetryRecord(batch_id=replay_batch_id(LETTER), item_count=1)]
                ).SerializeToString()
            ),
            "receipt",
        ),
        (replay(payload=b"\x12\x00"), "receipt"),
    ],
)
def test_a_replay_that_can_not_be_one_is_rejected_again(event: DeadLetterEvent, why: str) -> None:
    """Its event says so, and nothing of it is stored as telemetry."""
    what = read(batch(event))
    assert [] == what.replays
    (stored,) = records(what)
    assert stored.event.action == DEAD_LETTER_ACTION_REJECTED_AGAIN
    assert stored.event.reason == "unreadable_message"
    assert why in stored.event.message
    assert stored.event.dead_letter_id == LETTER


def test_other_events_bring_nothing() -> None:
    what = read(batch(replay(action=DEAD_LETTER_ACTION_DISCARDED), replay(payload=b"")))
    assert [] == what.replays
    assert [DEAD_LETTER_ACTION_DISCARDED, DEAD_LETTER_ACTION_REPLAYED] == [each.event.action for each in records(what)]
    assert not any(each.event.payload for each in records(what))


def test_what_version_0_1_kept_becomes_an_entry() -> None:
    """Position, error and record are in it, and two of the same message are two."""
    telemetry = [
        TelemetryBatchV1(
            records=[TelemetryRecordV1(tenant_id=name, source=SOURCE_OTLP, batch_id=b"b" * 16, item_count=3)]
        ).SerializeToString()
        for name in ("acme", "other")
    ]
    old = [DeadLetter(topic=METRICS_TOPIC, partition=3, offset=2**40, error="no", payload=payload) for payload in telemetry]
    first, second = (record.letter for record in records(read(*(letter.SerializeToString() for letter in old))))
    assert (first.topic, first.partition, first.offset, first.error) == (METRICS_TOPIC, 3, 2**40, "no")
    assert (first.tenant_id, first.batch_id, first.item_count) == ("acme", b"b" * 16, 3)
    assert (first.reason, first.kept_time_unix_nano) == ("store_refused", NOW)
    assert (len(first.id), second.tenant_id) == (16, "other")
    assert first.id != second.id
    again = records(read(old[0].SerializeToString(), start=99))
    assert first.id == again[0].letter.id


@pytest.mark.parametrize("payload", [b"\xff not a batch", replayed("a", b"b" * 16), b"\x0a\xff", b"\x32\x05"])
def test_what_is_no_dead_letter_becomes_one(payload: bytes) -> None:
    """Its message is its payload, its place its own; and nothing of the range is lost for it."""
    (letter, after) = (record.letter for record in records(read(payload, batch(DeadLetter(id=OTHER)), start=5)))
    assert (letter.payload, letter.topic, letter.partition, letter.offset) == (payload, DEAD_LETTERS_TOPIC, 0, 5)
    assert letter.reason == "unreadable_message"
    assert len(letter.id) == 16
    assert after.id == OTHER
