"""What the writer can't store, as an entry among the dead letters."""

from collections.abc import Sequence

from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_TELEMETRY_BATCH, PAYLOAD_FORM_UNREADABLE, DeadLetterBatch
from infrasage.v1.telemetry_pb2 import SOURCE_OTLP, TYPE_METRIC
from support.batches import batch_id, gauge
from support.records import encoded

from collector.broker.contract import DEAD_LETTERS_TOPIC, METRICS_TOPIC, Message, Partition
from collector.records.dead_letter import ENTRY_BYTES_MAX, record_id
from collector.writer.store_refusals import RefusedItem, RefusedRecords, entry

PARTITION = Partition(METRICS_TOPIC, 3)
LOG = "a log"


class Kept:
    """A producer that remembers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def append(self, messages: Sequence[Message]) -> None:
        self.messages += messages


def test_a_record_that_the_store_refused_is_its_tenants() -> None:
    """Tenant, batch id and items are the record's own, and it can be read again; its place and the reason are there."""
    batch = gauge(7, 5)
    batch.records[0].source, batch.records[0].type = SOURCE_OTLP, TYPE_METRIC
    letter = entry(RefusedItem(PARTITION, LOG, 2**40, (2,), encoded(batch), "cannot parse"), 5)
    record = batch.records[0]
    assert (letter.topic, letter.partition, letter.offset, letter.record_index) == (METRICS_TOPIC, 3, 2**40, 2)
    assert (letter.reason, letter.error) == ("store_refused", "cannot parse")
    assert (letter.tenant_id, letter.service_id, letter.batch_id) == (record.tenant_id, record.service_id, batch_id(7))
    assert (letter.source, letter.type, letter.item_count) == (SOURCE_OTLP, TYPE_METRIC, 5)
    assert (letter.received_time_unix_nano, letter.kept_time_unix_nano) == (record.received_time_unix_nano, 5)
    assert (letter.payload, letter.payload_form) == (encoded(batch), PAYLOAD_FORM_TELEMETRY_BATCH)
    assert letter.id == record_id(LOG, METRICS_TOPIC, 3, 2**40, 2)


def test_what_can_not_be_read_is_nobodys() -> None:
    """A message that is no batch is kept as it is, with its place."""
    for payload in (b"\xff not a batch", b"", encoded(gauge(1, 1)) * 2):
        letter = entry(RefusedItem(PARTITION, LOG, 7, (0,), payload, "x" * 10_000), 5)
        assert (letter.reason, letter.tenant_id, letter.batch_id) == ("unreadable_message", "", b"")
        assert (letter.payload, letter.payload_form) == (payload, PAYLOAD_FORM_UNREADABLE)
        assert (letter.topic, letter.partition, letter.offset) == (METRICS_TOPIC, 3, 7)


def test_a_batch_id_that_is_none_is_not_taken_over() -> None:
    """It may be why the store refused it; the entry must not be refused for it again."""
    batch = gauge(1, 1)
    batch.records[0].batch_id = b"seventeen bytes.."
    letter = entry(RefusedItem(PARTITION, LOG, 7, (0,), encoded(batch), "too large"), 5)
    assert (letter.reason, letter.batch_id) == ("store_refused", b"")


async def test_kept_twice_they_are_the_same() -> None:
    """A crash between keeping and committing keeps them again: the ids tell."""
    kept = Kept()
    refused = [RefusedItem(PARTITION, LOG, offset, (0,), encoded(gauge(offset, 1)), "x") for offset in range(4)]
    for now in (1, 2):
        await RefusedRecords(kept, 1 << 20, lambda now=now: now).keep(refused)  # type: ignore[misc]
    first, second = (DeadLetterBatch.FromString(message.payload).records for message in kept.messages)
    assert [DEAD_LETTERS_TOPIC] * 2 == [message.topic for message in kept.messages]
    assert [record.letter.id for record in first] == [record.letter.id for record in second]
    assert 4 == len({record.letter.id for record in first})


async def test_every_record_of_ours_fits_with_all_that_is_said_of_it() -> None:
    """One that fills a message, but for the room that gateways leave: its dead letter is no larger than a message may be."""
    message_bytes_max = 16 * 1024
    batch = gauge(1, 1)
    batch.records[0].tenant_id = "€" * 128
    batch.records[0].service_id = "s" * 1024
    room = message_bytes_max - ENTRY_BYTES_MAX
    batch.records[0].metrics[0].description = "x" * (room - len(encoded(batch)) - 16)
    assert room - 16 <= len(encoded(batch)) <= room
    kept = Kept()
    refused = RefusedItem(Partition("infrasage." + "t" * 200, 2**31 - 1), LOG, 2**62, (2**31,), encoded(batch), "€" * 10_000)
    await RefusedRecords(kept, message_bytes_max, lambda: 2**62).keep([refused])
    (message,) = kept.messages
    assert len(message.payload) <= message_bytes_max
    (record,) = DeadLetterBatch.FromString(message.payload).records
    assert record.letter.payload == encoded(batch)


def test_the_same_place_in_another_log_is_another_entry() -> None:
    """Offsets repeat when a log begins anew: a dead letter of the new log does not replace one of the former."""
    payload = encoded(gauge(1, 1))
    ids = [entry(RefusedItem(PARTITION, log, 7, (0,), payload, "x"), 5).id for log in ("", "one", "another", "one")]
    assert 3 == len(set(ids))
    assert ids[1] == ids[3]


def test_an_item_of_a_divided_record_has_an_id_of_its_own() -> None:
    """Two items of one record, refused alone, are two entries, and neither is the record's."""
    payload = encoded(gauge(1, 1))
    ids = [entry(RefusedItem(PARTITION, LOG, 7, path, payload, "x"), 5).id for path in [(0,), (0, 0), (0, 1), (1, 0), (1,)]]
    assert 5 == len(set(ids))
